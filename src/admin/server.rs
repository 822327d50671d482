//! Answering on the admin listener: the accept loop, and the bounds that keep its clients from harming the process.
//!
//! At most [`Limits::connections`] are open at once and the others wait in the kernel. Each has a deadline for every
//! request head, which an idle one meets too, and one for its life, so that no client holds its place for ever.

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{View, api};
use crate::net::errno::{AcceptFailure, accept_failure};
use crate::net::listen::Acceptor;
use crate::task::Tasks;

/// How long accepting pauses when descriptors or memory have run out.
const PAUSE: Duration = Duration::from_millis(100);
/// How much of a request is held at most; a longer head is refused with 431.
const LARGEST_HEAD: usize = 16 * 1024;

/// What the clients of the admin listener are given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// How many connections are served at once.
    pub(super) connections: usize,
    /// How long a request head may take, from the start of the connection or the end of the answer before it. What is
    /// under way when the process stops has as long to end.
    pub(super) head: Duration,
    /// How long a connection may last.
    pub(super) connection: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 64, head: Duration::from_secs(5), connection: Duration::from_secs(60) }
    }
}

/// Answers on `listener` until `tasks` stop. It must be called on a runtime, which is where the answers are made.
///
/// # Errors
/// When the runtime cannot watch the socket.
pub fn serve(listener: TcpListener, view: Arc<View>, tasks: &Tasks) -> io::Result<()> {
    serve_within(listener, view, tasks, Limits::default())
}

pub(super) fn serve_within(listener: TcpListener, view: Arc<View>, tasks: &Tasks, limits: Limits) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let acceptor = Acceptor::new(OwnedFd::from(listener))?;
    let (router, spawning, stopping) = (api::router(view), tasks.clone(), tasks.stopping().clone());
    tasks.spawn("admin", async move {
        // What is told to stop here holds nothing but the listening socket and perhaps a place.
        let _told_to_stop = stopping.run_until_cancelled(accept(acceptor, router, &spawning, limits)).await;
    });
    Ok(())
}

/// Accepts, one connection for each free place. Ends only when the socket itself is broken.
async fn accept(acceptor: Acceptor, router: Router, tasks: &Tasks, limits: Limits) {
    let places = Arc::new(Semaphore::new(limits.connections));
    // Nobody closes the semaphore.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let Some(socket) = next(&acceptor).await else { return };
        let (router, stopping) = (router.clone(), tasks.stopping().clone());
        tasks.spawn("admin-connection", async move {
            let _place = place;
            if let Err(problem) = answer(socket, router, limits, stopping).await {
                tracing::debug!("a connection to the admin listener failed: {problem}");
            }
        });
    }
}

/// The next connection; `None` when the socket is broken.
async fn next(acceptor: &Acceptor) -> Option<OwnedFd> {
    let mut paused = false;
    loop {
        match acceptor.try_accept() {
            Ok((socket, _client)) => return Some(socket),
            Err(errno) => match accept_failure(errno) {
                AcceptFailure::Peer => {}
                AcceptFailure::Empty => acceptor.readable().await.ok()?,
                AcceptFailure::Exhausted => {
                    if !paused {
                        tracing::warn!("the admin listener pauses: {errno}");
                        paused = true;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                AcceptFailure::Ours => {
                    tracing::error!("the admin listener is broken and accepts no more: {errno}");
                    return None;
                }
            },
        }
    }
}

/// Answers the requests of one connection until it ends, its time is up or the process stops.
async fn answer(
    socket: OwnedFd,
    router: Router,
    limits: Limits,
    stopping: CancellationToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::from_std(std::net::TcpStream::from(socket))?;
    stream.set_nodelay(true)?;
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(LARGEST_HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let mut deadline = pin!(tokio::time::sleep(limits.connection));
    let mut told = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => return Ok(ended?),
            () = deadline.as_mut() => return Err("its time is up".into()),
            () = stopping.cancelled(), if !told => {
                told = true;
                connection.as_mut().graceful_shutdown();
                let last = Instant::now() + limits.head;
                if last < deadline.deadline() {
                    deadline.as_mut().reset(last);
                }
            }
        }
    }
}
