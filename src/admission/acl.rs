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

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Networks {
        let mut networks = Networks::default();
        texts.iter().for_each(|text| networks.add(text).unwrap());
        networks
    }

    fn lets_in(allow: &[&str], deny: &[&str], client: &str) -> bool {
        let client = match client {
            "unix" => ClientAddr::Unix,
            ip => ClientAddr::Tcp((ip.parse::<std::net::IpAddr>().unwrap(), 1).into()),
        };
        Acl { allow: networks(allow), deny: networks(deny) }.lets_in(&client)
    }

    #[test]
    fn without_networks_everybody_may_ask() {
        assert!(lets_in(&[], &[], "10.0.0.1") && lets_in(&[], &[], "::1") && lets_in(&[], &[], "unix"));
    }

    #[test]
    fn where_some_are_allowed_the_others_are_not() {
        let allow = ["10.0.0.0/8", "2001:db8::/32"];
        assert!(lets_in(&allow, &[], "10.1.2.3") && lets_in(&allow, &[], "2001:db8::1"));
        assert!(!lets_in(&allow, &[], "11.0.0.1") && !lets_in(&allow, &[], "::1") && !lets_in(&allow, &[], "unix"));
        assert!(lets_in(&["unix"], &[], "unix") && !lets_in(&["unix"], &[], "10.0.0.1"));
    }

    #[test]
    fn where_some_are_denied_the_others_are_allowed() {
        let deny = ["10.0.0.0/8", "unix"];
        assert!(!lets_in(&[], &deny, "10.1.2.3") && !lets_in(&[], &deny, "unix"));
        assert!(lets_in(&[], &deny, "11.0.0.1") && lets_in(&[], &deny, "::1"));
    }

    #[test]
    fn the_most_specific_network_decides_whichever_list_it_is_in() {
        let (allow, deny) = (["10.0.0.0/8", "10.1.2.3"], ["10.1.0.0/16", "0.0.0.0/0"]);
        assert!(lets_in(&allow, &deny, "10.2.0.1") && lets_in(&allow, &deny, "10.1.2.3"));
        assert!(!lets_in(&allow, &deny, "10.1.2.4") && !lets_in(&allow, &deny, "11.0.0.1"));
        assert!(!lets_in(&allow, &deny, "::1"));
    }

    #[test]
    fn a_network_in_both_lists_is_denied() {
        let both = ["10.0.0.0/8", "0.0.0.0/0", "unix"];
        assert!(!lets_in(&both, &both, "10.0.0.1") && !lets_in(&both, &both, "1.1.1.1"));
        assert!(!lets_in(&both, &both, "unix"));
    }
}
