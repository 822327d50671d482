//! Reading typed values out of a TOML table: what is unknown, missing or of the wrong type is found here, each at its
//! place; what a value means together with others is not known here.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::keys::Section;
use super::problem::{Findings, Problem, Span, choice, quoted};
use crate::units::{Percent, parse_duration, parse_size};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

/// A table that can be read.
pub(super) trait Read<'t>: Sized {
    const SECTION: Section;

    /// Takes every key of the section, once.
    fn read(fields: &mut Fields<'t, '_>) -> Self;
}

/// A table under its own name: `[pools.web]`.
#[derive(Debug)]
pub(super) struct Named<'t, T> {
    pub(super) name: At<&'t str>,
    /// Absent where it is no table.
    pub(super) body: Option<T>,
}

/// Texts by names, and where they stand.
pub(super) type ByName<'t> = At<Vec<(At<&'t str>, At<&'t str>)>>;

/// Reads a table and reports the keys it should not have.
pub(super) fn read<'t, T: Read<'t>>(table: &'t DeTable<'t>, span: Span, findings: &mut Findings) -> T {
    let mut fields = Fields { section: T::SECTION, table, span, taken: 0, findings };
    let value = T::read(&mut fields);
    // A key that is in the table of keys but read by nobody would be accepted and ignored.
    debug_assert_eq!(fields.taken, T::SECTION.keys().len(), "keys of {}", T::SECTION.title());
    fields.report_unknown_keys();
    value
}

/// The keys of one table, while it is read.
pub(super) struct Fields<'t, 'f> {
    section: Section,
    table: &'t DeTable<'t>,
    span: Span,
    taken: usize,
    findings: &'f mut Findings,
}

impl<'t> Fields<'t, '_> {
    /// The value of a key that may be absent.
    pub(super) fn optional(&mut self, key: &'static str) -> Field<'t, '_> {
        debug_assert!(self.section.keys().contains(&key), "{key} is not in the table of keys");
        self.taken += 1;
        Field { subject: Subject::Key(key), value: self.table.get(key), findings: self.findings }
    }

    /// The value of a key that must be there.
    pub(super) fn required(&mut self, key: &'static str) -> Field<'t, '_> {
        if !self.table.contains_key(key) && self.findings.complete() {
            self.findings.error(self.span.clone(), &format!("{} needs the key `{key}`", self.section.title()));
        }
        self.optional(key)
    }

    /// Whether a key is there.
    pub(super) fn has(&self, key: &'static str) -> bool {
        self.table.contains_key(key)
    }

    /// Says of a key, if it is there, why it cannot be.
    pub(super) fn refuse(&mut self, key: &'static str, message: &str) -> Option<&mut Problem> {
        let (key, _) = self.table.get_key_value(key)?;
        Some(self.findings.error(key.span(), message))
    }

    /// Checks that one of these keys is there, and no two of them.
    pub(super) fn one_of(&mut self, keys: &[&'static str]) {
        let there: Vec<&'static str> = keys.iter().copied().filter(|key| self.has(key)).collect();
        match there.as_slice() {
            [_] => {}
            [] if !self.findings.complete() => {}
            [] => {
                let message =
                    format!("{} needs one of the keys {}", self.section.title(), choice(keys.iter().copied()));
                self.findings.error(self.span.clone(), &message);
            }
            [first, rest @ ..] => {
                for key in rest {
                    let message = format!("`{key}` cannot stand beside `{first}`");
                    if let Some(problem) = self.refuse(key, &message) {
                        problem.expected(&format!("one of {}", choice(keys.iter().copied())));
                    }
                }
            }
        }
    }

    /// Where the table stands.
    pub(super) fn span(&self) -> Span {
        self.span.clone()
    }

    /// How many problems were found so far, here and elsewhere.
    pub(super) fn problems(&self) -> usize {
        self.findings.count()
    }

    /// Whether the key may be at the top of the file only because the header of its table is broken.
    fn may_be_astray(&self, key: &str) -> bool {
        let elsewhere = || Section::ALL.iter().any(|section| section.keys().contains(&key));
        self.section == Section::Top && !self.findings.complete() && elsewhere()
    }

    fn report_unknown_keys(&mut self) {
        let keys = self.section.keys();
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            if keys.contains(&name) || self.may_be_astray(name) {
                continue;
            }
            self.findings
                .error(key.span(), &format!("{} has no key {}", self.section.title(), quoted(name)))
                .expected(&choice(keys.iter().copied()))
                .did_you_mean(name, keys.iter().copied());
        }
    }
}

