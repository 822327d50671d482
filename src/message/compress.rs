//! Compression of responses: for whom, of which, how, and what has to be said of it in their heads.
//!
//! It is off unless asked for. A response that holds a secret and repeats something of the request tells the secret by its
//! length when it is compressed, to anyone who can make a browser send requests and see how many bytes come back (BREACH,
//! CVE-2013-3587). Routes whose responses are like that should not be compressed, TLS or not.

mod encoder;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use super::list;

pub use encoder::{Encoder, Failed};

/// The least bytes worth compressing, where it is known how many there are.
const LEAST: u64 = 256;

/// The status of a response that confirms what the client has.
const NOT_MODIFIED: u16 = 304;

/// A content coding that responses can be given here (RFC 9110 §8.4.1, RFC 7932, RFC 8878); what is preferred comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// Zstandard
    Zstd,
    /// Brotli
    Brotli,
    /// gzip
    Gzip,
}

impl Coding {
    /// Every one there is, in the order of preference.
    pub const ALL: [Self; 3] = [Self::Zstd, Self::Brotli, Self::Gzip];

    /// Its name in `Accept-Encoding` and `Content-Encoding`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }

    fn is_named(self, name: &[u8]) -> bool {
        name.eq_ignore_ascii_case(self.name().as_bytes())
            || (self == Self::Gzip && name.eq_ignore_ascii_case(b"x-gzip"))
    }
}

/// The coding that the values of `Accept-Encoding` like best (RFC 9110 §12.5.3); the preference of [`Coding::ALL`] decides
/// between equals. `None` stands for the response as it is: if no coding is accepted, if that is liked better than
/// every coding, or if some part cannot be read.
#[must_use]
pub fn negotiate<'v>(accept_encoding: impl Iterator<Item = &'v [u8]>) -> Option<Coding> {
    let mut weights: [Option<u16>; Coding::ALL.len()] = [None; _];
    let (mut any, mut identity) = (None, None);
    for part in accept_encoding.flat_map(list::parts) {
        let (name, weight) = list::weighted(part)?;
        let named = Coding::ALL.into_iter().zip(&mut weights).find(|(coding, _)| coding.is_named(name));
        let slot = match (named, name) {
            (Some((_, slot)), _) => slot,
            (None, b"*") => &mut any,
            (None, _) if name.eq_ignore_ascii_case(b"identity") => &mut identity,
            (None, _) if is_token(name) => continue,
            (None, _) => return None,
        };
        // Of what is said twice, the more careful one holds.
        *slot = Some(slot.map_or(weight, |before: u16| before.min(weight)));
    }
    let mut best = None;
    for (coding, weight) in Coding::ALL.into_iter().zip(weights) {
        let weight = weight.or(any).unwrap_or(0);
        if weight > best.map_or(0, |(_, best)| best) {
            best = Some((coding, weight));
        }
    }
    best.filter(|(_, weight)| *weight >= identity.unwrap_or(0)).map(|(coding, _)| coding)
}

fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// Whether `Cache-Control` forbids proxies to change the body: of a response, or of one to a request that has it (RFC 9111
/// §5.2.1.6 and §5.2.2.6).
#[must_use]
pub fn forbids_transform<'v>(cache_control: impl Iterator<Item = &'v [u8]>) -> bool {
    cache_control.flat_map(list::parts).any(|directive| directive.eq_ignore_ascii_case(b"no-transform"))
}

/// What may become of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// It goes on as it is, whoever asks.
    Leave,
    /// It is compressed for those who accept that, which its head has to say to everyone.
    Compress(Compressible<'a>),
    /// It says that what the client has is still good, which may have been compressed.
    Confirm(Compressible<'a>),
}

/// A response that can be compressed: what of its head depends on that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compressible<'a> {
    /// The validator it has.
    etag: Option<&'a [u8]>,
    /// Whether its head says already that it depends on `Accept-Encoding`.
    varies: bool,
}

/// A change of a head. Names are in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// All fields of this name go.
    Remove(&'static str),
    /// One field with this value takes the place of all of this name.
    Set(&'static str, Cow<'static, [u8]>),
    /// A field with this value comes behind those of this name.
    Append(&'static str, &'static [u8]),
}

/// Whether a response can be compressed, by its status and its fields. That to a HEAD is judged like the one to a GET, so
/// that both have the same head (RFC 9110 §9.3.2); it has no body to compress.
///
/// A `304 Not Modified` is judged by what it repeats of the response that it stands for.
///
/// Left as they are: interim and partial responses and those without a body; what has a coding already; what must not be
/// changed; what would hardly become smaller, by its type or by its length; gRPC, whose messages are compressed or not by
/// its own rules. A stream of events is compressed, for which the encoder has to be flushed whenever nothing more is at hand.
#[must_use]
pub fn may_compress<'a>(status: u16, fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Verdict<'a> {
    if matches!(status, ..200 | 204..=206) {
        return Verdict::Leave;
    }
    let is_confirmed = status == NOT_MODIFIED;
    let mut response = Compressible::default();
    // What is confirmed has its type already, and seldom says it again.
    let mut is_of_a_type = is_confirmed;
    for (name, value) in fields {
        let is = |own: &str| name.eq_ignore_ascii_case(own.as_bytes());
        if is("content-encoding") || is("content-range") {
            return Verdict::Leave;
        } else if is("content-type") {
            if !is_compressible(value) {
                return Verdict::Leave;
            }
            is_of_a_type = true;
        } else if is("content-length") {
            if parse_length(value).is_some_and(|length| length < LEAST) {
                return Verdict::Leave;
            }
        } else if is("cache-control") {
            if forbids_transform([value].into_iter()) {
                return Verdict::Leave;
            }
        } else if is("etag") {
            response.etag = Some(value);
        } else if is("vary") {
            let names = |part: &[u8]| part == b"*" || part.eq_ignore_ascii_case(b"accept-encoding");
            response.varies |= list::parts(value).any(names);
        }
    }
    if !is_of_a_type {
        Verdict::Leave
    } else if is_confirmed {
        Verdict::Confirm(response)
    } else {
        Verdict::Compress(response)
    }
}

