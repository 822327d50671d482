//! The admin listener as its clients meet it: over a loopback socket, in raw bytes.

use super::server::{Limits, serve_within};
use super::*;
use crate::backend::{Ejection, State};
use crate::balance::Policy;
use crate::config::model::{self, AccessLog, LogFormat, LogLevel, Model};
use crate::health::Check;
use crate::metrics::{SourcePorts, Stock};
use crate::net::address::{BindAddr, ServerAddr};
use crate::net::dial::{First, dial};
use crate::net::stream::Stream;
use crate::task::Tasks;
use crate::units::Weight;
use std::future::poll_fn;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

const SOON: Duration = Duration::from_secs(20);

fn model() -> Model {
    let server = |name: &str, backup, max_connections| model::Server {
        name: Name::new(name),
        address: ServerAddr::parse("10.0.0.1:8080", Path::new("/")).unwrap(),
        weight: Weight::new(3).unwrap(),
        priority: 0,
        backup,
        zone: None,
        max_connections,
        duty: crate::backend::Duty::Ready,
        check_address: None,
    };
    Model {
        workers: 2,
        max_connections: 1000,
        descriptors: crate::config::Descriptors {
            limit: 20_000,
            reserve: 100,
            pipes_per_worker: 4,
            max_connections: 9950,
        },
        drain_timeout: Duration::from_secs(90),
        watch: false,
        admin: model::Admin { http: model::AdminHttp::Off },
        log: model::Log {
            level: LogLevel::Info,
            format: LogFormat::Auto,
            access: AccessLog::Off,
            insecure_key_log: false,
        },
        listeners: vec![model::Listener {
            name: Name::new("front"),
            bind: BindAddr::parse("127.0.0.1:0", Path::new("/")).unwrap(),
            protocol: model::Protocol::Tcp,
            proxy_protocol: None,
            front: model::Front::Plain,
            routes: Vec::new(),
            pool: Some(Name::new("web")),
            max_connections: 10,
            backlog: 1,
            timeouts: model::ListenerTimeouts::default(),
        }],
        pools: vec![model::Pool {
            name: Name::new("web"),
            balance: Policy::LeastConn,
            servers: vec![server("a", false, 5), server("b \"quoted\"", true, model::Server::UNLIMITED)],
            outlier: None,
            discover: Vec::new(),
            check: Check::None,
            timeouts: model::PoolTimeouts::default(),
            source: Vec::new(),
            retries: 2,
            on_down: model::OnDown::Keep,
            primary: None,
            rules: crate::pool::Rules::default(),
            max_requests: crate::pool::Rules::UNLIMITED,
            announce: None,
            tls: None,
            http: model::http::HttpPool::default(),
        }],
        files: model::Files::new(),
    }
}

/// An admin listener that runs.
struct Running {
    address: SocketAddr,
    view: Arc<View>,
    tasks: Tasks,
    snapshot: Arc<Snapshot>,
}

impl Running {
    fn new() -> Self {
        Self::within(Limits::default())
    }

    fn within(limits: Limits) -> Self {
        let catalogue = Catalogue::new(2);
        let snapshot = Arc::new(Snapshot::build(model(), None, &catalogue));
        snapshot.take_over();
        let published = Arc::new(Published::from(Arc::clone(&snapshot)));
        let access = AccessWriter::open(&AccessLog::Off, LogFormat::Auto).unwrap();
        let view = Arc::new(View::new(published, Arc::clone(&catalogue), access));
        let tasks = Tasks::new(catalogue);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        serve_within(listener, Arc::clone(&view), &tasks, limits).unwrap();
        Self { address, view, tasks, snapshot }
    }

    fn server(&self, place: usize) -> Arc<State> {
        let pool = self.snapshot.pool(&Name::new("web")).unwrap();
        Arc::clone(&pool.pool.servers().nth(place).unwrap().state)
    }

    async fn connect(&self) -> Stream {
        dial(&ServerAddr(Endpoint::Tcp(self.address)), None, SOON, First::Us).await.unwrap()
    }

