//! Chapter: connections.

mod addresses;
mod bytes;
mod endings;
mod servers;

use crate::stage::reader;
