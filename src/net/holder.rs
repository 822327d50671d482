//! Which process holds a port: for the message that says a bind failed.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;

/// The process that listens on a port, as far as the system lets us see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its command name.
    pub command: String,
    /// Its process id.
    pub pid: u32,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, pid {}", self.command.escape_debug(), self.pid)
    }
}

/// Who listens on `address` or on a wildcard that covers it, from `/proc/net/tcp`, `/proc/net/tcp6` and the descriptors
/// of the processes we may look into (proc(5)).
#[must_use]
pub fn holder(address: SocketAddr) -> Option<Holder> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| listening_inodes(&table, address))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if inodes.is_empty() {
        return None;
    }
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        let holds = fs::read_dir(process.path().join("fd")).ok()?.flatten().any(|descriptor| {
            fs::read_link(descriptor.path())
                .is_ok_and(|target| inodes.iter().any(|inode| inode.as_bytes() == target.as_os_str().as_bytes()))
        });
        let command = fs::read_to_string(process.path().join("comm")).ok()?;
        holds.then(|| Holder { command: command.trim_end().to_owned(), pid })
    })
}

/// The inodes of listening sockets in a table of `/proc/net/tcp` form that stand in the way of `address`.
fn listening_inodes(table: &str, address: SocketAddr) -> Vec<u64> {
    const LISTEN: &str = "0A";
    table
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (ip, port) = fields.nth(1)?.split_once(':')?;
            let state = fields.nth(1)?;
            let inode = fields.nth(5)?.parse().ok()?;
            let same_port = u16::from_str_radix(port, 16).ok()? == address.port();
            let ip = parse_hex_ip(ip)?;
            let covers = ip == address.ip() || ip.is_unspecified() || address.ip().is_unspecified();
            (state == LISTEN && same_port && covers).then_some(inode)
        })
        .collect()
}

/// An address as `/proc/net/tcp` writes it: words of 32 bits, each in the byte order of the machine.
pub(super) fn parse_hex_ip(hex: &str) -> Option<IpAddr> {
    let mut octets = [0_u8; 16];
    let words = hex.len() / 8;
    for (place, octets) in octets.chunks_exact_mut(4).take(words).enumerate() {
        let word = u32::from_str_radix(hex.get(place * 8..place * 8 + 8)?, 16).ok()?;
        octets.copy_from_slice(&word.to_ne_bytes());
    }
    match words {
        1 => {
            let [a, b, c, d, ..] = octets;
            Some(IpAddr::from([a, b, c, d]))
        }
        4 => Some(IpAddr::from(octets)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_that_holds_a_port_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let found = holder(listener.local_addr().unwrap()).unwrap();
        assert_eq!(found.pid, std::process::id());
        let wildcard = SocketAddr::from(([0, 0, 0, 0], listener.local_addr().unwrap().port()));
        assert_eq!(holder(wildcard).map(|h| h.pid), Some(std::process::id()));
    }

    #[test]
    fn a_free_port_has_no_holder() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert_eq!(holder(address), None);
    }

    #[test]
    fn nonsense_in_the_table_is_passed_over() {
        assert_eq!(listening_inodes("sl local\n 0: zz:zz 0 0A\n\n:::", ([127, 0, 0, 1], 80).into()), Vec::<u64>::new());
    }
}
