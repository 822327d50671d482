//! What compression promises: for whom, of which, and that everything comes out again.

use std::io::Read as _;

use super::*;

fn decoded(coding: Coding, bytes: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::new();
    match coding {
        Coding::Gzip => flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut decoded).unwrap(),
        Coding::Brotli => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut decoded).unwrap(),
        Coding::Zstd => zstd::stream::read::Decoder::new(bytes).unwrap().read_to_end(&mut decoded).unwrap(),
    };
    decoded
}

/// What can be decoded of the beginning of a stream.
fn decoded_so_far(coding: Coding, bytes: &[u8]) -> Vec<u8> {
    let mut reader: Box<dyn std::io::Read + '_> = match coding {
        Coding::Gzip => Box::new(flate2::read::GzDecoder::new(bytes)),
        Coding::Brotli => Box::new(brotli::Decompressor::new(bytes, 4096)),
        Coding::Zstd => Box::new(zstd::stream::read::Decoder::new(bytes).unwrap()),
    };
    let (mut decoded, mut chunk) = (Vec::new(), [0; 512]);
    while let Ok(length @ 1..) = reader.read(&mut chunk) {
        decoded.extend_from_slice(&chunk[..length]);
    }
    decoded
}

/// Bytes that compress well, then some that do not.
fn bytes(length: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(length as u64);
    (0..length).map(|at| if at < length / 2 { b"portreeve "[at / 7 % 10] } else { rng.u8(..) }).collect()
}

#[test]
fn what_is_pushed_comes_out_again() {
    for coding in Coding::ALL {
        for (length, piece) in [(0, 1), (1, 1), (300, 7), (5_000, 4_096), (1_500_000, 16_384), (700_000, 700_000)] {
            let body = bytes(length);
            let mut encoder = Encoder::new(coding).unwrap();
            let mut out = b"before".to_vec();
            body.chunks(piece).for_each(|piece| encoder.push(piece, &mut out).unwrap());
            encoder.finish(&mut out).unwrap();
            assert!(out.starts_with(b"before"), "what was in the buffer stays");
            assert!(decoded(coding, &out[6..]) == body, "{coding:?} with {length} bytes in pieces of {piece}");
            assert!(length < 5_000 || out.len() < length * 6 / 10, "{coding:?} made {length} bytes {}", out.len());
        }
    }
}

#[test]
fn a_flush_brings_out_everything_that_was_pushed() {
    for coding in Coding::ALL {
        let mut encoder = Encoder::new(coding).unwrap();
        let (mut out, mut pushed) = (Vec::new(), Vec::new());
        for event in 0..50 {
            let event = format!("data: {event}\n\n{}", "x".repeat(event * event));
            encoder.push(event.as_bytes(), &mut out).unwrap();
            encoder.flush(&mut out).unwrap();
            pushed.extend_from_slice(event.as_bytes());
            assert!(decoded_so_far(coding, &out) == pushed, "{coding:?}: the other side misses something");
            let length = out.len();
            encoder.flush(&mut out).unwrap();
            encoder.push(&[], &mut out).unwrap();
            encoder.flush(&mut out).unwrap();
            assert_eq!(out.len(), length, "{coding:?}: a flush of nothing costs nothing");
        }
        encoder.finish(&mut out).unwrap();
        assert!(decoded(coding, &out) == pushed, "{coding:?}");
    }
}

#[test]
fn a_flush_before_anything_was_pushed_does_nothing() {
    for coding in Coding::ALL {
        let mut out = Vec::new();
        Encoder::new(coding).unwrap().flush(&mut out).unwrap();
        assert!(out.is_empty(), "{coding:?}");
    }
}

#[test]
fn a_flush_with_more_to_come_than_there_is_room_for_brings_out_all_of_it() {
    for coding in Coding::ALL {
        for length in [4_000, 4_096, 8_192, 50_000, 131_072, 400_000] {
            let mut rng = fastrand::Rng::with_seed(length as u64);
            let body: Vec<u8> = (0..length).map(|_| rng.u8(..)).collect();
            let mut encoder = Encoder::new(coding).unwrap();
            let mut out = Vec::new();
            encoder.push(&body, &mut out).unwrap();
            encoder.flush(&mut out).unwrap();
            assert!(decoded_so_far(coding, &out) == body, "{coding:?}: {length}");
        }
    }
}

#[test]
fn an_encoder_can_go_to_another_thread() {
    fn is_send<T: Send>() {}
    is_send::<Encoder>();
}

fn negotiated(accept: &str) -> Option<Coding> {
    negotiate(accept.split('|').map(str::as_bytes))
}

