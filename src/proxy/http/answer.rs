//! Our own answers: to what is not sent to a server, and in place of what a server did not answer.

use std::cell::RefCell;
use std::time::{Duration, SystemTime};

use super::forward::{Pen, is_left_alone};
use super::grpc;
use super::sides::status_line;
use crate::config::model::http::HeaderRules;
use crate::ending::Reason;
use crate::message::answer::answer;
use crate::message::decimal::Decimal;
use crate::message::grpc::trailers_only;
use crate::message::head::Known;
use crate::message::request::Request;
use crate::snapshot::HttpInEffect;

/// An answer of ours.
#[derive(Debug)]
pub(super) struct Own<'a> {
    pub(super) status: u16,
    /// Why, where that is an ending: it goes into `X-Portreeve-Reason`.
    pub(super) reason: Option<Reason>,
    /// Fields it has beside those that every answer has.
    pub(super) fields: &'a [(&'static str, &'a [u8])],
    /// What the body is, and the body.
    pub(super) content_type: &'a [u8],
    pub(super) body: &'a [u8],
    /// What the route changes of it; not of an ending, which is no answer of the route's.
    pub(super) rules: Option<&'a HeaderRules>,
}

impl Own<'_> {
    /// Writes the fields.
    pub(super) fn write_fields(&self, pen: &mut impl Pen) {
        let mut write = |name: &[u8], value: &[u8]| {
            if self.rules.is_none_or(|rules| is_left_alone(rules, name)) {
                pen.field(name, value);
            }
        };
        write(b"Date", &date());
        if let Some(reason) = self.reason {
            write(b"X-Portreeve-Reason", reason.label().as_bytes());
            write(b"Cache-Control", b"no-store");
        }
        for (name, value) in self.fields {
            write(name.as_bytes(), value);
        }
        if !self.body.is_empty() {
            write(b"Content-Type", self.content_type);
        }
        for (name, value) in self.rules.iter().flat_map(|rules| rules.set.iter().chain(&rules.add)) {
            pen.field(name.as_bytes(), value.as_bytes());
        }
        if !matches!(self.status, 204 | 304) {
            pen.field(b"Content-Length", Decimal::new(self.body.len() as u64).as_bytes());
        }
    }

    /// Writes the whole of it in the form of HTTP/1.
    pub(super) fn write(&self, to_head: bool, connection: Option<&[u8]>, out: &mut Vec<u8>) {
        status_line(self.status, b"", out);
        self.write_fields(out);
        if let Some(connection) = connection {
            out.field(b"Connection", connection);
        }
        out.extend_from_slice(b"\r\n");
        if !to_head && !matches!(self.status, 204 | 304) {
            out.extend_from_slice(self.body);
        }
    }
}

/// Puts an answer for an ending together and hands it to `send`. Calls of gRPC are answered so that their callers know why.
pub(super) fn with_ending<T>(
    request: &Request,
    http: &HttpInEffect,
    reason: Reason,
    fields: &[(&'static str, &[u8])],
    send: impl FnOnce(&Own<'_>) -> T,
) -> T {
    if grpc::is_call(request) {
        let own = trailers_only(grpc::code_of(reason), reason.label());
        let fields: Vec<_> = fields.iter().copied().chain(own.iter().map(|(name, value)| (*name, &**value))).collect();
        let (content_type, body): (&[u8], &[u8]) = (b"", b"");
        return send(&Own { status: 200, reason: Some(reason), fields: &fields, content_type, body, rules: None });
    }
    let status = reason.status();
    let page = http.settings.error_pages.get(&status).map(AsRef::as_ref);
    let form = answer(status, reason.label(), request.fields.values(Known::Accept), page);
    let content_type = form.content_type.as_bytes();
    send(&Own { status, reason: Some(reason), fields, content_type, body: &form.body, rules: None })
}

thread_local! {
    /// The date, and until when it is right.
    static DATE: RefCell<(SystemTime, [u8; 29])> = const { RefCell::new((SystemTime::UNIX_EPOCH, [0; 29])) };
}

/// The present as HTTP writes it (RFC 9110 §5.6.7), put together once a second.
fn date() -> [u8; 29] {
    let now = SystemTime::now();
    DATE.with_borrow_mut(|(until, date)| {
        if now >= *until || *until > now + Duration::from_secs(1) {
            let text = httpdate::fmt_http_date(now);
            date.iter_mut().zip(text.as_bytes()).for_each(|(place, byte)| *place = *byte);
            let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            *until = now + (Duration::from_secs(1) - Duration::from_nanos(since.subsec_nanos().into()));
        }
        *date
    })
}
