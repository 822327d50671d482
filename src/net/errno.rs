//! Classes of `errno`: what a failed call means for the one who made it.

use rustix::io::Errno;

/// What a failed `accept4` asks of the accept loop (accept(2), "Error handling").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptFailure {
    /// Nothing is waiting: come back when the socket is readable.
    Empty,
    /// This connection died before it was accepted, or its network did: take the next.
    Peer,
    /// The process or the machine is out of descriptors or memory: pause.
    Exhausted,
    /// The listening socket itself is broken: stop loudly.
    Ours,
}

/// Classes a failed `accept4`.
#[must_use]
pub fn accept_failure(errno: Errno) -> AcceptFailure {
    match errno {
        Errno::AGAIN => AcceptFailure::Empty,
        Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => AcceptFailure::Exhausted,
        Errno::BADF | Errno::FAULT | Errno::INVAL | Errno::NOTSOCK | Errno::OPNOTSUPP => AcceptFailure::Ours,
        _ => AcceptFailure::Peer,
    }
}

/// Whether the other end is gone: it sent a reset, or had closed what we wrote to.
#[must_use]
pub fn is_disconnect(errno: Errno) -> bool {
    matches!(errno, Errno::CONNRESET | Errno::PIPE | Errno::CONNABORTED | Errno::NOTCONN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_left_does_not_stop_the_accept_loop() {
        for errno in [Errno::CONNABORTED, Errno::NETDOWN, Errno::PROTO, Errno::HOSTUNREACH, Errno::PERM, Errno::INTR] {
            assert_eq!(accept_failure(errno), AcceptFailure::Peer, "{errno}");
        }
    }

    #[test]
    fn running_out_pauses_and_a_broken_socket_stops() {
        assert_eq!(accept_failure(Errno::MFILE), AcceptFailure::Exhausted);
        assert_eq!(accept_failure(Errno::AGAIN), AcceptFailure::Empty);
        assert_eq!(accept_failure(Errno::BADF), AcceptFailure::Ours);
    }
}
