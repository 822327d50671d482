//! What others said, or had a say in, made fit for a line of the log.

/// The most characters of it that are told.
pub const MOST_WORDS: usize = 200;

/// What somebody said, fit to be logged: a line of bearable length.
#[must_use]
pub fn told(bytes: &[u8]) -> String {
    plain(&String::from_utf8_lossy(bytes))
}

/// The same of words it may have had a say in.
fn plain(words: &str) -> String {
    words.chars().filter(|c| !c.is_control()).take(MOST_WORDS).collect()
}

/// An error and what led to it, within bounds: somebody else may have had a say in it.
#[must_use]
pub fn words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_words = cause.to_string();
        if !words.contains(&cause_words) {
            words = format!("{words}: {cause_words}");
        }
        source = cause.source();
    }
    plain(&words)
}
