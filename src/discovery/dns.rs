//! Servers by a name in DNS: its addresses, all of them, or its SRV records (RFC 2782).
//!
//! Ids and ports of questions are random, which is the resolver's doing. Nothing is cached: an answer is asked for anew once
//! it no longer holds, and what is kept beyond that is not for a cache to decide.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{RData, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use tokio::time::Instant;

use super::{Answer, Content, Found, LATE, Terms};
use crate::logging::words;
use crate::net::host::HostName;
use crate::units::Weight;

/// How many targets of SRV records are asked for at once.
const AT_ONCE: usize = 16;
/// How long what the system says of resolvers and hosts is taken to be so.
const SYSTEM_HOLDS: Duration = Duration::from_secs(60);

/// What is asked for, and whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// The name.
    pub name: HostName,
    /// What of it.
    pub record: Record,
    /// Whom.
    pub resolvers: Resolvers,
}

impl fmt::Display for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.record {
            Record::Address { port } => write!(f, "{}:{port}", self.name),
            Record::Srv => write!(f, "{}", self.name),
        }
    }
}

/// What is asked for of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// Its addresses (A and AAAA), at each of which there is a server on this port.
    Address {
        /// The port.
        port: u16,
    },
    /// Its SRV records, which have ports, weights and priorities.
    Srv,
}

/// Who is asked: these, or if there are none those of the system (resolv.conf(5)), which is the only time that its search
/// list and hosts(5) matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolvers(pub Vec<SocketAddr>);

/// Asks for a name.
#[derive(Debug)]
pub struct Asker {
    lookup: Lookup,
    terms: Terms,
    opened: Option<Names>,
    /// The addresses of each family in the last answer that had it.
    before: Families<Vec<IpAddr>>,
}

/// What there is for IPv4 and for IPv6.
#[derive(Clone, Debug, Default)]
struct Families<T> {
    v4: T,
    v6: T,
}

/// Addresses, perhaps none, or why it is not known whether there are any.
type Addresses = Result<Vec<IpAddr>, String>;

impl Asker {
    pub(super) fn new(lookup: Lookup, terms: Terms) -> Self {
        Self { lookup, terms, opened: None, before: Families::default() }
    }

    pub(super) async fn ask(&mut self) -> Result<Answer, String> {
        let timeout = self.terms.timeout;
        let asked = tokio::time::timeout(timeout, Box::pin(self.ask_in_time())).await;
        let answer = asked.unwrap_or_else(|_elapsed| Err(LATE.to_owned()));
        if answer.is_err() {
            // The system may know others by now.
            self.opened = None;
        }
        answer
    }

    async fn ask_in_time(&mut self) -> Result<Answer, String> {
        let names = match self.opened.take().filter(Names::are_current) {
            Some(names) => names,
            None => Names::open(self.lookup.resolvers.clone(), self.terms.timeout).await?,
        };
        let names = self.opened.insert(names);
        match self.lookup.record {
            Record::Address { port } => {
                let (Families { v4, v6 }, ttl) = names.addresses(&self.lookup.name).await?;
                // Of a family that went unanswered beside one that did not, the last good answer is kept.
                self.before.v4 = v4.unwrap_or_else(|_| std::mem::take(&mut self.before.v4));
                self.before.v6 = v6.unwrap_or_else(|_| std::mem::take(&mut self.before.v6));
                let all = self.before.v4.iter().chain(&self.before.v6);
                let found = all.map(|ip| Found { address: SocketAddr::new(*ip, port), level: 0, weight: None });
                Ok(Answer { content: Content::Servers(found.collect()), ttl })
            }
            Record::Srv => {
                let (found, ttl) = names.services(&self.lookup.name, self.terms.max_servers).await?;
                Ok(Answer { content: Content::Servers(found), ttl })
            }
        }
    }
}

/// Somebody to ask for names.
pub(super) struct Names {
    resolver: TokioResolver,
    /// What a name that is not complete may go on with, and how many dots make it worth asking for as it is first.
    search: Vec<String>,
    ndots: usize,
    since: Instant,
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names").field("search", &self.search).finish_non_exhaustive()
    }
}

