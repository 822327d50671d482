//! Connections to servers are kept for the next request, within bounds, and only where nothing speaks against it. They are
//! of HTTP/1; what is kept of HTTP/2 has a chapter of its own. The clients' version makes no difference.

use super::{in_front_of, with};
use crate::stage::http::{Client, Recorder, Stand, next_request, ok, serving};
use crate::stage::http2::Version;
use crate::stage::speaker::Speaker;
use crate::stage::{Instance, eventually};

#[tokio::test]
async fn requests_of_all_clients_share_the_connections_of_a_worker() {
    for version in Version::each() {
        let server = Recorder::ok().await;
        let instance = in_front_of(server.address()).await;
        for _ in 0..5 {
            let mut client = Speaker::of(version, &instance).await;
            client.ask("/").await;
            client.ask("/").await;
        }
        assert_eq!((instance.upstream(server.address()), server.connections()), ((1, 9), 1));
    }
}

#[tokio::test]
async fn the_connection_used_last_is_used_first() {
    for version in Version::each() {
        let stand = Stand::new().await;
        let instance = in_front_of(stand.address).await;
        let (mut one, mut two) = (Speaker::of(version, &instance).await, Speaker::of(version, &instance).await);
        one.get("/1", "").await;
        let (mut first, _) = stand.asked().await;
        two.get("/2", "").await;
        let (mut second, _) = stand.asked().await;
        first.send(ok("1")).await;
        one.response().await;
        second.send(ok("2")).await;
        two.response().await;
        for _ in 0..3 {
            one.get("/3", "").await;
            next_request(&mut second).await;
            second.send(ok("3")).await;
            one.response().await;
        }
    }
}

#[tokio::test]
async fn no_more_than_max_idle_connections_wait_and_the_oldest_makes_room() {
    for version in Version::each() {
        let stand = Stand::new().await;
        let instance = with(stand.address, "", "upstream = { max_idle = 1 }").await;
        let (mut one, mut two) = (Speaker::of(version, &instance).await, Speaker::of(version, &instance).await);
        one.get("/1", "").await;
        let (mut first, _) = stand.asked().await;
        two.get("/2", "").await;
        let (mut second, _) = stand.asked().await;
        first.send(ok("1")).await;
        one.response().await;
        second.send(ok("2")).await;
        two.response().await;
        first.ends().await;
        two.get("/3", "").await;
        next_request(&mut second).await;
    }
}

#[tokio::test]
async fn connections_that_are_missed_at_once_may_wait_beyond_max_idle_until_they_are_not() {
    for version in Version::each() {
        let stand = Stand::new().await;
        let instance = with(stand.address, "", "upstream = { max_idle = 1 }").await;
        let (mut one, mut two) = (Speaker::of(version, &instance).await, Speaker::of(version, &instance).await);
        one.get("/", "").await;
        let (mut kept, _) = stand.asked().await;
        two.get("/", "").await;
        let (mut other, _) = stand.asked().await;
        let mut rounds = 0;
        loop {
            // Where the second finds room, it waits for longer than the first.
            other.send(ok("2")).await;
            two.response().await;
            kept.send(ok("1")).await;
            one.response().await;
            one.get("/", "").await;
            next_request(&mut kept).await;
            two.get("/", "").await;
            if other.request().await.unwrap().is_some() {
                break;
            }
            rounds += 1;
            assert!(rounds < 20, "those that are missed each time are closed each time");
            (other, _) = stand.asked().await;
        }
        assert!(rounds > 0, "the first time, there are no more than may be");
        other.send(ok("2")).await;
        two.response().await;
        kept.send(ok("1")).await;
        one.response().await;
        other.ends().await;
        one.get("/", "").await;
        next_request(&mut kept).await;
    }
}

#[tokio::test]
async fn with_max_idle_zero_each_request_has_a_connection_of_its_own() {
    for version in Version::each() {
        let server = Recorder::ok().await;
        let instance = with(server.address(), "", "upstream = { max_idle = 0 }").await;
        let mut client = Speaker::of(version, &instance).await;
        for _ in 0..3 {
            client.ask("/").await;
        }
        assert_eq!((instance.upstream(server.address()), server.connections()), ((3, 0), 3));
    }
}

#[tokio::test]
async fn a_connection_has_no_more_than_max_requests() {
    for version in Version::each() {
        let server = Recorder::ok().await;
        let instance = with(server.address(), "", "upstream = { max_requests = 3 }").await;
        let mut client = Speaker::of(version, &instance).await;
        for _ in 0..7 {
            client.ask("/").await;
        }
        let where_: Vec<_> = server.seen_where().into_iter().map(|(connection, _)| connection).collect();
        assert_eq!(where_, [0, 0, 0, 1, 1, 1, 2]);
    }
}

#[tokio::test]
async fn a_connection_that_has_waited_for_too_long_is_closed() {
    for version in Version::each() {
        let stand = Stand::new().await;
        let instance = with(stand.address, "", "upstream = { idle_timeout = \"100ms\" }").await;
        let mut client = Speaker::of(version, &instance).await;
        client.get("/", "").await;
        let (mut server, _) = stand.asked().await;
        server.send(ok("1")).await;
        client.response().await;
        server.ends().await;
        client.get("/", "").await;
        let (mut server, _) = stand.asked().await;
        server.send(ok("2")).await;
        assert_eq!(client.response().await.text(), "2");
    }
}

