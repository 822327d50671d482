//! Chapter: trying again, where nothing is lost by that. Servers that the test plays by itself speak HTTP/1; what only those
//! of HTTP/2 do, such as to refuse a stream, stands in the chapter on it.

mod bodies;
mod killed;

use std::net::SocketAddr;

use portreeve::ending::Reason;

use crate::stage::http::{Client, Recorder, Stand, Wire, get, next_request, ok, serving};
use crate::stage::http2::Version;
use crate::stage::speaker::Speaker;
use crate::stage::{ClosedPort, Deaf, Instance, eventually};

/// An instance in front of these servers and a client of this version.
async fn over(version: Version, servers: &[SocketAddr], pool: &str) -> (Instance, Speaker) {
    let instance = Instance::start(&serving(servers, "", pool)).await;
    let client = Speaker::of(version, &instance).await;
    (instance, client)
}

const POST: &str = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";

#[tokio::test]
async fn a_request_whose_server_cannot_be_reached_goes_elsewhere_whatever_its_method() {
    for (version, behind) in Version::pairs() {
        let closed = ClosedPort::new();
        let server = Recorder::speaking(behind, ok("ok")).await;
        let (instance, mut client) = over(version, &[closed.address, server.address()], behind.of_pool()).await;
        for _ in 0..4 {
            client.send(POST).await;
            assert_eq!(client.response().await.text(), "ok");
            assert_eq!(server.saw().text(), "body");
        }
        let retries = instance.of_server("retries_total", server.address(), "");
        assert!((1.0..=4.0).contains(&retries), "{retries}");
        let refused = instance.of_server("connect_failures_total", closed.address, ",reason=\"connect_refused\"");
        assert_eq!(refused, retries);
    }
}

#[tokio::test]
async fn with_no_retries_a_request_fails_with_its_first_server() {
    for (version, behind) in Version::pairs() {
        let closed = ClosedPort::new();
        let server = Recorder::speaking(behind, ok("ok")).await;
        let servers = [closed.address, server.address()];
        for pool in ["retries = 0", "retry_on = [\"reset\", \"503\"]"] {
            let (_instance, mut client) = over(version, &servers, &format!("{pool}\n{}", behind.of_pool())).await;
            let mut statuses = Vec::new();
            for _ in 0..4 {
                statuses.push(client.ask("/").await.status());
            }
            statuses.sort_unstable();
            assert_eq!(statuses, [200, 200, 502, 502], "{pool}");
        }
    }
}

#[tokio::test]
async fn a_route_may_have_a_number_of_retries_of_its_own() {
    for (version, behind) in Version::pairs() {
        let closed = [ClosedPort::new(), ClosedPort::new()];
        let server = Recorder::speaking(behind, ok("ok")).await;
        let servers = [closed[0].address, closed[1].address, server.address()];
        let routes = "routes = [{ path = \"/none\", pool = \"web\", retries = 0 }, { path = \"/two\", pool = \"web\", retries = 2 }]";
        let instance = Instance::start(&serving(&servers, routes, &format!("retries = 1\n{}", behind.of_pool()))).await;
        let mut client = Speaker::of(version, &instance).await;
        let mut failures = [0; 3];
        for _ in 0..3 {
            for (failures, path) in failures.iter_mut().zip(["/none", "/one", "/two"]) {
                *failures += u32::from(client.ask(path).await.status() == 502);
            }
        }
        // Servers take turns, so that the three paths begin with the same ones; each failure moves the turn on.
        assert_eq!(failures[2], 0, "with two retries all three servers are asked");
        assert!(failures[0] > 0, "{failures:?}");
    }
}

/// An instance with one connection to a server that waits for its next request.
async fn with_a_waiting_connection(version: Version, stand: &Stand, pool: &str) -> (Instance, Speaker, Wire) {
    let (instance, mut client) = over(version, &[stand.address], pool).await;
    client.get("/first", "").await;
    let (mut server, _) = stand.asked().await;
    server.send(ok("first")).await;
    client.response().await;
    (instance, client, server)
}

#[tokio::test]
async fn a_request_that_fails_on_a_connection_that_had_waited_is_sent_once_more() {
    for version in Version::each() {
        for request in [get("/x", ""), "PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".into()] {
            for reset in [true, false] {
                let stand = Stand::new().await;
                let (instance, mut client, mut server) =
                    with_a_waiting_connection(version, &stand, "retries = 0\nretry_on = []").await;
                client.send(&request).await;
                next_request(&mut server).await;
                if reset {
                    server.reset()
                } else {
                    drop(server)
                }
                let (mut server, again) = stand.asked().await;
                assert!(again.asked().ends_with(" /x"));
                server.send(ok("second")).await;
                assert_eq!(client.response().await.text(), "second");
                assert_eq!(instance.upstream(stand.address), (2, 1));
            }
        }
    }
}

