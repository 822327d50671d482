//! Bytes become frames (RFC 9113 §4): what is whole is read where it stands, data as it comes, and the rest is kept until it
//! is whole.

use super::Code;
use super::connection::{Connection, Side};
use super::frame::{
    ACK, CONTINUATION, DATA, END_STREAM, FrameHead, GOAWAY, HEAD, HEADERS, MOST_PAYLOAD, PADDED, PING, PREFACE,
    PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE,
};

/// What is kept of the buffer for what is not whole.
const LITTLE: usize = 512;

/// How far a connection was read.
#[derive(Debug)]
pub(super) struct Reading {
    /// How much of the preface is still to come.
    preface: usize,
    /// Whether the first frame has come, which has settings.
    is_begun: bool,
    /// What came of a frame that is not whole yet.
    partial: Vec<u8>,
    /// The DATA frame that is being read, which is taken as it comes.
    pub(super) data: Option<Data>,
    /// The header block that is not whole yet.
    pub(super) block: Option<Block>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Data {
    pub(super) stream: u32,
    pub(super) left: usize,
    pub(super) end: bool,
    /// Whether what comes is still of use to somebody.
    pub(super) is_wanted: bool,
}

#[derive(Debug)]
pub(super) struct Block {
    pub(super) stream: u32,
    pub(super) end: bool,
    pub(super) bytes: Vec<u8>,
    pub(super) frames: u32,
}

impl Reading {
    pub(super) fn new(side: Side) -> Self {
        let preface = if side == Side::Server { PREFACE.len() } else { 0 };
        Self { preface, is_begun: false, partial: Vec::new(), data: None, block: None }
    }
}

/// What breaks the protocol so that the connection cannot go on.
pub(super) struct Fatal(pub(super) Code, pub(super) &'static str);

pub(super) type Result<T> = std::result::Result<T, Fatal>;

pub(super) const fn protocol<T>(words: &'static str) -> Result<T> {
    Err(Fatal(Code::PROTOCOL_ERROR, words))
}

pub(super) const fn size<T>(words: &'static str) -> Result<T> {
    Err(Fatal(Code::FRAME_SIZE_ERROR, words))
}

impl Connection {
    /// Takes what came from the other side. What follows from it is found in the streams, in [`Connection::accept`] and in
    /// [`Connection::output`].
    pub fn receive(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.ended.is_none() {
            if let Err(Fatal(code, words)) = self.step(&mut bytes) {
                self.fail(code, words);
            }
        }
        if self.reading.partial.is_empty() {
            self.reading.partial.shrink_to(LITTLE);
        }
    }

    /// Takes the next part of what came.
    fn step(&mut self, bytes: &mut &[u8]) -> Result<()> {
        if self.reading.preface > 0 {
            return self.take_preface(bytes);
        }
        if let Some(data) = self.reading.data {
            return self.take_data(data, bytes);
        }
        let Reading { partial, .. } = &mut self.reading;
        if partial.is_empty()
            && let Some((head, rest)) = bytes.split_first_chunk::<HEAD>()
        {
            let head = FrameHead::parse(*head);
            // What is whole is read where it stands.
            if head.kind == DATA && !head.has(PADDED) || rest.len() >= head.length {
                self.check(head)?;
                *bytes = rest;
                return self.begin(head, bytes);
            }
        }
        let wanted = match partial.first_chunk::<HEAD>() {
            None => HEAD,
            Some(head) => HEAD + FrameHead::parse(*head).length,
        };
        let (now, rest) = bytes.split_at(wanted.saturating_sub(partial.len()).min(bytes.len()));
        partial.extend_from_slice(now);
        *bytes = rest;
        let Some(head) = partial.first_chunk::<HEAD>() else { return Ok(()) };
        let head = FrameHead::parse(*head);
        if partial.len() == HEAD {
            self.check(head)?;
        }
        if head.kind == DATA && !head.has(PADDED) {
            self.reading.partial.clear();
            return self.begin(head, bytes);
        }
        if self.reading.partial.len() < HEAD + head.length {
            return Ok(());
        }
        let mut whole = std::mem::take(&mut self.reading.partial);
        let begun = self.begin(head, &mut whole.get(HEAD..).unwrap_or_default());
        whole.clear();
        self.reading.partial = whole;
        begun
    }

    fn take_preface(&mut self, bytes: &mut &[u8]) -> Result<()> {
        let rest = PREFACE.get(PREFACE.len() - self.reading.preface..).unwrap_or_default();
        let (now, later) = bytes.split_at(rest.len().min(bytes.len()));
        if !rest.starts_with(now) {
            return protocol("it does not begin like HTTP/2");
        }
        self.reading.preface -= now.len();
        *bytes = later;
        Ok(())
    }

    /// Looks at the head of a frame before its payload is taken.
    fn check(&mut self, head: FrameHead) -> Result<()> {
        // What does not speak HTTP/2 is best told so.
        if !self.reading.is_begun {
            if head.kind != SETTINGS || head.has(ACK) {
                return protocol("it does not begin with settings");
            }
            self.reading.is_begun = true;
        }
        if head.length > MOST_PAYLOAD {
            return size("a frame is larger than it may be");
        }
        match &self.reading.block {
            Some(block) if head.kind != CONTINUATION || head.stream != block.stream => {
                protocol("something else comes within a header block")
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Takes a frame whose payload stands at the front; of DATA, as much of it as came.
    fn begin(&mut self, head: FrameHead, bytes: &mut &[u8]) -> Result<()> {
        if head.kind == DATA && !head.has(PADDED) {
            let is_wanted = self.begin_data(head, head.length)?;
            let data = Data { stream: head.stream, left: head.length, end: head.has(END_STREAM), is_wanted };
            return self.take_data(data, bytes);
        }
        let (payload, rest) = bytes.split_at(head.length.min(bytes.len()));
        *bytes = rest;
        // What is DATA is counted without its padding, which is neither of use nor of harm.
        if head.kind != DATA {
            let useful = if matches!(head.kind, HEADERS | CONTINUATION) { payload.len() } else { 0 };
            self.budget.earn(useful);
            if self.budget.waste(HEAD + payload.len() - useful) {
                return Err(Fatal(Code::ENHANCE_YOUR_CALM, "too much of what comes is of no use"));
            }
        }
        match head.kind {
            DATA => self.padded_data(head, payload),
            HEADERS => self.headers(head, payload),
            CONTINUATION => self.continuation(head, payload),
            PRIORITY => self.priority(head, payload),
            RST_STREAM => self.rst_stream(head, payload),
            SETTINGS => self.settings(head, payload),
            PUSH_PROMISE => protocol("it promises what nobody may"),
            PING => self.ping(head, payload),
            GOAWAY => self.goaway(head, payload),
            WINDOW_UPDATE => self.window_update(head, payload),
            // Of another kind (§4.1).
            _ => Ok(()),
        }
    }
}
