//! From what sources answer to the servers of a pool: pure, so that it can be read and tested without anybody to ask.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use crate::config::load_servers;
use crate::config::model::{Discover, Model, Pool, Server};
use crate::discovery::{Content, Found, Source, Terms};
use crate::net::address::{Endpoint, ServerAddr};
use crate::units::{Name, Weight};

/// How many names a line shows.
const SHOWN: usize = 5;

/// The servers of an answer that can be used, in the order of their addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The servers.
    pub servers: Arc<[Server]>,
    /// What somebody should look at all the same.
    pub note: Option<String>,
}

impl Taken {
    /// Whether it takes the place of the answer before.
    #[must_use]
    pub fn is_usable(&self, discover: &Discover) -> bool {
        discover.terms.allow_empty || !self.servers.is_empty()
    }
}

/// A source: the pool that it is of, and what is asked.
pub type Key = (Name, String);

/// The sources of a configuration.
pub fn sources(model: &Model) -> impl Iterator<Item = (Key, &Discover)> {
    model.pools.iter().flat_map(|pool| {
        pool.discover.iter().map(|discover| ((pool.name.clone(), discover.source.to_string()), discover))
    })
}

/// The servers that an answer has; nothing if it is the same as the one before.
///
/// # Errors
/// Why none of it can be used.
pub fn take(content: Content, discover: &Discover) -> Result<Option<Taken>, String> {
    let servers = match content {
        Content::Same => return Ok(None),
        Content::Servers(found) => found.into_iter().map(|found| server(found, discover)).collect(),
        Content::List(bytes, format) => {
            let base = match &discover.source {
                Source::File(path) => path.parent(),
                Source::Dns(_) | Source::Http(_) => None,
            };
            load_servers(&bytes, format, base.unwrap_or(Path::new("/")))?
        }
    };
    choose(servers, &discover.terms).map(Some)
}

fn server(found: Found, discover: &Discover) -> Server {
    let Found { address, level, weight } = found;
    let like = &discover.like;
    let name = match &discover.prefix {
        Some(prefix) => format!("{prefix}@{address}"),
        None => address.to_string(),
    };
    Server {
        name: Name::new(&name),
        address: ServerAddr(Endpoint::Tcp(address)),
        weight: weight.and_then(Weight::new).unwrap_or(like.weight),
        // Levels beyond the last are one.
        priority: u8::try_from(level).unwrap_or(u8::MAX).saturating_add(like.priority).min(Server::LAST_PRIORITY),
        ..like.clone()
    }
}

/// Those of the servers that the terms allow, and no more than they allow.
fn choose(mut servers: Vec<Server>, terms: &Terms) -> Result<Taken, String> {
    let mut refused = Vec::new();
    servers.retain(|server| {
        let allowed = match &server.address.0 {
            Endpoint::Tcp(address) => terms.allow(address.ip()),
            Endpoint::Unix(_) => terms.allow_loopback,
        };
        if !allowed {
            refused.push(server.address.clone());
        }
        allowed
    });
    let refusal = (!refused.is_empty()).then(|| {
        let which = shown(refused.iter());
        format!("addresses of this machine or its links are refused unless `allow_loopback` is set: {which}")
    });
    if let Some(refusal) = refusal.clone().filter(|_| servers.is_empty()) {
        return Err(refusal);
    }
    // The same answer in another order is the same.
    servers.sort_by(|a, b| (&a.address.0, &a.name).cmp(&(&b.address.0, &b.name)));
    servers.dedup_by(|later, first| later.address == first.address);
    let (number, most) = (servers.len(), terms.max_servers);
    servers.truncate(most);
    let excess = (number > most).then(|| format!("of {number} servers the first {most} are taken (`max_servers`)"));
    let note = match (refusal, excess) {
        (Some(refusal), Some(excess)) => Some(format!("{refusal}; {excess}")),
        (refusal, excess) => refusal.or(excess),
    };
    Ok(Taken { servers: servers.into(), note })
}

/// What the sources are known to have.
#[derive(Clone, Debug, Default)]
pub struct Known(pub BTreeMap<Key, Arc<[Server]>>);

