//! HTTP/2 towards servers: many requests on few connections, and what those say of requests they have not seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Method;
use tokio::sync::Semaphore;

use crate::stage::access::AccessLog;
use crate::stage::frames::{ACK, DATA, END_HEADERS, Frames, GOAWAY, HEADERS, RST_STREAM, SETTINGS, WHOLE};
use crate::stage::http2::{
    Answered, Asked, BY_HTTP2, Client, Message, Version, ask, fronting, read_body, send_answer, serve_http2,
};
use crate::stage::{Instance, Server, eventually, within};

/// A server of HTTP/2 whose answers wait until the test lets each go.
struct Holding {
    server: Server,
    /// Requests that have arrived.
    arrived: Arc<AtomicUsize>,
    /// What lets one go.
    go: Arc<Semaphore>,
}

impl Holding {
    async fn start(builder: h2::server::Builder) -> Self {
        let (arrived, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let server = Server::of_http2(builder, {
            let (arrived, go) = (Arc::clone(&arrived), Arc::clone(&go));
            move |mut request, mut respond| {
                let (arrived, go) = (Arc::clone(&arrived), Arc::clone(&go));
                async move {
                    arrived.fetch_add(1, Ordering::SeqCst);
                    let (body, _) = read_body(request.body_mut()).await.unwrap();
                    go.acquire().await.unwrap().forget();
                    send_answer(&mut respond, Answered::ok(Message::of(body)));
                }
            }
        });
        Self { server: server.await, arrived, go }
    }

    async fn has(&self, requests: usize) {
        eventually(&format!("{requests} requests"), || self.arrived.load(Ordering::SeqCst) == requests).await;
    }
}

/// Asks in a task of its own.
fn asking(client: &Client, asked: Asked) -> tokio::task::JoinHandle<Result<Answered, h2::Error>> {
    let client = client.clone();
    tokio::spawn(async move { client.ask(asked).await })
}

#[tokio::test]
async fn many_requests_share_one_connection_to_a_server() {
    let holding = Holding::start(h2::server::Builder::new()).await;
    let instance = Instance::start(&fronting(&[holding.server.address], "", BY_HTTP2)).await;
    let client = Client::connect(instance.address("web")).await;
    let other = Client::connect(instance.address("web")).await;
    let requests: Vec<_> = (0..40)
        .map(|number| asking(if number % 2 == 0 { &client } else { &other }, Asked::post("/", number.to_string())))
        .collect();
    holding.has(40).await;
    holding.go.add_permits(40);
    for (number, request) in requests.into_iter().enumerate() {
        assert_eq!(request.await.unwrap().unwrap().text(), number.to_string());
    }
    assert_eq!(holding.server.accepted(), 1);
    let address = holding.server.address;
    eventually("none is under way", || instance.of_server("connections_active", address, "") == 0.0).await;
}

#[tokio::test]
async fn a_connection_gets_no_more_requests_than_its_server_takes_and_another_is_made() {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(2);
    let holding = Holding::start(builder).await;
    let instance = Instance::start(&fronting(&[holding.server.address], "", BY_HTTP2)).await;
    let client = Client::connect(instance.address("web")).await;
    // With its first answer, the server has said how many it takes.
    holding.go.add_permits(1);
    client.ask(Asked::get("/")).await.unwrap();
    let requests: Vec<_> = (0..6).map(|_| asking(&client, Asked::post("/", "x"))).collect();
    holding.has(7).await;
    assert!(holding.server.accepted() >= 3, "{} connections for six requests", holding.server.accepted());
    holding.go.add_permits(6);
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap().status, 200);
    }
}

/// A server of HTTP/2 that runs `first` on its first connection, frame by frame, and answers as usual on all others.
async fn with_a_first<F, S>(first: S) -> Server
where
    S: Fn(Frames) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let connections = Arc::new(AtomicUsize::new(0));
    Server::start(move |stream| {
        let (first, number) = (first.clone(), connections.fetch_add(1, Ordering::SeqCst));
        async move {
            if number == 0 {
                return first(Frames::welcome(stream, &[]).await).await;
            }
            serve_http2(stream, h2::server::Builder::new(), |mut request, mut respond| async move {
                let Ok((body, _)) = read_body(request.body_mut()).await else { return };
                let text = format!("{} {}", request.method(), String::from_utf8_lossy(&body));
                send_answer(&mut respond, Answered::ok(Message::of(text)));
            })
            .await;
        }
    })
    .await
}

/// The payload of a GOAWAY.
fn going(last: u32, code: u32) -> Vec<u8> {
    [last.to_be_bytes(), code.to_be_bytes()].concat()
}

