//! How single results become a state: so many in a row, and not before. Pure.

/// The state of one server and the run of results against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streak {
    up: bool,
    /// Results in a row that speak against the present state.
    against: u32,
    /// Whether no probe has given a result yet.
    untested: bool,
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The server counts as up from now on.
    Up,
    /// The server counts as down from now on.
    Down,
}

impl Streak {
    /// A server that is up or down, with or without having been probed before.
    #[must_use]
    pub fn new(up: bool, untested: bool) -> Self {
        Self { up, against: 0, untested }
    }

    /// Takes the result of a probe. The first one a server ever has decides at once if it fails: a server that is dead
    /// when we start is not given connections until the fall count is full.
    pub fn probed(&mut self, passed: bool, rise: u32, fall: u32) -> Option<Change> {
        let first = std::mem::replace(&mut self.untested, false);
        let needed = match (self.up, first) {
            (true, true) => 1,
            (true, false) => fall,
            (false, _) => rise,
        };
        self.count(passed, 1, needed)
    }

    /// Takes failures that traffic met. They count towards the fall of a server that is up and tell nothing of one that is
    /// down, which gets no traffic.
    pub fn failed_in_traffic(&mut self, failures: u32, fall: u32) -> Option<Change> {
        if self.up { self.count(false, failures, fall) } else { None }
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
    fn the_very_first_probe_takes_a_server_down_alone() {
        let mut streak = Streak::new(true, true);
        assert_eq!(streak.probed(false, 2, 3), Some(Change::Down));
        let mut streak = Streak::new(true, true);
        assert_eq!(streak.probed(true, 2, 3), None);
        assert_eq!(streak.probed(false, 2, 3), None, "the second is not the first");
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
