//! Requests that check servers: what they ask, and what is said of those that cannot be asked; and when servers are ejected.

use super::*;
use crate::backend::Limits;
use crate::health::{Check, HttpProbe, HttpVersion, Outlier, SuccessRate, Timing};
use crate::units::Percent;
use std::time::Duration;

/// The minimal file with a pool that has this in its table besides.
fn with(pool: &str) -> String {
    format!("{MINIMAL}{pool}\n")
}

fn probe(pool: &str) -> HttpProbe {
    match &model(&with(pool)).pools[0].check {
        Check::Http(timing, probe) => {
            assert_eq!(*timing, Timing::default());
            (**probe).clone()
        }
        Check::None | Check::Tcp(_) | Check::Tls(..) => panic!("another check"),
    }
}

#[test]
fn a_request_asks_for_the_root_of_the_server_unless_told_otherwise() {
    let plain = probe("check = \"http\"");
    assert_eq!((plain.method.as_str(), plain.target.as_str(), &plain.host), ("GET", "/", &None));
    assert_eq!((plain.statuses.as_slice(), &plain.body), ([200..=399].as_slice(), &None));
    assert!(plain.headers.is_empty() && plain.tls.is_none() && plain.version == HttpVersion::Http1);
}

#[test]
fn every_key_of_a_request_reaches_the_model() {
    let told = probe(
        "check = { type = \"http\", method = \"OPTIONS\", path = \"/up?full=1\", host = \"api.internal:81\", \
         headers = { X-Probe = \"1\", Accept = \"text/plain\" }, status = [\"200-299\", 404, \"503\"], body = \"ok\" }",
    );
    assert_eq!((told.method.as_str(), told.target.as_str()), ("OPTIONS", "/up?full=1"));
    assert_eq!(told.host.unwrap().as_str(), "api.internal:81");
    let headers: Vec<_> = told.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    assert_eq!(headers, [("x-probe", "1"), ("accept", "text/plain")]);
    assert_eq!(told.statuses, [200..=299, 404..=404, 503..=503]);
    assert_eq!(told.body.as_deref(), Some("ok"));
    assert_eq!(probe("check = { type = \"http\", status = 204 }").statuses, [204..=204]);
}

#[test]
fn requests_that_cannot_be_sent_or_answered_are_refused_where_they_stand() {
    for (keys, expected) in [
        ("method = \"get\"", "7:35 \"get\" is not the method of a check"),
        ("method = \"CONNECT\"", "7:35 \"CONNECT\" is not the method of a check"),
        ("path = \"healthz\"", "7:33 \"healthz\" is not the path of a check"),
        ("path = \"/a b\"", "7:33 \"/a b\" is not the path of a check"),
        ("path = \"/a#b\"", "7:33 \"/a#b\" is not the path of a check"),
        ("host = \"a/b\"", "7:33 \"a/b\" is not the host of a check"),
        ("host = \"me@b\"", "7:33 \"me@b\" is not the host of a check"),
        ("headers = { \"a b\" = \"\" }", "7:38 \"a b\" is not the name of a header field"),
        ("headers = { a = \"b\\nc\" }", "7:42 \"b\\nc\" is not the value of a header field"),
        ("headers = { Host = \"a\" }", "7:38 the host that a check asks for has a key of its own"),
        ("headers = { TE = \"a\" }", "7:38 \"TE\" is about the connection or the body, and not for a check to say"),
        ("headers = { a = \"1\", A = \"2\" }", "7:47 \"a\" stands in `headers` twice"),
        ("headers = { a = 1 }", "7:42 `a` cannot be a whole number"),
        ("status = []", "7:35 `status` cannot be empty"),
        ("status = [101]", "7:36 \"101\" is not a status"),
        ("status = \"300-200\"", "7:35 \"300-200\" is not a status"),
        ("status = true", "7:35 `status` cannot be `true` or `false`"),
        ("body = \"\"", "7:33 `body` of a check cannot be 0 bytes long"),
        ("method = \"HEAD\", body = \"a\"", "7:50 the answer to HEAD has no body to look into"),
        (
            "server_name = \"a\"",
            "7:40 `server_name` of a check means nothing unless its type is `tls`, or `http` in a pool with `tls`",
        ),
    ] {
        assert_eq!(said(&with(&format!("check = {{ type = \"http\", {keys} }}"))), [expected], "{keys}");
    }
}

