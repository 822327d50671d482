//! Problems as they are told: to a person with the line and a caret, to a program as JSON.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Element, Group, Level, Origin, Renderer, Snippet};

use super::model::Files;
use super::problem::{Findings, Problem, Severity, printable};
use super::source::{Place, Source};

/// How many problems a person is shown at once.
const SHOWN: usize = 50;
/// How many bytes of a line are shown to either side of a problem: a file can be one line of megabytes.
const CONTEXT: usize = 300;

/// Everything that is wrong with one configuration, in the order of the file.
#[derive(Clone, Debug)]
pub struct Problems {
    source: Source,
    problems: Vec<Problem>,
    files: Files,
}

/// A problem as it stands in JSON; what does not apply is `null`.
#[derive(serde::Serialize)]
struct Entry<'a> {
    severity: Severity,
    file: &'a str,
    line: Option<usize>,
    column: Option<usize>,
    end_line: Option<usize>,
    end_column: Option<usize>,
    message: &'a str,
    expected: Option<&'a str>,
    help: Option<&'a str>,
}

impl Problems {
    pub(super) fn new(source: Source, mut findings: Findings) -> Self {
        let files = findings.take_files();
        let problems = findings.into_sorted(&source);
        Self { source, problems, files }
    }

    /// The files that were read beside the configuration's own: when one of them changes, so may what is wrong.
    #[must_use]
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Each problem, in the order of the file; those of the file as a whole come first.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// How many of them make the configuration unusable.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.problems.iter().filter(|problem| problem.severity == Severity::Error).count()
    }

    /// How many of them do not.
    #[must_use]
    pub fn warnings(&self) -> usize {
        self.problems.len() - self.errors()
    }

    /// The file, as it was named when it was loaded.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.source.origin
    }

    /// One line for a log: how many there are, and the first, an error if there is one.
    #[must_use]
    pub fn summary(&self) -> String {
        let first = self.problems.iter().find(|p| p.severity == Severity::Error).or(self.problems.first());
        let file = printable(&self.source.origin);
        let Some(Problem { place, message, .. }) = first else {
            return format!("{} in {file}", self.counts());
        };
        let place = place.map(|place| format!(":{}:{}", place.line, place.column)).unwrap_or_default();
        format!("{} in {file}{place}: {message}", self.counts())
    }

    /// A line for each problem, for a log, as many as somebody reads there.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let file = printable(&self.source.origin);
        self.shown().map(move |Problem { place, message, .. }| {
            let place = place.map(|place| format!(":{}:{}", place.line, place.column)).unwrap_or_default();
            format!("{file}{place}: {message}")
        })
    }

    /// For a person: each problem with its line, a caret below what is wrong, and what would be right; errors before
    /// warnings when there are too many to show.
    #[must_use]
    pub fn human(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let mut text = String::new();
        for problem in self.shown() {
            text.push_str(&renderer.render(&[self.group(problem)]));
            text.push_str("\n\n");
        }
        if self.problems.len() > SHOWN {
            text.push_str(&format!("… and {} more\n\n", self.problems.len() - SHOWN));
        }
        text.push_str(&format!("{} in {}\n", self.counts(), printable(&self.source.origin)));
        text
    }

    /// For a program: an array of objects with `severity`, `file`, `line`, `column`, `end_line`, `end_column`, `message`,
    /// `expected` and `help`.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let entry = |problem: &Problem| {
            let Problem { severity, place, message, expected, help, span: _ } = problem;
            serde_json::json!(Entry {
                severity: *severity,
                file: &self.source.origin,
                line: place.map(|place| place.line),
                column: place.map(|place| place.column),
                end_line: place.map(|place| place.end_line),
                end_column: place.map(|place| place.end_column),
                message,
                expected: expected.as_deref(),
                help: help.as_deref(),
            })
        };
        self.problems.iter().map(entry).collect()
    }

    /// The first problems, errors rather than warnings, in the order of the file.
    fn shown(&self) -> impl Iterator<Item = &Problem> {
        let mut errors = SHOWN;
        let mut warnings = SHOWN.saturating_sub(self.errors());
        self.problems.iter().filter(move |problem| {
            let left = match problem.severity {
                Severity::Error => &mut errors,
                Severity::Warning => &mut warnings,
            };
            let fits = *left > 0;
            *left = left.saturating_sub(1);
            fits
        })
    }

    fn counts(&self) -> String {
        let count = |number: usize, word: &str| match number {
            0 => None,
            1 => Some(format!("1 {word}")),
            _ => Some(format!("{number} {word}s")),
        };
        let counts = [count(self.errors(), "error"), count(self.warnings(), "warning")];
        let counts: Vec<String> = counts.into_iter().flatten().collect();
        if counts.is_empty() { "no problems".to_owned() } else { counts.join(" and ") }
    }

    fn group<'a>(&'a self, problem: &'a Problem) -> Group<'a> {
        let Problem { severity, place, message, expected, help, span } = problem;
        let level = match severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(message.as_str());
        let mut group = match (place, span) {
            (Some(place), Some(span)) => title.elements(self.excerpt(*place, span)),
            (Some(_), None) | (None, _) => title.element(Origin::path(self.source.origin.as_str())),
        };
        if let Some(expected) = expected {
            group = group.element(Level::NOTE.message(format!("expected {expected}")));
        }
        if let Some(help) = help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        group
    }

    /// The line a problem starts on, or the part of it around the problem where it is very long.
    fn excerpt(&self, place: Place, span: &Range<usize>) -> Vec<Element<'_>> {
        let Source { origin, text, .. } = &self.source;
        let line = self.source.line(place.line);
        let (start, end) = (span.start.min(line.end), span.end.min(line.end));
        let from = text.ceil_char_boundary(start.saturating_sub(CONTEXT).max(line.start));
        let to = text.floor_char_boundary((start + CONTEXT).min(line.end));
        let marked = start.saturating_sub(from)..end.min(to).saturating_sub(from);
        let snippet = Snippet::source(text.get(from..to).unwrap_or_default())
            .line_start(place.line)
            .annotation(AnnotationKind::Primary.span(marked));
        if from == line.start {
            vec![snippet.path(origin).into()]
        } else {
            // The column cannot be told from a part of the line.
            vec![Origin::path(origin).line(place.line).char_column(place.column).into(), snippet.into()]
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary())
    }
}

impl std::error::Error for Problems {}
