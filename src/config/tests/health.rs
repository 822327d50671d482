//! Requests that check servers: what they ask, and what is said of those that cannot be asked; and when servers are ejected.

use super::*;
use crate::backend::Limits;
use crate::config::model::{OnDown, PrimaryPool};
use crate::health::{
    Active, Check, Failback, Handshake, HttpProbe, HttpVersion, Initial, Outlier, Probe, Step, SuccessRate, Timing,
};
use crate::units::Percent;
use std::time::Duration;

/// The minimal file with a pool that has this in its table besides.
fn with(pool: &str) -> String {
    format!("{MINIMAL}{pool}\n")
}

fn probe(pool: &str) -> HttpProbe {
    let check = &model(&with(pool)).pools[0].check;
    assert_eq!(check.timing(), Some(&Timing::default()));
    match check.active().map(|active| &active.probe) {
        Some(Probe::Http(probe)) => (**probe).clone(),
        other => panic!("another check: {other:?}"),
    }
}

#[test]
fn a_request_asks_for_the_root_of_the_server_unless_told_otherwise() {
    let plain = probe("check = \"http\"");
    assert_eq!((plain.method.as_str(), plain.target.as_str(), &plain.host), ("GET", "/", &None));
    assert_eq!((plain.statuses.as_slice(), &plain.body), ([200..=399].as_slice(), &None));
    assert!(plain.headers.is_empty() && !plain.reuse && plain.version == HttpVersion::Http1);
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
        ("server_name = \"a\"", "7:40 `server_name` of a check means nothing unless it speaks TLS"),
        ("ca = \"a\"", "7:31 `ca` of a check means nothing unless it speaks TLS"),
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
        assert!(only.contains(&format!("`{name}` of a check means nothing unless its type is `http`")), "{only}");
    }
}

/// What is probed, and how.
fn active(check: &str) -> Active {
    model(&with(&format!("check = {{ {check} }}"))).pools[0].check.active().unwrap().clone()
}

#[test]
fn what_every_kind_of_check_can_be_told_reaches_the_model() {
    let told = active("interval = \"4s\", down_interval = \"9s\", initial = \"down\", port = \"https\"");
    let expected = Timing {
        interval: Duration::from_secs(4),
        down_interval: Duration::from_secs(9),
        initial: Initial::Down,
        ..Timing::default()
    };
    assert_eq!((told.timing, told.port, told.probe), (expected, Some(443), Probe::Tcp));
    assert_eq!(active("initial = \"up\"").timing.initial, Initial::Up);
    let server = "servers = [{ address = \"10.0.0.1:80\", check_address = \"[::1]:81\" }]";
    let text = MINIMAL.replace("servers = [\"10.0.0.1:8080\"]", server);
    assert_ne!(text, MINIMAL);
    assert_eq!(model(&text).pools[0].servers[0].check_address.as_ref().unwrap().to_string(), "[::1]:81");
    let said = said(&text.replace("[::1]:81", "localhost"));
    assert!(said[0].contains("\"localhost\" is not the address where a server is checked"), "{said:?}");
}

#[test]
fn checks_ask_by_tls_where_they_are_told_to_and_in_a_pool_that_does_unless_they_are_told_not_to() {
    let pool_tls = "tls = { verify = false, server_name = \"a.internal\" }";
    let tls = |check: &str, pool: &str| {
        let text = with(&format!("check = {{ {check} }}\n{pool}"));
        let load = load_text(&text, "t", std::path::Path::new("/"), &ENVIRONMENT).unwrap();
        let settings = load.model.pools[0].check.active().unwrap().tls.clone();
        settings.map(|Handshake { settings, upgrades }| {
            let databases = ["\"postgres\"", "\"mysql\""];
            assert_eq!(upgrades, pool.is_empty() && databases.iter().any(|kind| check.contains(kind)), "{check}");
            settings.name().map(std::borrow::Cow::into_owned)
        })
    };
    let name = |name: &str| Some(Some(name.to_owned()));
    assert_eq!(tls("type = \"grpc\"", ""), None);
    assert_eq!(tls("type = \"grpc\", tls = true", ""), Some(None));
    assert_eq!(tls("type = \"http\", tls = true, server_name = \"b\"", ""), name("b"));
    for kind in ["http", "grpc", "postgres", "mysql"] {
        assert_eq!(tls(&format!("type = \"{kind}\""), pool_tls), name("a.internal"), "{kind}");
        assert_eq!(tls(&format!("type = \"{kind}\", tls = false"), pool_tls), None, "{kind}");
        assert_eq!(tls(&format!("type = \"{kind}\", tls = true"), ""), Some(None), "{kind}");
    }
    let twice = format!("check = {{ type = \"tls\", ca = \"a\" }}\n{pool_tls}");
    let problems = said(&with(&twice));
    let expected = "7:30 `ca` of a check means nothing in a pool with `tls`, whose roots are those of its checks";
    assert!(problems.iter().any(|problem| problem == expected), "{problems:?}");
    assert_eq!(tls("type = \"agent\", port = 1", pool_tls), None);
    assert_eq!(tls("type = \"tcp\"", pool_tls), None);
}

