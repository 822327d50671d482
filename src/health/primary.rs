//! Which server of a pool is its primary: the one that gets all connections. Pure: checks say how the servers do and what they
//! say they are, and who acts is told what follows.
//!
//! Where checks tell roles (`postgres`, `mysql`), the servers have decided among themselves, and this only finds out: exactly
//! one that says it is the primary is, none is while none says so, and of two that say so neither is believed but the one
//! that was it before. Where checks tell no roles, the first server that is up is made the primary, and stays it while it is
//! up; whether it hands back to a more preferred one that came up again is for [`Failback`] to say.

use std::time::Duration;

use tokio::time::Instant;

use crate::backend::Role;

/// When a primary that only stands in makes room for a server that is preferred to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failback {
    /// Not while it is up: each change ends connections, and one that nobody has to make is one too many.
    #[default]
    Never,
    /// Once the other has been up for so long.
    After(Duration),
}

/// A server that may be the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Whether it may be given connections, roles aside, and since when.
    pub fit_since: Option<Instant>,
    /// What it says it is, where the check asks.
    pub says: Option<Role>,
}

impl Candidate {
    /// Whether it says that it is the primary.
    #[must_use]
    pub fn claims(&self) -> bool {
        self.says == Some(Role::Primary)
    }
}

/// Which server is the primary, by its place among the candidates, who are in the order in which they are preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Election {
    /// This one, by itself.
    Won(usize),
    /// This one still, although others say that they are it.
    Contested(usize),
    /// None, since more than one says it is and none of them was before.
    Split,
    /// None, since none is up that says so.
    Vacant,
}

impl Election {
    /// The primary.
    #[must_use]
    pub const fn primary(self) -> Option<usize> {
        match self {
            Self::Won(place) | Self::Contested(place) => Some(place),
            Self::Split | Self::Vacant => None,
        }
    }
}

/// Finds out who is the primary; `incumbent` was it before, and `by_roles` says that the check asks the servers what they are.
/// With it comes when to look again although nothing is heard of any server until then.
#[must_use]
pub fn elect(
    candidates: &[Candidate],
    by_roles: bool,
    incumbent: Option<usize>,
    failback: Failback,
    now: Instant,
) -> (Election, Option<Instant>) {
    let is_fit = |place: &usize| candidates.get(*place).is_some_and(|candidate| candidate.fit_since.is_some());
    if by_roles {
        return (by_role(candidates, incumbent), None);
    }
    let best = (0..candidates.len()).find(is_fit);
    let Some(best) = best else { return (Election::Vacant, None) };
    let Some(incumbent) = incumbent.filter(is_fit) else { return (Election::Won(best), None) };
    match failback {
        Failback::After(patience) if best < incumbent => {
            let since = |place: usize| candidates.get(place).and_then(|candidate| candidate.fit_since);
            let due = |place: usize| since(place).map(|since| since + patience);
            // The most preferred of those that have waited long enough, not the one that came back a moment ago.
            match (best..incumbent).find(|place| due(*place).is_some_and(|due| due <= now)) {
                Some(place) => (Election::Won(place), (best..place).filter_map(due).min()),
                None => (Election::Won(incumbent), (best..incumbent).filter_map(due).min()),
            }
        }
        Failback::After(_) | Failback::Never => (Election::Won(incumbent), None),
    }
}

