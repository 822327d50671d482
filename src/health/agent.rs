//! The `agent` check: a program beside the server tells in a line how it does, in the words of HAProxy's agents
//! (HAProxy's configuration manual, `agent-check`). Each line says all there is to say: nothing is remembered of the last.

use tokio::time::Instant;

use super::probe::{Problem, Seen};
use super::reach::{Opened, Reach, within};
use crate::logging::told;
use crate::net::dial::First;
use crate::units::Percent;

/// The most bytes of a line.
const LONGEST_LINE: usize = 1024;

/// What is asked of an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentProbe {
    /// What it is sent first; nothing if that is empty.
    pub send: Box<[u8]>,
}

/// Probes once.
///
/// # Errors
/// What went wrong, in the words of the log line.
pub(super) async fn probe(agent: &AgentProbe, reach: &Reach, until: Instant) -> Result<Seen, Problem> {
    let first = if agent.send.is_empty() { First::PerhapsServer } else { First::Us };
    let mut opened = reach.open(first, until).await?;
    let line = within(until, ask(&mut opened, &agent.send)).await?;
    let seen = read(&line)?;
    opened.close(until).await;
    Ok(seen)
}

async fn ask(opened: &mut Opened, question: &[u8]) -> Result<Vec<u8>, String> {
    opened.say(question).await?;
    let mut heard = Vec::new();
    loop {
        if let Some(end) = heard.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            heard.truncate(end);
            return Ok(heard);
        }
        if heard.len() >= LONGEST_LINE {
            return Err(format!("the line is longer than {LONGEST_LINE} bytes"));
        }
        if !opened.hear(&mut heard, LONGEST_LINE).await? {
            return if heard.is_empty() { Err("the agent said nothing".to_owned()) } else { Ok(heard) };
        }
    }
}

/// What a line says. A server that is down says so in vain unless it says it [`Timing::fall`](super::Timing::fall) times.
fn read(line: &[u8]) -> Result<Seen, String> {
    let said = told(line);
    let text = String::from_utf8_lossy(line);
    let (words, _why) = text.split_once('#').unwrap_or((&text, ""));
    let (mut share, mut is_out, mut is_known) = (Percent::ALL, false, false);
    for word in words.split([' ', '\t', ',']).filter(|word| !word.is_empty()) {
        let word = word.to_ascii_lowercase();
        match word.as_str() {
            "up" | "ready" => {}
            "drain" | "maint" => is_out = true,
            "down" | "failed" | "fail" | "stopped" => return Err(format!("the agent says \"{}\"", said.trim())),
            _ if word.starts_with("maxconn:") => {}
            other => match percent(other) {
                Some(told) => share = told,
                None => return Err(format!("the agent says \"{}\", which means nothing here", said.trim())),
            },
        }
        is_known = true;
    }
    if !is_known {
        return Err("the agent said nothing".to_owned());
    }
    let share = if is_out { Percent::ZERO } else { share };
    Ok(Seen { words: format!("the agent says \"{}\"", said.trim()), role: None, share: Some(share) })
}

/// A share; more than all is all.
fn percent(word: &str) -> Option<Percent> {
    let number: u32 =
        word.strip_suffix('%').filter(|number| number.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()?;
    Percent::new(u8::try_from(number.min(100)).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_how_much_a_server_wants_to_be_given() {
        for (line, share) in [
            ("up", 100),
            ("UP 75%", 75),
            ("75%", 75),
            ("ready,50%\tmaxconn:30", 50),
            ("0%", 0),
            ("250%", 100),
            ("drain 50%", 0),
            ("maint # planned", 0),
            ("ready # was down", 100),
        ] {
            let seen = read(line.as_bytes()).unwrap();
            assert_eq!(seen.share, Percent::new(share), "{line}");
        }
    }

    #[test]
    fn a_line_that_says_down_or_nothing_that_is_known_fails_the_probe_with_its_words() {
        for (line, words) in [
            ("down # disk full", "the agent says \"down # disk full\""),
            ("50% failed", "the agent says \"50% failed\""),
            ("stopped", "the agent says \"stopped\""),
            ("fine", "the agent says \"fine\", which means nothing here"),
            ("-5%", "the agent says \"-5%\", which means nothing here"),
            ("99999999999%", "the agent says \"99999999999%\", which means nothing here"),
            ("", "the agent said nothing"),
            ("# up", "the agent said nothing"),
        ] {
            assert_eq!(read(line.as_bytes()).unwrap_err(), words);
        }
        assert!(read(b"up\x1b[31m\xff").unwrap_err().contains("up[31m\u{fffd}"));
    }
}
