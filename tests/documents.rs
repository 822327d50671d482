//! The documents, held: what they name is there, and what they tell people to type can be typed.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on says so and stops"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What the program can be told to do; a document may name these and no others.
const SUBCOMMANDS: &[&str] = &["run", "check", "demo", "defaults", "healthcheck"];
/// The one command that sets up a machine for the tests and runs them.
const SET_UP: &str = "tests/run";
/// What people read or run, and so what may name files of the repository.
const DOCUMENTS: &[&str] = &["README.md", "CHANGELOG.md", "Dockerfile", ".ci/run", "tests/run"];
/// Where the files are that a document may name.
const FOLDERS: &[&str] = &[".ci", "benches", "config", "examples", "src", "tests"];
/// Files that no document may name a path in, since only one machine has it. Spelt so that this file names none itself.
const MACHINE_PATHS: &[&str] = &[concat!("/", "work/"), concat!("/", "root/"), concat!("/", "tmp/bash_jobs")];

#[test]
fn every_file_that_a_document_names_is_there() {
    let mut seen = 0;
    for document in DOCUMENTS {
        for path in named_files(&read(document)) {
            assert!(root().join(&path).exists(), "{document} names {path}, which is not there");
            seen += 1;
        }
    }
    assert!(seen >= 5, "only {seen} paths were seen");
}

#[test]
fn every_link_within_the_repository_leads_somewhere() {
    let mut seen = 0;
    for document in DOCUMENTS.iter().filter(|document| document.ends_with(".md")) {
        for target in links(&read(document)) {
            assert!(root().join(&target).exists(), "{document} links to {target}, which is not there");
            seen += 1;
        }
    }
    assert!(seen >= 2, "only {seen} links were seen");
}

#[test]
fn what_readme_tells_people_to_type_is_there_to_be_typed() {
    let commands = shell_commands(&read("README.md"));
    assert!(commands.len() >= 3, "only {commands:?} were seen");
    let complaints: Vec<String> = commands.iter().filter_map(|command| complaint_about(command)).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn readme_names_the_command_that_sets_up_and_tests() {
    let commands = shell_commands(&read("README.md"));
    assert!(commands.iter().any(|command| command.first().is_some_and(|first| first == SET_UP)), "{commands:?}");
}

#[test]
fn the_scripts_can_be_run() {
    for script in [SET_UP, ".ci/run"] {
        let mode =
            fs::metadata(root().join(script)).unwrap_or_else(|error| panic!("{script}: {error}")).permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{script} is not executable for everyone");
        assert!(read(script).starts_with("#!"), "{script} does not say what runs it");
    }
}

#[test]
fn the_dashboard_asks_for_metrics_of_ours_in_every_panel() {
    let dashboard: serde_json::Value =
        serde_json::from_str(&read("config/grafana.json")).expect("the dashboard is JSON");
    let panels = dashboard["panels"].as_array().expect("the dashboard has panels");
    let mut seen = 0;
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let targets = panel["targets"].as_array().expect("a panel asks for something");
        assert!(!targets.is_empty(), "{} asks for nothing", panel["title"]);
        for target in targets {
            let query = target["expr"].as_str().expect("a query is text");
            assert!(query.contains("portreeve_"), "{}: {query} asks for no metric of ours", panel["title"]);
            seen += 1;
        }
    }
    assert!(seen >= 10, "only {seen} queries were seen");
}

#[test]
fn nothing_names_the_machine_it_was_written_on() {
    let files = files();
    assert!(files.len() >= 20, "only {} files were seen", files.len());
    for file in files {
        let text = String::from_utf8_lossy(&fs::read(&file).expect("a file can be read")).into_owned();
        for path in MACHINE_PATHS {
            assert!(!text.contains(path), "{} names {path}", file.display());
        }
    }
}

// The rules, as functions of what was read.

/// The words of a text that are paths into one of [`FOLDERS`], without the marks around them; patterns are left out.
fn named_files(text: &str) -> Vec<String> {
    text.split(|c: char| c.is_whitespace() || "`\"'()[]<>,;|".contains(c))
        .map(|word| word.trim_start_matches("./").trim_end_matches(['.', ':', '!', '?']))
        .filter(|word| word.split_once('/').is_some_and(|(folder, _)| FOLDERS.contains(&folder)))
        .filter(|word| !word.contains(['*', '…', '{', '$', '\\']))
        .map(str::to_owned)
        .collect()
}

/// The targets of a text's Markdown links, inline or by reference, that stay within the repository.
fn links(text: &str) -> Vec<String> {
    let inline = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    let by_reference = text
        .lines()
        .filter_map(|line| line.strip_prefix('[')?.split_once("]: "))
        .filter_map(|(_, target)| target.split_whitespace().next());
    inline
        .chain(by_reference)
        .filter(|target| !target.contains("://") && !target.starts_with('#') && !target.starts_with("mailto:"))
        .map(|target| target.split_once('#').map_or(target, |(file, _)| file).to_owned())
        .collect()
}

