//! The documents, held: what they name is there, and what they tell people to type can be typed.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on says so and stops"
)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use portreeve::backend::State;
use portreeve::config::{Environment, Loaded, Problems, load_file, load_text};
use portreeve::ending::Reason;
use portreeve::metrics::{Catalogue, SourcePorts, Stock};
use portreeve::units::Name;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SerialNumber, date_time_ymd,
};

/// The one command that sets up a machine for the tests and runs them.
const SET_UP: &str = "tests/run";
/// What people read or run, and so what may name files of the repository.
const DOCUMENTS: &[&str] =
    &["README.md", "CHANGELOG.md", "Dockerfile", ".cargo/rustc", ".ci/run", "benches/record.sh", "tests/run"];
/// Where the files are that a document may name.
const FOLDERS: &[&str] = &[".cargo", ".ci", "benches", "config", "examples", "src", "tests"];
/// Files that no document may name a path in, since only one machine has it. Spelt so that this file names none itself.
const MACHINE_PATHS: &[&str] = &[concat!("/", "root/"), concat!("/", "home/")];

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
    assert!(commands.len() >= 10, "only {commands:?} were seen");
    let subcommands = subcommands();
    let complaint = |command: &Vec<String>| complaint_about(command, &subcommands);
    let complaints: Vec<String> = commands.iter().filter_map(complaint).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn readme_names_the_command_that_sets_up_and_tests() {
    let commands = shell_commands(&read("README.md"));
    assert!(commands.iter().any(|command| command.first().is_some_and(|first| first == SET_UP)), "{commands:?}");
}

#[test]
fn every_configuration_in_readme_loads_and_nothing_is_to_be_said_of_it() {
    let readme = read("README.md");
    let mut texts = blocks(&readme, "toml");
    assert!(!texts.is_empty(), "no configuration was seen");
    let fragments = blocks(&readme, "toml,fragment");
    assert!(fragments.len() >= 3, "only {} fragments were seen", fragments.len());
    // The fragments of the page are parts of one configuration.
    texts.push(fragments.concat());
    for text in texts {
        let warnings = load(&text).unwrap_or_else(|problems| panic!("{}\n{text}", problems.human(false))).warnings;
        assert!(warnings.iter().next().is_none(), "{}", warnings.human(false));
    }
}

#[test]
fn the_broken_configuration_in_readme_gets_the_answer_it_shows() {
    let readme = read("README.md");
    let (broken, answers) = (blocks(&readme, "toml,broken"), blocks(&readme, "text"));
    assert_eq!(broken.len(), 1);
    let problems = load(&broken[0]).expect_err("it is broken").human(false);
    assert!(answers.iter().any(|shown| shown.trim() == problems.trim()), "README does not show:\n{problems}");
}

#[test]
fn every_configuration_that_is_shipped_loads() {
    let mut seen = 0;
    for file in files().into_iter().filter(|file| file.parent().is_some_and(|folder| folder.ends_with("config"))) {
        if file.extension().is_some_and(|extension| extension == "toml") {
            let copy = folder().join(file.file_name().expect("it has a name"));
            fs::copy(&file, &copy).expect("it can be copied beside the certificates it may name");
            let loaded = load_file(&copy, &ENVIRONMENT).unwrap_or_else(|problems| panic!("{}", problems.human(false)));
            assert!(loaded.warnings.iter().next().is_none(), "{}", loaded.warnings.human(false));
            seen += 1;
        }
    }
    assert!(seen >= 8, "only {seen} files were seen");
}

#[test]
fn readme_lists_every_ending_with_what_the_code_says_of_it() {
    let labels: Vec<&str> = Reason::ALL.iter().map(|reason| reason.label()).collect();
    let rows = table_after(&read("README.md"), "## Endings");
    assert_eq!(rows.iter().map(|(label, _)| label.as_str()).collect::<Vec<_>>(), labels);
    let code = read("src/ending.rs");
    for (label, words) in rows {
        let (before, _) = code.split_once(&format!(" = \"{label}\"")).expect("the code has the reason");
        let said = before.rsplit("/// ").next().and_then(|said| said.lines().next()).unwrap_or_default();
        assert_eq!(words, said.trim_end_matches('.'), "{label}");
    }
}

