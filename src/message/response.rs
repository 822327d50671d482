//! The head of a response, from HTTP/1 bytes to what is answered.

use super::framing::{self, Length};
use super::head::{Fields, Span};
use super::line::{Fault, Limits, Line, Progress};
use super::options::Options;
use super::request::Parsed;
use super::token::is_value;
use super::version::Version;

/// The head of a response, or as much of it as has arrived. What it holds is used again for the next one.
#[derive(Debug, Default)]
pub struct Response {
    /// Its fields, and all its bytes. While a head is read, what has arrived goes here.
    pub fields: Fields,
    progress: Progress,
    /// The version it was sent in.
    pub version: Version,
    /// The status.
    pub status: u16,
    reason: Span,
    /// How long its body is.
    pub length: Length,
    /// Whether the server would take another request on the connection.
    pub keeps_alive: bool,
    /// What it says of the connection.
    pub options: Options,
}

impl Response {
    /// Forgets everything and keeps the buffers.
    pub fn clear(&mut self) {
        self.fields.clear();
        let fields = std::mem::take(&mut self.fields);
        *self = Self { fields, ..Self::default() };
    }

    /// Adds what has arrived of a head of HTTP/1; what follows the head may be among it.
    pub fn arrived(&mut self, bytes: &[u8]) {
        self.fields.bytes.extend_from_slice(bytes);
    }

    /// Whether nothing has arrived.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.fields.bytes.is_empty()
    }

    /// Reads on in what has arrived of the answer to a request, be that for the head alone. When it is whole, what followed it
    /// is moved to `rest`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(&mut self, limits: &Limits, to_head: bool, rest: &mut Vec<u8>) -> Result<Parsed, Fault> {
        loop {
            match self.progress.advance(&mut self.fields, limits)? {
                Line::Partial => return Ok(Parsed::Partial),
                Line::First(line) => self.read_first_line(line)?,
                Line::End(end) => {
                    rest.extend_from_slice(self.fields.bytes.get(end..).unwrap_or_default());
                    self.fields.bytes.truncate(end);
                    self.interpret(to_head)?;
                    return Ok(Parsed::Whole(end));
                }
            }
        }
    }

    fn read_first_line(&mut self, line: Span) -> Result<(), Fault> {
        let (start, bytes) = (line.start(), line.of(self.fields.bytes()));
        let (version, rest) = bytes.split_at_checked(8).unwrap_or_default();
        self.version = Version::parse(version).ok_or(Fault::Malformed("its version is not HTTP/1.1 or HTTP/1.0"))?;
        let (status, reason) = match rest {
            [b' ', a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] => ([*a, *b, *c], [].as_slice()),
            [b' ', a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b' ', reason @ ..] => ([*a, *b, *c], reason),
            _ => return Err(Fault::Malformed("its first line has no status")),
        };
        if !is_value(reason) {
            return Err(Fault::Malformed("its reason phrase has a character that it cannot have"));
        }
        self.status = status.into_iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
        let end = start + bytes.len();
        self.reason = Span::new(end - reason.len(), end);
        Ok(())
    }

    fn interpret(&mut self, to_head: bool) -> Result<(), Fault> {
        self.length = framing::of_response(&self.fields, self.version, self.status, to_head)?;
        self.options = Options::of(&self.fields);
        self.keeps_alive = self.options.keeps_alive(self.version) && self.length != Length::UntilClose;
        Ok(())
    }

    /// The first line as it came, if it is of HTTP/1.1 and complete.
    #[must_use]
    pub fn first_line(&self) -> Option<&[u8]> {
        const BEFORE_REASON: usize = "HTTP/1.1 200 ".len();
        let is_complete = self.version == Version::Http11 && !self.reason.is_empty();
        let start = self.reason.start().checked_sub(BEFORE_REASON).filter(|_| is_complete)?;
        self.fields.bytes().get(start..self.reason.end() + 2)
    }

    /// The reason phrase, which may be empty.
    #[must_use]
    pub fn reason(&self) -> &[u8] {
        self.reason.of(self.fields.bytes())
    }

    /// Whether it is no answer yet (RFC 9110 §15.2).
    #[must_use]
    pub fn is_informational(&self) -> bool {
        matches!(self.status, 100..=199)
    }

    /// Takes over a head that came in another form than the bytes of HTTP/1.
    pub fn adopt(&mut self, fields: &mut Fields, status: u16) {
        self.clear();
        std::mem::swap(&mut self.fields, fields);
        self.version = Version::Http2;
        self.status = status;
        self.keeps_alive = true;
    }
}
