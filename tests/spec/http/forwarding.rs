//! What a server gets to see of a request, and a client of a response.

use super::{plain, with};
use crate::stage::Instance;
use crate::stage::access::AccessLog;
use crate::stage::http::{Client, Message, Recorder, Stand, Wire, ok, serving};
use crate::stage::http2::Version;
use crate::stage::speaker::Speaker;

/// A server that answers `ok`, an instance in front of it and a client, each of its version.
async fn between(client: Version, server: Version) -> (Recorder, Instance, Speaker) {
    let server_version = server;
    let server = Recorder::speaking(server, ok("ok")).await;
    let instance = with(server.address(), "", server_version.of_pool()).await;
    let client = Speaker::of(client, &instance).await;
    (server, instance, client)
}

const TRUSTING: &str = "trusted_proxies = [\"127.0.0.0/8\"]";

#[tokio::test]
async fn fields_of_one_hop_go_no_further_and_all_others_do_in_their_order() {
    // A request of HTTP/2 that has such fields is refused; see the chapter on hostile clients of it.
    for behind in Version::each() {
        let (server, _instance, mut client) = between(Version::One, behind).await;
        let lines = "B-Second: 2\r\nConnection: keep-alive, X-Mine\r\nX-Mine: private\r\nKeep-Alive: timeout=5\r\n\
                 Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\nTE: gzip, trailers\r\n\
                 Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nA-First: 1\r\nB-Second: 3\r\nCookie: a=b; c\r\n";
        assert_eq!(client.ask_with("/x", lines).await.text(), "ok");
        let request = server.saw();
        assert_eq!(request.asked(), "GET /x");
        for name in ["x-mine", "keep-alive", "proxy-connection", "proxy-authorization", "http2-settings"] {
            assert_eq!(request.all(name).len(), 0, "{name} went on: {}", request.head);
        }
        assert_eq!(request.all("upgrade").len(), 0, "nobody asked for an upgrade of this connection");
        let te_is_for_this_connection = (behind == Version::One).then_some("TE");
        assert_eq!((request.field("te"), request.one("connection")), ("trailers", te_is_for_this_connection));
        let own = request.fields.iter().map(|(name, value)| format!("{}={value}", name.to_ascii_lowercase()));
        let own: Vec<_> = own.filter(|field| field.starts_with("a-first") || field.starts_with("b-second")).collect();
        match behind {
            Version::One => assert_eq!(own, ["b-second=2", "a-first=1", "b-second=3"]),
            // Fields of one name stand together there, in their order.
            Version::Two => assert_eq!(own, ["b-second=2", "b-second=3", "a-first=1"]),
        }
        assert_eq!(request.field("cookie"), "a=b; c");
    }
}