#[test]
fn the_access_log_line_in_readme_ends_with_a_reason_there_is() {
    let lines = blocks(&read("README.md"), "json");
    assert_eq!(lines.len(), 1);
    let line: serde_json::Value = serde_json::from_str(&lines[0]).expect("the line is JSON");
    assert!(Reason::ALL.iter().any(|reason| line["reason"] == reason.label()), "{line}");
}

#[test]
fn readme_names_every_metric_there_is_and_no_other() {
    let documented: BTreeSet<String> = metrics_named(&read("README.md"));
    assert!(documented.len() >= 10, "only {documented:?} were seen");
    assert_eq!(documented, families(), "left: README.md, right: the code");
}

#[test]
fn the_dashboard_asks_for_metrics_that_there_are() {
    let families = families();
    for name in metrics_named(&read("config/grafana.json")) {
        let series = ["_bucket", "_count", "_sum"].iter().find_map(|part| name.strip_suffix(part));
        let known = families.contains(&name) || series.is_some_and(|family| families.contains(family));
        assert!(known, "config/grafana.json asks for {name}, which is not there");
    }
}

#[test]
fn the_image_checks_its_health_where_its_configuration_answers() {
    let loaded = load(&read("config/container.toml")).unwrap_or_else(|problems| panic!("{}", problems.human(false)));
    let admin = loaded.model.admin.http;
    let portreeve::config::model::AdminHttp::On(address) = admin else { panic!("the admin listener is off") };
    let dockerfile = read("Dockerfile");
    let wanted = format!("\"healthcheck\", \"--admin\", \"{address}\"");
    assert!(dockerfile.contains(&wanted), "the Dockerfile does not say {wanted}");
    assert!(subcommands().iter().any(|subcommand| subcommand == "healthcheck"));
}

#[test]
fn the_scripts_can_be_run() {
    for script in [SET_UP, ".cargo/rustc", ".ci/run", "benches/newest.sh", "benches/record.sh"] {
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
fn complaint_about(command: &[String], subcommands: &[String]) -> Option<String> {
    let said = command.join(" ");
    let words: Vec<&str> = command.iter().map(String::as_str).skip_while(|word| *word == "sudo").collect();
    let (first, rest) = words.split_first()?;
    if *first == "cargo" && rest.first() == Some(&"bench") {
        let bench = rest.iter().skip_while(|word| **word != "--bench").nth(1)?;
        let file = format!("benches/{bench}.rs");
        return (!root().join(&file).exists()).then(|| format!("`{said}`: there is no {file}"));
    }
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
        Some(word) if word.starts_with('-') || subcommands.iter().any(|known| known == word) => None,
        Some(subcommand) => Some(format!("`{said}`: there is no subcommand {subcommand}")),
        None => Some(format!("`{said}`: it takes a subcommand")),
    }
}

/// The rows of the first table below a heading: the word in code marks, and the words on it.
fn table_after(text: &str, heading: &str) -> Vec<(String, String)> {
    let (_, below) = text.split_once(heading).unwrap_or_else(|| panic!("there is no {heading}"));
    let rows = below.lines().skip_while(|line| !line.starts_with("| `")).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let (word, words) = row.trim_matches(['|', ' ']).split_once(" | ").expect("a row has two cells");
        (word.trim_matches('`').to_owned(), words.trim().to_owned())
    })
    .collect()
}

/// The words of a text that are names of metrics of ours.
fn metrics_named(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.strip_prefix("portreeve_").is_some_and(|rest| !rest.is_empty()))
        .map(str::to_owned)
        .collect()
}

// The program.

/// A machine that no configuration here asks too much of.
const ENVIRONMENT: Environment = Environment { descriptor_limit: 1_000_000, cores: 2 };

fn load(text: &str) -> Result<Loaded, Problems> {
    load_text(text, "portreeve.toml", folder(), &ENVIRONMENT)
}

