//! What is answered without a server, and what is written down of requests.

use http::Method;

use crate::stage::access::AccessLog;
use crate::stage::frames::{Frames, PING, Verdict};
use crate::stage::http2::{Answered, Asked, BY_HTTP2, Client, Message, Version, ask, fronting};
use crate::stage::pki::{Pki, shake};
use crate::stage::{ClosedPort, Instance, Server};

/// Asks by HTTP/2 and returns the status and the reason.
async fn refusal(instance: &Instance, asked: Asked) -> (u16, String) {
    let answered = ask(Version::Two, instance.address("web"), asked).await;
    let reason = answered.message.field("x-portreeve-reason").to_owned();
    let length = answered.message.field("content-length").to_owned();
    if !answered.message.body.is_empty() {
        assert_eq!(length, answered.message.body.len().to_string());
    }
    assert!(!answered.message.fields.contains_key("connection"));
    (answered.status, reason)
}

#[tokio::test]
async fn own_answers_say_why() {
    let closed = ClosedPort::new();
    let listener = "http = { max_body = \"8B\", max_uri = \"100B\", max_header = \"2KiB\", max_header_fields = 20 }\n\
                    routes = [{ path = \"/here\", respond = { status = 200, body = \"from here\" } },\n\
                    { path = \"/elsewhere\", redirect = \"https://{host}{path}{query}\" },\n\
                    { path = \"/full\", pool = \"web\", max_in_flight = 1 },\n\
                    { path = \"/denied\", pool = \"web\", deny = [\"127.0.0.0/8\"] }, { path = \"/closed\", pool = \"web\" }]";
    let text = fronting(&[closed.address], listener, BY_HTTP2).replacen("pool = \"web\"\n", "\n", 1);
    let instance = Instance::start(&text).await;
    let expect = async |asked: Asked, status: u16, reason: &str| {
        let path = asked.path.clone();
        assert_eq!(refusal(&instance, asked).await, (status, reason.to_owned()), "{path}");
    };
    expect(Asked::get("/nowhere"), 404, "no_route").await;
    expect(Asked::get("/denied"), 403, "refused_acl").await;
    expect(Asked::get("/closed"), 502, "connect_refused").await;
    expect(
        Asked { message: Message::of("nine byte").with("content-length", "9"), ..Asked::post("/closed", "") },
        413,
        "body_too_large",
    )
    .await;
    expect(Asked::get(&format!("/closed/{}", "a".repeat(200))), 414, "uri_too_long").await;
    let many = (0..21).fold(Message::default(), |message, _| message.with("x-many", "1"));
    expect(Asked { message: many, ..Asked::get("/closed") }, 431, "header_too_large").await;
    expect(Asked::get("/closed/../nowhere"), 400, "bad_request").await;
    let answered = ask(Version::Two, instance.address("web"), Asked::get("/here")).await;
    assert_eq!((answered.status, answered.text()), (200, "from here"));
    let answered =
        ask(Version::Two, instance.address("web"), Asked::of(Method::HEAD, "/here", Message::default())).await;
    assert_eq!((answered.status, answered.text(), answered.message.field("content-length")), (200, "", "9"));
    let answered = ask(Version::Two, instance.address("web"), Asked::get("/elsewhere?a=b")).await;
    assert_eq!((answered.status, answered.message.field("location")), (308, "https://example.com/elsewhere?a=b"));
}

#[tokio::test]
async fn a_body_without_a_length_may_not_grow_too_large_either() {
    for version in Version::BOTH {
        let server = Server::of_http(version, super::echo).await;
        let instance =
            Instance::start(&fronting(&[server.address], "http = { max_body = \"1KiB\" }", version.of_pool())).await;
        let answered = ask(Version::Two, instance.address("web"), Asked::post("/", vec![b'x'; 5000])).await;
        assert_eq!(
            (answered.status, answered.message.field("x-portreeve-reason")),
            (413, "body_too_large"),
            "{version:?}"
        );
    }
}

