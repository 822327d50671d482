//! Sockets and addresses: everything that talks to the kernel about the network, and nothing that decides.

pub mod address;
pub mod dial;
pub mod errno;
pub mod holder;
pub mod host;
pub mod listen;
mod pacing;
pub mod ports;
pub mod proxy_protocol;
mod sockopt;
pub mod stream;