#[tokio::test]
async fn requests_that_a_leaving_server_has_not_seen_are_sent_once_more_whatever_they_ask() {
    // With no error, and with one (RFC 9113 §6.8): the number alone says what was seen.
    for code in [0, 11] {
        for (method, body) in [(Method::GET, ""), (Method::POST, ""), (Method::POST, "call")] {
            let server = with_a_first(move |mut frames: Frames| async move {
                let last = if body.is_empty() { HEADERS } else { DATA };
                frames.until(|frame| frame.kind == last).await.unwrap();
                frames.send(GOAWAY, 0, 0, &going(0, code)).await;
                assert_eq!(frames.farewell().await.unwrap_or(0), 0);
            })
            .await;
            let instance = Instance::start(&fronting(&[server.address], "", BY_HTTP2)).await;
            let asked = Asked::of(method.clone(), "/", Message::of(body));
            let told = ask(Version::Two, instance.address("web"), asked).await;
            assert_eq!((told.status, told.text()), (200, &*format!("{method} {body}")), "{code}");
            assert_eq!(server.accepted(), 2);
        }
    }
}

#[tokio::test]
async fn a_request_that_a_leaving_server_has_seen_is_not_sent_again() {
    let server = with_a_first(|mut frames: Frames| async move {
        frames.until(|frame| frame.kind == HEADERS).await.unwrap();
        frames.send(GOAWAY, 0, 0, &going(1, 0)).await;
        // And leaves without an answer.
    })
    .await;
    let instance = Instance::start(&fronting(&[server.address], "", BY_HTTP2)).await;
    let told = ask(Version::Two, instance.address("web"), Asked::of(Method::POST, "/", Message::default())).await;
    assert_eq!((told.status, told.message.field("x-portreeve-reason")), (502, "server_reset"));
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_leaving_server_finishes_what_it_has_and_the_next_request_goes_elsewhere() {
    let server = with_a_first(|mut frames: Frames| async move {
        frames.until(|frame| frame.kind == HEADERS).await.unwrap();
        frames.send(GOAWAY, 0, 0, &going(1, 0)).await;
        // The answer waits until the second request was made, and answered on another connection.
        let ended = frames.until(|frame| frame.kind == RST_STREAM).await;
        assert_eq!(ended, None, "the client has not given up");
    })
    .await;
    let instance = Instance::start(&fronting(&[server.address], "", BY_HTTP2)).await;
    let client = Client::connect(instance.address("web")).await;
    let first = asking(&client, Asked::get("/"));
    eventually("a connection", || server.accepted() == 1).await;
    // It may be sent on the first connection still, and is then sent once more.
    assert_eq!(client.ask(Asked::of(Method::POST, "/", Message::default())).await.unwrap().text(), "POST ");
    assert_eq!(server.accepted(), 2);
    assert!(!first.is_finished());
    first.abort();
}

#[tokio::test]
async fn a_refused_stream_is_sent_once_more_whatever_it_asks() {
    let refusals = Arc::new(AtomicUsize::new(0));
    let server = Server::of_http2(h2::server::Builder::new(), {
        let refusals = Arc::clone(&refusals);
        move |mut request, mut respond| {
            let first = refusals.fetch_add(1, Ordering::SeqCst).is_multiple_of(2);
            async move {
                let (body, _) = read_body(request.body_mut()).await.unwrap();
                match first {
                    true => respond.send_reset(h2::Reason::REFUSED_STREAM),
                    false => send_answer(&mut respond, Answered::ok(Message::of(body))),
                }
            }
        }
    })
    .await;
    let instance = Instance::start(&fronting(&[server.address], "", BY_HTTP2)).await;
    for (refused, body) in ["", "call"].into_iter().enumerate() {
        let told = ask(Version::Two, instance.address("web"), Asked::post("/", body)).await;
        assert_eq!((told.status, told.text()), (200, body));
        assert_eq!(refusals.load(Ordering::SeqCst), 2 * (refused + 1));
    }
}

#[tokio::test]
async fn a_stream_reset_for_another_reason_is_not_sent_again() {
    let server = Server::of_http2(h2::server::Builder::new(), |_request, mut respond| async move {
        respond.send_reset(h2::Reason::INTERNAL_ERROR);
    })
    .await;
    let instance = Instance::start(&fronting(&[server.address], "", BY_HTTP2)).await;
    for version in Version::BOTH {
        let told = ask(version, instance.address("web"), Asked::of(Method::POST, "/", Message::default())).await;
        assert_eq!((told.status, told.message.field("x-portreeve-reason")), (502, "server_reset"));
    }
    // Nothing is wrong with the connection.
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_connection_that_was_used_often_enough_is_replaced() {
    let server = Server::of_http(Version::Two, super::echo).await;
    let pool = format!("{BY_HTTP2}\nupstream = {{ max_requests = 3 }}");
    let instance = Instance::start(&fronting(&[server.address], "", &pool)).await;
    let client = Client::connect(instance.address("web")).await;
    for _ in 0..7 {
        assert_eq!(client.ask(Asked::get("/")).await.unwrap().status, 200);
    }
    assert_eq!(server.accepted(), 3);
}

#[tokio::test]
async fn a_connection_is_closed_once_it_was_idle_for_too_long() {
    let ended = Arc::new(Semaphore::new(0));
    let server = Server::start({
        let ended = Arc::clone(&ended);
        move |stream| {
            let ended = Arc::clone(&ended);
            async move {
                serve_http2(stream, h2::server::Builder::new(), |_request, mut respond| async move {
                    send_answer(&mut respond, Answered::ok(Message::of("served")));
                })
                .await;
                ended.add_permits(1);
            }
        }
    })
    .await;
    let pool = format!("{BY_HTTP2}\nupstream = {{ idle_timeout = \"100ms\" }}");
    let instance = Instance::start(&fronting(&[server.address], "", &pool)).await;
    let client = Client::connect(instance.address("web")).await;
    assert_eq!(client.ask(Asked::get("/")).await.unwrap().text(), "served");
    within("the end of the connection", ended.acquire()).await.unwrap().forget();
    assert_eq!(client.ask(Asked::get("/")).await.unwrap().text(), "served");
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn no_more_connections_wait_than_max_idle() {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(1);
    let (holding, pool) = (Holding::start(builder).await, format!("{BY_HTTP2}\nupstream = {{ max_idle = 2 }}"));
    let instance = Instance::start(&fronting(&[holding.server.address], "", &pool)).await;
    let client = Client::connect(instance.address("web")).await;
    let ask = |number: usize| {
        let asked: Vec<_> = (0..number).map(|_| asking(&client, Asked::post("/", "x"))).collect();
        holding.go.add_permits(number);
        asked
    };
    for requests in [ask(1), ask(6)] {
        for request in requests {
            assert_eq!(request.await.unwrap().unwrap().status, 200);
        }
    }
    let before = holding.server.accepted();
    assert!(before >= 3, "{before} connections for six requests");
    // Those that were closed are missing now: of as many requests as there were connections, two find one.
    for number in 1..=before {
        let asked = asking(&client, Asked::post("/", "x"));
        holding.has(7 + number).await;
        drop(asked);
    }
    let made = holding.server.accepted() - before;
    assert_eq!(made, before - 2, "of {before} connections, two were kept");
}

#[tokio::test]
async fn a_reload_says_for_connections_there_are_how_many_may_wait() {
    let server = Server::of_http(Version::Two, super::echo).await;
    let text = |max_idle: usize| {
        fronting(&[server.address], "", &format!("{BY_HTTP2}\nupstream = {{ max_idle = {max_idle} }}"))
    };
    let instance = Instance::start(&text(8)).await;
    let client = Client::connect(instance.address("web")).await;
    let ask = async || assert_eq!(client.ask(Asked::get("/")).await.unwrap().status, 200);
    ask().await;
    ask().await;
    assert_eq!(server.accepted(), 1);
    instance.running.reload_text(&text(0)).await.unwrap();
    for _ in 0..3 {
        ask().await;
    }
    assert_eq!(server.accepted(), 3, "the one that waited had one more request");
}

#[tokio::test]
async fn a_server_that_allows_no_request_is_a_bad_server() {
    let server = Server::start(|stream| async move {
        // SETTINGS_MAX_CONCURRENT_STREAMS is 3.
        let mut frames = Frames::welcome(stream, &[0, 3, 0, 0, 0, 0]).await;
        frames.farewell().await;
    })
    .await;
    let log = AccessLog::new();
    let instance = Instance::start(&log.of(&fronting(&[server.address], "", BY_HTTP2))).await;
    let told = ask(Version::Two, instance.address("web"), Asked::get("/")).await;
    assert_eq!((told.status, told.message.field("x-portreeve-reason")), (502, "bad_response"));
    assert_eq!(log.line(1).await["error"], "its settings allow no request at all");
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_request_waits_no_longer_than_it_may_for_a_connection_that_another_makes() {
    // It says nothing, so that nobody knows how many requests it takes.
    let server = Server::start(|mut stream| async move {
        let _all = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    })
    .await;
    let routes = "routes = [{ path = \"/quick\", pool = \"web\", timeout = \"200ms\" }]";
    let instance = Instance::start(&fronting(&[server.address], routes, BY_HTTP2)).await;
    let client = Client::connect(instance.address("web")).await;
    let patient = asking(&client, Asked::get("/patient"));
    eventually("a connection", || server.accepted() == 1).await;
    let told = client.ask(Asked::get("/quick")).await.unwrap();
    assert_eq!((told.status, told.message.field("x-portreeve-reason")), (504, "request_timeout"));
    assert_eq!(server.accepted(), 1, "it had not come to make one of its own");
    patient.abort();
}

#[tokio::test]
async fn the_log_says_how_a_server_gave_a_request_up() {
    for (kind, payload, words) in [
        (RST_STREAM, vec![0, 0, 0, 2], "it reset the stream: INTERNAL_ERROR (2)"),
        (GOAWAY, going(1, 11), "it went away: ENHANCE_YOUR_CALM (11)"),
    ] {
        let server = with_a_first(move |mut frames: Frames| {
            let payload = payload.clone();
            async move {
                let stream = frames.until(|frame| frame.kind == HEADERS).await.unwrap().stream;
                frames.send(kind, 0, if kind == GOAWAY { 0 } else { stream }, &payload).await;
            }
        })
        .await;
        let log = AccessLog::new();
        let instance = Instance::start(&log.of(&fronting(&[server.address], "", BY_HTTP2))).await;
        ask(Version::Two, instance.address("web"), Asked::get("/")).await;
        let line = log.line(1).await;
        assert_eq!((&line["reason"], &line["error"]), (&"server_reset".into(), &words.into()), "{line:#}");
    }
}

#[tokio::test]
async fn a_server_that_speaks_http1_by_alpn_is_spoken_to_in_it() {
    use crate::stage::pki::Pki;
    let (pki, (told, mut heard)) = (Pki::new(), tokio::sync::mpsc::channel(8));
    let pair = pki.issue(&["example.com"]);
    for offered in ["h2", "http/1.1"] {
        let mut config = pki.server(&pair);
        config.alpn_protocols = vec![offered.into()];
        let told = told.clone();
        let server = Server::secure(config, move |mut stream| {
            let told = told.clone();
            async move {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let alpn = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
                told.send(String::from_utf8(alpn.unwrap()).unwrap()).await.unwrap();
                if offered == "h2" {
                    return serve_http2(stream, h2::server::Builder::new(), |_request, mut respond| async move {
                        send_answer(&mut respond, Answered::ok(Message::of("by 2")));
                    })
                    .await;
                }
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nby 1").await.unwrap();
                let _end = stream.read_to_end(&mut Vec::new()).await;
            }
        })
        .await;
        let pool = format!(
            "http = {{ version = \"auto\" }}\ntls = {{ ca = {:?}, server_name = \"example.com\" }}",
            pki.root()
        );
        let instance = Instance::start(&fronting(&[server.address], "", &pool)).await;
        let client = Client::connect(instance.address("web")).await;
        let answered = client.ask(Asked::get("/")).await.unwrap();
        assert_eq!(answered.text(), if offered == "h2" { "by 2" } else { "by 1" });
        assert_eq!(heard.recv().await.unwrap(), offered);
    }
}

#[tokio::test]
async fn a_server_that_does_not_speak_http2_is_a_bad_server() {
    // It answers the preface in HTTP/1.1, as many do.
    let server = Server::start(|mut stream| async move {
        use tokio::io::AsyncWriteExt;
        let _gone =
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    })
    .await;
    let log = AccessLog::new();
    let instance = Instance::start(&log.of(&fronting(&[server.address], "", BY_HTTP2))).await;
    let told = ask(Version::Two, instance.address("web"), Asked::get("/")).await;
    assert_eq!((told.status, told.message.field("x-portreeve-reason")), (502, "bad_response"));
    assert_eq!(log.line(1).await["error"], "it does not begin with settings");
}

#[tokio::test]
async fn a_server_may_not_push() {
    let server = Server::start(|stream| async move {
        let mut frames = Frames::welcome(stream, &[]).await;
        let settings = frames.until(|frame| frame.kind == SETTINGS && frame.flags & ACK == 0).await.unwrap();
        // SETTINGS_ENABLE_PUSH is 2.
        assert!(settings.payload.chunks(6).any(|setting| setting == [0, 2, 0, 0, 0, 0]), "{settings:?}");
        frames.until(|frame| frame.kind == HEADERS).await.unwrap();
        let promise = [&2_u32.to_be_bytes()[..], &crate::stage::frames::request("GET", "/pushed", &[])].concat();
        frames.send(crate::stage::frames::PUSH_PROMISE, END_HEADERS, 1, &promise).await;
        frames.send(HEADERS, WHOLE, 1, &[0x88]).await;
        frames.farewell().await;
    })
    .await;
    let instance = Instance::start(&fronting(&[server.address], "", BY_HTTP2)).await;
    assert_eq!(ask(Version::Two, instance.address("web"), Asked::get("/")).await.status, 502);
}
