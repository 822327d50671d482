//! The head of a request, from HTTP/1 bytes to what is asked for.

use super::framing::{self, Length};
use super::head::{Fields, Known, Span};
use super::host::Named;
use super::line::{Fault, Limits, Line, Progress};
use super::options::Options;
use super::target::{Authority, Target};
use super::token::{self, is_token};
use super::version::Version;

/// The longest method that is taken for one.
const LONGEST_METHOD: usize = 64;
/// How much is told of the target of what is not served.
pub const MOST_TOLD: usize = 1024;

/// The head of a request, or as much of it as has arrived. What it holds is used again for the next one.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Its fields, and all its bytes. While a head is read, what has arrived goes here.
    pub fields: Fields,
    progress: Progress,
    method: Span,
    authority: Span,
    path: Span,
    query: Option<Span>,
    /// What stands in the place of a target, as long as it is not known to be one; of what is long, the beginning.
    target: Span,
    named: Named,
    /// The version it was sent in.
    pub version: Version,
    /// How long its body is.
    pub length: Length,
    /// The protocol that an extended CONNECT asks for (RFC 8441 §4), or else an `Upgrade` that `Connection` lists.
    pub upgrade: Option<Span>,
    /// Whether the client waits for a word before it sends the body.
    pub expects_continue: bool,
    /// Whether the client would send another request on the connection.
    pub keeps_alive: bool,
    /// What it says of the connection.
    pub options: Options,
}

/// How far a head has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// More has to arrive.
    Partial,
    /// It is whole, and this many bytes long.
    Whole(usize),
}

