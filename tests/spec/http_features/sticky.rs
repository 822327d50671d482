//! Clients that are kept with a server by a cookie.

use std::collections::BTreeSet;

use super::origin::{Origin, configuration, connect, get, http};
use crate::stage::Instance;
use crate::stage::http::{Recorder, ok};
use crate::stage::http2::Version;
use crate::stage::speaker::Speaker;

const STICKY: &str = "sticky = { cookie = \"srv\", http_only = true, same_site = \"strict\", ttl = \"1h\" }";

#[tokio::test]
async fn a_client_stays_with_the_server_that_its_cookie_is_for() {
    let (a, b) = (Origin::named("a").await, Origin::named("b").await);
    let instance = http("", &[a.server.address, b.server.address], STICKY).await;
    let first = get(&instance, "/", "").await;
    let whole = first.value("set-cookie").unwrap();
    assert!(
        whole.starts_with("srv=") && whole.ends_with("; Path=/; Max-Age=3600; HttpOnly; SameSite=Strict"),
        "{whole}"
    );
    assert!(!whole.contains("127.0.0.1"));
    for _ in 0..6 {
        let again = get(&instance, "/", &format!("Cookie: lang=en; {}\r\n", first.cookie().unwrap())).await;
        assert_eq!((again.text(), again.value("set-cookie")), (first.text(), None));
    }
    // Without it, clients are spread as ever.
    let mut seen = BTreeSet::new();
    for _ in 0..4 {
        seen.insert(get(&instance, "/", "").await.text().to_owned());
    }
    assert_eq!(seen.len(), 2);
}

#[tokio::test]
async fn a_cookie_holds_in_other_instances_and_after_a_restart() {
    let (a, b) = (Origin::named("a").await, Origin::named("b").await);
    let configuration = configuration("", &[a.server.address, b.server.address], STICKY);
    let instance = Instance::start(&configuration).await;
    let other = Instance::start(&configuration).await;
    let answers = [get(&instance, "/", "").await, get(&instance, "/", "").await];
    assert_ne!(answers[0].text(), answers[1].text());
    let stays = async |instance: &Instance| {
        for answer in &answers {
            let again = get(instance, "/", &format!("Cookie: {}\r\n", answer.cookie().unwrap())).await;
            assert_eq!((again.text(), again.value("set-cookie")), (answer.text(), None));
        }
    };
    stays(&other).await;
    drop(instance);
    stays(&Instance::start(&configuration).await).await;
}

#[tokio::test]
async fn a_cookie_of_nobody_is_replaced() {
    let a = Origin::named("a").await;
    let instance = http("", &[a.server.address], STICKY).await;
    let right = get(&instance, "/", "").await;
    for cookie in ["srv=", "srv=AAAAAAAAAAAAAAAA", "srv=\"", "srv", "srv=x; srv=y"] {
        let answer = get(&instance, "/", &format!("Cookie: {cookie}\r\n")).await;
        assert_eq!(answer.cookie(), right.cookie(), "{cookie}");
    }
}

#[tokio::test]
async fn a_server_that_is_drained_or_gone_gets_nobody_back() {
    let (a, mut b) = (Origin::named("a").await, Origin::named("b").await);
    let servers = [a.server.address, b.server.address];
    let before = configuration("", &servers, STICKY);
    let instance = Instance::start(&before).await;
    let mut of_b = get(&instance, "/", "").await;
    while of_b.text() != "b" {
        of_b = get(&instance, "/", "").await;
    }
    let cookie = format!("Cookie: {}\r\n", of_b.cookie().unwrap());
    let list = format!("{:?}", servers.map(|server| server.to_string()));
    let weighted = |b: u16| {
        let entry = |server, weight| format!("{{ name = \"{server}\", address = \"{server}\", weight = {weight} }}");
        before.replace(&list, &format!("[{}, {}]", entry(servers[0], 1), entry(servers[1], b)))
    };
    let drained = weighted(0);
    instance.running.reload_text(&drained).await.unwrap();
    let moved = get(&instance, "/", &cookie).await;
    assert_eq!(moved.text(), "a");
    assert!(moved.cookie().is_some() && moved.cookie() != of_b.cookie());
    instance.running.reload_text(&weighted(1)).await.unwrap();
    assert_eq!(get(&instance, "/", &cookie).await.text(), "b");
    b.server.stop().await;
    let moved_again = get(&instance, "/", &cookie).await;
    assert_eq!((moved_again.text(), moved_again.cookie()), ("a", moved.cookie()));
}

#[tokio::test]
async fn a_change_of_protocol_sets_the_cookie_too() {
    let origin =
        Origin::start(|_| b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n".to_vec());
    let origin = origin.await;
    let instance = http("", &[origin.server.address], STICKY).await;
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n";
    let answer = super::origin::ask_over(&mut connect(&instance).await, request).await;
    assert_eq!(answer.status(), 101);
    assert!(answer.cookie().unwrap().starts_with("srv="));
}

#[tokio::test]
async fn the_cookie_is_between_the_client_and_us_and_servers_get_the_others() {
    for (version, behind) in Version::pairs() {
        let server = Recorder::speaking(behind, ok("ok")).await;
        let pool = format!("{STICKY}\n{}", behind.of_pool());
        let instance = http("", &[server.address()], &pool).await;
        let mut client = Speaker::of(version, &instance).await;
        let own = client.ask("/").await;
        let own = own.field("set-cookie").split(';').next().unwrap();
        assert_eq!(server.saw().one("cookie"), None);
        for (sent, passed) in [
            (own.to_owned(), None),
            (format!("{own}; a=b"), Some("a=b")),
            (format!("a=b; {own}; c=d"), Some("a=b; c=d")),
            ("a=b; srv=made-up".to_owned(), Some("a=b")),
            ("a=b; c; SRV=x".to_owned(), Some("a=b; c; SRV=x")),
        ] {
            client.ask_with("/", &format!("Cookie: {sent}\r\n")).await;
            assert_eq!(server.saw().one("cookie"), passed, "{sent}");
        }
    }
}
