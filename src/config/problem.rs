//! What is wrong with a configuration: found piece by piece while reading, handed out sorted and with its places.

use std::collections::HashSet;
use std::ops::Range;

use super::model::Files;
use super::source::{Place, Source};

/// Bytes of the text, from and up to.
pub(super) type Span = Range<usize>;

/// The longest message, expectation or help, in characters: a file can hold strings of megabytes.
const LONGEST: usize = 400;

/// The most problems that are kept: nobody reads more, and a file of garbage must not cost a running instance its memory.
const MOST: usize = 1000;

/// Whether a configuration can be used in spite of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It cannot.
    Error,
    /// It can, but somebody should look.
    Warning,
}

/// One thing that is wrong with a configuration. Its texts hold no control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Whether the configuration can be used in spite of it.
    pub severity: Severity,
    /// Where it is; a problem of the whole file has no place.
    pub place: Option<Place>,
    /// What is wrong.
    pub message: String,
    /// What would have been right.
    pub expected: Option<String>,
    /// What to do about it.
    pub help: Option<String>,
    pub(super) span: Option<Span>,
}

impl Problem {
    /// Says what would have been right.
    pub(super) fn expected(&mut self, text: &str) -> &mut Self {
        self.expected = Some(printable(text));
        self
    }

    /// Says what to do about it.
    pub(super) fn help(&mut self, text: &str) -> &mut Self {
        self.help = Some(printable(text));
        self
    }

    /// Asks whether the nearest of these words was meant, if one is near.
    pub(super) fn did_you_mean<'w>(&mut self, word: &str, words: impl IntoIterator<Item = &'w str>) -> &mut Self {
        match nearest(word, words) {
            Some(near) => self.help(&format!("did you mean `{near}`?")),
            None => self,
        }
    }
}

/// The problems found so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    problems: Vec<Problem>,
    /// The last problem beyond [`MOST`]; it is counted and otherwise forgotten.
    beyond: Option<Problem>,
    errors_beyond: usize,
    warnings_beyond: usize,
    /// Whether parts of the file could not be read, so that what seems to be missing may not be.
    incomplete: bool,
    /// The files that were read beside the configuration's own.
    files: Files,
}

impl Findings {
    pub(super) fn error(&mut self, span: impl Into<Option<Span>>, message: &str) -> &mut Problem {
        self.add(Severity::Error, span.into(), message)
    }

    pub(super) fn warning(&mut self, span: impl Into<Option<Span>>, message: &str) -> &mut Problem {
        self.add(Severity::Warning, span.into(), message)
    }

    /// A text that one of the parsers of `units` or `net::address` refused, for a reason of theirs.
    pub(super) fn refused(&mut self, span: Span, text: &str, what: &str, why: &str) -> &mut Problem {
        let Reason { why, expected, guess } = Reason::taken_apart(why);
        let subject = format!("{} is not {what}", quoted(text));
        let message = if why.is_empty() { subject } else { format!("{subject}: {why}") };
        let problem = self.error(span, &message);
        if let Some(expected) = expected {
            problem.expected(&expected);
        }
        if let Some(guess) = guess {
            problem.help(&guess);
        }
        problem
    }

    /// What does not parse as TOML. Except for a key that stands twice, it can swallow what follows.
    pub(super) fn syntax(&mut self, error: &toml::de::Error, text: &str) {
        let span = error.span();
        let (message, expected) = match error.message().split_once(", expected ") {
            // Where nothing else would be right either.
            Some((message, "nothing")) => (message, None),
            Some((message, expected)) => (message, Some(expected)),
            None => (error.message(), None),
        };
        if message == "duplicate key" {
            let key = span.clone().and_then(|span| text.get(span)).unwrap_or_default();
            self.error(span, &format!("`{key}` stands here for the second time")).expected("each key once");
            return;
        }
        self.incomplete = true;
        let problem = self.error(span, message);
        if let Some(expected) = expected {
            problem.expected(expected);
        }
    }

    /// Whether everything in the file was read, so that what is not there is missing indeed.
    pub(super) fn complete(&self) -> bool {
        !self.incomplete
    }

    pub(super) fn errors(&self) -> usize {
        self.problems.iter().filter(|problem| problem.severity == Severity::Error).count() + self.errors_beyond
    }

    /// How many problems there are, warnings included.
    pub(super) fn count(&self) -> usize {
        self.problems.len() + self.errors_beyond + self.warnings_beyond
    }

    fn add(&mut self, severity: Severity, span: Option<Span>, message: &str) -> &mut Problem {
        let problem = Problem { severity, place: None, message: printable(message), expected: None, help: None, span };
        if self.problems.len() < MOST {
            return self.problems.push_mut(problem);
        }
        match severity {
            Severity::Error => self.errors_beyond += 1,
            Severity::Warning => self.warnings_beyond += 1,
        }
        self.beyond.insert(problem)
    }

    /// Leaves out problems beyond the first `syntax` ones that start on a line where one of those does: what could be read
    /// of such a line is a guess, and what is wrong with a guess is no news.
    pub(super) fn without_echoes(&mut self, syntax: usize, source: &Source) {
        let line = |problem: &Problem| problem.span.as_ref().map(|span| source.line_of(span.start));
        let broken: HashSet<usize> = self.problems.iter().take(syntax).filter_map(line).collect();
        let mut index = 0;
        self.problems.retain(|problem| {
            index += 1;
            index <= syntax || line(problem).is_none_or(|line| !broken.contains(&line))
        });
    }

    /// These files were read.
    pub(super) fn set_files(&mut self, files: Files) {
        self.files = files;
    }

    /// The files that were read.
    pub(super) fn take_files(&mut self) -> Files {
        std::mem::take(&mut self.files)
    }

