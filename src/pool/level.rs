//! The servers of a pool in the order in which they are asked: level after level, and within one those of our zone first.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::Picked;
use super::census::{Census, Fit, Occupancy};
use super::rules::Rules;
use super::warming;
use crate::backend::{Server, Watcher, Watching};
use crate::balance::{Balance, Before, Key, Open, Policy, Tried};

/// How often a pick is repeated because the server it chose was filled up by another worker in between.
const RACES: usize = 64;
/// How often another server is asked for in place of one that is to have less than its share.
const SECOND_ASKINGS: usize = 8;
/// All of the traffic, in the whole numbers that shares are reckoned in.
const ALL: u64 = 1 << 32;

/// Servers that are asked before those of all further levels.
#[derive(Debug)]
pub(super) struct Level {
    /// What those servers have in common: whether they are backup servers, and their priority.
    rank: (bool, u8),
    /// Those of our zone and the others, or all together.
    groups: Vec<Group>,
    /// How many zones there are among its servers.
    zones: u64,
}

/// Servers that nothing but the algorithm chooses among.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) members: Box<[Server]>,
    pub(super) balance: Arc<dyn Balance>,
    /// Chooses while nobody asks who is fit, in place of a ranking that knows nothing of the others.
    blind: Option<Arc<dyn Balance>>,
    /// How many are fit, where a rule asks for it.
    census: Option<Arc<Census>>,
    /// What they weigh, fit or not.
    full_weight: u64,
}

/// The levels of a pool, the first first, which take over what they can from those `before`. Whether any rule has to know how
/// many servers are fit is decided here.
pub(super) fn lay_out(
    policy: &Policy,
    servers: Vec<Server>,
    rules: &Rules,
    occupancy: &Arc<Occupancy>,
    before: &[Level],
) -> Vec<Level> {
    let may_be_full = |server: &Server| server.max_connections != u32::MAX;
    let limited = rules.max_connections != Rules::UNLIMITED || rules.max_pending != Rules::UNLIMITED;
    let queues = rules.queue.max > 0 && (limited || servers.iter().any(may_be_full));
    let mut by_rank: BTreeMap<(bool, u8), Vec<Server>> = BTreeMap::new();
    for server in servers {
        by_rank.entry((server.backup, server.priority)).or_default().push(server);
    }
    let spills = by_rank.len() > 1 && rules.spill_below.get() > 0;
    let all = queues || spills || rules.fail_open.get() > 0 || rules.max_connections != Rules::UNLIMITED;
    let level = |(rank, servers): (_, Vec<Server>)| {
        let before = before.iter().find(|level| level.rank == rank).map(Level::groups).unwrap_or_default();
        let zones = servers.iter().map(|server| server.zone.as_ref()).collect::<HashSet<_>>().len();
        let is_local = |server: &Server| rules.zone.is_some() && server.zone == rules.zone;
        let (local, others): (Vec<_>, Vec<_>) = servers.into_iter().partition(is_local);
        let splits = !local.is_empty() && !others.is_empty();
        let parts = [local, others].into_iter().filter(|part| !part.is_empty());
        let groups = parts.enumerate().map(|(place, part)| {
            let blind = rules.fail_open.get() > 0;
            Group::new(policy, part, blind, (all || splits).then_some(occupancy), before.get(place))
        });
        Level { rank, groups: groups.collect(), zones: zones as u64 }
    };
    by_rank.into_iter().map(level).collect()
}

impl Level {
    /// Its servers, those of our zone first.
    pub(super) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// What is known of those that are fit.
    pub(super) fn fit(&self) -> Fit {
        self.groups.iter().fold(Fit::default(), |sum, group| {
            let fit = group.fit();
            Fit { count: sum.count + fit.count, weight: sum.weight + fit.weight }
        })
    }

    /// What its servers weigh, fit or not.
    pub(super) fn full_weight(&self) -> u64 {
        self.groups.iter().map(|group| group.full_weight).sum()
    }

