//! A data thread: one runtime, the listening sockets the kernel spreads connections over, and the connections themselves.
//!
//! The control thread gives it orders over a bounded channel; nothing else reaches it but connections handed over by
//! other workers.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::ending::Reason;
use crate::listener::{Mouth, Peers};
use crate::logging::AccessWriter;
use crate::metrics::{Catalogue, ListenerMetrics};
use crate::net::listen::Acceptor;
use crate::proxy::{Admitted, Current, Desk, Dismissals, LiveConnections, Metronome, Requests, Target, Turnover};
use crate::relay::Scratch;
use crate::snapshot::Published;
use crate::task::Tasks;
use crate::tls::Turns;
use crate::units::Name;

/// How many handed-over connections may wait for a worker.
const DOOR: usize = 256;
/// How many orders may wait for a worker.
const ORDERS: usize = 64;

/// Names a listening socket of a worker for as long as it is open.
pub type SocketId = u64;

/// What the control thread tells a worker. Each order is answered when it is carried out.
#[derive(Debug)]
pub enum Order {
    /// Accept from this socket on behalf of this listener.
    Listen {
        /// What to call the socket.
        id: SocketId,
        /// The socket.
        socket: OwnedFd,
        /// The listener's name.
        name: Name,
        /// What is counted of the listener.
        metrics: Arc<ListenerMetrics>,
        /// Answered with how that went.
        done: oneshot::Sender<io::Result<()>>,
    },
    /// Accept from a socket on behalf of this listener from now on.
    Adopt {
        /// The socket.
        id: SocketId,
        /// The listener's name.
        name: Name,
        /// What is counted of the listener.
        metrics: Arc<ListenerMetrics>,
        /// How many connections may wait.
        backlog: u32,
        /// Answered when it is done.
        done: oneshot::Sender<()>,
    },
    /// Close these sockets, once what has arrived at them is taken in.
    Silence {
        /// The sockets.
        ids: Vec<SocketId>,
        /// Answered when they are closed.
        done: oneshot::Sender<()>,
    },
    /// Call connections back.
    CallBack {
        /// Which.
        target: Target,
        /// By when they are to be over.
        by: Instant,
        /// What for.
        reason: Reason,
        /// Answered with how many there are.
        done: oneshot::Sender<usize>,
    },
    /// Let go of the snapshot before, which has been replaced.
    Renew,
    /// End once no connection is left; all were called back before.
    Finish,
}

/// A running worker.
#[derive(Debug)]
pub struct Worker {
    /// Where its orders go.
    pub orders: mpsc::Sender<Order>,
    thread: JoinHandle<()>,
}

/// What all workers are started with.
#[derive(Clone, Debug)]
pub struct Equipment {
    /// The snapshot in effect.
    pub published: Arc<Published>,
    /// Everything that is counted.
    pub catalogue: Arc<Catalogue>,
    /// The access log.
    pub access: AccessWriter,
    /// How many pipes each may have for splicing.
    pub pipes: usize,
}

impl Worker {
    /// Starts as many workers as the catalogue has shards for.
    ///
    /// # Errors
    /// When the system gives no thread or no event queue.
    pub fn start_all(equipment: &Equipment) -> io::Result<Vec<Self>> {
        let count = equipment.catalogue.workers().len();
        let (doors, entrances): (Vec<_>, Vec<_>) = (0..count).map(|_| mpsc::channel(DOOR)).unzip();
        let exhausted = Arc::new(AtomicBool::new(false));
        let shortage = Arc::new(Notify::new());
        entrances
            .into_iter()
            .enumerate()
            .map(|(number, entrance)| {
                let peers = Peers { doors: doors.clone(), exhausted: Arc::clone(&exhausted) };
                Self::start(number, equipment.clone(), peers, Arc::clone(&shortage), entrance)
            })
            .collect()
    }

    fn start(
        number: usize,
        equipment: Equipment,
        peers: Peers,
        shortage: Arc<Notify>,
        entrance: mpsc::Receiver<Admitted>,
    ) -> io::Result<Self> {
        let (orders, inbox) = mpsc::channel(ORDERS);
        let (started, outcome) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            // It belongs to the thread that made it.
            let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
            let (runtime, outcome) = runtime.map_or_else(|error| (None, Err(error)), |runtime| (Some(runtime), Ok(())));
            let _nobody_waits = started.send(outcome);
            let Some(runtime) = runtime else { return };
            let Equipment { published, catalogue, access, pipes } = equipment;
            let desk = Rc::new(Desk {
                worker: number,
                current: Current::new(Arc::clone(&published)),
                published,
                tasks: Tasks::new(Arc::clone(&catalogue)),
                catalogue,
                access,
                scratch: Scratch::new(pipes),
                turns: Turns::default(),
                live: LiveConnections::default(),
                dismissals: Dismissals::default(),
                turnover: Turnover::default(),
                requests: Requests::default(),
                shortage,
                metronome: Metronome::default(),
            });
            runtime.block_on(run(desk, Rc::new(peers), inbox, entrance));
        })?;
        outcome.recv().map_err(io::Error::other)??;
        Ok(Self { orders, thread })
    }

    /// Waits for the thread to end, after [`Order::Finish`]. Blocks.
    pub fn join(self) {
        drop(self.orders);
        if self.thread.join().is_err() {
            tracing::error!("a worker ended by a panic");
        }
    }
}

