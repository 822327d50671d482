//! Logging: the process's own log through `tracing`, and the access log with a line per connection.

mod access;
mod said;

use std::io::IsTerminal;
use std::path::PathBuf;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

pub use access::{AccessWriter, Line, RequestLine};
pub use said::{MOST_WORDS, told, words};

/// The least severe level that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Failures that need a person.
    Error,
    /// What may need a person soon.
    Warn,
    /// Changes of state.
    Info,
    /// Single connections that fail.
    Debug,
    /// Everything.
    Trace,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object a line.
    Json,
    /// For reading.
    Text,
}

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// To standard output.
    Stdout,
    /// To standard error.
    Stderr,
    /// To this file, which is opened anew on each reload.
    File(PathBuf),
}

impl LogFormat {
    /// Whether lines written to `terminal` or elsewhere are JSON.
    #[must_use]
    pub fn is_json(self, terminal: bool) -> bool {
        match self {
            Self::Auto => !terminal,
            Self::Json => true,
            Self::Text => false,
        }
    }
}

impl LogLevel {
    fn filter(self) -> LevelFilter {
        match self {
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        }
    }
}

/// Sends the process's log to standard error from here on, panics included. `PORTREEVE_LOG` overrides the level, in the
/// syntax of `tracing_subscriber::EnvFilter`. A second call changes nothing: a process has one log.
pub fn install(level: LogLevel, format: LogFormat) {
    let filter = EnvFilter::builder()
        .with_default_directive(level.filter().into())
        .with_env_var("PORTREEVE_LOG")
        .from_env_lossy();
    let terminal = std::io::stderr().is_terminal();
    let layer = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let layer = if format.is_json(terminal) {
        layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
    } else {
        layer.with_ansi(terminal).boxed()
    };
    if tracing_subscriber::registry().with(filter).with(layer).try_init().is_ok() {
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            tracing::error!(place, "a task panicked: {}", panic.payload_as_str().unwrap_or("no message"));
        }));
    }
}
