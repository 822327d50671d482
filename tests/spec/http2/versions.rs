//! What holds whatever versions the two sides speak, and what has to change between them.

use http::{HeaderMap, Method};

use crate::stage::frames::{END_HEADERS, END_STREAM, Field, Frames, HEADERS, WHOLE, block, request};
use crate::stage::http2::{Answered, Asked, Client, Message, Version, ask, fronting, read_response};
use crate::stage::{Instance, Server, within};

/// Has a test for each pair of versions: the client's and the server's.
async fn with_each_pair<F: Future<Output = ()>>(test: impl Fn(Version, Version) -> F) {
    for client in Version::BOTH {
        for server in Version::BOTH {
            test(client, server).await;
        }
    }
}

async fn between(
    server: Version,
    answer: impl Fn(Asked) -> Answered + Clone + Send + Sync + 'static,
) -> (Instance, Server) {
    let behind = Server::of_http(server, answer).await;
    (Instance::start(&fronting(&[behind.address], "", server.of_pool())).await, behind)
}

/// Answers with what arrived of a request, a line each.
fn tell(asked: Asked) -> Answered {
    let Message { fields, body, trailers } = asked.message;
    let value = |map: &HeaderMap, name: &str| {
        let values: Vec<&str> = map.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
        format!("{values:?}")
    };
    let told = [
        format!("{} {} {}", asked.method, asked.host, asked.path),
        value(&fields, "x-word"),
        value(&fields, "content-length"),
        value(&fields, "x-forwarded-host"),
        String::from_utf8_lossy(&body).into_owned(),
        value(&trailers, "x-trailer"),
    ];
    Answered::ok(Message::of(told.join("\n")).with("x-answer", "42"))
}

#[tokio::test]
async fn get_post_and_head_go_between_all_versions() {
    with_each_pair(|client, server| async move {
        let (instance, _server) = between(server, tell).await;
        let address = instance.address("web");
        let told =
            ask(client, address, Asked { message: Message::default().with("x-word", "hello"), ..Asked::get("/a?b=c") })
                .await;
        assert_eq!((told.status, told.message.field("x-answer")), (200, "42"), "{client:?} {server:?}");
        let expected = "GET example.com /a?b=c\n[\"hello\"]\n[]\n[\"example.com\"]\n\n[]";
        assert_eq!(told.text(), expected, "{client:?} {server:?}");
        let length = expected.len();

        let told = ask(client, address, Asked::post("/form", "a body").with_length()).await;
        let expected = "POST example.com /form\n[]\n[\"6\"]\n[\"example.com\"]\na body\n[]";
        assert_eq!(told.text(), expected, "{client:?} {server:?}");
        assert_eq!(told.message.field("x-answer"), "42");

        let head = Asked {
            message: Message::default().with("x-word", "hello"),
            ..Asked::of(Method::HEAD, "/a?b=c", Message::default())
        };
        let told = ask(client, address, head).await;
        assert_eq!((told.status, told.text()), (200, ""), "{client:?} {server:?}");
        assert_eq!(told.message.field("content-length"), (length + 1).to_string(), "{client:?} {server:?}");
    })
    .await;
}

impl Asked {
    /// With its length said before it.
    fn with_length(mut self) -> Self {
        let length = self.message.body.len().to_string();
        self.message = self.message.with("content-length", &length);
        self
    }
}

#[tokio::test]
async fn trailers_pass_in_both_directions() {
    with_each_pair(|client, server| async move {
        let answer = |asked: Asked| {
            let told =
                asked.message.trailers.get("x-trailer").map_or("none", |value| value.to_str().unwrap()).to_owned();
            assert_eq!(asked.message.body, "a body");
            // What frames a message has no place in a trailer.
            assert!(asked.message.trailers.get("host").is_none());
            Answered::ok(Message::of(told).trailed("x-checksum", "abc").trailed("grpc-status", "0"))
        };
        let (instance, _server) = between(server, answer).await;
        let message =
            Message::of("a body").with("te", "trailers").trailed("x-trailer", "last words").trailed("host", "x");
        let told = ask(client, instance.address("web"), Asked::of(Method::POST, "/", message)).await;
        assert_eq!(told.text(), "last words", "{client:?} {server:?}");
        assert_eq!(told.message.trailers["x-checksum"], "abc", "{client:?} {server:?}");
        assert_eq!(told.message.trailers["grpc-status"], "0", "{client:?} {server:?}");
    })
    .await;
}

