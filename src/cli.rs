//! The command line.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::admin::is_ready;
use crate::app::{Running, Source, StartError, start};
use crate::config::{Environment, FULL, Problems, load_file};
use crate::{demo, logging};

/// Where the configuration is looked for when no file is named.
const DEFAULT_FILE: &str = "/etc/portreeve/portreeve.toml";
/// Bad usage or configuration.
const BAD_INPUT: u8 = 2;
/// Failed at run time.
const FAILED: u8 = 1;

#[derive(Debug, Parser)]
#[command(name = "portreeve", version, about = "A layer-4 TCP load balancer that says what it does and why")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve.
    Run {
        /// The configuration file.
        #[arg(short, long, default_value = DEFAULT_FILE)]
        config: PathBuf,
    },
    /// Show every problem of a configuration file; exit 0 when it can be used, 2 when not.
    Check {
        /// The configuration file.
        #[arg(short, long, default_value = DEFAULT_FILE)]
        config: PathBuf,
        /// For people, or for editors and pipelines.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Take a tour: an embedded configuration over servers of its own. Needs no file and nothing installed.
    Demo {
        /// End after the tour instead of serving on: exit 0 if all it showed was true, 1 if not.
        #[arg(long)]
        once: bool,
    },
    /// Print the full configuration with every default.
    Defaults,
    /// Ask a running instance whether it is ready: exit 0 if so, 1 if not. For container health checks.
    Healthcheck {
        /// Its `admin.http` address.
        #[arg(long, default_value = "127.0.0.1:9180")]
        admin: SocketAddr,
    },
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Format {
    #[default]
    Human,
    Json,
}

/// Carries out the command line of the process and returns its exit code: 0 done, 1 failed at run time, 2 bad usage or
/// configuration.
#[must_use]
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run { config } => run(config),
        Command::Check { config, format } => check(&config, format),
        Command::Demo { once } => demonstrate(once),
        Command::Defaults => print(FULL),
        Command::Healthcheck { admin } => healthcheck(admin),
    }
}

fn check(config: &std::path::Path, format: Format) -> ExitCode {
    let (problems, fine) = match load_file(config, &Environment::of_this_process()) {
        Ok(loaded) => (loaded.warnings, true),
        Err(problems) => (problems, false),
    };
    let told = match format {
        Format::Human => {
            if problems.iter().next().is_some() {
                tell(&problems);
            }
            print(&if fine { format!("{}: fine\n", config.display()) } else { String::new() })
        }
        Format::Json => print(&format!("{:#}\n", problems.json())),
    };
    if fine { told } else { ExitCode::from(BAD_INPUT) }
}

fn run(config: PathBuf) -> ExitCode {
    let source = Source::File(config);
    // The log's own settings stand in the file: it is read once for them, and once more by whoever starts.
    let loaded = match source.load() {
        Ok(loaded) => loaded,
        Err(problems) => {
            tell(&problems);
            return ExitCode::from(BAD_INPUT);
        }
    };
    logging::install(loaded.model.log.level, loaded.model.log.format);
    block_on(async {
        // Before the start: a signal that came before it is listened for would end the process.
        let signals = match Signals::listen() {
            Ok(signals) => signals,
            Err(error) => {
                tracing::error!("signals cannot be received: {error}");
                return ExitCode::from(FAILED);
            }
        };
        let running = match start(source).await {
            Ok(running) => running,
            Err(StartError::Configuration(problems)) => {
                tell(&problems);
                return ExitCode::from(BAD_INPUT);
            }
            Err(error) => {
                tracing::error!("cannot start: {error}");
                return ExitCode::from(FAILED);
            }
        };
        until_signalled(&running, signals).await;
        ExitCode::SUCCESS
    })
}

/// Reloads on `SIGHUP`; stops gracefully on `SIGTERM` or `SIGINT`, and at once on a second one.
async fn until_signalled(running: &Running, mut signals: Signals) {
    loop {
        tokio::select! {
            _ = signals.hangup.recv() => {
                // The writer has said how it went.
                let _logged = running.reload().await;
            }
            () = signals.stop.recv() => break,
        }
    }
    tokio::select! {
        _ = running.stop() => return,
        () = signals.stop.recv() => tracing::warn!("stopping at once"),
    }
    running.stop_now().await;
}

struct Signals {
    hangup: Signal,
    stop: Stop,
}

struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        let stop = Stop { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
        Ok(Self { hangup: signal(SignalKind::hangup())?, stop })
    }
}

impl Stop {
    async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn demonstrate(once: bool) -> ExitCode {
    block_on(async {
        match demo::run(once).await {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::from(FAILED),
            Err(problem) => complain(&problem.to_string()),
        }
    })
}

fn healthcheck(admin: SocketAddr) -> ExitCode {
    const PATIENCE: Duration = Duration::from_secs(2);
    block_on(async {
        match is_ready(admin, PATIENCE).await {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => complain("not ready: it is stopping"),
            Err(problem) => complain(&problem),
        }
    })
}

fn complain(text: &str) -> ExitCode {
    let _nobody_reads = writeln!(std::io::stderr(), "portreeve: {text}");
    ExitCode::from(FAILED)
}

fn tell(problems: &Problems) {
    let text = problems.human(std::io::stderr().is_terminal());
    let _nobody_reads = std::io::stderr().write_all(text.as_bytes());
}

/// Prints to standard output; a reader that has gone away, as in `| head`, is no failure.
fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => complain(&error.to_string()),
        Ok(()) | Err(_) => ExitCode::SUCCESS,
    }
}

/// Runs the control thread: this one.
fn block_on(work: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => complain(&format!("no runtime: {error}")),
    }
}
