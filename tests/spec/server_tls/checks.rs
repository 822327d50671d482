//! Checks that shake hands.

use super::{ONCE, checked, tls};
use crate::stage::pki::{Pki, shake};
use crate::stage::{Instance, Server, balancing};

#[tokio::test]
async fn the_checks_of_a_pool_that_speaks_tls_shake_hands() {
    let pki = Pki::new();
    let config = pki.server(&pki.issue(&["127.0.0.1"]));
    let (good, plain) = (Server::secure_echo(config).await, Server::echo().await);
    let wrong = Server::secure_echo(pki.server(&pki.issue(&["db.internal"]))).await;
    let text = balancing(&[good.address, plain.address, wrong.address], &format!("{ONCE}\n{}", tls(&pki, "")));
    let instance = Instance::watched(&text).await;
    for server in [&plain, &wrong] {
        instance.becomes(server.address, false).await;
        let shown = instance.server(server.address).await;
        let reason = shown["reason"].as_str().unwrap();
        assert!(reason.starts_with("tls check failed: handshake: "), "{shown}");
    }
    checked(&instance, good.address, "passed", 1.0).await;
    assert!(instance.is_up(good.address));
    for _ in 0..6 {
        super::converse(&instance).await;
    }
    assert_eq!((good.accepted(), plain.accepted(), wrong.accepted()), (7, 1, 1));
}

#[tokio::test]
async fn a_server_that_stalls_in_the_handshake_of_a_check_is_down() {
    let (pki, server) = (Pki::new(), Server::silent().await);
    let check = ONCE.replace("5s", "300ms");
    let instance = Instance::watched(&balancing(&[server.address], &format!("{check}\n{}", tls(&pki, "")))).await;
    instance.becomes(server.address, false).await;
    let shown = instance.server(server.address).await;
    assert_eq!(shown["reason"], "tls check failed: handshake: no answer in time", "{shown}");
}

#[tokio::test]
async fn checks_of_a_pool_that_speaks_tls_can_be_told_not_to() {
    let (pki, server) = (Pki::new(), Server::echo().await);
    let check = ONCE.replacen('{', "{ type = \"tcp\",", 1);
    let instance = Instance::balancing(&[server.address], &format!("{check}\n{}", tls(&pki, ""))).await;
    checked(&instance, server.address, "passed", 1.0).await;
    assert!(instance.is_up(server.address));
}

#[tokio::test]
async fn servers_that_tls_is_passed_through_to_can_be_checked_by_a_handshake() {
    let pki = Pki::new();
    let config = pki.server(&pki.issue(&["db.internal"]));
    let (good, plain) = (Server::secure_echo(config).await, Server::echo().await);
    let check = ONCE.replacen('{', "{ type = \"tls\",", 1);
    let instance = Instance::watched(&balancing(&[good.address, plain.address], &check)).await;
    instance.becomes(plain.address, false).await;
    checked(&instance, good.address, "passed", 1.0).await;
    let shown = instance.server(plain.address).await;
    assert!(shown["reason"].as_str().unwrap().starts_with("tls check failed: handshake: "), "{shown}");
    shake(pki.client(None), instance.address("web"), "db.internal").await.unwrap();
}

#[tokio::test]
async fn a_check_asks_for_a_name_of_its_own_if_it_has_one() {
    let pki = Pki::new();
    let (told, mut asked) = tokio::sync::mpsc::channel(16);
    let server = Server::secure(pki.server(&pki.issue(&["db.internal", "127.0.0.1"])), move |stream| {
        let told = told.clone();
        async move { told.send(stream.get_ref().1.server_name().map(str::to_owned)).await.unwrap() }
    })
    .await;
    let check = ONCE.replacen('{', "{ type = \"tls\", server_name = \"db.internal\",", 1);
    for (more, count) in [(String::new(), 1), (tls(&pki, ""), 2)] {
        let instance = Instance::balancing(&[server.address], &format!("{check}\n{more}")).await;
        checked(&instance, server.address, "passed", 1.0).await;
        let name = crate::stage::within("the server", asked.recv()).await.unwrap();
        assert_eq!((name.as_deref(), server.accepted()), (Some("db.internal"), count));
    }
}
