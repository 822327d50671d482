//! Who should be the primary of a pool, as slowly and obviously as the rest of the model.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use portreeve::backend::State;
use portreeve::units::Name;
use tokio::time::Instant;

use super::asked::AskedPrimary;
use super::life::Life;
use super::naive::Id;

/// A server that might be it. They come in the order in which they are preferred.
pub(crate) struct Candidate {
    pub(crate) id: Id,
    pub(crate) is_fit: bool,
    /// Whether it says that it is it.
    pub(crate) claims: bool,
}

/// What is known of one pool from one look to the next.
#[derive(Clone, Default)]
pub(crate) struct Reign {
    pub(crate) primary: Option<Id>,
    fit_since: HashMap<Id, Instant>,
}

impl Reign {
    /// Looks at the candidates. Returns who was the primary and is so no longer.
    pub(crate) fn look(&mut self, how: AskedPrimary, candidates: &[Candidate]) -> Option<Id> {
        let now = Instant::now();
        let mut fit_since = HashMap::new();
        for candidate in candidates.iter().filter(|candidate| candidate.is_fit) {
            fit_since.insert(candidate.id, self.fit_since.get(&candidate.id).copied().unwrap_or(now));
        }
        self.fit_since = fit_since;
        let before = self.primary;
        let fit: Vec<Id> =
            candidates.iter().filter(|candidate| candidate.is_fit).map(|candidate| candidate.id).collect();
        let incumbent = before.filter(|id| fit.contains(id));
        self.primary = match how {
            AskedPrimary::ByRoles => {
                let claimants: Vec<Id> = candidates.iter().filter(|c| c.is_fit && c.claims).map(|c| c.id).collect();
                match claimants.as_slice() {
                    [] => None,
                    [only] => Some(*only),
                    several => incumbent.filter(|id| several.contains(id)),
                }
            }
            AskedPrimary::ByOrder(failback) => match incumbent {
                None => fit.first().copied(),
                Some(incumbent) => {
                    let preferred = fit.iter().take_while(|id| **id != incumbent);
                    let patience = failback.map(Duration::from_millis);
                    let waited = |id: &&Id| patience.is_some_and(|patience| self.fit_since[*id] + patience <= now);
                    Some(preferred.copied().collect::<Vec<_>>().iter().find(waited).copied().unwrap_or(incumbent))
                }
            },
        };
        before.filter(|before| self.primary != Some(*before))
    }
}

impl Life {
    /// Looks who is the primary of every pool.
    pub(crate) fn elect(&mut self) {
        let snapshot = self.published.load_full();
        let deposed: Vec<_> = self.primaries.follow(&snapshot).into_iter().map(|deposed| deposed.0).collect();
        let pools: Vec<&str> = self.naive.view.pools.iter().map(|(pool, _)| pool.name).collect();
        let expected: Vec<Id> = pools.iter().filter_map(|pool| self.naive.look(pool)).collect();
        self.compare_deposed(&deposed, &expected);
    }

    /// Something was found of a server.
    pub(crate) fn look(&mut self, id: Id) {
        let snapshot = self.published.load_full();
        let Some((pool, _)) = self.naive.view.member(id).map(|(pool, server)| (pool.name, server.port)) else { return };
        let deposed = self.primaries.look(snapshot.pool(&Name::new(pool)).unwrap());
        let expected = self.naive.look(pool);
        self.compare_deposed(&deposed.into_iter().map(|deposed| deposed.0).collect::<Vec<_>>(), expected.as_slice());
    }

    /// A look is due without anything having been found.
    pub(crate) fn look_at_due(&mut self) {
        let snapshot = self.published.load_full();
        let deposed: Vec<_> = self.primaries.look_at_due(&snapshot).into_iter().map(|deposed| deposed.0).collect();
        let pools: Vec<&str> = self.naive.view.pools.iter().map(|(pool, _)| pool.name).collect();
        let expected: Vec<Id> = pools.iter().filter_map(|pool| self.naive.look(pool)).collect();
        self.compare_deposed(&deposed, &expected);
    }

    fn compare_deposed(&mut self, deposed: &[Arc<State>], expected: &[Id]) {
        assert_eq!(deposed.len(), expected.len(), "who is no longer the primary: {deposed:?}, {expected:?}");
        for id in expected {
            let expected = self.states[id].as_ptr();
            assert!(deposed.iter().any(|state| std::ptr::eq(Arc::as_ptr(state), expected)), "{id} was deposed");
        }
        self.successions += expected.len();
        self.check_step();
    }
}