/// One SRV record.
#[derive(Clone, Debug)]
struct Service {
    priority: u16,
    weight: u16,
    port: u16,
    target: String,
}

impl Names {
    /// Reads who is to be asked, which the system may keep on a disk.
    pub(super) async fn open(resolvers: Resolvers, timeout: Duration) -> Result<Self, String> {
        let opened = tokio::task::spawn_blocking(move || Self::open_now(&resolvers, timeout)).await;
        opened.unwrap_or_else(|_stopping| Err("the resolver could not be set up".to_owned()))
    }

    fn open_now(resolvers: &Resolvers, timeout: Duration) -> Result<Self, String> {
        let is_system = resolvers.0.is_empty();
        let (system, mut options) = if is_system {
            read_system_conf().map_err(|error| format!("/etc/resolv.conf: {}", words(&error)))?
        } else {
            let servers = resolvers.0.iter().map(|address| {
                let mut server = NameServerConfig::udp_and_tcp(address.ip());
                server.connections.iter_mut().for_each(|connection| connection.port = address.port());
                server
            });
            (ResolverConfig::from_name_servers(servers.collect()), ResolverOpts::default())
        };
        // Twice, since a datagram may be lost.
        options.timeout = timeout / 2;
        options.attempts = 1;
        options.cache_size = 0;
        options.use_hosts_file = if is_system { ResolveHosts::Always } else { ResolveHosts::Never };
        let search = system.search().iter().map(|domain| domain.to_ascii().trim_matches('.').to_owned());
        let (search, ndots) = (search.filter(|domain| !domain.is_empty()).collect(), options.ndots);
        // Every name is asked for as it is: whether one of a search list failed or is not there makes a difference here.
        let (_, _, servers) = system.into_parts();
        let config = ResolverConfig::from_name_servers(servers);
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let resolver = builder.with_options(options).build().map_err(|error| words(&error))?;
        Ok(Self { resolver, search, ndots, since: Instant::now() })
    }

    fn are_current(&self) -> bool {
        self.since.elapsed() < SYSTEM_HOLDS
    }

    /// The complete names that a name may mean, likeliest first (resolv.conf(5), `search`).
    fn candidates(&self, name: &HostName) -> Vec<String> {
        let text = name.as_str();
        if text.ends_with('.') {
            return vec![text.to_owned()];
        }
        let plain = std::iter::once(format!("{text}."));
        let longer = self.search.iter().map(|domain| format!("{text}.{domain}."));
        if text.matches('.').count() >= self.ndots {
            plain.chain(longer).collect()
        } else {
            longer.chain(plain).collect()
        }
    }

    /// The addresses of a name. If there are none in one family and the other went unanswered, nothing is known.
    async fn addresses(&self, name: &HostName) -> Result<(Families<Addresses>, Option<Duration>), String> {
        let mut failure = None;
        for candidate in self.candidates(name) {
            let (families, ttl) = self.addresses_of(&candidate).await;
            if [&families.v4, &families.v6].iter().any(|family| family.as_ref().is_ok_and(|all| !all.is_empty())) {
                return Ok((families, ttl));
            }
            failure = failure.or(families.v4.err()).or(families.v6.err());
        }
        match failure {
            Some(why) => Err(why),
            None => Ok((Families { v4: Ok(Vec::new()), v6: Ok(Vec::new()) }, None)),
        }
    }

    /// All addresses of a name.
    pub(super) async fn all_addresses(&self, name: &HostName) -> Result<Vec<IpAddr>, String> {
        let (Families { v4, v6 }, _) = self.addresses(name).await?;
        Ok([v4, v6].into_iter().flatten().flatten().collect())
    }