#[test]
fn what_a_request_asks_means_nothing_to_other_checks() {
    let keys =
        ["method = \"GET\"", "path = \"/\"", "host = \"a\"", "headers = { a = \"\" }", "status = 200", "body = \"a\""];
    for key in keys {
        let (name, _) = key.split_once(' ').unwrap();
        let problems = said(&with(&format!("check = {{ type = \"tcp\", {key} }}")));
        let [only] = problems.as_slice() else { panic!("{key}: {problems:?}") };
        assert!(only.ends_with(&format!("`{name}` of a check means nothing unless its type is `http`")), "{only}");
    }
}

#[test]
fn servers_are_ejected_where_the_file_says_so_and_by_the_defaults_where_it_says_no_more() {
    assert_eq!(model(MINIMAL).pools[0].outlier, None);
    assert_eq!(model(&with("outlier = {}")).pools[0].outlier, Some(Outlier::default()));
    let text = "outlier = { consecutive_5xx = 7, consecutive_gateway = 0, consecutive_failures = 1, ejection = \"10m\", \
                max_ejected = \"10%\", first_byte = \"2s\", server_speaks_first = true, success_rate_factor = 3000, \
                success_rate_margin = \"1%\", success_rate_min_servers = 3, success_rate_min_requests = 50, interval = \"5s\" }";
    let ten_minutes = Duration::from_secs(600);
    let expected = Outlier {
        limits: Limits { server_errors: 7, gateway_errors: 0, failures: 1 },
        success_rate: Some(SuccessRate {
            interval: Duration::from_secs(5),
            min_servers: 3,
            min_requests: 50,
            factor: 3000,
            margin: Percent::new(1).unwrap(),
        }),
        first_byte: Duration::from_secs(2),
        server_speaks_first: true,
        ejection: ten_minutes,
        max_ejection: ten_minutes,
        max_ejected: Percent::new(10).unwrap(),
    };
    assert_eq!(model(&with(text)).pools[0].outlier, Some(expected));
    let alone = model(&with("outlier = { success_rate_factor = 0 }")).pools[0].outlier;
    assert_eq!(alone, Some(Outlier { success_rate: None, ..Outlier::default() }));
}

#[test]
fn ejections_that_make_no_sense_are_told_where_they_stand() {
    for (keys, expected) in [
        ("max_ejected = \"101%\"", "7:27 \"101%\" is not a share"),
        ("max_ejected = 50", "7:27 `max_ejected` cannot be a whole number"),
        ("consecutive_5xx = 1001", "7:31 `consecutive_5xx` cannot be 1001"),
        ("interval = \"99ms\"", "7:24 the `interval` of `outlier` (99ms) is too short to tell servers apart"),
        ("success_rate_min_servers = 1", "7:40 `success_rate_min_servers` cannot be 1"),
        ("ejection = \"0s\"", "7:24 `ejection` cannot be zero"),
        ("max_ejection = \"29s\"", "7:28 the `max_ejection` of a pool (29s) is shorter than its `ejection` (30s)"),
        (
            "consecutive_5xx = 0, consecutive_gateway = 0, consecutive_failures = 0, success_rate_factor = 0",
            "7:107 `outlier` counts nothing, so no server is ever ejected",
        ),
    ] {
        assert_eq!(said(&with(&format!("outlier = {{ {keys} }}"))), [expected], "{keys}");
    }
}
