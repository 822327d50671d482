//! The tour: an instance over servers of its own, which shows what it does and checks each statement it makes.
//!
//! It needs no file and nothing that is not in this program. `server` is what it balances over, `client` who connects, and
//! `page` what is printed; the instance is an ordinary one, started through [`crate::app`] as any embedder would.

mod client;
mod page;
mod server;

use std::io::{self, IsTerminal, Stdout};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use crate::app::{Running, Source, StartError, start};
use crate::backend::State;
use crate::ending::Reason;
use crate::metrics::Catalogue;
use crate::task::Tasks;
use crate::units::Name;
use client::{Answers, Client, crowd};
use page::Page;
use server::LittleServer;

/// The port for clients that is tried first: the one in the documents.
const CLIENT_PORT: u16 = 8080;
/// The same for the admin listener.
const ADMIN_PORT: u16 = 9180;
/// How often other ports are tried when those are taken.
const ATTEMPTS: usize = 10;
/// How long something that has to happen may take.
const PATIENCE: Duration = Duration::from_secs(8);
/// How many connections each act sends for one weight of a server.
const CLIENTS: usize = 100;

/// Why the demo cannot go on, as opposed to a statement of it being false.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The instance did not start.
    #[error("the demo cannot start: {0}")]
    Start(#[from] StartError),
    /// A server of its own cannot listen, or nobody reads what it prints.
    #[error("the demo cannot go on: {0}")]
    System(#[from] io::Error),
}

/// Gives the tour on standard output. With `once` it then ends, otherwise it serves until it is interrupted. Says whether
/// all it stated was true.
///
/// # Errors
/// When the system refuses what the demo needs.
pub async fn run(once: bool) -> Result<bool, DemoError> {
    let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let mut stage = Stage::set(Page::new(io::stdout(), colours)).await?;
    stage.introduce()?;
    stage.spread().await?;
    stage.fail_over().await?;
    stage.recover().await?;
    stage.reload().await?;
    stage.balance_the_books().await?;
    if once {
        stage.close()?
    } else {
        stage.stay().await?
    }
    stage.running.stop_now().await;
    Ok(stage.page.falsehoods == 0)
}

/// The instance, what is around it and where it is told.
struct Stage {
    page: Page<Stdout>,
    running: Running,
    servers: Vec<LittleServer>,
    /// Where clients connect to, and where the admin listener is.
    addresses: Addresses,
    tasks: Tasks,
    catalogue: Arc<Catalogue>,
    /// How many connections were sent.
    sent: usize,
}

#[derive(Clone, Copy)]
struct Addresses {
    listener: SocketAddr,
    admin: SocketAddr,
}

impl Stage {
    async fn set(page: Page<Stdout>) -> Result<Self, DemoError> {
        // For the tasks of the demo; the instance has one of its own.
        let catalogue = Catalogue::new(1);
        let start = |name| LittleServer::start(name, &catalogue);
        let servers = vec![start("alder")?, start("birch")?, start("cedar")?];
        let (running, addresses) = start_instance(&servers).await?;
        let tasks = Tasks::new(Arc::clone(&catalogue));
        Ok(Self { page, running, servers, addresses, tasks, catalogue, sent: 0 })
    }

    fn introduce(&mut self) -> io::Result<()> {
        let Addresses { listener, admin } = self.addresses;
        let title = format!("Portreeve {}, a tour", env!("CARGO_PKG_VERSION"));
        self.page.title(&title, "It takes a few seconds and uses nothing but ports of 127.0.0.1.")?;
        self.page.act("Three servers behind one address")?;
        let mut rows: Vec<(String, String)> =
            self.servers.iter().map(|server| (server.name.to_owned(), server.address.to_string())).collect();
        rows.push(("clients".to_owned(), format!("connect to {listener}{}", taken(listener, CLIENT_PORT))));
        rows.push(("operators".to_owned(), format!("look at http://{admin}{}", taken(admin, ADMIN_PORT))));
        self.page.columns(&rows)?;
        self.page.blank()?;
        self.page
            .say("The servers belong to the demo: each answers with its name. This is the whole configuration:")?;
        self.page.blank()?;
        self.page.quote(&configuration(self.addresses, &self.servers))
    }

    async fn spread(&mut self) -> io::Result<()> {
        self.page.act("Connections spread")?;
        let healthy = self.until(|stage| stage.states().iter().all(|state| state.health().tested)).await;
        let answers = self.send(3 * CLIENTS).await;
        self.page.say(&format!("{} clients connected, asked who is there, and were answered by:", 3 * CLIENTS))?;
        self.show(&answers, None)?;
        let checked = healthy.is_some() && self.states().iter().all(|state| state.is_healthy());
        self.page.state("each server passed its first health check", checked, &self.health_words())?;
        self.all_answered(&answers, 3 * CLIENTS)?;
        self.shares(&answers, &["alder", "birch", "cedar"], 3 * CLIENTS)
    }

    async fn fail_over(&mut self) -> io::Result<()> {
        self.page.act("A server fails")?;
        let Some(birch) = self.state("birch") else { return self.missing("birch") };
        let failures = birch.metrics().connect_failures();
        if let Some(server) = self.servers.iter_mut().find(|server| server.name == "birch") {
            server.stop().await;
        }
        let stopped = Instant::now();
        self.page.say("birch was stopped, and the next clients did not wait for anybody to notice:")?;
        let (answers, noticed) = tokio::join!(
            crowd(self.addresses.listener, 3 * CLIENTS, &self.tasks),
            until(stopped, || !birch.is_healthy())
        );
        self.sent += answers.count();
        self.show(&answers, Some("birch"))?;
        self.all_answered(&answers, 3 * CLIENTS)?;
        self.page.state("birch answered none", answers.of("birch") == 0, &answers.words())?;
        let retried = birch.metrics().connect_failures() - failures;
        let met = match retried {
            0 => "No client was sent to birch any more.".to_owned(),
            1 => "1 client was sent to birch first; its connection went on to the next server.".to_owned(),
            _ => format!("{retried} clients were sent to birch first; their connections went on to the next server."),
        };
        let health = birch.health();
        self.page.state(
            &format!("birch counts as down, {} after it stopped ({})", milliseconds(noticed), health.reason),
            noticed.is_some(),
            &self.health_words(),
        )?;
        self.page.add(&met)
    }

    async fn recover(&mut self) -> io::Result<()> {
        self.page.act("It comes back")?;
        let Some(birch) = self.state("birch") else { return self.missing("birch") };
        if let Some(server) = self.servers.iter_mut().find(|server| server.name == "birch") {
            server.resume()?;
        }
        let noticed = until(Instant::now(), || birch.is_healthy()).await;
        let answers = self.send(3 * CLIENTS).await;
        self.page.say("birch listens again, and once it counts as up:")?;
        self.show(&answers, None)?;
        self.page.state(
            &format!("birch counts as up, {} after it came back ({})", milliseconds(noticed), birch.health().reason),
            noticed.is_some(),
            &self.health_words(),
        )?;
        self.all_answered(&answers, 3 * CLIENTS)?;
        self.shares(&answers, &["alder", "birch", "cedar"], 3 * CLIENTS)
    }

    async fn reload(&mut self) -> io::Result<()> {
        self.page.act("The configuration changes under way")?;
        let mut old = Client::connect(self.addresses.listener).await;
        let before = ask(&mut old).await;
        self.servers.push(LittleServer::start("elm", &self.catalogue)?);
        let applied = self.running.reload_text(&configuration(self.addresses, &self.servers)).await;
        let told = match &applied {
            Ok(applied) => format!("generation {}: {}", applied.generation, applied.changes.join("; ")),
            Err(error) => error.to_string(),
        };
        self.page.say("While a client was connected, a fourth server was put into the configuration:")?;
        self.page.blank()?;
        self.page.quote(&listed(self.servers.get(3..).unwrap_or_default()))?;
        self.page.blank()?;
        self.page.state(&format!("the reload took effect ({told})"), applied.is_ok(), &told)?;
        let after = ask(&mut old).await;
        let finished = match old {
            Ok(client) => client.finish().await,
            Err(error) => Err(error),
        };
        self.sent += 1;
        let answerer = before.clone().unwrap_or_else(|error| error);
        self.page.state(
            &format!("the client from before is still connected, to {answerer}"),
            before.is_ok() && before == after && finished.is_ok(),
            &format!("before: {before:?}, after: {after:?}, at the end: {finished:?}"),
        )?;
        let answers = self.send(5 * CLIENTS).await;
        self.page.blank()?;
        self.page.say(&format!("{} new clients were answered by:", 5 * CLIENTS))?;
        self.show(&answers, None)?;
        self.all_answered(&answers, 5 * CLIENTS)?;
        self.shares(&answers, &["alder", "birch", "cedar", "elm", "elm"], 5 * CLIENTS)
    }

    /// Compares what the instance has counted with what was sent.
    async fn balance_the_books(&mut self) -> io::Result<()> {
        self.page.act("The books balance")?;
        let sent = self.sent as u64;
        let done = self.until(|stage| stage.running.catalogue().endings(Reason::Done) >= sent).await;
        let catalogue = self.running.catalogue();
        let counted: Vec<String> = Reason::ALL
            .iter()
            .filter(|reason| catalogue.endings(**reason) > 0)
            .map(|reason| format!("{} {reason}", catalogue.endings(*reason)))
            .collect();
        let statement = format!("the {sent} connections of this tour are counted, all with the ending `done`");
        self.page.state(&statement, done.is_some(), &counted.join(", "))?;
        self.page.add("Every ending has one of a few reasons, the same in the metrics and in the access log.")
    }

    fn close(&mut self) -> io::Result<()> {
        self.page.epilogue(match self.page.falsehoods {
            0 => "That was the tour. Each statement in it was checked.",
            _ => "That was the tour. Not every statement in it was true.",
        })
    }

    async fn stay(&mut self) -> io::Result<()> {
        let Addresses { listener, admin } = self.addresses;
        self.page.epilogue("It goes on serving. In another terminal, try:")?;
        let program = std::env::args().next().unwrap_or_else(|| "portreeve".to_owned());
        let row = |command: String, what: &str| (command, what.to_owned());
        self.page.columns(&[
            row(format!("nc {} {}", listener.ip(), listener.port()), "each line is answered with the server's name"),
            row(format!("curl http://{listener}"), "the same over HTTP"),
            row(format!("curl http://{admin}/metrics"), "what is counted"),
            row(format!("curl http://{admin}/api/v1/pools"), "how the servers are, and why"),
            row(format!("{program} defaults"), "every setting, with its default"),
        ])?;
        self.page.blank()?;
        self.page.say("Ctrl-C ends it.")?;
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        self.page.blank()
    }

    // What the acts are made of.

    async fn send(&mut self, clients: usize) -> Answers {
        let answers = crowd(self.addresses.listener, clients, &self.tasks).await;
        self.sent += answers.count();
        answers
    }

    /// A row for each server, with a remark on one that is stopped.
    fn show(&mut self, answers: &Answers, stopped: Option<&str>) -> io::Result<()> {
        let rows: Vec<_> = self
            .servers
            .iter()
            .map(|server| {
                let remark = if stopped == Some(server.name) { "stopped" } else { "" };
                (server.name, answers.of(server.name), remark)
            })
            .collect();
        self.page.bars(&rows)
    }

    fn all_answered(&mut self, answers: &Answers, clients: usize) -> io::Result<()> {
        let holds = answers.count() == clients && answers.failures.is_empty();
        self.page.state(&format!("all {clients} clients were answered"), holds, &answers.words())
    }

    /// States that each server had its share: one of `shares` for each time it is named there, give or take a tenth.
    fn shares(&mut self, answers: &Answers, shares: &[&str], clients: usize) -> io::Result<()> {
        let fair = |name: &str| {
            let share = shares.iter().filter(|named| **named == name).count() * clients / shares.len().max(1);
            answers.of(name).abs_diff(share) <= share / 10
        };
        let holds = self.servers.iter().all(|server| fair(server.name));
        self.page.state("each server had the share that its weight gives it", holds, &format!("{:?}", answers.by))
    }

    /// The state of each server, as the instance keeps it.
    fn states(&self) -> Vec<Arc<State>> {
        let snapshot = self.running.snapshot();
        snapshot.pools().flat_map(|pool| pool.pool.servers()).map(|server| Arc::clone(&server.state)).collect()
    }

    fn state(&self, name: &str) -> Option<Arc<State>> {
        let name = Name::new(name);
        self.states().into_iter().find(|state| state.name == name)
    }

    fn missing(&mut self, name: &str) -> io::Result<()> {
        self.page.state(&format!("{name} is a server of the pool"), false, &self.health_words())
    }

    fn health_words(&self) -> String {
        let words = |state: Arc<State>| {
            let health = state.health();
            format!("{} is {} ({})", state.name, if health.up { "up" } else { "down" }, health.reason)
        };
        self.states().into_iter().map(words).collect::<Vec<_>>().join(", ")
    }

    async fn until(&self, holds: impl Fn(&Self) -> bool) -> Option<Duration> {
        until(Instant::now(), || holds(self)).await
    }
}

/// Starts the instance on the ports that the documents name, or on free ones where those are taken.
async fn start_instance(servers: &[LittleServer]) -> Result<(Running, Addresses), DemoError> {
    let local = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut addresses = Addresses { listener: local(CLIENT_PORT), admin: local(ADMIN_PORT) };
    for _ in 0..ATTEMPTS {
        match start(Source::Text(configuration(addresses, servers))).await {
            Ok(running) => return Ok((running, addresses)),
            Err(StartError::Bind(_)) => addresses.listener = local(free_port()?),
            Err(StartError::Admin { .. }) => addresses.admin = local(free_port()?),
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::from(io::ErrorKind::AddrInUse).into())
}

/// A port that was free a moment ago.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// The configuration of the demo over some of its servers.
fn configuration(addresses: Addresses, servers: &[LittleServer]) -> String {
    let Addresses { listener, admin } = addresses;
    let servers = listed(servers);
    format!(
        r#"[admin]
http = "{admin}"

[listeners.demo]
bind = "{listener}"
pool = "trees"

[pools.trees]
servers = [
{servers}]
check = {{ interval = "500ms", fast_interval = "100ms", timeout = "400ms" }}
"#
    )
}

/// Servers as a configuration lists them.
fn listed(servers: &[LittleServer]) -> String {
    let entry = |LittleServer { name, address, .. }: &LittleServer| {
        let weight = if *name == "elm" { ", weight = 2" } else { "" };
        format!("  {{ name = \"{name}\", address = \"{address}\"{weight} }},\n")
    };
    servers.iter().map(entry).collect()
}

/// A remark on an address whose usual port is in use.
fn taken(address: SocketAddr, usual: u16) -> String {
    if address.port() == usual { String::new() } else { format!(" ({usual} is taken)") }
}

async fn ask(client: &mut Result<Client, String>) -> Result<String, String> {
    match client {
        Ok(client) => client.ask().await,
        Err(error) => Err(error.clone()),
    }
}

/// Waits until something holds and returns how long after `since` it did; `None` if it does not in time.
async fn until(since: Instant, holds: impl Fn() -> bool) -> Option<Duration> {
    while !holds() {
        if since.elapsed() > PATIENCE {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Some(since.elapsed())
}

fn milliseconds(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "some time".to_owned(), |duration| format!("{} ms", duration.as_millis().max(1)))
}
