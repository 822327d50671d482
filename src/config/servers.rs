//! A list of servers in a document of its own, as files and endpoints have it: read like the `servers` of a pool.

use std::fmt::Write;
use std::path::Path;

use serde_json::Value;

use super::model::Server;
use super::problem::Findings;
use super::source::Source;
use super::{parse, read, resolve};
use crate::discovery::Format;

/// Reads a list; paths of unix sockets in it are relative to `base`. An empty one is no mistake here.
///
/// # Errors
/// The first of its problems, and how many there are.
pub fn load_servers(bytes: &[u8], format: Format, base: &Path) -> Result<Vec<Server>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "the list is not UTF-8".to_owned())?;
    match format {
        Format::Toml => load_toml(text, base, true),
        // Places in what it is turned into would say nothing to those who wrote it.
        Format::Json => load_toml(&json_as_toml(text)?, base, false),
    }
}

fn load_toml(text: &str, base: &Path, with_places: bool) -> Result<Vec<Server>, String> {
    let source = Source::new(String::new(), text.to_owned());
    let mut findings = Findings::default();
    let servers = parse(text, &mut findings).map(|document| {
        let raw = read::read(document.get_ref(), 0..0, &mut findings);
        resolve::resolve_list(raw, base, &mut findings)
    });
    let errors = findings.errors();
    if errors == 0 {
        return Ok(servers.unwrap_or_default());
    }
    let problems = findings.into_sorted(&source);
    let first = problems.iter().find(|problem| problem.severity == super::Severity::Error);
    let mut said = first.map_or_else(String::new, |problem| {
        let place = problem.place.filter(|_| with_places).map(|place| format!("line {}: ", place.line));
        let expected = problem.expected.as_ref().map(|expected| format!("; expected {expected}"));
        [place.unwrap_or_default(), problem.message.clone(), expected.unwrap_or_default()].concat()
    });
    if errors > 1 {
        let _infallible = write!(said, " (and {} more)", errors - 1);
    }
    Err(said)
}

/// The document in TOML that says the same as a list in JSON, or as an object that has one.
fn json_as_toml(text: &str) -> Result<String, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("the list is not JSON: {error}"))?;
    let mut toml = String::new();
    match &value {
        Value::Array(_) => {
            toml.push_str("servers = ");
            write_value(&value, &mut toml);
        }
        Value::Object(entries) => {
            for (key, value) in entries.iter().filter(|(_, value)| !value.is_null()) {
                let _infallible = write!(toml, "{} = ", Value::from(key.as_str()));
                write_value(value, &mut toml);
                toml.push('\n');
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            return Err("the list is neither a list nor an object with the key `servers`".to_owned());
        }
    }
    Ok(toml)
}

/// Writes a value on one line. Strings, numbers and truth are written alike in both; what is null is left out.
fn write_value(value: &Value, toml: &mut String) {
    match value {
        Value::Null => toml.push_str("\"\""),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            let _infallible = write!(toml, "{value}");
        }
        Value::Array(entries) => {
            toml.push('[');
            for entry in entries {
                write_value(entry, toml);
                toml.push_str(", ");
            }
            toml.push(']');
        }
        Value::Object(entries) => {
            toml.push('{');
            let mut comma = "";
            for (key, value) in entries.iter().filter(|(_, value)| !value.is_null()) {
                let _infallible = write!(toml, "{comma}{} = ", Value::from(key.as_str()));
                write_value(value, toml);
                comma = ", ";
            }
            toml.push('}');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, format: Format) -> Result<Vec<String>, String> {
        let servers = load_servers(text.as_bytes(), format, Path::new("/etc/lists"))?;
        let shown = |server: &Server| {
            let Server { name, address, weight, backup, .. } = server;
            format!("{name} {address} {} {backup}", weight.get())
        };
        Ok(servers.iter().map(shown).collect())
    }

    #[test]
    fn a_list_is_the_same_in_toml_and_in_json() {
        let expected = ["10.0.0.1:80 10.0.0.1:80 1 false", "b unix:/etc/lists/b.sock 3 true"];
        let toml =
            "servers = [\"10.0.0.1:80\", { name = \"b\", address = \"unix:b.sock\", weight = 3, backup = true }]";
        assert_eq!(load(toml, Format::Toml).unwrap(), expected);
        let list = r#"["10.0.0.1:80", {"name": "b", "address": "unix:b.sock", "weight": 3, "backup": true}]"#;
        assert_eq!(load(list, Format::Json).unwrap(), expected);
        assert_eq!(load(&format!("{{\"servers\": {list}}}"), Format::Json).unwrap(), expected);
        let null = r#"[{"name": null, "address": "10.0.0.1:80", "weight": null}]"#;
        assert_eq!(load(null, Format::Json).unwrap(), expected[..1]);
    }

    #[test]
    fn an_empty_list_is_one_and_one_without_weight_too() {
        assert_eq!(load("servers = []", Format::Toml).unwrap(), [""; 0]);
        assert_eq!(load("[]", Format::Json).unwrap(), [""; 0]);
        let drained = "[[servers]]\naddress = \"10.0.0.1:80\"\nweight = 0";
        assert_eq!(load(drained, Format::Toml).unwrap(), ["10.0.0.1:80 10.0.0.1:80 0 false"]);
    }

    #[test]
    fn what_is_wrong_is_said_in_a_line() {
        let said = |text, format| load(text, format).unwrap_err();
        assert!(said("", Format::Toml).contains("needs the key `servers`"));
        assert!(said("[", Format::Json).contains("not JSON"));
        assert!(said("3", Format::Json).contains("neither a list nor an object"));
        assert!(said("{\"server\": []}", Format::Json).contains("needs the key `servers` (and 1 more)"));
        assert!(said("[{\"addres\": \"10.0.0.1:80\"}]", Format::Json).contains("needs the key `address` (and 1 more)"));
        assert!(said("[null]", Format::Json).contains("is not the address of a server"));
        assert!(said("[1.5, [], true]", Format::Json).contains("(and 2 more)"));
        let line = said("servers = [\n\"10.0.0.1:80\",\n\"10.0.0.1\",\n]", Format::Toml);
        assert!(line.starts_with("line 3: \"10.0.0.1\" is not the address of a server"), "{line}");
        let name = said("[\"api.internal:80\"]", Format::Json);
        assert!(name.contains("host names are resolved in a pool's own `servers` only"), "{name}");
        assert_eq!(load_servers(&[0xff], Format::Json, Path::new("/")).unwrap_err(), "the list is not UTF-8");
    }

    #[test]
    fn strings_keep_their_characters_and_nothing_in_them_is_taken_for_more() {
        let tricky = "a\"]\\x\u{e9}\u{1F600}";
        let json = serde_json::json!([{ "name": tricky, "address": "10.0.0.1:80" }]).to_string();
        assert_eq!(load(&json, Format::Json).unwrap(), [format!("{tricky} 10.0.0.1:80 1 false")]);
        for odd in
            ["[\"\\u007f:80\"]", "[\"\\u0000\"]", "[1e3]", "[{\"a\\nb\": 1}]", "[123456789012345678901234567890]"]
        {
            assert!(load(odd, Format::Json).is_err(), "{odd}");
        }
    }
}
