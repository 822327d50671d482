//! Which addresses to listen on exclude each other, as bind(2) would find out one by one at run time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use crate::net::address::BindAddr;

/// The addresses listened on so far, and by whom.
#[derive(Debug, Default)]
pub(super) struct Claims {
    ports: HashMap<u16, PortClaims>,
    paths: HashMap<Arc<Path>, Claim>,
}

/// Who listens where.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    /// Such as `listener "web"`.
    pub(super) owner: Arc<str>,
    pub(super) address: BindAddr,
}

/// The addresses one port is listened on at. Every claim is in constant time, however many there are.
#[derive(Debug, Default)]
struct PortClaims {
    single: HashMap<IpAddr, Claim>,
    v4: FamilyClaims,
    v6: FamilyClaims,
}

/// One address family of a port.
#[derive(Debug, Default)]
struct FamilyClaims {
    first: Option<Claim>,
    /// Who listens on every address of the family.
    every: Option<Claim>,
}

impl Claims {
    /// Claims an address, or says which earlier claim excludes it.
    pub(super) fn add(&mut self, claim: Claim) -> Result<(), Claim> {
        match &claim.address {
            // Each socket on port 0 is given a port of its own.
            BindAddr::Tcp(address) if address.port() == 0 => Ok(()),
            BindAddr::Dual(0) => Ok(()),
            BindAddr::Tcp(address) => {
                let (ip, port) = (address.ip(), address.port());
                self.ports.entry(port).or_default().add_one(ip, claim)
            }
            BindAddr::Dual(port) => self.ports.entry(*port).or_default().add_all(claim),
            BindAddr::Unix(path) => match self.paths.get(path) {
                Some(earlier) => Err(earlier.clone()),
                None => {
                    self.paths.insert(Arc::clone(path), claim);
                    Ok(())
                }
            },
        }
    }
}

impl PortClaims {
    fn add_one(&mut self, ip: IpAddr, claim: Claim) -> Result<(), Claim> {
        let family = if ip.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        let excluding = if ip.is_unspecified() { &family.first } else { &family.every };
        if let Some(earlier) = excluding.as_ref().or_else(|| self.single.get(&ip)) {
            return Err(earlier.clone());
        }
        family.first.get_or_insert_with(|| claim.clone());
        if ip.is_unspecified() {
            family.every = Some(claim.clone());
        }
        self.single.insert(ip, claim);
        Ok(())
    }

    fn add_all(&mut self, claim: Claim) -> Result<(), Claim> {
        let families = [&mut self.v4, &mut self.v6];
        if let Some(earlier) = families.iter().find_map(|family| family.first.as_ref()) {
            return Err(earlier.clone());
        }
        for family in families {
            *family = FamilyClaims { first: Some(claim.clone()), every: Some(claim.clone()) };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the second of two binds is refused because of the first.
    fn exclude(first: &str, second: &str) -> bool {
        let mut claims = Claims::default();
        let mut add = |text: &str| {
            let addresses = BindAddr::parse(text, Path::new("/")).unwrap();
            addresses.into_iter().any(|address| claims.add(Claim { owner: Arc::from("x"), address }).is_err())
        };
        assert!(!add(first), "{first}");
        add(second)
    }

    #[test]
    fn addresses_that_overlap_exclude_each_other_in_either_order() {
        for (one, other) in [
            ("8080", "8080"),
            ("8080", "10.0.0.1:8080"),
            ("8080", "[::1]:8080"),
            ("0.0.0.0:8080", "10.0.0.1:8080"),
            ("0.0.0.0:8080", "8080"),
            ("10.0.0.1:20000-20010", "10.0.0.1:20010"),
            ("unix:/run/a", "unix:/run/a"),
        ] {
            assert!(exclude(one, other), "{one} and {other}");
            assert!(exclude(other, one), "{other} and {one}");
        }
    }

    #[test]
    fn addresses_that_do_not_overlap_stand_beside_each_other() {
        for (one, other) in [
            ("8080", "8081"),
            ("10.0.0.1:8080", "10.0.0.2:8080"),
            ("0.0.0.0:8080", "[::1]:8080"),
            ("10.0.0.1:20000-20010", "10.0.0.1:20011"),
            ("0", "0"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("unix:/run/a", "unix:/run/b"),
        ] {
            assert!(!exclude(one, other), "{one} and {other}");
            assert!(!exclude(other, one), "{other} and {one}");
        }
    }
}
