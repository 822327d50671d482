//! HTTP: files that are right, and what they mean.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config::model::http::{
    Action, HeaderRules, Http, HttpLimits, HttpPool, HttpTimeouts, HttpVersion, Keep, Part, RetryBudget, RetryOn,
    Rewrite, SameSite, Sticky, Template,
};
use crate::config::model::{Front, Protocol};
use crate::net::address::ClientAddr;
use crate::route::HostPattern;
use crate::route::http::{Match, PathMatch, ValueMatch};
use crate::units::{Name, Weight};

/// A file whose second line on are lines of a listener for HTTP, beside the pools `web` and `other`.
pub(super) fn listener(lines: &str) -> String {
    format!(
        "[listeners.web]\n{lines}\nbind = 80\nprotocol = \"http\"\npool = \"web\"\n\
         [pools.web]\nservers = [\"10.0.0.1:80\"]\n\
         [listeners.b]\nbind = 81\npool = \"other\"\n[pools.other]\nservers = [\"10.0.0.2:80\"]\n"
    )
}

/// The same with one route, whose text begins at 2:12.
pub(super) fn route(text: &str) -> String {
    listener(&format!("routes = [{{ {text} }}]"))
}

/// A file whose second line on are lines of a pool.
pub(super) fn pool(lines: &str) -> String {
    format!("[pools.web]\n{lines}\nservers = [\"10.0.0.1:80\"]\n[listeners.web]\nbind = 80\npool = \"web\"\n")
}

fn http_of(model: &Model) -> &Http {
    match &model.listeners[0].protocol {
        Protocol::Http(http) => http,
        Protocol::Tcp => panic!("{model:?}"),
    }
}

#[test]
fn a_listener_for_http_has_safe_defaults() {
    let model = model(&listener(""));
    assert_eq!(*http_of(&model), Http::default());
    assert_eq!(http_of(&model).limits, HttpLimits::default());
    assert_eq!(model.listeners[0].front, Front::Plain);
    assert_eq!(model.listeners[1].protocol, Protocol::Tcp);
    assert_eq!(model.pools[0].http, HttpPool::default());
}

#[test]
fn every_key_of_a_listener_reaches_the_model() {
    let folder = super::tls::folder();
    let text = r#"
        [listeners.web]
        bind = 80
        protocol = "http"
        timeouts = { request_header = "1s", request = "2s", keep_alive = "3s", body_idle = "4s" }
        trusted_proxies = ["10.0.0.0/8"]
        compress = true
        error_pages = { "503" = "sorry.html" }
        routes = [{ pool = "web" }, { path = "/raw", pool = "web", compress = false }]
        [listeners.web.http]
        max_header = "4KiB"
        max_header_fields = 10
        max_uri = "1kB"
        max_body = "10MiB"
        min_rate = "0"
        max_requests = 1000
        max_streams = 7
        underscores_in_headers = true
        [pools.web]
        servers = ["10.0.0.1:80"]
    "#;
    let model = load_text(text, "test.toml", folder.path(), &ENVIRONMENT)
        .unwrap_or_else(|problems| panic!("{}", problems.human(false)))
        .model;
    let http = http_of(&model);
    let seconds = Duration::from_secs;
    let timeouts =
        HttpTimeouts { request_header: seconds(1), request: seconds(2), keep_alive: seconds(3), body_idle: seconds(4) };
    assert_eq!(http.timeouts, timeouts);
    let limits = HttpLimits {
        header_bytes: 4096,
        header_fields: 10,
        uri_bytes: 1000,
        body_bytes: 10 << 20,
        min_rate: 0,
        requests: 1000,
        streams: 7,
        underscores: true,
    };
    assert_eq!(http.limits, limits);
    assert!(http.trusted_proxies.contain(&ClientAddr::Tcp("10.1.2.3:4".parse().unwrap())));
    assert_eq!(http.error_pages[&503][..], *b"<h1>Back soon</h1>\n");
    assert!(model.files.keys().any(|file| file.ends_with("sorry.html")), "it is watched");
    assert_eq!(http.routes.iter().map(|route| route.compress).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn every_key_of_a_route_reaches_the_model() {
    let folder = super::tls::folder();
    let text = listener(
        r#"routes = [{
            host = "*.Example.com", path = "/v1/", method = ["PUT", "GET"],
            headers = { "X-Canary" = "1", accept = "text/*" }, query = { v = "*", id = "*7" },
            pool = "web", mirror = "other", rewrite = { prefix = "/api/", host = "internal:8080" },
            request_headers = { remove = ["X-Debug"], set = { "X-A" = "b" }, add = { "X-C" = "" } },
            response_headers = { remove = ["server"] },
            timeout = "5s", retries = 1, allow = ["10.0.0.0/8"], deny = ["10.0.0.5"],
            basic_auth = "users.htpasswd", realm = "Staff only", max_in_flight = 100, compress = true,
        }]"#,
    );
    let loaded = load_text(&text, "test.toml", folder.path(), &ENVIRONMENT)
        .unwrap_or_else(|problems| panic!("{}", problems.human(false)));
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings.human(false));
    let [route] = http_of(&loaded.model).routes.as_slice() else { panic!("{:?}", loaded.model) };
    let matches = Match {
        host: Some(HostPattern::Below("example.com".into())),
        path: PathMatch::Prefix("/v1".into()),
        methods: vec!["GET".into(), "PUT".into()],
        headers: vec![
            ("accept".into(), ValueMatch::Begins("text/".into())),
            ("x-canary".into(), ValueMatch::Exact("1".into())),
        ],
        query: vec![("id".into(), ValueMatch::Ends("7".into())), ("v".into(), ValueMatch::Any)],
    };
    assert_eq!(route.matches, matches);
    assert_eq!(route.action, Action::Pool(Name::new("web")));
    assert_eq!(route.mirror, Some(Name::new("other")));
    assert_eq!(&*route.realm, "Staff only");
    assert_eq!(route.rewrite, Rewrite { host: Some("internal:8080".into()), prefix: Some("/api".into()) });
    let rules = HeaderRules {
        remove: vec!["x-debug".into()],
        set: vec![("x-a".into(), "b".into())],
        add: vec![("x-c".into(), "".into())],
    };
    assert_eq!(route.request_headers, rules);
    assert_eq!(route.response_headers, HeaderRules { remove: vec!["server".into()], ..HeaderRules::default() });
    assert_eq!((route.timeout, route.retries, route.max_in_flight), (Duration::from_secs(5), Some(1), 100));
    let lets_in = |ip: &str| route.acl.lets_in(&ClientAddr::Tcp(format!("{ip}:1").parse().unwrap()));
    assert_eq!(["10.0.0.4", "10.0.0.5", "192.0.2.1"].map(lets_in), [true, false, false]);
    assert!(route.users.is_some() && route.compress);
    assert!(loaded.model.files.keys().any(|file| file.ends_with("users.htpasswd")), "it is watched");
}