    async fn addresses_of(&self, name: &str) -> (Families<Addresses>, Option<Duration>) {
        let families = tokio::join!(self.family(name, RecordType::A), self.family(name, RecordType::AAAA));
        let ((v4, ttl_v4), (v6, ttl_v6)) = families;
        (Families { v4, v6 }, ttl_v4.into_iter().chain(ttl_v6).min())
    }

    async fn family(&self, name: &str, record: RecordType) -> (Addresses, Option<Duration>) {
        match self.records(name, record).await {
            Ok(Some(lookup)) => {
                let ips = lookup.answers().iter().filter_map(|record| ip(&record.data));
                (Ok(ips.collect()), Some(holds(&lookup)))
            }
            Ok(None) => (Ok(Vec::new()), None),
            Err(why) => (Err(why), None),
        }
    }

    /// The servers that the SRV records of a name lead to.
    async fn services(&self, name: &HostName, most: usize) -> Result<(Vec<Found>, Option<Duration>), String> {
        let (mut failure, mut answer) = (None, None);
        for candidate in self.candidates(name) {
            match self.records(&candidate, RecordType::SRV).await {
                Ok(Some(lookup)) => {
                    answer = Some(lookup);
                    break;
                }
                Ok(None) => {}
                Err(why) => failure = failure.or(Some(why)),
            }
        }
        let answer = match (answer, failure) {
            (Some(answer), _) => answer,
            (None, Some(why)) => return Err(why),
            (None, None) => return Ok((Vec::new(), None)),
        };
        let mut services: Vec<Service> = answer.answers().iter().filter_map(|record| service(&record.data)).collect();
        services.sort_by(|a, b| (a.priority, &a.target, a.port).cmp(&(b.priority, &b.target, b.port)));
        services.truncate(most);
        let mut ttl = holds(&answer);
        let mut addresses: HashMap<String, Vec<IpAddr>> = HashMap::new();
        // Most servers send the addresses along.
        for record in answer.additionals() {
            if let Some(ip) = ip(&record.data) {
                addresses.entry(record.name.to_ascii().to_ascii_lowercase()).or_default().push(ip);
                ttl = ttl.min(Duration::from_secs(record.ttl.into()));
            }
        }
        let missing: BTreeSet<String> =
            services.iter().map(|service| &service.target).filter(|at| !addresses.contains_key(*at)).cloned().collect();
        let asked = stream::iter(missing).map(|target: String| async move {
            let (Families { v4, v6 }, ttl) = self.addresses_of(&target).await;
            // With one family at least; a target without any address is no server.
            let all = match (v4, v6) {
                (Err(why), Err(_)) => return Err(format!("{target}: {why}")),
                (v4, v6) => [v4, v6].into_iter().flatten().flatten().collect::<Vec<IpAddr>>(),
            };
            Ok((target, all, ttl))
        });
        let mut asked = std::pin::pin!(asked.buffer_unordered(AT_ONCE));
        while let Some(outcome) = asked.next().await {
            let (target, all, holds) = outcome?;
            ttl = holds.map_or(ttl, |holds| ttl.min(holds));
            addresses.insert(target, all);
        }
        Ok((servers(&services, &addresses), Some(ttl)))
    }

    /// The records of a complete name; `None` if it has none of this type.
    async fn records(
        &self,
        name: &str,
        record: RecordType,
    ) -> Result<Option<hickory_resolver::lookup::Lookup>, String> {
        match self.resolver.lookup(name, record).await {
            Ok(lookup) if lookup.answers().is_empty() => Ok(None),
            Ok(lookup) => Ok(Some(lookup)),
            Err(NetError::Dns(DnsError::NoRecordsFound(_))) => Ok(None),
            Err(NetError::Timeout) => Err(LATE.to_owned()),
            Err(error) => Err(words(&error)),
        }
    }
}

/// How long an answer holds from now on.
fn holds(lookup: &hickory_resolver::lookup::Lookup) -> Duration {
    lookup.valid_until().saturating_duration_since(std::time::Instant::now())
}

