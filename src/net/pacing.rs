//! Connections within this machine are not paced.
//!
//! A congestion control that paces (BBR) sets a timer between one segment and the next, so that no queue builds up in the
//! narrowest place on the way. Loopback has no such place, and there the timers are a third of what a large body costs.

use std::fs;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::LazyLock;

use rustix::net::sockopt::set_tcp_congestion;

/// Part of every kernel, open to every user, and it paces nothing (tcp(7), `tcp_allowed_congestion_control`).
const UNPACED: &str = "reno";

/// Whether the system's choice for new sockets paces, as it was when somebody first asked.
static IS_PACED: LazyLock<bool> = LazyLock::new(|| {
    let chosen = fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control");
    chosen.is_ok_and(|name| name.starts_with("bbr"))
});

/// Has a socket not paced if what it is bound or about to be connected to is this machine's loopback. It has to be said
/// before there is a connection; what a listening socket accepts inherits it.
pub(super) fn leave_out_on_loopback(socket: impl AsFd, address: IpAddr) {
    if address.to_canonical().is_loopback() && *IS_PACED {
        // Where it is refused, the socket is as good as any other, and only dearer.
        let _refused = set_tcp_congestion(socket, UNPACED);
    }
}

#[cfg(test)]
mod tests {
    use crate::net::address::{BindAddr, Endpoint, ServerAddr};
    use crate::net::dial::{First, dial};
    use crate::net::listen::{Acceptor, listen};
    use rustix::net::sockopt::tcp_congestion;
    use std::time::Duration;

    /// Fails only where the system's choice is one that paces; elsewhere there is nothing to leave out.
    #[tokio::test]
    async fn neither_side_of_a_connection_within_this_machine_is_paced() {
        let listening = listen(&BindAddr::Tcp("127.0.0.1:0".parse().unwrap()), 16, 1, false).unwrap();
        let Endpoint::Tcp(address) = listening.endpoint else { panic!("not a TCP endpoint") };
        let acceptor = Acceptor::new(listening.sockets.into_iter().next().unwrap()).unwrap();
        let to = ServerAddr(Endpoint::Tcp(address));
        let connected = dial(&to, None, Duration::from_secs(5), First::PerhapsServer).await.unwrap();
        let (accepted, _client) = acceptor.try_accept().unwrap();
        for congestion in [tcp_congestion(&connected).unwrap(), tcp_congestion(&accepted).unwrap()] {
            assert!(!congestion.starts_with("bbr"), "{congestion}");
        }
    }
}
