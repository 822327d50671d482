//! What a file means, and what is said of one that means nothing.

mod balance;
mod bounds;
mod discover;
mod full;
mod health;
mod http;
mod http_problems;
mod meaning;
mod problems;
mod telling;
mod tls;

use std::path::Path;

use super::*;

const ENVIRONMENT: Environment = Environment { descriptor_limit: 65_536, cores: 2 };

/// A file with nothing but what must be there.
const MINIMAL: &str = r#"
[listeners.web]
bind = "8080"
pool = "web"
[pools.web]
servers = ["10.0.0.1:8080"]
"#;

fn load(text: &str) -> Result<Loaded, Problems> {
    load_text(text, "test.toml", Path::new("/etc/portreeve"), &ENVIRONMENT)
}

fn model(text: &str) -> Model {
    load(text).unwrap_or_else(|problems| panic!("{}", problems.human(false))).model
}

impl Problems {
    fn problems(&self) -> Vec<Problem> {
        self.iter().cloned().collect()
    }
}

/// Every problem of a text, errors and warnings, as `line:column message`.
fn said(text: &str) -> Vec<String> {
    let problems = match load(text) {
        Ok(loaded) => loaded.warnings,
        Err(problems) => problems,
    };
    problems.iter().map(line).collect()
}

fn line(problem: &Problem) -> String {
    let place = problem.place.map_or_else(|| "-".to_owned(), |place| format!("{}:{}", place.line, place.column));
    format!("{place} {}", problem.message)
}
