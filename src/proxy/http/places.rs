//! Places for what takes a worker something dear: so many of them at once, and no more.

use std::cell::Cell;
use std::rc::Rc;

/// How many places are taken.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Places(Rc<Cell<usize>>);

/// A place that is taken, until it is dropped.
#[derive(Debug)]
pub(super) struct Place(Rc<Cell<usize>>);

impl Places {
    /// Takes a place, unless `most` are taken.
    pub(super) fn take(&self, most: usize) -> Option<Place> {
        let taken = self.0.get();
        (taken < most).then(|| {
            self.0.set(taken + 1);
            Place(Rc::clone(&self.0))
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
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
    }
}