impl Known {
    /// Adds to every pool what its sources are known to have. A server of the file goes before one that was found and has its
    /// name or its address, and so does one of an earlier source.
    pub fn add_to(&self, model: &mut Model) {
        for pool in model.pools.iter_mut().filter(|pool| !pool.discover.is_empty()) {
            let mut names: HashSet<Name> = pool.servers.iter().map(|server| server.name.clone()).collect();
            let mut addresses: HashSet<ServerAddr> = pool.servers.iter().map(|server| server.address.clone()).collect();
            for discover in &pool.discover {
                let found = self.0.get(&(pool.name.clone(), discover.source.to_string()));
                for server in found.iter().flat_map(|servers| servers.iter()) {
                    if !names.contains(&server.name) && addresses.insert(server.address.clone()) {
                        names.insert(server.name.clone());
                        pool.servers.push(server.clone());
                    }
                }
            }
        }
    }
}

/// How the servers of a pool differ from those it had.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) added: Vec<Name>,
    pub(super) changed: Vec<Name>,
    pub(super) removed: Vec<Name>,
}

impl Difference {
    /// That from one pool to another; nothing if there is none.
    pub(super) fn between(old: &Pool, new: &Pool) -> Option<Self> {
        let before: HashMap<&Name, &Server> = old.servers.iter().map(|server| (&server.name, server)).collect();
        let after: HashSet<&Name> = new.servers.iter().map(|server| &server.name).collect();
        let mut difference = Self::default();
        for server in &new.servers {
            match before.get(&server.name) {
                None => difference.added.push(server.name.clone()),
                Some(was) if *was != server => difference.changed.push(server.name.clone()),
                Some(_) => {}
            }
        }
        let gone = old.servers.iter().map(|server| &server.name).filter(|name| !after.contains(name));
        difference.removed = gone.cloned().collect();
        (difference != Self::default()).then_some(difference)
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut comma = "";
        for (names, word) in [(&self.added, "added"), (&self.changed, "changed"), (&self.removed, "removed")] {
            if !names.is_empty() {
                write!(f, "{comma}{} {word} ({})", names.len(), shown(names.iter()))?;
                comma = ", ";
            }
        }
        Ok(())
    }
}

