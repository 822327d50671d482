//! HTTP: what is said of listeners, routes and pools that mean nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::http::{listener, pool, route};
use super::*;

/// The one problem there is, as what was right.
fn expected_of(text: &str) -> Option<String> {
    load(text).unwrap_err().problems()[0].expected.clone()
}

/// The one problem there is, as what to do about it.
fn help_of(text: &str) -> Option<String> {
    load(text).unwrap_err().problems()[0].help.clone()
}

fn hold(make: impl Fn(&str) -> String, cases: &[(&str, &[&str])]) {
    for (text, expected) in cases {
        assert_eq!(said(&make(text)), *expected, "{text}");
    }
}

#[test]
fn what_is_for_http_needs_http_and_what_is_not_cannot_have_it() {
    let tcp = |lines: &str| listener(lines).replace("protocol = \"http\"", "protocol = \"tcp\"");
    hold(
        tcp,
        &[
            ("routes = [{ pool = \"web\" }]", &["2:1 `routes` needs `protocol = \"http\"`"]),
            ("trusted_proxies = []", &["2:1 `trusted_proxies` needs `protocol = \"http\"`"]),
            ("compress = true", &["2:1 `compress` needs `protocol = \"http\"`"]),
            ("error_pages = {}", &["2:1 `error_pages` needs `protocol = \"http\"`"]),
            ("http = {}", &["2:1 `http` needs `protocol = \"http\"`"]),
            ("timeouts = { request = \"0s\" }", &["2:24 `request` needs `protocol = \"http\"`"]),
        ],
    );
    let sni = "sni = [{ host = \"a\", pool = \"web\" }]";
    assert_eq!(
        said(&listener(sni)),
        ["2:1 `sni` sends whole connections, and a listener for HTTP sends each request on its own"]
    );
    // Nothing is concluded from a protocol that could not be read.
    let unknown = listener("routes = [{ pool = \"web\" }]").replace("\"http\"", "\"htp\"");
    assert_eq!(said(&unknown), ["4:12 `protocol` cannot be \"htp\""]);
}

#[test]
fn limits_that_cannot_be_kept_are_refused() {
    hold(
        |text| listener(&format!("http = {{ {text} }}")),
        &[
            ("max_header = 16384", &["2:23 `max_header` cannot be a whole number"]),
            ("max_header = \"16\"", &["2:23 \"16\" is not a size: the unit is missing"]),
            ("max_header = \"1023B\"", &["2:23 `max_header` cannot be 1023B"]),
            ("max_header = \"64KiB\"", &["2:23 `max_header` cannot be 64KiB"]),
            ("max_uri = \"16KiB\"", &["2:20 `max_uri` cannot be 16KiB"]),
            ("max_uri = \"0\"", &["2:20 `max_uri` cannot be 0B"]),
            ("max_header_fields = 1001", &["2:30 `max_header_fields` cannot be 1001"]),
            ("max_streams = 0", &["2:24 `max_streams` cannot be 0"]),
            ("max_requests = -1", &["2:25 `max_requests` cannot be -1"]),
        ],
    );
    hold(
        |text| listener(&format!("timeouts = {{ {text} }}")),
        &[
            ("keep_alive = \"0s\"", &["2:27 `keep_alive` cannot be zero"]),
            ("request_header = \"0s\"", &["2:31 `request_header` cannot be zero"]),
            ("request = \"0s\"", &[]),
        ],
    );
    hold(
        listener,
        &[(
            "trusted_proxies = [\"10.0.0.1/8\"]",
            &["2:20 \"10.0.0.1/8\" is not a network: it has bits beyond its prefix"],
        )],
    );
}