/// The sockets a worker accepts from.
type Mouths = HashMap<SocketId, Open>;

/// A socket that is accepted from by a task of its own.
struct Open {
    mouth: Rc<Mouth>,
    /// Tells the task to close it.
    stop: CancellationToken,
    /// Resolves when it is closed.
    closed: oneshot::Receiver<()>,
}

impl Open {
    fn close(self) -> oneshot::Receiver<()> {
        let Self { mouth: _, stop, closed } = self;
        stop.cancel();
        closed
    }
}

async fn run(
    desk: Rc<Desk>,
    peers: Rc<Peers>,
    mut inbox: mpsc::Receiver<Order>,
    mut entrance: mpsc::Receiver<Admitted>,
) {
    let mut mouths = Mouths::new();
    desk.keep_house();
    loop {
        tokio::select! {
            biased;
            order = inbox.recv() => match order {
                Some(Order::Finish) => break,
                // The control thread is gone, and with it whoever could say how long connections may go on.
                None => {
                    desk.live.call_back(&Target::All, Instant::now(), Reason::Shutdown);
                    break;
                }
                Some(order) => {
                    // Whoever was handed over before the order was given is meant by it.
                    while let Ok(admitted) = entrance.try_recv() {
                        desk.spawn(admitted);
                    }
                    obey(order, &desk, &peers, &mut mouths);
                }
            },
            // The worker holds a sender itself, through its peers, so this never yields `None`.
            Some(admitted) = entrance.recv() => desk.spawn(admitted),
        }
    }
    mouths.into_values().for_each(|open| drop(open.close()));
    desk.tasks.stop();
    // What was handed over before the others finished is still served, and is called back with the rest.
    loop {
        tokio::select! {
            Some(admitted) = entrance.recv() => desk.spawn(admitted),
            Some(order) = inbox.recv() => obey(order, &desk, &peers, &mut Mouths::new()),
            () = desk.tasks.ended() => break,
        }
    }
}

/// Carries an order out. That nobody waits for the answer any more is the asker's business.
fn obey(order: Order, desk: &Rc<Desk>, peers: &Rc<Peers>, mouths: &mut Mouths) {
    match order {
        Order::Listen { id, socket, name, metrics, done } => {
            let opened = Acceptor::new(socket).map(|acceptor| {
                let mouth = Mouth::new(acceptor, name, metrics, Arc::clone(&desk.catalogue));
                let (stop, (closing, closed)) = (CancellationToken::new(), oneshot::channel());
                let accepting = Rc::clone(&mouth).accept_until(stop.clone(), Rc::clone(desk), Rc::clone(peers));
                desk.tasks.spawn_local("accept", async move {
                    accepting.await;
                    let _nobody_waits = closing.send(());
                });
                mouths.insert(id, Open { mouth, stop, closed });
            });
            let _asker_left = done.send(opened);
        }
        Order::Adopt { id, name, metrics, backlog, done } => {
            if let Some(Open { mouth, .. }) = mouths.get(&id) {
                mouth.adopt(name, metrics, backlog);
            }
            let _asker_left = done.send(());
        }
        Order::Silence { ids, done } => {
            let closing: Vec<_> = ids.iter().filter_map(|id| mouths.remove(id)).map(Open::close).collect();
            desk.tasks.spawn_local("silence", async move {
                for closed in closing {
                    let _task_ended = closed.await;
                }
                let _asker_left = done.send(());
            });
        }
        Order::CallBack { target, by, reason, done } => {
            let count = desk.live.call_back(&target, by, reason);
            if let Target::Server(server) = &target {
                desk.forget(server);
                desk.dismissals.dismiss(server, by, reason);
                desk.live.look_around();
            }
            let _asker_left = done.send(count);
        }
        Order::Renew => drop(desk.current.snapshot()),
        Order::Finish => {}
    }
}
