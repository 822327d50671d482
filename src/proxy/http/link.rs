//! A request and the connection it goes out on: one that waits, or a new one.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::attempt::Errand;
use super::exchange::Stop;
use super::http2::Http2Connection;
use super::request::Job;
use super::server::Http1Server;
use super::sides::Server;
use crate::backend::Server as Backend;
use crate::config::model::http::{HttpPool, HttpVersion};
use crate::ending::Reason;
use crate::message::head::Known;
use crate::message::version::Version;
use crate::net::dial::First;
use crate::proxy::connect::{Unreached, blame, reach};
use crate::proxy::ends::ServerEnd;

/// A connection that was handed the head of a request.
pub(super) struct Link {
    pub(super) connection: Server,
    /// How long it took to make, if it was not there already.
    pub(super) connecting: Option<Duration>,
}

impl Job<'_> {
    /// Whether it asks for WebSocket, and could be told in HTTP/1 that it is granted by a server that does so in HTTP/2.
    fn is_websocket(&self) -> bool {
        let Self { request, .. } = self;
        request.upgrade().is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
            && (request.version == Version::Http2 || request.fields.has(Known::SecWebSocketKey))
    }

    /// A connection to a server that waits for a request, handed the head of this one.
    pub(super) fn waiting(&mut self, errand: &Errand<'_>, server: &Backend, now: Instant) -> Option<Server> {
        // A connection that begins with a header speaks for one client.
        if !errand.header.is_empty() {
            return None;
        }
        let HttpPool { keep, version, .. } = &errand.pool.http;
        let desk = &self.context.desk;
        let upstreams = &desk.requests.upstreams;
        let upgrades = self.request.upgrade().is_some();
        if *version != HttpVersion::Http1
            && (!upgrades || self.is_websocket())
            && let Some(mut connection) = upstreams.take_shared(server, keep, now)
            && (!upgrades || connection.takes_connect())
        {
            return self.send_http2(errand, server, &mut connection).ok();
        }
        if *version == HttpVersion::Http2 {
            return None;
        }
        let connection = upstreams.take(desk, server, keep, now)?;
        Some(self.hand_over(errand, server, connection))
    }

    /// Gets a connection to a server, where none waits, and hands it the head of the request.
    ///
    /// # Errors
    /// There is none, or the client has left meanwhile.
    pub(super) async fn connect(&mut self, errand: &Errand<'_>, server: &Backend) -> Result<Link, Stop> {
        let desk = Rc::clone(&self.context.desk);
        let HttpPool { keep, version, .. } = &errand.pool.http;
        let is_pooled = errand.header.is_empty();
        let upgrades = self.request.upgrade().is_some();
        // One that is to change the protocol is HTTP/1, unless the server is known to speak HTTP/2 and takes it there.
        if *version != HttpVersion::Http1
            && is_pooled
            && (!upgrades || *version == HttpVersion::Http2 && self.is_websocket())
            && let Some(link) = self.share(errand, server).await?
        {
            return Ok(link);
        }
        let started = Instant::now();
        let end = self.dial(errand, server, upgrades).await?;
        let connecting = Some(started.elapsed());
        let is_http2 = match &end {
            ServerEnd::Plain(_) => *version == HttpVersion::Http2 && !upgrades,
            ServerEnd::Tls(stream) => *version != HttpVersion::Http1 && stream.alpn() == Some(b"h2"),
        };
        if is_http2 {
            let mut connection = Http2Connection::begin(&desk, end, errand.header_in_clear(server), None);
            if is_pooled {
                let upstreams = &desk.requests.upstreams;
                upstreams.gate(server, keep).http1.set(false);
                upstreams.put_shared(server, keep, connection.clone());
            }
            let server = self.send_http2(errand, server, &mut connection).map_err(Stop::Server)?;
            return Ok(Link { connection: server, connecting });
        }
        let connection = Box::new(Http1Server::new(end));
        Ok(Link { connection: self.hand_over(errand, server, connection), connecting })
    }

    /// Hands a connection of HTTP/1 the head of the request.
    fn hand_over(&self, errand: &Errand<'_>, server: &Backend, mut connection: Box<Http1Server>) -> Server {
        let mut head = self.context.desk.requests.stash.buffer();
        if connection.requests == 0 {
            head.extend_from_slice(errand.header_in_clear(server));
        }
        self.write_head(errand, server, &mut head);
        connection.begin(head, self.request.length);
        Server::Http1(connection)
    }

    /// Finds or makes a connection of HTTP/2 that others use as well; none where the server speaks HTTP/1 after all.
    async fn share(&mut self, errand: &Errand<'_>, server: &Backend) -> Result<Option<Link>, Stop> {
        let desk = Rc::clone(&self.context.desk);
        let HttpPool { keep, version, .. } = &errand.pool.http;
        let upstreams = &desk.requests.upstreams;
        let gate = upstreams.gate(server, keep);
        if gate.http1.get() {
            return Ok(None);
        }
        let failures = gate.failures();
        let upgrades = self.request.upgrade().is_some();
        let by = self.link_by(errand);
        let making = self.by(by, gate.enter()).await?;
        if let Some(mut connection) = upstreams.take_shared(server, keep, Instant::now()) {
            if upgrades && !self.by(by, connection.will_take_connect()).await? {
                return Ok(None);
            }
            let connection = self.send_http2(errand, server, &mut connection).map_err(Stop::Server)?;
            return Ok(Some(Link { connection, connecting: None }));
        }
        // Whoever made one meanwhile has met the same.
        if let Some(reason) = gate.failed_since(failures) {
            return Err(Stop::Server(reason));
        }
        if *version == HttpVersion::Auto
            && let Some(connection) = upstreams.take(&desk, server, keep, Instant::now())
        {
            return Ok(Some(Link { connection: self.hand_over(errand, server, connection), connecting: None }));
        }
        let started = Instant::now();
        let made = match self.dial(errand, server, false).await {
            Ok(end) => end,
            Err(stop) => {
                if let Stop::Server(reason) = stop {
                    gate.failed(reason);
                }
                return Err(stop);
            }
        };
        let connecting = Some(started.elapsed());
        let speaks_http2 = match &made {
            ServerEnd::Plain(_) => true,
            ServerEnd::Tls(stream) => stream.alpn() == Some(b"h2"),
        };
        gate.http1.set(!speaks_http2);
        if !speaks_http2 {
            // It has chosen HTTP/1, which an upgrade is asked for in as well.
            let connection = self.hand_over(errand, server, Box::new(Http1Server::new(made)));
            return Ok(Some(Link { connection, connecting }));
        }
        // Those that begin with a header are not shared.
        let mut connection = Http2Connection::begin(&desk, made, &[], making);
        upstreams.put_shared(server, keep, connection.clone());
        if upgrades && !self.by(self.link_by(errand), connection.will_take_connect()).await? {
            return Ok(None);
        }
        let connection = self.send_http2(errand, server, &mut connection).map_err(Stop::Server)?;
        Ok(Some(Link { connection, connecting }))
    }

    /// Until when there has to be a connection, and what it is called if there is none.
    fn link_by(&self, errand: &Errand<'_>) -> (Instant, Reason) {
        let limit = Instant::now() + errand.pool.pool.connect_timeout();
        match errand.bounds.expires {
            Some(expires) if expires <= limit => (expires, Reason::RequestTimeout),
            Some(_) | None => (limit, Reason::ConnectTimeout),
        }
    }

    /// Waits for something until then at most.
    async fn by<T>(&mut self, (by, reason): (Instant, Reason), something: impl Future<Output = T>) -> Result<T, Stop> {
        self.while_wanted(timeout_at(by, something)).await?.map_err(|_elapsed| Stop::Server(reason))
    }

    /// Hands a connection of HTTP/2 the head of the request.
    fn send_http2(
        &mut self,
        errand: &Errand<'_>,
        server: &Backend,
        connection: &mut Http2Connection,
    ) -> Result<Server, Reason> {
        let ended = self.request.length.is_empty() && self.request.upgrade().is_none();
        let sent = connection.send(self.request.is_head(), ended, |packer| self.pack_head(errand, server, packer));
        match sent {
            Ok(stream) => Ok(Server::Http2(Box::new(stream))),
            Err(words) => {
                self.record.failed(format_args!("HTTP/2 to the server: {words}"));
                Err(Reason::ServerReset)
            }
        }
    }

    /// Connects to a server; `as_http1` has it speak HTTP/1, whatever else it would choose.
    async fn dial(&mut self, errand: &Errand<'_>, server: &Backend, as_http1: bool) -> Result<ServerEnd, Stop> {
        let desk = Rc::clone(&self.context.desk);
        let as_http1 = server
            .tls
            .as_ref()
            .filter(|_| as_http1)
            .map(|tls| Backend { tls: Some(tls.offering(&[b"http/1.1"])), ..server.clone() });
        let server = as_http1.as_ref().unwrap_or(server);
        let started = Instant::now();
        let reaching = Box::pin(reach(&desk, &errand.pool.pool, server, First::Us, &errand.header));
        let reached = match errand.bounds.expires {
            None => self.while_wanted(reaching).await?,
            Some(expires) => match self.while_wanted(timeout_at(expires, reaching)).await? {
                Ok(reached) => reached,
                Err(_elapsed) => {
                    let reason = Reason::RequestTimeout;
                    if started.elapsed() >= errand.bounds.blamed_after {
                        blame(&desk, server, reason, started.elapsed());
                    }
                    Err(reason.into())
                }
            },
        };
        reached.map_err(|Unreached { reason, words }| {
            if let Some(words) = words {
                self.record.failed(words);
            }
            Stop::Server(reason)
        })
    }

    /// Lets the connection wait for the next request, if nothing speaks against it.
    pub(super) fn recycle(&self, errand: &Errand<'_>, server: &Backend, connection: Server, keeps_alive: bool) {
        let desk = &self.context.desk;
        match connection {
            Server::Http1(mut connection) => {
                if keeps_alive && errand.header.is_empty() && connection.is_clean() {
                    connection.tidy(&desk.requests.stash);
                    desk.requests.upstreams.put(server, &errand.pool.http.keep, connection, self.now);
                }
            }
            // It is a stream of a connection that waits by itself.
            Server::Http2(stream) => {
                drop(stream);
                desk.requests.upstreams.settle(server, &errand.pool.http.keep);
            }
        }
    }
}