#[test]
fn the_coding_with_the_greatest_weight_is_taken() {
    for (accept, coding) in [
        ("gzip, deflate, br, zstd", Coding::Zstd),
        ("gzip, deflate, br", Coding::Brotli),
        ("gzip", Coding::Gzip),
        ("x-gzip", Coding::Gzip),
        ("GZIP;Q=0.1", Coding::Gzip),
        ("br;q=0.9, gzip;q=1.0, zstd;q=0.8", Coding::Gzip),
        ("gzip;q=0.5|br;q=0.6", Coding::Brotli),
        ("*", Coding::Zstd),
        ("zstd;q=0, *", Coding::Brotli),
        ("*;q=0.5, gzip", Coding::Gzip),
        ("identity;q=0, gzip;q=0.001", Coding::Gzip),
        ("identity, gzip", Coding::Gzip),
        (" , gzip ,, ", Coding::Gzip),
        ("gzip, aes128gcm, exi;q=0.2", Coding::Gzip),
        ("*;q=0, br", Coding::Brotli),
    ] {
        assert_eq!(negotiated(accept), Some(coding), "{accept}");
    }
}

#[test]
fn without_a_coding_that_is_accepted_there_is_none() {
    assert_eq!(negotiate(std::iter::empty()), None);
    for accept in [
        "",
        "identity",
        "deflate",
        "gzip;q=0",
        "gzip;q=0.000, br;q=0",
        "*;q=0",
        "identity;q=0",
        "identity, gzip;q=0.9",
        "gzip, gzip;q=0",
        "compress, pack200-gzip",
    ] {
        assert_eq!(negotiated(accept), None, "{accept:?}");
    }
}

#[test]
fn what_cannot_be_read_stands_for_no_coding() {
    for accept in
        ["gzip;q=2", "gzip;q=", "gzip;q=0.1234", "gzip br", "gzip, b r", "br, \"gzip", "gzip, ;q=1", "br;q=a, gzip"]
    {
        assert_eq!(negotiated(accept), None, "{accept:?}");
    }
}

const HTML: (&str, &str) = ("Content-Type", "text/html; charset=utf-8");

/// What changes for one who gets the response in this coding; `None` if it is left as it is.
fn changed(status: u16, fields: &[(&str, &str)], coding: Option<Coding>) -> Option<Vec<Change>> {
    let fields = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    match may_compress(status, fields) {
        Verdict::Leave => None,
        Verdict::Compress(response) => Some(response.changes(coding).collect()),
        Verdict::Confirm(response) => panic!("{response:?} confirms what the client has"),
    }
}

fn is_left(status: u16, fields: &[(&str, &str)]) -> bool {
    changed(status, fields, None).is_none()
}

const VARY: Change = Change::Append("vary", b"accept-encoding");

#[test]
fn the_head_of_a_compressed_response_says_so_and_nothing_that_no_longer_holds() {
    let fields = [HTML, ("Content-Length", "1000"), ("ETag", "\"abc\"")];
    let changes = changed(200, &fields, Some(Coding::Brotli)).unwrap();
    for change in [
        VARY,
        Change::Set("content-encoding", b"br".as_slice().into()),
        Change::Set("etag", b"W/\"abc\"".as_slice().into()),
        Change::Remove("content-length"),
        Change::Remove("accept-ranges"),
        Change::Remove("content-md5"),
        Change::Remove("digest"),
        Change::Remove("content-digest"),
        Change::Remove("repr-digest"),
    ] {
        assert!(changes.contains(&change), "{change:?} is missing");
    }
    assert_eq!(changes.len(), 9);
}

#[test]
fn one_who_does_not_ask_is_told_that_it_depends_on_that_and_nothing_else() {
    assert_eq!(changed(200, &[HTML, ("ETag", "\"abc\"")], None), Some(vec![VARY]));
    for vary in ["Accept-Encoding", "Origin, accept-encoding", "*"] {
        assert_eq!(changed(200, &[HTML, ("Vary", vary)], None), Some(vec![]), "{vary}");
    }
    assert_eq!(changed(200, &[HTML, ("Vary", "Origin"), ("Vary", "Accept")], None), Some(vec![VARY]));
}

#[test]
fn a_weak_validator_stays_and_one_that_is_none_goes() {
    let of_etag = |etag| {
        let changes = changed(200, &[HTML, ("ETag", etag)], Some(Coding::Gzip)).unwrap();
        changes.into_iter().find(|change| matches!(change, Change::Set("etag", _) | Change::Remove("etag")))
    };
    assert_eq!(of_etag("W/\"abc\""), None);
    assert_eq!(of_etag("abc"), Some(Change::Remove("etag")));
}

