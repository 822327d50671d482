//! Reading a head of HTTP/1 line by line, as strictly as RFC 9112 is written: lines end with CR LF and nothing else, no line
//! is folded, no space stands before a colon. What two readers could take for two things is refused.

use super::head::{Fields, Span};
use super::plain;
use super::token::{is_token_byte, is_value};

/// What a head may be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request's target.
    pub target: usize,
    /// Bytes of the first line.
    pub first_line: usize,
    /// Bytes of the fields.
    pub bytes: usize,
    /// Fields.
    pub fields: usize,
    /// Whether fields are kept whose names have underscores. Many servers take `X_Name` for `X-Name`.
    pub underscores: bool,
}

/// The most bytes a whole head may have: spans have 16 bits.
pub const LONGEST_HEAD: usize = u16::MAX as usize;

/// What is wrong with a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It breaks the grammar, or could be read in two ways; the words say where.
    Malformed(&'static str),
    /// The first line is too long.
    FirstLineTooLong,
    /// There are too many bytes of fields.
    TooLarge,
    /// There are too many fields.
    TooMany,
}

impl Fault {
    /// What is wrong, in words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Malformed(why) => why,
            Self::FirstLineTooLong => "its first line is too long",
            Self::TooLarge => "its header is too large",
            Self::TooMany => "it has too many fields",
        }
    }
}

/// How far a head has been read. Every line is read once, however slowly the bytes come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Where the next line begins.
    line: usize,
    /// Up to where it was searched for its end.
    searched: usize,
    /// Where the fields begin, once the first line was read.
    fields: Option<usize>,
}

/// What the next line is.
pub(super) enum Line {
    /// It has not arrived whole.
    Partial,
    /// The first line, without its end.
    First(Span),
    /// The empty line that ends the head, and where what follows begins.
    End(usize),
}

impl Progress {
    /// Fields that follow no first line: a trailer section.
    pub(super) const fn without_first_line() -> Self {
        Self { line: 0, searched: 0, fields: Some(0) }
    }

    /// Goes on behind a first line that was no good, which ends there.
    pub(super) fn skip_first_line(&mut self, end: usize) {
        *self = Self { line: end, searched: end, fields: Some(end) };
    }

    /// Reads fields up to the end of the head or of what has arrived, after the first line.
    pub(super) fn advance(&mut self, fields: &mut Fields, limits: &Limits) -> Result<Line, Fault> {
        loop {
            self.skim(fields, limits);
            let Some(line) = self.next_line(fields.bytes(), limits)? else { return Ok(Line::Partial) };
            let next = self.line;
            let Some(begin) = self.fields else {
                // One empty line before a message is forgiven (RFC 9112 §2.2): old clients send one behind a body.
                if line.is_empty() && next == 2 {
                    continue;
                }
                self.fields = Some(next);
                return Ok(Line::First(line));
            };
            if line.is_empty() {
                return Ok(Line::End(next));
            }
            if next - begin > limits.bytes {
                return Err(Fault::TooLarge);
            }
            if fields.len() >= limits.fields {
                return Err(Fault::TooMany);
            }
            read_field(fields, line, limits.underscores)?;
        }
    }

    /// Reads fields for as long as they are plain, each in one pass; what is wrong with the next, if anything is, is not looked
    /// for. A line that was begun before is left: however slowly its bytes come, it is not begun anew with each.
    fn skim(&mut self, fields: &mut Fields, limits: &Limits) {
        let Some(begin) = self.fields else { return };
        let longest = LONGEST_HEAD.min(begin + limits.bytes + 1);
        while self.searched == self.line && fields.len() < limits.fields {
            let Some(field) = plain::field(fields.bytes(), self.line).filter(|field| field.next < longest) else {
                return;
            };
            fields.note(Span::new(self.line, field.name_end), Span::new(field.value, field.value_end));
            self.line = field.next;
            self.searched = field.next;
        }
    }

    fn next_line(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<Span>, Fault> {
        let unread = bytes.get(self.searched..).unwrap_or_default();
        let Some(newline) = memchr::memchr(b'\n', unread).map(|at| self.searched + at) else {
            self.searched = bytes.len();
            // The CR that has arrived may be that of the end, which counts as little as it does once the LF is there.
            return match self.fields {
                None if bytes.len() - self.line > limits.first_line + 1 => Err(Fault::FirstLineTooLong),
                Some(begin) if bytes.len() - begin > limits.bytes + 1 => Err(Fault::TooLarge),
                _ if bytes.len() >= LONGEST_HEAD => Err(Fault::TooLarge),
                // What no message begins with is told at once, and not when its time is over.
                None if !bytes.get(self.line..).unwrap_or_default().first().is_none_or(may_begin) => {
                    Err(Fault::Malformed("it does not begin like a message"))
                }
                _ => Ok(None),
            };
        };
        let end = newline.checked_sub(1).filter(|end| *end >= self.line && bytes.get(*end) == Some(&b'\r'));
        let end = end.ok_or(Fault::Malformed("a line ends without CR"))?;
        if newline >= LONGEST_HEAD {
            return Err(Fault::TooLarge);
        }
        if self.fields.is_none() && end - self.line > limits.first_line {
            return Err(Fault::FirstLineTooLong);
        }
        let line = Span::new(self.line, end);
        self.line = newline + 1;
        self.searched = self.line;
        Ok(Some(line))
    }
}

fn may_begin(byte: &u8) -> bool {
    is_token_byte(*byte) || *byte == b'\r'
}

/// Reads `name: value`.
fn read_field(fields: &mut Fields, line: Span, underscores: bool) -> Result<(), Fault> {
    let (start, bytes) = (line.start(), line.of(fields.bytes()));
    let colon = bytes.iter().position(|byte| !is_token_byte(*byte));
    let colon = match colon.map(|at| (at, bytes.get(at))) {
        Some((0, Some(b' ' | b'\t'))) => return Err(Fault::Malformed("a line is folded")),
        Some((0, Some(b':'))) => return Err(Fault::Malformed("a field has no name")),
        Some((at, Some(b':'))) => at,
        Some((_, Some(b' ' | b'\t'))) => return Err(Fault::Malformed("a space stands before a colon")),
        Some((_, Some(_))) => return Err(Fault::Malformed("the name of a field has a character that names have not")),
        Some((_, None)) | None => return Err(Fault::Malformed("a field has no colon")),
    };
    let (name, rest) = bytes.split_at_checked(colon).unwrap_or_default();
    let rest = rest.get(1..).unwrap_or_default();
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let before = rest.iter().take_while(|byte| is_space(byte)).count();
    let value = rest.get(before..).unwrap_or_default();
    let after = value.iter().rev().take_while(|byte| is_space(byte)).count();
    let value = value.get(..value.len() - after).unwrap_or_default();
    if !is_value(value) {
        return Err(Fault::Malformed("the value of a field has a character that values have not"));
    }
    if !underscores && memchr::memchr(b'_', name).is_some() {
        return Ok(());
    }
    let value_start = start + colon + 1 + before;
    let value = Span::new(value_start, value_start + value.len());
    fields.note(Span::new(start, start + colon), value);
    Ok(())
}
