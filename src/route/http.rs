//! From a request to whatever it is for: by host, path, method, header and query, the most specific first.

use super::HostPattern;

/// Which requests a route is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// The host; `None` is any, and none.
    pub host: Option<HostPattern>,
    /// The path.
    pub path: PathMatch,
    /// The methods; empty is any.
    pub methods: Vec<Box<str>>,
    /// What stands in the header, by names in lower case; all of them.
    pub headers: Vec<(Box<str>, ValueMatch)>,
    /// What stands in the query; all of them.
    pub query: Vec<(Box<str>, ValueMatch)>,
}

/// Which paths a route is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// This path and no other.
    Exact(Box<str>),
    /// This path and those below it: `/v1` and `/v1/` are for `/v1` and `/v1/x`, and not for `/v10`. Without a closing
    /// slash here, so that it is empty for all paths.
    Prefix(Box<str>),
}

impl Default for PathMatch {
    fn default() -> Self {
        Self::Prefix("".into())
    }
}

/// Which values a route is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueMatch {
    /// Any: `*`.
    Any,
    /// This one.
    Exact(Box<str>),
    /// Those that begin so: `abc*`.
    Begins(Box<str>),
    /// Those that end so: `*abc`.
    Ends(Box<str>),
}
