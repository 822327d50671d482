//! The access log: one line per connection, through a writer that drops and counts rather than stalls.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use super::{AccessLog, LogFormat};
use crate::ending::Reason;

/// How many lines may wait for the disk before further ones are dropped.
const WAITING_LINES: usize = 16 * 1024;

/// What the access log says of one connection. Fields that do not apply are left out.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    /// The listener's name.
    pub listener: &'a str,
    /// What was spoken.
    pub protocol: &'a str,
    /// The client's address.
    pub client: String,
    /// The server name the client asked for (SNI).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<&'a str>,
    /// The version of TLS spoken with the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<&'a str>,
    /// Whom the client's certificate is about; it was verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_subject: Option<&'a str>,
    /// The alternative names in it.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub client_names: &'a [String],
    /// What the proxies on the way know the connection by (PROXY protocol).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unique_id: Option<&'a str>,
    /// The pool's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<&'a str>,
    /// The server's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<&'a str>,
    /// What is known of a request, where the line is of one.
    #[serde(flatten)]
    pub request: Option<RequestLine<'a>>,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// How long connecting to the server took, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_ms: Option<f64>,
    /// How long the connection lasted, in milliseconds.
    pub duration_ms: f64,
    /// How many further servers were tried.
    pub retries: u8,
    /// Why it ended.
    pub reason: Reason,
    /// What lies behind that, where there is more to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'a str>,
}

/// What the access log says of a request. Fields that do not apply are left out.
#[derive(Debug, Serialize)]
pub struct RequestLine<'a> {
    /// The method, where one was read.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub method: &'a str,
    /// The host that was asked for, without its port.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub host: &'a str,
    /// The path, with the query; of what is no request, the target as far as it was read.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub path: &'a str,
    /// The status of the response; left out where there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// From sending the request to the first byte of the response, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte_ms: Option<f64>,
    /// What the request is known by on its way.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub request_id: &'a str,
    /// The user, where a route asks for a name and a password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<&'a str>,
    /// The word for the status of a gRPC call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<&'a str>,
}

/// The open access log.
#[derive(Clone, Debug)]
pub struct AccessWriter(Option<Arc<Open>>);

#[derive(Debug)]
struct Open {
    json: bool,
    lines: NonBlocking,
    dropped: ErrorCounter,
    reopen: Arc<AtomicBool>,
    /// Writes out what waits when the last holder is gone.
    _flush: WorkerGuard,
}

impl AccessWriter {
    /// Opens the access log.
    ///
    /// # Errors
    /// When the file cannot be opened for appending.
    pub fn open(log: &AccessLog, format: LogFormat) -> io::Result<Self> {
        let reopen = Arc::new(AtomicBool::new(false));
        let (sink, terminal): (Box<dyn Write + Send>, bool) = match log {
            AccessLog::Off => return Ok(Self(None)),
            AccessLog::Stdout => (Box::new(io::stdout()), io::stdout().is_terminal()),
            AccessLog::Stderr => (Box::new(io::stderr()), io::stderr().is_terminal()),
            AccessLog::File(path) => {
                let file = append_to(path)?;
                (Box::new(Reopening { path: path.clone(), file, reopen: Arc::clone(&reopen) }), false)
            }
        };
        let (lines, flush) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(WAITING_LINES)
            .thread_name("access-log")
            .finish(sink);
        let dropped = lines.error_counter();
        Ok(Self(Some(Arc::new(Open { json: format.is_json(terminal), lines, dropped, reopen, _flush: flush }))))
    }

    /// Whether lines are wanted at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Writes a line, or drops and counts it when too many are waiting.
    pub fn write(&self, line: &Line<'_>) {
        let Some(open) = &self.0 else {
            return;
        };
        let text = if open.json { json(line) } else { text(line) };
        // A full queue is counted by the writer itself; it has no other failure.
        let _counted = open.lines.clone().write(text.as_bytes());
    }

    /// Opens the file anew before the next line, as log rotation asks for.
    pub fn reopen(&self) {
        if let Some(open) = &self.0 {
            open.reopen.store(true, Ordering::Relaxed);
        }
    }

    /// How many lines were dropped.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.as_ref().map_or(0, |open| open.dropped.dropped_lines() as u64)
    }
}

fn json(line: &Line<'_>) -> String {
    #[derive(Serialize)]
    struct Timed<'a> {
        time: String,
        #[serde(flatten)]
        line: &'a Line<'a>,
    }
    let mut text = serde_json::to_string(&Timed { time: now(), line }).unwrap_or_default();
    text.push('\n');
    text
}