#[test]
fn a_route_has_one_action_and_nothing_that_means_nothing_beside_it() {
    hold(
        route,
        &[
            ("path = \"/\"", &["2:11 a route needs one of the keys `pool`, `split`, `redirect` or `respond`"]),
            ("pool = \"web\", respond = 204", &["2:27 `respond` cannot stand beside `pool`"]),
            ("redirect = \"/x\", mirror = \"web\"", &["2:30 `mirror` means nothing in a route that asks no server"]),
            ("respond = 204, rewrite = {}", &["2:28 `rewrite` means nothing in a route that asks no server"]),
            ("respond = \"204\"", &["2:23 `respond` cannot be a string"]),
            ("respond = 100", &["2:23 `respond` cannot be 100"]),
            ("respond = { status = 204, body = \"x\" }", &["2:46 a response of status 204 has no body"]),
            (
                "respond = { content_type = \"a\\nb\" }",
                &["2:40 \"a\\nb\" is not the value of a header field: it has control characters"],
            ),
            ("pool = \"web\", retries = 16", &["2:37 `retries` cannot be 16"]),
            ("pool = \"web\", timout = \"1s\"", &["2:27 a route has no key \"timout\""]),
            ("split = []", &["2:21 `split` cannot be empty"]),
            ("split = [{ weight = 1 }]", &["2:22 an entry of `split` needs the key `pool`"]),
            (
                "split = [{ pool = \"web\", weight = 0 }]",
                &["2:21 every pool of this split has weight 0, so none would be given a request"],
            ),
            ("split = [{ pool = \"web\" }, { pool = \"web\" }]", &["2:49 the pool \"web\" stands in `split` twice"]),
        ],
    );
    hold(listener, &[("routes = []", &["2:10 `routes` cannot be empty"])]);
}

#[test]
fn redirects_lead_to_a_host_that_the_file_names_or_that_was_asked_for() {
    let case = |to: &str| said(&route(&format!("redirect = \"{to}\"")));
    for to in ["https://{host}{path}{query}", "/", "/new{path}{query}", "{scheme}://www.{host}/", "http://[::1]:80/"] {
        assert_eq!(case(to), Vec::<String>::new(), "{to}");
    }
    for to in [
        "",
        "example.com",
        "{path}",
        "//example.com",
        "/{path}",
        "https://",
        "https://{path}",
        "ftp://a/",
        "https:///x",
        "/a b",
        "/ü",
    ] {
        let said = case(to);
        assert!(said.len() == 1 && said[0].contains("is not where a client can be sent to"), "{to}: {said:?}");
    }
    assert!(case("/{hsot}")[0].ends_with("there is no {hsot}"));
    assert!(case("/{host")[0].ends_with("a \"{\" is never closed"));
    assert!(case("/x}")[0].ends_with("a \"}\" closes nothing"));
    for (status, kind) in [("304", "304"), ("200", "200"), ("0x1_0000", "65536"), ("\"301\"", "a string")] {
        let text = route(&format!("redirect = {{ to = \"/\", status = {status} }}"));
        assert_eq!(said(&text), [format!("2:45 `status` cannot be {kind}")]);
        assert_eq!(expected_of(&text).as_deref(), Some("301, 302, 303, 307 or 308"));
    }
    assert_eq!(said(&route("redirect = { status = 301 }")), ["2:24 `redirect` of a route needs the key `to`"]);
}

