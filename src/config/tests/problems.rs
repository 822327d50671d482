//! Each kind of problem: where it is said to be and in which words.

use super::*;

/// A file whose first line is this one.
fn top(line: &str) -> String {
    format!("{line}\n{MINIMAL}")
}

/// A file with this listener, whose lines start on line 2, beside a pool named `web`.
fn listener(lines: &str) -> String {
    format!("[listeners.web]\n{lines}\n[pools.web]\nservers = [\"10.0.0.1:8080\"]\n")
}

/// A file with this pool, whose lines start on line 2.
fn pool(lines: &str) -> String {
    format!("[pools.web]\n{lines}\n[listeners.web]\nbind = 8080\npool = \"web\"\n")
}

/// Loads each text and compares what is said of it.
fn hold(cases: &[(String, &[&str])]) {
    for (text, expected) in cases {
        assert_eq!(said(text), *expected, "{text}");
    }
}

#[test]
fn values_of_the_wrong_type_or_out_of_range_are_refused() {
    const OK: &str = "servers = [\"10.0.0.1:8080\"]\n";
    hold(&[
        (top("workers = 0"), &["1:11 `workers` cannot be 0"]),
        (top("workers = 257"), &["1:11 `workers` cannot be 257"]),
        (top("workers = \"2\""), &["1:11 `workers` cannot be a string"]),
        (top("workers = 99999999999999999999"), &["1:11 `workers` cannot be 99999999999999999999"]),
        (top("workers = 0x_"), &["1:13 `_` may only go between digits"]),
        (top("max_connections = 1.5"), &["1:19 `max_connections` cannot be a number with a fraction"]),
        (top("drain_timeout = 30"), &["1:17 `drain_timeout` cannot be a whole number"]),
        (top("drain_timeout = \"30\""), &["1:17 \"30\" is not a duration: the unit is missing"]),
        (top("drain_timeout = \"soon\""), &["1:17 \"soon\" is not a duration"]),
        (top("watch = \"yes\""), &["1:9 `watch` cannot be a string"]),
        (top("watch = 1979-05-27"), &["1:9 `watch` cannot be a date or time"]),
        (top("log = true"), &["1:7 `log` cannot be `true` or `false`"]),
        (top("log.level = \"inof\""), &["1:13 `level` cannot be \"inof\""]),
        (top("log.format = \"xml\""), &["1:14 `format` cannot be \"xml\""]),
        (top("log.access = \"\""), &["1:14 `access` cannot be empty"]),
        (pool("servers = \"10.0.0.1:8080\""), &["2:11 `servers` cannot be a string"]),
        (pool("servers = [5]"), &["2:12 an entry of `servers` cannot be a whole number"]),
        (pool("servers = []"), &["2:11 `servers` cannot be empty"]),
        (pool(&format!("{OK}balance = \"least_con\"")), &["3:11 `balance` cannot be \"least_con\""]),
        (pool(&format!("{OK}balance = []")), &["3:11 `balance` cannot be a list"]),
        (pool(&format!("{OK}retries = 16")), &["3:11 `retries` cannot be 16"]),
        (pool(&format!("{OK}on_down = \"kill\"")), &["3:11 `on_down` cannot be \"kill\""]),
        (pool(&format!("{OK}check = \"httq\"")), &["3:9 `check` cannot be \"httq\""]),
        (pool(&format!("{OK}check.type = \"grcp\"")), &["3:14 `type` cannot be \"grcp\""]),
        (pool(&format!("{OK}check.rise = 0")), &["3:14 `rise` cannot be 0"]),
        (pool(&format!("{OK}check.fall = 101")), &["3:14 `fall` cannot be 101"]),
        (
            "pools = 5\nlisteners.web = 5".to_owned(),
            &["1:9 `pools` cannot be a whole number", "2:17 `web` cannot be a whole number"],
        ),
    ]);
}

