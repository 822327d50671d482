//! `config/full.toml` against the code: every key, and every default.

use super::*;
use crate::config::keys::Section;
use crate::config::model::Protocol;
use crate::config::model::http::{Action, HttpLimits, HttpTimeouts};

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
        Section::Http => &["listeners", "api", "http"],
        Section::Route => &["listeners", "api", "routes"],
        Section::Split => &["listeners", "api", "routes", "split"],
        Section::Redirect => &["listeners", "api", "routes", "redirect"],
        Section::Respond => &["listeners", "api", "routes", "respond"],
        Section::Rewrite => &["listeners", "api", "routes", "rewrite"],
        Section::HeaderRules => &["listeners", "api", "routes", "request_headers"],
        Section::Pool => &["pools", "web"],
        Section::Balance => &["pools", "web", "balance"],
        Section::Server => &["pools", "web", "servers"],
        Section::Discover => &["pools", "web", "discover"],
        Section::List => &[],
        Section::Check => &["pools", "web", "check"],
        Section::CheckStep => &["pools", "cache", "check", "steps"],
        Section::Outlier => &["pools", "web", "outlier"],
        Section::Queue => &["pools", "web", "queue"],
        Section::Breaker => &["pools", "web", "breaker"],
        Section::PoolTimeouts => &["pools", "web", "timeouts"],
        Section::PoolTls => &["pools", "web", "tls"],
        Section::PoolHttp => &["pools", "web", "http"],
        Section::Upstream => &["pools", "web", "upstream"],
        Section::RetryBudget => &["pools", "web", "retry_budget"],
        Section::Sticky => &["pools", "web", "sticky"],
    }
}

/// Further tables where keys of this section stand, commented out whole: the listener for HTTP, other kinds of sources and
/// of checks.
fn further_tables(section: Section) -> &'static [&'static [&'static str]] {
    if section == Section::Listener {
        &[&["listeners", "api"]]
    } else if section == Section::ListenerTimeouts {
        &[&["listeners", "api", "timeouts"]]
    } else if section == Section::Discover {
        &[&["pools", "listed", "discover"], &["pools", "told", "discover"]]
    } else if section == Section::Check {
        &[
            &["pools", "calls", "check"],
            &["pools", "cache", "check"],
            &["pools", "database", "check"],
            &["pools", "jobs", "check"],
        ]
    } else {
        &[]
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

/// The keys that stand under a table's header in a comment, as `# key = value  # what it does`.
fn commented(table: &[&str]) -> Vec<String> {
    let path = table.join(".");
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
        stands.extend([table(*section)].iter().chain(further_tables(*section)).flat_map(|table| commented(table)));
        for key in section.keys() {
            assert!(stands.iter().any(|other| other == key), "{key} of {} is missing", section.title());
            seen += 1;
        }
    }
    assert!(seen >= 182, "{seen}");
}

#[test]
fn only_keys_without_a_fixed_default_are_commented_out_in_tables_that_are_not() {
    let whole =
        |section: &&Section| !matches!(table(**section), [] | ["admin" | "log"]) && written(**section).is_empty();
    assert_eq!(Section::ALL.iter().filter(whole).count(), 17, "tables that are commented out whole");
    let all: Vec<String> = Section::ALL
        .iter()
        .filter(|section| !whole(section))
        .flat_map(|section| {
            let written = written(*section);
            commented(table(*section)).into_iter().filter(move |key| !written.contains(key))
        })
        .collect();
    let expected =
        ["workers", "max_connections", "zone", "http", "format", "max_connections", "proxy_protocol", "sni", "tls"];
    let of_pools = ["proxy_protocol", "discover", "outlier", "sticky", "tls"];
    let of_balance = ["key", "load_factor", "table_size", "decay"];
    let of_servers = ["zone", "check_address"];
    let of_checks = ["down_interval", "port", "tls", "server_name", "reuse", "host", "method", "path", "headers"];
    assert_eq!(all, [&expected[..], &of_pools, &of_balance, &of_servers, &of_checks, &["status", "body"]].concat());
}

/// The full file with nothing commented out but prose, and how many keys that shows.
pub(super) fn uncommented() -> (String, usize) {
    let mut shown = 0;
    let uncomment = |line: &str| match line.strip_prefix("# ") {
        Some(rest) if rest.starts_with('[') => rest.to_owned(),
        // No algorithm has a use for both this and the others.
        Some(rest) if rest.starts_with("decay = ") => line.to_owned(),
        Some(rest) if rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')) => {
            shown += 1;
            rest.to_owned()
        }
        _ => line.replace("type = \"tcp\"", "type = \"http\"").replace("\"round_robin\" ", "\"maglev\""),
    };
    let lines: Vec<String> = FULL.lines().map(uncomment).collect();
    (lines.join("\n"), shown)
}

#[test]
fn what_is_commented_out_is_valid_too() {
    let (text, shown) = uncommented();
    let folder = super::tls::folder();
    let loaded =
        load_text(&text, "full.toml", folder.path(), &ENVIRONMENT).unwrap_or_else(|p| panic!("{}", p.human(false)));
    // Some pools are there for their sources or checks alone.
    let said: Vec<String> = loaded.warnings.iter().map(line).collect();
    assert!(said.len() == 6 && said.iter().all(|said| said.contains("no listener uses the pool")), "{said:#?}");
    assert_eq!(shown, 152);
    // The listener for HTTP is commented out whole, so that its defaults are held here.
    let Protocol::Http(http) = &loaded.model.listeners[1].protocol else { panic!("{:?}", loaded.model.listeners[1]) };
    assert_eq!((http.limits, http.timeouts), (HttpLimits::default(), HttpTimeouts::default()));
    assert!(http.trusted_proxies.is_empty() && !http.compress);
    assert_eq!(http.routes.len(), 4);
    let redirect = &http.routes[2].action;
    assert!(matches!(redirect, Action::Redirect { status: 308, .. }), "{redirect:?}");
    let respond = &http.routes[3].action;
    assert!(matches!(respond, Action::Respond { status: 200, body, .. } if body.is_empty()), "{respond:?}");
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
fn the_examples_that_name_no_files_have_no_problem() {
    for example in [
        include_str!("../../../config/tcp.toml"),
        include_str!("../../../config/sni.toml"),
        include_str!("../../../config/canary.toml"),
    ] {
        assert_eq!(said(example), Vec::<String>::new());
    }
}