/// The first of them and how many more there are.
fn shown<T: std::fmt::Display>(all: impl ExactSizeIterator<Item = T>) -> String {
    let number = all.len();
    let mut text = all.take(SHOWN).map(|one| one.to_string()).collect::<Vec<_>>().join(", ");
    if number > SHOWN {
        let _infallible = write!(text, " and {} more", number - SHOWN);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, load_text};
    use crate::discovery::Format;

    fn model(pool: &str) -> Model {
        let text = format!("[listeners.web]\nbind = 80\npool = \"web\"\n[pools.web]\n{pool}\n");
        let environment = Environment { descriptor_limit: 20_000, cores: 2 };
        load_text(&text, "test", Path::new("/etc"), &environment).unwrap_or_else(|p| panic!("{}", p.human(false))).model
    }

    fn found(addresses: &[&str]) -> Content {
        let found = |address: &&str| Found { address: address.parse().unwrap(), level: 0, weight: None };
        Content::Servers(addresses.iter().map(found).collect())
    }

    fn names(servers: &[Server]) -> Vec<&str> {
        servers.iter().map(|server| server.name.as_str()).collect()
    }

    #[test]
    fn servers_found_by_an_entry_are_like_it_and_named_after_it() {
        let model = model(
            "servers = [{ name = \"b\", address = \"b.internal:80\", weight = 3, backup = true, max_connections = 9 }]",
        );
        let taken = take(found(&["10.0.0.2:80", "10.0.0.1:80"]), &model.pools[0].discover[0]).unwrap().unwrap();
        assert_eq!(names(&taken.servers), ["b@10.0.0.1:80", "b@10.0.0.2:80"]);
        let Server { weight, backup, max_connections, .. } = taken.servers[0].clone();
        assert_eq!((weight.get(), backup, max_connections), (3, true, 9));
    }

    #[test]
    fn what_an_answer_says_of_a_server_goes_before_what_the_entry_says() {
        let model = model("discover = { type = \"dns\", name = \"_a._tcp.internal\" }");
        let address = "10.0.0.1:80".parse().unwrap();
        let content = Content::Servers(vec![Found { address, level: 2, weight: Some(7) }]);
        let taken = take(content, &model.pools[0].discover[0]).unwrap().unwrap();
        assert_eq!((taken.servers[0].weight.get(), taken.servers[0].priority), (7, 2));
    }

    #[test]
    fn addresses_that_only_this_machine_can_reach_are_refused_and_told() {
        let model = model("discover = { type = \"dns\", name = \"a.internal:80\" }");
        let discover = &model.pools[0].discover[0];
        let taken = take(found(&["127.0.0.1:80", "10.0.0.1:80"]), discover).unwrap().unwrap();
        assert_eq!(names(&taken.servers), ["10.0.0.1:80"]);
        assert!(taken.note.unwrap().ends_with(": 127.0.0.1:80"));
        assert!(take(found(&["127.0.0.1:80"]), discover).unwrap_err().contains("127.0.0.1:80"));
        let socket = Content::List(br#"["unix:/run/a.sock"]"#.to_vec(), Format::Json);
        assert!(take(socket, discover).unwrap_err().contains("unix:/run/a.sock"));
    }

    #[test]
    fn of_too_many_servers_the_first_by_address_are_taken_whatever_their_order() {
        let model = model("discover = { type = \"dns\", name = \"a.internal:80\", max_servers = 2 }");
        let discover = &model.pools[0].discover[0];
        let many =
            take(found(&["10.0.0.10:80", "10.0.0.9:80", "10.0.0.2:80", "10.0.0.2:80"]), discover).unwrap().unwrap();
        assert_eq!(names(&many.servers), ["10.0.0.2:80", "10.0.0.9:80"]);
        assert_eq!(many.note.as_deref(), Some("of 3 servers the first 2 are taken (`max_servers`)"));
        let other = take(found(&["10.0.0.2:80", "10.0.0.10:80", "10.0.0.9:80"]), discover).unwrap().unwrap();
        assert_eq!(many, other);
    }

    #[test]
    fn a_server_of_the_file_goes_before_one_that_was_found() {
        let mut model = model(
            "servers = [{ name = \"a\", address = \"10.0.0.1:80\", weight = 5 }, \"10.0.0.2:80\", \"x.internal:80\"]
discover = { type = \"file\", path = \"servers.toml\" }",
        );
        let list = br#"["10.0.0.1:80", "10.0.0.3:80", {"name": "10.0.0.2:80", "address": "10.0.0.9:80"}]"#.to_vec();
        let discovers = model.pools[0].discover.clone();
        let of_file = take(Content::List(list, Format::Json), &discovers[1]).unwrap().unwrap();
        let of_name = take(found(&["10.0.0.3:80", "10.0.0.4:80"]), &discovers[0]).unwrap().unwrap();
        let keys: Vec<Key> = sources(&model).map(|(key, _)| key).collect();
        assert_eq!(keys[0].1, "dns x.internal:80");
        assert_eq!(keys[1].1, "file /etc/servers.toml");
        let known = Known([(keys[0].clone(), of_name.servers), (keys[1].clone(), of_file.servers)].into());
        known.add_to(&mut model);
        assert_eq!(names(&model.pools[0].servers), ["a", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"]);
        assert_eq!(model.pools[0].servers[0].weight.get(), 5);
    }

    #[test]
    fn what_differs_is_told_in_a_line_of_bearable_length() {
        let pool = |servers: &[&str]| {
            let mut pool = model("discover = { type = \"dns\", name = \"a.internal:80\" }").pools.remove(0);
            pool.servers = take(found(servers), &pool.discover[0]).unwrap().unwrap().servers.to_vec();
            pool
        };
        let (old, mut new) = (pool(&["10.0.0.1:80", "10.0.0.2:80"]), pool(&["10.0.0.2:80", "10.0.0.3:80"]));
        assert_eq!(Difference::between(&old, &old), None);
        new.servers[0].weight = Weight::new(2).unwrap();
        let said = Difference::between(&old, &new).unwrap().to_string();
        assert_eq!(said, "1 added (10.0.0.3:80), 1 changed (10.0.0.2:80), 1 removed (10.0.0.1:80)");
        let many: Vec<String> = (10..20).map(|n| format!("10.0.0.{n}:80")).collect();
        let many = pool(&many.iter().map(String::as_str).collect::<Vec<_>>());
        let said = Difference::between(&pool(&[]), &many).unwrap().to_string();
        assert!(said.starts_with("10 added (10.0.0.10:80, ") && said.ends_with("14:80 and 5 more)"), "{said}");
    }
}
