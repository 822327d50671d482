//! Many frames that cost their sender little.

use super::Fortress;
use crate::stage::frames::{
    CONTINUATION, DATA, END_HEADERS, Frames, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, Verdict, WHOLE,
    WINDOW_UPDATE, block, frame, request,
};

/// Writes these bytes over and over until the other side has had enough, or that often; nothing is read meanwhile, but what
/// is there when it is over.
async fn flood(frames: &mut Frames, times: u32, mut bytes: impl FnMut(u32) -> Vec<u8>) -> Option<u32> {
    let mut piece = Vec::new();
    for number in 0..times {
        piece.extend(bytes(number));
        if piece.len() > 64 * 1024 || number + 1 == times {
            if frames.write(&piece).await.is_err() {
                break;
            }
            piece.clear();
        }
    }
    frames.farewell().await
}

/// What has a stream reset, by its number.
type Trigger = fn(u32) -> Vec<u8>;

/// The stream of the client's request of this number.
fn stream(number: u32) -> u32 {
    number * 2 + 1
}

#[tokio::test]
async fn requests_that_are_given_up_at_once_end_the_connection() {
    // CVE-2023-44487.
    let fortress = Fortress::with("timeouts = { keep_alive = \"2s\" }").await;
    let mut frames = fortress.connect().await;
    let head = request("GET", "/given-up", &[]);
    let one = |number| {
        let head = frame(HEADERS, WHOLE, stream(number), &head);
        [head, frame(RST_STREAM, 0, stream(number), &8_u32.to_be_bytes())].concat()
    };
    flood(&mut frames, 10_000, one).await;
    fortress.stands().await;
    let asked = fortress.record.requests().iter().filter(|request| request.contains("given-up")).count();
    assert!(asked < 500, "the server was asked {asked} times");
    fortress.keeps_its_memory();
}

#[tokio::test]
async fn streams_that_the_client_has_us_reset_end_the_connection() {
    // CVE-2025-8671: each of these frames is a reason for a reset by us, which counts as no stream of the client's.
    let fortress = Fortress::with("timeouts = { keep_alive = \"2s\" }").await;
    let head = request("POST", "/made-you-reset", &[("content-length", b"1")]);
    let triggers: [(&str, Trigger); 3] = [
        ("a window that does not grow", |id| frame(WINDOW_UPDATE, 0, id, &0_u32.to_be_bytes())),
        ("a window that overflows", |id| frame(WINDOW_UPDATE, 0, id, &0x7fff_ffff_u32.to_be_bytes())),
        ("more data than was said", |id| frame(DATA, 0, id, b"more")),
    ];
    for (what, trigger) in triggers {
        let mut frames = fortress.connect().await;
        let one = |number| [frame(HEADERS, END_HEADERS, stream(number), &head), trigger(stream(number))].concat();
        let code = flood(&mut frames, 20_000, one).await;
        assert!(code.is_none_or(|code| code != 0), "{what}: {code:?}");
        fortress.stands().await;
    }
    let asked = fortress.record.requests().iter().filter(|request| request.contains("made-you")).count();
    assert_eq!(asked, 0, "none of them was whole");
    fortress.keeps_its_memory();
}

#[tokio::test]
async fn a_header_without_an_end_ends_the_connection() {
    // CVE-2024-27316 and others.
    let fortress = Fortress::start().await;
    let mut frames = fortress.connect().await;
    frames.send(HEADERS, 0, 1, &request("GET", "/endless", &[])).await;
    let field = block(&[("x-more", &[b'x'; 1000])]);
    let code = flood(&mut frames, 100_000, |_| frame(CONTINUATION, 0, 1, &field)).await;
    assert!(code.is_none_or(|code| code != 0), "{code:?}");
    // The same with nothing in them.
    let mut frames = fortress.connect().await;
    frames.send(HEADERS, 0, 1, &request("GET", "/endless", &[])).await;
    let code = flood(&mut frames, 100_000, |_| frame(CONTINUATION, 0, 1, &[])).await;
    assert!(code.is_none_or(|code| code != 0), "{code:?}");
    fortress.has_withstood().await;
}

