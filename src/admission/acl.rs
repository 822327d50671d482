//! From where something may be asked.

use crate::net::address::{ClientAddr, Networks};

/// From where something may be asked: the most specific network decides, and without one that matches it is allowed if
/// there is no network that is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acl {
    /// Networks that may.
    pub allow: Networks,
    /// Networks that may not.
    pub deny: Networks,
}

impl Acl {
    /// Whether this client may.
    #[must_use]
    pub fn lets_in(&self, client: &ClientAddr) -> bool {
        match (self.allow.closest(client), self.deny.closest(client)) {
            (None, None) => self.allow.is_empty(),
            (allow, deny) => allow > deny,
        }
    }
}
