//! Heads of HTTP/2 in the form that all heads have here.

use crate::ending::Reason;
use crate::http2::Head;
use crate::http2::head::{Pseudo, SHORTER};
use crate::message::framing::{self, Length};
use crate::message::head::{Fields, Known, Role};
use crate::message::line::{Fault, LONGEST_HEAD, Limits};
use crate::message::request::{Request, expects_continue};
use crate::message::response::Response;
use crate::message::target::Authority;
use crate::message::token;
use crate::proxy::http::{of_fault, words_of};

/// Why a request is not served.
pub(super) struct Unread {
    pub(super) reason: Reason,
    pub(super) why: &'static str,
    /// Whether it is none, by the rules of HTTP/2 (RFC 9113 §8.1.1), and not just one that is not served here.
    pub(super) is_malformed: bool,
}

impl From<Fault> for Unread {
    fn from(fault: Fault) -> Self {
        Self { reason: of_fault(fault), why: words_of(fault), is_malformed: false }
    }
}

fn malformed(fault: Fault) -> Unread {
    Unread { is_malformed: matches!(fault, Fault::Malformed(_)), ..fault.into() }
}

const fn bad<T>(why: &'static str) -> Result<T, Unread> {
    Err(Unread { reason: Reason::BadRequest, why, is_malformed: true })
}

/// Takes the head of a request in; `ended` says that it has no body. An extended CONNECT is a GET with an upgrade in HTTP/1
/// (RFC 8441 §5). What is known of one that is not served is in `request` all the same.
pub(super) fn read_request(head: &mut Head, ended: bool, limits: &Limits, request: &mut Request) -> Result<(), Unread> {
    let Pseudo { method, authority, path, protocol, .. } = head.pseudo;
    let sound = check_pseudo(head, limits);
    let fields = &mut head.fields;
    let authority = authority.or_else(|| fields.span_of(Known::Host)).unwrap_or_default();
    let asked = method.unwrap_or_default();
    let protocol = protocol.filter(|_| asked.of(fields.bytes()) == b"CONNECT");
    let method = match protocol {
        Some(_) => fields.append(b"GET"),
        None => asked,
    };
    let adopted = request.adopt(fields, method, authority, path.unwrap_or_default());
    request.upgrade = protocol;
    sound?;
    adopted?;
    take_fields(request, limits)?;
    let declared = framing::content_length(&request.fields).map_err(malformed)?;
    if protocol.is_some() && declared.is_some() {
        return bad("it asks for another protocol and has a body");
    }
    request.length = match declared {
        Some(bytes) => Length::Exactly(bytes),
        None if ended || protocol.is_some() => Length::None,
        None => Length::Unknown,
    };
    request.expects_continue = expects_continue(&request.fields)? && !ended;
    Ok(())
}

/// Looks at the pseudo-header fields (RFC 9113 §8.3.1), and at the host that is named beside them.
fn check_pseudo(head: &Head, limits: &Limits) -> Result<(), Unread> {
    if let Some(fault) = head.fault {
        return Err(malformed(fault));
    }
    let Pseudo { method: Some(method), scheme: Some(scheme), authority, path, protocol, status: None } = head.pseudo
    else {
        return bad("it has not the pseudo-header fields that a request has");
    };
    if !is_scheme(head.bytes_of(scheme)) {
        return bad("its scheme is none");
    }
    let is_connect = head.bytes_of(method) == b"CONNECT";
    match protocol {
        None if is_connect => return Err(Fault::Malformed("CONNECT is not served").into()),
        Some(_) if !is_connect => return bad("it asks for another protocol, and not by CONNECT"),
        Some(protocol) if !token::is_token(head.bytes_of(protocol)) => return bad("the protocol it asks for is none"),
        // Nobody changes to HTTP/2 any more (RFC 9113 §3.1): a server of HTTP/1 that did would be asked past the routes.
        Some(protocol) if head.bytes_of(protocol).eq_ignore_ascii_case(b"h2c") => {
            return bad("the protocol it asks for is one of HTTP itself");
        }
        None | Some(_) => {}
    }
    let Some(path) = path.filter(|path| !path.is_empty()) else { return bad("it has no path") };
    if head.bytes_of(path).len() > limits.target {
        return Err(Unread { why: "its path is longer than `max_uri`", ..Fault::FirstLineTooLong.into() });
    }
    let mut hosts = head.fields.values(Known::Host);
    match (authority.map(|authority| head.bytes_of(authority)), hosts.next(), hosts.next()) {
        (_, _, Some(_)) => bad("it names two hosts"),
        (None, None, None) => bad("it names no host"),
        (Some(authority), Some(host), None) if !same_authority(authority, host) => {
            bad("its host is another than its authority")
        }
        (Some(_), _, None) | (None, Some(_), None) => Ok(()),
    }
}