impl Compressible<'_> {
    /// What changes in the head of a `304 Not Modified`, which has to be what a 200 would have had (RFC 9110 §15.4.5), for
    /// one who asked with these values of `If-None-Match`. Who names the validator as a weak one has a response that was
    /// compressed, and would not find it by the strong one (RFC 9111 §4.3.4).
    pub fn confirmed<'v>(&self, if_none_match: impl Iterator<Item = &'v [u8]>) -> Vec<Change> {
        let (mut has_weak, mut has_strong) = (false, false);
        for named in if_none_match.flat_map(list::parts) {
            has_strong |= Some(named) == self.etag;
            has_weak |= named.strip_prefix(b"W/").is_some_and(|strong| Some(strong) == self.etag);
        }
        let etag = self.etag.filter(|_| has_weak && !has_strong).map(weakened);
        // The length that it may have is that of the response as it is (RFC 9110 §8.6).
        let length = etag.as_ref().map(|_| Change::Remove("content-length"));
        self.vary().into_iter().chain(etag).chain(length).collect()
    }

    fn vary(&self) -> Option<Change> {
        (!self.varies).then_some(Change::Append("vary", b"accept-encoding"))
    }

    /// What changes in the head, for one who gets it in this coding or, without one, as it is.
    ///
    /// What was said of the bytes as they were goes: their length, ranges of them, their digests (RFC 9530). A strong validator
    /// becomes a weak one, since it stood for those bytes (RFC 9110 §8.8.1); one that is neither goes.
    pub fn changes(&self, coding: Option<Coding>) -> impl Iterator<Item = Change> + use<> {
        let coded = coding.map(|coding| {
            let etag = match self.etag {
                None | Some([b'W', b'/', ..]) => None,
                Some(strong @ [b'"', ..]) => Some(weakened(strong)),
                Some(_) => Some(Change::Remove("etag")),
            };
            let gone = ["content-length", "accept-ranges", "content-md5", "digest", "content-digest", "repr-digest"];
            let set = Change::Set("content-encoding", Cow::Borrowed(coding.name().as_bytes()));
            gone.map(Change::Remove).into_iter().chain([set]).chain(etag)
        });
        self.vary().into_iter().chain(coded.into_iter().flatten())
    }
}

/// The weak validator that a strong one becomes.
fn weakened(strong: &[u8]) -> Change {
    Change::Set("etag", [b"W/", strong].concat().into())
}

/// A length that is none stands for an unknown one.
fn parse_length(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.trim_ascii().parse().ok()
}

/// Whether a body of this type becomes smaller.
fn is_compressible(content_type: &[u8]) -> bool {
    let media_type = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let begins =
        |start: &str| media_type.get(..start.len()).is_some_and(|own| own.eq_ignore_ascii_case(start.as_bytes()));
    let ends = |end: &str| {
        let start = media_type.len().checked_sub(end.len());
        start.and_then(|start| media_type.get(start..)).is_some_and(|own| own.eq_ignore_ascii_case(end.as_bytes()))
    };
    // gRPC-Web among them, and `application/grpc+json`.
    if begins("application/grpc") {
        return false;
    }
    begins("text/")
        || SUFFIXES.iter().any(|suffix| ends(suffix))
        || TYPES.iter().any(|own| media_type.eq_ignore_ascii_case(own.as_bytes()))
}

/// Formats that types are built on and that are text.
const SUFFIXES: [&str; 4] = ["+json", "+xml", "+yaml", "+json-seq"];

/// The types that become smaller beside `text/*` and those with one of [`SUFFIXES`], SVG and web manifests among these.
const TYPES: [&str; 25] = [
    "application/ecmascript",
    "application/graphql",
    "application/javascript",
    "application/json",
    "application/json-seq",
    "application/jsonl",
    "application/ndjson",
    "application/rtf",
    "application/sql",
    "application/toml",
    "application/vnd.ms-fontobject",
    "application/wasm",
    "application/x-javascript",
    "application/x-ndjson",
    "application/x-yaml",
    "application/xml",
    "application/yaml",
    "font/collection",
    "font/otf",
    "font/ttf",
    "image/bmp",
    "image/vnd.microsoft.icon",
    "image/x-icon",
    "message/rfc822",
    "model/obj",
];