/// The commands in a text's `sh` blocks, as words: comments are gone, continued lines are joined, pipes and `&&` split.
fn shell_commands(text: &str) -> Vec<Vec<String>> {
    let mut commands = Vec::new();
    for block in blocks(text, "sh") {
        for line in block.replace("\\\n", " ").lines() {
            let mut command = Vec::new();
            for word in line.split_whitespace().take_while(|word| !word.starts_with('#')) {
                if matches!(word, "&" | "&&" | "|" | "||" | ";") {
                    commands.push(std::mem::take(&mut command));
                } else {
                    command.push(word.to_owned());
                }
            }
            commands.push(command);
        }
    }
    commands.retain(|command| !command.is_empty());
    commands
}

/// The fenced blocks of a text in one language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let (mut blocks, mut open) = (Vec::new(), None::<(bool, String)>);
    for line in text.lines() {
        let fence = line.trim_start().strip_prefix("```");
        match (&mut open, fence) {
            (None, Some(info)) => open = Some((info.trim() == language, String::new())),
            (None, None) => {}
            (Some(_), Some(_)) => blocks.extend(open.take().filter(|(wanted, _)| *wanted).map(|(_, block)| block)),
            (Some((_, block)), None) => {
                block.push_str(line);
                block.push('\n');
            }
        }
    }
    assert!(open.is_none(), "a block is never closed");
    blocks
}

/// What is wrong with a command that a document tells people to type, if it is one of ours.
fn complaint_about(command: &[String]) -> Option<String> {
    let said = command.join(" ");
    let words: Vec<&str> = command.iter().map(String::as_str).skip_while(|word| *word == "sudo").collect();
    let (first, rest) = words.split_first()?;
    let arguments = if *first == "cargo" && rest.first() == Some(&"run") {
        let own = rest.iter().take_while(|word| **word != "--");
        if let Some((_, example)) = own.zip(rest.iter().skip(1)).find(|(flag, _)| **flag == "--example") {
            let file = format!("examples/{example}.rs");
            return (!root().join(&file).exists()).then(|| format!("`{said}`: there is no {file}"));
        }
        rest.split(|word| *word == "--").nth(1).unwrap_or_default()
    } else if first.rsplit('/').next() == Some("portreeve") {
        rest
    } else {
        return None;
    };
    match arguments.first() {
        Some(subcommand) if SUBCOMMANDS.contains(subcommand) || subcommand.starts_with('-') => None,
        Some(subcommand) => Some(format!("`{said}`: there is no subcommand {subcommand}")),
        None => Some(format!("`{said}`: it takes a subcommand")),
    }
}

// The repository.

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Every file of the repository's own: those at its top, and all below [`FOLDERS`].
fn files() -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![root().to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder can be listed") {
            let path = entry.expect("an entry can be read").path();
            if path.is_file() {
                files.push(path);
            } else if folder != root() || FOLDERS.iter().any(|name| path.ends_with(name)) {
                folders.push(path);
            }
        }
    }
    files
}

// The reader and the rules, tried on made-up documents.

#[test]
fn paths_are_found_among_words_and_marks() {
    let text =
        "See `config/full.toml`, (./tests/run) and [it](src/lib.rs). Not and/or, https://a/src/b, tests/*.rs or src.";
    assert_eq!(named_files(text), ["config/full.toml", "tests/run", "src/lib.rs"]);
}

#[test]
fn links_are_found_and_those_that_lead_outside_are_left() {
    let text =
        "[a](LICENSE) [b](config/x.toml#part) [c](https://example.com) [d](#here)\n[e]: CHANGELOG.md \"title\"\n";
    assert_eq!(links(text), ["LICENSE", "config/x.toml", "CHANGELOG.md"]);
}

#[test]
fn commands_are_read_from_shell_blocks_alone() {
    let text = "```toml\nportreeve no\n```\n
```sh
# portreeve no
curl x | portreeve \\
  check   # yes

tests/run
```
portreeve no";
    assert_eq!(shell_commands(text), [vec!["curl", "x"], vec!["portreeve", "check"], vec!["tests/run"]]);
}

#[test]
fn a_command_that_is_not_there_is_a_complaint() {
    let complains = |line: &str| complaint_about(&line.split(' ').map(str::to_owned).collect::<Vec<_>>()).is_some();
    for fine in [
        "cargo run --release -- demo",
        "cargo run -- --version",
        "cargo run --example echo -- 127.0.0.1:1",
        "target/release/portreeve run -c x.toml",
        "sudo portreeve check",
        "curl -s http://127.0.0.1:9180/metrics",
    ] {
        assert!(!complains(fine), "{fine}");
    }
    for wrong in ["cargo run -- dance", "cargo run", "portreeve dance", "portreeve", "cargo run --example none -- x"] {
        assert!(complains(wrong), "{wrong}");
    }
}
