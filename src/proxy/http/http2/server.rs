//! HTTP/2 towards a server: connections that carry many requests at once, and one stream of such.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::STREAM_WINDOW;
use super::driver::Driver;
use super::heads;
use super::stream::{Core, Http2Stream, Tunnelled};
use crate::http2::hpack::encoder::Packer;
use crate::http2::{Broken, Code, Connection, Side, Terms};
use crate::message::line::Limits;
use crate::message::response::Response;
use crate::proxy::Desk;
use crate::proxy::ends::ServerEnd;
use crate::proxy::http::request::{PATIENCE, RESPONSE_LIMITS};
use crate::proxy::http::server::NoHead;
use crate::proxy::http::upstream::Making;

/// How much a server may send ahead on all streams of a connection: no less than on each of them together, since they are of
/// many clients, and those that do not read would hold up the others.
const CONNECTION_WINDOW: u32 = i32::MAX as u32;

/// A connection to a server, as those know it that send requests on it. It ends when nobody does any more.
#[derive(Clone, Debug)]
pub(in crate::proxy::http) struct Http2Connection {
    core: Core,
    facts: Rc<Facts>,
    _interest: Rc<Interest>,
}

/// That somebody may make further requests on a connection.
#[derive(Debug)]
struct Interest(Core);

impl Drop for Interest {
    fn drop(&mut self) {
        self.0.borrow_mut().stir();
    }
}

#[derive(Debug)]
struct Facts {
    made: Instant,
    /// Requests under way, and all there ever were.
    active: Cell<usize>,
    total: Cell<u32>,
    /// When the last one ended.
    idle_since: Cell<Instant>,
    over: Cell<bool>,
    /// Whether the server's settings have come, or will not any more; and who waits for them.
    settled: Cell<bool>,
    settling: Notify,
}

impl Facts {
    fn settle(&self) {
        if !self.settled.replace(true) {
            self.settling.notify_waiters();
        }
    }

    /// Waits until the server's settings have come, or will not any more.
    async fn until_settled(&self) {
        loop {
            let settling = self.settling.notified();
            if self.settled.get() {
                return;
            }
            settling.await;
        }
    }
}

/// One request counted as its connection's, until it is dropped.
#[derive(Debug)]
struct Active(Rc<Facts>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
        self.0.idle_since.set(Instant::now());
    }
}

impl Http2Connection {
    /// Begins to speak on a connection that was made. A request may go out at once (RFC 9113 §3.4), and others once the
    /// server has said how many it takes: who makes another connection waits for that as well, by `making`. The `header` goes
    /// before all else.
    pub(in crate::proxy::http) fn begin(
        desk: &Rc<Desk>,
        end: ServerEnd,
        header: &[u8],
        making: Option<Making>,
    ) -> Self {
        // Frames are small and many, and none may wait for the acknowledgement of the one before.
        end.socket().set_nodelay();
        let terms = Terms {
            streams: 0,
            header_list: (RESPONSE_LIMITS.bytes + RESPONSE_LIMITS.fields * 32) as u32,
            stream_window: STREAM_WINDOW,
            connection_window: CONNECTION_WINDOW,
            given_up: u32::MAX,
        };
        let mut connection = Connection::new(Side::Client, terms);
        connection.precede(header);
        let core = Rc::new(RefCell::new(connection));
        let now = Instant::now();
        let facts = Rc::new(Facts {
            made: now,
            active: Cell::new(0),
            total: Cell::new(0),
            idle_since: Cell::new(now),
            over: Cell::new(false),
            settled: Cell::new(false),
            settling: Notify::new(),
        });
        let interest = Rc::new(Interest(Rc::clone(&core)));
        let (waited_for, interested) = (Rc::clone(&facts), Rc::downgrade(&interest));
        let (driven, scratch) = (Rc::clone(&facts), Rc::clone(desk));
        let mut driver = Driver::new(&core, end);
        let driven_core = Rc::clone(&core);
        desk.tasks.spawn_local("http2 to a server", async move {
            let settled = async {
                let _later = timeout(PATIENCE, waited_for.until_settled()).await;
                waited_for.settle();
                drop(making);
            };
            // Each of its streams hears of a failure by itself.
            let driving = async {
                let _how = poll_fn(|cx| {
                    let over = driver.poll(cx, &scratch.scratch);
                    let mut core = driven_core.borrow_mut();
                    if core.is_settled() {
                        driven.settle();
                    }
                    if over.is_pending() && interested.strong_count() == 0 && core.streams() == 0 {
                        core.end();
                    }
                    over
                })
                .await;
                driven.over.set(true);
                driven.settle();
                let _in_vain = timeout(PATIENCE, poll_fn(|cx| driver.poll_farewell(cx))).await;
            };
            tokio::join!(driving, settled);
        });
        Self { core, facts, _interest: interest }
    }

