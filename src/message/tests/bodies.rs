//! Chunks.

use super::*;
use crate::message::chunked::{Decoded, Decoder, HEADROOM, TAILROOM, encode};

/// Takes chunks apart that come in these pieces: the data, the trailers, and how many bytes were used once it is over.
pub(super) type Apart = (Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>, usize);

pub(super) fn decode<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> Result<Option<Apart>, Fault> {
    let (mut decoder, mut all, mut total) = (Decoder::default(), Vec::new(), 0);
    for piece in pieces {
        let mut piece = piece.to_vec();
        let Decoded { data, used, end } = decoder.decode(&mut piece, &LIMITS)?;
        all.extend_from_slice(&piece[..data]);
        total += used;
        if end {
            let trailers = decoder.trailers().into_iter().flat_map(|fields| fields.iter());
            let trailers = trailers.map(|(_, name, value)| (name.to_vec(), value.to_vec())).collect();
            return Ok(Some((all, trailers, total)));
        }
        assert_eq!(used, piece.len(), "what is not the end uses all there is");
    }
    Ok(None)
}

#[test]
fn chunks_are_put_together_and_what_follows_is_left() {
    let bytes = b"4;a=b\r\nabcd\r\n00c\r\n0123456789ab\r\n0\r\nX: y\r\n\r\nGET";
    let (data, trailers, used) = decode([&bytes[..]]).unwrap().unwrap();
    assert_eq!((data.as_slice(), used), (&b"abcd0123456789ab"[..], bytes.len() - 3));
    assert_eq!(trailers, [(b"X".to_vec(), b"y".to_vec())]);
    assert_eq!(decode([&b"0\r\n\r\n"[..]]), Ok(Some((Vec::new(), Vec::new(), 5))));
    assert_eq!(decode([&b"5\r\nab"[..]]), Ok(None));
}

#[test]
fn what_is_no_chunk_is_refused_at_the_byte_that_says_so() {
    for bytes in [
        "\r",
        "g",
        "-",
        "+",
        " ",
        ";",
        "0x",
        "5 ",
        "5\t",
        "5\n",
        "5\r\r",
        "5_",
        "1234567890123456",
        "5;\n",
        "5;\0",
        "5;\r\r",
        "1\r\nab",
        "1\r\na\n",
        "1\r\na\rb",
        "0\r\nA : b\r\n",
        "0\r\n x\r\n",
        "0\r\nx\r\n",
        "0\r\n\n",
    ] {
        assert!(decode([bytes.as_bytes()]).is_err(), "{bytes:?}");
        // All before the last byte is good, or may become so.
        assert_eq!(decode([&bytes.as_bytes()[..bytes.len() - 1]]), Ok(None), "{bytes:?}");
    }
}

#[test]
fn extensions_and_trailers_are_bounded() {
    assert!(decode([format!("1;{}\r\n", "x".repeat(250)).as_bytes()]).is_ok());
    assert!(decode([format!("1;{}\r\n", "x".repeat(300)).as_bytes()]).is_err());
    let padded = format!("1;{}\r\nx\r\n", "x".repeat(200));
    assert!(decode([padded.repeat(50).as_bytes()]).is_ok());
    assert!(decode([padded.repeat(500).as_bytes()]).is_err(), "nobody sends that much beside one byte of data");
    assert!(decode([format!("0\r\nA: {}", "x".repeat(500)).as_bytes()]).is_err());
    assert!(decode([format!("0\r\n{}", "A: b\r\n".repeat(11)).as_bytes()]).is_err());
}

#[test]
fn what_is_written_is_read_again() {
    for data in ["", "a", "0123456789abcdef", &"x".repeat(70_000)] {
        for last in [false, true] {
            let mut buffer = [vec![b'?'; HEADROOM], data.as_bytes().to_vec(), vec![b'?'; TAILROOM]].concat();
            let (start, end) = encode(&mut buffer, HEADROOM, HEADROOM + data.len(), last);
            let written = [&buffer[start..end], if last { b"" } else { b"0\r\n\r\n" }].concat();
            let (read, _, used) = decode([&written[..]]).unwrap().unwrap();
            assert_eq!((read.as_slice(), used), (data.as_bytes(), written.len()));
        }
    }
}
