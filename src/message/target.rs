//! What a request asks for: the host and the path in effect.

use std::borrow::Cow;
use std::fmt::Write;
use std::net::Ipv6Addr;

use super::line::Fault;
use super::token::{is_host_byte, is_path, is_path_byte, is_query};

/// A request target, taken apart; places in its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target<'a> {
    /// The authority, where the target has one.
    pub authority: Option<&'a [u8]>,
    /// The path; `*` for the server itself.
    pub path: &'a [u8],
    /// What follows the question mark, if there is one.
    pub query: Option<&'a [u8]>,
}

impl<'a> Target<'a> {
    /// Takes a target of HTTP/1 apart: `/path?query`, `http://host/path?query`, or `*` with OPTIONS (RFC 9112 §3.2). The
    /// form of CONNECT is refused: no tunnel is made for anybody.
    ///
    /// # Errors
    /// When it is none of these, or a segment of its path is `.` or `..`, which no client sends and which servers resolve.
    pub fn parse(target: &'a [u8], method: &[u8]) -> Result<Self, Fault> {
        if method == b"CONNECT" {
            return Err(Fault::Malformed("CONNECT is not served"));
        }
        if target == b"*" && method == b"OPTIONS" {
            return Ok(Self { authority: None, path: target, query: None });
        }
        let scheme = [b"http://".as_slice(), b"https://"];
        let absolute = scheme.into_iter().find_map(|scheme| {
            let (own, rest) = target.split_at_checked(scheme.len())?;
            own.eq_ignore_ascii_case(scheme).then_some(rest)
        });
        let Some(rest) = absolute else { return Self::of_path(None, target) };
        let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at_checked(end).unwrap_or_default();
        // It would be taken for a target that names none.
        if authority.is_empty() {
            return Err(BAD_HOST);
        }
        // A path that is left out is the shortest one (RFC 9110 §4.2.3).
        match rest.strip_prefix(b"?") {
            Some(query) if !is_query(query) => Err(BAD_QUERY),
            Some(query) => Ok(Self { authority: Some(authority), path: b"/", query: Some(query) }),
            None if rest.is_empty() => Ok(Self { authority: Some(authority), path: b"/", query: None }),
            None => Self::of_path(Some(authority), rest),
        }
    }

    /// A path with a query, perhaps of another authority than the header names.
    ///
    /// # Errors
    /// As for [`Target::parse`].
    pub fn of_path(authority: Option<&'a [u8]>, target: &'a [u8]) -> Result<Self, Fault> {
        let (path, query) = match memchr::memchr(b'?', target) {
            Some(at) => (target.get(..at).unwrap_or_default(), target.get(at + 1..)),
            None => (target, None),
        };
        match path.first() {
            Some(b'/') if is_path(path) => {}
            Some(b'/') => return Err(Fault::Malformed("its path has a character that paths have not")),
            Some(_) | None => return Err(NO_PATH),
        }
        if !query.is_none_or(is_query) {
            return Err(BAD_QUERY);
        }
        if memchr::memchr2(b'.', b'%', path).is_some() && has_dots(path) {
            return Err(Fault::Malformed("its path has a segment `.` or `..`"));
        }
        Ok(Self { authority, path, query })
    }
}

/// Whether a segment is `.` or `..`, as any server may read it: some decode first (RFC 3986 §6.2.2), some take a backslash for
/// a slash, and to some a segment ends before a `;`, which begins its parameters.
#[must_use]
pub fn has_dots(path: &[u8]) -> bool {
    let is_dots = |dots: Option<usize>| matches!(dots, Some(1 | 2));
    let mut rest = path;
    // How many dots there are in the segment, as long as there is nothing else.
    let mut dots = Some(0);
    while let Some(Letter { byte, rest: behind, .. }) = Letter::first(rest) {
        dots = match byte {
            b'/' | b'\\' | b';' if is_dots(dots) => return true,
            b'/' | b'\\' => Some(0),
            b'.' => dots.map(|dots| dots + 1),
            _ => None,
        };
        rest = behind;
    }
    is_dots(dots)
}

/// The path as routes compare it, which is as a server that decodes reads it: with what can stand for itself decoded, slashes
/// too, without doubled slashes, and without parameters, since servers take `//%61dmin`, `/x%2F..` and `/admin;x` for what they
/// are. What cannot stand in a path stays encoded, in capitals (RFC 3986 §6.2.2.1).
#[must_use]
pub fn normal_path(path: &[u8]) -> Cow<'_, [u8]> {
    let is_doubled = || path.windows(2).any(|pair| pair == b"//");
    if memchr::memchr2(b'%', b';', path).is_none() && !is_doubled() {
        return Cow::Borrowed(path);
    }
    let mut normal: Vec<u8> = Vec::with_capacity(path.len());
    for letter in Compared::of(path) {
        if letter.stands_for_itself() {
            normal.push(letter.byte);
        } else {
            normal.extend(letter.written.iter().map(u8::to_ascii_uppercase));
        }
    }
    Cow::Owned(normal)
}

