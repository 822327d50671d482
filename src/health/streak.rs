//! How single results become a state: so many in a row, and not before. Pure.

use crate::backend::Role;
use crate::units::Percent;

/// The state of one server and the run of results against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streak {
    up: bool,
    /// Results in a row that speak against the present state.
    against: u32,
    /// Whether the next result of a probe decides alone.
    decides: bool,
}

/// What changed of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It counts as up from now on.
    Up,
    /// It counts as down from now on.
    Down,
    /// It says that it is this from now on.
    Role(Role),
    /// It wants to be given this much of its weight from now on.
    Share(Percent),
}

impl Streak {
    /// A server that is up or down, and whether its next probe [decides alone](super::Initial::next_decides).
    #[must_use]
    pub fn new(up: bool, decides: bool) -> Self {
        Self { up, against: 0, decides }
    }

    /// Takes the result of a probe.
    pub fn probed(&mut self, passed: bool, rise: u32, fall: u32) -> Option<Change> {
        let decides = std::mem::replace(&mut self.decides, false);
        let needed = match (decides, self.up) {
            (true, _) => 1,
            (false, true) => fall,
            (false, false) => rise,
        };
        self.count(passed, 1, needed)
    }

    /// Takes failures that traffic met. They count towards the fall of a server that is up and tell nothing of one that is
    /// down, which gets no traffic.
    pub fn failed_in_traffic(&mut self, failures: u32, fall: u32) -> Option<Change> {
        if !self.up {
            return None;
        }
        let change = self.count(false, failures, fall);
        // One that traffic took down is no newcomer any more.
        self.decides &= change.is_none();
        change
    }

    /// Whether the server counts as up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// Whether results against the present state have been seen, but not enough: the time to look more often.
    #[must_use]
    pub fn is_changing(&self) -> bool {
        self.against > 0
    }

    /// How many results in a row speak against the present state.
    #[must_use]
    pub fn against(&self) -> u32 {
        self.against
    }

    fn count(&mut self, passed: bool, results: u32, needed: u32) -> Option<Change> {
        if passed == self.up {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(results);
        if self.against < needed {
            return None;
        }
        self.up = passed;
        self.against = 0;
        Some(if passed { Change::Up } else { Change::Down })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_falls_after_as_many_failures_in_a_row_as_it_takes_and_rises_likewise() {
        let mut streak = Streak::new(true, false);
        let results = [false, false, true, false, false, false, true, false, true, true];
        let changes: Vec<_> = results.map(|passed| streak.probed(passed, 2, 3)).into_iter().collect();
        let mut expected = vec![None; 10];
        expected[5] = Some(Change::Down);
        expected[9] = Some(Change::Up);
        assert_eq!(changes, expected);
    }

    #[test]
    fn a_first_probe_decides_alone_where_it_is_to() {
        let mut streak = Streak::new(true, true);
        assert_eq!(streak.probed(false, 2, 3), Some(Change::Down));
        let mut streak = Streak::new(true, true);
        assert_eq!(streak.probed(true, 2, 3), None);
        assert_eq!(streak.probed(false, 2, 3), None, "the second is not the first");
        let mut streak = Streak::new(false, true);
        assert_eq!(streak.probed(true, 2, 3), Some(Change::Up));
        let mut streak = Streak::new(true, true);
        assert_eq!(streak.failed_in_traffic(3, 3), Some(Change::Down));
        assert_eq!(streak.probed(true, 2, 3), None, "traffic has told of it before");
    }

    #[test]
    fn failures_in_traffic_count_towards_the_fall_and_never_towards_the_rise() {
        let mut streak = Streak::new(true, false);
        assert_eq!(streak.failed_in_traffic(2, 3), None);
        assert!(streak.is_changing());
        assert_eq!(streak.probed(false, 2, 3), Some(Change::Down));
        assert_eq!(streak.probed(true, 2, 3), None);
        assert_eq!(streak.failed_in_traffic(5, 3), None);
        assert_eq!(streak.probed(true, 2, 3), Some(Change::Up), "late failures of old traffic do not hold it down");
    }
}
