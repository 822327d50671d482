//! What is logged and counted of requests.

use portreeve::ending::{Class, Reason};

use super::{in_front_of, with};
use crate::stage::access::AccessLog;
use crate::stage::http::{Client, Recorder, Stand, ok, serving};
use crate::stage::http2::Version;
use crate::stage::speaker::Speaker;
use crate::stage::{Instance, eventually};

#[tokio::test]
async fn each_request_has_a_line_in_the_access_log_and_its_connection_none() {
    let server = Recorder::answering(ok("hello")).await;
    let log = AccessLog::new();
    let instance = Instance::start(&log.of(&serving(&[server.address()], "", ""))).await;
    let mut client = Client::of(&instance).await;
    let body = "X-Request-Id: id-1\r\nContent-Length: 3\r\n\r\nabc";
    client.send(format!("PUT /a%20b?c=\" HTTP/1.1\r\nHost: A.example:80\r\n{body}").replace('"', "%22")).await;
    client.response().await;
    let line = log.line(1).await;
    let server_name = server.address().to_string();
    for (key, value) in [
        ("listener", "web"),
        ("protocol", "http/1.1"),
        ("method", "PUT"),
        ("host", "a.example"),
        ("path", "/a%20b?c=%22"),
        ("request_id", "id-1"),
        ("pool", "web"),
        ("server", server_name.as_str()),
        ("reason", "done"),
    ] {
        assert_eq!(line[key], value, "{line:#}");
    }
    for (key, value) in [("status", 200), ("bytes_in", 3), ("bytes_out", 5), ("retries", 0)] {
        assert_eq!(line[key], value, "{line:#}");
    }
    for key in ["connect_ms", "first_byte_ms", "duration_ms"] {
        assert!(line[key].as_f64().is_some_and(|time| (0.0..20_000.0).contains(&time)), "{line:#}");
    }
    assert_eq!(line["client"], client.0.stream.local_addr().unwrap().to_string());
    client.ask("/2").await;
    let line = log.line(2).await;
    assert_eq!(line["request_id"].as_str(), server.seen()[1].one("x-request-id"));
    assert!(line["connect_ms"].is_null(), "it had a connection already: {line:#}");
    drop(client);
    instance.ended(Reason::Done, 1).await;
    let mut other = Client::of(&instance).await;
    other.send("GET / HTTP/1.0\r\n\r\n").await;
    other.response().await;
    assert_eq!(log.line(3).await["protocol"], "http/1.0", "nothing was logged in between");
}

