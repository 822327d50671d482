//! How a client is kept with a server: by a cookie that names it in a way only we understand.
//!
//! A server's mark is computed from its name and that of its pool, so that it is the same after a restart and in every
//! instance of the same configuration, and says nothing of addresses. It is no secret and no proof: whoever makes one up
//! gets to a server of the pool, which they might have been given anyway.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::units::Name;

/// How clients are kept with a server by a cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sticky {
    /// The cookie's name.
    pub cookie: Box<str>,
    /// Whether it is for HTTPS only.
    pub secure: bool,
    /// Whether scripts cannot read it.
    pub http_only: bool,
    /// With which requests from other sites it is sent.
    pub same_site: SameSite,
    /// How long the client keeps it; zero is until it is closed.
    pub ttl: Duration,
}

/// With which requests from other sites a cookie is sent (RFC 6265bis §5.6.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SameSite {
    /// With none.
    Strict,
    /// With those that only lead there.
    #[default]
    Lax,
    /// With all; such a cookie has to be `secure`.
    None,
}

impl Sticky {
    /// The value of the `Set-Cookie` field that keeps a client with the server of this mark (RFC 6265 §4.1).
    #[must_use]
    pub fn set_cookie(&self, mark: &Mark) -> String {
        let mut text = format!("{}={}; Path=/", self.cookie, mark.as_str());
        if !self.ttl.is_zero() {
            // At least a second: zero would tell the client to forget it at once.
            let _infallible = write!(text, "; Max-Age={}", self.ttl.as_secs().max(1));
        }
        if self.secure {
            text.push_str("; Secure");
        }
        if self.http_only {
            text.push_str("; HttpOnly");
        }
        text.push_str(match self.same_site {
            SameSite::Strict => "; SameSite=Strict",
            SameSite::Lax => "; SameSite=Lax",
            SameSite::None => "; SameSite=None",
        });
        text
    }
}

/// What the cookie of a server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mark([u8; Self::LENGTH]);

impl Mark {
    /// Its length, in letters of base64url.
    const LENGTH: usize = 16;
    /// How many bytes of the digest those letters stand for.
    const BYTES: usize = 12;

    /// The mark of a server by the names of its pool and itself.
    #[must_use]
    pub fn of(pool: &Name, server: &Name) -> Self {
        let mut context = Context::new(&SHA256);
        for part in ["portreeve sticky 1", pool.as_str(), server.as_str()] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let digest = context.finish();
        let mut letters = [0; Self::LENGTH];
        let bytes = digest.as_ref().get(..Self::BYTES).unwrap_or_default();
        let _fits = BASE64_URL_SAFE_NO_PAD.encode_slice(bytes, &mut letters);
        Self(letters)
    }

    /// As it stands in the cookie.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Which server of a pool a cookie is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StickyTable {
    places: HashMap<Mark, usize>,
}

impl StickyTable {
    /// A table of a pool's servers; the first of them has place 0.
    #[must_use]
    pub fn new<'a>(pool: &Name, servers: impl IntoIterator<Item = &'a Name>) -> Self {
        let marks = servers.into_iter().map(|server| Mark::of(pool, server));
        Self { places: marks.enumerate().map(|(place, mark)| (mark, place)).collect() }
    }

    /// The place of the server that a cookie of this value is for.
    #[must_use]
    pub fn find(&self, value: &[u8]) -> Option<usize> {
        self.places.get(&Mark(value.try_into().ok()?)).copied()
    }
}

/// The value of the first cookie of this name in one `Cookie` field. What does not look like a cookie is passed over, and
/// quotes around a value are not part of it (RFC 6265 §4.1.1).
#[must_use]
pub fn cookie_value<'a>(field: &'a [u8], name: &str) -> Option<&'a [u8]> {
    field.split(|byte| *byte == b';').find_map(|pair| {
        let value = value_if_named(pair, name)?.trim_ascii();
        let quoted = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
        Some(quoted.unwrap_or(value))
    })
}

/// A `Cookie` field without the cookies of this name, all else being as it was; empty if there is nothing else.
#[must_use]
pub fn without_cookie<'a>(field: &'a [u8], name: &str) -> Cow<'a, [u8]> {
    let pairs = || field.split(|byte| *byte == b';');
    if !pairs().any(|pair| value_if_named(pair, name).is_some()) {
        return Cow::Borrowed(field);
    }
    let others: Vec<&[u8]> = pairs().filter(|pair| value_if_named(pair, name).is_none()).collect();
    Cow::Owned(others.join(&b';').trim_ascii().to_vec())
}