/// A folder with the certificates, keys and lists that the documents and the shipped configurations name.
fn folder() -> &'static Path {
    static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let tls = folder.path().join("tls");
        fs::create_dir(&tls).expect("a folder can be made");
        let key = KeyPair::generate().expect("a key can be made");
        let mut params = CertificateParams::new(Vec::new()).expect("nothing is wrong with no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = params.self_signed(&key).expect("a root can be made").pem();
        let put = |name: &str, content: &str| {
            let path = tls.join(name);
            fs::write(&path, content).expect("a file can be written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode can be set");
        };
        for name in ["clients", "partners", "internal"] {
            put(&format!("{name}.crt"), &root);
        }
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2120, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let issuer = Issuer::new(params, key);
        let list = list.signed_by(&issuer).and_then(|list| list.pem()).expect("a list can be made");
        put("clients.crl", &list);
        put("partners.crl", &list);
        let users = folder.path().join("users.htpasswd");
        fs::write(&users, "anna:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n")
            .expect("it can be written");
        fs::set_permissions(&users, fs::Permissions::from_mode(0o600)).expect("its mode can be set");
        put("../monitor.pass", "correct horse\n");
        put("tickets.keys", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n");
        for (name, kind) in [("example", &PKCS_ECDSA_P256_SHA256), ("example-rsa", &PKCS_RSA_SHA256)] {
            let key = KeyPair::generate_for(kind).expect("a key can be made");
            let names = ["example.com".to_owned(), "*.example.com".to_owned()];
            let params = CertificateParams::new(names).expect("the names are fine");
            put(&format!("{name}.crt"), &params.self_signed(&key).expect("a certificate can be made").pem());
            put(&format!("{name}.key"), &key.serialize_pem());
        }
        folder
    });
    FOLDER.path()
}

/// What the program can be told to do, as it says itself.
fn subcommands() -> Vec<String> {
    let help = Command::new(env!("CARGO_BIN_EXE_portreeve")).arg("--help").output().expect("the program runs").stdout;
    let help = String::from_utf8(help).expect("its help is text");
    let (_, commands) = help.split_once("Commands:\n").expect("its help lists commands");
    let listed = commands.lines().take_while(|line| !line.is_empty());
    let names = listed.filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')));
    let names: Vec<String> = names.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    assert!(names.len() >= 5, "only {names:?} were seen");
    names
}

/// The families of ours that are exposed when there is a listener and a server.
fn families() -> BTreeSet<String> {
    let catalogue = Catalogue::new(1);
    let _listener = catalogue.listener(&Name::new("listener"));
    let pool = catalogue.pool(&Name::new("pool"));
    pool.set_primary(Some(&Name::new("server")));
    pool.copied(0);
    let server = State::counted(Name::new("pool"), Name::new("server"), &catalogue);
    server.show();
    let discovery = catalogue.discovery(&Name::new("pool"));
    discovery.begun("source");
    catalogue.set_certificates([(&Name::new("listener"), "example.com".to_owned(), 0)].into_iter());
    let stock = Stock { free: 1, total: 2, lasts: Some(Duration::from_secs(3)) };
    let ports = vec![SourcePorts { source: None, ports: stock }];
    catalogue.set_source_ports([((Name::new("pool"), Name::new("server")), ports)].into());
    catalogue.set_descriptors(stock);
    let text = catalogue.expose();
    let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE portreeve_")?.split(' ').next());
    names.map(|name| format!("portreeve_{name}")).collect()
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
    let known = ["run", "check", "demo"].map(str::to_owned);
    let complains =
        |line: &str| complaint_about(&line.split(' ').map(str::to_owned).collect::<Vec<_>>(), &known).is_some();
    for fine in [
        "cargo run --release -- demo",
        "cargo run -- --version",
        "cargo run --example echo -- 127.0.0.1:1",
        "target/release/portreeve run -c x.toml",
        "sudo portreeve check",
        "cargo bench",
        "curl -s http://127.0.0.1:9180/metrics",
    ] {
        assert!(!complains(fine), "{fine}");
    }
    for wrong in [
        "cargo run -- dance",
        "cargo run",
        "portreeve dance",
        "portreeve",
        "cargo run --example none -- x",
        "cargo bench --bench none",
    ] {
        assert!(complains(wrong), "{wrong}");
    }
}
