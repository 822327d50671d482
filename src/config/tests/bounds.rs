//! What no file can do, however odd: make loading panic, wait, take long or flood whoever reads the answer.

use std::fmt::Write as _;
use std::time::Instant;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

#[test]
fn files_that_cannot_be_read_are_a_problem_of_the_whole_file() {
    let folder = tempfile::tempdir().unwrap();
    let load = |path: &Path| load_file(path, &ENVIRONMENT).unwrap_err();
    let missing = folder.path().join("none.toml");
    let problems = load(&missing);
    assert_eq!(problems.file(), missing.display().to_string());
    assert_eq!(line(&problems.problems()[0]), "- cannot read the file: there is none at this path");
    assert_eq!(line(&load(folder.path()).problems()[0]), "- cannot read the file: it is a directory");
    assert!(load(&missing).human(false).contains("none.toml"));
}

#[test]
fn bytes_that_are_not_utf_8_are_shown_in_their_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latin.toml");
    std::fs::write(&path, b"workers = 1\n# caf\xe9 ole\n").unwrap();
    let problems = load_file(&path, &ENVIRONMENT).unwrap_err();
    assert_eq!(line(&problems.problems()[0]), "2:6 this byte is not UTF-8");
    assert!(problems.human(false).contains("# caf\u{fffd} ole"), "{}", problems.human(false));
}

#[test]
fn relative_paths_are_relative_to_the_folder_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("portreeve.toml");
    std::fs::write(&path, format!("log.access = \"a.log\"\n{MINIMAL}")).unwrap();
    let model = load_file(&path, &ENVIRONMENT).unwrap().model;
    assert_eq!(model.log.access, model::AccessLog::File(folder.path().join("a.log")));
    // Also when the file itself is named relative to where the process stands.
    let depth = std::env::current_dir().unwrap().components().count() - 1;
    let relative = Path::new(&"../".repeat(depth)).join(path.strip_prefix("/").unwrap());
    let access = load_file(&relative, &ENVIRONMENT).unwrap().model.log.access;
    assert!(matches!(&access, model::AccessLog::File(path) if path.is_absolute()), "{access:?}");
}

#[test]
fn deep_nesting_is_a_problem_and_not_the_end_of_the_stack() {
    assert!(load(&format!("a = {}", "[".repeat(100_000))).is_err());
    assert!(load(&format!("a = {}", "{a=".repeat(100_000))).is_err());
    assert!(load(&format!("{}a = 1", "a.".repeat(1000))).is_err());
}

/// Not a benchmark: what is quadratic takes minutes here, what is not takes a second even unoptimised.
#[test]
fn large_files_are_read_in_a_time_that_grows_with_their_size() {
    let mut good = String::from("[listeners.web]\nbind = \":20000-29999\"\npool = \"web\"\n[pools.web]\nservers = [\n");
    let mut bad = good.clone();
    for index in 0..10_000 {
        let (high, low) = (index / 250, index % 250 + 1);
        writeln!(good, "  {{ name = \"s{index}\", address = \"10.0.{high}.{low}:80\" }},").unwrap();
        writeln!(bad, "  {{ name = \"same\", adress = \"10.0.{high}.{low}:80\", weight = -1 }},").unwrap();
    }
    let began = Instant::now();
    assert_eq!(model(&(good + "]\n")).pools[0].servers.len(), 10_000);
    let problems = load(&(bad + "]\n")).unwrap_err();
    assert_eq!(problems.problems().last().unwrap().message, "29000 more problems are not listed");
    assert_eq!(problems.json().as_array().unwrap().len(), 1001);
    assert!(problems.human(false).ends_with("… and 951 more\n\n1001 errors in test.toml\n"));
    assert!(began.elapsed().as_secs() < 30, "{:?}", began.elapsed());
}

#[test]
fn a_file_of_garbage_costs_neither_time_nor_memory() {
    for garbage in ["=", "]\n", "a=\n", "[a]\n", "\"", "x", "\u{202e}"] {
        let began = Instant::now();
        let small = load(&garbage.repeat(50_000 / garbage.len())).unwrap_err();
        assert!(small.errors() > 0 && small.human(false).len() < 100_000);
        let large = load(&garbage.repeat(2_000_000 / garbage.len())).unwrap_err();
        assert_eq!(large.errors(), 1, "{garbage:?}");
        assert!(began.elapsed().as_secs() < 20, "{garbage:?}: {:?}", began.elapsed());
    }
}

/// More warnings than are listed, and still a configuration that can be used.
#[test]
fn warnings_that_are_not_listed_are_no_errors() {
    let servers: String =
        (0..1100).map(|index| format!("{{ name = \"{index}\", address = \"1.2.3.4:5\" }},\n")).collect();
    let text = format!("[listeners.web]\nbind = 80\npool = \"web\"\n[pools.web]\nservers = [{servers}]");
    let warnings = load(&text).unwrap().warnings;
    assert_eq!((warnings.errors(), warnings.warnings()), (0, 1001));
    assert_eq!(warnings.problems().last().unwrap().message, "99 more problems are not listed");
}

/// The full file, as it is or with nothing commented out, with some bytes replaced, a piece cut out, and a line written
/// twice.
fn mutation() -> impl Strategy<Value = Vec<u8>> {
    let flips = prop::collection::vec((any::<Index>(), prop_oneof![any::<u8>(), Just(b'['), Just(b'"')]), 0..8);
    let full = prop_oneof![Just(FULL.to_owned()), Just(super::full::uncommented().0)];
    let places = (any::<Index>(), 0..200_usize, prop::option::of(any::<Index>()));
    (full, flips, places).prop_map(|(full, flips, (cut, length, twice))| {
        let mut bytes = full.into_bytes();
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let from = cut.index(bytes.len());
        bytes.drain(from..(from + length).min(bytes.len()));
        if let Some(line) = twice {
            let mut lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
            let at = line.index(lines.len());
            lines.insert(at, lines[at]);
            bytes = lines.concat();
        }
        bytes
    })
}

proptest! {
    #[test]
    fn no_mutation_of_the_full_file_makes_loading_panic(bytes in mutation()) {
        let text = String::from_utf8_lossy(&bytes);
        let problems = match load(&text) {
            Ok(loaded) => loaded.warnings,
            Err(problems) => {
                prop_assert!(problems.errors() > 0);
                problems
            }
        };
        for problem in problems.iter() {
            prop_assert!(!problem.message.chars().any(char::is_control));
        }
        prop_assert!(problems.human(true).len() >= problems.summary().len());
        prop_assert_eq!(problems.json().as_array().map(Vec::len), Some(problems.iter().count()));
    }
}
