//! How streams and connections end, in good order and otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};

use crate::stage::frames::{DATA, Frames, GOAWAY, Verdict};
use crate::stage::http2::{Answered, Asked, Client, Message, Version, fronting, read_response, send_answer};
use crate::stage::{Instance, Server, hear, within};

use portreeve::ending::Reason;

/// A server that begins to answer and then breaks off.
async fn breaking_off(version: Version) -> Server {
    match version {
        Version::One => {
            Server::start(|mut stream| async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n").await.unwrap();
            })
            .await
        }
        Version::Two => {
            Server::of_http2(h2::server::Builder::new(), |_request, mut respond| async move {
                let mut stream = respond.send_response(http::Response::new(()), false).unwrap();
                stream.send_data("half".into(), false).unwrap();
                // What is reset is sent no more: the data goes first.
                stream.reserve_capacity(1 << 20);
                tokio::task::yield_now().await;
                stream.send_reset(h2::Reason::INTERNAL_ERROR);
            })
            .await
        }
    }
}

#[tokio::test]
async fn a_response_that_breaks_off_is_not_taken_for_whole() {
    for version in Version::BOTH {
        let server = breaking_off(version).await;
        let instance = Instance::start(&fronting(&[server.address], "", version.of_pool())).await;
        // A client of HTTP/2 is told by a reset of the stream alone; the connection goes on.
        let mut client = Frames::connect(instance.address("web")).await;
        for stream in [1, 3] {
            client.get(stream, "/").await;
            // The reset may overtake what was said before it.
            let mut verdict = client.verdict(stream).await;
            if verdict == Verdict::Status(200) {
                verdict = client.verdict(stream).await;
            }
            let is_told = matches!(verdict, Verdict::Reset(code) if code != 0) || verdict == Verdict::Status(502);
            assert!(is_told, "{version:?}: {verdict:?}");
        }
        // A client of HTTP/1, whose chunks have no end then, by that of the connection.
        let mut client = instance.connect().await;
        client.write_all(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n").await.unwrap();
        let heard = hear(client).await;
        assert!(!heard.is_ok_and(|text| text.ends_with("0\r\n\r\n")), "{version:?}");
    }
}

#[tokio::test]
async fn a_client_that_gives_up_a_stream_cancels_the_request_at_the_server() {
    // By HTTP/2, its stream is reset.
    let (told, mut cancelled) = mpsc::channel(1);
    let server = Server::of_http2(h2::server::Builder::new(), move |_request, mut respond| {
        let told = told.clone();
        async move {
            let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            told.send(reason.unwrap()).await.unwrap();
        }
    })
    .await;
    let instance = Instance::start(&fronting(&[server.address], "", Version::Two.of_pool())).await;
    let client = Client::connect(instance.address("web")).await;
    let (response, _body) = client.begin(Asked::post("/", "").head(), false).await;
    crate::stage::eventually("the request", || server.accepted() == 1).await;
    drop((response, _body));
    assert_eq!(within("the reset", cancelled.recv()).await.unwrap(), h2::Reason::CANCEL);
    // By HTTP/1, its connection is closed.
    let (told, mut ended) = mpsc::channel(1);
    let server = Server::start(move |mut stream| {
        let told = told.clone();
        async move {
            told.send("a request").await.unwrap();
            let _reset = stream.read_to_end(&mut Vec::new()).await;
            told.send("its end").await.unwrap();
        }
    })
    .await;
    let instance = Instance::start(&fronting(&[server.address], "", "")).await;
    let client = Client::connect(instance.address("web")).await;
    let (response, body) = client.begin(Asked::post("/", "").head(), false).await;
    assert_eq!(within("the request", ended.recv()).await, Some("a request"));
    drop((response, body));
    assert_eq!(within("the end", ended.recv()).await, Some("its end"));
}

/// A server that answers with its word when it is let, and says when a request has come.
struct Slow {
    server: Server,
    arrived: mpsc::Receiver<()>,
    go: Arc<Semaphore>,
}

impl Slow {
    async fn start(word: &'static str) -> Self {
        let (go, (told, arrived)) = (Arc::new(Semaphore::new(0)), mpsc::channel(64));
        let server = Server::of_http2(h2::server::Builder::new(), {
            let go = Arc::clone(&go);
            move |_request, mut respond| {
                let (go, told) = (Arc::clone(&go), told.clone());
                async move {
                    told.send(()).await.unwrap();
                    go.acquire().await.unwrap().forget();
                    send_answer(&mut respond, Answered::ok(Message::of(word)));
                }
            }
        });
        Self { server: server.await, arrived, go }
    }

    async fn front(&self, listener: &str) -> Instance {
        Instance::start(&fronting(&[self.server.address], listener, Version::Two.of_pool())).await
    }
}

#[tokio::test]
async fn a_stopping_instance_says_goaway_and_finishes_what_is_under_way() {
    let mut slow = Slow::start("finished").await;
    let instance = slow.front("").await;
    let mut client = Frames::connect(instance.address("web")).await;
    client.get(1, "/").await;
    within("the request", slow.arrived.recv()).await.unwrap();
    let running = instance.running;
    let stopping = tokio::spawn(async move { running.stop().await });
    // First that it will stop, so that what is on the way is taken, then up to where (RFC 9113 §6.8).
    let first = client.until(|frame| frame.kind == GOAWAY).await.unwrap();
    assert_eq!((first.number(0), first.number(4)), (0x7fff_ffff, 0));
    let second = client.until(|frame| frame.kind == GOAWAY).await.unwrap();
    assert_eq!((second.number(0), second.number(4)), (1, 0));
    slow.go.add_permits(1);
    assert_eq!(client.verdict(1).await, Verdict::Status(200));
    assert_eq!(client.until(|frame| frame.kind == DATA).await.unwrap().payload, b"finished");
    assert_eq!(client.next().await, None);
    let stopped = within("the stop", stopping).await.unwrap();
    assert_eq!((stopped.drained, stopped.reset), (1, 0));
}

#[tokio::test]
async fn a_client_that_does_not_answer_the_farewell_of_a_stopping_instance_does_not_keep_it() {
    let slow = Slow::start("a word").await;
    let text = fronting(&[slow.server.address], "", Version::Two.of_pool());
    let instance = Instance::start(&format!("drain_timeout = \"1h\"\n{text}")).await;
    slow.go.add_permits(1);
    let mut client = Frames::connect(instance.address("web")).await;
    client.get(1, "/").await;
    assert_eq!(client.verdict(1).await, Verdict::Status(200));
    let running = instance.running;
    let stopping = tokio::spawn(async move { running.stop().await });
    // It hears all and says nothing.
    within("the end", client.stream.read_to_end(&mut Vec::new())).await.unwrap();
    let stopped = within("the stop", stopping).await.unwrap();
    assert_eq!((stopped.drained, stopped.reset), (1, 0));
}

#[tokio::test]
async fn what_is_under_way_when_the_drain_timeout_is_over_is_cut_off() {
    let mut slow = Slow::start("never").await;
    let text = fronting(&[slow.server.address], "", Version::Two.of_pool());
    let instance = Instance::start(&format!("drain_timeout = \"100ms\"\n{text}")).await;
    let client = Client::connect(instance.address("web")).await;
    let (response, _) = client.begin(Asked::get("/").head(), true).await;
    within("the request", slow.arrived.recv()).await.unwrap();
    let listener = instance.listener("web");
    let stopped = within("the stop", instance.running.stop()).await;
    assert_eq!((stopped.drained, stopped.reset), (0, 1), "{}", crate::stage::endings(&listener));
    read_response(response).await.unwrap_err();
}

#[tokio::test]
async fn an_old_connection_is_asked_to_leave_between_requests() {
    let mut slow = Slow::start("finished").await;
    let instance = slow.front("timeouts = { max_age = \"200ms\" }").await;
    let mut client = Frames::connect(instance.address("web")).await;
    client.get(1, "/").await;
    within("the request", slow.arrived.recv()).await.unwrap();
    client.until(|frame| frame.kind == GOAWAY).await.unwrap();
    slow.go.add_permits(1);
    assert_eq!(client.verdict(1).await, Verdict::Status(200));
    assert_eq!(client.farewell().await.unwrap_or(0), 0);
    instance.ended(Reason::Done, 1).await;
}

#[tokio::test]
async fn a_connection_without_requests_is_closed_after_keep_alive() {
    let slow = Slow::start("a word").await;
    let instance = slow.front("timeouts = { keep_alive = \"100ms\" }").await;
    slow.go.add_permits(1);
    let mut client = Frames::connect(instance.address("web")).await;
    let began = Instant::now();
    client.get(1, "/").await;
    assert_eq!(client.verdict(1).await, Verdict::Status(200));
    assert_eq!(client.farewell().await, Some(0));
    assert!(began.elapsed() >= Duration::from_millis(100), "it waited for another request");
}

#[tokio::test]
async fn a_connection_that_never_has_a_request_is_closed_as_one_of_http1_is() {
    let slow = Slow::start("a word").await;
    let instance = slow.front("timeouts = { request_header = \"100ms\" }").await;
    let mut client = Frames::connect(instance.address("web")).await;
    client.farewell().await;
    instance.ended(Reason::HeaderTimeout, 1).await;
}

#[tokio::test]
async fn a_connection_has_no_more_requests_than_it_may() {
    let slow = Slow::start("a word").await;
    let instance = slow.front("http = { max_requests = 3 }").await;
    slow.go.add_permits(9);
    let mut client = Client::connect(instance.address("web")).await;
    for _ in 0..3 {
        assert_eq!(client.ask(Asked::get("/")).await.unwrap().text(), "a word");
    }
    client.ended().await;
    instance.ended(Reason::Done, 1).await;
}

#[tokio::test]
async fn a_reload_is_in_effect_for_the_next_stream_of_a_connection() {
    let (mut first, second) = (Slow::start("first").await, Slow::start("second").await);
    let text = |server: &Slow| fronting(&[server.server.address], "", Version::Two.of_pool());
    let instance = Instance::start(&text(&first)).await;
    let client = Client::connect(instance.address("web")).await;
    let (under_way, _) = client.begin(Asked::get("/").head(), true).await;
    within("the request", first.arrived.recv()).await.unwrap();
    instance.running.reload_text(&text(&second)).await.unwrap();
    second.go.add_permits(1);
    assert_eq!(client.ask(Asked::get("/")).await.unwrap().text(), "second");
    // What was under way goes on at its server, which is no more in the pool.
    first.go.add_permits(1);
    assert_eq!(read_response(under_way).await.unwrap().text(), "first");
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_requests_with_it() {
    let gone = Arc::new(AtomicUsize::new(0));
    let server = Server::of_http2(h2::server::Builder::new(), {
        let gone = Arc::clone(&gone);
        move |_request, mut respond| {
            let gone = Arc::clone(&gone);
            async move {
                std::future::poll_fn(|cx| respond.poll_reset(cx)).await.unwrap();
                gone.fetch_add(1, Ordering::SeqCst);
            }
        }
    })
    .await;
    let instance = Instance::start(&fronting(&[server.address], "", Version::Two.of_pool())).await;
    let mut client = Frames::connect(instance.address("web")).await;
    for number in 0..10 {
        client.get(number * 2 + 1, "/").await;
    }
    crate::stage::eventually("the connection", || server.accepted() == 1).await;
    // Only once all are under way: what was not looked at yet is not sent at all.
    client.until(|frame| frame.kind == crate::stage::frames::SETTINGS && frame.flags == 1).await.unwrap();
    let listener = instance.listener("web");
    drop(client);
    crate::stage::eventually("the end of its requests", || {
        listener.endings(Reason::Done) + listener.endings(Reason::ClientReset) == 1
            && instance.of_server("connections_active", server.address, "") == 0.0
    })
    .await;
    assert!(gone.load(Ordering::SeqCst) <= 10);
}
