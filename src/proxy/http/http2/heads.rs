//! Heads of HTTP/2 in the form that all heads have here, and back.

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::ending::Reason;
use crate::message::framing::{self, Length};
use crate::message::head::{Fields, Known, Role};
use crate::message::line::{Fault, LONGEST_HEAD, Limits};
use crate::message::request::{Request, expects_continue};
use crate::message::response::Response;
use crate::message::target::Authority;
use crate::message::token;
use crate::message::version::Version;
use crate::proxy::http::forward::{self, Pen};
use crate::proxy::http::of_fault;

/// In the form of HTTP/2: names are in lower case.
impl Pen for HeaderMap {
    fn field(&mut self, name: &[u8], value: &[u8]) {
        // What was read by one of our parsers is good for this as well.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            self.append(name, value);
        }
    }
}

/// The fields of a trailer section.
pub(super) fn fields_of(map: &HeaderMap) -> Fields {
    let mut fields = Fields::default();
    for (name, value) in map {
        if fields.bytes().len() + name.as_str().len() + value.len() < LONGEST_HEAD {
            fields.push(name.as_str().as_bytes(), value.as_bytes());
        }
    }
    fields
}

/// A trailer section to be sent.
pub(super) fn trailers(fields: &Fields) -> HeaderMap {
    let mut map = HeaderMap::new();
    forward::trailer_fields(fields, &mut map);
    map
}

/// Takes the head of a request in; `ended` says that it has no body. `protocol` is what an extended CONNECT asks for, which
/// is a GET with an upgrade in HTTP/1 (RFC 8441 §5).
pub(super) fn read_request(
    parts: &Parts,
    protocol: Option<&str>,
    ended: bool,
    limits: &Limits,
    request: &mut Request,
) -> Result<(), (Reason, &'static str)> {
    let bad = |fault: Fault| (of_fault(fault), fault.words());
    let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
    if path.len() > limits.target {
        return Err(bad(Fault::FirstLineTooLong));
    }
    if parts.method == Method::CONNECT && protocol.is_none() {
        return Err((Reason::BadRequest, "CONNECT is not served"));
    }
    if let Some(protocol) = protocol
        && !token::is_token(protocol.as_bytes())
    {
        return Err((Reason::BadRequest, "the protocol it asks for is none"));
    }
    let method = if protocol.is_some() { "GET" } else { parts.method.as_str() };
    let host = single_host(&parts.headers).map_err(bad)?;
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    if let (Some(authority), Some(host)) = (authority, host)
        && !same_authority(authority, host)
    {
        return Err((Reason::BadRequest, "its host is another than its authority"));
    }
    let Some(authority) = authority.or(host) else { return Err((Reason::BadRequest, "it names no host")) };
    request.begin(Version::Http2, method.as_bytes(), Some(authority), path.as_bytes()).map_err(bad)?;
    let mut size = request.fields.bytes().len();
    let mut cookies: Vec<&[u8]> = Vec::new();
    for (count, (name, value)) in parts.headers.iter().enumerate() {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        size += name.len() + value.len() + 4;
        if count >= limits.fields || size > limits.bytes.min(LONGEST_HEAD) {
            return Err(bad(Fault::TooLarge));
        }
        let known = Known::of(name);
        let is_allowed = matches!(known, Known::ContentLength | Known::ProxyAuthorization)
            || known == Known::Te && value.eq_ignore_ascii_case(b"trailers");
        if known.role() == Role::Hop && !is_allowed {
            return Err((Reason::BadRequest, "it has a field of HTTP/1 that concerns one connection"));
        }
        if known == Known::Cookie {
            // One field in HTTP/1, however many here (RFC 9113 §8.2.3).
            cookies.push(value);
        } else if known != Known::Host && (limits.underscores || !name.contains(&b'_')) {
            request.fields.push(name, value.trim_ascii());
        }
    }
    if !cookies.is_empty() {
        request.fields.push(b"cookie", &cookies.join(&b"; "[..]));
    }
    request.keeps_alive = true;
    let declared = framing::content_length(&request.fields).map_err(bad)?;
    if protocol.is_some() && declared.is_some() {
        return Err((Reason::BadRequest, "it asks for another protocol and has a body"));
    }
    request.length = match declared {
        Some(bytes) => Length::Exactly(bytes),
        None if ended || protocol.is_some() => Length::None,
        None => Length::Unknown,
    };
    request.expects_continue = expects_continue(&request.fields).map_err(bad)? && !ended;
    if let Some(protocol) = protocol {
        request.set_upgrade(protocol.as_bytes());
    }
    Ok(())
}

fn single_host(headers: &HeaderMap) -> Result<Option<&[u8]>, Fault> {
    let mut hosts = headers.get_all(http::header::HOST).iter();
    let host = hosts.next().map(HeaderValue::as_bytes);
    if hosts.next().is_some() {
        return Err(Fault::Malformed("it names two hosts"));
    }
    Ok(host)
}

fn same_authority(one: &[u8], other: &[u8]) -> bool {
    let (Ok(one), Ok(other)) = (Authority::parse(one), Authority::parse(other)) else { return false };
    one.host.eq_ignore_ascii_case(other.host) && one.port == other.port
}

/// Takes the head of a response in.
pub(super) fn read_response(
    status: u16,
    headers: &HeaderMap,
    ended: bool,
    to_head: bool,
    response: &mut Response,
) -> Result<(), Fault> {
    response.begin(Version::Http2, status);
    for (name, value) in headers {
        let name = name.as_str().as_bytes();
        if response.fields.bytes().len() + name.len() + value.len() > LONGEST_HEAD {
            return Err(Fault::TooLarge);
        }
        response.fields.push(name, value.as_bytes());
    }
    let declared = framing::content_length(&response.fields)?;
    response.length = match declared {
        _ if to_head || matches!(status, 100..=199 | 204 | 304) => Length::None,
        Some(bytes) => Length::Exactly(bytes),
        None if ended => Length::Exactly(0),
        None => Length::Unknown,
    };
    Ok(())
}