#[tokio::test]
async fn fields_that_a_response_keeps_to_its_hop_go_no_further() {
    let answer = "HTTP/1.1 200 Fine\r\nConnection: X-Mine, keep-alive\r\nX-Mine: 1\r\nKeep-Alive: timeout=9\r\n\
                  Proxy-Authenticate: Basic\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nServer: theirs/1.0\r\n\
                  Set-Cookie: a\r\nSet-Cookie: b\r\nVia: 1.1 inner\r\nX-Forwarded-For: theirs\r\nContent-Length: 2\r\n\r\nok";
    for version in Version::each() {
        let server = Recorder::answering(answer).await;
        let instance = with(server.address(), "", "").await;
        let mut client = Speaker::of(version, &instance).await;
        let response = client.ask("/").await;
        match version {
            Version::One => assert_eq!(response.line, "HTTP/1.1 200 Fine"),
            // There are no words beside a status.
            Version::Two => assert_eq!(response.status(), 200),
        }
        for name in ["connection", "x-mine", "keep-alive", "proxy-authenticate", "x-portreeve-reason"] {
            assert_eq!(response.all(name).len(), 0, "{name} went on: {}", response.head);
        }
        assert_eq!(response.field("date"), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(response.field("server"), "theirs/1.0");
        assert_eq!(response.all("set-cookie"), ["a", "b"]);
        assert_eq!(response.field("x-forwarded-for"), "theirs");
        client.is_served_again().await;
    }
}

#[tokio::test]
async fn this_hop_is_added_to_via_behind_those_before() {
    for (version, behind) in Version::pairs() {
        let (server, _instance, mut client) = between(version, behind).await;
        // The version is the one in which the message came here.
        let own = if version == Version::One { "1.1 portreeve" } else { "2.0 portreeve" };
        client.ask("/").await;
        assert_eq!(server.saw().field("via"), own);
        client.ask_with("/", "Via: 1.0 a\r\nVia: 2.0 b (c)\r\n").await;
        assert_eq!(server.saw().field("via"), format!("1.0 a, 2.0 b (c), {own}"));
    }
    let (server, instance, _) = plain().await;
    let mut old = Client::of(&instance).await;
    old.send("GET / HTTP/1.0\r\nVia: 1.0 a\r\n\r\n").await;
    old.response().await;
    assert_eq!(server.saw().field("via"), "1.0 a, 1.0 portreeve");
}

#[tokio::test]
async fn what_a_stranger_says_of_whom_it_speaks_for_is_replaced() {
    for (version, behind) in Version::pairs() {
        let (server, instance, mut client) = between(version, behind).await;
        let port = instance.address("web").port().to_string();
        let lies = "X-Forwarded-For: 192.0.2.1\r\nx-forwarded-for: 192.0.2.2\r\nX-Forwarded-Proto: https\r\n\
                X-Forwarded-Host: evil.example\r\nX-Forwarded-Port: 443\r\nForwarded: for=192.0.2.1;proto=https\r\n";
        for lines in ["", lies] {
            client.ask_with("/", lines).await;
            let request = server.saw();
            assert_eq!(request.field("x-forwarded-for"), "127.0.0.1");
            assert_eq!(request.field("x-forwarded-proto"), "http");
            assert_eq!(request.field("x-forwarded-host"), "a.example");
            assert_eq!(request.field("x-forwarded-port"), port);
            assert_eq!(request.field("forwarded"), "for=127.0.0.1;host=a.example;proto=http");
        }
    }
}

#[tokio::test]
async fn each_request_is_said_to_be_of_its_client_and_for_its_host() {
    for (version, behind) in Version::pairs() {
        let (server, instance, _) = between(version, behind).await;
        let mut clients = Vec::new();
        for last in [2, 3] {
            clients.push((last, Speaker::from(version, [127, 0, 0, last], instance.address("web")).await));
        }
        for host in ["a.example", "a.example", "b.example", "B.example", "a.example"] {
            for (last, client) in &mut clients {
                client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
                client.response().await;
                let request = server.saw();
                assert_eq!(request.field("x-forwarded-for"), format!("127.0.0.{last}"));
                assert_eq!(request.field("x-forwarded-host"), host);
                assert_eq!(request.field("forwarded"), format!("for=127.0.0.{last};host={host};proto=http"));
            }
        }
        let (_, client) = &mut clients[0];
        client.ask_with("/", "X-Forwarded-For: 192.0.2.1\r\n").await;
        assert_eq!(server.saw().field("x-forwarded-for"), "127.0.0.2", "said once more, and no lie with it");
    }
}

#[tokio::test]
async fn what_strangers_have_removed_by_connection_is_said_all_the_same() {
    let (server, _instance, mut client) = plain().await;
    let lines = "Connection: X-Forwarded-For, Forwarded, Via, X-Request-Id, Host, Traceparent, X-Forwarded-Proto\r\n";
    client.ask_with("/", lines).await;
    let request = server.saw();
    for name in ["x-forwarded-for", "forwarded", "via", "x-request-id", "host", "traceparent", "x-forwarded-proto"] {
        assert!(request.one(name).is_some(), "{name} is missing: {}", request.head);
    }
}

#[tokio::test]
async fn what_a_trusted_proxy_says_is_kept_and_added_to() {
    for (version, behind) in Version::pairs() {
        let server = Recorder::speaking(behind, ok("ok")).await;
        let instance = with(server.address(), "trusted_proxies = [\"127.0.0.1\"]", behind.of_pool()).await;
        let lines = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: b.example\r\n\
                 X-Forwarded-Port: 8443\r\nForwarded: for=192.0.2.1;proto=https\r\n";
        let mut proxy = Speaker::from(version, [127, 0, 0, 1], instance.address("web")).await;
        proxy.ask_with("/", lines).await;
        let request = server.saw();
        assert_eq!(request.field("x-forwarded-for"), "192.0.2.1, 127.0.0.1");
        assert_eq!(request.field("x-forwarded-proto"), "https");
        assert_eq!(request.field("x-forwarded-host"), "b.example");
        assert_eq!(request.field("x-forwarded-port"), "8443");
        let forwarded = "for=192.0.2.1;proto=https, for=127.0.0.1;host=a.example;proto=http";
        assert_eq!(request.field("forwarded"), forwarded);

        let mut stranger = Speaker::from(version, [127, 0, 0, 2], instance.address("web")).await;
        stranger.ask_with("/", lines).await;
        let request = server.saw();
        assert_eq!(request.field("x-forwarded-for"), "127.0.0.2");
        assert_eq!(request.field("forwarded"), "for=127.0.0.2;host=a.example;proto=http");
    }
}

#[tokio::test]
async fn a_request_id_is_kept_or_made() {
    for (version, behind) in Version::pairs() {
        let (server, _instance, mut client) = between(version, behind).await;
        client.ask_with("/", "X-Request-Id: f00-1\r\n").await;
        assert_eq!(server.saw().field("x-request-id"), "f00-1");
        let mut made = Vec::new();
        let long = format!("X-Request-Id: {}\r\n", "a".repeat(129));
        for lines in ["", "X-Request-Id: a b\r\n", "X-Request-Id: a,b\r\n", "X-Request-Id: \"\r\n", &long] {
            client.ask_with("/", lines).await;
            made.push(server.saw().field("x-request-id").to_owned());
        }
        assert!(made.iter().all(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())), "{made:?}");
        made.sort();
        made.dedup();
        assert_eq!(made.len(), 5);
    }
}

