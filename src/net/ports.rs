//! Local ports to connect from: which there are, and which are taken towards whom.
//!
//! The kernel is asked and nothing is reckoned: its table of TCP sockets (proc(5), `net/tcp`) has those of other processes
//! too, and those that wait in `TIME_WAIT`. Reading it takes about two microseconds a socket.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use super::holder::parse_hex_ip;

/// The longest line of the kernel's table that is read whole.
const LONGEST_LINE: u64 = 512;

/// The ports that the kernel chooses local ones from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPorts {
    range: RangeInclusive<u16>,
    /// Those of them that it leaves alone.
    reserved: Vec<RangeInclusive<u16>>,
    /// Whether a port in `TIME_WAIT` is taken again, after a second: everywhere, and on the loopback interface.
    reuse: (bool, bool),
}

impl LocalPorts {
    /// What the system says (ip(7) `ip_local_port_range`, `ip_local_reserved_ports`; tcp(7) `tcp_tw_reuse`); `None` if it does
    /// not.
    #[must_use]
    pub fn of_this_machine() -> Option<Self> {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok();
        let reserved = read("ip_local_reserved_ports").unwrap_or_default();
        Self::parse(&read("ip_local_port_range")?, &reserved, &read("tcp_tw_reuse").unwrap_or_default())
    }

    fn parse(range: &str, reserved: &str, reuse: &str) -> Option<Self> {
        let mut bounds = range.split_whitespace().filter_map(|bound| bound.parse().ok());
        let range = bounds.next()?..=bounds.next()?;
        let reserved = reserved.trim().split(',').filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(first.parse().ok()?..=last.parse().ok()?)
        });
        let reuse = match reuse.trim() {
            "1" => (true, true),
            "2" => (false, true),
            _ => (false, false),
        };
        Some(Self { range, reserved: reserved.collect(), reuse })
    }

    /// From the first to the last, those included that the kernel leaves alone.
    #[must_use]
    pub fn range(&self) -> RangeInclusive<u16> {
        self.range.clone()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        let count = self.range().filter(|port| self.contains(*port)).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Whether the kernel may choose this one.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.range.contains(&port) && !self.reserved.iter().any(|reserved| reserved.contains(&port))
    }

    /// Whether a socket keeps its local port from being chosen for another connection to the same place.
    #[must_use]
    pub fn is_taken_by(&self, socket: &TcpSocket) -> bool {
        let (everywhere, on_loopback) = self.reuse;
        let waits_in_vain = everywhere || on_loopback && socket.remote.ip().is_loopback();
        self.contains(socket.local.port()) && !(socket.state == TcpState::TimeWait && waits_in_vain)
    }
}

/// A TCP socket of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpSocket {
    /// Its own address.
    pub local: SocketAddr,
    /// The other end's; unspecified while it listens.
    pub remote: SocketAddr,
    /// How far it is.
    pub state: TcpState,
}

/// How far a socket is, as far as that makes a difference here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpState {
    /// It listens.
    Listens,
    /// It is closed, and its addresses rest for a minute.
    TimeWait,
    /// It has another end.
    Connected,
}

impl TcpSocket {
    /// From a line of the kernel's table.
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (local, remote) = (parse_address(fields.next()?)?, parse_address(fields.next()?)?);
        let state = match fields.next()? {
            "0A" => TcpState::Listens,
            "06" => TcpState::TimeWait,
            _ => TcpState::Connected,
        };
        Some(Self { local, remote, state })
    }
}

fn parse_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let ip: IpAddr = parse_hex_ip(ip)?;
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

/// Calls `each` with every TCP socket of one family that there is. Blocks for as long as that takes.
///
/// # Errors
/// When the system does not show its sockets.
pub fn for_each_socket(ipv6: bool, each: impl FnMut(TcpSocket)) -> io::Result<()> {
    // Of the thread, which may be in another network namespace than the process.
    let path = if ipv6 { "/proc/thread-self/net/tcp6" } else { "/proc/thread-self/net/tcp" };
    parse_table(BufReader::with_capacity(64 * 1024, File::open(path)?), each)
}

fn parse_table(mut table: impl BufRead, mut each: impl FnMut(TcpSocket)) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if table.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if let Some(socket) = std::str::from_utf8(&line).ok().and_then(TcpSocket::parse) {
            each(socket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn the_ports_to_choose_from_are_those_of_the_range_that_are_not_reserved() {
        let ports = LocalPorts::parse("40000\t40009\n", "40001,40003-40004,50000\n", "2\n").unwrap();
        assert_eq!((ports.count(), ports.range()), (7, 40000..=40009));
        let chosen: Vec<u16> = (39990..40020).filter(|port| ports.contains(*port)).collect();
        assert_eq!(chosen, [40000, 40002, 40005, 40006, 40007, 40008, 40009]);
        assert_eq!(LocalPorts::parse("1 65535", "", "").unwrap().count(), 65_535);
        assert_eq!(LocalPorts::parse("", "", ""), None);
    }

    #[test]
    fn a_port_that_rests_is_taken_unless_the_system_takes_it_again() {
        let socket = |remote: &str, state| TcpSocket {
            local: "10.0.0.1:40000".parse().unwrap(),
            remote: remote.parse().unwrap(),
            state,
        };
        for (reuse, elsewhere, on_loopback) in [("0", true, true), ("1", false, false), ("2", true, false)] {
            let ports = LocalPorts::parse("40000 40009", "", reuse).unwrap();
            assert_eq!(ports.is_taken_by(&socket("10.0.0.2:80", TcpState::TimeWait)), elsewhere, "{reuse}");
            assert_eq!(ports.is_taken_by(&socket("127.0.0.1:80", TcpState::TimeWait)), on_loopback, "{reuse}");
            assert!(ports.is_taken_by(&socket("127.0.0.1:80", TcpState::Connected)));
        }
    }

    #[test]
    fn the_kernels_table_is_read_line_by_line_whatever_stands_in_it() {
        let table = "  sl  local_address rem_address   st tx_queue\n\
             0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000\n\
             1: 0100007F:C2EC 0100007F:B0FF 06 00000000:00000000 03:00000C4A\n\
             nonsense\n   2: zz:1 0:0 01\n\n\
             3: 0000000000000000FFFF00000100007F:9C40 00000000000000000000000001000000:0050 01 0\n";
        let noise = format!("{}\n{table}", "x".repeat(10_000));
        for table in [table, &noise] {
            let mut sockets = Vec::new();
            parse_table(table.as_bytes(), |socket| sockets.push(socket)).unwrap();
            let seen: Vec<_> = sockets.iter().map(|s| (s.local.to_string(), s.remote.to_string(), s.state)).collect();
            let expected = [
                ("127.0.0.1:8080", "0.0.0.0:0", TcpState::Listens),
                ("127.0.0.1:49900", "127.0.0.1:45311", TcpState::TimeWait),
                ("[::ffff:127.0.0.1]:40000", "[::1]:80", TcpState::Connected),
            ];
            assert_eq!(seen, expected.map(|(local, remote, state)| (local.to_owned(), remote.to_owned(), state)));
        }
    }

    #[test]
    fn a_socket_that_is_there_is_seen() {
        for (ipv6, address) in [(false, "127.0.0.1:0"), (true, "[::1]:0")] {
            let listener = TcpListener::bind(address).unwrap();
            let mut seen = false;
            for_each_socket(ipv6, |socket| {
                seen |= socket.local == listener.local_addr().unwrap() && socket.state == TcpState::Listens;
            })
            .unwrap();
            assert!(seen, "{address}");
        }
        assert!(LocalPorts::of_this_machine().unwrap().count() > 0);
    }
}
