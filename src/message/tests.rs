//! The readers of HTTP/1, against what RFC 9112 says, against themselves piece by piece, and against a reader of another's.

mod bodies;
mod heads;
mod properties;
mod targets;

use super::line::{Fault, Limits};
use super::request::{Parsed, Request};
use super::response::Response;

const LIMITS: Limits = Limits { target: 200, first_line: 200, bytes: 400, fields: 10, underscores: true };

/// Reads a request that has arrived in these pieces; what follows it comes with it.
fn request(pieces: &[&[u8]], limits: &Limits) -> Result<Option<(Request, Vec<u8>)>, Fault> {
    let (mut request, mut rest) = (Request::default(), Vec::new());
    for (place, piece) in pieces.iter().enumerate() {
        request.arrived(piece);
        if let Parsed::Whole(length) = request.parse(limits, &mut rest)? {
            assert_eq!(request.fields.bytes().len(), length);
            rest.extend(pieces[place + 1..].concat());
            return Ok(Some((request, rest)));
        }
    }
    Ok(None)
}

/// The same with a response.
fn response(pieces: &[&[u8]], to_head: bool) -> Result<Option<(Response, Vec<u8>)>, Fault> {
    let (mut response, mut rest) = (Response::default(), Vec::new());
    for (place, piece) in pieces.iter().enumerate() {
        response.arrived(piece);
        if let Parsed::Whole(_) = response.parse(&LIMITS, to_head, &mut rest)? {
            rest.extend(pieces[place + 1..].concat());
            return Ok(Some((response, rest)));
        }
    }
    Ok(None)
}

/// A request that is whole.
fn read(bytes: &str) -> Request {
    request(&[bytes.as_bytes()], &LIMITS)
        .unwrap_or_else(|fault| panic!("{bytes:?}: {fault:?}"))
        .expect("a whole head")
        .0
}

fn words(fault: Fault) -> &'static str {
    match fault {
        Fault::Malformed(words) => words,
        Fault::FirstLineTooLong => "first line too long",
        Fault::TooLarge => "too large",
        Fault::TooMany => "too many",
    }
}

/// What is wrong with a request.
fn refused(bytes: &str) -> &'static str {
    match request(&[bytes.as_bytes()], &LIMITS) {
        Err(fault) => words(fault),
        Ok(read) => panic!("{bytes:?}: {read:?}"),
    }
}
