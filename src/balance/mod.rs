//! Which of several servers is next: one file per algorithm, and the enum that registers them.

/// The balancing algorithm of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Each in turn, in proportion to the weights, never in bursts.
    #[default]
    RoundRobin,
    /// The one with the fewest connections for its weight.
    LeastConn,
    /// Any, in proportion to the weights.
    Random,
    /// Of two drawn at random the one with fewer connections for its weight.
    P2c,
}

impl Policy {
    /// Every algorithm.
    pub const ALL: &'static [Self] = &[Self::RoundRobin, Self::LeastConn, Self::Random, Self::P2c];

    /// Its word in the configuration and the API.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::LeastConn => "least_conn",
            Self::Random => "random",
            Self::P2c => "p2c",
        }
    }
}
