//! Connecting to a server: the one caller of `connect`.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::LazyLock;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::set_tcp_quickack;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

use super::address::{Endpoint, ServerAddr};
use super::pacing;
use super::ports::LocalPorts;
use super::sockopt;
use super::stream::Stream;

/// Why a connection to a server did not come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialFailure {
    /// The server's port is closed, or its queue of unaccepted connections is full (unix sockets).
    Refused,
    /// No answer within the time given.
    Timeout,
    /// The network says that there is no way, or that we may not go it.
    Unreachable,
    /// Every local port towards this server is taken (`EADDRNOTAVAIL`, connect(2)).
    PortsExhausted,
    /// The process or the machine has no descriptor left.
    DescriptorsExhausted,
    /// Anything else.
    Other,
}

impl DialFailure {
    /// Whether it says something of this machine, and nothing of the server.
    #[must_use]
    pub const fn is_our_own(self) -> bool {
        match self {
            Self::PortsExhausted | Self::DescriptorsExhausted => true,
            Self::Refused | Self::Timeout | Self::Unreachable | Self::Other => false,
        }
    }
}

/// A failed dial: its class, and the system's own words.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct DialError {
    /// The class.
    pub failure: DialFailure,
    /// The system's words.
    pub error: io::Error,
}

impl DialError {
    fn new(error: io::Error) -> Self {
        Self { failure: classify(&error), error }
    }

    fn timeout() -> Self {
        Self { failure: DialFailure::Timeout, error: io::Error::new(io::ErrorKind::TimedOut, "no answer in time") }
    }
}

/// Who speaks first on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// We do, as soon as it stands: the acknowledgement that completes it may wait for our first bytes and travel with them,
    /// which saves a segment (`TCP_QUICKACK`, tcp(7)).
    Us,
    /// Perhaps the server does, so it is to know at once that the connection stands.
    PerhapsServer,
}

/// Connects to `to` within `timeout`, from the local address `source` if one is given.
///
/// # Errors
/// The class of the failure and the system's words. Dropping the future abandons the attempt.
pub async fn dial(
    to: &ServerAddr,
    source: Option<IpAddr>,
    timeout: Duration,
    first: First,
) -> Result<Stream, DialError> {
    let mut stream = begin(to, source, first).map(Stream::new).map_err(DialError::new)?;
    match tokio::time::timeout(timeout, stream.connected()).await {
        Ok(Ok(())) if is_connected_to_itself(&stream, to) => Err(DialError::new(Errno::CONNREFUSED.into())),
        Ok(Ok(())) => Ok(stream),
        Ok(Err(error)) => Err(DialError::new(error)),
        Err(_elapsed) => Err(DialError::timeout()),
    }
}

/// Makes a socket and starts connecting it.
fn begin(to: &ServerAddr, source: Option<IpAddr>, first: First) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (socket, result) = match &to.0 {
        Endpoint::Tcp(address) => {
            let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let socket = socket_with(family, SocketType::STREAM, flags, None)?;
            if let Some(source) = source {
                sockopt::set_bind_address_no_port(socket.as_fd())?;
                rustix::net::bind(&socket, &SocketAddr::new(source, 0)).map_err(|errno| {
                    io::Error::new(io::ErrorKind::InvalidInput, format!("cannot connect from {source}: {errno}"))
                })?;
            }
            if first == First::Us {
                set_tcp_quickack(&socket, false)?;
            }
            pacing::leave_out_on_loopback(&socket, address.ip());
            let result = rustix::net::connect(&socket, address);
            (socket, result)
        }
        Endpoint::Unix(path) => {
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            let result = rustix::net::connect(&socket, &SocketAddrUnix::new(&**path)?);
            (socket, result)
        }
    };
    match result {
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Ok(socket),
        Err(errno) => Err(errno.into()),
    }
}

/// TCP lets a socket connect to itself when the kernel happens to choose the destination's own port as the local one
/// (simultaneous open, RFC 9293 §3.5), which makes a closed local port look open. Only a port of this machine that the
/// kernel may choose can be hit, so only there is the question asked.
fn is_connected_to_itself(stream: &Stream, to: &ServerAddr) -> bool {
    match to.0 {
        Endpoint::Tcp(address) if address.ip().is_loopback() && EPHEMERAL_PORTS.contains(&address.port()) => {
            rustix::net::getsockname(stream).is_ok_and(|local| SocketAddr::try_from(local) == Ok(address))
        }
        Endpoint::Tcp(_) | Endpoint::Unix(_) => false,
    }
}

/// The ports the kernel chooses local ones from (ip(7), `ip_local_port_range`); all that are not reserved if it does not say.
static EPHEMERAL_PORTS: LazyLock<RangeInclusive<u16>> =
    LazyLock::new(|| LocalPorts::of_this_machine().map_or(1024..=u16::MAX, |ports| ports.range()));

fn classify(error: &io::Error) -> DialFailure {
    let Some(errno) = Errno::from_io_error(error) else {
        return DialFailure::Other;
    };
    match errno {
        Errno::CONNREFUSED | Errno::CONNRESET | Errno::AGAIN | Errno::NOENT => DialFailure::Refused,
        Errno::TIMEDOUT => DialFailure::Timeout,
        Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::NETDOWN | Errno::HOSTDOWN | Errno::ACCESS | Errno::PERM => {
            DialFailure::Unreachable
        }
        Errno::ADDRNOTAVAIL | Errno::ADDRINUSE => DialFailure::PortsExhausted,
        Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => DialFailure::DescriptorsExhausted,
        _ => DialFailure::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_port_is_refused_and_an_open_one_is_reached() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let to = ServerAddr(Endpoint::Tcp(address));
        let stream =
            dial(&to, Some("127.0.0.9".parse().unwrap()), Duration::from_secs(5), First::PerhapsServer).await.unwrap();
        let (_socket, peer) = listener.accept().unwrap();
        assert_eq!(peer.ip().to_string(), "127.0.0.9", "the source address was not used");
        drop(stream);
        drop(listener);
        let error = dial(&to, None, Duration::from_secs(5), First::PerhapsServer).await.unwrap_err();
        assert_eq!(error.failure, DialFailure::Refused);
    }

    #[tokio::test]
    async fn a_source_that_is_not_ours_is_named() {
        let to = ServerAddr(Endpoint::Tcp("127.0.0.1:9".parse().unwrap()));
        let error = dial(&to, Some("192.0.2.1".parse().unwrap()), Duration::from_secs(5), First::PerhapsServer)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("192.0.2.1"), "{error}");
    }

    #[tokio::test]
    async fn a_missing_unix_socket_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let to = ServerAddr::parse("unix:none.sock", folder.path()).unwrap();
        let error = dial(&to, None, Duration::from_secs(5), First::PerhapsServer).await.unwrap_err();
        assert_eq!(error.failure, DialFailure::Refused);
    }

    #[test]
    fn running_out_of_ports_is_a_class_of_its_own() {
        assert_eq!(classify(&Errno::ADDRNOTAVAIL.into()), DialFailure::PortsExhausted);
    }
}
