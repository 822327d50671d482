//! Calls of gRPC, as far as they are not about the version of HTTP: their deadlines, and what is said of how they ended.

use std::time::Duration;

use portreeve::ending::Reason;

use super::origin::{Message, Origin, ask, configuration, http, ok};
use crate::stage::access::AccessLog;
use crate::stage::{ClosedPort, Instance, Server, eventually};

fn call(fields: &str) -> String {
    format!(
        "POST /echo.Echo/Say HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc+proto\r\nTE: trailers\r\n{fields}\
         Content-Length: 5\r\n\r\n\0\0\0\0\0"
    )
}

fn count(status: &str) -> String {
    format!("portreeve_http_grpc_total{{listener=\"web\",status=\"{status}\"}}")
}

/// Waits until one call has ended with this status.
async fn counted(instance: &Instance, status: &str) {
    eventually(status, || instance.metric(&count(status)) == Some(1.0)).await;
}

#[tokio::test]
async fn how_a_call_ended_is_in_the_access_log_and_counted_be_it_said_in_trailers_or_in_the_head() {
    let origin = Origin::start(|request| match request.value("x-want") {
        Some("trailers") => b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n\
                              5\r\n\0\0\0\0\0\r\n0\r\ngrpc-status: 5\r\ngrpc-message: nobody%21\r\n\r\n"
            .to_vec(),
        Some("head") => ok("Content-Type: application/grpc\r\ngrpc-status: 0\r\n", ""),
        Some(_) | None => b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".to_vec(),
    })
    .await;
    let log = AccessLog::new();
    let instance = Instance::start(&log.of(&configuration("", &[origin.server.address], ""))).await;
    for (place, (wants, status)) in
        [("trailers", "not_found"), ("head", "ok"), ("neither", "unavailable")].into_iter().enumerate()
    {
        let answer = ask(&instance, &call(&format!("X-Want: {wants}\r\n"))).await;
        if wants == "trailers" {
            assert_eq!(answer.trailers, "grpc-status: 5\r\ngrpc-message: nobody%21\r\n");
        }
        assert_eq!(log.line(place + 1).await["grpc_status"], status);
        assert_eq!(instance.metric(&count(status)), Some(1.0));
    }
    // Other requests have no such status.
    ask(&instance, "GET / HTTP/1.1\r\nHost: a\r\nX-Want: head\r\n\r\n").await;
    assert!(log.line(4).await.get("grpc_status").is_none());
    assert_eq!(instance.metric(&count("ok")), Some(1.0));
}

fn assert_ended(answer: &Message, code: &str, reason: Reason) {
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.value("content-type"), Some("application/grpc"));
    assert_eq!(answer.value("grpc-status"), Some(code));
    assert_eq!(answer.value("grpc-message"), Some(reason.label()));
    assert_eq!(answer.value("x-portreeve-reason"), Some(reason.label()));
    assert!(answer.body.is_empty());
}

#[tokio::test]
async fn our_own_answer_to_a_call_is_one_that_its_caller_understands() {
    let closed = ClosedPort::new();
    let routes = "routes = [{ path = \"/echo.Echo\", method = \"POST\", headers = { x-deny = \"*\" }, pool = \"web\", \
                  allow = [\"192.0.2.0/24\"] }]";
    let instance = http(routes, &[closed.address], "").await;
    assert_ended(&ask(&instance, &call("")).await, "14", Reason::ConnectRefused);
    assert_ended(&ask(&instance, &call("X-Deny: 1\r\n")).await, "7", Reason::RefusedAcl);
    counted(&instance, "permission_denied").await;
    // Who is no caller gets an answer of HTTP.
    assert_eq!(ask(&instance, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.status(), 502);
}

#[tokio::test]
async fn a_call_has_the_time_that_its_caller_gives_it() {
    let silent = Server::silent().await;
    let instance = http("", &[silent.address], "").await;
    let begun = std::time::Instant::now();
    assert_ended(&ask(&instance, &call("grpc-timeout: 50m\r\n")).await, "4", Reason::RequestTimeout);
    assert!(begun.elapsed() >= Duration::from_millis(50));
    counted(&instance, "deadline_exceeded").await;
}

#[tokio::test]
async fn the_server_hears_what_is_left_of_the_time_of_a_call() {
    let origin = Origin::start(|_| ok("Content-Type: application/grpc\r\ngrpc-status: 0\r\n", "")).await;
    let route = "routes = [{ path = \"/echo.Echo\", pool = \"web\", timeout = \"20s\" }]";
    let instance = http(route, &[origin.server.address], "").await;
    let left = async |timeout: &str| {
        ask(&instance, &call(&format!("grpc-timeout: {timeout}\r\n"))).await;
        let request = origin.last();
        let left = request.value("grpc-timeout").unwrap();
        portreeve::message::grpc::parse_timeout(left.as_bytes()).unwrap_or_else(|| panic!("{left}"))
    };
    let short = left("10S").await;
    assert!(short < Duration::from_secs(10) && short > Duration::from_secs(5), "{short:?}");
    // What the route allows is less.
    let long = left("1H").await;
    assert!(long < Duration::from_secs(20) && long > Duration::from_secs(10), "{long:?}");
    // What cannot be read is for the server to judge, and one who names no time is given none.
    ask(&instance, &call("grpc-timeout: soon\r\n")).await;
    assert_eq!(origin.last().value("grpc-timeout"), Some("soon"));
    ask(&instance, &call("")).await;
    assert_eq!(origin.last().value("grpc-timeout"), None);
}
