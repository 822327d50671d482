//! Stopping, and listeners that go, with requests under way.

use portreeve::app::Stopped;

use super::in_front_of;
use crate::stage::Instance;
use crate::stage::access::AccessLog;
use crate::stage::http::{Client, Recorder, Stand, ok, serving};
use crate::stage::http2::Version;
use crate::stage::speaker::Speaker;

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
