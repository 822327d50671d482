//! A connection that probes ask over by HTTP, for one question or for several.
//!
//! Nobody drives a connection between two probes. A server that meanwhile says something, or closes, is heard when the next
//! question is asked.

use std::pin::{Pin, pin};
use std::task::Poll;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};

use super::http2::Http2Line;
use super::probe::{Problem, Seen};
use super::reach::{Io, LATE, Reach, within};
use crate::logging::words;

/// The most bytes of a response's head, and of what is read of it at once.
pub(super) const MOST_OF_HEAD: usize = 16 * 1024;
/// The most fields of a response's head.
const MOST_FIELDS: usize = 128;
/// What HTTP/2 is called in ALPN (RFC 9113 §3.1).
pub(super) const H2: &[u8] = b"h2";

/// A connection.
pub(super) struct Line {
    ask: Ask,
    /// What goes on beside a question, of HTTP/1.
    going: Going,
}

/// What questions are sent through.
pub(super) enum Ask {
    H1(http1::SendRequest<Empty<Bytes>>),
    H2(Box<Http2Line>),
}

/// Why a question had no good answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// The connection failed, which says little of the server if it had been kept for long.
    Line(String),
    /// The answer is not as expected.
    Answer(String),
}

impl Fault {
    pub(super) fn line(error: &dyn std::error::Error) -> Self {
        Self::Line(words(error))
    }

    pub(super) fn into_words(self) -> String {
        match self {
            Self::Line(words) | Self::Answer(words) => words,
        }
    }
}

/// What a probe asks over a connection.
pub(super) trait Question {
    /// Connects and comes to where it can be asked.
    async fn open(&self, reach: &Reach, until: Instant) -> Result<Line, Problem>;

    /// Asks, and holds the answer to what is expected.
    async fn ask(&self, ask: &mut Ask, reach: &Reach) -> Result<Seen, Fault>;

    /// Whether the connection is kept for the next time.
    fn is_kept(&self) -> bool;
}

/// Probes once: over the connection that was kept, or over a new one if there is none or it fails.
///
/// # Errors
/// What went wrong, in the words of the log line.
pub(super) async fn probe(
    question: &impl Question,
    reach: &Reach,
    kept: &mut Option<Line>,
    until: Instant,
) -> Result<Seen, Problem> {
    if let Some(mut line) = kept.take() {
        match timeout_at(until, line.asked(question, reach)).await {
            Ok(Ok(seen)) => {
                *kept = line.keep(until).await;
                return Ok(seen);
            }
            Ok(Err(Fault::Answer(words))) => return Err(words.into()),
            // It may be as old as the server's last start.
            Ok(Err(Fault::Line(_))) => {}
            Err(_elapsed) => return Err(LATE.into()),
        }
    }
    let mut line = question.open(reach, until).await?;
    let seen = within(until, async { line.asked(question, reach).await.map_err(Fault::into_words) }).await?;
    if question.is_kept() {
        *kept = line.keep(until).await;
    } else {
        line.end(until).await;
    }
    Ok(seen)
}

/// The work of a connection, until it is over.
struct Going(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Going {
    fn new<E>(connection: impl Future<Output = Result<(), E>> + Send + 'static) -> Self {
        // How it ends is heard by whoever asks something.
        Self(Some(Box::pin(async { drop(connection.await) })))
    }

    /// Does other work while the connection goes on.
    async fn along<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(outcome) = work.as_mut().poll(cx) {
                return Poll::Ready(outcome);
            }
            let is_over = |going: &mut Pin<Box<dyn Future<Output = ()> + Send>>| going.as_mut().poll(cx).is_ready();
            if self.0.as_mut().is_some_and(is_over) {
                self.0 = None;
                return work.as_mut().poll(cx);
            }
            Poll::Pending
        })
        .await
    }
}

impl Line {
    /// Begins to speak HTTP/1.1.
    pub(super) async fn h1(io: Box<dyn Io>) -> Result<Self, String> {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(MOST_OF_HEAD).max_headers(MOST_FIELDS);
        let (sender, connection) = builder.handshake(TokioIo::new(io)).await.map_err(|error| words(&error))?;
        Ok(Self { ask: Ask::H1(sender), going: Going::new(connection) })
    }

    /// Begins to speak HTTP/2.
    pub(super) fn h2(io: Box<dyn Io>) -> Self {
        Self { ask: Ask::H2(Box::new(Http2Line::new(io))), going: Going(None) }
    }

    async fn asked(&mut self, question: &impl Question, reach: &Reach) -> Result<Seen, Fault> {
        let Self { ask, going } = self;
        going.along(question.ask(ask, reach)).await
    }

    /// Keeps it for the next time, if it is fit to be asked something else.
    async fn keep(mut self, until: Instant) -> Option<Self> {
        let Self { ask, going } = &mut self;
        let is_ready = match ask {
            Ask::H1(sender) => {
                let ready = going.along(async { sender.ready().await.is_ok() });
                timeout_at(until, ready).await.unwrap_or(false) && going.0.is_some()
            }
            Ask::H2(line) => timeout_at(until, line.settle()).await.unwrap_or(false),
        };
        is_ready.then_some(self)
    }

    /// Lets it come to an orderly end.
    async fn end(self, until: Instant) {
        let Self { ask, going } = self;
        match ask {
            // There is nothing more to ask.
            Ask::H1(sender) => drop(sender),
            Ask::H2(line) => {
                let _however_it_ends = timeout_at(until, line.end()).await;
            }
        }
        if let Some(going) = going.0 {
            let _however_it_ends = timeout_at(until, going).await;
        }
    }
}
