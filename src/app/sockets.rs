//! The listening sockets of the process: which are open, who has them, and why one could not be opened.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::reconcile::{Binding, Opening};
use crate::net::address::{BindAddr, Endpoint};
use crate::net::holder::holder;
use crate::net::listen::listen;
use crate::units::Name;
use crate::worker::SocketId;

/// An open listening socket, which each worker has a descriptor of.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) id: SocketId,
    pub(super) endpoint: Endpoint,
}

/// The listening sockets of the process.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    open: HashMap<Binding, Open>,
    next: SocketId,
}

/// A listening socket that is bound and that no worker has yet: dropping it undoes the bind.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) binding: Binding,
    pub(super) endpoint: Endpoint,
    pub(super) sockets: Vec<OwnedFd>,
}

/// An address that could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("listener {listener}: cannot listen on {address}: {why}")]
pub struct BindError {
    /// The listener.
    pub listener: Name,
    /// The address.
    pub address: String,
    /// Why, with the process in the way if that can be seen.
    pub why: String,
}

impl Sockets {
    /// Binds what is to be opened, all of it or nothing.
    pub(super) fn bind(openings: &[Opening], workers: usize) -> Result<Vec<Bound>, BindError> {
        openings
            .iter()
            .map(|Opening { binding, backlog, displaces }| {
                let (listener, address) = binding;
                let listening = listen(address, *backlog, workers, *displaces).map_err(|error| BindError {
                    listener: listener.clone(),
                    address: address.to_string(),
                    why: explain(&error, address),
                })?;
                Ok(Bound { binding: binding.clone(), endpoint: listening.endpoint, sockets: listening.sockets })
            })
            .collect()
    }

    /// Takes a socket in that the workers are about to be given.
    pub(super) fn insert(&mut self, binding: Binding, endpoint: Endpoint) -> SocketId {
        self.next += 1;
        self.open.insert(binding, Open { id: self.next, endpoint });
        self.next
    }

    /// Gives a socket to another listener.
    pub(super) fn rename(&mut self, from: &Binding, to: Name) -> Option<SocketId> {
        let open = self.open.remove(from)?;
        let id = open.id;
        self.open.insert((to, from.1.clone()), open);
        Some(id)
    }

    /// Takes sockets out that the workers are about to close; the files of unix sockets go with them.
    pub(super) fn remove(&mut self, bindings: &[Binding]) -> Vec<SocketId> {
        let removed: Vec<Open> = bindings.iter().filter_map(|binding| self.open.remove(binding)).collect();
        for open in &removed {
            if let Endpoint::Unix(path) = &open.endpoint
                && let Err(error) = std::fs::remove_file(path)
            {
                tracing::warn!(path = %path.display(), "the file of a closed unix socket cannot be removed: {error}");
            }
        }
        removed.into_iter().map(|open| open.id).collect()
    }

    /// Every binding there is.
    pub(super) fn bindings(&self) -> Vec<Binding> {
        self.open.keys().cloned().collect()
    }

    /// Where each listener is found.
    pub(super) fn endpoints(&self) -> BTreeMap<Name, Vec<Endpoint>> {
        let mut all: BTreeMap<Name, Vec<Endpoint>> = BTreeMap::new();
        for ((listener, _), open) in &self.open {
            all.entry(listener.clone()).or_default().push(open.endpoint.clone());
        }
        all.values_mut().for_each(|endpoints| endpoints.sort());
        all
    }
}

/// Why a bind failed, with what can be done about it.
pub(super) fn explain(error: &io::Error, address: &BindAddr) -> String {
    let tcp = match address {
        BindAddr::Tcp(address) => Some(*address),
        BindAddr::Dual(port) => Some(SocketAddr::from((Ipv6Addr::UNSPECIFIED, *port))),
        BindAddr::Unix(_) => None,
    };
    match (Errno::from_io_error(error), tcp) {
        (Some(Errno::ADDRINUSE), Some(address)) => match holder(address) {
            Some(holder) => format!("in use by {holder}"),
            None => "in use by a process that cannot be seen from here".to_owned(),
        },
        (Some(Errno::ADDRINUSE), None) => "another process listens on it".to_owned(),
        (Some(Errno::ACCESS), Some(address)) if address.port() < 1024 => {
            format!("{error}; ports below 1024 need the capability CAP_NET_BIND_SERVICE")
        }
        (Some(Errno::ADDRNOTAVAIL), _) => "this machine does not have the address".to_owned(),
        _ => error.to_string(),
    }
}
