//! What routes and pools let through: networks, requests at once, retries within a budget, hosts with a policy of their own.

use std::sync::Arc;

use portreeve::ending::Reason;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::sync::Semaphore;

use super::origin::{Message, Origin, ask_over, connect, get, http, ok};
use crate::stage::pki::{Pki, shake};
use crate::stage::{Server, eventually, within};

/// A server that answers each request once it is let.
async fn patient(go: &Arc<Semaphore>) -> Server {
    let go = Arc::clone(go);
    Server::start(move |stream| {
        let go = Arc::clone(&go);
        async move {
            let mut stream = BufReader::new(stream);
            while Message::read(&mut stream, false).await.is_some() {
                go.acquire().await.unwrap().forget();
                stream.write_all(&ok("", "patient")).await.unwrap();
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_route_has_so_many_requests_at_once_and_refuses_the_next() {
    let go = Arc::new(Semaphore::new(0));
    let server = patient(&go).await;
    let route = "routes = [{ path = \"/few\", pool = \"web\", max_in_flight = 1 }]";
    let instance = http(route, &[server.address], "").await;
    let mut first = connect(&instance).await;
    first.write_all(b"GET /few HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    eventually("the first request", || server.accepted() == 1).await;
    let refused = get(&instance, "/few", "").await;
    assert_eq!((refused.status(), refused.value("x-portreeve-reason")), (503, Some("refused_limit")));
    assert_eq!(refused.value("retry-after"), Some("1"));
    go.add_permits(2);
    assert_eq!(within("the answer", Message::read(&mut first, false)).await.unwrap().status(), 200);
    assert_eq!(get(&instance, "/few", "").await.status(), 200);
    eventually("the count", || instance.listener("web").answers(Reason::RefusedLimit) == 1).await;
}

#[tokio::test]
async fn a_route_is_for_clients_from_some_networks_alone() {
    let origin = Origin::named("a").await;
    let routes = "trusted_proxies = [\"127.0.0.0/8\"]\n\
                  routes = [{ path = \"/ours\", pool = \"web\", allow = [\"10.0.0.0/8\"], deny = [\"10.6.6.0/24\"] }, \
                  { path = \"/open\", pool = \"web\", deny = [\"192.0.2.0/24\"] }]";
    let instance = http(routes, &[origin.server.address], "").await;
    for (target, client, status) in [
        ("/ours", "10.1.2.3", 200),
        ("/ours", "10.6.6.6", 403),
        ("/ours", "192.0.2.1", 403),
        ("/ours", "10.1.2.3, 192.0.2.1", 403),
        ("/open", "192.0.2.1", 403),
        ("/open", "198.51.100.1", 200),
    ] {
        let answer = get(&instance, target, &format!("X-Forwarded-For: {client}\r\n")).await;
        assert_eq!(answer.status(), status, "{target} {client}");
        assert_eq!(answer.value("x-portreeve-reason"), (status == 403).then_some("refused_acl"));
    }
    // Without a word from somebody trusted, it is the address that counts.
    assert_eq!(get(&instance, "/ours", "").await.status(), 403);
}

#[tokio::test]
async fn retries_keep_within_their_budget_and_the_servers_own_answer_is_passed_on_beyond_it() {
    let go = Arc::new(Semaphore::new(0));
    let spare = patient(&go).await;
    let busy = Origin::start(|_| b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy".to_vec()).await;
    let servers =
        format!("servers = [\"{}\", {{ address = \"{}\", backup = true }}]", busy.server.address, spare.address);
    let pool = "retry_on = [503]\nretry_budget = { percent = 0, min = 1 }";
    let text = super::origin::configuration("", &[], pool).replace("servers = []", &servers);
    let instance = crate::stage::Instance::start(&text).await;
    let mut first = connect(&instance).await;
    first.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    eventually("the retry", || spare.accepted() == 1).await;
    let answer = get(&instance, "/", "").await;
    assert_eq!((answer.status(), answer.text(), answer.value("x-portreeve-reason")), (503, "busy", None));
    go.add_permits(2);
    assert_eq!(within("the answer", Message::read(&mut first, false)).await.unwrap().text(), "patient");
    assert_eq!(get(&instance, "/", "").await.text(), "patient");
}

#[tokio::test]
async fn a_host_that_asks_for_certificates_is_not_reached_through_a_handshake_for_another() {
    let origin = Origin::named("a").await;
    let (pki, clients) = (Pki::new(), Pki::new());
    let pair = pki.issue(&["example.com", "*.example.com"]);
    let tls = format!(
        "[listeners.web.tls]\ncertificates = [{}]\n[[listeners.web.tls.hosts]]\nhost = \"admin.example.com\"\n\
         client_ca = {:?}\nclient_auth = \"required\"",
        pair.entry(),
        clients.root()
    );
    let instance = http(&tls, &[origin.server.address], "").await;
    let anna = clients.issue(&["anna"]);
    let with = |own| {
        let mut client = pki.client(own);
        client.alpn_protocols = vec![b"http/1.1".to_vec()];
        client
    };
    let mut stream = BufReader::new(shake(with(None), instance.address("web"), "www.example.com").await.unwrap());
    let ask = async |stream: &mut BufReader<_>, host: &str| {
        ask_over(stream, &format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await
    };
    assert_eq!(ask(&mut stream, "www.example.com").await.status(), 200);
    assert_eq!(ask(&mut stream, "other.example.com").await.status(), 200);
    for host in ["admin.example.com", "ADMIN.example.com:8443", "admin.example.com."] {
        let answer = ask(&mut stream, host).await;
        assert_eq!((answer.status(), answer.value("x-portreeve-reason")), (421, Some("misdirected")), "{host}");
    }
    let config = with(Some(&anna));
    let mut admin = BufReader::new(shake(config, instance.address("web"), "admin.example.com").await.unwrap());
    assert_eq!(ask(&mut admin, "admin.example.com").await.status(), 200);
    assert_eq!(ask(&mut admin, "www.example.com").await.status(), 421);
    assert_eq!(origin.asked().len(), 3);
}