#[tokio::test]
async fn settings_and_pings_whose_answers_are_not_read_pile_up_nowhere() {
    // CVE-2019-9512 and CVE-2019-9515.
    let fortress = Fortress::with("timeouts = { request_header = \"2s\" }").await;
    for (kind, payload) in [(PING, &[0; 8][..]), (SETTINGS, &[]), (SETTINGS, &[0, 4, 0, 0, 0xff, 0xff])] {
        let mut frames = fortress.connect().await;
        // Far more than sockets hold of the answers: writing ends, or is cut off by a deadline, while nobody reads.
        let flood = frame(kind, 0, 0, payload).repeat(4096);
        let mut written = 0;
        while written < 64 * 1024 * 1024 {
            let write = tokio::io::AsyncWriteExt::write(&mut frames.stream, &flood);
            match tokio::time::timeout(std::time::Duration::from_secs(1), write).await {
                // It does not read on: that is an answer too, and the deadline for the first request comes.
                Err(_) | Ok(Err(_) | Ok(0)) => break,
                Ok(Ok(bytes)) => written += bytes,
            }
        }
        frames.farewell().await;
        fortress.stands().await;
    }
    fortress.has_withstood().await;
}

#[tokio::test]
async fn far_more_requests_than_agreed_end_the_connection() {
    let fortress = Fortress::start().await;
    let mut frames = fortress.connect().await;
    let head = request("GET", "/far-more", &[]);
    let code = flood(&mut frames, 100_000, |number| frame(HEADERS, WHOLE, stream(number), &head)).await;
    assert!(code.is_none_or(|code| code != 0), "{code:?}");
    fortress.stands().await;
    let asked = fortress.record.requests().iter().filter(|request| request.contains("far-more")).count();
    assert!(asked < 10_000, "the server was asked {asked} times");
    fortress.keeps_its_memory();
}

#[tokio::test]
async fn data_frames_without_data_end_the_stream_or_the_connection() {
    // CVE-2019-9518.
    let fortress = Fortress::with("timeouts = { body_idle = \"3s\" }").await;
    let mut frames = fortress.connect().await;
    frames.send(HEADERS, END_HEADERS, 1, &request("POST", "/empty", &[("content-length", b"5")])).await;
    let flood = frame(DATA, 0, 1, &[]).repeat(1000);
    for _ in 0..100 {
        if frames.write(&flood).await.is_err() {
            break;
        }
    }
    assert!(frames.verdict(1).await.is_refusal());
    // Padding is no data either.
    let mut frames = fortress.connect().await;
    frames.send(HEADERS, END_HEADERS, 1, &request("POST", "/empty", &[("content-length", b"5")])).await;
    const PADDED: u8 = 8;
    let flood = frame(DATA, PADDED, 1, &[1, 0]).repeat(1000);
    for _ in 0..100 {
        if frames.write(&flood).await.is_err() {
            break;
        }
    }
    assert!(frames.verdict(1).await.is_refusal());
    fortress.has_withstood().await;
}

#[tokio::test]
async fn priorities_and_unknown_frames_are_read_over_and_cost_nothing() {
    let fortress = Fortress::start().await;
    for kind in [PRIORITY, 0x42] {
        let mut frames = fortress.connect().await;
        let one = frame(kind, 0, 3, &[0, 0, 0, 0, 15]).repeat(1000);
        for _ in 0..100 {
            if frames.write(&one).await.is_err() {
                break;
            }
        }
        frames.get(1, "/healthy").await;
        let verdict = frames.verdict(1).await;
        assert!(verdict == Verdict::Status(200) || verdict.is_refusal(), "{kind}: {verdict:?}");
    }
    fortress.has_withstood().await;
}

#[tokio::test]
async fn window_updates_by_the_smallest_step_end_in_a_response_or_the_connection() {
    let fortress = Fortress::start().await;
    let mut frames = fortress.connect().await;
    let one = frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()).repeat(1000);
    for _ in 0..100 {
        if frames.write(&one).await.is_err() {
            break;
        }
    }
    frames.get(1, "/healthy").await;
    let verdict = frames.verdict(1).await;
    assert!(verdict == Verdict::Status(200) || verdict.is_refusal(), "{verdict:?}");
    fortress.has_withstood().await;
}