fn text(line: &Line<'_>) -> String {
    let Line {
        listener,
        protocol,
        client,
        server_name,
        tls,
        client_subject,
        client_names,
        unique_id,
        request,
        pool,
        server,
        bytes_in,
        bytes_out,
        connect_ms,
        duration_ms,
        retries,
        reason,
        error,
    } = line;
    let connect = connect_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}ms"));
    let mut text = now();
    // Writing to a string cannot fail.
    let _infallible = write!(
        text,
        " {listener} {protocol} {client} {}/{} in={bytes_in} out={bytes_out} connect={connect} \
         duration={duration_ms:.1}ms retries={retries} {reason}",
        pool.unwrap_or("-"),
        server.unwrap_or("-"),
    );
    let status = request.as_ref().and_then(|request| request.status).map(|status| status.to_string());
    let first_byte = request.as_ref().and_then(|request| request.first_byte_ms).map(|ms| format!("{ms:.1}ms"));
    let of_request = request.as_ref().map(|request| {
        [
            ("status", status.as_deref()),
            ("method", Some(request.method)),
            ("host", Some(request.host)),
            ("path", Some(request.path)),
            ("first_byte", first_byte.as_deref()),
            ("request_id", Some(request.request_id)),
            ("user", request.user),
            ("grpc_status", request.grpc_status),
        ]
    });
    let names = client_names.join(",");
    let fields = [
        ("server_name", *server_name),
        ("tls", *tls),
        ("client_subject", *client_subject),
        ("client_names", Some(&*names).filter(|names| !names.is_empty())),
        ("unique_id", *unique_id),
        ("error", *error),
    ];
    let of_request = of_request.into_iter().flatten();
    let fields =
        fields.into_iter().chain(of_request.map(|(field, value)| (field, value.filter(|value| !value.is_empty()))));
    for (field, value) in fields.filter_map(|(field, value)| Some((field, value?))) {
        // As a JSON string: it may come from the network.
        let _infallible = write!(text, " {field}={}", serde_json::Value::from(value));
    }
    text.push('\n');
    text
}

/// The present in RFC 3339.
fn now() -> String {
    let mut text = String::new();
    let _infallible = SystemTime.format_time(&mut Writer::new(&mut text));
    text
}

fn append_to(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// A file that is opened anew when asked to; when that fails, the old one goes on being written.
struct Reopening {
    path: PathBuf,
    file: File,
    reopen: Arc<AtomicBool>,
}

impl Write for Reopening {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.reopen.swap(false, Ordering::Relaxed) {
            match append_to(&self.path) {
                Ok(file) => self.file = file,
                Err(error) => {
                    tracing::error!(path = %self.path.display(), "the access log cannot be opened anew: {error}")
                }
            }
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(client: &str) -> Line<'_> {
        Line {
            listener: "web",
            protocol: "tcp",
            client: client.to_owned(),
            server_name: None,
            tls: None,
            client_subject: None,
            client_names: &[],
            unique_id: None,
            request: None,
            pool: Some("web"),
            server: None,
            bytes_in: 1,
            bytes_out: 2,
            connect_ms: None,
            duration_ms: 3.5,
            retries: 0,
            reason: Reason::NoServer,
            error: None,
        }
    }

    #[test]
    fn a_json_line_is_one_object_without_the_fields_that_do_not_apply() {
        let text = json(&line("a\"\n\u{1b}b"));
        assert_eq!(text.matches('\n').count(), 1, "text from outside is escaped");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["reason"], "no_server");
        assert_eq!(value["pool"], "web");
        assert!(value["time"].as_str().unwrap().ends_with('Z'));
        assert!(value.get("server").is_none() && value.get("connect_ms").is_none());
    }

    #[test]
    fn what_comes_from_the_network_is_escaped_in_text_as_well() {
        let names = ["a\nb".to_owned()];
        let text =
            text(&Line { server_name: Some("x y"), client_names: &names, error: Some("\u{1b}[2J"), ..line("client") });
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        assert!(text.contains(r#"server_name="x y" client_names="a\nb" error="\u001b[2J""#), "{text}");
    }

    #[test]
    fn a_rotated_file_is_opened_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let writer = AccessWriter::open(&AccessLog::File(path.clone()), LogFormat::Text).unwrap();
        writer.write(&line("first"));
        let Some(open) = &writer.0 else { panic!("the log is off") };
        // The writer's thread is asked to look before each line, so the order of these calls decides.
        let rotated = folder.path().join("access.log.1");
        while !std::fs::read_to_string(&path).unwrap().contains("first") {
            std::thread::yield_now();
        }
        std::fs::rename(&path, &rotated).unwrap();
        writer.reopen();
        assert!(open.reopen.load(Ordering::Relaxed));
        writer.write(&line("second"));
        drop(writer);
        assert!(std::fs::read_to_string(&path).unwrap().contains("second"));
        assert!(!std::fs::read_to_string(&rotated).unwrap().contains("second"));
    }

    #[test]
    fn lines_that_nobody_takes_are_dropped_and_counted_and_stall_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
        // A reader that never reads: the pipe fills, then the queue.
        let reader = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let writer = AccessWriter::open(&AccessLog::File(path), LogFormat::Json).unwrap();
        for _ in 0..2 * WAITING_LINES {
            writer.write(&line("client"));
        }
        assert!(writer.dropped() > 0);
        // With nobody left to read, the writer's thread fails its write and can end.
        drop(reader);
    }
}