#[test]
fn steps_are_texts_or_bytes_in_hex() {
    let steps =
        "steps = [{ expect = \"220\" }, { send_hex = \"0D 0a\" }, { send = \"a\\r\\n\" }, { expect_hex = \"ff\" }]";
    let Probe::SendExpect(script) = active(&format!("type = \"send_expect\", {steps}")).probe else { panic!() };
    let expected = [
        Step::Expect((*b"220").into()),
        Step::Send((*b"\r\n").into()),
        Step::Send((*b"a\r\n").into()),
        Step::Expect([255].into()),
    ];
    assert_eq!(script.steps, expected);
}

#[test]
fn checks_that_cannot_be_made_are_refused_where_they_stand() {
    let long = "a".repeat(4097);
    for (check, expected) in [
        ("type = \"send_expect\"", "7:18 a check of the type `send_expect` needs the key `steps`"),
        ("type = \"agent\"", "7:18 a check of the type `agent` needs the key `port`"),
        ("type = \"agent\", port = 0", "7:34 nothing can be checked on port 0"),
        ("port = \"nobody\"", "7:18 \"nobody\" is not a port"),
        ("type = \"send_expect\", steps = []", "7:41 `steps` of a check cannot have 0 entries"),
        (
            "type = \"send_expect\", steps = [{}]",
            "7:42 a step of a check needs one of the keys `send`, `send_hex`, `expect` or `expect_hex`",
        ),
        (
            "type = \"send_expect\", steps = [{ expect = \"a\", expect_hex = \"62\" }]",
            "7:58 `expect_hex` cannot stand beside `expect`",
        ),
        ("type = \"send_expect\", steps = [{ expect = \"\" }]", "7:53 a step of a check cannot be 0 bytes long"),
        (
            &format!("type = \"send_expect\", steps = [{{ expect = \"{long}\" }}]"),
            "7:53 a step of a check cannot be 4097 bytes long",
        ),
        ("type = \"send_expect\", steps = [{ expect_hex = \"abc\" }]", "7:57 \"abc\" is not a step in hex"),
        ("type = \"send_expect\", steps = [{ expect_hex = \"zz\" }]", "7:57 \"zz\" is not a step in hex"),
        (
            "type = \"send_expect\", steps = [{ send = \"a\" }]",
            "7:41 no step of this check expects anything, so whatever can be connected to passes",
        ),
        ("type = \"postgres\", database = \"a\"", "7:41 `database` of a check means nothing without a `user`"),
        ("type = \"mysql\", user = \"\"", "7:34 the name of a user cannot be 0 bytes long"),
        (
            "type = \"tcp\", tls = true",
            "7:25 `tls` of a check means nothing unless its type is `http`, `grpc`, `send_expect`, `postgres` or `mysql`",
        ),
        ("service = \"a\"", "7:11 `service` of a check means nothing unless its type is `grpc`"),
    ] {
        let said = said(&with(&format!("check = {{ {check} }}")));
        assert_eq!(said, [expected], "{check}");
    }
}

#[test]
fn a_password_stands_in_a_file_of_its_own_and_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("monitor.pass");
    let load = |content: &str| {
        std::fs::write(&file, content).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let text = with("check = { type = \"mysql\", user = \"monitor\", password_file = \"monitor.pass\" }");
        load_text(&text, "test", folder.path(), &ENVIRONMENT)
    };
    let loaded = load("s3cret \n").unwrap();
    let Check::Active(Active { probe: Probe::MySql(Some(account)), .. }) = &loaded.model.pools[0].check else {
        panic!()
    };
    assert_eq!(account.password.as_ref().unwrap().expose(), b"s3cret");
    assert!(!format!("{:?}", loaded.model).contains("s3cret"));
    assert!(loaded.model.files.contains_key(&file), "a change of it is a reload");
    assert!(load("\n").is_err() && load(&"x".repeat(5000)).is_err());
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

#[test]
fn a_pool_has_a_primary_if_it_says_so_and_fails_back_only_where_nobody_else_decides() {
    let asks = "check = { type = \"mysql\", user = \"monitor\" }\n";
    let of = |keys: &str| model(&with(keys)).pools.remove(0);
    assert_eq!((of("").primary, of("role = \"any\"").on_down), (None, OnDown::Keep));
    let by_roles = PrimaryPool { by_roles: true, failback: Failback::Never };
    assert_eq!(of(&format!("{asks}role = \"primary\"")).primary, Some(by_roles));
    let own = of("role = \"primary\"\nfailback = \"10s\"");
    assert_eq!(own.primary.unwrap().failback, Failback::After(Duration::from_secs(10)));
    assert_eq!(own.on_down, OnDown::Reset);
    assert_eq!(of("role = \"primary\"\non_down = \"drain\"").on_down, OnDown::Drain);
    for (keys, expected) in [
        ("failback = \"10s\"", "`failback` means nothing without `role = \"primary\"`"),
        (&*format!("{asks}role = \"primary\"\nfailback = \"10s\""), "`failback` means nothing where the check asks"),
        ("role = \"primary\"\nfailback = \"soon\"", "\"soon\" is not a time to fail back after"),
        ("role = \"leader\"", "`role` cannot be \"leader\""),
    ] {
        let said = said(&with(keys));
        assert!(said.iter().any(|said| said.contains(expected)), "{keys}: {said:?}");
    }
}
