//! Who does not read is not sent more, and holds up nobody else; and how many requests a connection may have at once.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::stage::frames::{Frames, Verdict};
use crate::stage::http2::{Answered, Asked, BY_HTTP2, Client, Message, fronting, read_response, send_answer};
use crate::stage::{Instance, Server, eventually, within};

/// How much is sent in all: far more than may be under way.
const ALL: u64 = 16 * 1024 * 1024;
/// The most that may be under way: the windows of both connections and a piece in between, but not what sockets hold, which
/// is of no stream's that the other side does not read.
const MOST: u64 = 1024 * 1024;

/// How much was sent and received of a body.
#[derive(Clone, Default)]
struct Flow {
    sent: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
}

impl Flow {
    fn under_way(&self) -> u64 {
        let received = self.received.load(Ordering::SeqCst);
        self.sent.load(Ordering::SeqCst).saturating_sub(received)
    }

    /// Sends as fast as the windows allow.
    async fn push(self, mut stream: SendStream<Bytes>) {
        let mut left = ALL;
        while left > 0 {
            stream.reserve_capacity(16 * 1024);
            let Some(Ok(room)) = within("room to send", poll_fn(|cx| stream.poll_capacity(cx))).await else { return };
            let bytes = left.min(room as u64);
            left -= bytes;
            self.sent.fetch_add(bytes, Ordering::SeqCst);
            if stream.send_data(vec![b'x'; bytes as usize].into(), left == 0).is_err() {
                return;
            }
        }
    }

    /// Reads, each time only when as much is under way as a window at first, or everything that is left.
    async fn pull(self, mut stream: RecvStream) {
        while self.received.load(Ordering::SeqCst) < ALL {
            let is_full = || self.under_way() >= 64_000 || self.sent.load(Ordering::SeqCst) == ALL;
            eventually("a full window", is_full).await;
            assert!(self.under_way() <= MOST, "{} bytes are under way", self.under_way());
            let data = within("data", stream.data()).await.unwrap().unwrap();
            stream.flow_control().release_capacity(data.len()).unwrap();
            self.received.fetch_add(data.len() as u64, Ordering::SeqCst);
        }
    }
}