/// Looks at the fields, and takes out what has no place in a request as it goes on.
fn take_fields(request: &mut Request, limits: &Limits) -> Result<(), Unread> {
    let mut size = request.method().len() + request.authority().len() + request.path().len();
    let (mut cookies, mut is_clean) = (0, true);
    for (count, (known, name, value)) in request.fields.iter().enumerate() {
        size += name.len() + value.len() + 4;
        if size > limits.bytes.min(LONGEST_HEAD) {
            return Err(Fault::TooLarge.into());
        }
        if count >= limits.fields {
            return Err(Fault::TooMany.into());
        }
        let is_allowed = matches!(known, Known::ContentLength | Known::ProxyAuthorization)
            || known == Known::Te && value.eq_ignore_ascii_case(b"trailers");
        if known.role() == Role::Hop && !is_allowed {
            return bad("it has a field of HTTP/1 that concerns one connection");
        }
        cookies += usize::from(known == Known::Cookie);
        is_clean &= known != Known::Host && (limits.underscores || !name.contains(&b'_'));
    }
    if cookies > 1 {
        // One field in HTTP/1, however many here (RFC 9113 §8.2.3).
        let all = request.fields.values(Known::Cookie).collect::<Vec<_>>().join(&b"; "[..]);
        if request.fields.bytes().len() + all.len() + 8 > LONGEST_HEAD {
            return Err(Fault::TooLarge.into());
        }
        request.fields.retain(|known, _, _| known != Known::Cookie);
        request.fields.push(b"cookie", &all);
    }
    if !is_clean {
        request.fields.retain(|known, name, _| known != Known::Host && (limits.underscores || !name.contains(&b'_')));
    }
    Ok(())
}

/// Whether it is a scheme, whichever (RFC 3986 §3.1).
fn is_scheme(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte))
}

/// Looks at a trailer section, and takes out what has no place in one as it goes on.
pub(super) fn take_trailers(trailers: &mut Fields, limits: &Limits) -> Result<(), Fault> {
    if trailers.len() > limits.fields {
        return Err(Fault::TooMany);
    }
    if trailers.iter().map(|(_, name, value)| name.len() + value.len() + 4).sum::<usize>() > limits.bytes {
        return Err(Fault::TooLarge);
    }
    if !limits.underscores {
        trailers.retain(|_, name, _| !name.contains(&b'_'));
    }
    Ok(())
}

fn same_authority(one: &[u8], other: &[u8]) -> bool {
    let (Ok(one), Ok(other)) = (Authority::parse(one), Authority::parse(other)) else { return false };
    one.host.eq_ignore_ascii_case(other.host) && one.port == other.port
}

/// Whether a message of HTTP/2 that has such a field is malformed (RFC 9113 §8.2.2).
const fn is_of_one_connection(known: Known) -> bool {
    matches!(
        known,
        Known::Connection | Known::TransferEncoding | Known::KeepAlive | Known::ProxyConnection | Known::Upgrade
    )
}

/// Takes the head of a response in; `ended` says that nothing follows it.
pub(super) fn read_response(
    head: &mut Head,
    ended: bool,
    to_head: bool,
    limits: &Limits,
    response: &mut Response,
) -> Result<(), Fault> {
    if let Some(fault) = head.fault {
        return Err(fault);
    }
    let Some(status) = head.status() else { return Err(Fault::Malformed("it has no status")) };
    if head.fields.len() > limits.fields {
        return Err(Fault::TooMany);
    }
    response.adopt(&mut head.fields, status);
    if response.fields.iter().any(|(known, _, _)| is_of_one_connection(known)) {
        return Err(Fault::Malformed("it has a field of HTTP/1 that concerns one connection"));
    }
    let declared = framing::content_length(&response.fields)?;
    response.length = match declared {
        _ if to_head || matches!(status, 100..=199 | 204 | 304) => Length::None,
        Some(1..) if ended => return Err(Fault::Malformed(SHORTER)),
        Some(bytes) => Length::Exactly(bytes),
        None if ended => Length::Exactly(0),
        None => Length::Unknown,
    };
    Ok(())
}