#[expect(clippy::wildcard_enum_match_arm, reason = "of the many types of records two are addresses")]
fn ip(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(ip) => Some(ip.0.into()),
        RData::AAAA(ip) => Some(ip.0.into()),
        _ => None,
    }
}

fn service(data: &RData) -> Option<Service> {
    let RData::SRV(srv) = data else { return None };
    // "." says that there is decidedly no such service (RFC 2782).
    let target = Some(srv.target.to_ascii().to_ascii_lowercase()).filter(|target| target != ".")?;
    let is_usable = srv.port != 0;
    is_usable.then_some(Service { priority: srv.priority, weight: srv.weight, port: srv.port, target })
}

/// Each address of each target, with what its record says.
fn servers(services: &[Service], addresses: &HashMap<String, Vec<IpAddr>>) -> Vec<Found> {
    let priorities: BTreeSet<u16> = services.iter().map(|service| service.priority).collect();
    let levels: BTreeMap<u16, u16> = priorities.into_iter().zip(0..).collect();
    let heaviest = services.iter().map(|service| service.weight).max().unwrap_or(0);
    let found = services.iter().flat_map(|service| {
        let level = levels.get(&service.priority).copied().unwrap_or(0);
        let weight = Some(weight(service.weight, heaviest));
        let ips = addresses.get(&service.target).into_iter().flatten();
        ips.map(move |ip| Found { address: SocketAddr::new(*ip, service.port), level, weight })
    });
    found.collect()
}

/// The weight of a record as one of ours: scaled down where the heaviest is too heavy, and never zero, since a record
/// without weight is to be chosen rarely rather than never.
fn weight(weight: u16, heaviest: u16) -> u16 {
    let scaled = if heaviest <= Weight::HEAVIEST {
        weight
    } else {
        let scaled = u32::from(weight) * u32::from(Weight::HEAVIEST) / u32::from(heaviest);
        u16::try_from(scaled).unwrap_or(Weight::HEAVIEST)
    };
    scaled.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(priority: u16, weight: u16, target: &str) -> Service {
        Service { priority, weight, port: 80, target: target.to_owned() }
    }

    #[test]
    fn the_lowest_priority_is_the_first_level_and_each_address_of_a_target_a_server() {
        let addresses = HashMap::from([
            ("a.".to_owned(), vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()]),
            ("b.".to_owned(), vec!["10.0.0.2".parse().unwrap()]),
        ]);
        let services = [service(10, 5, "a."), service(70, 0, "b."), service(10, 1, "nowhere.")];
        let found = servers(&services, &addresses);
        let shown: Vec<_> = found.iter().map(|found| (found.address.to_string(), found.level, found.weight)).collect();
        let expected = [("10.0.0.1:80", 0, Some(5)), ("[fd00::1]:80", 0, Some(5)), ("10.0.0.2:80", 1, Some(1))];
        assert_eq!(shown, expected.map(|(address, level, weight)| (address.to_owned(), level, weight)));
    }

    #[test]
    fn weights_keep_their_proportions_within_what_a_server_may_have() {
        assert_eq!([weight(0, 0), weight(0, 10), weight(7, 1000), weight(1000, 1000)], [1, 1, 7, 1000]);
        assert_eq!([weight(65535, 65535), weight(32768, 65535), weight(1, 65535)], [1000, 500, 1]);
    }

    #[tokio::test]
    async fn a_search_list_is_tried_as_resolv_conf_says() {
        let mut names =
            Names::open(Resolvers(vec!["127.0.0.1:1".parse().unwrap()]), Duration::from_secs(1)).await.unwrap();
        (names.search, names.ndots) = (vec!["a.example".to_owned(), "example".to_owned()], 2);
        let candidates = |text: &str| names.candidates(&HostName::parse(text).unwrap());
        assert_eq!(candidates("web.x."), ["web.x."]);
        assert_eq!(candidates("web.x"), ["web.x.a.example.", "web.x.example.", "web.x."]);
        assert_eq!(candidates("web.x.y"), ["web.x.y.", "web.x.y.a.example.", "web.x.y.example."]);
    }
}
