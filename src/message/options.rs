//! What a message says of the connection it came on (RFC 9110 §7.6.1), looked at once.

use super::head::{Fields, Known};
use super::token;
use super::version::Version;

/// What `Connection` lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    close: bool,
    keep_alive: bool,
    /// The message may change the protocol.
    pub(super) upgrade: bool,
    /// Fields of other names, which concern this connection alone then.
    pub nominates: bool,
}

impl Options {
    /// Those of a head of HTTP/1.
    pub(super) fn of(fields: &Fields) -> Self {
        let mut options = Self::default();
        for value in fields.values(Known::Connection) {
            match value {
                // As almost all are written.
                b"keep-alive" => options.keep_alive = true,
                b"close" => options.close = true,
                _ => token::list(value).for_each(|part| options.add(part)),
            }
        }
        options
    }

    fn add(&mut self, part: &[u8]) {
        let is = |option: &[u8]| part.eq_ignore_ascii_case(option);
        match () {
            () if is(b"close") => self.close = true,
            () if is(b"keep-alive") => self.keep_alive = true,
            () if is(b"upgrade") => self.upgrade = true,
            // It is never passed on in any case.
            () if is(b"te") => {}
            () => self.nominates = true,
        }
    }

    /// Whether whoever sent it would have another message on the connection.
    pub(super) const fn keeps_alive(self, version: Version) -> bool {
        match version {
            Version::Http10 => self.keep_alive && !self.close,
            Version::Http11 | Version::Http2 => !self.close,
        }
    }
}