#[tokio::test]
async fn large_bodies_arrive_whole_both_ways() {
    with_each_pair(|client, server| async move {
        let answer = |asked: Asked| {
            let reversed: Vec<u8> = asked.message.body.iter().rev().copied().collect();
            Answered::ok(Message::of(reversed))
        };
        let (instance, _server) = between(server, answer).await;
        let body: Vec<u8> = (0..3_000_000_u32).map(|place| (place % 251) as u8).collect();
        let told = ask(client, instance.address("web"), Asked::post("/", body.clone())).await;
        let expected: Vec<u8> = body.into_iter().rev().collect();
        assert!(told.message.body == expected, "{client:?} {server:?}: {} bytes", told.message.body.len());
    })
    .await;
}

#[tokio::test]
async fn statuses_without_a_body_have_none() {
    with_each_pair(|client, server| async move {
        let answer = |asked: Asked| Answered { status: asked.path[1..].parse().unwrap(), message: Message::default() };
        let (instance, _server) = between(server, answer).await;
        for status in [200, 204, 304, 404, 503] {
            let told = ask(client, instance.address("web"), Asked::get(&format!("/{status}"))).await;
            assert_eq!((told.status, told.text()), (status, ""), "{client:?} {server:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn cookies_are_one_field_for_http1() {
    for server in Version::BOTH {
        let answer = |asked: Asked| {
            let cookies = asked.message.fields.get_all("cookie").iter().map(|value| value.to_str().unwrap());
            Answered::ok(Message::of(cookies.collect::<Vec<_>>().join(" | ")))
        };
        let (instance, _server) = between(server, answer).await;
        let message =
            Message::default().with("cookie", "a=1").with("x-between", "x").with("cookie", "b=2").with("cookie", "c=3");
        let told = ask(Version::Two, instance.address("web"), Asked { message, ..Asked::get("/") }).await;
        assert_eq!(told.text(), "a=1; b=2; c=3", "{server:?}");
    }
}

#[tokio::test]
async fn the_host_is_that_of_authority_or_else_of_host_and_they_may_not_differ() {
    let (instance, _server) = between(Version::One, |asked| Answered::ok(Message::of(asked.host))).await;
    let pseudo: [(&str, &[u8]); 3] = [(":method", b"GET"), (":scheme", b"http"), (":path", b"/")];
    let ask = async |more: &[Field<'_>]| {
        let mut frames = Frames::connect(instance.address("web")).await;
        frames.send(HEADERS, WHOLE, 1, &block(&[&pseudo[..], more].concat())).await;
        frames.verdict(1).await
    };
    use crate::stage::frames::Verdict::Status;
    assert_eq!(ask(&[(":authority", b"example.com")]).await, Status(200));
    assert_eq!(ask(&[("host", b"example.com")]).await, Status(200));
    assert_eq!(ask(&[(":authority", b"example.com"), ("host", b"EXAMPLE.com")]).await, Status(200));
    assert_eq!(ask(&[(":authority", b"example.com"), ("host", b"example.org")]).await, Status(400));
    assert_eq!(ask(&[("host", b"example.com"), ("host", b"example.com")]).await, Status(400));
    assert_eq!(ask(&[]).await, Status(400));
    let told = ask_host(&instance).await;
    assert_eq!(told, "example.com:8443");
}

async fn ask_host(instance: &Instance) -> String {
    let asked = Asked { host: "example.com:8443".to_owned(), ..Asked::get("/") };
    ask(Version::Two, instance.address("web"), asked).await.text().to_owned()
}

/// A server of HTTP/2 that says 103, waits for the body of who has one, having said 100 first, and answers.
async fn in_steps() -> Server {
    Server::of_http2(h2::server::Builder::new(), |request, mut respond| async move {
        let mut hints = http::Response::new(());
        *hints.status_mut() = http::StatusCode::EARLY_HINTS;
        hints.headers_mut().insert("link", "</style.css>; rel=preload".parse().unwrap());
        respond.send_informational(hints).unwrap();
        let (parts, mut body) = request.into_parts();
        let expects = parts.headers.get("expect").is_some_and(|expected| expected == "100-continue");
        if expects {
            let mut go_on = http::Response::new(());
            *go_on.status_mut() = http::StatusCode::CONTINUE;
            respond.send_informational(go_on).unwrap();
        }
        let (body, _) = crate::stage::http2::read_body(&mut body).await.unwrap();
        crate::stage::http2::send_answer(&mut respond, Answered::ok(Message::of(body)));
    })
    .await
}

#[tokio::test]
async fn informational_responses_reach_the_client_when_they_are_said() {
    let server = in_steps().await;
    let instance = Instance::start(&fronting(&[server.address], "", Version::Two.of_pool())).await;
    let client = Client::connect(instance.address("web")).await;
    let asked = Asked::of(Method::POST, "/", Message::default().with("expect", "100-continue"));
    let (mut response, mut body) = client.begin(asked.head(), false).await;
    let mut seen = Vec::new();
    while !seen.contains(&100) {
        let informational =
            within("an informational response", std::future::poll_fn(|cx| response.poll_informational(cx))).await;
        let informational = informational.unwrap().unwrap();
        if informational.status() == 103 {
            assert_eq!(informational.headers()["link"], "</style.css>; rel=preload");
        }
        seen.push(informational.status().as_u16());
    }
    assert_eq!(seen, [103, 100]);
    // Only now that it was told to.
    body.send_data("the body".into(), true).unwrap();
    assert_eq!(read_response(response).await.unwrap().text(), "the body");
}

#[tokio::test]
async fn curl_waits_for_100_on_either_version_and_gets_the_early_hints() {
    let server = in_steps().await;
    let instance = Instance::start(&fronting(&[server.address], "", Version::Two.of_pool())).await;
    let url = format!("http://{}/", instance.address("web"));
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let arguments =
            ["-sS", "-i", "--noproxy", "*", version, "-H", "Expect: 100-continue", "--expect100-timeout", "15"];
        let said = super::run("curl", &[&arguments[..], &["--data", "sent late", &url]].concat()).await;
        assert!(said.contains(" 103") && said.contains("style.css") && said.contains(" 100"), "{said}");
        assert!(said.ends_with("sent late"), "{said}");
    }
}

#[tokio::test]
async fn a_response_may_be_over_before_the_request_is() {
    for server in Version::BOTH {
        // The library for HTTP/1 reads on; this one answers from the head alone.
        let behind = match server {
            Version::Two => {
                Server::of_http2(h2::server::Builder::new(), |request, mut respond| async move {
                    let answered = Answered { status: 403, message: Message::of("no, thank you") };
                    crate::stage::http2::send_answer(&mut respond, answered);
                    drop(request);
                })
                .await
            }
            Version::One => {
                Server::start(|mut stream| async move {
                    use tokio::io::{AsyncReadExt, AsyncWriteExt};
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(stream.read_u8().await.unwrap());
                    }
                    let answer =
                        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 13\r\nConnection: close\r\n\r\nno, thank you";
                    stream.write_all(answer).await.unwrap();
                    let _end = stream.read_to_end(&mut Vec::new()).await;
                })
                .await
            }
        };
        let instance = Instance::start(&fronting(&[behind.address], "", server.of_pool())).await;
        let client = Client::connect(instance.address("web")).await;
        let (response, mut body) = client.begin(Asked::post("/", "").head(), false).await;
        body.send_data("only the beginning".into(), false).unwrap();
        let told = read_response(response).await.unwrap();
        assert_eq!((told.status, told.text()), (403, "no, thank you"), "{server:?}");
        // The client is told to stop, and that nothing is wrong (RFC 9113 §8.1).
        let reason = within("the reset", std::future::poll_fn(|cx| body.poll_reset(cx))).await.unwrap();
        assert_eq!(reason, h2::Reason::NO_ERROR, "{server:?}");
        assert_eq!(client.ask(Asked::post("/", "")).await.unwrap().status, 403);
    }
}

#[tokio::test]
async fn a_body_of_another_length_than_was_said_is_refused() {
    let (server, record) = Server::recorder().await;
    let instance = Instance::start(&fronting(&[server.address], "", "")).await;
    for (said, sent) in [(&b"5"[..], &b"four"[..]), (b"3", b"four")] {
        let mut frames = Frames::connect(instance.address("web")).await;
        frames.send(HEADERS, END_HEADERS, 1, &request("POST", "/", &[("content-length", said)])).await;
        frames.send(0, END_STREAM, 1, sent).await;
        assert!(frames.verdict(1).await.is_refusal());
    }
    let mut frames = Frames::connect(instance.address("web")).await;
    frames.send(HEADERS, WHOLE, 1, &request("POST", "/", &[("content-length", b"5")])).await;
    assert!(frames.verdict(1).await.is_refusal());
    assert_eq!(record.requests(), Vec::<String>::new(), "none of them was a whole request");
}
