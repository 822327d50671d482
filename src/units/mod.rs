//! The small words settings are written in. Each parses once, into its own type, and is never checked again.

mod duration;
mod name;
mod port;
mod secret;
mod weight;

pub use duration::{format_duration, parse_duration};
pub use name::Name;
pub use port::parse_port;
pub use secret::Secret;
pub use weight::Weight;
