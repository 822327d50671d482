//! The text of a configuration: where it comes from, within which bounds, and which line and column an offset is.

use std::ops::Range;
use std::path::Path;

use crate::disk;

/// The largest file that is read, in bytes: far more than any configuration and far less than memory.
pub(super) const LARGEST: u64 = 16 * 1024 * 1024;

/// A place in a text, counted from 1; columns are characters, and the end is exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line it starts on.
    pub line: usize,
    /// The column it starts at.
    pub column: usize,
    /// The line it ends on.
    pub end_line: usize,
    /// The column behind its last character.
    pub end_column: usize,
}

/// A text, what to call it, and where its lines start.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) origin: String,
    pub(super) text: String,
    line_starts: Vec<usize>,
}

impl Source {
    pub(super) fn new(origin: String, text: String) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { origin, text, line_starts }
    }

    pub(super) fn place(&self, span: &Range<usize>) -> Place {
        let (line, column) = self.position(span.start);
        let (end_line, end_column) = self.position(span.end);
        Place { line, column, end_line, end_column }
    }

    /// The number of the line this offset is on, counted from 1.
    pub(super) fn line_of(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset).max(1)
    }

    /// Where the line of this number lies in the text, without what ends it.
    pub(super) fn line(&self, number: usize) -> Range<usize> {
        let start = self.line_starts.get(number.saturating_sub(1)).copied().unwrap_or(self.text.len());
        let end = self.line_starts.get(number).map_or(self.text.len(), |next| next - 1);
        let line = self.text.get(start..end).unwrap_or_default();
        start..start + line.strip_suffix('\r').unwrap_or(line).len()
    }

    fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.line_of(offset);
        let start = self.line(line).start;
        let before = self.text.get(start..offset.min(self.text.len())).unwrap_or_default();
        (line, before.chars().count() + 1)
    }
}

/// Why there is no text.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// The file could not be read at all; a sentence says why.
    File(String),
    /// The file is not UTF-8: its text with substitutes, and where the first of them stands.
    Text { text: String, at: Range<usize> },
}

/// Reads a file whole. Never waits for a writer and never takes in more than [`LARGEST`] bytes.
pub(super) fn read(path: &Path) -> Result<String, Unreadable> {
    let (bytes, _) = disk::read(path, LARGEST).map_err(Unreadable::File)?;
    String::from_utf8(bytes).map_err(|error| {
        let start = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
        Unreadable::Text { text, at: start..start + char::REPLACEMENT_CHARACTER.len_utf8() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn refusal(path: &Path) -> String {
        match read(path) {
            Err(Unreadable::File(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn lines_and_columns_count_from_one_in_characters() {
        let source = Source::new(String::new(), "a\nüü = 1\r\n\nlast".to_owned());
        assert_eq!(source.place(&(0..1)), Place { line: 1, column: 1, end_line: 1, end_column: 2 });
        assert_eq!(source.place(&(9..10)), Place { line: 2, column: 6, end_line: 2, end_column: 7 });
        assert_eq!(source.line(2), 2..10);
        assert_eq!(source.line(3), 12..12);
        assert_eq!(source.place(&(17..99)).line, 4);
        assert_eq!(source.line(99), 17..17);
    }

    #[test]
    fn what_is_not_a_regular_file_is_refused_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(refusal(&fifo).contains("it is a pipe, a socket or a device"));
        assert!(refusal(Path::new("/dev/zero")).contains("it is a pipe, a socket or a device"));
        assert!(refusal(folder.path()).contains("it is a directory"));
        assert!(refusal(&folder.path().join("none")).contains("there is none at this path"));
    }

    #[test]
    fn a_file_is_read_up_to_16_mib_and_no_further() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large.toml");
        let file = File::create(&path).unwrap();
        file.set_len(LARGEST).unwrap();
        assert_eq!(read(&path).unwrap().len() as u64, LARGEST);
        file.set_len(LARGEST + 1).unwrap();
        assert_eq!(refusal(&path), "cannot read the file: it is larger than 16 MiB");
    }

    #[test]
    fn the_first_byte_that_is_not_utf_8_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("latin.toml");
        std::fs::write(&path, b"# ok\n# caf\xe9\n").unwrap();
        match read(&path) {
            Err(Unreadable::Text { text, at }) => {
                let place = Source::new(String::new(), text).place(&at);
                assert_eq!((place.line, place.column, place.end_column), (2, 6, 7));
            }
            other => panic!("{other:?}"),
        }
    }
}
