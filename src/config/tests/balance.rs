//! How a pool chooses: its settings, and what is said of those that mean nothing.

use super::*;
use crate::balance::{Hashing, KeySource, LoadFactor, Policy, TableSize};
use std::time::Duration;

/// The minimal file with a pool that chooses like this.
fn with(balance: &str) -> String {
    format!("{MINIMAL}balance = {balance}\n")
}

fn policy(balance: &str) -> Policy {
    model(&with(balance)).pools.remove(0).balance
}

#[test]
fn every_algorithm_is_known_by_its_word_and_has_settings_of_its_own() {
    for expected in Policy::ALL {
        assert_eq!(policy(&format!("\"{}\"", expected.label())), *expected);
        assert_eq!(policy(&format!("{{ algorithm = \"{}\" }}", expected.label())), *expected);
    }
    let decay = Duration::from_secs(3);
    assert_eq!(policy("{ algorithm = \"peak_ewma\", decay = \"3s\" }"), Policy::PeakEwma { decay });
    let hashing = Hashing { key: KeySource::Source, load_factor: None };
    let table_size = TableSize::new(251).unwrap();
    let maglev = "{ algorithm = \"maglev\", key = \"source\", load_factor = \"off\", table_size = 251 }";
    assert_eq!(policy(maglev), Policy::Maglev { hashing, table_size });
    for (written, factor) in [("2", 2.0), ("1.5", 1.5), ("1.1", 1.1), ("1e2", 100.0)] {
        let hashing = Hashing { key: KeySource::Source, load_factor: LoadFactor::new(factor) };
        assert!(hashing.load_factor.is_some());
        let balance = format!("{{ algorithm = \"ring_hash\", load_factor = {written} }}");
        assert_eq!(policy(&balance), Policy::RingHash(hashing), "{written}");
    }
}

#[test]
fn settings_that_mean_nothing_are_refused_where_they_stand() {
    for (balance, expected) in [
        ("algorithm = \"p2c\", key = \"source\"", "7:38 `key` means nothing to the algorithm `p2c`"),
        ("algorithm = \"p2c\", load_factor = 2", "7:46 `load_factor` means nothing to the algorithm `p2c`"),
        ("algorithm = \"ring_hash\", table_size = 251", "7:51 `table_size` means nothing to the algorithm `ring_hash`"),
        ("algorithm = \"maglev\", decay = \"1s\"", "7:43 `decay` means nothing to the algorithm `maglev`"),
        ("algorithm = \"peak_ewma\", decay = \"0s\"", "7:46 `decay` cannot be zero"),
        ("algorithm = \"maglev\", load_factor = 1", "7:49 `load_factor` cannot be 1"),
        ("algorithm = \"maglev\", load_factor = 1.05", "7:49 `load_factor` cannot be 1.05"),
        ("algorithm = \"maglev\", load_factor = nan", "7:49 `load_factor` cannot be nan"),
        ("algorithm = \"maglev\", load_factor = -inf", "7:49 `load_factor` cannot be -inf"),
        ("algorithm = \"maglev\", load_factor = \"on\"", "7:49 `load_factor` cannot be a string"),
        ("algorithm = \"maglev\", table_size = 100", "7:48 `table_size` cannot be 100"),
        (
            "algorithm = \"maglev\", table_size = 65536",
            "7:48 65536 is no prime number, so that not every slot would be found",
        ),
        ("algorithm = \"maglev\", key = \"ip\"", "7:41 \"ip\" is not what a server is chosen by"),
        (
            "algorithm = \"maglev\", key = \"header:\"",
            "7:41 \"header:\" is not what a server is chosen by: it names no header",
        ),
    ] {
        assert_eq!(said(&with(&format!("{{ {balance} }}"))), [expected]);
    }
}

#[test]
fn what_means_nothing_is_told_what_it_is_for_and_a_size_which_prime_is_near() {
    let told = |balance: &str| {
        let problem = load(&with(balance)).unwrap_err().problems().remove(0);
        [problem.expected, problem.help].map(Option::unwrap_or_default)
    };
    let key = told("{ algorithm = \"random\", key = \"source\" }");
    assert_eq!(key, ["", "it is for `source_hash`, `maglev` or `ring_hash`"]);
    let size = told("{ algorithm = \"maglev\", table_size = 65536 }");
    assert_eq!(size, ["a prime number such as 65537", ""]);
    let factor = told("{ algorithm = \"maglev\", load_factor = 0 }");
    assert_eq!(factor, ["a number from 1.1 to 100, or \"off\"", ""]);
}

#[test]
fn a_table_too_small_for_its_servers_is_warned_of() {
    let servers: Vec<_> = (1..=6).map(|port| format!("\"10.0.0.1:{port}\"")).collect();
    let text = with("{ algorithm = \"maglev\", table_size = 101 }").replace("\"10.0.0.1:8080\"", &servers.join(", "));
    let expected = "7:48 6 servers have 16 slots each in such a table, and are off their shares by one";
    assert_eq!(said(&text), [expected]);
    assert_eq!(load(&text).unwrap().warnings.problems()[0].help.as_deref(), Some("601 makes that 1 %"));
}

/// Listeners that lead to a pool which chooses by this key.
fn led_to(listeners: &str, key: &str) -> String {
    format!(
        "{listeners}\n[pools.web]\nservers = [\"10.0.0.1:8080\"]\nbalance = {{ algorithm = \"maglev\", key = \"{key}\" }}\n"
    )
}

#[test]
fn a_key_that_no_listener_has_is_refused_and_one_that_some_has_is_not() {
    const TCP: &str = "[listeners.tcp]\nbind = 1\npool = \"web\"";
    const HTTP: &str = "[listeners.http]\nbind = 2\nprotocol = \"http\"\npool = \"web\"";
    const ROUTED: &str = "[listeners.r]\nbind = 3\nprotocol = \"http\"\nroutes = [{ path = \"/\", pool = \"web\" }]";
    const SNI: &str = "[listeners.sni]\nbind = 4\nsni = [{ host = \"*.example.com\", pool = \"web\" }]";
    for key in ["header:x-user", "cookie:sid", "path", "query:id"] {
        for listeners in [TCP, SNI] {
            let expected = format!("\"{key}\" is a part of requests, and no listener that leads here reads any");
            let said = said(&led_to(listeners, key));
            assert!(said.len() == 1 && said[0].ends_with(&expected), "{said:?}");
        }
        for listeners in [HTTP, ROUTED, &format!("{TCP}\n{HTTP}")] {
            assert_eq!(said(&led_to(listeners, key)), Vec::<String>::new());
        }
    }
    let said_of = |listeners| said(&led_to(listeners, "sni"));
    let expected = "\"sni\" is a part of handshakes of TLS, and no listener that leads here reads any";
    for listeners in [TCP, HTTP] {
        assert!(said_of(listeners)[0].ends_with(expected), "{:?}", said_of(listeners));
    }
    assert_eq!(said_of(SNI), Vec::<String>::new());
    assert_eq!(said(&led_to(TCP, "source")), Vec::<String>::new());
}
