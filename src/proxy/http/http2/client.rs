//! One stream of a client's connection: a request comes in, a response goes out.

use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, StatusCode};

use super::stream::{RESET, Receiver, Sender, Tunnelled};
use crate::config::model::http::HeaderRules;
use crate::message::framing::Length;
use crate::message::head::Fields;
use crate::message::response::Response;
use crate::proxy::http::answer::Own;
use crate::proxy::http::body::{BodyFault, Piece};
use crate::proxy::http::client::Gone;
use crate::proxy::http::forward::{self, Pen};
use crate::proxy::http::sides::ResponseHead;
use crate::relay::Broken;

/// A stream of a client's connection.
#[derive(Debug)]
pub(in crate::proxy::http) struct Http2Client {
    pub(super) receiver: Receiver,
    respond: SendResponse<Bytes>,
    pub(super) sender: Option<Sender>,
}

impl Http2Client {
    pub(super) fn new(receiver: Receiver, respond: SendResponse<Bytes>) -> Self {
        Self { receiver, respond, sender: None }
    }

    pub(in crate::proxy::http) fn receiver(&mut self) -> &mut Receiver {
        &mut self.receiver
    }

    pub(in crate::proxy::http) fn trailers(&self) -> Option<&Fields> {
        self.receiver.trailers()
    }

    /// Sends a piece of the response's body.
    pub(in crate::proxy::http) fn send(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        last: bool,
        trailers: Option<&Fields>,
    ) -> Result<(), Broken> {
        match &mut self.sender {
            Some(sender) => sender.send(cx, bytes, last, trailers),
            None => Err(RESET),
        }
    }

    /// Passes an informational response on.
    pub(in crate::proxy::http) fn inform(&mut self, response: &Response) {
        let mut headers = HeaderMap::new();
        forward::response_fields(response, &HeaderRules::default(), &mut headers);
        let mut informational = http::Response::new(());
        *informational.status_mut() = status(response.status);
        *informational.headers_mut() = headers;
        // That the client is gone is met again by who sends the final one.
        let _gone = self.respond.send_informational(informational);
    }

    /// Begins a response: its body follows.
    pub(in crate::proxy::http) fn respond(&mut self, of: &ResponseHead<'_>) {
        let mut headers = HeaderMap::with_capacity(of.response.fields.len() + 4);
        forward::response_head(of, &mut headers);
        match of.length_without_body().map_or(of.length, Length::Exactly) {
            length @ Length::Exactly(_) => forward::framing(length, &mut headers),
            Length::None | Length::Unknown | Length::UntilClose => {}
        }
        self.begin(of.response.status, headers, of.length.is_empty());
    }

    fn begin(&mut self, code: u16, headers: HeaderMap, ended: bool) {
        let mut head = http::Response::new(());
        *head.status_mut() = status(code);
        *head.headers_mut() = headers;
        // A client that is gone is met when something is sent to it.
        self.sender = self.respond.send_response(head, ended).ok().map(|stream| Sender::new(stream, ended));
    }

    /// Answers in place of a server.
    pub(in crate::proxy::http) fn answer(&mut self, own: &Own<'_>, to_head: bool) {
        let mut headers = HeaderMap::with_capacity(8);
        own.write_fields(&mut headers);
        let ended = to_head || own.body.is_empty();
        self.begin(own.status, headers, ended);
        if let Some(sender) = self.sender.as_mut().filter(|_| !ended) {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            // What has no room waits for `poll_ready`.
            let _gone = sender.send(&mut cx, own.body, true, None);
        }
    }

    /// Says yes to an extended CONNECT.
    pub(in crate::proxy::http) fn open_tunnel(&mut self, response: &Response, set_cookie: Option<&str>) {
        self.receiver.hold(false);
        let mut headers = HeaderMap::new();
        forward::response_fields(
            response,
            &HeaderRules { remove: vec!["sec-websocket-accept".into()], ..HeaderRules::default() },
            &mut headers,
        );
        if let Some(cookie) = set_cookie {
            headers.field(b"Set-Cookie", cookie.as_bytes());
        }
        self.begin(200, headers, false);
    }

    pub(in crate::proxy::http) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        match &mut self.sender {
            Some(sender) => sender.poll_ready(cx),
            None => Poll::Ready(Err(RESET)),
        }
    }

    /// Notices that the client has given the stream up.
    pub(in crate::proxy::http) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        let reset = match &mut self.sender {
            Some(sender) => sender.poll_reset(cx),
            None => self.respond.poll_reset(cx).map(|_| ()),
        };
        reset.map(|()| Gone::Reset)
    }

    /// Gives the stream up.
    pub(in crate::proxy::http) fn reset(&mut self, reason: h2::Reason) {
        match &mut self.sender {
            Some(sender) => sender.reset(reason),
            None => self.respond.send_reset(reason),
        }
    }
}

impl Tunnelled for Http2Client {
    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<Piece, BodyFault>> {
        self.receiver.poll_read(cx, buffer)
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.poll_ready(cx)
    }

    fn send(&mut self, cx: &mut Context<'_>, bytes: &[u8], last: bool) -> Result<(), Broken> {
        self.send(cx, bytes, last, None)
    }

    fn reset(&mut self, reason: h2::Reason) {
        self.reset(reason);
    }
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
