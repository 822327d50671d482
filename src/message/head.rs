//! The head of a message: its fields in the order they came in, as spans over the bytes that came.
//!
//! Nothing is copied or looked up to take one in but what its fields are called, and the two buffers a head has are used
//! again for the next one, so that a request costs no allocation here. Heads of HTTP/2 are laid out in the same form.

use super::name::{Words, words};
use super::token;

/// A part of a head's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    start: u16,
    end: u16,
}

impl Span {
    /// The bytes from `start` to `end`. Heads are bounded so that both fit; beyond that it is empty.
    #[must_use]
    pub fn new(start: usize, end: usize) -> Self {
        match (u16::try_from(start), u16::try_from(end)) {
            (Ok(start), Ok(end)) => Self { start, end },
            _ => Self::default(),
        }
    }

    /// The bytes it stands for.
    #[must_use]
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(usize::from(self.start)..usize::from(self.end)).unwrap_or_default()
    }

    /// Where it begins.
    #[must_use]
    pub fn start(self) -> usize {
        usize::from(self.start)
    }

    /// Where it ends.
    #[must_use]
    pub fn end(self) -> usize {
        usize::from(self.end)
    }

    /// Whether it stands for none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// What a proxy does with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It concerns this connection, or how a body is framed on it: never passed on as it is.
    Hop,
    /// Of a request, the proxy writes it itself; of a response, it is passed on.
    Ours,
    /// It is passed on.
    End,
}

macro_rules! known {
    ($($(#[$doc:meta])* $variant:ident = $name:literal $role:ident,)*) => {
        /// A field that means something to a proxy.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Known {
            $($(#[$doc])* $variant,)*
            /// Any other.
            Other,
        }

        impl Known {
            /// Which one has this name, in any case.
            #[must_use]
            pub fn of(name: &[u8]) -> Self {
                // The compiler makes this a jump by length; names of other lengths are never compared.
                let words = words(name);
                $(if name.len() == $name.len() && const { Words::of($name) }.are(words) {
                    return Self::$variant;
                })*
                Self::Other
            }

            /// A bit of its own.
            const fn bit(self) -> u32 {
                1 << self as u32
            }

            /// What a proxy does with it.
            #[must_use]
            pub const fn role(self) -> Role {
                match self {
                    $(Self::$variant => Role::$role,)*
                    Self::Other => Role::End,
                }
            }
        }
    };
}

known! {
    /// Host (RFC 9110 §7.2)
    Host = "host" Ours,
    /// Content-Length (RFC 9110 §8.6)
    ContentLength = "content-length" Hop,
    /// Transfer-Encoding (RFC 9112 §6.1)
    TransferEncoding = "transfer-encoding" Hop,
    /// Connection (RFC 9110 §7.6.1)
    Connection = "connection" Hop,
    /// Keep-Alive, of HTTP/1.0
    KeepAlive = "keep-alive" Hop,
    /// Proxy-Connection, of nobody any more
    ProxyConnection = "proxy-connection" Hop,
    /// Proxy-Authorization: for this hop
    ProxyAuthorization = "proxy-authorization" Hop,
    /// Proxy-Authenticate: for this hop
    ProxyAuthenticate = "proxy-authenticate" Hop,
    /// HTTP2-Settings, of an upgrade to HTTP/2 that is not offered (RFC 9113 §3.1)
    Http2Settings = "http2-settings" Hop,
    /// TE (RFC 9110 §10.1.4)
    Te = "te" Hop,
    /// Trailer (RFC 9110 §6.6.2)
    Trailer = "trailer" End,
    /// Upgrade (RFC 9110 §7.8)
    Upgrade = "upgrade" Hop,
    /// Expect (RFC 9110 §10.1.1)
    Expect = "expect" Ours,
    /// Via (RFC 9110 §7.6.3)
    Via = "via" Ours,
    /// Forwarded (RFC 7239)
    Forwarded = "forwarded" Ours,
    /// X-Forwarded-For
    XForwardedFor = "x-forwarded-for" Ours,
    /// X-Forwarded-Proto
    XForwardedProto = "x-forwarded-proto" Ours,
    /// X-Forwarded-Host
    XForwardedHost = "x-forwarded-host" Ours,
    /// X-Forwarded-Port
    XForwardedPort = "x-forwarded-port" Ours,
    /// X-Request-Id
    XRequestId = "x-request-id" Ours,
    /// Traceparent (W3C Trace Context)
    Traceparent = "traceparent" Ours,
    /// Tracestate
    Tracestate = "tracestate" Ours,
    /// Cookie
    Cookie = "cookie" End,
    /// Authorization
    Authorization = "authorization" End,
    /// Accept
    Accept = "accept" End,
    /// Accept-Encoding
    AcceptEncoding = "accept-encoding" End,
    /// Content-Type
    ContentType = "content-type" End,
    /// grpc-timeout
    GrpcTimeout = "grpc-timeout" End,
    /// grpc-status
    GrpcStatus = "grpc-status" End,
    /// Sec-WebSocket-Key, of HTTP/1 alone (RFC 8441 §5)
    SecWebSocketKey = "sec-websocket-key" End,
    /// Sec-WebSocket-Accept, of HTTP/1 alone
    SecWebSocketAccept = "sec-websocket-accept" End,
}

const _: () = assert!((Known::Other as u32) < u32::BITS, "each has a bit of its own");

/// A field: a name and a value, without the spaces around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    name: Span,
    value: Span,
    /// Which one it is.
    pub known: Known,
}

/// A field among others.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    bytes: &'a [u8],
    field: &'a Field,
}

impl<'a> Entry<'a> {
    /// Which one it is.
    #[must_use]
    pub fn known(self) -> Known {
        self.field.known
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'a [u8] {
        self.field.name.of(self.bytes)
    }

    /// Its value.
    #[must_use]
    pub fn value(self) -> &'a [u8] {
        self.field.value.of(self.bytes)
    }

    /// The whole line of it, if it came as it would be written in HTTP/1: with one space, and none behind it.
    #[must_use]
    pub fn line(self) -> Option<&'a [u8]> {
        let Field { name, value, .. } = *self.field;
        let line = self.bytes.get(name.start()..value.end() + 2)?;
        let between = self.bytes.get(name.end()..value.start())?;
        (between == b": " && line.ends_with(b"\r\n")).then_some(line)
    }
}