impl Request {
    /// Forgets everything and keeps the buffers.
    pub fn clear(&mut self) {
        self.fields.clear();
        self.named.clear();
        let (fields, named) = (std::mem::take(&mut self.fields), std::mem::take(&mut self.named));
        *self = Self { fields, named, ..Self::default() };
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

    /// Reads on in what has arrived. When it is whole, what followed it is moved to `rest`.
    ///
    /// # Errors
    /// What is wrong with it. Nothing that was read can be relied on then; see [`Request::glean`].
    pub fn parse(&mut self, limits: &Limits, rest: &mut Vec<u8>) -> Result<Parsed, Fault> {
        loop {
            match self.progress.advance(&mut self.fields, limits)? {
                Line::Partial => return Ok(Parsed::Partial),
                Line::First(line) => self.read_first_line(line, limits.target)?,
                Line::End(end) => {
                    rest.extend_from_slice(self.fields.bytes.get(end..).unwrap_or_default());
                    self.fields.bytes.truncate(end);
                    self.interpret()?;
                    return Ok(Parsed::Whole(end));
                }
            }
        }
    }

    /// Finds out what can be told of what came to no request: a method, what stands in the place of a target, a host. It is
    /// good for telling people, and for nothing else.
    pub fn glean(&mut self, limits: &Limits) {
        if self.method.is_empty()
            && let Some((method, target, end)) = begun(self.fields.bytes())
        {
            (self.method, self.target) = (method, target);
            self.progress.skip_first_line(end);
        }
        if self.named.host().is_empty() {
            // The rest of what has arrived, up to the next that is wrong with it.
            let _as_far_as_it_goes = self.progress.advance(&mut self.fields, limits);
            let mut hosts = self.fields.values(Known::Host);
            if let (Some(host), None) = (hosts.next(), hosts.next()) {
                let _or_none = self.named.read(host);
            }
        }
    }

    fn read_first_line(&mut self, line: Span, longest: usize) -> Result<(), Fault> {
        let (start, bytes) = (line.start(), line.of(self.fields.bytes()));
        let mut parts = bytes.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Fault::Malformed("its first line is not a method, a target and a version"));
        };
        if !is_token(method) || method.len() > LONGEST_METHOD {
            return Err(Fault::Malformed("its method is none"));
        }
        if target.len() > longest {
            return Err(Fault::FirstLineTooLong);
        }
        self.version = Version::parse(version).ok_or(Fault::Malformed("its version is not HTTP/1.1 or HTTP/1.0"))?;
        let begin = start + method.len() + 1;
        let whole = Target::parse(target, method)?;
        let place = |part: &[u8]| {
            // Both are parts of the same bytes, but for a path that was left out.
            let offset = (part.as_ptr().addr()).wrapping_sub(target.as_ptr().addr());
            (offset <= target.len()).then(|| Span::new(begin + offset, begin + offset + part.len()))
        };
        let (authority, path, query) =
            (whole.authority.and_then(place), place(whole.path), whole.query.and_then(place));
        self.method = Span::new(start, start + method.len());
        self.authority = authority.unwrap_or_default();
        self.path = path.unwrap_or_default();
        self.query = query;
        Ok(())
    }

    /// Decides what the fields of HTTP/1 mean, once all are there.
    fn interpret(&mut self) -> Result<(), Fault> {
        let fields = &self.fields;
        let mut hosts = fields.values(Known::Host);
        let host = hosts.next();
        if hosts.next().is_some() {
            return Err(Fault::Malformed("it names two hosts"));
        }
        if host.is_none() && self.version == Version::Http11 {
            return Err(Fault::Malformed("it names no host"));
        }
        if !self.authority.is_empty() {
            // What `Host` says does not count then, but has to be a host.
            let _is_one = host.map(Authority::parse).transpose()?;
            self.named.read(self.authority.of(fields.bytes()))?;
        } else if let Some(host) = host {
            self.named.read(host)?;
        }
        self.length = framing::of_request(fields, self.version)?;
        self.options = Options::of(fields);
        self.keeps_alive = self.options.keeps_alive(self.version);
        self.expects_continue = match self.version {
            Version::Http10 => false,
            Version::Http11 | Version::Http2 => expects_continue(fields)? && !self.length.is_empty(),
        };
        let may_upgrade = self.version == Version::Http11 && self.length.is_empty() && self.options.upgrade;
        // To HTTP/2 nobody changes any more (RFC 9113 §3.1): a server that did would be asked past the routes.
        let to_http2 = |span: &Span| token::list(span.of(fields.bytes())).any(|to| to.eq_ignore_ascii_case(b"h2c"));
        self.upgrade = fields.span_of(Known::Upgrade).filter(|span| may_upgrade && !to_http2(span));
        Ok(())
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> &[u8] {
        self.method.of(self.fields.bytes())
    }

    /// The method as the client has it: an extended CONNECT is a GET here (RFC 8441 §5).
    #[must_use]
    pub fn method_sent(&self) -> &[u8] {
        match (self.version, self.upgrade) {
            (Version::Http2, Some(_)) => b"CONNECT",
            (Version::Http10 | Version::Http11 | Version::Http2, _) => self.method(),
        }
    }

    /// What it asks for, to be told to people: its path with the query. Of what is no request it is what stands there, and
    /// empty if nothing does.
    #[must_use]
    pub fn target_told(&self) -> String {
        let has_none = self.method.is_empty() || self.version == Version::Http2 && self.path.is_empty();
        if has_none || !self.target.is_empty() {
            return String::from_utf8_lossy(self.target.of(self.fields.bytes())).into_owned();
        }
        let mut told = String::from_utf8_lossy(self.path()).into_owned();
        if let Some(query) = self.query() {
            told.push('?');
            told.push_str(&String::from_utf8_lossy(query));
        }
        told
    }

    /// Whether only the head of the response is wanted.
    #[must_use]
    pub fn is_head(&self) -> bool {
        self.method() == b"HEAD"
    }

    /// Whether the client takes trailers.
    #[must_use]
    pub fn takes_trailers(&self) -> bool {
        self.fields.lists(Known::Te, b"trailers")
    }

    /// Whether it may be sent twice and do no more than once (RFC 9110 §9.2.2).
    #[must_use]
    pub fn is_idempotent(&self) -> bool {
        matches!(self.method(), b"GET" | b"HEAD" | b"OPTIONS" | b"PUT" | b"DELETE" | b"TRACE")
    }

    /// The host in lower case, without port and closing dot; empty if none was named.
    #[must_use]
    pub fn host(&self) -> &str {
        self.named.host()
    }

    /// The port that was named with it.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.named.port()
    }

    /// The host with its port, as the client wrote it: by the target if that has one, else by `Host`.
    #[must_use]
    pub fn authority(&self) -> &[u8] {
        match self.authority.is_empty() {
            false => self.authority.of(self.fields.bytes()),
            true => self.fields.first(Known::Host).unwrap_or_default(),
        }
    }

    /// The path as it was sent.
    #[must_use]
    pub fn path(&self) -> &[u8] {
        match self.path.of(self.fields.bytes()) {
            // An absolute target without one (RFC 9112 §3.2.1); for OPTIONS it is the server itself, unless there is a query
            // (§3.2.4).
            b"" if self.method() == b"OPTIONS" && self.query.is_none() => b"*",
            b"" => b"/",
            path => path,
        }
    }

    /// What follows the question mark, if there is one.
    #[must_use]
    pub fn query(&self) -> Option<&[u8]> {
        self.query.map(|query| query.of(self.fields.bytes()))
    }

    /// It asks to change to this protocol.
    pub fn set_upgrade(&mut self, protocol: &[u8]) {
        self.upgrade = Some(self.fields.append(protocol));
    }

    /// The protocol that it asks to change to.
    #[must_use]
    pub fn upgrade(&self) -> Option<&[u8]> {
        self.upgrade.map(|upgrade| upgrade.of(self.fields.bytes()))
    }

    /// Takes over a head that came in another form than the bytes of HTTP/1: its fields, among whose bytes its method, its
    /// authority and its path with query stand.
    ///
    /// # Errors
    /// As for those of HTTP/1.
    pub fn adopt(&mut self, fields: &mut Fields, method: Span, authority: Span, path: Span) -> Result<(), Fault> {
        self.clear();
        std::mem::swap(&mut self.fields, fields);
        self.version = Version::Http2;
        self.keeps_alive = true;
        let bytes = self.fields.bytes();
        self.target = Span::new(path.start(), path.end().min(path.start() + MOST_TOLD));
        if !is_token(method.of(bytes)) || method.of(bytes).len() > LONGEST_METHOD {
            return Err(Fault::Malformed("its method is none"));
        }
        (self.method, self.authority) = (method, authority);
        self.named.read(authority.of(bytes))?;
        if path.of(bytes) == b"*" && method.of(bytes) == b"OPTIONS" {
            (self.path, self.target) = (path, Span::default());
            return Ok(());
        }
        let target = Target::of_path(None, path.of(bytes))?;
        self.target = Span::default();
        let query = path.start() + target.path.len() + 1;
        self.path = Span::new(path.start(), path.start() + target.path.len());
        self.query = target.query.map(|target| Span::new(query, query + target.len()));
        Ok(())
    }
}

