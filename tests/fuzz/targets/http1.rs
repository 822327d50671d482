//! Heads and chunks of HTTP/1 are the same whole and byte by byte, and never panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use portreeve::message::chunked::Decoder;
use portreeve::message::line::Limits;
use portreeve::message::request::{Parsed, Request};
use portreeve::message::response::Response;

const LIMITS: Limits = Limits { target: 1024, first_line: 1024, bytes: 4096, fields: 32, underscores: false };

/// The method, the path, the length and what follows; none if it is no head, or not all of one.
fn request<'p>(pieces: impl Iterator<Item = &'p [u8]>) -> Option<(Vec<u8>, Vec<u8>, String, Vec<u8>)> {
    let (mut request, mut rest) = (Request::default(), None::<Vec<u8>>);
    for piece in pieces {
        match &mut rest {
            Some(rest) => rest.extend_from_slice(piece),
            None => {
                request.arrived(piece);
                let mut behind = Vec::new();
                if let Parsed::Whole(_) = request.parse(&LIMITS, &mut behind).ok()? {
                    rest = Some(behind);
                }
            }
        }
    }
    rest.map(|rest| (request.method().to_vec(), request.path().to_vec(), format!("{:?}", request.length), rest))
}

/// The status, the length and what follows.
fn response<'p>(pieces: impl Iterator<Item = &'p [u8]>) -> Option<(u16, String, Vec<u8>)> {
    let (mut response, mut rest) = (Response::default(), None::<Vec<u8>>);
    for piece in pieces {
        match &mut rest {
            Some(rest) => rest.extend_from_slice(piece),
            None => {
                response.arrived(piece);
                let mut behind = Vec::new();
                if let Parsed::Whole(_) = response.parse(&LIMITS, false, &mut behind).ok()? {
                    rest = Some(behind);
                }
            }
        }
    }
    rest.map(|rest| (response.status, format!("{:?}", response.length), rest))
}

/// The data, and how many bytes there were to the end.
fn chunks<'p>(pieces: impl Iterator<Item = &'p [u8]>) -> Option<(Vec<u8>, usize)> {
    let (mut decoder, mut data, mut used) = (Decoder::default(), Vec::new(), 0);
    for piece in pieces {
        let mut piece = piece.to_vec();
        let decoded = decoder.decode(&mut piece, &LIMITS).ok()?;
        data.extend_from_slice(&piece[..decoded.data]);
        used += decoded.used;
        if decoded.end {
            return Some((data, used));
        }
    }
    None
}

fuzz_target!(|bytes: &[u8]| {
    let whole = || std::iter::once(bytes);
    assert_eq!(request(whole()), request(bytes.chunks(1)));
    assert_eq!(response(whole()), response(bytes.chunks(1)));
    assert_eq!(chunks(whole()), chunks(bytes.chunks(1)));
});