#[test]
fn what_no_request_can_match_is_refused() {
    hold(
        |text| route(&format!("pool = \"web\", {text}")),
        &[
            ("host = \"a.example:80\"", &["2:34 \"a.example:80\" is not a host name: a host name has no ':'"]),
            ("path = \"v1\"", &["2:34 \"v1\" is not a path: a path begins with \"/\""]),
            ("path = \"/a?b\"", &["2:34 \"/a?b\" is not a path: a path ends before \"?\" or \"#\""]),
            ("path = \"= /a#b\"", &["2:34 \"= /a#b\" is not a path: a path ends before \"?\" or \"#\""]),
            ("path = \"/a//b\"", &["2:34 \"/a//b\" is not a path: a path has no \"//\""]),
            (
                "path = \"/a/../b\"",
                &["2:34 \"/a/../b\" is not a path: a path has no \".\" and no \"..\" between slashes"],
            ),
            (
                "path = \"/a/%2E%2e%2fb\"",
                &["2:34 \"/a/%2E%2e%2fb\" is not a path: a path has no \".\" and no \"..\" between slashes"],
            ),
            (
                "path = \"= /a;b/c\"",
                &[
                    "2:34 \"= /a;b/c\" is not a path: what follows a \";\" in a segment is not compared, as \"/a;b\" takes the \
                   route of \"/a\"",
                ],
            ),
            (
                "path = \"/a%3Bb\"",
                &[
                    "2:34 \"/a%3Bb\" is not a path: what follows a \";\" in a segment is not compared, as \"/a;b\" takes the \
                   route of \"/a\"",
                ],
            ),
            ("path = \"/%zz\"", &["2:34 \"/%zz\" is not a path: two hexadecimal digits follow a \"%\""]),
            ("method = []", &["2:36 `method` cannot be empty"]),
            ("method = \"get\"", &["2:36 \"get\" is not a method: methods are in upper case"]),
            ("method = [\"GET\", \"G T\"]", &["2:44 \"G T\" is not a method"]),
            ("headers = { \"a b\" = \"1\" }", &["2:39 \"a b\" is not the name of a header field"]),
            ("headers = { a = \"1\", A = \"2\" }", &["2:48 \"A\" stands in `headers` twice"]),
            ("headers = { host = \"a\" }", &["2:39 a request says for which host it is in more ways than by a field"]),
            (
                "headers = { a = \"b*c\" }",
                &["2:43 \"b*c\" is not a value to look for: there is one \"*\" at most, and it stands first or last"],
            ),
            (
                "query = { a = \"*b*\" }",
                &["2:41 \"*b*\" is not a value to look for: there is one \"*\" at most, and it stands first or last"],
            ),
            ("query = { a = 2 }", &["2:41 `a` cannot be a whole number"]),
        ],
    );
}

#[test]
fn a_star_in_a_path_or_for_a_host_means_nothing_and_it_is_said_what_would() {
    for (path, guess) in [("/v1/*", "/v1/"), ("/v1*", "/v1"), ("/*", "/"), ("= /v1/*", "/v1/")] {
        let text = route(&format!("pool = \"web\", path = \"{path}\""));
        assert_eq!(said(&text), [format!("2:34 \"{path}\" is not a path: a path is for all below it as well")]);
        assert_eq!(help_of(&text), Some(format!("did you mean \"{guess}\"?")));
    }
    assert_eq!(
        said(&route("pool = \"web\", path = \"/*/v1\"")),
        [
            "2:34 \"/*/v1\" is not a path: a \"*\" stands for nothing else in a path, and is written \"%2A\" where it is meant"
        ]
    );
    assert_eq!(said(&route("pool = \"web\", path = \"/%2A/v1\"")), Vec::<String>::new());
    let host = route("pool = \"web\", host = \"*\"");
    assert_eq!(said(&host), ["2:34 \"*\" is not a host name: a host name has no '*'"]);
    assert_eq!(help_of(&host).as_deref(), Some("leave `host` out: without it, any host is meant"));
}

#[test]
fn a_path_is_the_same_in_whatever_way_it_is_written() {
    let text = listener("routes = [{ path = \"/a/b@\", pool = \"web\" }, { path = \"/%61%2fb%40/\", pool = \"web\" }]");
    assert_eq!(said(&text), ["2:45 an earlier route of this listener is for the same"]);
}