/// What changes in the head of a 304 for one who asked with this `If-None-Match`; `None` if it is left as it is.
fn confirmed(fields: &[(&str, &str)], if_none_match: &[&str]) -> Option<Vec<Change>> {
    let fields = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    match may_compress(304, fields) {
        Verdict::Leave => None,
        Verdict::Compress(response) => panic!("{response:?} has no body"),
        Verdict::Confirm(response) => Some(response.confirmed(if_none_match.iter().map(|value| value.as_bytes()))),
    }
}

#[test]
fn what_confirms_a_compressed_response_has_the_validator_that_was_given_to_that() {
    let strong = ("ETag", "\"a,b\"");
    let etag = Change::Set("etag", b"W/\"a,b\"".as_slice().into());
    let weakened = Some(vec![VARY, etag, Change::Remove("content-length")]);
    assert_eq!(confirmed(&[strong], &["W/\"a,b\""]), weakened);
    assert_eq!(confirmed(&[strong, HTML], &["\"old\", W/\"x\"", "W/\"a,b\""]), weakened);
    for named in [&["\"a,b\""][..], &["W/\"a,b\", \"a,b\""], &["*"], &["W/\"a\""], &[]] {
        assert_eq!(confirmed(&[strong], named), Some(vec![VARY]), "{named:?}");
    }
    assert_eq!(confirmed(&[("ETag", "W/\"a,b\"")], &["W/\"a,b\""]), Some(vec![VARY]), "the server's own");
    assert_eq!(confirmed(&[("Vary", "accept-encoding")], &["W/\"a,b\""]), Some(vec![]));
}

#[test]
fn what_confirms_a_response_that_is_not_compressed_is_left_as_it_is() {
    for field in [("Content-Type", "image/png"), ("Content-Encoding", "br"), ("Cache-Control", "no-transform")] {
        assert_eq!(confirmed(&[("ETag", "\"a\""), field], &["W/\"a\""]), None, "{field:?}");
    }
}

#[test]
fn responses_without_a_whole_body_are_left_as_they_are() {
    for status in [100, 101, 103, 199, 204, 205, 206] {
        assert!(is_left(status, &[HTML]), "{status}");
    }
    for status in [200, 201, 203, 207, 300, 301, 400, 404, 500, 503] {
        assert!(!is_left(status, &[HTML]), "{status}");
    }
}

#[test]
fn what_is_coded_or_partial_or_must_not_be_changed_is_left_as_it_is() {
    for field in [
        ("Content-Encoding", "gzip"),
        ("content-encoding", "identity"),
        ("Content-Range", "bytes 0-9/10"),
        ("Cache-Control", "public, No-Transform"),
        ("Content-Type", "image/png"),
    ] {
        assert!(is_left(200, &[HTML, field]), "{field:?}");
        assert!(is_left(200, &[field, HTML]), "{field:?}");
    }
    assert!(!is_left(200, &[HTML, ("Cache-Control", "ext=\"a, no-transform\", no-transformation")]));
    assert!(forbids_transform([&b"max-age=0"[..], b"no-transform"].into_iter()), "of a request");
}

#[test]
fn what_is_known_to_be_short_is_left_as_it_is() {
    for (length, left) in [("0", true), ("255", true), ("256", false), ("99999999999999999999999", false), ("x", false)]
    {
        assert_eq!(is_left(200, &[HTML, ("Content-Length", length)]), left, "{length}");
    }
}

#[test]
fn types_that_become_smaller_are_compressed_and_others_are_not() {
    for content_type in [
        "text/plain",
        "TEXT/CSS; charset=utf-8",
        "text/event-stream",
        "application/json",
        "application/json;charset=utf-8",
        "application/problem+json",
        "application/manifest+json",
        "application/javascript",
        "application/xml",
        "application/atom+xml",
        "application/wasm",
        "image/svg+xml",
        "font/ttf",
    ] {
        assert!(!is_left(200, &[("Content-Type", content_type)]), "{content_type}");
    }
    for content_type in [
        "",
        "image/png",
        "image/jpeg",
        "video/mp4",
        "application/zip",
        "application/gzip",
        "application/pdf",
        "application/octet-stream",
        "font/woff2",
        "application/grpc",
        "application/grpc+json",
        "application/grpc-web+json",
        "application/grpc-web-text",
        "multipart/byteranges; boundary=text/html",
        "json",
        "text",
    ] {
        assert!(is_left(200, &[("Content-Type", content_type)]), "{content_type:?}");
    }
    assert!(is_left(200, &[]), "nothing is known of one without a type");
}
