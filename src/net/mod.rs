//! Sockets and addresses: everything that talks to the kernel about the network, and nothing that decides.

pub mod address;
