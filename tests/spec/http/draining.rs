//! Stopping, and listeners that go, with requests under way.

use portreeve::app::Stopped;

use super::in_front_of;
use crate::stage::access::AccessLog;
use crate::stage::http::{Client, Recorder, Stand, ok, serving};
use crate::stage::http2::Version;
use crate::stage::speaker::Speaker;
use crate::stage::{Instance, eventually};

#[tokio::test]
async fn requests_under_way_are_finished_and_told_that_they_are_the_last() {
    let stand = Stand::new().await;
    let instance = in_front_of(stand.address).await;
    let (mut waiting, mut fresh) = (Client::of(&instance).await, Client::of(&instance).await);
    waiting.get("/", "").await;
    let (mut server, _) = stand.asked().await;
    server.send(ok("1")).await;
    waiting.response().await;
    let mut busy = Client::of(&instance).await;
    busy.get("/", "").await;
    crate::stage::http::next_request(&mut server).await;
    let mut half = Client::of(&instance).await;
    half.get("/", "").await;
    let (mut other, _) = stand.asked().await;
    other.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab").await;
    half.head().await;
    let clients = async {
        waiting.ends().await;
        fresh.ends().await;
        server.send(ok("2")).await;
        let response = busy.response().await;
        assert_eq!((response.text(), response.field("connection")), ("2", "close"));
        busy.ends().await;
        other.send("cd").await;
        assert_eq!(half.0.rest().await.unwrap(), b"abcd");
        server.ends().await;
        other.ends().await;
    };
    let (stopped, ()) = tokio::join!(instance.running.stop(), clients);
    let Stopped { reset, .. } = stopped;
    assert_eq!(reset, 0);
}

#[tokio::test]
async fn requests_that_do_not_finish_within_the_drain_timeout_are_cut_off() {
    let stand = Stand::new().await;
    let text = format!("drain_timeout = \"200ms\"\n{}", serving(&[stand.address], "", ""));
    let instance = Instance::start(&text).await;
    let mut answered = Client::of(&instance).await;
    answered.get("/", "").await;
    let (mut server, _) = stand.asked().await;
    server.send("HTTP/1.1 200 OK\r\n\r\nhalf").await;
    answered.head().await;
    let mut waiting = Client::of(&instance).await;
    waiting.get("/", "").await;
    let (_mute, _) = stand.asked().await;
    let clients = async {
        waiting.is_cut_off().await;
        let rest = answered.0.rest().await;
        assert!(rest.is_err(), "{rest:?} could be taken for the whole");
    };
    let (stopped, ()) = tokio::join!(instance.running.stop(), clients);
    assert_eq!(stopped.reset, 2);
}

#[tokio::test]
async fn a_listener_that_goes_finishes_its_requests() {
    let stand = Stand::new().await;
    let text = serving(&[stand.address], "", "");
    let instance = Instance::start(&text).await;
    let (mut busy, mut waiting) = (Client::of(&instance).await, Client::of(&instance).await);
    busy.get("/", "").await;
    let (mut server, _) = stand.asked().await;
    instance.running.reload_text(&text.replace("[listeners.web]", "[listeners.new]")).await.unwrap();
    waiting.ends().await;
    server.send(ok("last")).await;
    let response = busy.response().await;
    assert_eq!((response.text(), response.field("connection")), ("last", "close"));
    busy.ends().await;
}

#[tokio::test]
async fn what_is_cut_off_says_whether_its_listener_went_or_the_process_stops() {
    for (version, stops) in Version::each().flat_map(|version| [(version, false), (version, true)]) {
        let (stand, log) = (Stand::new().await, AccessLog::new());
        let text = log.of(&format!("drain_timeout = \"100ms\"\n{}", serving(&[stand.address], "", "")));
        let instance = Instance::start(&text).await;
        let mut client = Speaker::of(version, &instance).await;
        client.get("/", "").await;
        let (_server, _) = stand.asked().await;
        match stops {
            true => drop(instance.running.stop().await),
            false => {
                let text = text.replace("[listeners.web]", "[listeners.new]");
                instance.running.reload_text(&text).await.unwrap();
                client.is_cut_off().await;
            }
        }
        assert_eq!(log.line(1).await["reason"], if stops { "shutdown" } else { "drained" }, "{version:?}");
    }
}