#[test]
fn keys_that_there_are_not_or_that_are_missing_or_stand_twice_are_reported() {
    hold(&[
        (top("wokers = 1"), &["1:1 the top of the file has no key \"wokers\""]),
        (top("admin.socket = \"x\""), &["1:7 `admin` has no key \"socket\""]),
        (top("watch = true\nwatch = true"), &["2:1 `watch` stands here for the second time"]),
        (format!("{MINIMAL}[pools.web]\n"), &["7:8 `web` stands here for the second time"]),
        (listener("bind = 80"), &["1:1 a listener needs the key `pool`"]),
        (listener("pool = \"web\""), &["1:1 a listener needs the key `bind`"]),
        (listener("bind = 80\npool = \"web\"\ncipher = {}"), &["4:1 a listener has no key \"cipher\""]),
        (pool("check = \"tcp\""), &["1:1 a pool needs the key `servers`"]),
        (pool("servers = [{ name = \"a\" }]"), &["2:12 a server needs the key `address`"]),
        (pool("servers = [\"1.2.3.4:5\"]\nbalance = {}"), &["3:11 `balance` needs the key `algorithm`"]),
        (
            pool("servers = [\"1.2.3.4:5\"]\ntimeouts.connet = \"1s\""),
            &["3:10 `timeouts` of a pool has no key \"connet\""],
        ),
    ]);
}

#[test]
fn addresses_are_refused_with_a_reason() {
    hold(&[
        (
            listener("pool = \"web\"\nbind = 65536"),
            &["3:8 \"65536\" is not an address to listen on: a port is a number from 0 to 65535, not 65536"],
        ),
        (
            listener("pool = \"web\"\nbind = [80, \":htps\", true]"),
            &[
                "3:13 \":htps\" is not an address to listen on: no service is registered as \"htps\"",
                "3:22 an entry of `bind` cannot be `true` or `false`",
            ],
        ),
        (listener("pool = \"web\"\nbind = []"), &["3:8 `bind` cannot be empty"]),
        (listener("pool = \"web\"\nbind = \"localhost:80\""), &["3:8 \"localhost:80\" is not an address to listen on"]),
        (
            pool("servers = [\"10.0.0.1:0\", \"10.0.0.1\", \"10.0.0.1:http-al\"]"),
            &[
                "2:12 \"10.0.0.1:0\" is not the address of a server: a server cannot listen on port 0",
                "2:26 \"10.0.0.1\" is not the address of a server",
                "2:38 \"10.0.0.1:http-al\" is not the address of a server: no service is registered as \"http-al\"",
            ],
        ),
        (top("admin.http = \"9180\""), &["1:14 \"9180\" is not an address"]),
        (
            top("admin.http = \"0.0.0.0:9180\""),
            &["1:14 the admin listener has no authentication yet, so it takes a loopback address only"],
        ),
        (
            pool("servers = [\"10.0.0.1:80\"]\nsource = [\"10.0.0.5\", \"x\", \"0.0.0.0\", \"10.0.0.5\", \"::5\"]"),
            &[
                "3:23 \"x\" is not an address to connect from",
                "3:28 \"0.0.0.0\" is not an address to connect from",
                "3:39 10.0.0.5 stands in `source` twice",
                "3:51 no server of this pool has an IPv6 address, so ::5 reaches none",
            ],
        ),
    ]);
}

#[test]
fn addresses_that_exclude_each_other_are_reported_once_with_both_owners() {
    let two = |first: &str, second: &str| {
        listener(&format!("bind = {first}\npool = \"web\"\n[listeners.b]\npool = \"web\"\nbind = {second}"))
    };
    hold(&[
        (two("80", "80"), &["6:8 [::]:80 is taken: listener \"web\" listens on [::]:80"]),
        (two("80", "\"10.0.0.1:80\""), &["6:8 10.0.0.1:80 is taken: listener \"web\" listens on [::]:80"]),
        (
            two("\"1.2.3.4:20-29\"", "\"0.0.0.0:25-39\""),
            &["6:8 0.0.0.0:25 is taken: listener \"web\" listens on 1.2.3.4:25"],
        ),
        (two("0", "0"), &[]),
        (two("[80, 80]", "81"), &["2:13 [::]:80 is taken: listener \"web\" listens on [::]:80"]),
        (
            format!("admin.http = \"127.0.0.1:80\"\n{}", listener("bind = 80\npool = \"web\"")),
            &["3:8 [::]:80 is taken: the admin listener listens on 127.0.0.1:80"],
        ),
    ]);
}

