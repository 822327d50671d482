//! From a request to whatever it is for: by host, path, method, header and query, the most specific first.

mod candidates;

use std::iter;

use rustc_hash::FxHashMap;

use self::candidates::{Candidates, Conditions};
use super::{HostPattern, Hosts, LONGEST};

/// Which requests a route is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
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

/// Which paths a route is for; in their normal form ([`normal_path`](crate::message::target::normal_path)).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
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

impl ValueMatch {
    /// Whether this value is one of them.
    #[must_use]
    pub fn suits(&self, value: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(text) => value == text.as_bytes(),
            Self::Begins(text) => value.starts_with(text.as_bytes()),
            Self::Ends(text) => value.ends_with(text.as_bytes()),
        }
    }
}

/// What a request asks for, as far as it matters to routes.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The host in lower case, without a port and a closing dot; empty if it names none.
    pub host: &'a str,
    /// The method.
    pub method: &'a [u8],
    /// The path, in its normal form: what precedes the question mark.
    pub path: &'a [u8],
    /// The query as it was sent, without the question mark; empty if there is none.
    pub query: &'a [u8],
    /// The header.
    pub fields: &'a dyn Fields,
}

/// The fields of a header, whoever keeps them.
pub trait Fields {
    /// Whether a field of this name, which is in lower case and met in any, has a value that stands the test.
    fn any(&self, name: &str, test: &mut dyn FnMut(&[u8]) -> bool) -> bool;
}

/// What requests lead to.
///
/// The most specific host that has a route for a request decides: the name itself, then wildcards, the longest first, then
/// the routes for any host. Within a host the longest path does, and a path alone before the same one with what is below
/// it; within a path the route with the most conditions, and the first of those in the order of the file.
///
/// What a request costs grows with its own length and not with the number of routes, save that those of one host and one
/// path which ask for no exact value, or for the same one, are tried one after the other.
#[derive(Debug)]
pub struct HttpRoutes<T> {
    hosts: Hosts<Paths<T>>,
    any: Paths<T>,
}

impl<T> HttpRoutes<T> {
    /// Routes in the order of the file.
    pub fn new(routes: impl IntoIterator<Item = (Match, T)>) -> Self {
        let mut built = Self { hosts: Hosts::default(), any: Paths::new() };
        for (Match { host, path, methods, headers, query }, target) in routes {
            let paths = match &host {
                Some(host) => built.hosts.entry(host, Paths::new),
                None => &mut built.any,
            };
            paths.add(&path, Conditions { methods, headers, query }, target);
        }
        built.hosts.values_mut().chain([&mut built.any]).for_each(Paths::settle);
        built
    }

    /// Where a request leads, if anywhere. It allocates nothing, unless the request has several values for which there are
    /// routes where one is expected.
    #[must_use]
    pub fn find(&self, asked: &Asked<'_>) -> Option<&T> {
        // No pattern is for a longer one, which could have thousands of dots.
        let host = Some(asked.host).filter(|host| host.len() <= LONGEST);
        let named = host.into_iter().flat_map(|host| self.hosts.find(host)).find_map(|paths| paths.find(asked));
        named.or_else(|| self.any.find(asked))
    }
}

/// The paths of one host: a tree with a node for each part of a path, so that all prefixes of a request's path are found in
/// one walk along it, which ends where no route goes on.
#[derive(Debug)]
struct Paths<T> {
    /// The root, which is for all paths, comes first; the others know each other by their places.
    nodes: Vec<Node<T>>,
}

#[derive(Debug)]
struct Node<T> {
    parent: Option<usize>,
    below: FxHashMap<Box<[u8]>, usize>,
    exact: Candidates<T>,
    prefix: Candidates<T>,
}

impl<T> Node<T> {
    fn new(parent: Option<usize>) -> Self {
        Self { parent, below: FxHashMap::default(), exact: Candidates::new(), prefix: Candidates::new() }
    }
}

impl<T> Paths<T> {
    fn new() -> Self {
        Self { nodes: vec![Node::new(None)] }
    }

    fn add(&mut self, path: &PathMatch, conditions: Conditions, target: T) {
        let (PathMatch::Exact(text) | PathMatch::Prefix(text)) = path;
        let place = parts(text.as_bytes()).fold(0, |place, part| self.child(place, part));
        if let Some(node) = self.nodes.get_mut(place) {
            let candidates = match path {
                PathMatch::Exact(_) => &mut node.exact,
                PathMatch::Prefix(_) => &mut node.prefix,
            };
            candidates.add(conditions, target);
        }
    }

