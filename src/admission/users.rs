//! Names and passwords, as a file of `htpasswd` has them.

/// The users of a file, each with the hash of a password.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users;
