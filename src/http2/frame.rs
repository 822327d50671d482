//! Frames (RFC 9113 §4 and §6): their heads, and how those are written that are ours.

use super::Code;

/// The first bytes of a client (§3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long the head of a frame is.
pub(super) const HEAD: usize = 9;
/// The largest payload that is taken, and sent: what every side may be sent (§4.2).
pub(super) const MOST_PAYLOAD: usize = 16_384;
/// The most a window may be (§6.9.1).
pub(super) const MOST_WINDOW: i64 = (1 << 31) - 1;
/// What windows are at first (§6.9.2).
pub(super) const FIRST_WINDOW: i64 = 65_535;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 0x1;
pub(super) const ACK: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
pub(super) const PADDED: u8 = 0x8;
pub(super) const WITH_PRIORITY: u8 = 0x20;

pub(super) const ENABLE_PUSH: u16 = 2;
pub(super) const MAX_CONCURRENT_STREAMS: u16 = 3;
pub(super) const INITIAL_WINDOW_SIZE: u16 = 4;
pub(super) const MAX_FRAME_SIZE: u16 = 5;
pub(super) const MAX_HEADER_LIST_SIZE: u16 = 6;
pub(super) const ENABLE_CONNECT_PROTOCOL: u16 = 8;

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl FrameHead {
    pub(super) fn parse(bytes: [u8; HEAD]) -> Self {
        let [a, b, c, kind, flags, d, e, f, g] = bytes;
        Self {
            length: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            // The highest bit means nothing.
            stream: u32::from_be_bytes([d & 0x7f, e, f, g]),
        }
    }

    pub(super) const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub(super) fn bytes(self) -> [u8; HEAD] {
        let [_, a, b, c] = (self.length as u32).to_be_bytes();
        let [d, e, f, g] = self.stream.to_be_bytes();
        [a, b, c, self.kind, self.flags, d, e, f, g]
    }
}

/// Writes a frame.
pub(super) fn put(kind: u8, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&FrameHead { length: payload.len(), kind, flags, stream }.bytes());
    out.extend_from_slice(payload);
}

/// Writes settings, of which each is a name and a number.
pub(super) fn put_settings(settings: &[(u16, u32)], out: &mut Vec<u8>) {
    out.extend_from_slice(&FrameHead { length: settings.len() * 6, kind: SETTINGS, flags: 0, stream: 0 }.bytes());
    for (name, number) in settings {
        out.extend_from_slice(&name.to_be_bytes());
        out.extend_from_slice(&number.to_be_bytes());
    }
}

/// Says that the connection goes away: the last stream that was looked at, why, and words for whoever reads a trace.
pub(super) fn put_goaway(last: u32, code: Code, words: &str, out: &mut Vec<u8>) {
    let payload = [&last.to_be_bytes(), &code.0.to_be_bytes(), words.as_bytes()].concat();
    put(GOAWAY, 0, 0, &payload, out);
}

/// Writes a header block that `write` packs, in as many frames as it takes (§6.2, §6.10).
pub(super) fn put_headers(stream: u32, end: bool, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let flags = if end { END_STREAM } else { 0 };
    let from = out.len();
    out.extend_from_slice(&[0; HEAD]);
    write(out);
    let length = out.len() - from - HEAD;
    let head = FrameHead { length: length.min(MOST_PAYLOAD), kind: HEADERS, flags, stream };
    if length <= MOST_PAYLOAD {
        let head = FrameHead { flags: flags | END_HEADERS, ..head };
        out.get_mut(from..from + HEAD).unwrap_or_default().copy_from_slice(&head.bytes());
        return;
    }
    out.get_mut(from..from + HEAD).unwrap_or_default().copy_from_slice(&head.bytes());
    let rest = out.split_off(from + HEAD + MOST_PAYLOAD);
    let mut pieces = rest.chunks(MOST_PAYLOAD).peekable();
    while let Some(piece) = pieces.next() {
        let flags = if pieces.peek().is_none() { END_HEADERS } else { 0 };
        put(CONTINUATION, flags, stream, piece, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_what_was_written() {
        let head = FrameHead { length: 0x12_3456, kind: 7, flags: 0x25, stream: 0x7fff_fffe };
        assert_eq!(FrameHead::parse(head.bytes()), head);
        let mut reserved = head.bytes();
        reserved[5] |= 0x80;
        assert_eq!(FrameHead::parse(reserved), head, "the highest bit of the stream means nothing");
    }

    #[test]
    fn a_large_block_goes_out_in_several_frames() {
        for (size, frames) in [(0, 1), (MOST_PAYLOAD, 1), (MOST_PAYLOAD + 1, 2), (3 * MOST_PAYLOAD, 3)] {
            let mut out = vec![7];
            put_headers(5, true, &mut out, |out| out.extend(vec![9; size]));
            let (mut rest, mut seen, mut length) = (&out[1..], 0, 0);
            while let Some((head, after)) = rest.split_first_chunk() {
                let head = FrameHead::parse(*head);
                assert_eq!(head.stream, 5);
                assert_eq!(head.kind, if seen == 0 { HEADERS } else { CONTINUATION });
                assert_eq!(head.has(END_STREAM), seen == 0);
                seen += 1;
                length += head.length;
                assert_eq!(head.has(END_HEADERS), seen == frames);
                rest = &after[head.length..];
            }
            assert_eq!((seen, length), (frames, size));
        }
    }
}
