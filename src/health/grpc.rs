//! The `grpc` check: the server is asked for its health by grpc.health.v1 (grpc/doc/health-checking.md).

use ::http::uri::Authority;
use tokio::time::Instant;

use super::http::{AGENT, host};
use super::http2::{Answer, Http2Line};
use super::line::{Ask, Fault, H2, Line, Question};
use super::probe::{Problem, Seen};
use super::reach::Reach;
use crate::http2::hpack::encoder::{Packer, Pseudo};
use crate::logging::told;
use crate::message::grpc::{Code, is_grpc};
use crate::message::head::{Fields, Known};
use crate::net::dial::First;

/// What is offered by ALPN where TLS is spoken.
pub(super) const OFFERS: &[&[u8]] = &[H2];
/// What is asked.
const METHOD: &str = "/grpc.health.v1.Health/Check";
/// The most bytes of an answer; it has seven.
const MOST_OF_ANSWER: usize = 64 * 1024;
/// Before each message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// What a server is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcProbe {
    /// The service whose health is asked for; empty is that of the server as a whole.
    pub service: Box<str>,
    /// The host that is asked for; without one, the name in `tls`, or the server's address.
    pub host: Option<Authority>,
    /// Whether the connection is kept for the next probe, as for HTTP.
    pub reuse: bool,
}

impl GrpcProbe {
    /// The most bytes of a service's name; the length of the message has to fit into a byte, that of the name too.
    pub const LONGEST_SERVICE: usize = 100;

    fn pack(&self, reach: &Reach, packer: &mut Packer<'_>) {
        let host = self.host.clone().or_else(|| host(reach)).unwrap_or_else(|| Authority::from_static("localhost"));
        packer.pseudo(Pseudo::Method, b"POST");
        packer.pseudo(Pseudo::Scheme, if reach.speaks_tls() { b"https" } else { b"http" });
        packer.pseudo(Pseudo::Authority, host.as_str().as_bytes());
        packer.pseudo(Pseudo::Path, METHOD.as_bytes());
        packer.field(b"content-type", b"application/grpc");
        packer.field(b"te", b"trailers");
        packer.field(b"user-agent", AGENT.as_bytes());
    }

    /// A `HealthCheckRequest`, which has the service as its field 1, a string, after the prefix of each message.
    fn message(&self) -> Vec<u8> {
        let name = self.service.as_bytes().get(..Self::LONGEST_SERVICE).unwrap_or(self.service.as_bytes());
        let field = if name.is_empty() { Vec::new() } else { [&[0x0a, name.len() as u8], name].concat() };
        [&[0, 0, 0, 0, field.len() as u8], field.as_slice()].concat()
    }
}

impl Question for GrpcProbe {
    async fn open(&self, reach: &Reach, until: Instant) -> Result<Line, Problem> {
        let opened = reach.open(First::Us, until).await?;
        if reach.speaks_tls() && opened.alpn.as_deref() != Some(H2) {
            opened.close(until).await;
            return Err("handshake: the server does not offer HTTP/2".into());
        }
        Ok(Line::h2(opened.io))
    }

    async fn ask(&self, ask: &mut Ask, reach: &Reach) -> Result<Seen, Fault> {
        let Ask::H2(line) = ask else { return Err(Fault::Line("no HTTP/2".to_owned())) };
        let message = self.message();
        let asked = line.ask(false, &message, |packer| self.pack(reach, packer));
        let answer = asked.await.map_err(Fault::Line)?;
        let judged = judge(line, &answer).await;
        line.leave(&answer);
        judged.map(|()| Seen::default())
    }

    fn is_kept(&self) -> bool {
        self.reuse
    }
}

