//! `config/full.toml` against the code: every key, and every default.

use super::*;
use crate::config::keys::Section;

/// The keys of this section that stand in a table; those of the tables by name are the names', not the section's.
fn table(section: Section) -> &'static [&'static str] {
    match section {
        Section::Top => &[],
        Section::Admin => &["admin"],
        Section::Log => &["log"],
        Section::Listener => &["listeners", "web"],
        Section::ListenerTimeouts => &["listeners", "web", "timeouts"],
        Section::ProxyProtocol => &["listeners", "web", "proxy_protocol"],
        Section::SniRoute => &["listeners", "web", "sni"],
        Section::Tls => &["listeners", "web", "tls"],
        Section::Certificate => &["listeners", "web", "tls", "certificates"],
        Section::TlsHost => &["listeners", "web", "tls", "hosts"],
        Section::Pool => &["pools", "web"],
        Section::Balance => &["pools", "web", "balance"],
        Section::Server => &["pools", "web", "servers"],
        Section::Check => &["pools", "web", "check"],
        Section::PoolTimeouts => &["pools", "web", "timeouts"],
        Section::PoolTls => &["pools", "web", "tls"],
    }
}

/// The keys with a value in the full file.
fn written(section: Section) -> Vec<String> {
    let mut value = toml::Value::Table(FULL.parse().unwrap());
    for key in table(section) {
        // A table that has no default is commented out whole.
        let Some(inner) = value.get(key) else { return Vec::new() };
        value = inner.clone();
        if let toml::Value::Array(entries) = value {
            value = entries[0].clone();
        }
    }
    value.as_table().unwrap().keys().cloned().collect()
}

/// The keys that stand under a section's header in a comment, as `# key = value  # what it does`.
fn commented(section: Section) -> Vec<String> {
    let path = table(section).join(".");
    let mut header = String::new();
    let mut keys = Vec::new();
    for line in FULL.lines() {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        if let Some((inner, _)) = bare.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            // Tables within a table are keys of it as well.
            if let Some(key) = inner.trim_start_matches('[').strip_prefix(&format!("{path}."))
                && !key.contains('.')
            {
                keys.push(key.to_owned());
            }
            header = inner.trim_start_matches('[').to_owned();
        } else if let Some((key, _)) = line.strip_prefix("# ").and_then(|rest| rest.split_once(" = "))
            && header == path
        {
            keys.push(key.to_owned());
        }
    }
    keys
}

#[test]
fn every_key_there_is_stands_in_the_full_file() {
    let mut seen = 0;
    for section in Section::ALL {
        let mut stands = written(*section);
        stands.extend(commented(*section));
        for key in section.keys() {
            assert!(stands.iter().any(|other| other == key), "{key} of {} is missing", section.title());
            seen += 1;
        }
    }
    assert!(seen >= 77, "{seen}");
}

#[test]
fn only_keys_without_a_fixed_default_are_commented_out_in_tables_that_are_not() {
    let whole =
        |section: &&Section| !matches!(table(**section), [] | ["admin" | "log"]) && written(**section).is_empty();
    assert_eq!(Section::ALL.iter().filter(whole).count(), 6, "tables that are commented out whole");
    let all: Vec<String> = Section::ALL
        .iter()
        .filter(|section| !whole(section))
        .flat_map(|section| commented(*section))
        .filter(|key| !written_anywhere(key))
        .collect();
    let expected = ["workers", "max_connections", "http", "format", "max_connections", "proxy_protocol", "sni", "tls"];
    assert_eq!(all, [&expected[..], &["proxy_protocol", "tls", "server_name"]].concat());
}

/// Whether a key is a table of its own that is not commented out.
fn written_anywhere(key: &str) -> bool {
    matches!(key, "timeouts" | "balance" | "servers" | "check")
}

#[test]
fn what_is_commented_out_is_valid_too() {
    let mut shown = 0;
    let uncomment = |line: &str| match line.strip_prefix("# ") {
        Some(rest) if rest.starts_with('[') => rest.to_owned(),
        Some(rest) if rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')) => {
            shown += 1;
            rest.to_owned()
        }
        _ => line.replace("type = \"tcp\"", "type = \"tls\""),
    };
    let text = FULL.lines().map(uncomment).collect::<Vec<_>>().join("\n");
    let folder = super::tls::folder();
    let loaded =
        load_text(&text, "full.toml", folder.path(), &ENVIRONMENT).unwrap_or_else(|p| panic!("{}", p.human(false)));
    assert_eq!(loaded.warnings.iter().map(line).collect::<Vec<_>>(), Vec::<String>::new());
    assert_eq!(shown, 33);
}

#[test]
fn every_key_of_the_full_file_is_explained_on_its_line() {
    let keys = FULL.lines().filter(|line| {
        line.trim_start_matches("# ")
            .split_once(" = ")
            .is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
    });
    let mut seen = 0;
    for line in keys {
        assert!(line.trim_start_matches("# ").contains("  # "), "{line}");
        seen += 1;
    }
    assert!(seen >= 32, "{seen}");
}

#[test]
fn the_full_file_has_no_problem_and_every_default_in_it_is_the_one_the_code_has() {
    assert_eq!(said(FULL), Vec::<String>::new());
    assert_eq!(model(FULL), model(MINIMAL));
}

#[test]
fn the_example_for_tcp_has_no_problem() {
    assert_eq!(said(include_str!("../../../config/tcp.toml")), Vec::<String>::new());
}
