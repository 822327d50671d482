//! Frames that may not be where or as they are: what h2spec asks for, as far as a proxy meets it.

use super::Fortress;
use crate::stage::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Field, Frames, GOAWAY, HEADERS, PING, PREFACE, PRIORITY,
    PUSH_PROMISE, RST_STREAM, SETTINGS, Verdict, WHOLE, WINDOW_UPDATE, frame, request,
};
use crate::stage::within;

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;

/// What the connection goes away with when these bytes follow its preface and settings.
async fn farewell_to(fortress: &Fortress, bytes: &[u8]) -> Option<u32> {
    let mut frames = fortress.connect().await;
    let _gone = frames.write(bytes).await;
    frames.farewell().await
}

#[tokio::test]
async fn what_breaks_the_protocol_ends_the_connection_and_says_so() {
    let fortress = Fortress::start().await;
    let get = |stream: u32| frame(HEADERS, WHOLE, stream, &request("GET", "/healthy", &[]));
    let open =
        |stream: u32| frame(HEADERS, END_HEADERS, stream, &request("POST", "/open", &[("content-length", b"9")]));
    let broken: Vec<(&str, Vec<u8>, &[u32])> = vec![
        // RFC 9113 §6.1, §6.2, §6.3, §6.4
        ("data on stream 0", frame(DATA, 0, 0, b"x"), &[PROTOCOL_ERROR]),
        ("data on an idle stream", frame(DATA, 0, 1, b"x"), &[PROTOCOL_ERROR]),
        ("more padding than data", [open(1), frame(DATA, 8, 1, &[9, 0])].concat(), &[PROTOCOL_ERROR]),
        ("headers on stream 0", frame(HEADERS, WHOLE, 0, &request("GET", "/", &[])), &[PROTOCOL_ERROR]),
        ("headers on a stream of the server's", get(2), &[PROTOCOL_ERROR]),
        ("a stream below one before", [get(5), get(3)].concat(), &[PROTOCOL_ERROR, STREAM_CLOSED]),
        ("a reset of stream 0", frame(RST_STREAM, 0, 0, &[0; 4]), &[PROTOCOL_ERROR]),
        ("a reset of an idle stream", frame(RST_STREAM, 0, 1, &[0; 4]), &[PROTOCOL_ERROR]),
        ("a reset of a wrong size", [open(1), frame(RST_STREAM, 0, 1, &[0; 3])].concat(), &[FRAME_SIZE_ERROR]),
        // §6.5
        ("settings on a stream", frame(SETTINGS, 0, 1, &[]), &[PROTOCOL_ERROR]),
        ("settings of a wrong size", frame(SETTINGS, 0, 0, &[0; 5]), &[FRAME_SIZE_ERROR]),
        ("an acknowledgement with settings", frame(SETTINGS, ACK, 0, &[0, 4, 0, 0, 0, 1]), &[FRAME_SIZE_ERROR]),
        ("push that is neither on nor off", frame(SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2]), &[PROTOCOL_ERROR]),
        ("a window beyond the largest", frame(SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0]), &[FLOW_CONTROL_ERROR]),
        ("a frame size below the least", frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0x3f, 0xff]), &[PROTOCOL_ERROR]),
        ("a frame size beyond the largest", frame(SETTINGS, 0, 0, &[0, 5, 1, 0, 0, 0]), &[PROTOCOL_ERROR]),
        // §6.6 to §6.9
        (
            "a promise by a client",
            [open(1), frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])].concat(),
            &[PROTOCOL_ERROR],
        ),
        ("a ping on a stream", frame(PING, 0, 1, &[0; 8]), &[PROTOCOL_ERROR]),
        ("a ping of a wrong size", frame(PING, 0, 0, &[0; 7]), &[FRAME_SIZE_ERROR]),
        ("a farewell on a stream", frame(GOAWAY, 0, 1, &[0; 8]), &[PROTOCOL_ERROR]),
        ("a window that does not grow", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), &[PROTOCOL_ERROR]),
        ("a window update of a wrong size", frame(WINDOW_UPDATE, 0, 0, &[0; 3]), &[FRAME_SIZE_ERROR]),
        ("a window that overflows", frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]), &[FLOW_CONTROL_ERROR]),
        ("a window of an idle stream", frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]), &[PROTOCOL_ERROR]),
        // §6.10
        ("a continuation of nothing", frame(CONTINUATION, END_HEADERS, 1, &[0x82]), &[PROTOCOL_ERROR]),
        (
            "another frame within a header",
            [frame(HEADERS, 0, 1, &request("GET", "/", &[])), frame(PING, 0, 0, &[0; 8])].concat(),
            &[PROTOCOL_ERROR],
        ),
        (
            "a continuation of another stream",
            [frame(HEADERS, 0, 1, &request("GET", "/", &[])), frame(CONTINUATION, END_HEADERS, 3, &[])].concat(),
            &[PROTOCOL_ERROR],
        ),
        // §4.2
        ("a frame beyond the largest", frame(DATA, 0, 1, &vec![0; 16_385]), &[FRAME_SIZE_ERROR]),
        ("a header beyond the largest frame", frame(HEADERS, WHOLE, 1, &vec![0; 16_385]), &[FRAME_SIZE_ERROR]),
    ];
    for (what, bytes, codes) in broken {
        let code = farewell_to(&fortress, &bytes).await;
        // The code is for people to read: that it is an error is what counts. One that has no word for it may leave without.
        let is_known = |code| codes.contains(&code) || code == PROTOCOL_ERROR;
        assert!(code.is_none_or(is_known), "{what}: {code:?}");
        let said = code.is_some();
        assert!(said || what.contains("beyond") || what.contains("server's"), "{what}: without a word");
    }
    fortress.has_withstood().await;
}