#[test]
fn references_that_lead_nowhere_and_pools_that_nobody_uses_are_reported() {
    hold(&[
        (String::new(), &["- there is no listener, so nothing would be served"]),
        (
            listener("bind = 80\npool = \"wep\""),
            &["3:8 there is no pool \"wep\"", "4:8 no listener uses the pool \"web\""],
        ),
    ]);
    let problems = load(&listener("bind = 80\npool = \"wep\"")).unwrap_err();
    assert_eq!(problems.iter().next().unwrap().help.as_deref(), Some("did you mean `web`?"));
}

#[test]
fn servers_that_cannot_do_their_work_are_reported() {
    hold(&[
        (
            pool("servers = [\"1.2.3.4:5\", \"1.2.3.4:5\"]"),
            &["2:25 another server of this pool is named \"1.2.3.4:5\""],
        ),
        (
            pool("servers = [\"1.2.3.4:5\", { name = \"b\", address = \"1.2.3.4:5\" }]"),
            &["2:49 the server \"1.2.3.4:5\" of this pool has this address too"],
        ),
        (
            pool("servers = [{ name = \"a b\", address = \"1.2.3.4:5\" }]"),
            &["2:21 \"a b\" is not a name for a server: a name has no spaces or control characters"],
        ),
        (
            pool("servers = [{ address = \"1.2.3.4:5\", weight = 0 }]"),
            &["2:11 every server of this pool has weight 0, so none would be given a connection"],
        ),
        (
            pool("servers = [{ address = \"1.2.3.4:5\", backup = true }]"),
            &["2:11 every server of this pool is a backup, so there is nothing they back up"],
        ),
        (
            pool("servers = [\"1.2.3.4:5\", { address = \"1.2.3.4:6\", backup = true, priority = 1 }]"),
            &["2:76 `priority` cannot stand beside `backup = true`, which is a level of its own behind all others"],
        ),
        (pool("servers = [{ address = \"1.2.3.4:5\", priority = 10 }]"), &["2:48 `priority` cannot be 10"]),
        (
            pool("servers = [{ address = \"1.2.3.4:5\", state = \"maintenance\" }]"),
            &["2:11 every server of this pool is out of service, so none is given a connection"],
        ),
        (
            pool("servers = [{ address = \"1.2.3.4:5\", state = \"draining\" }]"),
            &["2:45 `state` cannot be \"draining\""],
        ),
        (
            pool("servers = [\"1.2.3.4:5\"]\nspill_below = 5\nqueue = { timeout = \"0s\" }"),
            &["3:15 `spill_below` cannot be a whole number", "4:21 `timeout` cannot be zero"],
        ),
    ]);
}

#[test]
fn times_that_contradict_each_other_are_reported() {
    let timeouts = |text: &str| listener(&format!("bind = 80\npool = \"web\"\ntimeouts = {{ {text} }}"));
    let check = |text: &str| pool(&format!("servers = [\"1.2.3.4:5\"]\ncheck = {{ {text} }}"));
    hold(&[
        (timeouts("idle = \"0s\""), &["4:21 `idle` cannot be zero"]),
        (timeouts("half_close = \"0s\", max_age = \"0s\""), &["4:27 `half_close` cannot be zero"]),
        (
            timeouts("idle = \"1s\", half_close = \"2s\""),
            &["4:40 `half_close` (2s) is longer than `idle` (1s), which ends the connection first"],
        ),
        (timeouts("idle = \"1s\""), &[]),
        (check("timeout = \"2s\""), &["3:21 the `timeout` of a check (2s) is not shorter than its `interval` (2s)"]),
        (check("interval = \"500ms\""), &[]),
        (
            check("interval = \"500ms\", timeout = \"500ms\""),
            &["3:41 the `timeout` of a check (500ms) is not shorter than its `interval` (500ms)"],
        ),
        (
            check("fast_interval = \"3s\""),
            &["3:27 the `fast_interval` of a check (3s) is longer than its `interval` (2s)"],
        ),
        (check("interval = \"0s\""), &["3:22 `interval` cannot be zero"]),
        // Nothing is concluded from what is left of a check with a bad value.
        (check("interval = \"x\", timeout = \"1h\""), &["3:22 \"x\" is not a duration"]),
    ]);
}

