//! What has no safe wrapper elsewhere: the one island of `unsafe` in the house.

#![allow(
    unsafe_code,
    reason = "setsockopt(2) for options no crate wraps, and tokio's registration; each has its SAFETY line"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Lets the runtime watch a descriptor that it then owns.
pub(super) fn watch(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` owns an open descriptor, returns the same one on every call and keeps it open until it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, interest) }?)
}

/// A descriptor that the runtime watches from when somebody first waits for it. One that nobody waits for costs no calls.
#[derive(Debug)]
pub(super) struct Watched {
    // Dropped in this order: the runtime lets go of the descriptor before it is closed.
    watch: OnceLock<AsyncFd<RawFd>>,
    descriptor: OwnedFd,
}

impl Watched {
    pub(super) const fn new(descriptor: OwnedFd) -> Self {
        Self { watch: OnceLock::new(), descriptor }
    }

    /// What the runtime knows of it, which is nothing yet if this is the first time.
    ///
    /// # Errors
    /// When the runtime cannot watch the descriptor.
    pub(super) fn watch(&self) -> io::Result<&AsyncFd<RawFd>> {
        if let Some(watch) = self.watch.get() {
            return Ok(watch);
        }
        let interest = Interest::READABLE | Interest::WRITABLE;
        // SAFETY: the descriptor is open until it is dropped, which is after the watch: neither can be taken out of here, and
        // fields are dropped in the order in which they are declared. A `RawFd` returns itself on every call.
        let watch = unsafe { AsyncFd::register_with_interest(self.descriptor.as_raw_fd(), interest) }?;
        Ok(self.watch.get_or_init(|| watch))
    }

    /// Whether the runtime watches it.
    pub(super) fn is_watched(&self) -> bool {
        self.watch.get().is_some()
    }
}

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Leaves the choice of the local port to `connect`, so that one port serves many destinations at once
/// (`IP_BIND_ADDRESS_NO_PORT`, ip(7)). It works for IPv6 sockets as well.
pub(super) fn set_bind_address_no_port(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_int(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)
}

fn set_int(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is borrowed and thus open; the pointer is to a live c_int and `size` is its size.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), size) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
