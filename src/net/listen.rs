//! Listening sockets: one per worker and address, none that another process could share unnoticed.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::SocketFlags;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::address::{BindAddr, ClientAddr, Endpoint};
use super::pacing;
use super::sockopt;

/// The listening sockets of one address.
#[derive(Debug)]
pub struct Listening {
    /// The address in effect: with the port the kernel chose where port 0 was asked for.
    pub endpoint: Endpoint,
    /// One socket per worker; for a unix socket, which cannot be multiplied, duplicates of one.
    pub sockets: Vec<OwnedFd>,
}

/// Binds `address` and listens on it with `count` sockets, between which the kernel spreads connections (`SO_REUSEPORT`,
/// socket(7)). With `displaces`, a socket of ours that is about to close may stand in the way.
///
/// # Errors
/// The system's, with `EADDRINUSE` also when another process shares its ports that way, unless `displaces` is set: then a
/// process of the same user is not told from ours.
pub fn listen(address: &BindAddr, backlog: u32, count: usize, displaces: bool) -> io::Result<Listening> {
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    match address {
        BindAddr::Tcp(address) => listen_tcp(*address, false, backlog, count, displaces),
        BindAddr::Dual(port) => {
            match listen_tcp(SocketAddr::from((Ipv6Addr::UNSPECIFIED, *port)), true, backlog, count, displaces) {
                Err(error) if Errno::from_io_error(&error) == Some(Errno::AFNOSUPPORT) => {
                    listen_tcp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, *port)), false, backlog, count, displaces)
                }
                result => result,
            }
        }
        BindAddr::Unix(path) => listen_unix(path, backlog, count),
    }
}

fn listen_tcp(
    mut address: SocketAddr,
    dual: bool,
    backlog: i32,
    count: usize,
    displaces: bool,
) -> io::Result<Listening> {
    let mut sockets = Vec::with_capacity(count);
    for number in 0..count {
        let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(!dual)?;
        }
        socket.set_reuse_address(true)?;
        // Accepted sockets inherit it, which saves a call for each (tcp(7)).
        socket.set_tcp_nodelay(true)?;
        pacing::leave_out_on_loopback(&socket, address.ip());
        // The first socket binds alone, so that a port another process holds is found in use even when that process
        // would share it; the others join the first.
        let first = number == 0;
        if !first || displaces {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&address.into())?;
        if first {
            socket.set_reuse_port(true)?;
            if let Some(bound) = socket.local_addr()?.as_socket() {
                address = bound;
            }
        }
        sockets.push(socket);
    }
    // All are bound before the first listens: what is refused later was never taken.
    for socket in &sockets {
        socket.listen(backlog)?;
    }
    Ok(Listening { endpoint: Endpoint::Tcp(address), sockets: sockets.into_iter().map(OwnedFd::from).collect() })
}

fn listen_unix(path: &Path, backlog: i32, count: usize) -> io::Result<Listening> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(backlog)?;
    let socket = OwnedFd::from(socket);
    let mut sockets = Vec::with_capacity(count);
    for _ in 1..count {
        sockets.push(socket.try_clone()?);
    }
    sockets.push(socket);
    Ok(Listening { endpoint: Endpoint::Unix(path.into()), sockets })
}

/// Removes a unix socket that nobody listens on any more, as a process that was killed leaves it behind.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket stands at this path"));
    }
    match Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Ok(()) | Err(_) => Err(Errno::ADDRINUSE.into()),
    }
}

/// A listening socket as its worker watches it.
#[derive(Debug)]
pub struct Acceptor {
    socket: AsyncFd<OwnedFd>,
}

impl Acceptor {
    /// Takes a listening, non-blocking socket.
    ///
    /// # Errors
    /// When the runtime cannot watch the descriptor.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        sockopt::watch(socket, Interest::READABLE).map(|socket| Self { socket })
    }

    /// Takes the next connection without waiting.
    ///
    /// # Errors
    /// See [`super::errno::accept_failure`].
    pub fn try_accept(&self) -> Result<(OwnedFd, ClientAddr), Errno> {
        let (socket, peer) = rustix::net::acceptfrom_with(&self.socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
        let client = peer.and_then(|peer| SocketAddr::try_from(peer).ok()).map_or(ClientAddr::Unix, ClientAddr::tcp);
        Ok((socket, client))
    }

    /// The port it is bound to, unless it is no TCP socket.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        let address = SocketAddr::try_from(rustix::net::getsockname(&self.socket).ok()?).ok()?;
        Some(address.port())
    }

    /// Waits until there may be a connection to accept. Call it after [`Acceptor::try_accept`] has found none.
    ///
    /// # Errors
    /// When the runtime is shutting down.
    pub async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await?.clear_ready();
        Ok(())
    }
}

impl AsFd for Acceptor {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl ClientAddr {
    /// A TCP client; one of IPv4 that came through a dual-stack socket is shown as what it is.
    #[must_use]
    pub fn tcp(address: SocketAddr) -> Self {
        match address.ip() {
            IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
                Some(ip) => Self::Tcp(SocketAddr::from((ip, address.port()))),
                None => Self::Tcp(address),
            },
            IpAddr::V4(_) => Self::Tcp(address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(listening: &Listening) -> SocketAddr {
        match listening.endpoint {
            Endpoint::Tcp(address) => address,
            Endpoint::Unix(_) => panic!("not a TCP endpoint"),
        }
    }

    #[test]
    fn several_sockets_share_a_port_of_ours_and_no_other_process_joins_them() {
        let ours = listen(&BindAddr::Tcp("127.0.0.1:0".parse().unwrap()), 16, 3, false).unwrap();
        assert_eq!(ours.sockets.len(), 3);
        let again = listen(&BindAddr::Tcp(bound(&ours)), 16, 2, false).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_dual_stack_socket_takes_both_families_and_names_ipv4_clients_as_such() {
        let dual = listen(&BindAddr::Dual(0), 16, 1, false).unwrap();
        let port = bound(&dual).port();
        #[expect(clippy::disallowed_methods, reason = "a client of the test's own")]
        let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let accepted = runtime.block_on(async {
            let acceptor = Acceptor::new(dual.sockets.into_iter().next().unwrap()).unwrap();
            loop {
                match acceptor.try_accept() {
                    Ok((_, client)) => return client,
                    Err(Errno::AGAIN) => acceptor.readable().await.unwrap(),
                    Err(errno) => panic!("{errno}"),
                }
            }
        });
        assert_eq!(accepted, ClientAddr::Tcp(client.local_addr().unwrap()));
    }

    #[test]
    fn a_unix_socket_left_behind_is_replaced_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let address = BindAddr::Unix(folder.path().join("a.sock").into());
        let first = listen(&address, 16, 2, false).unwrap();
        assert_eq!(listen(&address, 16, 1, false).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        listen(&address, 16, 1, false).unwrap();
        fs::write(folder.path().join("file"), "x").unwrap();
        let file = BindAddr::Unix(folder.path().join("file").into());
        assert_eq!(listen(&file, 16, 1, false).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }
}