    /// Chooses among its servers. `blind` says that nobody asks who is fit.
    pub(super) fn pick(&self, open: Open<'_>, key: Option<Key>, blind: bool, rules: &Rules) -> Option<Picked<'_>> {
        match self.groups.as_slice() {
            [local, others] if !self.prefers_local(local, others, key, blind) => {
                others.pick(open, key, blind, rules).or_else(|| local.pick(open, key, blind, rules))
            }
            groups => groups.iter().find_map(|group| group.pick(open, key, blind, rules)),
        }
    }

    fn prefers_local(&self, local: &Group, others: &Group, key: Option<Key>, blind: bool) -> bool {
        let weigh = |group: &Group| if blind { group.full_weight } else { group.fit().weight };
        let (local, others) = (weigh(local), weigh(others));
        u64::from(point(key)) < local_share(local, local + others, self.zones)
    }
}

/// A point out of 32 bits to decide by among levels and zones: at random, or always the same one for a key.
pub(super) fn point(key: Option<Key>) -> u32 {
    key.map_or_else(|| fastrand::u32(..), Key::point)
}

/// The share of our traffic that servers of our zone get, of [`ALL`]: all of it while they are as large a part of the level
/// as one zone is of all, since instances like this one are taken to be spread evenly over the zones.
fn local_share(local: u64, all: u64, zones: u64) -> u64 {
    (local * zones).saturating_mul(ALL).checked_div(all).unwrap_or(ALL).min(ALL)
}

/// The level that is asked first, by a point out of 32 bits: each level carries what it can, which is all of what is left
/// unless less than `spill_below` of it is fit. When they cannot carry all, each carries that much more.
pub(super) fn first_level(levels: &[Level], spill_below: u64, point: u32) -> usize {
    let can_carry = |level: &Level| {
        (level.fit().weight * 100 * ALL).checked_div(level.full_weight() * spill_below).unwrap_or(0).min(ALL)
    };
    let mut left = ALL;
    let shares: [u64; MOST_LEVELS] = std::array::from_fn(|place| {
        let share = levels.get(place).map_or(0, can_carry).min(left);
        left -= share;
        share
    });
    let drawn = (u128::from(point) * u128::from(ALL - left)) >> 32;
    let mut passed = 0;
    for (place, share) in shares.iter().enumerate() {
        passed += u128::from(*share);
        if drawn < passed {
            return place;
        }
    }
    0
}

/// Priorities from 0 to 9, and the backup servers.
const MOST_LEVELS: usize = 11;

impl Group {
    fn new(
        policy: &Policy,
        members: Vec<Server>,
        blind: bool,
        census: Option<&Arc<Occupancy>>,
        before: Option<&Self>,
    ) -> Self {
        let before = |of: fn(&Self) -> Option<&Arc<dyn Balance>>| {
            before.and_then(|before| Some(Before { members: &before.members, balance: &**of(before)? }))
        };
        let balance = policy.build(&members, before(|group| Some(&group.balance)));
        let ranking = Arc::clone(&balance).watcher();
        let census = census.map(|occupancy| Arc::new(Census::new(&members, ranking.clone(), occupancy)));
        Self {
            blind: (blind && policy.ranks()).then(|| Policy::P2c.build(&members, before(|group| group.blind.as_ref()))),
            full_weight: members.iter().map(|server| u64::from(server.full_weight.get())).sum(),
            members: members.into_boxed_slice(),
            balance,
            census,
        }
    }

    fn fit(&self) -> Fit {
        self.census.as_ref().map(|census| census.fit()).unwrap_or_default()
    }

    fn pick(&self, open: Open<'_>, key: Option<Key>, blind: bool, rules: &Rules) -> Option<Picked<'_>> {
        let balance = self.blind.as_ref().filter(|_| blind).unwrap_or(&self.balance);
        for _ in 0..RACES {
            let server = self.members.get(balance.pick(&self.members, open, key)?)?;
            if server.state.is_restrained() || rules.max_pending != Rules::UNLIMITED {
                return self.pick_with_care(&**balance, open, key, server, rules);
            }
            // One that was filled up in between counts as closed from here on, so that the next round finds another.
            if let Some(lease) = server.acquire() {
                return Some(Picked { server, lease });
            }
        }
        None
    }

    /// Goes on where the algorithm has chosen a server that may have reasons to have less than its share.
    fn pick_with_care<'g>(
        &'g self,
        balance: &dyn Balance,
        open: Open<'_>,
        key: Option<Key>,
        chosen: &'g Server,
        rules: &Rules,
    ) -> Option<Picked<'g>> {
        let mut without: Tried = *open.tried();
        let (mut next, mut fallback) = (Some(chosen), None);
        for _ in 0..SECOND_ASKINGS {
            let Some(server) = next else { break };
            if server.state.pending() < rules.max_pending {
                if warming::takes(server, &self.members, rules.slow_start) {
                    if let Some(lease) = server.acquire() {
                        return Some(Picked { server, lease });
                    }
                } else {
                    fallback = fallback.or(Some(server));
                }
            }
            without.add(&server.state);
            let place = balance.pick(&self.members, open.but(&without), key);
            next = place.and_then(|place| self.members.get(place));
        }
        // Nobody else is there to take it.
        let server = fallback?;
        server.acquire().map(|lease| Picked { server, lease })
    }

    fn watcher(&self) -> Option<Arc<dyn Watcher>> {
        match &self.census {
            Some(census) => Some(Arc::<Census>::clone(census)),
            None => Arc::clone(&self.balance).watcher(),
        }
    }

    pub(super) fn take_over(&self) {
        let watcher = self.watcher();
        for (place, server) in self.members.iter().enumerate() {
            let watching = watcher.clone().map(|watcher| Watching { watcher, place });
            server.state.set_watching(watching);
            server.state.show();
        }
    }

    pub(super) fn step_down(&self) {
        if let Some(watcher) = self.watcher() {
            self.members.iter().for_each(|server| server.state.stop_watching(&watcher));
        }
    }
}
