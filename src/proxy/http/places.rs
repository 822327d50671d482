//! Places for what takes a worker something dear: so many of them at once, and no more.

use std::cell::Cell;
use std::rc::Rc;

/// How many places are taken.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Places(Rc<Cell<usize>>);

/// One or several that are taken, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    taken: Rc<Cell<usize>>,
    count: usize,
}

impl Places {
    /// Takes a place, unless `most` are taken.
    pub(super) fn take(&self, most: usize) -> Option<Place> {
        self.take_some(1, most)
    }

    /// Takes so many places, unless more than `most` would be taken then.
    pub(super) fn take_some(&self, count: usize, most: usize) -> Option<Place> {
        let taken = self.0.get().saturating_add(count);
        (taken <= most).then(|| {
            self.0.set(taken);
            Place { taken: Rc::clone(&self.0), count }
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.set(self.taken.get() - self.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_places_and_each_is_free_again_once_it_is_left() {
        let places = Places::default();
        let first = places.take(2);
        let second = places.take(2);
        assert!(first.is_some() && second.is_some() && places.take(2).is_none());
        drop(first);
        assert!(places.take(2).is_some());
        assert!(places.take_some(8, 8).is_none());
        let all_that_are_left = places.take_some(7, 8);
        assert!(all_that_are_left.is_some() && places.take(8).is_none() && places.take_some(0, 8).is_some());
        drop(all_that_are_left);
        assert!(places.take_some(7, 8).is_some());
    }
}
