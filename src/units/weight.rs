//! How much of a pool's traffic a server is given, relative to the others.

/// A server's share relative to the others: 0 to [`Weight::HEAVIEST`]; 0 means no new connections at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight(u16);

impl Weight {
    /// The largest weight.
    pub const HEAVIEST: u16 = 1000;
    /// The weight of a server that gets no new connections.
    pub const NONE: Self = Self(0);
    /// The weight of a server that names none.
    pub const ONE: Self = Self(1);

    /// A weight from a number, or `None` when it is over [`Weight::HEAVIEST`].
    #[must_use]
    pub const fn new(weight: u16) -> Option<Self> {
        if weight <= Self::HEAVIEST { Some(Self(weight)) } else { None }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self::ONE
    }
}
