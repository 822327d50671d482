//! Why a connection ended: one closed list, with the same word in the log, the metric and the API.
//!
//! It stands on the ground floor because everything above speaks it: metrics have a counter per reason, the access log a
//! field, the proxy a verdict. What the network or a part reports is turned into one of these exactly once, in
//! [`crate::proxy`].

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $label:literal,)*) => {
        /// The reason a connection ended for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            /// Every reason, in the order of [`Reason::index`].
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word for it in logs, metrics and the API.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }
        }
    };
}

reasons! {
    /// Both sides finished: each sent its end and each was delivered.
    Done = "done",
    /// The client closed and nothing was left to deliver to it.
    ClientClosed = "client_closed",
    /// The server closed before it had answered anything.
    ServerClosed = "server_closed",
    /// The client sent a reset.
    ClientReset = "client_reset",
    /// The server sent a reset.
    ServerReset = "server_reset",
    /// Nothing moved either way for the idle timeout.
    IdleTimeout = "idle_timeout",
    /// One side had finished and the other did not within the half-close timeout.
    HalfCloseTimeout = "half_close_timeout",
    /// The connection reached the age it may have.
    MaxAge = "max_age",
    /// Its listener was removed and the drain timeout passed.
    Drained = "drained",
    /// Its server was found down and the pool does not keep such connections.
    ServerDown = "server_down",
    /// The process stopped.
    Shutdown = "shutdown",
    /// The listener or the process has all the connections it may have.
    RefusedFull = "refused_full",
    /// No server of the pool could be given the connection.
    NoServer = "no_server",
    /// The server's port is closed.
    ConnectRefused = "connect_refused",
    /// The server did not answer within the connect timeout.
    ConnectTimeout = "connect_timeout",
    /// The network says there is no way to the server.
    ConnectUnreachable = "connect_unreachable",
    /// No local port is left to connect from.
    PortsExhausted = "ports_exhausted",
    /// No descriptor is left to connect with.
    DescriptorsExhausted = "descriptors_exhausted",
    /// A failure of our own; the log has its words.
    Internal = "internal",
}

impl Reason {
    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Its place in [`Reason::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Whether the connection was turned away at the gate, before any server was considered.
    #[must_use]
    pub const fn is_refusal(self) -> bool {
        matches!(self, Self::RefusedFull)
    }

    /// Whether it is a way for connecting to a server to fail.
    #[must_use]
    pub const fn is_connect_failure(self) -> bool {
        matches!(
            self,
            Self::ConnectRefused
                | Self::ConnectTimeout
                | Self::ConnectUnreachable
                | Self::PortsExhausted
                | Self::DescriptorsExhausted
                | Self::Internal
        )
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.label())
    }
}

impl serde::Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.label())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_place_and_its_own_word() {
        let mut labels = std::collections::HashSet::new();
        for (place, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), place);
            assert!(labels.insert(reason.label()), "{reason} stands twice");
        }
        assert_eq!(labels.len(), Reason::COUNT);
    }
}
