//! HTTP/2 frame by frame (RFC 9113 §4, §6), for what no library would say, on either side of a connection.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::within;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// What both sides may begin a stream's end with.
pub const WHOLE: u8 = END_STREAM | END_HEADERS;

/// The first bytes of a client.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The four bytes of its payload from there on, as a number.
    pub fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// A field, pseudo-header fields among them.
pub type Field<'a> = (&'a str, &'a [u8]);

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields as HPACK has them that neither looks anything up nor remembers anything (RFC 7541 §6.2.2).
pub fn block(fields: &[Field<'_>]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name.as_bytes(), value] {
            length(text.len(), &mut block);
            block.extend_from_slice(text);
        }
    }
    block
}

fn length(number: usize, block: &mut Vec<u8>) {
    if number < 127 {
        return block.push(number as u8);
    }
    block.push(127);
    let mut rest = number - 127;
    while rest >= 128 {
        block.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    block.push(rest as u8);
}

/// The pseudo-header fields of a request, with more behind them.
pub fn request(method: &str, path: &str, more: &[Field<'_>]) -> Vec<u8> {
    let pseudo: [(&str, &[u8]); 4] = [
        (":method", method.as_bytes()),
        (":scheme", b"http"),
        (":authority", b"example.com"),
        (":path", path.as_bytes()),
    ];
    block(&[&pseudo[..], more].concat())
}

/// What became of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was answered.
    Status(u16),
    /// It alone was given up, with this code.
    Reset(u32),
    /// The connection was, with this code.
    GoAway(u32),
    /// The connection ended without a word.
    Closed,
}

impl Verdict {
    /// Whether the request got nowhere.
    pub fn is_refusal(self) -> bool {
        matches!(self, Self::Status(400..=499) | Self::Reset(_) | Self::GoAway(_) | Self::Closed)
    }
}

/// One side of a connection.
pub struct Frames {
    pub stream: TcpStream,
}

impl Frames {
    /// Connects, and begins as a client.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = within("connect", TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut frames = Self { stream };
        frames.write(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await.unwrap();
        frames
    }

    /// Begins as a server, with these settings.
    pub async fn welcome(mut stream: TcpStream, settings: &[u8]) -> Self {
        stream.set_nodelay(true).unwrap();
        let mut preface = [0; 24];
        within("the preface", stream.read_exact(&mut preface)).await.unwrap();
        assert_eq!(preface, PREFACE);
        let mut frames = Self { stream };
        frames.send(SETTINGS, 0, 0, settings).await;
        frames
    }

    /// Writes these bytes.
    pub async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        within("a write", self.stream.write_all(bytes)).await
    }

    /// Sends a frame. That the other side is gone is met when its answer is read.
    pub async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let _gone = self.write(&frame(kind, flags, stream, payload)).await;
    }

    /// Sends a request without a body.
    pub async fn get(&mut self, stream: u32, path: &str) {
        self.send(HEADERS, WHOLE, stream, &request("GET", path, &[])).await;
    }

    /// Reads a frame; none is the end of the connection.
    pub async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        within("a frame", self.stream.read_exact(&mut head)).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        within("a payload", self.stream.read_exact(&mut payload)).await.ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// Reads until there is a frame of a kind; none is the end of the connection. What has to be acknowledged on the way is.
    pub async fn until(&mut self, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if wanted(&frame) {
                return Some(frame);
            }
            if matches!(frame.kind, SETTINGS | PING) && frame.flags & ACK == 0 {
                let payload = if frame.kind == PING { &frame.payload[..] } else { &[] };
                self.send(frame.kind, ACK, 0, payload).await;
            }
        }
    }

    /// Reads until it is known what became of a stream.
    pub async fn verdict(&mut self, stream: u32) -> Verdict {
        let about = |frame: &Frame| match frame.kind {
            GOAWAY => frame.number(4) != 0,
            HEADERS | RST_STREAM => frame.stream == stream,
            _ => false,
        };
        match self.until(about).await {
            None => Verdict::Closed,
            Some(frame) if frame.kind == GOAWAY => Verdict::GoAway(frame.number(4)),
            Some(frame) if frame.kind == RST_STREAM => Verdict::Reset(frame.number(0)),
            Some(frame) => Verdict::Status(status(&frame.payload)),
        }
    }

    /// Reads to the end of the connection and returns the code it went away with; none if it did not say so.
    pub async fn farewell(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(frame) = self.until(|frame| frame.kind == GOAWAY).await {
            code = Some(frame.number(4));
        }
        code
    }
}

/// The status of a response, which is the first of its fields and, on a new connection, in one of two forms: an entry of
/// the static table, or three digits as Huffman has them (RFC 7541 appendices A and B).
fn status(block: &[u8]) -> u16 {
    let block = match block {
        // The size of the table, which may come first.
        [0x20..=0x3f, rest @ ..] => rest,
        block => block,
    };
    const STATIC: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match block {
        [entry @ 0x88..=0x8e, ..] => STATIC[usize::from(entry - 0x88)],
        [0x48 | 0x08, length, rest @ ..] if length & 0x80 != 0 => huffman(&rest[..usize::from(length & 0x7f)]),
        [0x48 | 0x08, 3, digits @ ..] => std::str::from_utf8(&digits[..3]).unwrap().parse().unwrap(),
        _ => panic!("{block:02x?} begins with no status"),
    }
}

fn huffman(bytes: &[u8]) -> u16 {
    let mut bits = bytes.iter().flat_map(|byte| (0..8).rev().map(move |place| byte >> place & 1));
    let mut number = 0;
    for _ in 0..3 {
        let mut code = bits.by_ref().take(5).fold(0, |code, bit| code << 1 | u16::from(bit));
        // The first three digits have five bits, the others six.
        if code > 2 {
            code = (code << 1 | u16::from(bits.next().unwrap())) - 0x19 + 3;
        }
        number = number * 10 + code;
    }
    number
}
