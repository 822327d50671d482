//! Who may ask for what: by the network they are from, by name and password.

mod acl;
mod users;

pub use acl::Acl;
pub use users::Users;