/// What a value is the value of.
#[derive(Clone, Copy)]
enum Subject<'t> {
    Key(&'t str),
    Entry(&'t str),
}

/// One value, while it is read: absent, of the right type, or a problem.
pub(super) struct Field<'t, 'f> {
    subject: Subject<'t>,
    value: Option<&'t Spanned<DeValue<'t>>>,
    findings: &'f mut Findings,
}

impl<'t> Field<'t, '_> {
    pub(super) fn text(self) -> Option<At<&'t str>> {
        let (value, span) = self.present()?;
        match value.as_str() {
            Some(value) => Some(At { value, span }),
            None => self.refuse("a string"),
        }
    }

    /// A string, or a whole number as it would be written in one: a port, a status.
    pub(super) fn text_or_number(self, expected: &str) -> Option<At<String>> {
        let (value, span) = self.present()?;
        match (value.as_str(), value.as_integer()) {
            (Some(text), _) => Some(At { value: text.to_owned(), span }),
            (_, Some(number)) => Some(At { value: decimal(number), span }),
            _ => self.refuse(expected),
        }
    }

    pub(super) fn boolean(self) -> Option<At<bool>> {
        let (value, span) = self.present()?;
        match value.as_bool() {
            Some(value) => Some(At { value, span }),
            None => self.refuse("`true` or `false`"),
        }
    }

    pub(super) fn whole_number<N: TryFrom<i64>>(self, range: RangeInclusive<i64>) -> Option<At<N>> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let (value, span) = self.present()?;
        let Some(number) = value.as_integer() else { return self.refuse(&expected) };
        let fitting = i64::from_str_radix(number.as_str(), number.radix()).ok().filter(|value| range.contains(value));
        match fitting.and_then(|value| N::try_from(value).ok()) {
            Some(value) => Some(At { value, span }),
            None => {
                let message = format!("{} cannot be {}", self.subject(), decimal(number));
                self.findings.error(span, &message).expected(&expected);
                None
            }
        }
    }

    /// One of a few whole numbers, which `expected` lists.
    pub(super) fn one_of(self, numbers: &[u16], expected: &str) -> Option<At<u16>> {
        let (value, span) = self.present()?;
        let Some(number) = value.as_integer() else { return self.refuse(expected) };
        let read = u16::from_str_radix(number.as_str(), number.radix()).ok();
        match read.filter(|number| numbers.contains(number)) {
            Some(value) => Some(At { value, span }),
            None => {
                let message = format!("{} cannot be {}", self.subject(), decimal(number));
                self.findings.error(span, &message).expected(expected);
                None
            }
        }
    }

    /// A duration, zero included.
    pub(super) fn duration(self) -> Option<At<Duration>> {
        let (value, span) = self.present()?;
        let Some(text) = value.as_str() else {
            return self.refuse("a string with a duration such as \"500ms\", \"5s\" or \"1m30s\"");
        };
        match parse_duration(text) {
            Ok(value) => Some(At { value, span }),
            Err(why) => {
                self.findings.refused(span, text, "a duration", &why);
                None
            }
        }
    }

    /// A duration that somebody waits for: zero is none.
    pub(super) fn deadline(self) -> Option<At<Duration>> {
        let message = format!("{} cannot be zero", self.subject());
        let Field { subject, value, findings } = self;
        let read = Field { subject, value, findings: &mut *findings }.duration()?;
        if read.value.is_zero() {
            findings.error(read.span, &message).expected("a duration longer than zero");
            return None;
        }
        Some(read)
    }

    /// A size in bytes.
    pub(super) fn size(self) -> Option<At<u64>> {
        let (value, span) = self.present()?;
        let Some(text) = value.as_str() else {
            return self.refuse("a string with a size such as \"512B\", \"16KiB\" or \"10MB\"");
        };
        match parse_size(text) {
            Ok(value) => Some(At { value, span }),
            Err(why) => {
                self.findings.refused(span, text, "a size", &why);
                None
            }
        }
    }

    /// A share in percent.
    pub(super) fn percent(self) -> Option<At<Percent>> {
        let (value, span) = self.present()?;
        let Some(text) = value.as_str() else { return self.refuse("a string with a share such as \"50%\"") };
        match Percent::parse(text) {
            Ok(value) => Some(At { value, span }),
            Err(why) => {
                self.findings.refused(span, text, "a share", &why);
                None
            }
        }
    }

    /// A number, with a fraction or without, as `read` takes it; nothing where it is said to be off.
    pub(super) fn number_or_off<T>(self, expected: &str, read: impl Fn(f64) -> Option<T>) -> Option<At<Option<T>>> {
        let (value, span) = self.present()?;
        let (number, written) = match value {
            DeValue::String(text) if text.as_ref() == "off" => return Some(At { value: None, span }),
            DeValue::Integer(number) => (i64::from_str_radix(number.as_str(), number.radix()).ok(), decimal(number)),
            DeValue::Float(number) => (None, number.as_str().to_owned()),
            DeValue::String(_) | DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
                return self.refuse(expected);
            }
        };
        let number = number.map(|number| number as f64).or_else(|| written.parse().ok());
        match number.and_then(read) {
            Some(value) => Some(At { value: Some(value), span }),
            None => {
                let message = format!("{} cannot be {written}", self.subject());
                self.findings.error(span, &message).expected(expected);
                None
            }
        }
    }

    /// One of a list of words.
    pub(super) fn word<T: Copy>(self, words: &[(&'static str, T)]) -> Option<At<T>> {
        let listed = || words.iter().map(|(word, _)| *word);
        let (value, span) = self.present()?;
        let Some(text) = value.as_str() else { return self.refuse(&choice(listed())) };
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => Some(At { value: *value, span }),
            None => {
                let message = format!("{} cannot be {}", self.subject(), quoted(text));
                self.findings.error(span, &message).expected(&choice(listed())).did_you_mean(text, listed());
                None
            }
        }
    }

    pub(super) fn table<T: Read<'t>>(self) -> Option<T> {
        let (value, span) = self.present()?;
        match value.as_table() {
            Some(table) => Some(read(table, span, self.findings)),
            None => self.refuse("a table"),
        }
    }

    /// Either of two forms: a table, or what `short` reads.
    pub(super) fn table_or<T: Read<'t>, S>(self, short: impl FnOnce(Self) -> Option<S>) -> Option<Either<T, S>> {
        let (value, span) = self.present()?;
        match value {
            DeValue::Table(table) => Some(Either::Table(read(table, span, self.findings))),
            DeValue::String(_) => short(self).map(Either::Short),
            DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_) => self.refuse("a string or a table"),
        }
    }

    /// The same where the short form is a whole number.
    pub(super) fn table_or_number<T: Read<'t>, S>(self, short: impl FnOnce(Self) -> Option<S>) -> Option<Either<T, S>> {
        let (value, span) = self.present()?;
        match value {
            DeValue::Table(table) => Some(Either::Table(read(table, span, self.findings))),
            DeValue::Integer(_) => short(self).map(Either::Short),
            DeValue::String(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) => {
                self.refuse("a whole number or a table")
            }
        }
    }

    /// Texts by names that no section knows, in the order of the file.
    pub(super) fn texts_by_name(self) -> Option<ByName<'t>> {
        let (value, span) = self.present()?;
        let Some(table) = value.as_table() else { return self.refuse("a table of strings by name") };
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let texts = entries.into_iter().filter_map(|(key, value)| {
            let field = Field { subject: Subject::Key(key.get_ref()), value: Some(value), findings: self.findings };
            Some((At { value: key.get_ref().as_ref(), span: key.span() }, field.text()?))
        });
        Some(At { value: texts.collect(), span })
    }

    /// The entries of a list, with `None` for one that was refused.
    pub(super) fn list<T>(self, entry: impl Fn(Field<'t, '_>) -> Option<T>) -> Option<At<Vec<Option<T>>>> {
        let (value, span) = self.present()?;
        let Some(array) = value.as_array() else { return self.refuse("a list") };
        let (Subject::Key(key) | Subject::Entry(key)) = self.subject;
        let subject = Subject::Entry(key);
        let entries = array.iter().map(|value| entry(Field { subject, value: Some(value), findings: self.findings }));
        Some(At { value: entries.collect(), span })
    }

    /// A list, or a single entry without its brackets.
    pub(super) fn one_or_many<T>(self, entry: impl Fn(Field<'t, '_>) -> Option<T>) -> Option<At<Vec<Option<T>>>> {
        let (value, span) = self.present()?;
        if value.is_array() { self.list(entry) } else { Some(At { value: vec![entry(self)], span }) }
    }

    /// Tables by name, in the order of the file.
    pub(super) fn named<T: Read<'t>>(self) -> Vec<Named<'t, T>> {
        let Some((value, _)) = self.present() else { return Vec::new() };
        let Some(table) = value.as_table() else {
            self.refuse::<()>("a table of tables by name");
            return Vec::new();
        };
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let named = entries.into_iter().map(|(key, value)| Named {
            name: At { value: key.get_ref().as_ref(), span: key.span() },
            body: Field { subject: Subject::Key(key.get_ref()), value: Some(value), findings: self.findings }.table(),
        });
        named.collect()
    }

    /// The value, if there is one. The parser puts a stand-in without extent where it could read none.
    fn present(&self) -> Option<(&'t DeValue<'t>, Span)> {
        let value = self.value.filter(|value| !value.span().is_empty())?;
        Some((value.get_ref(), value.span()))
    }

    fn subject(&self) -> String {
        match self.subject {
            Subject::Key(key) => format!("`{key}`"),
            Subject::Entry(key) => format!("an entry of `{key}`"),
        }
    }

    fn refuse<T>(self, expected: &str) -> Option<T> {
        let (value, span) = self.present()?;
        let message = format!("{} cannot be {}", self.subject(), kind(value));
        self.findings.error(span, &message).expected(expected);
        None
    }
}

/// One of two forms a value may take.
#[derive(Debug)]
pub(super) enum Either<T, S> {
    Table(T),
    Short(S),
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "`true` or `false`",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The number in decimal, as written where it is too large to be converted.
fn decimal(number: &DeInteger<'_>) -> String {
    i64::from_str_radix(number.as_str(), number.radix()).map_or_else(|_| number.to_string(), |value| value.to_string())
}