#[tokio::test]
async fn a_trace_is_kept_with_its_state_or_begun() {
    for (version, behind) in Version::pairs() {
        let (server, _instance, mut client) = between(version, behind).await;
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        client.ask_with("/", &format!("Traceparent: {trace}\r\nTracestate: a=1\r\n")).await;
        let request = server.saw();
        assert_eq!((request.field("traceparent"), request.field("tracestate")), (trace, "a=1"));
        let zero = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
        for lines in [String::new(), format!("Traceparent: {zero}\r\n"), format!("Traceparent: {trace}\r\n").repeat(2)]
        {
            client.ask_with("/", &format!("{lines}Tracestate: a=1\r\n")).await;
            let request = server.saw();
            let made = request.field("traceparent");
            assert!(made.len() == 55 && made.ends_with("-00") && made != zero, "{made}");
            assert_eq!(request.one("tracestate"), None, "the state belongs to the trace that was not kept");
        }
    }
}

#[tokio::test]
async fn the_host_is_passed_on_as_it_was_written() {
    for (version, behind) in Version::pairs() {
        let (server, _instance, mut client) = between(version, behind).await;
        for host in ["a.example", "A.Example:8080", "[::1]:80", "127.0.0.1"] {
            client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
            client.response().await;
            assert_eq!(server.saw().field("host"), host);
        }
    }
}

#[tokio::test]
async fn the_host_of_an_absolute_target_wins_and_the_target_is_sent_as_a_path() {
    let (server, _instance, mut client) = plain().await;
    for (target, path) in [
        ("http://b.example/x?y", "/x?y"),
        ("HTTP://b.example/x", "/x"),
        ("https://b.example/", "/"),
        ("http://b.example", "/"),
        ("http://b.example?q=1", "/?q=1"),
    ] {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n\r\n")).await;
        assert_eq!(client.response().await.status(), 200);
        let request = server.saw();
        assert_eq!((request.asked(), request.field("host")), (&*format!("GET {path}"), "b.example"));
        assert_eq!(request.field("x-forwarded-host"), "b.example");
    }
}

#[tokio::test]
async fn a_redirect_takes_the_scheme_that_a_trusted_proxy_tells() {
    let server = Recorder::ok().await;
    let redirect = "routes = [{ redirect = \"{scheme}://b.example{path}\" }]";
    for version in Version::each() {
        for (trusting, told, location) in [
            (TRUSTING, "X-Forwarded-Proto: https\r\n", "https://b.example/x"),
            (TRUSTING, "X-Forwarded-Proto: https, http\r\n", "https://b.example/x"),
            (TRUSTING, "X-Forwarded-Proto: javascript\r\n", "http://b.example/x"),
            (TRUSTING, "", "http://b.example/x"),
            ("", "X-Forwarded-Proto: https\r\n", "http://b.example/x"),
        ] {
            let instance = with(server.address(), &format!("{trusting}\n{redirect}"), "").await;
            let response = Speaker::of(version, &instance).await.ask_with("/x", told).await;
            assert_eq!(response.field("location"), location, "{trusting} {told}");
        }
    }
}