/// Whether an answer says that the service is well.
async fn judge(line: &mut Http2Line, answer: &Answer) -> Result<(), Fault> {
    if answer.status != 200 {
        return Err(Fault::Answer(format!("status {}, expected 200", answer.status)));
    }
    if !answer.fields.first(Known::ContentType).is_some_and(is_grpc) {
        return Err(Fault::Answer("the answer is not gRPC".to_owned()));
    }
    // A call that fails at once has no body, and its status among the first fields.
    if let Some(failed) = failed(&answer.fields) {
        return Err(failed);
    }
    let mut seen = Vec::new();
    while let Some(bytes) = line.next(answer).await.map_err(Fault::Line)? {
        seen.extend_from_slice(&bytes);
        if seen.len() > MOST_OF_ANSWER {
            return Err(Fault::Answer("the answer is far too long".to_owned()));
        }
    }
    let trailers = line.trailers(answer);
    if let Some(failed) = failed(&trailers) {
        return Err(failed);
    }
    if !trailers.has(Known::GrpcStatus) {
        return Err(Fault::Answer("the call has no end".to_owned()));
    }
    match status_of(&seen) {
        Some(1) => Ok(()),
        Some(0) => Err(Fault::Answer("the service says UNKNOWN".to_owned())),
        Some(2) => Err(Fault::Answer("the service says NOT_SERVING".to_owned())),
        Some(3) => Err(Fault::Answer("the service says SERVICE_UNKNOWN".to_owned())),
        Some(other) => Err(Fault::Answer(format!("the service says {other}"))),
        None => Err(Fault::Answer("the answer is no message of health".to_owned())),
    }
}

/// How a call went wrong, if its status says that it did.
fn failed(fields: &Fields) -> Option<Fault> {
    let code = Code::parse(fields.first(Known::GrpcStatus)?);
    if code == Code::Ok {
        return None;
    }
    let message = fields.named(b"grpc-message").next().map(told);
    let message =
        message.filter(|message| !message.is_empty()).map_or_else(String::new, |message| format!(": {message}"));
    Some(Fault::Answer(format!("the call failed with {}{message}", code.label())))
}

/// The status in the one message of an answer: field 1 of a `HealthCheckResponse`, a number, which is 0 where it is absent.
/// Other fields are passed over.
fn status_of(answer: &[u8]) -> Option<u64> {
    let (&[compressed, a, b, c, d], message) = answer.split_first_chunk::<PREFIX>()?;
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
    if compressed != 0 || length != message.len() {
        return None;
    }
    let (mut rest, mut status) = (message, 0);
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        match key & 7 {
            0 => {
                let value = varint(&mut rest)?;
                if key >> 3 == 1 {
                    status = value;
                }
            }
            1 => rest = rest.get(8..)?,
            2 => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                rest = rest.get(length..)?;
            }
            5 => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

/// A number of variable length, which is taken off the beginning.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_asked_for_by_its_name_and_the_server_as_a_whole_by_none() {
        let asking = |service: &str| GrpcProbe { service: service.into(), host: None, reuse: false }.message();
        assert_eq!(asking(""), [0, 0, 0, 0, 0]);
        assert_eq!(asking("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
    }

    #[test]
    fn a_status_is_found_among_other_fields_and_nowhere_else() {
        let answer = |message: &[u8]| status_of(&[&[0, 0, 0, 0, message.len() as u8], message].concat());
        assert_eq!(answer(&[0x08, 1]), Some(1));
        assert_eq!(answer(&[]), Some(0), "what is absent is zero");
        assert_eq!(
            answer(&[0x12, 2, 8, 2, 0x1d, 1, 2, 3, 4, 0x21, 1, 2, 3, 4, 5, 6, 7, 8, 0x08, 0x81, 0x01]),
            Some(129)
        );
        for broken in [
            &[0x08][..],
            &[0x08, 0x80],
            &[0x12, 3, 1],
            &[0x0b, 1],
            &[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
        ] {
            assert_eq!(answer(broken), None, "{broken:?}");
        }
        for no_message in
            [&[][..], &[0, 0, 0, 0], &[1, 0, 0, 0, 2, 8, 1], &[0, 0, 0, 0, 3, 8, 1], &[0, 0, 0, 0, 1, 8, 1]]
        {
            assert_eq!(status_of(no_message), None, "{no_message:?}");
        }
    }
}
