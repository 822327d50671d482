//! Calls of gRPC: their deadlines, and how they ended.

use std::time::Duration;

use tokio::time::Instant;

use crate::ending::Reason;
use crate::message::grpc::{Code, is_grpc, parse_timeout};
use crate::message::head::{Fields, Known};
use crate::message::request::Request;
use crate::message::response::Response;

/// A longer timeout is left to the server.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// Whether a request is a call.
pub(super) fn is_call(request: &Request) -> bool {
    request.fields.first(Known::ContentType).is_some_and(is_grpc)
}

/// When its caller will take it for failed, if it has said so.
pub(super) fn deadline(request: &Request, started: Instant) -> Option<Instant> {
    let timeout = parse_timeout(request.fields.first(Known::GrpcTimeout)?)?;
    (is_call(request) && timeout <= LONGEST).then(|| started + timeout)
}

/// What the server says of how it ended, with its trailers or, where there is no message, with its head.
pub(super) fn code(response: &Response, trailers: Option<&Fields>) -> Code {
    let said = trailers.into_iter().chain([&response.fields]).find_map(|fields| fields.first(Known::GrpcStatus));
    said.map_or(Code::of_http(response.status), Code::parse)
}

/// What one comes to that no server has ended.
pub(super) fn code_of(reason: Reason) -> Code {
    if reason == Reason::RequestTimeout {
        Code::DeadlineExceeded
    } else if matches!(reason, Reason::ClientClosed | Reason::ClientReset | Reason::ClientTruncated) {
        Code::Cancelled
    } else {
        Code::of_http(reason.status())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &[(&str, &str)]) -> Request {
        let mut request = Request::default();
        fields.iter().for_each(|(name, value)| request.fields.push(name.as_bytes(), value.as_bytes()));
        request
    }

    #[test]
    fn a_deadline_is_what_a_call_says_and_nobody_else() {
        let now = Instant::now();
        let of = |kind, timeout| deadline(&request(&[("content-type", kind), ("grpc-timeout", timeout)]), now);
        assert_eq!(of("application/grpc+proto", "250m"), Some(now + Duration::from_millis(250)));
        assert_eq!(of("application/json", "250m"), None);
        assert_eq!(of("application/grpc", "soon"), None);
        assert_eq!(of("application/grpc", "99999999H"), None);
        assert_eq!(deadline(&request(&[("content-type", "application/grpc")]), now), None);
    }

    #[test]
    fn the_trailers_say_how_a_call_ended_or_else_the_head_or_else_its_status() {
        let (mut response, mut trailers) = (Response::default(), Fields::default());
        response.status = 503;
        assert_eq!(code(&response, Some(&trailers)), Code::Unavailable);
        response.status = 200;
        assert_eq!(code(&response, None), Code::Unknown);
        response.fields.push(b"grpc-status", b"5");
        assert_eq!(code(&response, Some(&trailers)), Code::NotFound);
        trailers.push(b"Grpc-Status", b"0");
        assert_eq!(code(&response, Some(&trailers)), Code::Ok);
    }

    #[test]
    fn what_no_server_has_ended_has_the_code_that_callers_can_act_upon() {
        for (reason, code) in [
            (Reason::RequestTimeout, Code::DeadlineExceeded),
            (Reason::ClientReset, Code::Cancelled),
            (Reason::NoServer, Code::Unavailable),
            (Reason::ServerReset, Code::Unavailable),
            (Reason::Unauthorized, Code::Unauthenticated),
            (Reason::RefusedAcl, Code::PermissionDenied),
            (Reason::NoRoute, Code::Unimplemented),
        ] {
            assert_eq!(code_of(reason), code, "{reason}");
        }
    }
}