#[test]
fn what_rules_cannot_change_is_refused() {
    for name in [
        "Connection",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "content-length",
        "te",
        "trailer",
        "upgrade",
    ] {
        for rules in [
            format!("set = {{ {name} = \"x\" }}"),
            format!("add = {{ {name} = \"x\" }}"),
            format!("remove = [\"{name}\"]"),
        ] {
            for side in ["request_headers", "response_headers"] {
                let said = said(&route(&format!("pool = \"web\", {side} = {{ {rules} }}")));
                assert!(
                    said.len() == 1
                        && said[0].ends_with(&format!("\"{name}\" belongs to each connection and cannot be changed")),
                    "{said:?}"
                );
            }
        }
    }
    let host = route("pool = \"web\", request_headers = { set = { Host = \"a\" } }");
    assert_eq!(said(&host), ["2:55 the host of a request is said in more ways than by a field"]);
    assert_eq!(expected_of(&host).as_deref(), Some("`host` in `rewrite` of the route"));
    hold(
        |text| route(&format!("pool = \"web\", request_headers = {{ {text} }}")),
        &[
            (
                "set = { a = \"b\\u0000\" }",
                &["2:59 \"b\\u{0}\" is not the value of a header field: it has control characters"],
            ),
            (
                "set = { a = \" b\" }",
                &["2:59 \" b\" is not the value of a header field: it begins or ends with a space"],
            ),
            ("set = { a = \"b\", A = \"c\" }", &["2:64 \"A\" stands in `set` twice"]),
            ("remove = [\"a:\"]", &["2:57 \"a:\" is not the name of a header field"]),
            ("remove = [\"a\", \"A\"]", &["2:62 \"A\" stands in `remove` twice"]),
        ],
    );
    hold(
        |text| route(&format!("pool = \"web\", rewrite = {{ {text} }}")),
        &[
            ("host = \"a b\"", &["2:46 \"a b\" is not a host"]),
            ("host = \"*.a\"", &["2:46 \"*.a\" is not a host"]),
            ("host = \"a:99999\"", &["2:46 \"a:99999\" is not a host"]),
            ("host = \"[::1]:80\"", &[]),
            ("prefix = \"api\"", &["2:48 \"api\" is not a path: a path begins with \"/\""]),
        ],
    );
}

#[test]
fn who_may_ask_is_read_from_networks_and_a_file() {
    let folder = super::tls::folder();
    let said_in = |text: &str| match load_text(&route(text), "test.toml", folder.path(), &ENVIRONMENT) {
        Ok(loaded) => loaded.warnings.iter().map(line).collect::<Vec<_>>(),
        Err(problems) => problems.iter().map(line).collect(),
    };
    assert_eq!(said_in("pool = \"web\", allow = []"), ["2:35 `allow` cannot be empty"]);
    assert_eq!(said_in("pool = \"web\", deny = [\"all\"]"), ["2:35 \"all\" is not a network"]);
    let users = "pool = \"web\", basic_auth = \"users.htpasswd\"";
    assert_eq!(said_in(users), Vec::<String>::new());
    let file = folder.path().join("users.htpasswd");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(said_in(users), ["2:40 \"users.htpasswd\" can be read by everybody on this machine"]);
    fs::write(&file, "nobody\n").unwrap();
    assert!(said_in(users).iter().any(|said| said.starts_with("2:40 \"users.htpasswd\": ")), "{:?}", said_in(users));
    for realm in ["", "a\\\"b", "a\\\\b", "\\t", "ü"] {
        let said = said_in(&format!("pool = \"web\", basic_auth = \"users.htpasswd\", realm = \"{realm}\""));
        assert!(said.iter().any(|said| said.contains("is not a realm")), "{realm}: {said:?}");
    }
    assert_eq!(said_in("pool = \"web\", realm = \"staff\""), ["2:35 `realm` means nothing without `basic_auth`"]);
    fs::remove_file(&file).unwrap();
    assert_eq!(said_in(users), ["2:40 \"users.htpasswd\": cannot read the file: there is none at this path"]);
}

#[test]
fn error_pages_are_small_and_for_answers_of_our_own() {
    let folder = super::tls::folder();
    let said_in = |text: &str| {
        let problems = load_text(&listener(text), "test.toml", folder.path(), &ENVIRONMENT).unwrap_err();
        problems.iter().map(line).collect::<Vec<_>>()
    };
    assert_eq!(
        said_in("error_pages = { \"500\" = \"sorry.html\" }"),
        ["2:17 no answer of our own has the status \"500\""]
    );
    fs::write(folder.path().join("large.html"), vec![b'x'; 64 * 1024 + 1]).unwrap();
    assert_eq!(
        said_in("error_pages = { \"503\" = \"large.html\" }"),
        ["2:25 \"large.html\": cannot read the file: it is larger than 64 KiB"]
    );
}