    /// All problems with their places, in the order of the file.
    pub(super) fn into_sorted(self, source: &Source) -> Vec<Problem> {
        let mut problems = self.problems;
        for problem in &mut problems {
            problem.place = problem.span.as_ref().map(|span| source.place(span));
        }
        problems.sort_by_key(|problem| problem.place);
        let beyond = self.errors_beyond + self.warnings_beyond;
        if beyond > 0 {
            let severity = if self.errors_beyond > 0 { Severity::Error } else { Severity::Warning };
            let message = format!("{beyond} more problems are not listed");
            problems.push(Problem { severity, place: None, message, expected: None, help: None, span: None });
        }
        problems
    }
}

/// A sentence of a parser, its parts where they belong: `WHY: did you mean GUESS?; expected WHAT`.
#[derive(Debug, PartialEq, Eq)]
struct Reason {
    why: String,
    expected: Option<String>,
    guess: Option<String>,
}

impl Reason {
    fn taken_apart(sentence: &str) -> Self {
        let (rest, guess) = match sentence.split_once("did you mean") {
            Some((before, after)) => {
                let (guess, after) = after.split_once('?').unwrap_or((after, ""));
                (format!("{}{after}", before.trim_end_matches([':', ' '])), Some(format!("did you mean{guess}?")))
            }
            None => (sentence.to_owned(), None),
        };
        // Of several expectations, the last is the one of the whole text and says what the others do.
        match rest.rsplit_once("expected ") {
            Some((why, expected)) => {
                let why = if why.starts_with("expected ") { "" } else { why.trim_end_matches([';', ' ']) };
                Self { why: why.to_owned(), expected: Some(expected.to_owned()), guess }
            }
            None => Self { why: rest, expected: None, guess },
        }
    }
}

/// The text in quotation marks, with those that it has itself as TOML has them.
pub(super) fn quoted(text: &str) -> String {
    let start = text.char_indices().nth(80).and_then(|(end, _)| text.get(..end));
    let more = if start.is_some() { "…" } else { "" };
    let start = start.unwrap_or(text).replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{start}{more}\"")
}

/// Words as a list to choose from: `` `a`, `b` or `c` ``.
pub(super) fn choice<'w>(words: impl IntoIterator<Item = &'w str>) -> String {
    let quoted: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

/// The word that differs least from this one, if it differs little enough to be a slip: one letter in three, or an end
/// that is too long or too short.
fn nearest<'w>(word: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    // A longer word is no slip of a key, and a list of thousands is not looked through again for each of thousands.
    const LONGEST_WORD: usize = 128;
    const MOST_WORDS: usize = 1000;
    if word.len() > LONGEST_WORD {
        return None;
    }
    let word = word.to_lowercase();
    let slips = (word.chars().count() / 3).max(1);
    let distance = |other: &str| {
        let other = other.to_lowercase();
        let same_start = word.starts_with(&other) || other.starts_with(&word);
        if same_start && word.len().min(other.len()) >= 3 { 1 } else { strsim::damerau_levenshtein(&word, &other) }
    };
    words
        .into_iter()
        .take(MOST_WORDS)
        .map(|other| (distance(other), other))
        .filter(|(distance, _)| *distance <= slips)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, other)| other)
}

/// The text as it can be shown on a terminal or in a log: characters that move the cursor or turn the direction of
/// writing are escaped.
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len().min(LONGEST));
    for (index, character) in text.chars().enumerate() {
        if index == LONGEST {
            shown.push('…');
            break;
        }
        if character.is_control() || turns_direction(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Whether this is one of the invisible characters of the Unicode Bidirectional Algorithm (UAX #9, section 2).
fn turns_direction(character: char) -> bool {
    matches!(character, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_another_word_is_not() {
        let words = ["round_robin", "least_conn", "random"];
        assert_eq!(nearest("least_con", words), Some("least_conn"));
        assert_eq!(nearest("Random", words), Some("random"));
        assert_eq!(nearest("least", words), Some("least_conn"));
        assert_eq!(nearest("maglev", words), None);
        assert_eq!(nearest("", words), None);
        assert_eq!(nearest(&"x".repeat(1 << 20), words), None);
    }

    #[test]
    fn what_is_quoted_ends_where_its_quotes_do() {
        assert_eq!(quoted("my \"realm"), r#""my \"realm""#);
        assert_eq!(quoted("a\\"), r#""a\\""#);
        assert_eq!(quoted(&"ä".repeat(80)), format!("\"{}\"", "ä".repeat(80)));
        assert_eq!(quoted(&"ä".repeat(81)), format!("\"{}…\"", "ä".repeat(80)));
    }

    #[test]
    fn text_of_the_file_cannot_steer_a_terminal() {
        assert_eq!(printable("a\x1b[2Jb\n\u{202e}"), "a\\u{1b}[2Jb\\n\\u{202e}");
        assert_eq!(printable(&"x".repeat(10_000)).chars().count(), LONGEST + 1);
    }

    #[test]
    fn the_reason_of_a_parser_is_taken_apart() {
        let apart = |sentence: &str| {
            let Reason { why, expected, guess } = Reason::taken_apart(sentence);
            [Some(why), expected, guess].map(Option::unwrap_or_default)
        };
        assert_eq!(apart("no unit: did you mean \"5s\"?"), ["no unit", "", "did you mean \"5s\"?"]);
        assert_eq!(apart("expected a duration"), ["", "a duration", ""]);
        assert_eq!(apart("no port; expected \"80\""), ["no port", "\"80\"", ""]);
        assert_eq!(apart("no x: did you mean y?; expected z"), ["no x", "z", "did you mean y?"]);
        assert_eq!(apart("expected a, not b; expected c"), ["", "c", ""]);
        assert_eq!(apart("it is too long"), ["it is too long", "", ""]);
    }
}