/// The fields of a head, and all its bytes.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    pub(super) bytes: Vec<u8>,
    fields: Vec<Field>,
    /// Which of the known ones are there, a bit for each: most are not, and need not be looked for.
    present: u32,
}

impl Fields {
    /// Forgets everything and keeps the buffers.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.fields.clear();
        self.present = 0;
    }

    /// Keeps no larger buffer than this, unless there is more in it.
    pub fn shrink_to(&mut self, bytes: usize) {
        self.bytes.shrink_to(bytes);
    }

    /// Keeps those fields alone for which `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(Known, &[u8], &[u8]) -> bool) {
        let Self { bytes, fields, present } = self;
        fields.retain(|field| keep(field.known, field.name.of(bytes), field.value.of(bytes)));
        *present = fields.iter().fold(0, |present, field| present | field.known.bit());
    }

    /// All its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many fields there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The fields in their order.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.fields.iter().map(|field| Entry { bytes: &self.bytes, field })
    }

    /// The fields in their order: which each is, its name and its value.
    pub fn iter(&self) -> impl Iterator<Item = (Known, &[u8], &[u8])> {
        self.fields.iter().map(|field| (field.known, field.name.of(&self.bytes), field.value.of(&self.bytes)))
    }

    /// The values of one that is known.
    pub fn values(&self, known: Known) -> impl Iterator<Item = &[u8]> + Clone {
        let fields = if self.has(known) { &*self.fields } else { &[] };
        fields.iter().filter(move |field| field.known == known).map(|field| field.value.of(&self.bytes))
    }

    /// The first value of one that is known.
    #[must_use]
    pub fn first(&self, known: Known) -> Option<&[u8]> {
        self.values(known).next()
    }

    /// Where the first value of one that is known stands.
    #[must_use]
    pub fn span_of(&self, known: Known) -> Option<Span> {
        self.fields.iter().find(|field| field.known == known).map(|field| field.value)
    }

    /// Whether there is such a field.
    #[must_use]
    pub fn has(&self, known: Known) -> bool {
        self.present & known.bit() != 0
    }

    /// The values of the fields of a name, in any case.
    pub fn named<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |(_, own, _)| own.eq_ignore_ascii_case(name)).map(|(_, _, value)| value)
    }

    /// Whether one of the values, each of which is a list, has this part, in any case.
    #[must_use]
    pub fn lists(&self, known: Known, part: &[u8]) -> bool {
        self.values(known).flat_map(token::list).any(|own| own.eq_ignore_ascii_case(part))
    }

    /// Adds a field whose bytes are there already.
    pub(super) fn note(&mut self, name: Span, value: Span) {
        let known = Known::of(name.of(&self.bytes));
        self.present |= known.bit();
        self.fields.push(Field { name, value, known });
    }

    /// Adds bytes, and says where they are.
    pub fn append(&mut self, bytes: &[u8]) -> Span {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        Span::new(start, self.bytes.len())
    }

    /// Adds a field.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        let name = self.append(name);
        let value = self.append(value);
        self.note(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_known_in_any_case_and_no_other_is() {
        let names = ["te", "via", "host", "cookie", "upgrade", "forwarded", "content-length", "sec-websocket-accept"];
        let known = [
            Known::Te,
            Known::Via,
            Known::Host,
            Known::Cookie,
            Known::Upgrade,
            Known::Forwarded,
            Known::ContentLength,
            Known::SecWebSocketAccept,
        ];
        for (name, known) in names.into_iter().zip(known) {
            for at in 0..name.len() {
                let mut bytes = name.as_bytes().to_vec();
                bytes[..at].make_ascii_uppercase();
                assert_eq!(Known::of(&bytes), known, "{name}");
                for byte in 0..=u8::MAX {
                    bytes[at] = byte;
                    let expected = if bytes.eq_ignore_ascii_case(name.as_bytes()) { known } else { Known::Other };
                    assert_eq!(Known::of(&bytes), expected, "{bytes:?}");
                }
            }
            assert_eq!(Known::of(&[name.as_bytes(), b"x"].concat()), Known::Other);
        }
        for name in ["", "x", "xy", "xyz", "x-forwarded-", "sec-websocket-accept-or-something-longer"] {
            assert_eq!(Known::of(name.as_bytes()), Known::Other, "{name}");
        }
    }
}
