//! HTTP/2 (RFC 9113) without a socket: bytes that came go in, bytes to be sent come out, and between them are streams with
//! heads, bodies and trailers, for either side of a connection.
//!
//! It bounds what the other side can make it hold or do: windows, the size of heads, streams at once, answers that are not
//! read, streams that are given up, frames that carry nothing. Time is for whoever drives it: there is no clock in here.

pub mod code;
pub mod connection;
mod frame;
pub mod head;
pub mod hpack;
mod reading;
mod receive;
mod send;
mod stream;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;

pub use code::Code;
pub use connection::{Connection, Ended, Side, Terms};
pub use frame::PREFACE;
pub use head::Head;
pub use stream::{Broken, Taken};