#[test]
fn the_same_route_twice_is_refused_however_it_is_written() {
    let routes = |first: &str, second: &str| {
        said(&listener(&format!("routes = [\n{{ pool = \"web\", {first} }},\n{{ pool = \"web\", {second} }},\n]")))
    };
    let expected = ["4:1 an earlier route of this listener is for the same"];
    assert_eq!(routes("path = \"/a\"", "path = \"/a/\""), expected);
    assert_eq!(routes("host = \"a\"", "host = \"A.\""), expected);
    assert_eq!(routes("method = [\"GET\", \"PUT\"]", "method = [\"PUT\", \"GET\"]"), expected);
    assert_eq!(routes("headers = { a = \"1\", b = \"2\" }", "headers = { B = \"2\", A = \"1\" }"), expected);
    assert_eq!(routes("path = \"/a\"", "path = \"=/a\""), Vec::<String>::new());
    assert_eq!(routes("query = { a = \"1\" }", "query = { a = \"2\" }"), Vec::<String>::new());
}

#[test]
fn pools_that_routes_lead_to_have_to_be_there_and_are_used() {
    let text = |routes: &str| {
        format!(
            "[listeners.web]\nbind = 80\nprotocol = \"http\"\nroutes = [{routes}]\n\
             [pools.a]\nservers = [\"10.0.0.1:80\"]\n[pools.b]\nservers = [\"10.0.0.1:80\"]\n"
        )
    };
    hold(
        text,
        &[
            ("{ pool = \"a\", mirror = \"b\" }", &[]),
            ("{ split = [{ pool = \"a\" }, { pool = \"b\" }] }", &[]),
            ("{ pool = \"a\" }", &["7:8 no listener uses the pool \"b\""]),
            (
                "{ pool = \"c\", mirror = \"d\" }",
                &[
                    "4:20 there is no pool \"c\"",
                    "4:34 there is no pool \"d\"",
                    "5:8 no listener uses the pool \"a\"",
                    "7:8 no listener uses the pool \"b\"",
                ],
            ),
            // What could not be read may be what uses the pool.
            ("{ pool = \"a\", mirror = 5 }", &["4:34 `mirror` cannot be a whole number"]),
        ],
    );
    assert_eq!(said(&listener("").replace("pool = \"web\"\n", "")), ["1:1 a listener needs the key `pool`"]);
}

#[test]
fn what_pools_cannot_do_for_requests_is_refused() {
    hold(
        pool,
        &[
            ("http = { version = \"3\" }", &["2:20 `version` cannot be \"3\""]),
            (
                "http = { version = \"auto\" }",
                &["2:20 a server chooses the version while it shakes hands, and this pool speaks no TLS"],
            ),
            ("upstream = { max_idle = -1 }", &["2:25 `max_idle` cannot be -1"]),
            ("upstream = { idle_timeout = \"0s\" }", &["2:29 `idle_timeout` cannot be zero"]),
            ("timeouts = { response_header = \"0s\" }", &["2:32 `response_header` cannot be zero"]),
            ("retry_on = [\"conect\"]", &["2:13 no request is tried again after \"conect\""]),
            ("retry_on = [404]", &["2:13 no request is tried again after \"404\""]),
            ("retry_on = [503, \"503\"]", &["2:18 \"503\" stands in `retry_on` twice"]),
            ("retry_on = [true]", &["2:13 an entry of `retry_on` cannot be `true` or `false`"]),
            ("retry_on = []", &[]),
            ("retry_budget = { percent = 101 }", &["2:28 `percent` cannot be 101"]),
            ("sticky = {}", &["2:10 `sticky` of a pool needs the key `cookie`"]),
            ("sticky = { cookie = \"a b\" }", &["2:21 \"a b\" is not the name of a cookie"]),
            (
                "sticky = { cookie = \"a\", same_site = \"none\" }",
                &["2:38 browsers take a cookie for all sites only if it is for HTTPS alone"],
            ),
            (
                "sticky = { cookie = \"__Host-a\" }",
                &["2:21 browsers take the cookie \"__Host-a\" only if it is for HTTPS alone"],
            ),
        ],
    );
}