    /// The whole answer to a head without its closing empty line.
    async fn ask(&self, head: &str) -> Answer {
        let stream = self.connect().await;
        send(&stream, &format!("{head}\r\nConnection: close\r\n\r\n")).await;
        Answer(rest(&stream).await)
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: {}", self.address)).await
    }
}

struct Answer(String);

impl Answer {
    fn status(&self) -> u16 {
        self.0.get(9..12).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no status: {:?}", self.0))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let head = self.0.split("\r\n\r\n").next().unwrap();
        let mut fields = head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn body(&self) -> &str {
        self.0.split_once("\r\n\r\n").unwrap().1
    }

    fn json(&self) -> serde_json::Value {
        assert_eq!(self.header("content-type"), Some("application/json"));
        serde_json::from_str(self.body()).unwrap()
    }
}

async fn send(stream: &Stream, text: &str) {
    let mut bytes = text.as_bytes();
    while !bytes.is_empty() {
        let sent = poll_fn(|cx| stream.poll_send(cx, bytes, false)).await.unwrap();
        bytes = &bytes[sent..];
    }
}

/// What is still to come, up to the end of the stream; a reset is an end too.
async fn rest(stream: &Stream) -> String {
    let read_all = async {
        let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(read) = poll_fn(|cx| stream.poll_recv(cx, &mut buffer)).await {
            if read.bytes == 0 {
                break;
            }
            all.extend_from_slice(&buffer[..read.bytes]);
        }
        String::from_utf8(all).unwrap()
    };
    tokio::time::timeout(SOON, read_all).await.expect("the connection goes on")
}

#[tokio::test]
async fn the_index_lists_paths_that_are_there_and_nothing_is_cached_or_guessed() {
    let admin = Running::new();
    let index = admin.get("/").await;
    assert_eq!(index.status(), 200);
    let paths: Vec<_> = index.body().lines().filter_map(|line| line.split(' ').next()).collect();
    let paths: Vec<_> = paths.into_iter().filter(|path| path.starts_with('/')).collect();
    assert_eq!(paths.len(), 6);
    for path in paths {
        let answer = admin.get(path).await;
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_404_and_what_would_change_something_is_405() {
    let admin = Running::new();
    for path in ["/nothing", "/metrics/", "/api/v1", "/api/v1/pools/web", "//metrics", "/../metrics"] {
        let answer = admin.get(path).await;
        assert_eq!(answer.status(), 404, "{path}");
        assert!(answer.json()["error"].is_string());
    }
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"] {
        let head = format!("{method} /api/v1/status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4");
        let answer = admin.ask(&head).await;
        assert_eq!(answer.status(), 405, "{method}");
        assert_eq!(answer.header("allow"), Some("GET,HEAD"), "{method}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert!(answer.json()["error"].is_string());
    }
}

#[tokio::test]
async fn a_page_that_rebinds_a_name_or_comes_from_elsewhere_reads_nothing() {
    let admin = Running::new();
    for path in ["/metrics", "/healthz", "/api/v1/pools", "/nothing"] {
        let answer = admin.ask(&format!("GET {path} HTTP/1.1\r\nHost: evil.example:9180")).await;
        assert_eq!(answer.status(), 421, "{path}");
        assert!(answer.json()["error"].as_str().unwrap().contains("Host"));
    }
    let foreign = admin.ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example").await;
    assert_eq!((foreign.status(), foreign.header("cache-control")), (403, Some("no-store")));
    assert_eq!(admin.ask("GET http://evil.example/metrics HTTP/1.1\r\nHost: localhost").await.status(), 421);
    assert_eq!(admin.ask("GET /metrics HTTP/1.0").await.status(), 200);
}

#[tokio::test]
async fn while_it_drains_a_process_is_healthy_and_not_ready() {
    let admin = Running::new();
    let answer = admin.get("/readyz").await;
    assert_eq!((answer.status(), answer.body()), (200, "ready"));
    assert_eq!(is_ready(admin.address, SOON).await, Ok(true));
    admin.view.set_draining();
    let answer = admin.get("/readyz").await;
    assert_eq!((answer.status(), answer.body()), (503, "draining"));
    assert_eq!(is_ready(admin.address, SOON).await, Ok(false));
    assert_eq!(admin.get("/healthz").await.body(), "ok");
    assert_eq!(admin.get("/api/v1/status").await.json()["draining"], true);
}

#[tokio::test]
async fn every_line_of_the_metrics_is_of_the_text_format() {
    let admin = Running::new();
    let answer = admin.get("/metrics").await;
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4"));
    let lines: Vec<_> = answer.body().lines().collect();
    assert!(lines.len() > 50, "only {} lines", lines.len());
    for line in &lines {
        assert!(is_comment(line) || is_sample(line), "{line:?}");
    }
    assert!(lines.contains(&r#"portreeve_server_up{pool="web",server="b \"quoted\""} 1"#));
    assert!(lines.contains(&"portreeve_access_log_dropped_total 0"));
}

fn is_comment(line: &str) -> bool {
    let kinds = ["counter", "gauge", "histogram"];
    match line.splitn(4, ' ').collect::<Vec<_>>()[..] {
        ["#", "HELP", name, help] => is_metric_name(name) && !help.is_empty(),
        ["#", "TYPE", name, kind] => is_metric_name(name) && kinds.contains(&kind),
        _ => false,
    }
}

fn is_sample(line: &str) -> bool {
    let Some((series, value)) = line.rsplit_once(' ') else { return false };
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}')),
        None => (series, Some("")),
    };
    is_metric_name(name) && labels.is_some_and(are_labels) && value.parse::<f64>().is_ok()
}

/// Zero or more `name="value"` with commas between them; in a value, `\` escapes `\`, `"` and `n`.
fn are_labels(mut text: &str) -> bool {
    while !text.is_empty() {
        let Some((name, rest)) = text.split_once("=\"") else { return false };
        let mut characters = rest.char_indices();
        let end = loop {
            match characters.next() {
                Some((at, '"')) => break at,
                Some((_, '\\')) if characters.next().is_some_and(|(_, c)| matches!(c, '\\' | '"' | 'n')) => {}
                Some((_, '\\')) | None => return false,
                Some(_) => {}
            }
        };
        text = &rest[end + 1..];
        if !is_metric_name(name) || !(text.is_empty() || text.starts_with(',')) {
            return false;
        }
        text = text.strip_prefix(',').unwrap_or(text);
    }
    true
}

fn is_metric_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

#[tokio::test]
async fn the_status_says_what_is_in_effect_and_how_the_last_reload_went() {
    let admin = Running::new();
    admin.view.catalogue.set_descriptors(Stock { free: 7, total: 9, lasts: None });
    let before = admin.get("/api/v1/status").await.json();
    assert_eq!(before["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(before["generation"], 1);
    let limits = serde_json::json!({
        "max_connections": 1000, "descriptors": 20_000, "descriptors_reserved": 100, "descriptors_free": 7,
        "drain_timeout": "1m30s"
    });
    assert_eq!(before["limits"], limits);
    assert_eq!(before["workers"][1], serde_json::json!({ "worker": 1, "connections_active": 0, "handed_over": 0 }));
    assert_eq!((&before["draining"], &before["connections_active"]), (&false.into(), &0.into()));
    assert!(before["uptime_seconds"].as_u64().unwrap() < 60);
    assert!(before["started"].as_str().unwrap().ends_with('Z'));
    assert!(before["last_reload"].is_null());
    let note = ReloadNote { at: SystemTime::UNIX_EPOCH, applied: false, message: "line 3: \"x\"".to_owned() };
    admin.view.set_last_reload(note);
    let after = admin.get("/api/v1/status").await.json();
    let shown = serde_json::json!({ "at": "1970-01-01T00:00:00.000Z", "applied": false, "message": "line 3: \"x\"" });
    assert_eq!(after["last_reload"], shown);
}

#[tokio::test]
async fn a_listener_shows_what_was_asked_for_what_is_bound_and_what_it_carried() {
    let admin = Running::new();
    let bound = Endpoint::Tcp("127.0.0.1:4711".parse().unwrap());
    admin.view.set_endpoints(Endpoints::from([(Name::new("front"), vec![bound])]));
    let metrics = &admin.snapshot.listener(&Name::new("front")).unwrap().metrics;
    assert!(metrics.active.enter(u32::MAX));
    metrics.accepted(0);
    metrics.accepted(1);
    metrics.bytes_in(0, 7);
    metrics.bytes_out(1, 9);
    let expected = serde_json::json!([{
        "name": "front", "bind": ["127.0.0.1:0"], "endpoints": ["127.0.0.1:4711"], "pool": "web", "protocol": "tcp",
        "max_connections": 10, "tls": null, "timeouts": { "handshake": "5s", "idle": "5m", "half_close": "30s", "max_age": "0s" },
        "connections_active": 1, "connections_total": 2, "bytes_in": 7, "bytes_out": 9,
    }]);
    assert_eq!(admin.get("/api/v1/listeners").await.json(), expected);
}

#[tokio::test]
async fn a_pool_shows_how_each_server_does_and_why() {
    let admin = Running::new();
    admin.server(0).set_health(false, "connection refused");
    admin.server(0).metrics().connect_failed(1, crate::ending::Reason::ConnectRefused);
    admin.server(1).metrics().connected(0, Duration::ZERO);
    admin.server(1).metrics().bytes_in(0, 5);
    let stock = |free, lasts| Stock { free, total: 4, lasts };
    let from = SourcePorts { source: "10.0.0.9".parse().ok(), ports: stock(3, Some(Duration::from_millis(1500))) };
    let left = vec![from, SourcePorts { source: None, ports: stock(4, None) }];
    admin.view.catalogue.set_source_ports([((Name::new("web"), Name::new("a")), left)].into());
    let pools = admin.get("/api/v1/pools").await.json();
    let pool = &pools[0];
    assert_eq!(
        (&pool["name"], &pool["balance"], &pool["servers_open"]),
        (&"web".into(), &"least_conn".into(), &1.into())
    );
    assert_eq!(
        (&pool["queue"], &pool["queue_max"], &pool["fail_open"], &pool["max_connections"]),
        (&0.into(), &1000.into(), &false.into(), &serde_json::Value::Null)
    );
    let (down, spare) = (&pool["servers"][0], &pool["servers"][1]);
    assert!(down["since"].as_str().unwrap().ends_with('Z'));
    let mut down = down.clone();
    down.as_object_mut().unwrap().remove("since");
    let expected = serde_json::json!({
        "name": "a", "address": "10.0.0.1:8080", "weight": 3, "priority": 0, "backup": false, "zone": null,
        "max_connections": 5, "state": "down", "until": null, "reason": "connection refused", "warming": false, "connections_active": 0, "connections_total": 0,
        "connect_failures": 1, "bytes_in": 0, "bytes_out": 0, "role": null, "standby": false, "share": 100,
        "source_ports": [
            { "source": "10.0.0.9", "free": 3, "total": 4, "exhausted_in_seconds": 1.5 },
            { "source": null, "free": 4, "total": 4, "exhausted_in_seconds": null },
        ],
    });
    assert_eq!(down, expected);
    assert_eq!((&spare["state"], &spare["reason"]), (&"up".into(), &"not checked yet".into()));
    assert_eq!((&spare["connections_total"], &spare["bytes_in"]), (&1.into(), &5.into()));
    assert!(spare["max_connections"].is_null());
}

#[tokio::test]
async fn a_server_that_is_ejected_is_shown_with_why_and_until_when() {
    let admin = Running::new();
    let since = SystemTime::UNIX_EPOCH;
    let reason = "5 responses in a row were 502, 503 or 504".to_owned();
    let ejection = Ejection { since, until: since + Duration::from_secs(30), reason };
    admin.server(1).set_ejected(Some(ejection));
    let shown = admin.get("/api/v1/pools").await.json()[0]["servers"][1].clone();
    assert_eq!(
        (&shown["state"], &shown["reason"]),
        (&"ejected".into(), &"5 responses in a row were 502, 503 or 504".into())
    );
    assert!(shown["since"].as_str().unwrap().starts_with("1970-01-01T00:00:00"), "{shown}");
    assert!(shown["until"].as_str().unwrap().starts_with("1970-01-01T00:00:30"), "{shown}");
    let ejected = "portreeve_server_ejected{pool=\"web\",server=\"b \\\"quoted\\\"\"} 1";
    assert!(admin.view.metrics().lines().any(|line| line == ejected));
    // Whoever is down as well is shown as that.
    admin.server(1).set_health(false, "connection refused");
    let shown = admin.get("/api/v1/pools").await.json()[0]["servers"][1].clone();
    assert_eq!((&shown["state"], &shown["until"]), (&"down".into(), &serde_json::Value::Null));
}

#[tokio::test]
async fn a_client_that_takes_too_long_to_ask_is_cut() {
    let admin = Running::within(Limits { head: Duration::from_millis(500), ..Limits::default() });
    let silent = admin.connect().await;
    let slow = admin.connect().await;
    send(&slow, "GET /healthz HTTP/1.1\r\nX-Slow: ").await;
    let idle = admin.connect().await;
    send(&idle, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(rest(&silent).await, "");
    assert!(!rest(&slow).await.contains(" 200 "));
    assert!(rest(&idle).await.ends_with("\r\n\r\nok"), "one that was answered and then says nothing is cut as well");
}

#[tokio::test]
async fn a_connection_that_never_pauses_ends_all_the_same() {
    let admin = Running::within(Limits { connection: Duration::from_millis(200), ..Limits::default() });
    let stream = admin.connect().await;
    let ask_on = async {
        let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let mut buffer = [0; 4096];
        while poll_fn(|cx| stream.poll_send(cx, request, false)).await.is_ok() {
            match poll_fn(|cx| stream.poll_recv(cx, &mut buffer)).await {
                Ok(read) if read.bytes > 0 => {}
                Ok(_) | Err(_) => break,
            }
        }
    };
    tokio::time::timeout(SOON, ask_on).await.expect("the connection goes on");
}

#[tokio::test]
async fn a_hundred_idle_connections_do_not_keep_the_next_one_out() {
    let admin = Running::within(Limits { head: Duration::from_millis(200), ..Limits::default() });
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(admin.connect().await);
    }
    assert_eq!(admin.get("/healthz").await.body(), "ok");
    assert!(admin.tasks.len() <= 1 + 64, "{} tasks", admin.tasks.len());
}

#[tokio::test]
async fn a_head_beyond_every_measure_is_refused() {
    let admin = Running::new();
    let head = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: {}", "x".repeat(64 * 1024));
    let stream = admin.connect().await;
    let mut bytes = head.as_bytes();
    // It may stop reading, and reset, before all is sent.
    while let Ok(sent @ 1..) = poll_fn(|cx| stream.poll_send(cx, bytes, false)).await {
        bytes = &bytes[sent..];
    }
    let answer = rest(&stream).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn when_the_tasks_are_to_stop_idle_clients_are_let_go_and_nobody_is_accepted() {
    let hour = Duration::from_secs(3600);
    let admin = Running::within(Limits { head: hour, connection: hour, ..Limits::default() });
    let idle = admin.connect().await;
    send(&idle, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut buffer = [0; 4096];
    assert!(poll_fn(|cx| idle.poll_recv(cx, &mut buffer)).await.unwrap().bytes > 0);
    let silent = admin.connect().await;
    assert_eq!(admin.get("/healthz").await.body(), "ok", "and by now the silent one is accepted");
    admin.tasks.stop();
    tokio::time::timeout(SOON, admin.tasks.ended()).await.expect("a task goes on");
    assert_eq!((rest(&idle).await, rest(&silent).await), (String::new(), String::new()));
    assert!(dial(&ServerAddr(Endpoint::Tcp(admin.address)), None, SOON, First::Us).await.is_err());
}