#[test]
fn a_protocol_that_there_is_not_is_reported() {
    hold(&[(listener("bind = 80\npool = \"web\"\nprotocol = \"udp\""), &["4:12 `protocol` cannot be \"udp\""])]);
}

#[test]
fn more_connections_than_descriptors_are_reported_with_the_way_out() {
    let load = |descriptor_limit: u64, text: &str| {
        load_text(text, "test.toml", Path::new("/"), &Environment { descriptor_limit, cores: 1 })
    };
    let text = format!("max_connections = 600{}", MINIMAL.replace("bind =", "max_connections = 700\nbind ="));
    let problems = load(1024, &text).unwrap_err();
    let all = problems.problems();
    let [process, listener, warning] = all.as_slice() else { panic!("{}", problems.human(false)) };
    assert_eq!(line(process), "1:19 600 connections need 1330 descriptors, and this process may have 1024 open");
    assert_eq!(process.expected.as_deref(), Some("at most 447, which the limit has room for"));
    assert!(process.help.as_ref().unwrap().contains("`LimitNOFILE=`"));
    assert_eq!(line(listener), "3:19 700 connections need 1530 descriptors, and this process may have 1024 open");
    assert_eq!(line(warning), "3:19 the listener never has 700 connections: the process serves 600 in all");

    let problems = load(70, MINIMAL).unwrap_err();
    assert!(problems.iter().all(|problem| problem.place.is_none()), "{}", problems.human(false));
    assert_eq!(problems.iter().next().unwrap().expected.as_deref(), Some("a limit of at least 76"));
}

#[test]
fn it_is_not_said_that_nothing_was_expected() {
    let problems = load(&top("workers = 02")).unwrap_err();
    let first = problems.iter().next().unwrap();
    assert_eq!((line(first).as_str(), first.expected.as_deref()), ("1:11 unexpected leading zero", None));
}

#[test]
fn syntax_and_meaning_are_reported_together() {
    let text = r#"workers = 0
drain_timeout =
[log]
level = "inof"
[admin]
http = "1.2.3.4:80"
[listeners.web]
bind = 65536
pool = "web"
pol = "web"
[pools.web]
servers = [{ address = "x", weight = 1001 }]
check = { timeout = "5s" }
retries = 2
retries = 3
"#;
    assert_eq!(
        said(text),
        [
            "1:11 `workers` cannot be 0",
            "2:16 string values must be quoted",
            "4:9 `level` cannot be \"inof\"",
            "6:8 the admin listener has no authentication yet, so it takes a loopback address only",
            "8:8 \"65536\" is not an address to listen on: a port is a number from 0 to 65535, not 65536",
            "10:1 a listener has no key \"pol\"",
            "12:24 \"x\" is not the address of a server",
            "12:38 `weight` cannot be 1001",
            "13:21 the `timeout` of a check (5s) is not shorter than its `interval` (2s)",
            "15:1 `retries` stands here for the second time",
        ]
    );
}

#[test]
fn what_a_broken_line_may_have_hidden_is_not_called_missing() {
    hold(&[
        ("[listeners.web\nbind = 80\npool = \"web\"\n".to_owned(), &["1:15 unclosed table"]),
        ("[listeners.web]\nbind = 80\npool = \n".to_owned(), &["3:8 string values must be quoted"]),
    ]);
}
