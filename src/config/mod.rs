//! From the file as it is written to the model: every problem is found at once, and a model has none.
//!
//! `source` reads the text, `raw` holds what it says with the place where it says it, `resolve` turns that into a
//! [`model::Model`] or into [`Problem`]s, and [`Problems`] tells those to a person or a program. [`load_file`] is all of it.
//!
//! A key is added in this order: `keys` lists it, `raw` reads it, `resolve` gives it its default and its place in the
//! model, `config/full.toml` explains it. Leaving one out does not compile or fails a test.

mod keys;
mod limits;
pub mod model;
mod problem;
mod raw;
mod raw_balance;
mod raw_check;
mod raw_discover;
mod raw_health;
mod raw_http;
mod raw_rules;
mod raw_tls;
mod read;
mod report;
mod resolve;
mod servers;
mod source;

use std::path::Path;

use toml::Spanned;
use toml::de::DeTable;

pub use limits::{Descriptors, Environment};
use model::Model;
use problem::Findings;
pub use problem::{Problem, Severity};
pub use report::Problems;
pub use servers::load_servers;
pub use source::Place;
use source::{Source, Unreadable};

/// Every key with its default and what it does: what `portreeve defaults` prints.
pub const FULL: &str = include_str!("../../config/full.toml");

/// The longest text, in bytes, that is read on after its first syntax error: the parser keeps one error for every byte of
/// garbage if there are as many.
const RECOVERABLE: usize = 1024 * 1024;

/// A configuration that can be used.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What was asked for.
    pub model: Model,
    /// What somebody should look at all the same; often empty.
    pub warnings: Problems,
}

/// Reads a file; what is relative in it is relative to its folder, and absolute in the model. Blocks on the disk, though
/// never on a pipe.
///
/// # Errors
/// Every problem of the file at once, at least one of which is an error; of a file over a megabyte that is no TOML, the
/// first syntax error.
pub fn load_file(path: &Path, environment: &Environment) -> Result<Loaded, Problems> {
    let origin = path.display().to_string();
    // Where the process happens to stand when it loads must not decide what a path means later.
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let base = absolute.parent().unwrap_or(Path::new("/"));
    match source::read(path) {
        Ok(text) => load_text(&text, &origin, base, environment),
        Err(Unreadable::File(why)) => {
            let mut findings = Findings::default();
            findings.error(None, &why);
            Err(Problems::new(Source::new(origin, String::new()), findings))
        }
        Err(Unreadable::Text { text, at }) => {
            let mut findings = Findings::default();
            findings.error(at, "this byte is not UTF-8").expected("the whole file in UTF-8, as TOML demands");
            Err(Problems::new(Source::new(origin, text), findings))
        }
    }
}

/// Reads a text as if it stood in a file named `origin` in the folder `base`.
///
/// # Errors
/// As [`load_file`].
pub fn load_text(text: &str, origin: &str, base: &Path, environment: &Environment) -> Result<Loaded, Problems> {
    let source = Source::new(origin.to_owned(), text.to_owned());
    let mut findings = Findings::default();
    let Some(document) = parse(text, &mut findings) else {
        return Err(Problems::new(source, findings));
    };
    let syntax = findings.count();
    let raw = read::read(document.get_ref(), 0..0, &mut findings);
    let model = resolve::resolve(raw, base, environment, &mut findings);
    findings.without_echoes(syntax, &source);
    let problems = Problems::new(source, findings);
    match model {
        Some(model) => Ok(Loaded { model, warnings: problems }),
        None => Err(problems),
    }
}

/// What could be parsed of a text, with a problem for what could not.
fn parse<'t>(text: &'t str, findings: &mut Findings) -> Option<Spanned<DeTable<'t>>> {
    if text.len() > RECOVERABLE {
        return DeTable::parse(text).map_err(|error| findings.syntax(&error, text)).ok();
    }
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        findings.syntax(error, text);
    }
    Some(document)
}

#[cfg(test)]
mod tests;