/// The method that a first line begins with, what stands behind it, be that a target or not, and where the line ends.
fn begun(bytes: &[u8]) -> Option<(Span, Span, usize)> {
    let start = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
    let method_end = start + memchr::memchr(b' ', bytes.get(start..)?)?;
    let method = bytes.get(start..method_end)?;
    if !is_token(method) || method.len() > LONGEST_METHOD {
        return None;
    }
    let rest = bytes.get(method_end + 1..)?;
    let length = memchr::memchr3(b' ', b'\r', b'\n', rest).unwrap_or(rest.len()).min(MOST_TOLD);
    // There is none in the method, which is a token.
    let end = memchr::memchr(b'\n', rest).map_or(bytes.len(), |end| method_end + 1 + end + 1);
    Some((Span::new(start, method_end), Span::new(method_end + 1, method_end + 1 + length), end))
}

/// Whether a request with these fields is to be answered 100 before its body is sent, if it has one (RFC 9110 §10.1.1).
///
/// # Errors
/// It expects what nobody knows.
pub fn expects_continue(fields: &Fields) -> Result<bool, Fault> {
    match fields.first(Known::Expect) {
        None => Ok(false),
        Some(expected) if expected.eq_ignore_ascii_case(b"100-continue") => Ok(true),
        Some(_) => Err(Fault::Malformed("it expects something else than 100-continue")),
    }
}