#[tokio::test]
async fn a_connection_is_no_older_than_max_age_when_it_is_used() {
    for version in Version::each() {
        let stand = Stand::new().await;
        let instance = with(stand.address, "", "upstream = { max_age = \"1ms\" }").await;
        let mut client = Speaker::of(version, &instance).await;
        for body in ["1", "2"] {
            client.get("/", "").await;
            let (mut server, _) = stand.asked().await;
            let sent = std::time::Instant::now();
            eventually("a millisecond has passed", || sent.elapsed().as_millis() >= 2).await;
            server.send(ok(body)).await;
            assert_eq!(client.response().await.text(), body);
            server.ends().await;
        }
    }
}

#[tokio::test]
async fn a_connection_that_its_server_closed_meanwhile_is_not_used() {
    for version in Version::each() {
        let stand = Stand::new().await;
        let instance = with(stand.address, "", "retries = 0\nretry_on = []").await;
        let mut client = Speaker::of(version, &instance).await;
        // A POST cannot be sent twice: it would fail on a connection that is closed.
        for body in ["1", "2", "3"] {
            client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx").await;
            let (mut server, _) = stand.asked().await;
            server.send(ok(body)).await;
            assert_eq!(client.response().await.text(), body);
            if body == "1" {
                server.reset()
            } else {
                drop(server)
            }
            // The end has to arrive there, which cannot be seen from here but by its being acknowledged.
            let mut another = Client::of(&instance).await;
            another.send("GET / HTTP/1.1\r\n\r\n").await;
            assert_eq!(another.response().await.status(), 400);
        }
        assert_eq!(instance.upstream(stand.address), (3, 0));
    }
}

#[tokio::test]
async fn a_connection_on_which_a_server_said_something_unasked_is_not_used() {
    for version in Version::each() {
        let stand = Stand::new().await;
        let instance = in_front_of(stand.address).await;
        let (mut client, mut other) = (Speaker::of(version, &instance).await, Speaker::of(version, &instance).await);
        client.get("/1", "").await;
        let (mut server, _) = stand.asked().await;
        server.send([ok("1"), ok("evil")].concat()).await;
        assert_eq!(client.response().await.text(), "1");
        server.rest().await.map(drop).ok();
        other.get("/2", "").await;
        let (mut server, _) = stand.asked().await;
        server.send(ok("2")).await;
        assert_eq!(other.response().await.text(), "2");
        server.send(ok("evil")).await;
        server.rest().await.map(drop).ok();
        client.get("/3", "").await;
        let (mut server, _) = stand.asked().await;
        server.send(ok("3")).await;
        assert_eq!(client.response().await.text(), "3");
    }
}

#[tokio::test]
async fn a_server_that_says_close_is_taken_at_its_word() {
    for version in Version::each() {
        for answer in [
            "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ] {
            let server = Recorder::answering(answer).await;
            let instance = in_front_of(server.address()).await;
            let mut client = Speaker::of(version, &instance).await;
            client.ask("/").await;
            let response = client.ask("/").await;
            assert_eq!((response.status(), response.one("connection")), (200, None));
            assert_eq!(instance.upstream(server.address()), (2, 0), "{answer}");
        }
        let server =
            Recorder::answering("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok").await;
        let instance = in_front_of(server.address()).await;
        let mut client = Speaker::of(version, &instance).await;
        client.ask("/").await;
        client.ask("/").await;
        assert_eq!(instance.upstream(server.address()), (1, 1));
    }
}

#[tokio::test]
async fn waiting_connections_survive_a_reload_unless_their_server_leaves() {
    for version in Version::each() {
        let (one, two) = (Recorder::ok().await, Recorder::ok().await);
        let text = serving(&[one.address()], "", "");
        let instance = Instance::start(&text).await;
        let mut client = Speaker::of(version, &instance).await;
        client.ask("/").await;
        instance.running.reload_text(&serving(&[one.address()], "compress = true", "retries = 1")).await.unwrap();
        client.ask("/").await;
        assert_eq!(instance.upstream(one.address()), (1, 1));
        instance.running.reload_text(&serving(&[two.address()], "", "")).await.unwrap();
        client.ask("/").await;
        assert_eq!((one.seen().len(), two.seen().len()), (2, 1));
        instance.running.reload_text(&text).await.unwrap();
        client.ask("/").await;
        assert_eq!(one.seen().len(), 1);
    }
}

#[tokio::test]
async fn waiting_connections_to_a_server_that_left_are_closed() {
    for version in Version::each() {
        let (stand, other) = (Stand::new().await, Recorder::ok().await);
        let instance = in_front_of(stand.address).await;
        let mut client = Speaker::of(version, &instance).await;
        client.get("/", "").await;
        let (mut server, _) = stand.asked().await;
        server.send(ok("1")).await;
        client.response().await;
        instance.running.reload_text(&serving(&[other.address()], "", "")).await.unwrap();
        server.ends().await;
    }
}

#[tokio::test]
async fn requests_at_once_have_connections_of_their_own() {
    for version in Version::each() {
        let stand = Stand::new().await;
        let instance = in_front_of(stand.address).await;
        let mut asked = Vec::new();
        for number in 0..10 {
            let mut client = Speaker::of(version, &instance).await;
            client.get(&format!("/{number}"), "").await;
            asked.push((client, stand.asked().await));
        }
        for (client, (server, request)) in asked.iter_mut().rev() {
            server.send(ok(request.asked())).await;
            assert_eq!(client.response().await.text(), request.asked());
        }
        assert_eq!(instance.upstream(stand.address), (10, 0));
        eventually("none has a request", || instance.of_server("connections_active", stand.address, "") == 0.0).await;
    }
}
