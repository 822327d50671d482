//! Where requests lead, and what routes change of them.

use super::with;
use crate::stage::Instance;
use crate::stage::http::{Client, Recorder, ok, serving};
use crate::stage::http2::Version;
use crate::stage::speaker::Speaker;

/// Servers that say their name, each in a pool of that name, and an instance with these routes to them.
async fn routed(names: &[&'static str], routes: &str) -> (Vec<Recorder>, Instance) {
    routed_to(Version::One, names, routes).await
}

/// The same with servers that speak this version.
async fn routed_to(version: Version, names: &[&'static str], routes: &str) -> (Vec<Recorder>, Instance) {
    let mut servers = Vec::new();
    let mut pools = String::new();
    for name in names {
        let server = Recorder::speaking(version, ok(name)).await;
        let (address, http) = (server.address(), version.of_pool());
        pools.push_str(&format!("[pools.{name}]\ncheck = \"none\"\nservers = [\"{address}\"]\n{http}\n"));
        servers.push(server);
    }
    let listener = format!("bind = \"127.0.0.1:0\"\nprotocol = \"http\"\nroutes = [\n{routes}\n]");
    (servers, Instance::start(&format!("workers = 1\n[listeners.web]\n{listener}\n{pools}")).await)
}

/// What a client gets for a method, a host and a target: a server's name, or the status if there is none.
async fn asked(client: &mut Speaker, request: &str) -> String {
    let (line, lines) = request.split_once('|').unwrap_or((request, ""));
    let [method, host, target] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let lines: String = lines.split_terminator('|').map(|line| format!("{line}\r\n")).collect();
    client.send(format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n")).await;
    let response = client.response().await;
    if response.status() == 200 { response.text().to_owned() } else { response.status().to_string() }
}

async fn assert_routed(instance: &Instance, expected: &[(&str, &str)]) {
    for version in Version::each() {
        let mut client = Speaker::of(version, instance).await;
        for (request, answer) in expected {
            assert_eq!(asked(&mut client, request).await, *answer, "{request}");
        }
    }
}

#[tokio::test]
async fn hosts_are_matched_most_specific_first_whatever_their_case_and_port() {
    let routes =
        "{ pool = \"any\" }, { host = \"*.example.com\", pool = \"wild\" }, { host = \"a.example.com\", pool = \"a\" },
                  { host = \"*.b.example.com\", pool = \"deep\" },";
    let (_servers, instance) = routed(&["any", "wild", "a", "deep"], routes).await;
    assert_routed(
        &instance,
        &[
            ("GET a.example.com /", "a"),
            ("GET A.EXAMPLE.com:8080 /", "a"),
            ("GET a.example.com. /", "a"),
            ("GET b.example.com /", "wild"),
            ("GET x.y.example.com /", "wild"),
            ("GET x.b.example.com /", "deep"),
            ("GET example.com /", "any"),
            ("GET [::1]:8 /", "any"),
            ("GET other http://A.example.com/", "a"),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_host_may_be_an_address_however_that_is_written() {
    let routes =
        "{ pool = \"any\" }, { host = \"10.0.0.1\", pool = \"four\" }, { host = \"[2001:db8::1]\", pool = \"six\" }";
    let (_servers, instance) = routed(&["any", "four", "six"], routes).await;
    assert_routed(
        &instance,
        &[
            ("GET 10.0.0.1 /", "four"),
            ("GET 10.0.0.1:8080 /", "four"),
            ("GET 10.0.0.10 /", "any"),
            ("GET [2001:db8::1] /", "six"),
            ("GET [2001:0DB8:0::1]:443 /", "six"),
            ("GET [2001:db8::2] /", "any"),
        ],
    )
    .await;
}

#[tokio::test]
async fn the_longest_path_wins_on_borders_of_segments() {
    let routes = "{ pool = \"any\" }, { path = \"/api\", pool = \"api\" }, { path = \"/api/v1\", pool = \"v1\" },
                  { path = \"= /api/v1\", pool = \"exact\" },";
    let (_servers, instance) = routed(&["any", "api", "v1", "exact"], routes).await;
    assert_routed(
        &instance,
        &[
            ("GET a /", "any"),
            ("GET a /apis", "any"),
            ("GET a /api", "api"),
            ("GET a /api/", "api"),
            ("GET a /api?x=/v1", "api"),
            ("GET a /api/v10", "api"),
            ("GET a /api/v1", "exact"),
            ("GET a /api/v1?q", "exact"),
            ("GET a /api/v1/x", "v1"),
            ("GET a //api//v1//x", "v1"),
            ("GET a /%61pi/v%31/x", "v1"),
            ("GET a /api%2fv1%2Fx", "v1"),
            ("GET a /API", "any"),
            ("GET a /api;a=b/v1;c/x", "v1"),
            ("GET a /api/v1;jsessionid=1?q", "exact"),
        ],
    )
    .await;
}

#[tokio::test]
async fn no_spelling_of_a_path_leads_around_a_route_that_keeps_people_out() {
    let routes = "{ pool = \"any\" }, { path = \"/admin\", pool = \"admin\", deny = [\"127.0.0.0/8\"] },";
    let (servers, instance) = routed(&["any", "admin"], routes).await;
    for version in Version::each() {
        for path in [
            "/admin",
            "/admin/",
            "//admin",
            "/%61dmin",
            "/%2561dmin/../admin",
            "/x/../admin",
            "/x/%2e%2e/admin",
            "/x/%2E./admin",
            "/./admin",
            "/admin/.",
            "/.%2e/admin",
            "/%2fadmin",
            "/admin%2fx",
            "/admin%2F",
            "/x/..%2fadmin",
            "/x%2F..%2Fadmin",
            "/x/%2e%2e%2Fadmin",
            "/x%5c..%5cadmin",
            "/x/..;/admin",
            "/x/..%3ba=b/admin",
            "/admin;x",
            "/admin;x=1;y/z",
            "/;x/admin",
            "/admin%3Bx",
            "/%2f;/%61dmin;",
            "/admin%3f",
        ] {
            let mut client = Speaker::of(version, &instance).await;
            let answer = asked(&mut client, &format!("GET a {path}")).await;
            // What is another path to every server goes elsewhere.
            assert!(["403", "400"].contains(&&*answer) || path == "/admin%3f", "{path}: {answer}");
        }
        assert!(servers[1].seen().is_empty());
    }
}

#[tokio::test]
async fn methods_headers_and_queries_narrow_a_route() {
    let routes = "{ pool = \"any\" }, { method = [\"POST\", \"PUT\"], pool = \"post\" },
                  { path = \"/x\", headers = { x-canary = \"1\" }, pool = \"canary\" },
                  { path = \"/x\", query = { v = \"2*\" }, pool = \"query\" },";
    let (_servers, instance) = routed(&["any", "post", "canary", "query"], routes).await;
    assert_routed(
        &instance,
        &[
            ("GET a /|", "any"),
            ("PUT a /|Content-Length: 0", "post"),
            ("put a /", "any"),
            ("GET a /x", "any"),
            ("GET a /x|X-Canary: 0", "any"),
            ("GET a /x|X-Canary: 0|x-cAnary: 1", "canary"),
            ("GET a /x?a&v=2.1", "query"),
            ("GET a /x?v=12", "any"),
        ],
    )
    .await;
}

#[tokio::test]
async fn what_no_route_takes_is_not_found() {
    let (servers, instance) = routed(&["a"], "{ host = \"a.example\", pool = \"a\" }").await;
    for version in Version::each() {
        let mut client = Speaker::of(version, &instance).await;
        client.send("GET / HTTP/1.1\r\nHost: b.example\r\n\r\n").await;
        let response = client.response().await;
        assert_eq!((response.status(), response.field("x-portreeve-reason")), (404, "no_route"));
        assert_eq!(asked(&mut client, "GET a.example /").await, "a", "the connection is as good as before");
        assert_eq!(servers[0].seen().len(), 1);
    }
}

#[tokio::test]
async fn a_split_sends_each_pool_its_share() {
    let routes =
        "{ split = [{ pool = \"a\", weight = 3 }, { pool = \"b\", weight = 1 }, { pool = \"c\", weight = 0 }] }";
    let (servers, instance) = routed(&["a", "b", "c"], routes).await;
    for version in Version::each() {
        let mut client = Speaker::of(version, &instance).await;
        for _ in 0..800 {
            client.ask("/").await;
        }
        let [a, b, c] = [0, 1, 2].map(|place: usize| servers[place].seen().len());
        // Five standard deviations on either side of 200.
        assert!((139..=261).contains(&b), "{a} {b} {c}");
        assert_eq!((a + b, c), (800, 0));
    }
}

#[tokio::test]
async fn a_redirect_is_put_together_from_the_request() {
    let routes = "{ path = \"/old\", redirect = { to = \"https://{host}{path}{query}\", status = 301 } },
                  { path = \"/here\", redirect = \"{scheme}://other.example/x\" },";
    let (_servers, instance) = routed(&[], routes).await;
    for version in Version::each() {
        let mut client = Speaker::of(version, &instance).await;
        for (target, status, location) in [
            ("/old/a%20b?c=d", 301, "https://a.example/old/a%20b?c=d"),
            ("/old", 301, "https://a.example/old"),
            ("/here?x", 308, "http://other.example/x"),
        ] {
            client.send(format!("GET {target} HTTP/1.1\r\nHost: A.example:81\r\n\r\n")).await;
            let response = client.response().await;
            assert_eq!((response.status(), response.field("location")), (status, location));
            assert_eq!((response.text(), response.one("x-portreeve-reason")), ("", None));
        }
    }
}

#[tokio::test]
async fn a_route_may_answer_by_itself() {
    let routes = "{ path = \"/t\", respond = { status = 418, body = \"teapot\", content_type = \"a/b\" } },
                  { path = \"/n\", respond = 204 },";
    let (_servers, instance) = routed(&[], routes).await;
    for version in Version::each() {
        let mut client = Speaker::of(version, &instance).await;
        for _ in 0..2 {
            let response = client.ask("/t").await;
            assert_eq!((response.status(), response.text(), response.field("content-type")), (418, "teapot", "a/b"));
            assert_eq!(response.one("x-portreeve-reason"), None, "nothing failed");
            let response = client.ask("/n").await;
            assert_eq!((response.status(), response.one("content-length")), (204, None));
            client.send("HEAD /t HTTP/1.1\r\nHost: a\r\n\r\n").await;
            assert_eq!(client.head().await.field("content-length"), "6");
        }
        client.send("POST /t HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde").await;
        assert_eq!(client.response().await.text(), "teapot");
    }
}

#[tokio::test]
async fn what_asks_for_the_server_itself_has_no_path_to_be_sent_to_or_rewritten() {
    let routes = "{ host = \"a.example\", pool = \"a\", rewrite = { prefix = \"/pre\" } },
                  { redirect = \"https://{host}{path}{query}\" },";
    for (version, behind) in Version::pairs() {
        let (servers, instance) = routed_to(behind, &["a"], routes).await;
        let mut client = Speaker::of(version, &instance).await;
        client.send("OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        assert_eq!(client.response().await.text(), "a");
        assert_eq!(servers[0].saw().asked(), "OPTIONS *");
        client.send("OPTIONS * HTTP/1.1\r\nHost: b.example\r\n\r\n").await;
        assert_eq!(client.response().await.field("location"), "https://b.example");
    }
}

#[tokio::test]
async fn a_request_without_a_host_is_not_sent_to_none() {
    let (_servers, instance) = routed(&[], "{ redirect = \"https://{host}{path}\" }").await;
    let mut client = Client::of(&instance).await;
    client.send("GET /x HTTP/1.0\r\n\r\n").await;
    let response = client.response().await;
    assert_eq!((response.status(), response.field("x-portreeve-reason")), (400, "bad_request"));
    assert_eq!(response.one("location"), None);
}

#[tokio::test]
async fn headers_of_answers_that_a_route_gives_itself_are_changed_and_those_of_errors_are_not() {
    let rules = "{ remove = [\"Date\"], set = { strict-transport-security = \"max-age=1\", content-type = \"a/b\" }, \
                 add = { x-added = \"1\" } }";
    let routes = format!(
        "{{ path = \"/to\", redirect = \"/x\", response_headers = {rules} }},
         {{ path = \"/here\", respond = {{ body = \"x\" }}, response_headers = {rules} }},
         {{ path = \"/denied\", respond = 200, response_headers = {rules}, deny = [\"127.0.0.0/8\"] }},"
    );
    let (_servers, instance) = routed(&[], &routes).await;
    for version in Version::each() {
        let mut client = Speaker::of(version, &instance).await;
        for (path, status, length) in [("/to", 308, "0"), ("/here", 200, "1")] {
            let response = client.ask(path).await;
            assert_eq!((response.status(), response.field("content-length")), (status, length));
            let fields = ["strict-transport-security", "content-type", "x-added"].map(|name| response.field(name));
            assert_eq!((fields, response.one("date")), (["max-age=1", "a/b", "1"], None), "{path}");
        }
        let refused = client.ask("/denied").await;
        assert_eq!((refused.status(), refused.field("x-portreeve-reason")), (403, "refused_acl"));
        assert_eq!((refused.one("x-added"), refused.one("date").is_some()), (None, true));
    }
}

#[tokio::test]
async fn the_part_of_a_path_that_matched_may_be_replaced_and_the_host() {
    let routes = "{ path = \"/api\", pool = \"a\", rewrite = { prefix = \"/v2/x\" } },
                  { path = \"/strip\", pool = \"a\", rewrite = { prefix = \"/\", host = \"Inner.example:81\" } },";
    for (version, behind) in Version::pairs() {
        let (servers, instance) = routed_to(behind, &["a"], routes).await;
        let mut client = Speaker::of(version, &instance).await;
        for (target, sent) in [
            ("/api", "/v2/x"),
            ("/api/", "/v2/x/"),
            ("/api/b%20c?d=/api", "/v2/x/b%20c?d=/api"),
            ("/strip", "/"),
            ("/strip?q", "/?q"),
            ("/strip/a", "/a"),
            ("//strip//%2fa", "/%2fa"),
            ("/strip%2fa", "/a"),
            ("/api/projects/group%2Fproject//%41", "/v2/x/projects/group%2Fproject//%41"),
            ("/api;a=1/b;c=2/;d", "/v2/x/b;c=2/;d"),
            ("/api%2fprojects", "/v2/x/projects"),
        ] {
            client.ask(target).await;
            let request = servers[0].saw();
            assert_eq!(request.asked(), format!("GET {sent}"), "{target}");
            let host = if target.contains("strip") { "Inner.example:81" } else { "a.example" };
            assert_eq!((request.field("host"), request.field("x-forwarded-host")), (host, "a.example"));
        }
    }
}

#[tokio::test]
async fn headers_of_requests_and_responses_may_be_removed_set_and_added() {
    for (version, behind) in Version::pairs() {
        let answer = "HTTP/1.1 200 OK\r\nServer: x\r\nX-Both: theirs\r\nX-Added: 0\r\nContent-Length: 0\r\n\r\n";
        let server = Recorder::speaking(behind, answer).await;
        let rules = "remove = [\"X-Gone\", \"server\"], set = { X-Both = \"ours\", X-Forwarded-For = \"-\" }, \
                 add = { X-Added = \"1\" }";
        let routes = format!(
            "routes = [{{ pool = \"web\", request_headers = {{ {rules} }}, response_headers = {{ {rules} }} }}]"
        );
        let instance = with(server.address(), &routes, behind.of_pool()).await;
        let mut client = Speaker::of(version, &instance).await;
        let lines = "X-Gone: 1\r\nx-gone: 2\r\nX-Both: a\r\nX-BOTH: b\r\nX-Added: 0\r\n";
        let response = client.ask_with("/", lines).await;
        let request = server.saw();
        for message in [&request, &response] {
            assert_eq!((message.all("x-gone").len(), message.all("server").len()), (0, 0), "{}", message.head);
            assert_eq!((message.field("x-both"), message.all("x-added")), ("ours", vec!["0", "1"]), "{}", message.head);
            assert_eq!(message.field("x-forwarded-for"), "-");
        }
    }
}

#[tokio::test]
async fn a_reload_applies_to_the_next_request_of_a_connection_that_stays() {
    let (one, two) = (Recorder::answering(ok("one")).await, Recorder::answering(ok("two")).await);
    for version in Version::each() {
        let instance = Instance::start(&serving(&[one.address()], "", "")).await;
        let mut client = Speaker::of(version, &instance).await;
        assert_eq!(client.ask("/").await.text(), "one");
        instance.running.reload_text(&serving(&[two.address()], "", "")).await.unwrap();
        assert_eq!(client.ask("/").await.text(), "two");
        let listener = "routes = [{ respond = { body = \"three\" } }]\nhttp = { max_header_fields = 2 }";
        instance.running.reload_text(&serving(&[two.address()], listener, "")).await.unwrap();
        assert_eq!(client.ask("/").await.text(), "three");
        assert_eq!(client.ask_with("/", "A: 1\r\nB: 2\r\nC: 3\r\n").await.status(), 431);
    }
}

#[tokio::test]
async fn a_route_has_no_more_requests_at_once_than_it_may() {
    for version in Version::each() {
        let stand = crate::stage::http::Stand::new().await;
        let routes = "routes = [{ path = \"/x\", pool = \"web\", max_in_flight = 1 }]";
        let instance = with(stand.address, routes, "").await;
        let (mut one, mut two) = (Speaker::of(version, &instance).await, Speaker::of(version, &instance).await);
        one.get("/x", "").await;
        let (mut server, _) = stand.asked().await;
        let refused = two.ask("/x").await;
        assert_eq!((refused.status(), refused.field("x-portreeve-reason")), (503, "refused_limit"));
        assert_eq!(refused.field("retry-after"), "1");
        server.send(ok("1")).await;
        one.response().await;
        two.get("/x", "").await;
        crate::stage::http::next_request(&mut server).await;
        server.send(ok("2")).await;
        assert_eq!(two.response().await.text(), "2");
    }
}
