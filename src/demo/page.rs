//! What the demo prints: acts, tables, and statements that were checked.

use std::io::{self, Write};

/// How wide the bar of the whole of a table is.
const WIDEST_BAR: usize = 60;

/// Where the tour is told.
pub(super) struct Page<W> {
    out: W,
    /// Whether the reader is a terminal that takes colours.
    colours: bool,
    acts: usize,
    /// How many statements turned out false.
    pub(super) falsehoods: usize,
}

/// A way to set words apart, as a terminal does it (ECMA-48 §8.3.117).
#[derive(Clone, Copy)]
enum Style {
    Bold,
    Dim,
    Green,
    Red,
}

impl<W: Write> Page<W> {
    pub(super) fn new(out: W, colours: bool) -> Self {
        Self { out, colours, acts: 0, falsehoods: 0 }
    }

    /// Opens the page.
    pub(super) fn title(&mut self, title: &str, below: &str) -> io::Result<()> {
        let title = self.styled(Style::Bold, title);
        writeln!(self.out, "\n{title}\n{below}")
    }

    /// Opens the next act.
    pub(super) fn act(&mut self, title: &str) -> io::Result<()> {
        self.acts += 1;
        let title = self.styled(Style::Bold, &format!("{}. {title}", self.acts));
        writeln!(self.out, "\n{title}\n")
    }

    /// Opens what comes after the last act.
    pub(super) fn epilogue(&mut self, title: &str) -> io::Result<()> {
        let title = self.styled(Style::Bold, title);
        writeln!(self.out, "\n{title}\n")
    }

    pub(super) fn say(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "   {text}")
    }

    /// Something that follows from the statement before it.
    pub(super) fn add(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "     {text}")
    }

    pub(super) fn blank(&mut self) -> io::Result<()> {
        writeln!(self.out)
    }

    /// Lines to be read as they are.
    pub(super) fn quote(&mut self, text: &str) -> io::Result<()> {
        for line in text.lines() {
            let line = self.styled(Style::Dim, line);
            writeln!(self.out, "{}", format!("     {line}").trim_end())?;
        }
        Ok(())
    }

    /// Words in two columns.
    pub(super) fn columns(&mut self, rows: &[(String, String)]) -> io::Result<()> {
        let width = rows.iter().map(|(left, _)| left.len()).max().unwrap_or_default();
        for (left, right) in rows {
            writeln!(self.out, "     {left:width$}   {right}")?;
        }
        Ok(())
    }

    /// Numbers by name with a bar for each, whose lengths together are [`WIDEST_BAR`], and a remark.
    pub(super) fn bars(&mut self, rows: &[(&str, usize, &str)]) -> io::Result<()> {
        let width = rows.iter().map(|(name, ..)| name.len()).max().unwrap_or_default();
        let sum = rows.iter().map(|(_, number, _)| number).sum::<usize>().max(1);
        writeln!(self.out)?;
        for (name, number, remark) in rows {
            let bar = "█".repeat((number * WIDEST_BAR + sum / 2) / sum);
            let bar = self.styled(Style::Dim, &bar);
            let row = format!("     {name:width$}  {number:>4}  {bar}");
            writeln!(self.out, "{}", format!("{row} {remark}").trim_end())?;
        }
        writeln!(self.out)
    }

    /// A statement, and what was seen if it does not hold.
    pub(super) fn state(&mut self, statement: &str, holds: bool, seen: &str) -> io::Result<()> {
        if holds {
            let mark = self.styled(Style::Green, "✓");
            writeln!(self.out, "   {mark} {statement}")
        } else {
            self.falsehoods += 1;
            let mark = self.styled(Style::Red, "✗");
            writeln!(self.out, "   {mark} expected: {statement}\n     seen: {seen}")
        }
    }

    fn styled(&self, style: Style, text: &str) -> String {
        let code = match style {
            Style::Bold => 1,
            Style::Dim => 2,
            Style::Red => 31,
            Style::Green => 32,
        };
        if self.colours && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_that_does_not_hold_is_told_with_what_was_seen_and_counted() {
        let mut text = Vec::new();
        let mut page = Page::new(&mut text, false);
        page.state("2 answers", true, "2").unwrap();
        page.state("3 answers", false, "2 answers").unwrap();
        assert_eq!(page.falsehoods, 1);
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text, "   ✓ 2 answers\n   ✗ expected: 3 answers\n     seen: 2 answers\n");
    }

    #[test]
    fn bars_share_their_width_and_nothing_is_coloured_away_from_a_terminal() {
        let mut text = Vec::new();
        Page::new(&mut text, false).bars(&[("alder", 30, ""), ("elm", 0, "stopped")]).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text, format!("\n     alder    30  {}\n     elm       0   stopped\n\n", "█".repeat(60)));
    }
}
