//! What is answered in place of a server: its status, its reason and its form.

use portreeve::ending::Reason;

use super::{in_front_of, plain, with};
use crate::stage::http::{Client, Message, Recorder, Stand, ok};
use crate::stage::{ClosedPort, Instance};

fn assert_ours(response: &Message, status: u16, reason: &str) {
    assert_eq!((response.status(), response.field("x-portreeve-reason")), (status, reason), "{}", response.head);
    assert_eq!(response.field("cache-control"), "no-store");
    assert!(response.one("date").is_some_and(|date| date.ends_with(" GMT")));
}

#[tokio::test]
async fn an_answer_of_ours_says_why_in_the_form_that_is_asked_for() {
    let closed = ClosedPort::new();
    let instance = in_front_of(closed.address).await;
    let mut client = Client::of(&instance).await;
    let response = client.ask("/").await;
    assert_ours(&response, 502, "connect_refused");
    assert_eq!(response.line, "HTTP/1.1 502 Bad Gateway");
    assert_eq!(response.field("content-type"), "text/plain; charset=utf-8");
    assert_eq!(response.text(), "502 Bad Gateway: connect_refused\n");
    let response = client.ask_with("/", "Accept: application/json\r\n").await;
    assert_eq!(response.field("content-type"), "application/json");
    let json: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(json, serde_json::json!({ "status": 502, "reason": "connect_refused" }));
    let response = client.ask_with("/", "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n").await;
    assert_eq!(response.field("content-type"), "text/html; charset=utf-8");
    assert!(response.text().contains("<h1>502 Bad Gateway</h1>"));
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let response = client.head().await;
    assert_ours(&response, 502, "connect_refused");
    assert_eq!(response.field("content-length"), "33");
    client.ask("/").await;
}

#[tokio::test]
async fn an_error_page_is_shown_to_those_who_prefer_html() {
    let closed = ClosedPort::new();
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("sorry.html");
    std::fs::write(&page, "<p>Sorry</p>").unwrap();
    let instance = with(closed.address, &format!("error_pages = {{ \"502\" = {page:?} }}"), "").await;
    let mut client = Client::of(&instance).await;
    let response = client.ask_with("/", "Accept: text/html\r\n").await;
    assert_ours(&response, 502, "connect_refused");
    assert_eq!(response.text(), "<p>Sorry</p>");
    assert_eq!(client.ask("/").await.text(), "502 Bad Gateway: connect_refused\n");
}

#[tokio::test]
async fn answers_of_servers_are_told_from_ours() {
    let server = Recorder::answering("HTTP/1.1 503 Mine\r\nContent-Length: 2\r\n\r\nno").await;
    let instance = in_front_of(server.address()).await;
    let mut client = Client::of(&instance).await;
    let response = client.ask("/").await;
    assert_eq!((response.line.as_str(), response.text()), ("HTTP/1.1 503 Mine", "no"));
    assert_eq!((response.one("x-portreeve-reason"), response.one("date")), (None, None));
    let listener = instance.listener("web");
    assert!(Reason::ALL.iter().all(|reason| listener.answers(*reason) == 0));
}

#[tokio::test]
async fn what_is_no_request_is_answered_400_and_the_end() {
    let (server, instance, _client) = plain().await;
    for request in ["GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n", "nonsense\r\n", "\0"] {
        let mut client = Client::of(&instance).await;
        client.send(request).await;
        let response = client.response().await;
        assert_ours(&response, 400, "bad_request");
        assert_eq!(response.field("connection"), "close");
        client.ends().await;
    }
    assert_eq!((server.connections(), instance.listener("web").answers(Reason::BadRequest)), (0, 4));
}

#[tokio::test]
async fn a_client_from_where_a_route_is_not_for_gets_403() {
    let server = Recorder::ok().await;
    let instance = with(server.address(), "routes = [{ pool = \"web\", deny = [\"127.0.0.1\"] }]", "").await;
    let mut client = Client::from([127, 0, 0, 1], instance.address("web")).await;
    assert_ours(&client.ask("/").await, 403, "refused_acl");
    let mut other = Client::from([127, 0, 0, 2], instance.address("web")).await;
    assert_eq!(other.ask("/").await.text(), "ok");
}

#[tokio::test]
async fn without_a_server_that_is_open_the_answer_is_503() {
    let stand = Stand::new().await;
    let pool = format!(
        "[pools.web]\nservers = [{{ address = \"{}\", max_connections = 1 }}]\ncheck = \"none\"\nqueue = {{ max = 0 }}\n",
        stand.address
    );
    let listener = "[listeners.web]\nbind = \"127.0.0.1:0\"\nprotocol = \"http\"\npool = \"web\"\n";
    let instance = Instance::start(&format!("workers = 1\n{listener}{pool}")).await;
    let (mut first, mut client) = (Client::of(&instance).await, Client::of(&instance).await);
    first.get("/", "").await;
    let (_server, _) = stand.asked().await;
    assert_ours(&client.ask("/").await, 503, "no_server");
}

#[tokio::test]
async fn a_server_that_ends_without_a_word_is_a_bad_gateway() {
    let stand = Stand::new().await;
    let instance = with(stand.address, "", "retries = 0").await;
    let mut client = Client::of(&instance).await;
    client.get("/", "").await;
    drop(stand.asked().await);
    assert_ours(&client.response().await, 502, "server_closed");
    client.get("/", "").await;
    let (server, _) = stand.asked().await;
    server.reset();
    assert_ours(&client.response().await, 502, "server_reset");
    client.get("/", "").await;
    let (mut server, _) = stand.asked().await;
    server.send("HTTP/1.1 200 OK\r\nContent-").await;
    drop(server);
    assert_ours(&client.response().await, 502, "server_closed");
    client.get("/", "").await;
    let (mut server, _) = stand.asked().await;
    server.send(ok("well")).await;
    assert_eq!(client.response().await.text(), "well");
}

#[tokio::test]
async fn the_body_of_a_request_that_is_refused_is_not_taken_for_the_next_one() {
    let (server, instance, mut client) = {
        let server = Recorder::ok().await;
        let routes = "routes = [{ path = \"/no\", pool = \"web\", deny = [\"127.0.0.0/8\"] }]";
        let instance = with(server.address(), routes, "").await;
        let client = Client::of(&instance).await;
        (server, instance, client)
    };
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    client.send(format!("POST /no HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{smuggled}", smuggled.len())).await;
    let response = client.response().await;
    assert_ours(&response, 403, "refused_acl");
    assert_eq!(response.field("connection"), "close");
    client.ends().await;
    let mut next = Client::of(&instance).await;
    next.ask("/next").await;
    assert_eq!(server.saw().asked(), "GET /next");
}