#[tokio::test]
async fn half_a_head_is_drained_with_its_listener() {
    let (server, log) = (Recorder::ok().await, AccessLog::new());
    let text = log.of(&format!("drain_timeout = \"100ms\"\n{}", serving(&[server.address()], "", "")));
    let instance = Instance::start(&text).await;
    let mut client = Client::of(&instance).await;
    client.ask("/").await;
    client.send("GET /half").await;
    instance.running.reload_text(&text.replace("[listeners.web]", "[listeners.new]")).await.unwrap();
    let response = client.response().await;
    assert_eq!((response.status(), response.field("x-portreeve-reason")), (503, "drained"));
    let line = log.line(2).await;
    assert_eq!((&line["reason"], &line["path"]), (&"drained".into(), &"/half".into()), "{line}");
}

/// A configuration with one server in this state, and what its pool says of servers that go.
fn in_state(stand: &Stand, state: &str, on_down: &str) -> String {
    let server = format!("[{{ address = \"{}\", state = \"{state}\" }}]", stand.address);
    let text = serving(&[stand.address], "", &format!("on_down = \"{on_down}\""));
    let text = text.replace(&crate::stage::list(&[stand.address]), &server);
    format!("drain_timeout = \"200ms\"\n{text}")
}

#[tokio::test]
async fn requests_at_a_server_that_goes_end_as_its_pool_says_and_their_connections_stay() {
    for (version, on_down) in Version::each().flat_map(|version| ["reset", "drain"].map(|on_down| (version, on_down))) {
        let (stand, log) = (Stand::new().await, AccessLog::new());
        let instance = Instance::start(&log.of(&in_state(&stand, "ready", on_down))).await;
        let (mut waiting, mut half) = (Speaker::of(version, &instance).await, Speaker::of(version, &instance).await);
        waiting.get("/waiting", "").await;
        let (_mute, _) = stand.asked().await;
        half.get("/half", "").await;
        let (mut server, _) = stand.asked().await;
        server.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab").await;
        let moved = || instance.of_server("bytes_total", stand.address, ",direction=\"out\"");
        eventually("half of a response", || moved() == 2.0).await;
        instance.running.reload_text(&log.of(&in_state(&stand, "maintenance", on_down))).await.unwrap();
        let response = waiting.response().await;
        assert_eq!((response.status(), response.field("x-portreeve-reason")), (503, "drained"), "{version:?}");
        half.is_cut_off().await;
        let lines = log.lines(2).await;
        assert!(lines.iter().all(|line| line["reason"] == "drained"), "{lines:?}");
        // Once it is back, it gets what the same client asks for.
        instance.running.reload_text(&log.of(&in_state(&stand, "ready", on_down))).await.unwrap();
        waiting.get("/again", "").await;
        let (mut server, _) = stand.asked().await;
        server.send(ok("back")).await;
        assert_eq!(waiting.response().await.text(), "back");
    }
}

#[tokio::test]
async fn requests_at_a_server_that_goes_are_finished_where_nothing_else_is_said_or_there_is_time() {
    for (on_down, drain_timeout) in [("keep", "0s"), ("drain", "1h")] {
        let stand = Stand::new().await;
        let text = |state| in_state(&stand, state, on_down).replace("200ms", drain_timeout);
        let instance = Instance::start(&text("ready")).await;
        let mut client = Client::of(&instance).await;
        client.get("/", "").await;
        let (mut server, _) = stand.asked().await;
        instance.running.reload_text(&text("maintenance")).await.unwrap();
        server.send(ok("in peace")).await;
        let response = client.response().await;
        assert_eq!((response.text(), response.one("connection")), ("in peace", None));
    }
}

#[tokio::test]
async fn a_request_whose_server_goes_is_tried_at_another_if_resets_are() {
    let (stand, other) = (Stand::new().await, Recorder::ok().await);
    let text = |state| {
        let both = crate::stage::list(&[stand.address, other.address()]);
        in_state(&stand, state, "reset")
            .replace("servers = [", "retry_on = [\"reset\"]\nbalance = \"round_robin\"\nservers = [")
            .replace(&format!("state = \"{state}\" }}]"), &format!("state = \"{state}\" }}, \"{}\"]", other.address()))
            .replace(&both, "")
    };
    let instance = Instance::start(&text("ready")).await;
    // One of them has come to the other server.
    let mut clients = [Client::of(&instance).await, Client::of(&instance).await];
    for client in &mut clients {
        client.get("/", "").await;
    }
    let (_mute, _) = stand.asked().await;
    instance.running.reload_text(&text("maintenance")).await.unwrap();
    for client in &mut clients {
        assert_eq!(client.response().await.text(), "ok");
    }
}