#[tokio::test]
async fn it_is_sent_no_more_than_once_more() {
    for version in Version::each() {
        let stand = Stand::new().await;
        let (_instance, mut client, mut server) = with_a_waiting_connection(version, &stand, "retries = 0").await;
        client.get("/x", "").await;
        next_request(&mut server).await;
        drop(server);
        let (server, _) = stand.asked().await;
        drop(server);
        let response = client.response().await;
        assert_eq!((response.status(), response.field("x-portreeve-reason")), (502, "server_closed"));
    }
}

#[tokio::test]
async fn what_is_not_idempotent_is_not_sent_twice() {
    for version in Version::each() {
        for request in [POST.to_owned(), POST.replace("POST", "PATCH"), get("/", "").replace("GET", "BREW")] {
            let stand = Stand::new().await;
            let (instance, mut client, mut server) = with_a_waiting_connection(version, &stand, "retries = 3").await;
            client.send(&request).await;
            next_request(&mut server).await;
            drop(server);
            let response = client.response().await;
            assert_eq!((response.status(), response.field("x-portreeve-reason")), (502, "server_closed"), "{request}");
            assert_eq!(instance.upstream(stand.address), (1, 1));
        }
    }
}

#[tokio::test]
async fn a_response_that_has_begun_is_never_followed_by_another() {
    for version in Version::each() {
        let hints = "HTTP/1.1 103 Early Hints\r\n\r\n";
        for begun in ["H", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", hints] {
            let stand = Stand::new().await;
            let (instance, mut client, mut server) =
                with_a_waiting_connection(version, &stand, "retries = 3\nretry_on = [\"reset\"]").await;
            client.get("/x", "").await;
            next_request(&mut server).await;
            server.send(begun).await;
            drop(server);
            if begun == hints {
                assert_eq!(client.response().await.status(), 103);
            }
            match client.try_response().await {
                Ok(response) => assert_eq!(response.status(), 502, "{begun}"),
                Err(_cut_off) => assert!(begun.ends_with("ab")),
            }
            assert_eq!(instance.upstream(stand.address), (1, 1));
            // It was no connection that happened to close as the request came.
            let failed = || instance.of_server("outcomes_total", stand.address, ",result=\"failed\"");
            eventually("that the server failed", || failed() == 1.0).await;
        }
    }
}

#[tokio::test]
async fn a_reset_on_a_new_connection_goes_elsewhere_if_the_pool_says_so() {
    for version in Version::each() {
        let (one, two) = (Stand::new().await, Stand::new().await);
        for (retry_on, again) in [("retry_on = [\"reset\"]", true), ("retry_on = [\"connect\"]", false)] {
            let (_instance, mut client) = over(version, &[one.address, two.address], retry_on).await;
            client.get("/x", "").await;
            let (server, first_was_one) = tokio::select! {
                (server, _) = one.asked() => (server, true),
                (server, _) = two.asked() => (server, false),
            };
            server.reset();
            if again {
                let other = if first_was_one { &two } else { &one };
                let (mut server, request) = other.asked().await;
                assert_eq!(request.asked(), "GET /x");
                server.send(ok("elsewhere")).await;
                assert_eq!(client.response().await.text(), "elsewhere");
            } else {
                assert_eq!(client.response().await.field("x-portreeve-reason"), "server_reset");
            }
        }
    }
}

#[tokio::test]
async fn a_status_may_be_a_reason_to_ask_elsewhere() {
    for (version, behind) in Version::pairs() {
        let unwilling = Recorder::speaking(behind, "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy").await;
        let willing = Recorder::speaking(behind, ok("ok")).await;
        let (instance, mut client) = over(
            version,
            &[unwilling.address(), willing.address()],
            &format!("retry_on = [\"connect\", 503]\n{}", behind.of_pool()),
        )
        .await;
        for _ in 0..4 {
            assert_eq!(client.ask("/").await.text(), "ok");
        }
        assert_eq!(willing.seen().len(), 4);
        let refused = unwilling.seen().len();
        assert!(refused > 0);
        let counted = instance.of_server("requests_total", unwilling.address(), ",class=\"5xx\"");
        assert_eq!(counted, refused as f64);
        // What cannot be repeated gets the answer there is.
        let mut statuses = Vec::new();
        for _ in 0..4 {
            client.send(POST).await;
            statuses.push(client.response().await.status());
        }
        assert!(statuses.contains(&503) && statuses.contains(&200), "{statuses:?}");
    }
}

