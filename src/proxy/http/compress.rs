//! Responses that are compressed on their way: which, and what becomes of their heads and bodies.
//!
//! Everything that one read brought goes out before the next, so that a client sees the beginning of a stream no later for its
//! being compressed.

use super::body::Outgoing;
use super::places::{Place, Places};
use crate::config::model::http::{HeaderRules, Route};
use crate::message::chunked::{HEADROOM, TAILROOM};
use crate::message::compress::{Change, Encoder, Failed, Verdict, forbids_transform, may_compress, negotiate};
use crate::message::framing::Length;
use crate::message::head::Known;
use crate::message::request::Request;
use crate::message::response::Response;

/// How many responses a worker compresses at once: each may take 3 MiB for that. Further ones go out as they are.
const MOST: usize = 64;

/// What becomes of a response.
#[derive(Debug, Default)]
pub(super) struct Compression {
    /// What changes in its head.
    pub(super) changes: Vec<Change>,
    /// What compresses its body, if anything does.
    pub(super) encoding: Option<Encoding>,
}

/// Compresses the body of one response.
#[derive(Debug)]
pub(super) struct Encoding {
    /// Taken by the end.
    encoder: Option<Encoder>,
    /// What came of a piece, with room around it.
    out: Vec<u8>,
    _place: Place,
}

impl Compression {
    /// What becomes of a server's response to a request that this route took.
    pub(super) fn of(route: &Route, request: &Request, response: &Response, places: &Places) -> Self {
        if !route.compress || says(&route.response_headers, "content-encoding") {
            return Self::default();
        }
        let fields = response.fields.iter().map(|(_, name, value)| (name, value));
        let compressible = match may_compress(response.status, fields) {
            Verdict::Leave => return Self::default(),
            Verdict::Compress(compressible) => compressible,
            Verdict::Confirm(original) => {
                let changes = original.confirmed(request.fields.named(b"if-none-match"));
                return Self { changes, encoding: None };
            }
        };
        let accepted = negotiate(request.fields.values(Known::AcceptEncoding));
        let coding = accepted.filter(|_| !forbids_transform(request.fields.named(b"cache-control")));
        let (coding, encoding) = match coding {
            // Its head is that of the response to a GET, and there is no body.
            Some(coding) if response.length == Length::None => (Some(coding), None),
            Some(coding) => {
                let place = places.take(MOST);
                let encoding = place.and_then(|place| Encoding::new(Encoder::new(coding).ok()?, place));
                (encoding.is_some().then_some(coding), encoding)
            }
            None => (None, None),
        };
        Self { changes: compressible.changes(coding).collect(), encoding }
    }

    /// How long the body is that goes out.
    pub(super) fn length(&self, response: &Response) -> Length {
        if self.encoding.is_some() { Length::Unknown } else { response.length }
    }
}

/// Whether rules are about a field.
fn says(rules: &HeaderRules, name: &str) -> bool {
    let HeaderRules { remove, set, add } = rules;
    remove.iter().chain(set.iter().chain(add).map(|(own, _)| own)).any(|own| &**own == name)
}

impl Encoding {
    fn new(encoder: Encoder, place: Place) -> Option<Self> {
        Some(Self { encoder: Some(encoder), out: Vec::new(), _place: place })
    }

    /// Encodes a piece, to what can be decoded now.
    pub(super) fn encode<'p>(&'p mut self, piece: Outgoing<'p>) -> Result<Outgoing<'p>, Failed> {
        self.out.clear();
        self.out.resize(HEADROOM, 0);
        let encoder = self.encoder.as_mut().ok_or(Failed)?;
        encoder.push(piece.bytes(), &mut self.out)?;
        if piece.last {
            self.encoder.take().ok_or(Failed)?.finish(&mut self.out)?;
        } else {
            encoder.flush(&mut self.out)?;
        }
        let place = HEADROOM..self.out.len();
        self.out.resize(self.out.len() + TAILROOM, 0);
        Ok(Outgoing { buffer: &mut self.out, place, ..piece })
    }
}