    /// Puts the routes of each path in order, once all are there.
    fn settle(&mut self) {
        for Node { exact, prefix, .. } in &mut self.nodes {
            exact.settle();
            prefix.settle();
        }
    }

    /// The node for this part below another, made if there is none yet.
    fn child(&mut self, parent: usize, part: &[u8]) -> usize {
        let next = self.nodes.len();
        let place = self.nodes.get_mut(parent).map_or(next, |node| *node.below.entry(part.into()).or_insert(next));
        if place == next {
            self.nodes.push(Node::new(Some(parent)));
        }
        place
    }

    fn find(&self, asked: &Asked<'_>) -> Option<&T> {
        let (mut node, mut whole) = (self.nodes.first()?, true);
        for part in parts(asked.path) {
            let Some(next) = node.below.get(part).and_then(|place| self.nodes.get(*place)) else {
                whole = false;
                break;
            };
            node = next;
        }
        let exact = whole.then_some(&node.exact).into_iter();
        let upwards = iter::successors(Some(node), |node| self.nodes.get(node.parent?));
        exact.chain(upwards.map(|node| &node.prefix)).find_map(|candidates| candidates.find(asked))
    }
}

/// A path in parts that each begin with a slash, save that the first may not.
fn parts(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = path;
    iter::from_fn(move || {
        let end = rest.iter().skip(1).position(|byte| *byte == b'/').map_or(rest.len(), |before| before + 1);
        let (part, after) = rest.split_at_checked(end).filter(|(part, _)| !part.is_empty())?;
        rest = after;
        Some(part)
    })
}

