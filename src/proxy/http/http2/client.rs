//! One stream of a client's connection: a request comes in, a response goes out.

use std::task::{Context, Poll};

use super::stream::{Http2Stream, Tunnelled};
use crate::config::model::http::HeaderRules;
use crate::ending::Reason;
use crate::http2::Code;
use crate::message::framing::Length;
use crate::message::grpc;
use crate::message::response::Response;
use crate::proxy::http::answer::Own;
use crate::proxy::http::client::Gone;
use crate::proxy::http::forward::{self, Pen};
use crate::proxy::http::sides::ResponseHead;

/// A stream of a client's connection.
#[derive(Debug)]
pub(in crate::proxy::http) struct Http2Client {
    pub(in crate::proxy::http) stream: Http2Stream,
    /// Whether a response was begun that has a body of no known length.
    is_open: bool,
}

impl Http2Client {
    pub(super) fn new(stream: Http2Stream) -> Self {
        Self { stream, is_open: false }
    }

    /// Passes an informational response on.
    pub(in crate::proxy::http) fn inform(&mut self, response: &Response) {
        // That the client is gone is met again by who sends the final one.
        let _gone = self.stream.head(false, |packer| {
            packer.status(response.status);
            forward::response_fields(response, &HeaderRules::default(), packer);
        });
    }

    /// Begins a response: its body follows.
    pub(in crate::proxy::http) fn respond(&mut self, of: &ResponseHead<'_>) {
        self.is_open = matches!(of.length, Length::Unknown | Length::UntilClose);
        // A client that is gone is met when something more is sent to it, or by who waits for that.
        let _gone = self.stream.head(of.length.is_empty(), |packer| {
            packer.status(of.response.status);
            forward::response_head(of, packer);
            match of.length_without_body().map_or(of.length, Length::Exactly) {
                length @ Length::Exactly(_) => forward::framing(length, packer),
                Length::None | Length::Unknown | Length::UntilClose => {}
            }
        });
    }

    /// Answers in place of a server.
    pub(in crate::proxy::http) fn answer(&mut self, own: &Own<'_>, to_head: bool) {
        self.say(own, to_head, true);
    }

    /// Answers what is no request: its stream is not to end but to be given up behind that (RFC 9113 §8.1.1).
    pub(super) fn answer_malformed(&mut self, own: &Own<'_>, to_head: bool) {
        self.say(own, to_head, false);
    }

    /// Ends the response to a call of gRPC, of which no more comes, with trailers that tell its caller why. Whether it could be
    /// ended so: not one whose body would be shorter than it says, or has bytes that there is no room for.
    pub(super) fn end_call(&mut self, code: grpc::Code, reason: Reason) -> bool {
        if !self.is_open || !self.stream.is_empty() {
            return false;
        }
        let ended = self.stream.head(true, |packer| {
            Pen::field(packer, b"grpc-status", code.number().as_bytes());
            Pen::field(packer, b"grpc-message", reason.label().as_bytes());
        });
        ended.is_ok()
    }

    fn say(&mut self, own: &Own<'_>, to_head: bool, ends: bool) {
        let is_all = to_head || own.body.is_empty();
        let begun = self.stream.head(is_all && ends, |packer| {
            packer.status(own.status);
            own.write_fields(packer);
        });
        if begun.is_ok() && !is_all {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            // What has no room waits for `poll_ready`.
            let _gone = self.stream.send(&mut cx, own.body, ends, None);
        }
    }

    /// Says yes to an extended CONNECT.
    pub(in crate::proxy::http) fn open_tunnel(&mut self, response: &Response, set_cookie: Option<&str>) {
        self.stream.hold(false);
        let rules = HeaderRules { remove: vec!["sec-websocket-accept".into()], ..HeaderRules::default() };
        let _gone = self.stream.head(false, |packer| {
            packer.status(200);
            forward::response_fields(response, &rules, packer);
            if let Some(cookie) = set_cookie {
                Pen::field(packer, b"Set-Cookie", cookie.as_bytes());
            }
        });
    }

    /// Notices that the client has given the stream up.
    pub(in crate::proxy::http) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        self.stream.poll_reset(cx).map(|()| Gone::Reset)
    }

    /// Gives the stream up.
    pub(in crate::proxy::http) fn reset(&mut self, code: Code) {
        self.stream.reset(code);
    }
}

impl Tunnelled for Http2Client {
    fn stream(&mut self) -> &mut Http2Stream {
        &mut self.stream
    }
}
