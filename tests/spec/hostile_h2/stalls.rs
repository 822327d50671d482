//! Clients that begin something and do not go on.

use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use super::Fortress;
use crate::stage::frames::{DATA, END_HEADERS, Frames, HEADERS, PREFACE, SETTINGS, Verdict, frame, request};
use crate::stage::http2::fronting;
use crate::stage::{Program, Server, within};

/// Waits for the end of a connection, which has to come soon and not at once.
async fn ends(mut frames: Frames) {
    let began = Instant::now();
    frames.farewell().await;
    assert!(began.elapsed() < Duration::from_secs(15));
}

#[tokio::test]
async fn half_a_preface_and_half_a_header_end_by_the_deadline() {
    let fortress = Fortress::with("timeouts = { request_header = \"300ms\" }").await;
    let head = frame(HEADERS, 0, 1, &request("GET", "/half", &[]));
    let begun = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    let halves: [(&str, Vec<u8>); 6] = [
        ("nothing", Vec::new()),
        ("half a preface", PREFACE[..10].to_vec()),
        ("the preface alone", PREFACE.to_vec()),
        ("half a frame", [&begun[..], &head[..5]].concat()),
        ("half a payload", [&begun[..], &head[..20]].concat()),
        ("a header without its end", [&begun[..], &head].concat()),
    ];
    for (what, half) in halves {
        let stream = within("connect", TcpStream::connect(fortress.address)).await.unwrap();
        let mut frames = Frames { stream };
        frames.write(&half).await.unwrap();
        let began = Instant::now();
        let mut heard = Vec::new();
        let _end = within(what, tokio::io::AsyncReadExt::read_to_end(&mut frames.stream, &mut heard)).await;
        assert!(began.elapsed() < Duration::from_secs(10), "{what}");
    }
    fortress.has_withstood().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for_without_end() {
    let fortress = Fortress::with("timeouts = { body_idle = \"300ms\" }").await;
    let mut frames = fortress.connect().await;
    frames.send(HEADERS, END_HEADERS, 1, &request("POST", "/slow", &[("content-length", b"100")])).await;
    frames.send(DATA, 0, 1, b"some").await;
    assert_eq!(frames.verdict(1).await, Verdict::Status(408));
    fortress.has_withstood().await;
}

#[tokio::test]
async fn a_client_that_opens_no_window_is_not_waited_for_without_end() {
    // CVE-2019-9511 and CVE-2019-9517: much is asked for, and nothing taken.
    let server = Server::of_http2(h2::server::Builder::new(), |_request, mut respond| async move {
        let mut stream = respond.send_response(http::Response::new(()), false).unwrap();
        stream.send_data(vec![b'x'; 1024 * 1024].into(), true).unwrap();
        let _reset = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
    })
    .await;
    let listener = "timeouts = { idle = \"500ms\", keep_alive = \"500ms\" }";
    let mut program = Program::start(&fronting(&[server.address], listener, crate::stage::http2::BY_HTTP2));
    let address = program.listening("web").await;
    // With a window of nothing, on each stream; and with one that is never opened again.
    for settings in [&[0, 4, 0, 0, 0, 0][..], &[]] {
        let mut frames = Frames::connect(address).await;
        frames.send(SETTINGS, 0, 0, settings).await;
        for number in 0..50 {
            frames.get(number * 2 + 1, "/much").await;
        }
        ends(frames).await;
    }
    let mut frames = Frames::connect(address).await;
    frames.get(1, "/much").await;
    assert_eq!(frames.verdict(1).await, Verdict::Status(200));
    assert!(program.peak_memory() < 160 * 1024 * 1024, "{} bytes", program.peak_memory());
}

#[tokio::test]
async fn a_client_that_reads_nothing_at_all_is_not_waited_for_without_end() {
    let fortress = Fortress::with("timeouts = { idle = \"500ms\", keep_alive = \"500ms\" }").await;
    let mut frames = fortress.connect().await;
    // The windows are open as wide as can be; it is the socket that nothing is read from.
    frames.send(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]).await;
    for number in 0..50 {
        frames.get(number * 2 + 1, "/healthy").await;
    }
    ends(frames).await;
    fortress.has_withstood().await;
}