#[test]
fn a_route_leads_to_a_pool_to_several_elsewhere_or_to_an_answer() {
    let action = |text: &str| http_of(&model(&route(text))).routes[0].action.clone();
    let split = vec![(Name::new("web"), Weight::new(9).unwrap()), (Name::new("other"), Weight::ONE)];
    assert_eq!(action("split = [{ pool = \"web\", weight = 9 }, { pool = \"other\" }]"), Action::Split(split));
    let location = Template(vec![Part::Text("https://".into()), Part::Host, Part::Path, Part::Query]);
    assert_eq!(action("redirect = \"https://{host}{path}{query}\""), Action::Redirect { status: 308, location });
    let location = Template(vec![Part::Scheme, Part::Text("://a.example/x".into())]);
    assert_eq!(
        action("redirect = { to = \"{scheme}://a.example/x\", status = 301 }"),
        Action::Redirect { status: 301, location }
    );
    let respond = |status: u16, body: &str, content_type: &str| Action::Respond {
        status,
        body: body.into(),
        content_type: content_type.into(),
    };
    assert_eq!(action("respond = 204"), respond(204, "", "text/plain; charset=utf-8"));
    assert_eq!(action("respond = { status = 404, body = \"no\" }"), respond(404, "no", "text/plain; charset=utf-8"));
    assert_eq!(action("respond = { body = \"{}\", content_type = \"a/b\" }"), respond(200, "{}", "a/b"));
}

#[test]
fn paths_are_prefixes_unless_they_are_said_to_be_all() {
    let path = |text: &str| {
        http_of(&model(&route(&format!("path = \"{text}\", pool = \"web\"")))).routes[0].matches.path.clone()
    };
    for (text, meant) in [
        ("/", PathMatch::Prefix("".into())),
        ("/v1", PathMatch::Prefix("/v1".into())),
        ("/a%20b/", PathMatch::Prefix("/a%20b".into())),
        ("= /", PathMatch::Exact("/".into())),
        ("=/x/", PathMatch::Exact("/x/".into())),
        ("/.well-known/a..b", PathMatch::Prefix("/.well-known/a..b".into())),
    ] {
        assert_eq!(path(text), meant, "{text}");
    }
    let prefix = |path: &str, prefix: &str| {
        let text = route(&format!("path = \"{path}\", pool = \"web\", rewrite = {{ prefix = \"{prefix}\" }}"));
        http_of(&model(&text)).routes[0].rewrite.prefix.clone().unwrap()
    };
    assert_eq!([&*prefix("/a", "/"), &*prefix("/a", "/b/"), &*prefix("= /a", "/b/")], ["", "/b", "/b/"]);
}