/// What stands behind the equals sign of a cookie, if it is one of this name.
fn value_if_named<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let equals = pair.iter().position(|byte| *byte == b'=')?;
    let (own, value) = pair.split_at_checked(equals)?;
    (own.trim_ascii() == name.as_bytes()).then(|| value.strip_prefix(b"="))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sticky() -> Sticky {
        Sticky { cookie: "srv".into(), secure: false, http_only: false, same_site: SameSite::Lax, ttl: Duration::ZERO }
    }

    #[test]
    fn a_mark_is_the_same_everywhere_and_for_ever() {
        // sha256 over each part behind its length, which anybody can compute.
        assert_eq!(Mark::of(&Name::new("web"), &Name::new("a")).as_str(), "8tALio_ZCzNc6Hou");
        assert_eq!(Mark::of(&Name::new("web"), &Name::new("a")).as_str().len(), Mark::LENGTH);
    }

    #[test]
    fn servers_and_pools_of_any_names_have_marks_of_their_own() {
        let mark = |pool: &str, server: &str| Mark::of(&Name::new(pool), &Name::new(server));
        assert_ne!(mark("web", "a"), mark("web", "b"));
        assert_ne!(mark("web", "a"), mark("api", "a"));
        assert_ne!(mark("ab", "c"), mark("a", "bc"));
    }

    #[test]
    fn a_cookie_leads_to_the_place_of_its_server_and_any_other_to_none() {
        let pool = Name::new("web");
        let names = ["a", "b", "c"].map(Name::new);
        let table = StickyTable::new(&pool, &names);
        for (place, name) in names.iter().enumerate() {
            assert_eq!(table.find(Mark::of(&pool, name).as_str().as_bytes()), Some(place));
        }
        let gone = Mark::of(&pool, &Name::new("d"));
        assert_eq!(table.find(gone.as_str().as_bytes()), None);
        assert!(table.find(b"").is_none() && table.find(b"a").is_none() && table.find(&[0xff; 16]).is_none());
        assert!(table.find(&[b'A'; 4096]).is_none());
    }

    #[test]
    fn the_cookie_is_found_among_others_however_they_are_written() {
        let value =
            |field: &'static str| cookie_value(field.as_bytes(), "srv").map(|value| value.escape_ascii().to_string());
        for field in
            ["srv=x", "a=b; srv=x; c=d", "a=b;srv=x", " srv = x ;", "srv=\"x\"", "srv=x; srv=y", ";;=;srv;srv=x"]
        {
            assert_eq!(value(field).as_deref(), Some("x"), "{field}");
        }
        for field in ["", "srv", "SRV=x", "xsrv=x", "srvx=x", "a=srv=x", "a=\"; b"] {
            assert_eq!(value(field), None, "{field}");
        }
        assert_eq!(value("srv=").as_deref(), Some(""));
        assert_eq!(value("srv=a=b").as_deref(), Some("a=b"));
    }

    #[test]
    fn a_field_without_the_cookie_is_otherwise_as_it_was() {
        let without = |field: &'static str| without_cookie(field.as_bytes(), "srv").escape_ascii().to_string();
        for (field, rest) in [
            ("srv=x", ""),
            ("srv=x; a=b", "a=b"),
            ("a=b; srv=x; c=d", "a=b; c=d"),
            ("a=b;srv=x;c=d", "a=b;c=d"),
            ("a=b; srv = x ; srv=y", "a=b"),
            ("a=b; SRV=x; xsrv=y; srv; c=\"srv=z\"", "a=b; SRV=x; xsrv=y; srv; c=\\\"srv=z\\\""),
            (" a=b ;; c ", " a=b ;; c "),
            ("", ""),
        ] {
            assert_eq!(without(field), rest, "{field}");
        }
    }

    #[test]
    fn the_cookie_is_set_as_the_settings_say() {
        let mark = Mark(*b"0123456789abcdef");
        assert_eq!(sticky().set_cookie(&mark), "srv=0123456789abcdef; Path=/; SameSite=Lax");
        let same_site = SameSite::None;
        let all = Sticky { secure: true, http_only: true, same_site, ttl: Duration::from_secs(60), ..sticky() };
        assert_eq!(all.set_cookie(&mark), "srv=0123456789abcdef; Path=/; Max-Age=60; Secure; HttpOnly; SameSite=None");
        let short = Sticky { ttl: Duration::from_millis(1), same_site: SameSite::Strict, ..sticky() };
        assert_eq!(short.set_cookie(&mark), "srv=0123456789abcdef; Path=/; Max-Age=1; SameSite=Strict");
    }
}
