//! A table from which members are drawn at random in proportion to their weights, at one cost whatever their number.
//!
//! Vose's construction of Walker's alias method (M. D. Vose, "A linear algorithm for generating random numbers with a given
//! distribution", IEEE Transactions on Software Engineering 17(9), 1991), in whole numbers: each of n slots holds one
//! member up to a threshold and another one above it. The generator is the thread's own `fastrand`; tests seed it.

use std::sync::Arc;

use super::Before;
use crate::backend::Server;

/// The table; a member of weight 0 is never drawn.
#[derive(Clone, Debug)]
pub(super) struct Alias {
    pub(super) slots: Arc<[Slot]>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    /// Who is drawn when 32 random bits are at most the threshold.
    below: u32,
    /// Who is drawn when they are above it.
    above: u32,
    threshold: u32,
}

impl Alias {
    /// The table from before, if their weights are the same in the same order, or else another one.
    pub(super) fn of(members: &[Server], before: Option<Before<'_>>) -> Self {
        let kept = before.and_then(|before| before.table(members, |one, other| one.weight == other.weight));
        kept.unwrap_or_else(|| Self::new(members))
    }

    pub(super) fn new(members: &[Server]) -> Self {
        let total: u64 = members.iter().map(|server| u64::from(server.weight.get())).sum();
        let count = members.len() as u64;
        if total == 0 {
            return Self { slots: Arc::default() };
        }
        // A slot is `total` wide and a member fills weight × count of the whole: those that fill less than a slot share
        // theirs with one that fills more, which is then left with that much less.
        let (mut small, mut large): (Vec<_>, Vec<_>) = (0u32..)
            .zip(members)
            .map(|(place, server)| (place, u64::from(server.weight.get()) * count))
            .partition(|(_, width)| *width < total);
        let mut slots = Vec::with_capacity(members.len());
        while let Some((above, rest)) = large.pop() {
            let Some((below, width)) = small.pop() else {
                slots.push(Slot { below: above, above, threshold: u32::MAX });
                continue;
            };
            let threshold = (width << 32).checked_div(total).and_then(|t| u32::try_from(t).ok());
            slots.push(Slot { below, above, threshold: threshold.unwrap_or(u32::MAX) });
            let rest = rest - (total - width);
            if rest < total { small.push((above, rest)) } else { large.push((above, rest)) }
        }
        Self { slots: slots.into() }
    }

    /// A member, or `None` when no member has weight.
    pub(super) fn draw(&self) -> Option<usize> {
        let random = fastrand::u64(..);
        let (slot, bits) = (((random >> 32) * self.slots.len() as u64) >> 32, random as u32);
        let slot = self.slots.get(slot as usize)?;
        Some(if bits < slot.threshold || slot.threshold == u32::MAX { slot.below } else { slot.above } as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::testing::weighted;

    #[test]
    fn members_are_drawn_in_proportion_to_their_weights() {
        fastrand::seed(7);
        for weights in [&[1][..], &[1, 1, 1], &[5, 1, 1], &[0, 3, 0, 1], &[1000, 1], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]] {
            let table = Alias::new(&weighted(weights));
            let mut counts = vec![0u32; weights.len()];
            const DRAWS: u32 = 1_000_000;
            for _ in 0..DRAWS {
                counts[table.draw().unwrap()] += 1;
            }
            let total: u16 = weights.iter().sum();
            for (count, weight) in counts.iter().zip(weights) {
                let share = f64::from(*weight) / f64::from(total);
                let error = (f64::from(*count) / f64::from(DRAWS) - share).abs();
                // Five standard deviations of a binomial share.
                let allowed = 5.0 * (share * (1.0 - share) / f64::from(DRAWS)).sqrt();
                assert!(error <= allowed, "{weights:?}: {counts:?}");
            }
        }
    }

    #[test]
    fn nothing_is_drawn_where_nothing_has_weight() {
        assert_eq!(Alias::new(&[]).draw(), None);
        assert_eq!(Alias::new(&weighted(&[0, 0])).draw(), None);
    }
}