#[tokio::test]
async fn what_is_wrong_on_one_stream_leaves_the_others_alone() {
    let fortress = Fortress::start().await;
    let open = request("POST", "/open", &[("content-length", b"9")]);
    let wrong: [(&str, Vec<u8>); 4] = [
        ("a stream window that does not grow", frame(WINDOW_UPDATE, 0, 1, &[0; 4])),
        ("a stream window that overflows", frame(WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0xff, 0xff])),
        ("more data than was said", frame(DATA, END_STREAM, 1, b"far more than nine")),
        ("less data than was said", frame(DATA, END_STREAM, 1, b"less")),
    ];
    for (what, bytes) in wrong {
        let mut frames = fortress.connect().await;
        frames.send(HEADERS, END_HEADERS, 1, &open).await;
        frames.write(&bytes).await.unwrap();
        let verdict = frames.verdict(1).await;
        assert!(verdict.is_refusal(), "{what}: {verdict:?}");
        if matches!(verdict, Verdict::Reset(_)) {
            frames.get(3, "/healthy").await;
            let next = frames.until(|frame| frame.kind == HEADERS && frame.stream == 3).await;
            assert!(next.is_some(), "{what}: the connection went with it");
        }
    }
    fortress.has_withstood().await;
}

#[tokio::test]
async fn trailers_that_are_none_are_refused() {
    let fortress = Fortress::start().await;
    let open = request("POST", "/open", &[]);
    let bad: [(&str, u8, &[Field<'_>]); 2] =
        [("no end", END_HEADERS, &[("x-trailer", b"1")]), ("a newline", WHOLE, &[("x-trailer", b"1\r\nx: y")])];
    for (what, flags, fields) in bad {
        let mut frames = fortress.connect().await;
        frames.send(HEADERS, END_HEADERS, 1, &open).await;
        frames.send(HEADERS, flags, 1, &crate::stage::frames::block(fields)).await;
        let verdict = frames.verdict(1).await;
        assert!(verdict.is_refusal(), "{what}: {verdict:?}");
    }
    fortress.has_withstood().await;
}

#[tokio::test]
async fn a_pseudo_header_among_trailers_changes_nothing() {
    let fortress = Fortress::start().await;
    let mut frames = fortress.connect().await;
    frames.send(HEADERS, END_HEADERS, 1, &request("GET", "/healthy", &[("te", b"trailers")])).await;
    frames.send(HEADERS, WHOLE, 1, &crate::stage::frames::block(&[(":path", b"/other")])).await;
    let verdict = frames.verdict(1).await;
    assert!(verdict == Verdict::Status(200) || verdict.is_refusal(), "{verdict:?}");
    fortress.has_withstood().await;
}

#[tokio::test]
async fn what_may_be_ignored_is() {
    let fortress = Fortress::start().await;
    let mut frames = fortress.connect().await;
    // An unknown frame, an unknown setting, a priority, a ping, and flags without a meaning (§4.1, §5.5, §6.5.2).
    frames.send(0x42, 0xff, 0, b"whatever").await;
    frames.send(SETTINGS, 0, 0, &[0x42, 0x42, 1, 2, 3, 4]).await;
    frames.send(PRIORITY, 0, 1, &[0, 0, 0, 0, 200]).await;
    frames.send(PING, 0xfe, 0, b"01234567").await;
    let answer = frames.until(|frame| frame.kind == PING && frame.flags & ACK != 0).await.unwrap();
    assert_eq!(answer.payload, b"01234567");
    // A header with padding and a priority of its own.
    let padded = [&[3, 0, 0, 0, 0, 16][..], &request("GET", "/healthy", &[]), &[0; 3]].concat();
    frames.send(HEADERS, WHOLE | 8 | 0x20, 1, &padded).await;
    assert_eq!(frames.verdict(1).await, Verdict::Status(200));
    fortress.has_withstood().await;
}

#[tokio::test]
async fn what_is_no_preface_is_no_http2() {
    let fortress = Fortress::start().await;
    for preface in
        [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r"[..], b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\n"]
    {
        let stream = within("connect", tokio::net::TcpStream::connect(fortress.address)).await.unwrap();
        let mut frames = Frames { stream };
        let wrong = [preface, &b"not settings at all"[..]].concat();
        let _gone = frames.write(&wrong).await;
        let mut heard = Vec::new();
        let _end = within("the end", tokio::io::AsyncReadExt::read_to_end(&mut frames.stream, &mut heard)).await;
        assert!(!heard.windows(3).any(|window| window == b"200"), "{preface:?}");
    }
    // The right one, and then no settings (§3.4).
    let stream = within("connect", tokio::net::TcpStream::connect(fortress.address)).await.unwrap();
    let mut frames = Frames { stream };
    frames.write(&[PREFACE, &frame(PING, 0, 0, &[0; 8])].concat()).await.unwrap();
    frames.farewell().await;
    fortress.has_withstood().await;
}