#[test]
fn a_smaller_head_alone_leaves_room_for_more_than_the_target() {
    let limits = http_of(&model(&listener("http = { max_header = \"2KiB\" }"))).limits;
    assert_eq!((limits.header_bytes, limits.uri_bytes), (2048, 1024));
}

#[test]
fn every_key_of_a_pool_reaches_the_model() {
    let model = model(&pool(
        r#"
        http = { version = "2" }
        upstream = { max_idle = 0, idle_timeout = "5s", max_requests = 10, max_age = "1h" }
        timeouts = { response_header = "7s" }
        retry_on = ["reset", "timeout", "503", 429]
        retry_budget = { percent = 5, min = 0 }
        sticky = { cookie = "srv", secure = true, http_only = false, same_site = "none", ttl = "1d" }"#,
    ));
    let expected = HttpPool {
        version: HttpVersion::Http2,
        keep: Keep {
            max_idle: 0,
            idle_timeout: Duration::from_secs(5),
            max_requests: 10,
            max_age: Duration::from_secs(3600),
        },
        timeouts: model::http::HttpPoolTimeouts { response_header: Duration::from_secs(7) },
        retry_on: RetryOn { connect: false, reset: true, timeout: true, statuses: vec![503, 429] },
        retry_budget: RetryBudget { percent: 5, min: 0 },
        sticky: Some(Arc::new(Sticky {
            cookie: "srv".into(),
            secure: true,
            http_only: false,
            same_site: SameSite::None,
            ttl: Duration::from_secs(24 * 3600),
        })),
    };
    assert_eq!(model.pools[0].http, expected);
}

#[test]
fn protocols_are_agreed_on_by_what_is_spoken() {
    let folder = super::tls::folder();
    let load = |listener: &str, pool: &str| {
        let text = format!(
            "[listeners.web]\nbind = 1\npool = \"web\"\nprotocol = \"http\"\n\
             tls = {{ certificates = [{{ cert = \"tls/example.crt\", key = \"tls/example.key\" }}]{listener} }}\n\
             [pools.web]\nservers = [\"10.0.0.1:1\"]\n{pool}\n"
        );
        load_text(&text, "test.toml", folder.path(), &ENVIRONMENT)
    };
    let said = |listener: &str, pool: &str| match load(listener, pool) {
        Ok(loaded) => loaded.warnings.iter().map(line).collect::<Vec<_>>(),
        Err(problems) => problems.iter().map(line).collect(),
    };
    let front = |listener: &str| load(listener, "").unwrap().model.listeners[0].front.clone();
    assert_eq!(front(""), front(", alpn = [\"h2\", \"http/1.1\"]"));
    assert_ne!(front(""), front(", alpn = [\"http/1.1\", \"http/1.0\"]"));
    let refused = said(", alpn = [\"http/1.1\", \"spdy/3\"]", "");
    assert_eq!(refused, ["5:101 a listener for HTTP does not speak \"spdy/3\""]);

    let tls = |http: &str, tls: &str| {
        format!("http = {{ {http} }}\ntls = {{ ca = \"tls/servers.crt\", server_name = \"a\"{tls} }}")
    };
    let offered = |pool: &str| load("", pool).unwrap().model.pools[0].tls.clone();
    let (one, two, auto) = ("version = \"1.1\"", "version = \"2\"", "version = \"auto\"");
    assert_eq!(offered(&tls(two, "")), offered(&tls(one, ", alpn = [\"h2\"]")));
    assert_eq!(offered(&tls(auto, "")), offered(&tls(one, ", alpn = [\"h2\", \"http/1.1\"]")));
    assert_eq!(offered(&tls(one, "")), offered(&tls(one, ", alpn = []")));
    let refused = said("", &tls(two, ", alpn = [\"http/1.1\"]"));
    assert_eq!(refused, ["9:59 `alpn` does not offer h2, which `version` in `http` asks for"]);
}

#[test]
fn ten_thousand_routes_are_read_in_a_time_that_grows_with_their_number() {
    let routes: String =
        (0..10_000).map(|index| format!("{{ headers = {{ a = \"{index}\" }}, pool = \"web\" }},\n")).collect();
    let began = std::time::Instant::now();
    assert_eq!(http_of(&model(&listener(&format!("routes = [\n{routes}]")))).routes.len(), 10_000);
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
}
