//! The `send_expect` check: things are said, and what comes back has to contain what is expected, step by step.

use tokio::time::Instant;

use super::probe::{Problem, Seen};
use super::reach::{Opened, Reach, within};
use crate::logging::told;
use crate::net::dial::First;

/// The most bytes that are looked through for what one step expects.
const MOST_OF_ANSWERS: usize = 64 * 1024;
/// How much of what came instead is told.
const SHOWN: usize = 80;

/// What is said and expected, in turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// The steps; never empty.
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// These bytes are sent.
    Send(Box<[u8]>),
    /// These bytes have to come, whatever comes before them; what comes after them is for the next step.
    Expect(Box<[u8]>),
}

impl Script {
    /// The most steps.
    pub const MOST_STEPS: usize = 32;
    /// The most bytes of one step.
    pub const LONGEST_STEP: usize = 4096;

    fn server_begins(&self) -> bool {
        matches!(self.steps.first(), Some(Step::Expect(_)))
    }
}

/// Probes once.
///
/// # Errors
/// What went wrong, in the words of the log line.
pub(super) async fn probe(script: &Script, reach: &Reach, until: Instant) -> Result<Seen, Problem> {
    let first = if script.server_begins() { First::PerhapsServer } else { First::Us };
    let mut opened = reach.open(first, until).await?;
    let mut heard = Vec::new();
    for (place, step) in script.steps.iter().enumerate() {
        let taken = match step {
            Step::Send(bytes) => within(until, opened.say(bytes)).await,
            Step::Expect(bytes) => within(until, expect(&mut opened, &mut heard, bytes)).await,
        };
        taken.map_err(|words| format!("step {}: {words}{}", place + 1, instead(step, &heard)))?;
    }
    opened.close(until).await;
    Ok(Seen::default())
}

/// Reads on until these bytes have come, and forgets all up to their end.
async fn expect(opened: &mut Opened, heard: &mut Vec<u8>, sought: &[u8]) -> Result<(), String> {
    let mut from = 0;
    loop {
        let fresh = heard.get(from..).unwrap_or_default();
        if let Some(place) = memchr::memmem::find(fresh, sought) {
            heard.drain(..from + place + sought.len());
            return Ok(());
        }
        // What was looked at is looked at again only as far as it may be the beginning of what is sought.
        from = heard.len().saturating_sub(sought.len().saturating_sub(1));
        if heard.len() >= MOST_OF_ANSWERS {
            return Err(format!("not within {} KiB", MOST_OF_ANSWERS / 1024));
        }
        if !opened.hear(heard, MOST_OF_ANSWERS).await? {
            return Err("the server closed the connection".to_owned());
        }
    }
}

/// What was sought and what came in its place.
fn instead(step: &Step, heard: &[u8]) -> String {
    let Step::Expect(sought) = step else { return String::new() };
    let shown = |bytes: &[u8]| {
        told(bytes.get(..bytes.len().min(SHOWN)).unwrap_or_default().escape_ascii().to_string().as_bytes())
    };
    let came = if heard.is_empty() { "nothing".to_owned() } else { format!("\"{}\"", shown(heard)) };
    format!("; expected \"{}\", got {came}", shown(sought))
}