#[tokio::test]
async fn targets_go_on_byte_by_byte() {
    for (version, behind) in Version::pairs() {
        let (server, _instance, mut client) = between(version, behind).await;
        for target in ["/a%20b//c;d=e?f=%2F&g", "/%E2%82%AC?", "/a/...", "/?//", "/~a!$&'()*+,=:@-._"] {
            assert_eq!(client.ask(target).await.status(), 200, "{target}");
            assert_eq!(server.saw().asked(), format!("GET {target}"));
        }
        client.send("OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        client.response().await;
        assert_eq!(server.saw().asked(), "OPTIONS *");
        client.send("BREW-1 /tea HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        client.response().await;
        assert_eq!(server.saw().asked(), "BREW-1 /tea", "methods are the servers' business");
    }
}

#[tokio::test]
async fn fields_with_underscores_are_dropped_unless_they_are_wanted() {
    for (version, behind) in Version::pairs() {
        let (server, _instance, mut client) = between(version, behind).await;
        client.ask_with("/", "X_Real: 1\r\nX-Real: 2\r\nCONTENT_LENGTH: 7\r\n").await;
        let request = server.saw();
        assert_eq!((request.one("x_real"), request.field("x-real"), request.one("content_length")), (None, "2", None));
        let trailed =
            "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX_Sum: 1\r\nX-Sum: 2\r\n\r\n";
        client.send(trailed).await;
        client.response().await;
        let trailers = server.saw().trailers;
        assert!(trailers.len() == 1 && trailers[0].0.eq_ignore_ascii_case("x-sum"), "{trailers:?}");
        let wanting = with(server.address(), "http = { underscores_in_headers = true }", behind.of_pool()).await;
        Speaker::of(version, &wanting).await.ask_with("/", "X_Real: 1\r\n").await;
        assert_eq!(server.saw().field("x_real"), "1");
    }
}

#[tokio::test]
async fn the_client_behind_a_trusted_proxy_is_the_one_that_routes_and_the_log_know() {
    let server = Recorder::answering(ok("in")).await;
    let route = format!("{TRUSTING}\nroutes = [{{ pool = \"web\", allow = [\"192.0.2.0/24\"] }}]");
    for version in Version::each() {
        let log = AccessLog::new();
        let instance = Instance::start(&log.of(&serving(&[server.address()], &route, ""))).await;
        let mut client = Speaker::of(version, &instance).await;
        assert_eq!(client.ask_with("/", "X-Forwarded-For: 192.0.2.7\r\n").await.text(), "in");
        assert_eq!(log.line(1).await["client"], "192.0.2.7", "nobody knows its port");
        assert_eq!(client.ask_with("/", "X-Forwarded-For: 192.0.2.7, 198.51.100.1\r\n").await.status(), 403);
        assert_eq!(client.ask("/").await.status(), 403);
    }
}

/// Reads the PROXY header that a connection begins with, and what follows it as a request; says whom it is for and to where.
async fn announced(server: &mut Wire) -> (String, Message) {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.extend(server.exactly(1).await.unwrap());
    }
    let request = server.request().await.unwrap().expect("a request");
    (String::from_utf8(line).unwrap(), request)
}

#[tokio::test]
async fn a_pool_that_is_told_of_clients_from_now_on_is_told_where_those_came_to_that_were_there_before() {
    for version in Version::each() {
        let stand = Stand::new().await;
        let text = |pool| serving(&[stand.address], "", pool);
        let instance = Instance::start(&text("")).await;
        let mut client = Speaker::of(version, &instance).await;
        client.get("/", "").await;
        let (mut server, _) = stand.asked().await;
        server.send(ok("untold")).await;
        assert_eq!(client.response().await.text(), "untold");
        instance.running.reload_text(&text("proxy_protocol = \"v1\"")).await.unwrap();
        client.get("/told", "").await;
        let mut server = stand.visit().await;
        let (line, request) = announced(&mut server).await;
        assert!(line.starts_with("PROXY TCP4 127.0.0.1 127.0.0.1 "), "{version:?}: {line}");
        assert!(line.ends_with(&format!(" {}\r\n", instance.address("web").port())), "{version:?}: {line}");
        assert_eq!(request.asked(), "GET /told");
        server.send(ok("told")).await;
        assert_eq!(client.response().await.text(), "told");
    }
}

#[tokio::test]
async fn a_pool_that_gets_copies_is_told_of_the_client_where_the_first_is_not() {
    for version in Version::each() {
        let (stand, next) = (Stand::new().await, Stand::new().await);
        let route = "routes = [{ path = \"/\", pool = \"web\", mirror = \"next\" }]";
        let more = format!("[pools.next]\nservers = [\"{}\"]\ncheck = \"none\"\nproxy_protocol = \"v1\"", next.address);
        let instance = Instance::start(&serving(&[stand.address], route, &more)).await;
        let mut client = Speaker::of(version, &instance).await;
        client.get("/both", "").await;
        let (mut server, _) = stand.asked().await;
        server.send(ok("first")).await;
        assert_eq!(client.response().await.text(), "first");
        let (line, request) = announced(&mut next.visit().await).await;
        assert!(line.starts_with("PROXY TCP4 127.0.0.1 127.0.0.1 "), "{version:?}: {line}");
        assert!(line.ends_with(&format!(" {}\r\n", instance.address("web").port())), "{version:?}: {line}");
        assert_eq!(request.asked(), "GET /both");
    }
}
