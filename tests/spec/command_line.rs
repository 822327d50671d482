//! Chapter: the command line.

use std::path::Path;
use std::process::{Output, Stdio};

use tokio::net::TcpListener;

use crate::stage::{ClosedPort, balancing, within};
use serde_json::Value;

/// Runs the program to its end.
async fn portreeve(arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_portreeve"));
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    within("the end of the program", command.output()).await.unwrap()
}

/// Runs it with a file of this content.
async fn with_file(arguments: &[&str], content: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("portreeve.toml");
    std::fs::write(&file, content).unwrap();
    portreeve(&[arguments, &["-c", path(&file)]].concat()).await
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Three problems, on the lines 2, 5 and 8.
const BAD: &str = "\
# A comment.
drain_timeuot = \"30s\"
[listeners.web]
bind = \"127.0.0.1:0\"
pool = \"wep\"
[pools.web]
servers = [\"127.0.0.1:1\"]
balance = \"leastconn\"
";

#[tokio::test]
async fn a_file_that_is_fine_checks_with_exit_code_0() {
    let fine = balancing(&[ClosedPort::new().address], "");
    let human = with_file(&["check"], &fine).await;
    assert_eq!(human.status.code(), Some(0));
    assert!(text(&human.stdout).ends_with("portreeve.toml: fine\n"), "{human:?}");
    let json = with_file(&["check", "--format", "json"], &fine).await;
    assert_eq!((json.status.code(), text(&json.stdout)), (Some(0), "[]\n"));
}

#[tokio::test]
async fn every_problem_of_a_file_is_shown_at_once_with_its_line() {
    let output = with_file(&["check"], BAD).await;
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), ""));
    let told = text(&output.stderr);
    for (line, source, help) in [
        (2, "drain_timeuot = \"30s\"", "did you mean `drain_timeout`?"),
        (5, "pool = \"wep\"", "did you mean `web`?"),
        (8, "balance = \"leastconn\"", "did you mean `least_conn`?"),
    ] {
        assert!(told.contains(&format!("portreeve.toml:{line}:")) && told.contains(source), "{told}");
        assert!(told.contains(help), "{told}");
    }
    assert!(told.contains("3 errors"), "{told}");
}

#[tokio::test]
async fn problems_can_be_had_as_json() {
    let output = with_file(&["check", "--format", "json"], BAD).await;
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(2), ""));
    let problems: Value = serde_json::from_slice(&output.stdout).unwrap();
    let errors: Vec<_> = problems.as_array().unwrap().iter().filter(|problem| problem["severity"] == "error").collect();
    assert_eq!(errors.iter().map(|problem| problem["line"].as_u64().unwrap()).collect::<Vec<_>>(), [2, 5, 8]);
    for problem in errors {
        assert!(problem["file"].as_str().unwrap().ends_with("portreeve.toml"), "{problem}");
        assert!(problem["column"].is_u64() && problem["message"].is_string(), "{problem}");
    }
}

#[tokio::test]
async fn a_file_that_is_not_there_is_said() {
    for command in ["check", "run"] {
        let output = portreeve(&[command, "-c", "/nowhere/portreeve.toml"]).await;
        assert_eq!(output.status.code(), Some(2));
        let told = text(&output.stderr);
        assert!(told.contains("/nowhere/portreeve.toml") && told.contains("there is none at this path"), "{told}");
    }
}

#[tokio::test]
async fn the_defaults_are_a_configuration() {
    let defaults = portreeve(&["defaults"]).await;
    assert_eq!(defaults.status.code(), Some(0));
    let checked = with_file(&["check"], text(&defaults.stdout)).await;
    assert_eq!(checked.status.code(), Some(0), "{checked:?}");
}

#[tokio::test]
async fn bad_usage_ends_with_exit_code_2() {
    for arguments in [&["serve"][..], &[], &["run", "--now"], &["check", "--format", "xml"]] {
        let output = portreeve(arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).contains("--help"), "{output:?}");
    }
}

#[tokio::test]
async fn a_bad_file_is_not_run() {
    let output = with_file(&["run"], BAD).await;
    assert_eq!(output.status.code(), Some(2));
    let told = text(&output.stderr);
    assert!(told.contains("leastconn") && told.contains("drain_timeuot") && told.contains("wep"), "{told}");
}

#[tokio::test]
async fn an_address_in_use_ends_the_run_with_exit_code_1_and_names_the_holder() {
    let holder = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let server = ClosedPort::new();
    for configuration in [
        balancing(&[server.address], "").replace("127.0.0.1:0", &taken),
        format!("admin = {{ http = \"{taken}\" }}\n{}", balancing(&[server.address], "")),
    ] {
        let output = with_file(&["run"], &configuration).await;
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let told = text(&output.stderr);
        assert!(told.contains(&format!("cannot listen on {taken}")), "{told}");
        assert!(told.contains(&format!("pid {}", std::process::id())), "{told}");
    }
}