#[tokio::test]
async fn a_server_that_does_not_read_stops_the_client() {
    let flow = Flow::default();
    let server = Server::of_http2(h2::server::Builder::new(), {
        let flow = flow.clone();
        move |request, mut respond| {
            let flow = flow.clone();
            async move {
                flow.pull(request.into_body()).await;
                send_answer(&mut respond, Answered::ok(Message::of("all of it")));
            }
        }
    })
    .await;
    let instance = Instance::start(&fronting(&[server.address], "", BY_HTTP2)).await;
    let client = Client::connect(instance.address("web")).await;
    let (response, body) = client.begin(Asked::post("/", "").head(), false).await;
    tokio::spawn(flow.push(body));
    assert_eq!(within("the response", response).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_server() {
    let flow = Flow::default();
    let server = Server::of_http2(h2::server::Builder::new(), {
        let flow = flow.clone();
        move |_request, mut respond| {
            let flow = flow.clone();
            async move {
                let stream = respond.send_response(http::Response::new(()), false).unwrap();
                flow.push(stream).await;
            }
        }
    })
    .await;
    let instance = Instance::start(&fronting(&[server.address], "", BY_HTTP2)).await;
    let client = Client::connect(instance.address("web")).await;
    let (response, _) = client.begin(Asked::get("/").head(), true).await;
    let body = within("the response", response).await.unwrap().into_body();
    flow.pull(body).await;
}

/// A server that answers `/endless` without an end and all else with a word.
async fn endless() -> Server {
    Server::of_http2(h2::server::Builder::new(), |request, mut respond| async move {
        match request.uri().path() {
            "/endless" => {
                let stream = respond.send_response(http::Response::new(()), false).unwrap();
                Flow::default().push(stream).await;
            }
            _ => send_answer(&mut respond, Answered::ok(Message::of("a word"))),
        }
    })
    .await
}

#[tokio::test]
async fn clients_that_do_not_read_hold_up_nobody_else_at_the_same_server() {
    let server = endless().await;
    let instance = Instance::start(&fronting(&[server.address], "", BY_HTTP2)).await;
    let mut stuck = Vec::new();
    for _ in 0..12 {
        let mut client = Frames::connect(instance.address("web")).await;
        client.get(1, "/endless").await;
        // It takes as much as its window has room for, and no more.
        let mut taken = 0;
        while taken < 65_535 {
            taken += client.until(|frame| frame.kind == 0).await.unwrap().payload.len();
        }
        stuck.push(client);
    }
    let client = Client::connect(instance.address("web")).await;
    for _ in 0..20 {
        assert_eq!(client.ask(Asked::get("/")).await.unwrap().text(), "a word");
    }
    assert_eq!(server.accepted(), 1, "all of them share a connection to the server");
}

#[tokio::test]
async fn a_stream_that_is_not_read_holds_up_no_other_of_its_connection() {
    let server = endless().await;
    let instance = Instance::start(&fronting(&[server.address], "", BY_HTTP2)).await;
    let mut builder = h2::client::Builder::new();
    builder.initial_connection_window_size(1024 * 1024);
    let stream = TcpStream::connect(instance.address("web")).await.unwrap();
    let client = Client::over(stream, &builder).await;
    let (response, _) = client.begin(Asked::get("/endless").head(), true).await;
    let _unread = within("the response", response).await.unwrap();
    for _ in 0..20 {
        assert_eq!(client.ask(Asked::get("/")).await.unwrap().text(), "a word");
    }
}

/// A server that answers when it is let.
async fn held() -> (Server, Arc<Semaphore>) {
    let go = Arc::new(Semaphore::new(0));
    let server = Server::of_http2(h2::server::Builder::new(), {
        let go = Arc::clone(&go);
        move |_request, mut respond| {
            let go = Arc::clone(&go);
            async move {
                go.acquire().await.unwrap().forget();
                send_answer(&mut respond, Answered::ok(Message::of("at last")));
            }
        }
    });
    (server.await, go)
}

#[tokio::test]
async fn a_hundred_requests_are_served_at_once_and_the_next_one_waits() {
    let (server, go) = held().await;
    let instance = Instance::start(&fronting(&[server.address], "", BY_HTTP2)).await;
    let client = Client::connect(instance.address("web")).await;
    // Once it was answered, the client knows how many it may have.
    go.add_permits(1);
    client.ask(Asked::get("/")).await.unwrap();
    assert_eq!(client.requests.current_max_send_streams(), 100);
    let mut waiting = Vec::new();
    for _ in 0..101 {
        let mut requests = client.requests.clone();
        waiting.push(tokio::spawn(async move {
            requests = requests.ready().await?;
            read_response(requests.send_request(Asked::get("/").head(), true)?.0).await
        }));
    }
    go.add_permits(101);
    for request in waiting {
        assert_eq!(request.await.unwrap().unwrap().text(), "at last");
    }
}

#[tokio::test]
async fn a_client_that_does_not_keep_to_the_number_of_streams_has_the_next_one_refused() {
    let (server, go) = held().await;
    let instance = Instance::start(&fronting(&[server.address], "http = { max_streams = 5 }", BY_HTTP2)).await;
    let mut client = Frames::connect(instance.address("web")).await;
    for number in 0..6 {
        client.get(number * 2 + 1, "/").await;
    }
    const REFUSED_STREAM: u32 = 7;
    assert_eq!(client.verdict(11).await, Verdict::Reset(REFUSED_STREAM));
    go.add_permits(6);
    // The others are served, and when they are, there is room again.
    for _ in 0..5 {
        client.until(|frame| frame.kind == 1).await.unwrap();
    }
    client.get(13, "/").await;
    client.until(|frame| frame.kind == 1 && frame.stream == 13).await.unwrap();
}