fn by_role(candidates: &[Candidate], incumbent: Option<usize>) -> Election {
    let claims = |candidate: &Candidate| candidate.fit_since.is_some() && candidate.claims();
    let mut claimants = (0..).zip(candidates).filter(|(_, candidate)| claims(candidate)).map(|(place, _)| place);
    match (claimants.next(), claimants.next()) {
        (None, _) => Election::Vacant,
        (Some(only), None) => Election::Won(only),
        (Some(first), Some(second)) => {
            let mut all = [first, second].into_iter().chain(claimants);
            incumbent
                .filter(|incumbent| all.any(|place| place == *incumbent))
                .map_or(Election::Split, Election::Contested)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn says(roles: &[Option<Role>], now: Instant) -> Vec<Candidate> {
        roles.iter().map(|role| Candidate { fit_since: Some(now), says: *role }).collect()
    }

    fn up(seconds: &[Option<u32>], now: Instant) -> Vec<Candidate> {
        let since = |ago: &Option<u32>| ago.map(|ago| now - ago * SECOND);
        seconds.iter().map(|ago| Candidate { fit_since: since(ago), says: None }).collect()
    }

    #[test]
    fn the_one_that_says_so_is_the_primary_and_nobody_while_none_says_so() {
        let (primary, replica, now) = (Some(Role::Primary), Some(Role::Replica), Instant::now());
        let of = |roles: &[_], incumbent| elect(&says(roles, now), true, incumbent, Failback::Never, now).0;
        assert_eq!(of(&[replica, primary, replica], Some(0)), Election::Won(1));
        assert_eq!(of(&[replica, primary, None], None), Election::Won(1));
        assert_eq!(of(&[replica, replica], Some(0)), Election::Vacant);
        assert_eq!(of(&[replica, None], Some(1)), Election::Vacant, "one that could not say counts for nothing");
        assert_eq!(of(&[None, None], None), Election::Vacant, "nobody is made it before the first has been asked");
    }

    #[test]
    fn of_two_that_say_so_the_one_that_was_it_stays_and_else_neither_is() {
        let (primary, now) = (Some(Role::Primary), Instant::now());
        let of = |incumbent| elect(&says(&[primary, None, primary], now), true, incumbent, Failback::Never, now).0;
        assert_eq!(of(Some(2)), Election::Contested(2));
        assert_eq!(of(Some(1)), Election::Split);
        assert_eq!(of(None), Election::Split);
        let mut candidates = says(&[primary, primary], now);
        candidates[0].fit_since = None;
        assert_eq!(
            elect(&candidates, true, Some(0), Failback::Never, now).0,
            Election::Won(1),
            "what is down says nothing"
        );
    }

    #[test]
    fn without_roles_the_first_that_is_up_is_the_primary_and_stays_it_while_it_is_up() {
        let now = Instant::now();
        let of = |up_for: &[_], incumbent| elect(&up(up_for, now), false, incumbent, Failback::Never, now);
        assert_eq!(of(&[None, Some(1), Some(9)], None), (Election::Won(1), None));
        assert_eq!(of(&[Some(100), Some(1), None], Some(1)), (Election::Won(1), None));
        assert_eq!(of(&[Some(0), None], Some(1)), (Election::Won(0), None));
        assert_eq!(of(&[None, None], Some(1)), (Election::Vacant, None));
        assert_eq!(of(&[], None), (Election::Vacant, None));
    }

    #[test]
    fn it_hands_back_to_a_preferred_one_that_has_been_up_for_as_long_as_was_asked() {
        let (now, failback) = (Instant::now(), Failback::After(10 * SECOND));
        let of = |up_for: &[_], incumbent| elect(&up(up_for, now), false, incumbent, failback, now);
        assert_eq!(of(&[Some(4), Some(99)], Some(1)), (Election::Won(1), Some(now + 6 * SECOND)));
        assert_eq!(of(&[Some(10), Some(99)], Some(1)), (Election::Won(0), None));
        assert_eq!(of(&[Some(4), Some(10), Some(99)], Some(2)), (Election::Won(1), Some(now + 6 * SECOND)));
        assert_eq!(of(&[Some(4), None], Some(1)), (Election::Won(0), None), "nobody waits while there is none");
    }

    proptest! {
        #[test]
        fn the_primary_is_always_up_and_says_so_if_anybody_says_anything(
            all in prop::collection::vec((prop::option::of(0u32..30), 0u8..3), 0..6),
            incumbent in prop::option::of(0usize..7),
            patience in prop::option::of(0u32..20),
            by_roles: bool,
        ) {
            let now = Instant::now() + 100 * SECOND;
            let candidates: Vec<_> = all.iter().map(|(ago, role)| Candidate {
                fit_since: ago.map(|ago| now - ago * SECOND),
                says: [None, Some(Role::Primary), Some(Role::Replica)][usize::from(*role)],
            }).collect();
            let failback = patience.map_or(Failback::Never, |patience| Failback::After(patience * SECOND));
            let (election, again) = elect(&candidates, by_roles, incumbent, failback, now);
            if let Some(place) = election.primary() {
                prop_assert!(candidates[place].fit_since.is_some());
                if by_roles {
                    prop_assert_eq!(candidates[place].says, Some(Role::Primary));
                }
            }
            prop_assert!(again.is_none_or(|again| again > now));
            // Whoever is elected is elected again, as long as nothing changes.
            prop_assert_eq!(elect(&candidates, by_roles, election.primary(), failback, now).0.primary(), election.primary());
        }
    }
}
