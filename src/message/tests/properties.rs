//! What holds of all bytes: pieces make no difference, and what is accepted is read alike by another's reader.

use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::bodies::decode;
use super::*;
use crate::message::framing::Length;

/// Words that heads are made of, good and bad.
const WORDS: &[&str] = &[
    "GET",
    "POST",
    "HEAD",
    " ",
    " ",
    "/",
    "/a/b",
    "?c=d",
    "*",
    "http://",
    "a.example",
    ":80",
    "[::1]",
    "HTTP/1.1",
    "HTTP/1.0",
    "HTTP/2",
    "\r\n",
    "\r\n",
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\r",
    "\t",
    "Host: ",
    "Host: a\r\n",
    "Content-Length: ",
    "5",
    "0",
    ", ",
    "Transfer-Encoding: ",
    "chunked",
    "gzip",
    "X: y\r\n",
    "X_Y: z\r\n",
    "Connection: ",
    "close",
    "keep-alive",
    "upgrade",
    "Upgrade: x\r\n",
    "Expect: 100-continue\r\n",
    ":",
    "\0",
    "\u{e4}",
    "..",
    "%2e",
    "200 OK",
    "404",
    "xxxxxxxxxxxxxxxxxxxxxxxx",
];

/// What surely is a head in the middle, and words around and between.
fn heads(first: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let words = || prop::collection::vec(prop::sample::select(WORDS), 0..6).prop_map(|words| words.concat());
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    (words(), words(), words(), 0..4_u8, edits).prop_map(move |(a, b, c, shape, edits)| {
        let text = match shape {
            0 => format!("{first}\r\nHost: a\r\n{a}{b}\r\n\r\n{c}"),
            1 => format!("{first}\r\nHost: a\r\nA: {a}\r\n{b}\r\n{c}"),
            2 => format!("{first}\r\nHost: a\r\nContent-Length: 5\r\nB:{b}\r\n\r\n{c}{a}"),
            _ => format!("{a}{b}{first}{c}"),
        };
        let mut bytes = text.into_bytes();
        for (place, byte) in edits {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        bytes
    })
}

/// Chunks, and what was made of them.
fn chunks() -> impl Strategy<Value = Vec<u8>> {
    const PARTS: &[&str] = &[
        "5\r\nabcde\r\n",
        "1;x=y\r\nz\r\n",
        "00A\r\n0123456789\r\n",
        "0\r\n\r\n",
        "0\r\nX: y\r\n\r\n",
        "0\r\n",
        "\r\n",
        "3",
        "X: y\r\n",
    ];
    let parts = prop::collection::vec(prop::sample::select(PARTS), 0..8);
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..2);
    (parts, edits).prop_map(|(parts, edits)| {
        let mut bytes = parts.concat().into_bytes();
        for (place, byte) in edits {
            if !bytes.is_empty() {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
        }
        bytes
    })
}

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

fn fields_of(fields: &crate::message::head::Fields) -> Fields {
    fields.iter().map(|(_, name, value)| (name.to_vec(), value.to_vec())).collect()
}

type Shown = (Vec<u8>, String, Option<u16>, Vec<u8>, Option<Vec<u8>>, Length, bool, bool, Fields, Vec<u8>);

/// All that is known of a request, and what followed it. Of what is wrong with one, how much had come when it was found out
/// may decide.
fn shown(read: Result<Option<(Request, Vec<u8>)>, Fault>) -> Option<Option<Shown>> {
    let shown = |(request, rest): (Request, Vec<u8>)| {
        (
            request.method().to_vec(),
            request.host().to_owned(),
            request.port(),
            request.path().to_vec(),
            request.query().map(<[u8]>::to_vec),
            request.length,
            request.keeps_alive,
            request.expects_continue,
            fields_of(&request.fields),
            rest,
        )
    };
    read.ok().map(|read| read.map(shown))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_request_is_the_same_at_once_and_byte_by_byte(bytes in heads("GET /x HTTP/1.1")) {
        let pieces: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(shown(request(&pieces, &LIMITS)), shown(request(&[&bytes], &LIMITS)));
    }

    #[test]
    fn a_response_is_the_same_at_once_and_byte_by_byte(bytes in heads("HTTP/1.1 200 OK"), to_head in any::<bool>()) {
        let shown = |read: Result<Option<(Response, Vec<u8>)>, Fault>| {
            read.ok().map(|read| read.map(|(response, rest)| {
                (response.status, response.reason().to_vec(), response.length, response.keeps_alive, fields_of(&response.fields), rest)
            }))
        };
        let pieces: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(shown(response(&pieces, to_head)), shown(response(&[&bytes], to_head)));
    }

    #[test]
    fn chunks_are_the_same_at_once_and_byte_by_byte(bytes in chunks()) {
        prop_assert_eq!(decode(bytes.chunks(1)).ok(), decode([&bytes[..]]).ok());
    }

    #[test]
    fn a_request_that_is_accepted_is_read_alike_by_another(bytes in heads("GET /x?y HTTP/1.1")) {
        let Ok(Some((request, _))) = request(&[&bytes], &LIMITS) else { return Ok(()) };
        let mut room = [httparse::EMPTY_HEADER; 64];
        let mut other = httparse::Request::new(&mut room);
        let length = other.parse(&bytes).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(length, httparse::Status::Complete(request.fields.bytes().len()));
        prop_assert_eq!(other.method.map(str::as_bytes), Some(request.method()));
        let query: Vec<u8> = request.query().map(|query| [b"?", query].concat()).unwrap_or_default();
        let own = [request.path(), &query].concat();
        let target = other.path.unwrap_or_default().as_bytes();
        prop_assert!(target == own || target.ends_with(&own) || own == b"/", "{:?}", target);
        prop_assert_eq!(alike(other.headers), fields_of(&request.fields));
    }

    #[test]
    fn a_response_that_is_accepted_is_read_alike_by_another(bytes in heads("HTTP/1.1 200 OK")) {
        let Ok(Some((response, _))) = response(&[&bytes], false) else { return Ok(()) };
        let mut room = [httparse::EMPTY_HEADER; 64];
        let mut other = httparse::Response::new(&mut room);
        let length = other.parse(&bytes).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(length, httparse::Status::Complete(response.fields.bytes().len()));
        prop_assert_eq!(other.code, Some(response.status));
        prop_assert_eq!(alike(other.headers), fields_of(&response.fields));
    }

    #[test]
    fn the_size_of_a_chunk_that_is_accepted_is_read_alike_by_another(line in "[0-9a-fA-F]{1,17}[ ;_x\t]?[ -~]{0,3}\r\n") {
        if decode([line.as_bytes()]) == Ok(None) {
            let digits = line.split(|c: char| !c.is_ascii_hexdigit()).next().unwrap_or_default();
            let size = u64::from_str_radix(digits, 16).unwrap();
            prop_assert_eq!(httparse::parse_chunk_size(line.as_bytes()), Ok(httparse::Status::Complete((line.len(), size))));
        }
    }
}

fn alike(headers: &[httparse::Header<'_>]) -> Fields {
    headers.iter().map(|header| (header.name.as_bytes().to_vec(), header.value.to_vec())).collect()
}

#[test]
fn the_strategies_make_heads_that_are_accepted_and_heads_that_are_not() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut accepted = 0;
    for _ in 0..1000 {
        let bytes = heads("GET /x HTTP/1.1").new_tree(&mut runner).unwrap().current();
        accepted += u32::from(matches!(request(&[&bytes], &LIMITS), Ok(Some(_))));
    }
    assert!((100..900).contains(&accepted), "{accepted} of 1000");
}