    /// Whether it can take another request now.
    pub(in crate::proxy::http) fn has_room(&self) -> bool {
        let (limit, under_way) = self.core.borrow().load();
        !self.is_over() && under_way < limit
    }

    /// Whether it is of no more use.
    pub(in crate::proxy::http) fn is_over(&self) -> bool {
        self.facts.over.get() || self.core.borrow().is_spent()
    }

    /// Whether its server is known to take an extended CONNECT (RFC 8441 §3).
    pub(in crate::proxy::http) fn takes_connect(&self) -> bool {
        self.core.borrow().takes_connect()
    }

    /// The same once its settings have come, for which this waits.
    pub(in crate::proxy::http) async fn will_take_connect(&self) -> bool {
        self.facts.until_settled().await;
        self.takes_connect()
    }

    /// Since when it has had no request, if it has none.
    pub(in crate::proxy::http) fn idle_since(&self) -> Option<Instant> {
        (self.facts.active.get() == 0).then(|| self.facts.idle_since.get())
    }

    /// When it was made.
    pub(in crate::proxy::http) fn made(&self) -> Instant {
        self.facts.made
    }

    /// How many requests it was given.
    pub(in crate::proxy::http) fn requests(&self) -> u32 {
        self.facts.total.get()
    }

    /// Sends the head of a request, which `pack` writes; with `ended`, it has no body.
    ///
    /// # Errors
    /// Why it takes none, in words.
    pub(in crate::proxy::http) fn send(
        &self,
        to_head: bool,
        ended: bool,
        pack: impl FnOnce(&mut Packer<'_>),
    ) -> Result<Http2Server, String> {
        let mut core = self.core.borrow_mut();
        let id = core.request(to_head, ended, pack).map_err(|_full| core.words())?;
        drop(core);
        self.facts.active.set(self.facts.active.get() + 1);
        self.facts.total.set(self.facts.total.get().saturating_add(1));
        Ok(Http2Server {
            stream: Http2Stream::new(&self.core, id, ended),
            is_headed: false,
            _active: Active(Rc::clone(&self.facts)),
        })
    }
}

/// One stream of a connection to a server.
#[derive(Debug)]
pub(in crate::proxy::http) struct Http2Server {
    pub(in crate::proxy::http) stream: Http2Stream,
    /// Whether the head of the response was taken.
    is_headed: bool,
    _active: Active,
}

impl Http2Server {
    /// Waits for the head of the response, or an informational one before it.
    pub(in crate::proxy::http) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        response: &mut Response,
        limits: &Limits,
        to_head: bool,
    ) -> Poll<Result<(), NoHead>> {
        if self.is_headed {
            return Poll::Pending;
        }
        let read =
            self.stream.poll_head(cx, |head, ended| heads::read_response(head, ended, to_head, limits, response));
        match ready!(read) {
            Ok(Ok(())) => {
                self.is_headed = !response.is_informational();
                Poll::Ready(Ok(()))
            }
            Ok(Err(fault)) => Poll::Ready(Err(NoHead::Malformed(fault))),
            Err(broken) => Poll::Ready(Err(match (broken, self.stream.deed(broken)) {
                // A request that the server says it has not looked at may be sent again, whatever it asks for (RFC 9113 §8.7).
                (Broken::Reset(Code::REFUSED_STREAM) | Broken::Over { unseen: true }, Some(deed)) => {
                    NoHead::Unseen(deed)
                }
                (_, Some(deed)) => NoHead::GivenUp(deed),
                (_, None) => NoHead::Broken(super::stream::RESET),
            })),
        }
    }
}

impl Tunnelled for Http2Server {
    fn stream(&mut self) -> &mut Http2Stream {
        &mut self.stream
    }
}
