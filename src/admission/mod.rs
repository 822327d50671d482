//! Who may ask for what: by the network they are from, by name and password.

mod acl;
mod basic;
mod users;
mod verified;

pub use acl::Acl;
pub use basic::{Answer, Pending, Verdict};
pub use users::Users;
