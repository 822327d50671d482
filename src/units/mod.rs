//! The small words settings are written in. Each parses once, into its own type, and is never checked again.

mod duration;
mod name;
mod percent;
mod port;
mod secret;
mod size;
mod weight;

pub use duration::{format_duration, parse_duration};
pub use name::Name;
pub use percent::Percent;
pub use port::parse_port;
pub use secret::Secret;
pub use size::{format_size, parse_size};
pub use weight::Weight;