/// What follows the slash behind the first `matched` bytes of a path's normal form, as it was sent; none if no slash follows.
/// Where slashes are doubled right there, they count as one, and parameters that stand there go.
#[must_use]
pub fn below(path: &[u8], matched: usize) -> Option<&[u8]> {
    let mut letters = Compared::of(path);
    let mut length = 0;
    while length < matched {
        let letter = letters.next()?;
        length += if letter.stands_for_itself() { 1 } else { letter.written.len() };
    }
    // Nothing that is compared stands between what was matched and this slash.
    letters.was_slash = false;
    let mut below = letters.next().filter(|border| border.byte == b'/')?.rest;
    while let Some(behind) = below.strip_prefix(b"/") {
        below = behind;
    }
    Some(below)
}

/// The letters of a path that are compared: neither further slashes, nor what follows a `;` in a segment. Those are its
/// parameters (RFC 3986 §3.3), which servers of servlets leave aside; encoded or not, as with dots.
struct Compared<'a> {
    rest: &'a [u8],
    was_slash: bool,
    is_in_parameters: bool,
}

impl<'a> Compared<'a> {
    fn of(path: &'a [u8]) -> Self {
        Self { rest: path, was_slash: false, is_in_parameters: false }
    }
}

impl<'a> Iterator for Compared<'a> {
    type Item = Letter<'a>;

    fn next(&mut self) -> Option<Letter<'a>> {
        loop {
            let letter = Letter::first(self.rest)?;
            self.rest = letter.rest;
            match letter.byte {
                b'/' => {
                    self.is_in_parameters = false;
                    if !std::mem::replace(&mut self.was_slash, true) {
                        return Some(letter);
                    }
                }
                b';' => self.is_in_parameters = true,
                _ if self.is_in_parameters => {}
                _ => {
                    self.was_slash = false;
                    return Some(letter);
                }
            }
        }
    }
}

/// A byte of a path as a server that decodes reads it.
#[derive(Clone, Copy)]
struct Letter<'a> {
    byte: u8,
    /// How it is written.
    written: &'a [u8],
    /// What follows it.
    rest: &'a [u8],
}

impl<'a> Letter<'a> {
    fn first(path: &'a [u8]) -> Option<Self> {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let decoded = match path {
            [b'%', high, low, ..] => digit(*high).zip(digit(*low)),
            _ => None,
        };
        let decoded = decoded.and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        let (written, rest) = path.split_at_checked(if decoded.is_some() { 3 } else { 1 })?;
        Some(Self { byte: decoded.or_else(|| written.first().copied())?, written, rest })
    }

    /// Whether it would be the same letter if it were not encoded.
    fn stands_for_itself(&self) -> bool {
        self.written.len() == 1 || is_path_byte(self.byte) && self.byte != b'%'
    }
}

/// A host and perhaps a port, as in `Host` (RFC 9110 §7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// The host, with the brackets of an IPv6 address.
    pub host: &'a [u8],
    /// The port.
    pub port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Takes an authority apart.
    ///
    /// # Errors
    /// When it is none, is empty, or names a user.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Fault> {
        let (host, rest) = match bytes.first() {
            Some(b'[') => {
                let end = memchr::memchr(b']', bytes).ok_or(BAD_HOST)?;
                let inner = bytes.get(1..end).and_then(|inner| std::str::from_utf8(inner).ok());
                inner.and_then(|inner| inner.parse::<Ipv6Addr>().ok()).ok_or(BAD_HOST)?;
                bytes.split_at_checked(end + 1).unwrap_or_default()
            }
            _ => {
                let end = bytes.iter().position(|byte| !is_host_byte(*byte)).unwrap_or(bytes.len());
                bytes.split_at_checked(end).unwrap_or_default()
            }
        };
        let port = match rest {
            [] => None,
            [b':'] => None,
            [b':', digits @ ..] if digits.iter().all(u8::is_ascii_digit) => {
                Some(std::str::from_utf8(digits).ok().and_then(|port| port.parse().ok()).ok_or(BAD_HOST)?)
            }
            _ => return Err(BAD_HOST),
        };
        if host.is_empty() {
            return Err(BAD_HOST);
        }
        Ok(Self { host, port })
    }

    /// Writes the host as routes compare it: in lower case, without a closing dot, an IPv6 address as RFC 5952 has it.
    pub fn write_host(&self, into: &mut String) {
        let host = self.host.strip_suffix(b".").unwrap_or(self.host);
        into.clear();
        let in_brackets = host.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]"));
        if let Some(address) = in_brackets.and_then(|address| std::str::from_utf8(address).ok()?.parse().ok()) {
            let address: Ipv6Addr = address;
            let _infallible = write!(into, "[{address}]");
            return;
        }
        match std::str::from_utf8(host) {
            Ok(host) => into.push_str(host),
            // None: hosts are ASCII.
            Err(_) => return,
        }
        into.make_ascii_lowercase();
    }
}

const BAD_QUERY: Fault = Fault::Malformed("its query has a character that queries have not");
const NO_PATH: Fault = Fault::Malformed("its target is no path");
const BAD_HOST: Fault = Fault::Malformed("its host is not valid");
