//! How releases are compiled: `.cargo/rustc` stands between cargo and the compiler. Here another program is the compiler, which
//! shows what it is told.
#![allow(clippy::expect_used, reason = "a test that cannot go on says so and stops")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What cargo tells the compiler of the library, in a release.
const LIBRARY: &[&str] = &["--crate-name", "portreeve", "--edition=2024", "src/lib.rs", "--crate-type", "lib"];

#[test]
fn crates_of_a_release_are_compiled_by_the_record_of_their_use() {
    for release in [["-C", "linker-plugin-lto"], ["-C", "lto=fat"]] {
        let told = told(&run(&[&["echo", "--crate-name", "tokio"], &release[..]].concat()));
        assert_eq!(told.first().map(String::as_str), Some("--crate-name"), "{told:?}");
        assert!(told.contains(&format!("-Cprofile-use={}", record("release.profdata").display())), "{told:?}");
    }
}

#[test]
fn all_else_is_compiled_as_cargo_says() {
    for other in [&["-vV"][..], &["-C", "opt-level=3", "-C", "lto=thin"], &["--crate-name", "portreeve", "--test"]] {
        assert_eq!(told(&run(&[&["echo"], other].concat())), other);
    }
}

#[test]
fn a_compiler_that_fails_has_failed() {
    for release in ["", "-C lto=fat "] {
        assert_eq!(run(&["sh", "-c", "exit 3", "sh", release]).status.code(), Some(3));
    }
}

#[test]
fn a_record_of_another_build_is_said_to_be_one() {
    let recorded = fs::read_to_string(record("release.build")).expect("the record says of which build it is");
    for (build, fits) in [(recorded.trim(), true), ("0123456789abcdef", false)] {
        let metadata = format!("metadata={build}");
        let output =
            run(&[&["echo"], LIBRARY, &["-C", "linker-plugin-lto", "-C", &metadata, "-C", "strip=none"]].concat());
        assert!(told(&output).iter().any(|word| word.starts_with("-Cprofile-use=")));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(said.is_empty(), fits, "{said}");
        assert!(fits || said.contains("benches/record.sh"), "{said}");
    }
}

#[test]
fn what_is_recorded_goes_where_the_recorder_wants_it() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let release = ["-C", "linker-plugin-lto", "-C", "metadata=0123456789abcdef"];
    let mut recorder = wrapper();
    let output = recorder.arg("echo").args(LIBRARY).args(release).env("PORTREEVE_RECORD", folder.path()).output();
    let told = told(&output.expect("the script can be run"));
    assert_eq!(told.last(), Some(&format!("-Cprofile-generate={}", folder.path().display())));
    let build = fs::read_to_string(folder.path().join("build")).expect("it says of which build it is");
    assert_eq!(build, "0123456789abcdef\n");
}

/// What the script does with a command that cargo gives it.
fn run(command: &[&str]) -> Output {
    wrapper().args(command).output().expect("the script can be run")
}

fn wrapper() -> Command {
    let mut wrapper = Command::new(record("rustc"));
    wrapper.env_remove("PORTREEVE_RECORD");
    wrapper
}

/// The words that the compiler was told.
fn told(output: &Output) -> Vec<String> {
    String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect()
}

fn record(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".cargo").join(name)
}
