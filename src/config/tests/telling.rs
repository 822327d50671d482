//! How problems are told: to a person, to a program, to a log.

use super::*;

/// Three problems of different kinds, the last of them a warning.
const WRONG: &str = r#"[listeners.web]
bind = "8080"
pool = "wep"

[pools.web]
balance = "least_con"   # ← üben
servers = ["10.0.0.1:8080"]
[listeners.b]
bind = 81
pool = "web"
timeouts = { idle = "1s", half_close = "2s" }
"#;

#[test]
fn a_person_sees_the_line_a_caret_and_the_way_out() {
    let expected = r#"error: there is no pool "wep"
 --> test.toml:3:8
  |
3 | pool = "wep"
  |        ^^^^^
  |
  = note: expected the name of a pool, each of which is a table such as [pools.wep]
  = help: did you mean `web`?

error: `balance` cannot be "least_con"
 --> test.toml:6:11
  |
6 | balance = "least_con"   # ← üben
  |           ^^^^^^^^^^^
  |
  = note: expected `round_robin`, `least_conn`, `random`, `p2c`, `peak_ewma`, `source_hash`, `maglev` or `ring_hash`
  = help: did you mean `least_conn`?

warning: `half_close` (2s) is longer than `idle` (1s), which ends the connection first
  --> test.toml:11:40
   |
11 | timeouts = { idle = "1s", half_close = "2s" }
   |                                        ^^^^

2 errors and 1 warning in test.toml
"#;
    let problems = load(WRONG).unwrap_err();
    assert_eq!(problems.human(false), expected);
    assert!(problems.human(true).contains("\u{1b}["), "no colour");
}

#[test]
fn a_program_gets_every_problem_with_its_place() {
    let json = load(WRONG).unwrap_err().json();
    assert_eq!(json.as_array().unwrap().len(), 3);
    let expected = serde_json::json!({
        "severity": "error", "file": "test.toml", "line": 6, "column": 11, "end_line": 6, "end_column": 22,
        "message": "`balance` cannot be \"least_con\"",
        "expected": "`round_robin`, `least_conn`, `random`, `p2c`, `peak_ewma`, `source_hash`, `maglev` or `ring_hash`",
        "help": "did you mean `least_conn`?",
    });
    assert_eq!(json[1], expected);
    assert_eq!(json[2]["severity"], "warning");
    assert_eq!(json[2]["help"], serde_json::Value::Null);
    assert_eq!(load("").unwrap_err().json()[0]["line"], serde_json::Value::Null);
}

#[test]
fn a_log_gets_one_line_with_the_first_error() {
    let problems = load(WRONG).unwrap_err();
    assert_eq!(problems.summary(), "2 errors and 1 warning in test.toml:3:8: there is no pool \"wep\"");
    assert_eq!(problems.to_string(), problems.summary());
    assert_eq!(load(MINIMAL).unwrap().warnings.summary(), "no problems in test.toml");
}

#[test]
fn more_problems_than_a_person_reads_are_counted_and_errors_come_first() {
    let warnings = "[pools.unused]\nservers = [\"1.2.3.4:5\"]\n";
    let unknown: String = (0..60).map(|index| format!("unknown{index} = 1\n")).collect();
    let shown = load(&format!("{unknown}{MINIMAL}{warnings}")).unwrap_err().human(false);
    assert_eq!(shown.matches("error: ").count(), 50);
    assert!(!shown.contains("warning: "));
    assert!(shown.ends_with("… and 11 more\n\n60 errors and 1 warning in test.toml\n"), "{shown}");
}

#[test]
fn columns_are_the_same_for_a_person_and_a_program_whatever_stands_before() {
    let problems = load(&format!("log = {{ access = \"ü€😀\",\tlvel = \"info\" }}\n{MINIMAL}")).unwrap_err();
    assert_eq!(problems.problems()[0].place.map(|place| place.column), Some(25));
    assert!(problems.human(false).contains("test.toml:1:25"), "{}", problems.human(false));
}

#[test]
fn of_a_very_long_line_the_part_around_the_problem_is_shown() {
    let text = format!("{MINIMAL}source = [{}\"x\"]", " ".repeat(100_000));
    let shown = load(&text).unwrap_err().human(false);
    assert!(shown.contains("test.toml:7:100011"), "{shown}");
    assert!(shown.len() < 2000, "{shown}");
}

#[test]
fn a_slip_is_answered_with_what_was_probably_meant() {
    for (wrong, help) in [
        ("wokers = 1", Some("did you mean `workers`?")),
        ("log.lvel = \"info\"", Some("did you mean `level`?")),
        ("log.level = \"warning\"", Some("did you mean `warn`?")),
        ("log.level = \"loud\"", None),
        ("drain_timeout = \"5\"", Some("did you mean \"5s\" or \"5ms\"?")),
        ("listeners.a = { bind = \":htps\", pool = \"web\" }", Some("did you mean \"https\"?")),
        ("listeners.a = { bind = \":90-80\", pool = \"web\" }", Some("did you mean \"80-90\"?")),
        ("listeners.a = { bind = 90, pool = \"Web\" }", Some("did you mean `web`?")),
        ("pools.a = { servers = [\"1.2.3.4:5\"], balance = \"roundrobin\" }", Some("did you mean `round_robin`?")),
    ] {
        let problems = load(&format!("{wrong}\n{MINIMAL}")).unwrap_err().problems();
        let told: Vec<Option<&str>> = problems
            .iter()
            .filter(|problem| problem.severity == Severity::Error)
            .map(|problem| problem.help.as_deref())
            .collect();
        assert_eq!(told, [help], "{wrong}");
    }
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_shift_no_line() {
    let text = format!("\u{feff}{}retries = 99\n", MINIMAL).replace('\n', "\r\n");
    assert_eq!(said(&text), ["7:11 `retries` cannot be 99"]);
    assert!(load(&text).unwrap_err().human(false).contains("7 | retries = 99\n"));
}

#[test]
fn text_of_the_file_cannot_steer_the_terminal_it_is_shown_on() {
    let text = format!("log.level = \"\\u001b[2J\"\n\"\u{202e}\" = 1\n{MINIMAL}");
    let problems = load(&text).unwrap_err();
    assert!(!problems.human(false).contains(['\u{1b}', '\u{202e}']), "{}", problems.human(false));
    assert_eq!(problems.problems()[0].message, "`level` cannot be \"\\u{1b}[2J\"");
}