#[tokio::test]
async fn requests_that_come_to_nothing_have_their_lines_too() {
    let stand = Stand::new().await;
    let log = AccessLog::new();
    let routes = "routes = [{ host = \"a.example\", pool = \"web\" }]";
    let text = serving(&[stand.address], routes, "retries = 0").replacen("pool = \"web\"\n", "", 1);
    let instance = Instance::start(&log.of(&text)).await;
    let mut client = Client::of(&instance).await;
    client.send("GET /x HTTP/1.1\r\nHost: b\r\n\r\n").await;
    client.response().await;
    let line = log.line(1).await;
    assert_eq!((&line["status"], &line["reason"], &line["path"]), (&404.into(), &"no_route".into(), &"/x".into()));
    assert!(line["server"].is_null() && line["pool"].is_null());
    client.get("/y", "").await;
    drop(stand.asked().await);
    client.response().await;
    let line = log.line(2).await;
    assert_eq!((&line["status"], &line["reason"]), (&502.into(), &"server_closed".into()));
    assert_eq!(line["server"], stand.address.to_string());
    client.get("/z", "").await;
    let (mut server, _) = stand.asked().await;
    server.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").await;
    client.head().await;
    server.reset();
    client.0.rest().await.unwrap_err();
    let line = log.line(3).await;
    assert_eq!(
        (&line["status"], &line["reason"], &line["bytes_out"]),
        (&200.into(), &"server_reset".into(), &4.into())
    );
    let mut client = Client::of(&instance).await;
    client.send("GET /\x1b[31m HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.response().await;
    let line = log.line(4).await;
    assert_eq!((&line["status"], &line["reason"]), (&400.into(), &"bad_request".into()));
    assert!(line["error"].is_string());
    let mut client = Client::of(&instance).await;
    client.get("/gone", "").await;
    let (_server, _) = stand.asked().await;
    client.0.reset();
    let line = log.line(5).await;
    assert_eq!((&line["status"], &line["reason"]), (&serde_json::Value::Null, &"client_reset".into()));
}

#[tokio::test]
async fn requests_are_counted_by_the_class_of_their_response() {
    let server = Recorder::answering("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n").await;
    let instance = with(server.address(), "routes = [{ path = \"/r\", respond = 302 }]", "").await;
    let mut client = Client::of(&instance).await;
    client.ask("/").await;
    client.ask("/").await;
    client.ask("/r").await;
    client.send("GET / HTTP/1.1\r\n\r\n").await;
    client.response().await;
    let listener = instance.listener("web");
    eventually("all are counted", || Class::ALL.iter().map(|class| listener.requests(*class)).sum::<u64>() == 4).await;
    let metric = |class: &str| {
        instance.metric(&format!("portreeve_http_requests_total{{listener=\"web\",class=\"{class}\"}}")).unwrap()
    };
    assert_eq!((metric("4xx"), metric("3xx"), metric("2xx")), (3.0, 1.0, 0.0));
    let ours = instance.metric("portreeve_http_answers_total{listener=\"web\",reason=\"bad_request\"}");
    assert_eq!(ours, Some(1.0));
    let at = server.address();
    assert_eq!(instance.of_server("requests_total", at, ",class=\"4xx\""), 2.0);
    assert_eq!(instance.of_server("response_seconds_count", at, ""), 2.0);
    assert_eq!(instance.listener("web").endings(Reason::Done), 0, "connections are counted when they end");
}

#[tokio::test]
async fn a_connection_counts_as_a_servers_only_while_it_has_a_request() {
    let stand = Stand::new().await;
    let instance = in_front_of(stand.address).await;
    let mut client = Client::of(&instance).await;
    client.get("/", "").await;
    let (mut server, _) = stand.asked().await;
    assert_eq!(instance.of_server("connections_active", stand.address, ""), 1.0);
    server.send(ok("1")).await;
    client.response().await;
    eventually("it has none", || instance.of_server("connections_active", stand.address, "") == 0.0).await;
}

#[tokio::test]
async fn connections_end_for_one_reason_each() {
    let server = Recorder::ok().await;
    let instance = in_front_of(server.address()).await;
    let mut client = Client::of(&instance).await;
    client.ask("/").await;
    drop(client);
    instance.ended(Reason::Done, 1).await;
    drop(Client::of(&instance).await);
    instance.ended(Reason::ClientClosed, 1).await;
    let mut client = Client::of(&instance).await;
    client.send("what?\r\n").await;
    client.response().await;
    client.ends().await;
    instance.ended(Reason::BadRequest, 1).await;
}

#[tokio::test]
async fn requests_are_counted_by_what_they_ended_for() {
    let stand = Stand::new().await;
    for version in Version::each() {
        let instance = in_front_of(stand.address).await;
        let ended = |reason: &str| {
            let series = format!("portreeve_http_ended_total{{listener=\"web\",reason=\"{reason}\"}}");
            instance.metric(&series)
        };
        assert_eq!((ended("done"), ended("server_closed")), (Some(0.0), None));
        let mut client = Speaker::of(version, &instance).await;
        client.get("/", "").await;
        let (mut server, _) = stand.asked().await;
        server.send(ok("whole")).await;
        client.response().await;
        eventually("a good one", || ended("done") == Some(1.0)).await;
        client.get("/", "").await;
        crate::stage::http::next_request(&mut server).await;
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc").await;
        drop(server);
        client.is_cut_off().await;
        eventually("a truncated one", || ended("server_closed") == Some(1.0)).await;
        assert_eq!(instance.listener("web").requests(Class::Successful), 2, "its class says nothing of that");
    }
}

#[tokio::test]
async fn what_is_refused_is_logged_as_far_as_it_was_read() {
    let (server, log) = (Recorder::ok().await, AccessLog::new());
    let limits = "http = { max_uri = \"2KiB\", max_header_fields = 5 }";
    let instance = Instance::start(&log.of(&serving(&[server.address()], limits, ""))).await;
    let long = format!("/{}", "x".repeat(3000));
    let (many, host) = ("A: b\r\n".repeat(5), "Host: A.example:80\r\n");
    let cases = [
        (format!("GET /a/../b?c HTTP/1.1\r\n{host}\r\n"), "GET", "/a/../b?c", "its path has a segment `.` or `..`"),
        (format!("GET {long} HTTP/1.1\r\n{host}\r\n"), "GET", &long[..1024], "its first line is too long"),
        (format!("CONNECT b:1 HTTP/1.1\r\n{host}\r\n"), "CONNECT", "b:1", "CONNECT is not served"),
        (format!("GET * HTTP/1.1\r\n{host}\r\n"), "GET", "*", "its target is no path"),
        (format!("GET /{{ HTTP/1.1\r\n{host}\r\n"), "GET", "/{", "its path has a character that paths have not"),
        (format!("GET /?\" HTTP/1.1\r\n{host}\r\n"), "GET", "/?\"", "its query has a character that queries have not"),
        (format!("GET /m HTTP/1.1\r\n{host}{many}\r\n"), "GET", "/m", "it has more fields than `max_header_fields`"),
    ];
    let mut count = 0;
    for (bytes, method, path, error) in &cases {
        let mut client = Client::of(&instance).await;
        client.send(bytes).await;
        client.response().await;
        count += 1;
        let line = log.line(count).await;
        assert_eq!((&line["method"], &line["path"]), (&(*method).into(), &(*path).into()), "{line}");
        assert_eq!((&line["host"], &line["error"]), (&"a.example".into(), &(*error).into()), "{line}");
    }
    // A host that is none, and what does not even begin like a request.
    for (bytes, path) in [("GET /x HTTP/1.1\r\nHost: a b\r\n\r\n", Some("/x")), ("\x16\x03\x01\x02", None)] {
        let mut client = Client::of(&instance).await;
        client.send(bytes).await;
        client.response().await;
        count += 1;
        let line = log.line(count).await;
        assert_eq!((line["path"].as_str(), line["method"].is_null()), (path, path.is_none()), "{line}");
        assert!(line["host"].is_null(), "{line}");
    }
}

#[tokio::test]
async fn a_head_for_what_is_refused_has_no_body() {
    let server = Recorder::ok().await;
    let instance = in_front_of(server.address()).await;
    for bytes in ["HEAD /.. HTTP/1.1\r\nHost: a\r\n\r\n", "HEAD / HTTP/1.1\r\n\r\n"] {
        let mut client = Client::of(&instance).await;
        client.send(bytes).await;
        assert_eq!(client.head().await.status(), 400);
        assert_eq!(client.0.rest().await.unwrap(), b"");
    }
}

#[tokio::test]
async fn trailers_that_are_too_much_are_called_that() {
    let (server, log) = (Recorder::ok().await, AccessLog::new());
    let instance = Instance::start(&log.of(&serving(&[server.address()], "", ""))).await;
    let cases = [
        (format!("A: {}\r\n", "b".repeat(20_000)), "its trailers are too large"),
        ("A: b\r\n".repeat(200), "it has too many trailers"),
    ];
    for (count, (trailers, error)) in cases.into_iter().enumerate() {
        let mut client = Client::of(&instance).await;
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.send(format!("{head}0\r\n{trailers}\r\n")).await;
        let response = client.response().await;
        assert_eq!((response.status(), response.field("x-portreeve-reason")), (431, "header_too_large"));
        assert_eq!(log.line(count + 1).await["error"], error);
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_in_time_says_which_time_was_too_long() {
    let (server, log) = (Recorder::ok().await, AccessLog::new());
    let timeouts = "timeouts = { body_idle = \"100ms\" }";
    let instance = Instance::start(&log.of(&serving(&[server.address()], timeouts, ""))).await;
    let mut client = Client::of(&instance).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nx").await;
    assert_eq!(client.response().await.status(), 408);
    let line = log.line(1).await;
    assert_eq!(
        (&line["reason"], &line["error"]),
        (&"body_timeout".into(), &"its body stood still for body_idle".into())
    );
}
