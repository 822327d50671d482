//! What is left to chance is seen in the long run only: how often something was to happen, and how often it did.

use std::fmt;

use portreeve::balance::Policy;

use super::{AskedPool, Id, Naive, View};

/// Chances, and what came of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) chances: usize,
    expected: f64,
    variance: f64,
    seen: f64,
}

impl Tally {
    fn add(&mut self, chance: f64, happened: bool) {
        self.chances += 1;
        self.expected += chance;
        self.variance += chance * (1.0 - chance);
        self.seen += f64::from(u8::from(happened));
    }

    fn join(&mut self, other: Self) {
        self.chances += other.chances;
        self.expected += other.expected;
        self.variance += other.variance;
        self.seen += other.seen;
    }

    /// No further off than five standard deviations, which is hardly ever by chance.
    pub(crate) fn is_likely(&self) -> bool {
        (self.seen - self.expected).abs() <= 5.0 * self.variance.sqrt() + 1.0
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { chances, expected, seen, .. } = self;
        write!(f, "{seen:.0} of {chances} where {expected:.0} were to be expected")
    }
}

/// Everything that chance has a part in.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shares {
    /// Picks of our zone where it can carry a part of its share only.
    near: Tally,
    /// Picks of servers that are warming: while they are as cold as can be, warmer, and at last more than half warm.
    warming: [Tally; 3],
}

impl Shares {
    pub(crate) fn join(&mut self, other: &Self) {
        self.near.join(other.near);
        self.warming.iter_mut().zip(other.warming).for_each(|(mine, others)| mine.join(others));
    }

    /// All of them, each with what it counts.
    pub(crate) fn tallies(&self) -> [(&'static str, Tally); 4] {
        let [coldest, colder, warmer] = self.warming;
        [
            ("picks near", self.near),
            ("picks of servers that are as cold as can be", coldest),
            ("picks of servers that are less than half warm", colder),
            ("picks of servers that are more than half warm", warmer),
        ]
    }
}

/// A server that may be drawn, and how likely it takes what it was drawn for.
#[derive(Clone, Copy)]
struct Drawn {
    weight: f64,
    takes: f64,
}

/// How likely each of them is picked: they are drawn by their weights without being put back, until one takes it, and the
/// first has to if none does.
fn chances(all: &[Drawn]) -> Vec<f64> {
    let mut sums = vec![0.0; all.len()];
    draw(all, &(0..all.len()).collect::<Vec<_>>(), None, 1.0, &mut sums);
    sums
}

fn draw(all: &[Drawn], left: &[usize], first: Option<usize>, chance: f64, sums: &mut [f64]) {
    let weight: f64 = left.iter().map(|at| all[*at].weight).sum();
    for at in left {
        let chance = chance * all[*at].weight / weight;
        sums[*at] += chance * all[*at].takes;
        let refused = chance * (1.0 - all[*at].takes);
        let first = first.unwrap_or(*at);
        let others: Vec<usize> = left.iter().copied().filter(|other| other != at).collect();
        if others.is_empty() {
            sums[first] += refused;
        } else if refused > 0.0 {
            draw(all, &others, Some(first), refused, sums);
        }
    }
}

impl Naive {
    /// A pick could be of our zone or of another, and is of ours as likely as that.
    pub(super) fn tally_near(&mut self, chance: f64, is_near: bool) {
        self.shares.near.add(chance, is_near);
    }

    /// `id` was picked of those that were `eligible`, some of which are warming. How likely that is can be told where servers
    /// are drawn whatever they carry.
    pub(super) fn tally_warming(&mut self, view: &View, pool: &AskedPool, ids: &[Id], eligible: &[Id], id: Id) {
        // Moments are known to a millisecond, and more servers can be drawn in too many orders.
        let is_told = pool.balance == Policy::Random && pool.slow_start >= 1000 && (2..=5).contains(&eligible.len());
        if !is_told || self.fails_open(view, pool.name) {
            return;
        }
        let asked = |id: Id| pool.servers.iter().zip(ids).find(|(_, other)| **other == id).unwrap().0;
        let group = view.group(asked(id));
        let mean = self.mean_load(view, pool, ids, group);
        let mut parts = Vec::new();
        let mut all = Vec::new();
        for other in eligible {
            let (weight, active) = (f64::from(asked(*other).weight), f64::from(self.servers[other].active));
            let part = self.warmth(pool, *other).filter(|part| *part < 1.0);
            let most = part.unwrap_or(1.0) * mean * weight;
            // Too close to say.
            if part.is_some() && active > 0.0 && (active - most).abs() < 0.01 * active {
                return;
            }
            let takes = part.map_or(1.0, |part| if active == 0.0 || active < most { part } else { 0.0 });
            parts.push(part);
            all.push(Drawn { weight, takes });
        }
        for ((other, part), chance) in eligible.iter().zip(parts).zip(chances(&all)) {
            let Some(part) = part else { continue };
            let stage = if part <= 0.1 { 0 } else { usize::from(part > 0.55) + 1 };
            self.shares.warming[stage].add(chance, *other == id);
        }
    }
}