/// The names and values of a query, as they were sent; a name without a value has an empty one.
pub fn pairs(query: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    query.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        let (name, value) = pair.split_at_checked(equals).unwrap_or((pair, &[]));
        (name, value.strip_prefix(b"=").unwrap_or(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(super) const NO_FIELDS: &dyn Fields = &List(&[]);

    pub(super) struct List<'a>(pub(super) &'a [(&'a str, &'a [u8])]);

    impl Fields for List<'_> {
        fn any(&self, name: &str, test: &mut dyn FnMut(&[u8]) -> bool) -> bool {
            self.0.iter().any(|(own, value)| own.eq_ignore_ascii_case(name) && test(value))
        }
    }

    /// `host/path`, where either may be missing, `*.` is a wildcard and a closing `*` makes the path a prefix.
    fn route(text: &str) -> Match {
        let (host, path) = text.split_at(text.find('/').unwrap_or(text.len()));
        let host = Some(host).filter(|host| !host.is_empty()).map(|host| HostPattern::parse(host).unwrap());
        let path = match path.strip_suffix("/*") {
            Some(prefix) => PathMatch::Prefix(prefix.into()),
            None if path.is_empty() => PathMatch::default(),
            None => PathMatch::Exact(path.into()),
        };
        Match { host, path, ..Match::default() }
    }

    fn asked<'a>(host: &'a str, target: &'a str) -> Asked<'a> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Asked { host, method: b"GET", path: path.as_bytes(), query: query.as_bytes(), fields: NO_FIELDS }
    }

    fn values(pairs: &[(&str, ValueMatch)]) -> Vec<(Box<str>, ValueMatch)> {
        pairs.iter().map(|(name, value)| ((*name).into(), value.clone())).collect()
    }

    #[test]
    fn the_most_specific_host_decides_and_then_the_longest_path() {
        let texts =
            ["/*", "/v1/*", "*.b.c", "*.c/v1/*", "*.c/v1", "a.b.c/x/*", "a.b.c/x/y/*", "a.b.c/x/y", "localhost/*"];
        let routes = HttpRoutes::new(texts.map(|text| (route(text), text)));
        let find = |host, target| routes.find(&asked(host, target)).copied();
        for (host, target, found) in [
            ("a.b.c", "/x/y", "a.b.c/x/y"),
            ("a.b.c", "/x/y/", "a.b.c/x/y/*"),
            ("a.b.c", "/x/yz", "a.b.c/x/*"),
            ("a.b.c", "/xy", "*.b.c"),
            ("b.c", "/v1", "*.c/v1"),
            ("b.c", "/v1/2?q", "*.c/v1/*"),
            ("b.c", "/v10", "/*"),
            ("", "/v1", "/v1/*"),
            ("", "*", "/*"),
            ("localhost", "/v1", "localhost/*"),
            ("10.0.0.1", "/v1", "/v1/*"),
            ("[::1]", "", "/*"),
        ] {
            assert_eq!(find(host, target), Some(found), "{host}{target}");
        }
    }

    #[test]
    fn a_prefix_ends_where_a_part_of_the_path_does() {
        let routes = HttpRoutes::new([(route("/v1/*"), ())]);
        let takes = |target| routes.find(&asked("a.b", target)).is_some();
        assert!(takes("/v1") && takes("/v1/") && takes("/v1/x") && takes("/v1//") && takes("/v1?/"));
        assert!(!takes("/v10") && !takes("/v") && !takes("/") && !takes("//v1") && !takes("/V1") && !takes("v1"));
    }

    #[test]
    fn among_routes_of_one_path_the_one_with_more_conditions_comes_first() {
        let get = vec!["GET".into()];
        let query = values(&[("q", ValueMatch::Any)]);
        let routes = HttpRoutes::new([
            (route("/a/*"), "first"),
            (route("/a/*"), "second"),
            (Match { methods: get.clone(), ..route("/a/*") }, "by method"),
            (Match { methods: get, query: query.clone(), ..route("/a/*") }, "by both"),
            (Match { query, ..route("/a/*") }, "by query"),
        ]);
        let find = |method, target| routes.find(&Asked { method, ..asked("", target) }).copied();
        assert_eq!(find(b"GET", "/a?q"), Some("by both"));
        assert_eq!(find(b"GET", "/a?p"), Some("by method"));
        assert_eq!(find(b"PUT", "/a?q"), Some("by query"));
        assert_eq!(find(b"get", "/a"), Some("first"));
    }

    #[test]
    fn where_no_route_of_a_path_suits_the_next_shorter_path_decides_and_then_the_next_host() {
        let post = |text| Match { methods: vec!["POST".into()], ..route(text) };
        let routes = HttpRoutes::new([
            (post("a.b/x/y"), "exact"),
            (post("a.b/x/y/*"), "long"),
            (post("a.b/x/*"), "short"),
            (route("*.b/x/*"), "wildcard"),
        ]);
        let find = |method, target| routes.find(&Asked { method, ..asked("a.b", target) }).copied();
        assert_eq!(find(b"POST", "/x/y"), Some("exact"));
        assert_eq!(find(b"POST", "/x/y/z"), Some("long"));
        assert_eq!(find(b"POST", "/x/z"), Some("short"));
        assert_eq!(find(b"GET", "/x/y"), Some("wildcard"));
        assert_eq!(find(b"GET", "/y"), None);
    }

    #[test]
    fn header_and_query_are_asked_for_all_that_a_route_wants() {
        let headers = values(&[("x-a", ValueMatch::Exact("1".into())), ("x-b", ValueMatch::Begins("be".into()))]);
        let query = values(&[("e", ValueMatch::Exact("".into())), ("v", ValueMatch::Ends("nd".into()))]);
        let routes = HttpRoutes::new([(Match { headers, query, ..Match::default() }, ())]);
        let takes = |fields: &[(&str, &[u8])], query: &str| {
            routes.find(&Asked { query: query.as_bytes(), fields: &List(fields), ..asked("a", "/") }).is_some()
        };
        let both: [(&str, &[u8]); 3] = [("X-A", b"0"), ("x-a", b"1"), ("x-b", b"begin")];
        assert!(takes(&both, "e&v=end") && takes(&both, "v=x&&v=nd&e="));
        assert!(!takes(&both[..2], "e&v=end") && !takes(&both[1..], "e=1&v=end") && !takes(&both, "e&v=en%64"));
        assert!(!takes(&both, "E&v=end") && !takes(&both, ""));
    }

    #[test]
    fn a_path_of_slashes_and_a_host_of_dots_are_walked_no_further_than_routes_go() {
        let routes = HttpRoutes::new([(route("*.b/x/*"), "x"), (route("//*"), "slash"), (route("/*"), "any")]);
        assert_eq!(routes.find(&asked("a.b", &"/".repeat(8192))), Some(&"slash"));
        assert_eq!(routes.find(&asked(&format!("{}b", "a.".repeat(4096)), "/x")), Some(&"any"));
    }

    /// Looks at each route there is.
    fn naive<'a>(routes: &'a [(Match, usize)], asked: &Asked<'_>) -> Option<&'a usize> {
        let rank = |route: &Match| {
            let host = match &route.host {
                None => 0,
                Some(HostPattern::Below(name)) => {
                    asked.host.strip_suffix(&**name).filter(|rest| rest.ends_with('.'))?;
                    1 + name.len()
                }
                Some(HostPattern::Exact(name)) => (**name == *asked.host).then_some(usize::MAX)?,
            };
            let path = match &route.path {
                PathMatch::Exact(path) => (path.as_bytes() == asked.path).then_some((path.len(), true))?,
                PathMatch::Prefix(path) => {
                    let rest = asked.path.strip_prefix(path.as_bytes())?;
                    (path.is_empty() || rest.is_empty() || rest.starts_with(b"/")).then_some((path.len(), false))?
                }
            };
            let query: Vec<_> = asked.query.split(|byte| *byte == b'&').collect();
            let has = |(name, value): &(Box<str>, ValueMatch)| {
                query.iter().filter_map(|pair| pair.strip_prefix(name.as_bytes())).any(|rest| {
                    rest.strip_prefix(b"=").map_or(rest.is_empty() && value.suits(b""), |with| value.suits(with))
                })
            };
            let method = route.methods.is_empty() || route.methods.iter().any(|one| one.as_bytes() == asked.method);
            let conditions = usize::from(!route.methods.is_empty()) + route.query.len();
            (method && route.query.iter().all(has)).then_some((host, path, conditions))
        };
        let ranked = routes.iter().filter_map(|(route, target)| Some((rank(route)?, target)));
        // The first of the best, and not the last.
        ranked.rev().max_by_key(|(rank, _)| *rank).map(|(_, target)| target)
    }

    fn path() -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(vec!["/", "/a", "/b", "/ab"]), 0..5).prop_map(|parts| parts.concat())
    }

    fn matches() -> impl Strategy<Value = Match> {
        let hosts = ["a", "b.a", "c.b.a", "*.a", "*.b.a", "*.c.b.a"];
        let host = prop::option::of(prop::sample::select(hosts.map(|host| HostPattern::parse(host).unwrap()).to_vec()));
        let methods = prop::sample::subsequence(vec!["GET", "PUT"], 0..2);
        let value = prop_oneof![
            Just(ValueMatch::Any),
            Just(ValueMatch::Exact("1".into())),
            Just(ValueMatch::Begins("1".into())),
            Just(ValueMatch::Ends("1".into())),
        ];
        let query = prop::collection::vec((prop::sample::select(vec!["q", "r"]), value), 0..2);
        (host, path(), any::<bool>(), methods, query).prop_map(|(host, path, exact, methods, query)| Match {
            host,
            path: if exact {
                PathMatch::Exact(path.into())
            } else {
                PathMatch::Prefix(path.trim_end_matches('/').into())
            },
            methods: methods.into_iter().map(Into::into).collect(),
            headers: Vec::new(),
            query: values(&query),
        })
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_looking_at_each_route_would_find(
            routes in prop::collection::vec(matches(), 0..40),
            requests in prop::collection::vec((
                prop::sample::select(vec!["", "a", "b.a", "c.b.a", "d.c.b.a", "x", "xa"]),
                path(),
                prop::sample::select(vec!["GET", "PUT"]),
                prop::sample::select(vec!["", "q", "q=1", "r=12&q", "q=21&&r=1", "q=3&q=1", "qq=1&=1"]),
            ), 1..20),
        ) {
            let routes: Vec<_> = routes.into_iter().enumerate().map(|(place, route)| (route, place)).collect();
            let built = HttpRoutes::new(routes.clone());
            for (host, path, method, query) in requests {
                let path = path.as_bytes();
                let asked = Asked { host, method: method.as_bytes(), path, query: query.as_bytes(), fields: NO_FIELDS };
                prop_assert_eq!(built.find(&asked), naive(&routes, &asked));
            }
        }
    }
}