#[tokio::test]
async fn a_full_route_and_a_silent_server_are_503_and_504() {
    let server = Server::silent().await;
    let listener = "routes = [{ path = \"/full\", pool = \"web\", max_in_flight = 1 }]";
    let pool = "timeouts = { response_header = \"200ms\" }";
    let instance = Instance::start(&fronting(&[server.address], listener, pool)).await;
    let client = Client::connect(instance.address("web")).await;
    let (one, other) = tokio::join!(client.ask(Asked::get("/full")), client.ask(Asked::get("/full")));
    let mut answers: Vec<(u16, String)> = [one, other]
        .map(|answered| answered.unwrap())
        .map(|answered| (answered.status, answered.message.field("x-portreeve-reason").to_owned()))
        .into();
    answers.sort();
    assert_eq!(answers, [(503, "refused_limit".to_owned()), (504, "response_timeout".to_owned())]);
}

#[tokio::test]
async fn a_connection_made_for_a_host_is_not_good_for_one_that_asks_for_certificates() {
    let pki = Pki::new();
    let server = Server::of_http(Version::Two, |_| Answered::ok(Message::of("inside"))).await;
    let pair = pki.issue(&["www.example.com", "admin.example.com"]);
    let tls = format!(
        "tls = {{ certificates = [{}], hosts = [{{ host = \"admin.example.com\", client_ca = {:?}, client_auth = \"required\" }}] }}",
        pair.entry(),
        pki.root()
    );
    let instance = Instance::start(&fronting(&[server.address], &tls, BY_HTTP2)).await;
    let mut config = pki.client(None);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = shake(config, instance.address("web"), "www.example.com").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let client = Client::over(stream, &h2::client::Builder::new()).await;
    let asked = |host: &str| Asked { host: host.to_owned(), ..Asked::get("/") };
    assert_eq!(client.ask(asked("www.example.com")).await.unwrap().text(), "inside");
    // As browsers do that see both names in the certificate (RFC 9113 §9.1.1).
    let answered = client.ask(asked("admin.example.com")).await.unwrap();
    assert_eq!((answered.status, answered.message.field("x-portreeve-reason")), (421, "misdirected"));
    assert_eq!(client.ask(asked("www.example.com")).await.unwrap().text(), "inside");
}

#[tokio::test]
async fn each_stream_has_a_line_in_the_access_log() {
    let (log, server) = (AccessLog::new(), Server::of_http(Version::Two, super::echo).await);
    let instance = Instance::start(&log.of(&fronting(&[server.address], "", BY_HTTP2))).await;
    let client = Client::connect(instance.address("web")).await;
    for (number, path) in ["/one?a=b", "/two"].into_iter().enumerate() {
        client.ask(Asked::post(path, "body")).await.unwrap();
        let line = log.line(number + 1).await;
        assert_eq!((&line["protocol"], &line["method"]), (&"h2".into(), &"POST".into()), "{line}");
        assert_eq!((&line["path"], &line["host"]), (&path.into(), &"example.com".into()), "{line}");
        assert_eq!((&line["status"], &line["reason"]), (&200.into(), &"done".into()), "{line}");
        assert_eq!(line["bytes_in"], 4, "{line}");
        assert_eq!(line["server"], server.address.to_string(), "{line}");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_the_protocol_has_a_line_that_says_how() {
    let (log, server) = (AccessLog::new(), Server::of_http(Version::Two, super::echo).await);
    let instance = Instance::start(&log.of(&fronting(&[server.address], "", BY_HTTP2))).await;
    let mut frames = Frames::connect(instance.address("web")).await;
    frames.get(1, "/good").await;
    assert_eq!(frames.verdict(1).await, Verdict::Status(200));
    assert_eq!(log.line(1).await["reason"], "done");
    frames.send(PING, 0, 1, &[0; 8]).await;
    frames.farewell().await;
    let line = log.line(2).await;
    assert_eq!(
        (&line["reason"], &line["error"]),
        (&"bad_request".into(), &"a ping comes on a stream".into()),
        "{line}"
    );
}