#[tokio::test]
async fn without_anybody_else_to_ask_the_answer_there_is_is_passed_on() {
    for (version, behind) in Version::pairs() {
        let server = Recorder::speaking(behind, "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy").await;
        let (_instance, mut client) =
            over(version, &[server.address()], &format!("retries = 3\nretry_on = [503]\n{}", behind.of_pool())).await;
        let response = client.ask("/").await;
        assert_eq!((response.status(), response.text()), (503, "busy"));
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_server_that_is_too_slow_is_a_reason_only_if_the_pool_says_so() {
    for version in Version::each() {
        let (one, two) = (Stand::new().await, Stand::new().await);
        let slow = "timeouts = { response_header = \"200ms\" }\n";
        let (_instance, mut client) =
            over(version, &[one.address, two.address], &format!("{slow}retry_on = [\"timeout\"]")).await;
        client.get("/x", "").await;
        let (_mute, other) = tokio::select! {
            (server, _) = one.asked() => (server, &two),
            (server, _) = two.asked() => (server, &one),
        };
        let (mut server, _) = other.asked().await;
        server.send(ok("elsewhere")).await;
        assert_eq!(client.response().await.text(), "elsewhere");
    }
}

/// Two servers, and an instance that retries after resets, so many requests at once.
async fn with_room_for(version: Version, retries: u32) -> ([Stand; 2], Instance) {
    let stands = [Stand::new().await, Stand::new().await];
    let addresses = stands.each_ref().map(|stand| stand.address);
    let pool = format!("retry_on = [\"reset\"]\nretry_budget = {{ percent = 0, min = {retries} }}");
    let (instance, _) = over(version, &addresses, &pool).await;
    (stands, instance)
}

#[tokio::test]
async fn no_more_than_a_share_of_the_traffic_is_retries() {
    for version in Version::each() {
        let (stands, instance) = with_room_for(version, 2).await;
        // Four requests fail at once where they went first.
        let mut clients = Vec::new();
        let mut first = Vec::new();
        for _ in 0..4 {
            let mut client = Speaker::of(version, &instance).await;
            client.get("/x", "").await;
            clients.push(client);
            first.push(tokio::select! {
                (server, _) = stands[0].asked() => (server, 0),
                (server, _) = stands[1].asked() => (server, 1),
            });
        }
        // Two of them are under way again, and stay so: there is room for no third.
        let mut again = Vec::new();
        for (server, place) in first {
            server.reset();
            if again.len() < 2 {
                again.push(stands[1 - place].asked().await.0);
            }
        }
        let mut refused = 0;
        for client in &mut clients[2..] {
            let response = client.response().await;
            refused += u32::from(response.status() == 502 && response.field("x-portreeve-reason") == "server_reset");
        }
        assert_eq!(refused, 2);
        assert_eq!(instance.listener("web").answers(Reason::ServerReset), 2);
        for (server, client) in again.iter_mut().zip(&mut clients) {
            server.send(ok("again")).await;
            assert_eq!(client.response().await.text(), "again");
        }
    }
}

#[tokio::test]
async fn those_that_fail_at_once_have_their_turn_one_after_the_other_within_the_budget() {
    for version in Version::each() {
        let (stands, instance) = with_room_for(version, 1).await;
        let asked = async || tokio::select! { (server, _) = stands[0].asked() => server, (server, _) = stands[1].asked() => server };
        let mut clients = Vec::new();
        let mut first = Vec::new();
        for _ in 0..4 {
            let mut client = Speaker::of(version, &instance).await;
            client.get("/x", "").await;
            clients.push(client);
            first.push(asked().await);
        }
        first.into_iter().for_each(|server| server.reset());
        for _ in 0..4 {
            asked().await.send(ok("again")).await;
        }
        for client in &mut clients {
            assert_eq!(client.response().await.text(), "again");
        }
    }
}

#[tokio::test]
async fn who_leaves_while_others_have_their_turn_is_not_sent_again() {
    let (stands, instance) = with_room_for(Version::One, 1).await;
    let asked = async || tokio::select! { (server, _) = stands[0].asked() => server, (server, _) = stands[1].asked() => server };
    let (mut stays, mut leaves) = (Client::of(&instance).await, Client::of(&instance).await);
    stays.get("/x", "").await;
    let first = asked().await;
    leaves.get("/x", "").await;
    let second = asked().await;
    first.reset();
    let mut again = asked().await;
    second.reset();
    drop(leaves);
    // Beside the client that came with the instance and said nothing.
    instance.ended(Reason::ClientClosed, 2).await;
    again.send(ok("again")).await;
    assert_eq!(stays.response().await.text(), "again");
    stays.get("/next", "").await;
    asked().await.send(ok("next")).await;
    assert_eq!(stays.response().await.text(), "next", "nobody else was under way");
}

#[tokio::test]
async fn who_leaves_while_a_server_is_connected_to_is_not_sent_to_another() {
    for (version, behind) in Version::pairs() {
        let deaf = [Deaf::start().await, Deaf::start().await];
        let log = crate::stage::access::AccessLog::new();
        let pool = format!("timeouts = {{ connect = \"1h\" }}\n{}", behind.of_pool());
        let text = serving(&deaf.each_ref().map(|deaf| deaf.address), "", &pool);
        let instance = Instance::start(&log.of(&text)).await;
        let mut client = Speaker::of(version, &instance).await;
        client.get("/x", "").await;
        let under_way = || deaf.iter().any(|deaf| instance.of_server("connections_active", deaf.address, "") == 1.0);
        eventually("the attempt", under_way).await;
        drop(client);
        let line = log.line(1).await;
        let reason = if version == Version::One { "client_closed" } else { "client_reset" };
        assert_eq!((&line["reason"], line.get("status")), (&reason.into(), None), "{line:#}");
        assert_eq!(line.get("retries").unwrap_or(&0.into()), 0);
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_beside_that_share_since_it_was_sent_nothing() {
    for (version, behind) in Version::pairs() {
        let closed = [ClosedPort::new(), ClosedPort::new()];
        let server = Recorder::speaking(behind, ok("ok")).await;
        let pool = format!("retries = 2\nretry_budget = {{ percent = 0, min = 0 }}\n{}", behind.of_pool());
        let (_instance, mut client) =
            over(version, &[closed[0].address, closed[1].address, server.address()], &pool).await;
        for _ in 0..3 {
            assert_eq!(client.ask("/").await.text(), "ok");
        }
    }
}

#[tokio::test]
async fn the_access_log_has_the_number_of_retries() {
    for version in Version::each() {
        let closed = ClosedPort::new();
        let server = Recorder::ok().await;
        let log = crate::stage::access::AccessLog::new();
        let backup = format!("{{ address = \"{}\", backup = true }}", server.address());
        let text = serving(&[closed.address], "", "").replace("servers = [", &format!("servers = [{backup}, "));
        let instance = Instance::start(&log.of(&text)).await;
        let mut client = Speaker::of(version, &instance).await;
        client.ask("/").await;
        let line = log.line(1).await;
        assert_eq!((&line["retries"], &line["status"]), (&1.into(), &200.into()));
        assert_eq!(line["server"], server.address().to_string());
    }
}

#[tokio::test]
async fn the_access_log_names_the_server_that_was_tried_last_though_in_vain() {
    for version in Version::each() {
        let (closed, stand) = (ClosedPort::new(), Stand::new().await);
        let log = crate::stage::access::AccessLog::new();
        let instance = Instance::start(&log.of(&serving(&[closed.address], "", "retries = 2"))).await;
        Speaker::of(version, &instance).await.ask("/").await;
        let line = log.line(1).await;
        assert_eq!((&line["reason"], &line["server"]), (&"connect_refused".into(), &closed.address.to_string().into()));
        assert_eq!(line.get("retries").unwrap_or(&0.into()), 0, "there was no other server to try");
        assert_eq!(line.get("connect_ms"), None);
        let log = crate::stage::access::AccessLog::new();
        let pool = "retries = 1\nretry_on = [\"reset\"]";
        let instance = Instance::start(&log.of(&serving(&[stand.address], "", pool))).await;
        let mut client = Speaker::of(version, &instance).await;
        client.get("/", "").await;
        stand.asked().await.0.reset();
        client.response().await;
        let line = log.line(1).await;
        assert_eq!((&line["reason"], &line["server"]), (&"server_reset".into(), &stand.address.to_string().into()));
    }
}
