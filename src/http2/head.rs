//! A header list as it came, in the form that all heads have here.

use std::cell::RefCell;

use crate::message::head::{Fields, Span};
use crate::message::line::{Fault, LONGEST_HEAD};
use crate::message::token::{is_lower_token, is_value};

/// How many wait for the next list on a thread, and how large each may be.
const MOST_SPARE: usize = 64;
const SPARE_BYTES: usize = 4096;
/// What each field counts beside its bytes (RFC 9113 §6.5.2).
const OVERHEAD: usize = 32;

/// The pseudo-header fields (RFC 9113 §8.3, RFC 8441 §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pseudo {
    /// `:method`
    pub method: Option<Span>,
    /// `:scheme`
    pub scheme: Option<Span>,
    /// `:authority`
    pub authority: Option<Span>,
    /// `:path`
    pub path: Option<Span>,
    /// `:protocol`
    pub protocol: Option<Span>,
    /// `:status`
    pub status: Option<Span>,
}

/// A header list. What it holds is used again for the next one.
#[derive(Debug, Default)]
pub struct Head {
    /// The fields, among whose bytes the pseudo-header ones stand.
    pub fields: Fields,
    /// The pseudo-header fields.
    pub pseudo: Pseudo,
    /// What is wrong with it, if anything is.
    pub fault: Option<Fault>,
    size: usize,
}

/// What is wrong with a message whose body ends before it should.
pub const SHORTER: &str = "its body is shorter than it says";

thread_local! {
    /// Those that wait for the next list of any connection.
    #[expect(clippy::vec_box, reason = "they are handed out and taken back in their boxes")]
    static SPARE: RefCell<Vec<Box<Head>>> = const { RefCell::new(Vec::new()) };
}

impl Head {
    /// One to read a list into.
    #[must_use]
    pub fn spare() -> Box<Self> {
        SPARE.with_borrow_mut(Vec::pop).unwrap_or_default()
    }

    /// Keeps it for the next list.
    pub fn put_back(mut self: Box<Self>) {
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < MOST_SPARE {
                self.clear();
                self.fields.shrink_to(SPARE_BYTES);
                spare.push(self);
            }
        });
    }

    fn clear(&mut self) {
        self.fields.clear();
        (self.pseudo, self.fault, self.size) = (Pseudo::default(), None, 0);
    }

    /// Adds a field, if all of them together are no larger than `most`. What is wrong with it is kept for whoever reads it.
    pub(super) fn push(&mut self, name: &[u8], value: &[u8], most: usize) {
        self.size += name.len() + value.len() + OVERHEAD;
        if self.size > most || self.fields.bytes().len() + name.len() + value.len() > LONGEST_HEAD {
            self.fault = Some(Fault::TooLarge);
            return;
        }
        let added = match name.first() {
            Some(b':') => self.push_pseudo(name, value),
            Some(_) if is_lower_token(name) => {
                self.fields.push(name, value.trim_ascii());
                if is_value(value) { Ok(()) } else { Err("a value has a character that it cannot have") }
            }
            Some(_) | None => Err("the name of a field is none, or not in lower case"),
        };
        if let Err(words) = added
            && self.fault.is_none()
        {
            self.fault = Some(Fault::Malformed(words));
        }
    }

    fn push_pseudo(&mut self, name: &[u8], value: &[u8]) -> Result<(), &'static str> {
        if !self.fields.is_empty() {
            return Err("a pseudo-header field stands behind others");
        }
        let place = match name {
            b":method" => &mut self.pseudo.method,
            b":scheme" => &mut self.pseudo.scheme,
            b":authority" => &mut self.pseudo.authority,
            b":path" => &mut self.pseudo.path,
            b":protocol" => &mut self.pseudo.protocol,
            b":status" => &mut self.pseudo.status,
            _ => return Err("it has a pseudo-header field that nobody knows"),
        };
        if place.is_some() {
            return Err("it has a pseudo-header field twice");
        }
        *place = Some(self.fields.append(value));
        Ok(())
    }

    /// The bytes of a pseudo-header field.
    #[must_use]
    pub fn bytes_of(&self, span: Span) -> &[u8] {
        span.of(self.fields.bytes())
    }

    /// The status of a response that has one and nothing that only requests have.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        let Pseudo { method: None, scheme: None, authority: None, path: None, protocol: None, status } = self.pseudo
        else {
            return None;
        };
        match self.bytes_of(status?) {
            [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] => {
                Some([a, b, c].into_iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0')))
            }
            _ => None,
        }
    }

    /// A body was announced, and there is none.
    pub(super) fn misses_body(&mut self) {
        self.fault.get_or_insert(Fault::Malformed(SHORTER));
    }

    /// Why it is no trailer section (RFC 9113 §8.1), if it is none.
    pub(super) fn fault_of_trailers(&self) -> Option<&'static str> {
        match self.fault {
            Some(Fault::TooLarge) => Some("its trailers are too large"),
            Some(fault) => Some(fault.words()),
            None if self.pseudo != Pseudo::default() => Some("its trailers have a pseudo-header field"),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[(&str, &str)]) -> Head {
        let mut head = Head::default();
        fields.iter().for_each(|(name, value)| head.push(name.as_bytes(), value.as_bytes(), 500));
        head
    }

    #[test]
    fn a_good_head_is_taken_apart() {
        let head = head(&[(":method", "GET"), (":path", "/x"), ("accept", " a b "), ("x-empty", "")]);
        assert_eq!(head.fault, None);
        assert_eq!(head.pseudo.path.map(|path| head.bytes_of(path)), Some(&b"/x"[..]));
        let fields: Vec<_> = head.fields.iter().map(|(_, name, value)| (name, value)).collect();
        assert_eq!(fields, [(&b"accept"[..], &b"a b"[..]), (b"x-empty", b"")]);
        assert!(head.fault_of_trailers().is_some());
    }

    #[test]
    fn what_is_wrong_is_kept() {
        let bad: [&[(&str, &str)]; 9] = [
            &[("", "x")],
            &[("Upper", "x")],
            &[("a b", "x")],
            &[("a:b", "x")],
            &[("a", "x\ny")],
            &[("a", "x"), (":path", "/")],
            &[(":path", "/"), (":path", "/")],
            &[(":unknown", "x")],
            &[(":", "x")],
        ];
        for fields in bad {
            assert!(matches!(head(fields).fault, Some(Fault::Malformed(_))), "{fields:?}");
        }
        let large = "x".repeat(300);
        assert_eq!(head(&[("a", &large), ("b", &large)]).fault, Some(Fault::TooLarge));
        let mut reused = head(&[("Upper", "x")]);
        reused.clear();
        assert_eq!(reused.fault_of_trailers(), None);
    }

    #[test]
    fn a_status_is_three_digits() {
        for (status, number) in
            [("200", Some(200)), ("999", Some(999)), ("099", None), ("20", None), ("2000", None), ("2x0", None)]
        {
            assert_eq!(head(&[(":status", status)]).status(), number, "{status}");
        }
        assert_eq!(head(&[("x", "1")]).status(), None);
        assert_eq!(head(&[(":status", "200"), (":path", "/")]).status(), None);
    }
}
