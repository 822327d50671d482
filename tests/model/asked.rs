//! What is asked for: small configurations at random, and the text that says the same.

use std::fmt::Write;

use fastrand::Rng;
use portreeve::balance::{Policy, TableSize};

/// A whole configuration, as far as choosing a server goes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    /// Where this instance stands.
    pub(crate) zone: Option<&'static str>,
    pub(crate) pools: Vec<AskedPool>,
}

/// A pool.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AskedPool {
    pub(crate) name: &'static str,
    pub(crate) balance: Policy,
    /// `rise` and `fall`, if its servers are checked.
    pub(crate) check: Option<(u32, u32)>,
    pub(crate) retries: usize,
    /// Of all its servers together; 0 sets no limit.
    pub(crate) max_connections: u32,
    /// In percent.
    pub(crate) fail_open: usize,
    /// Whether somebody could wait for room, which nobody does here.
    pub(crate) queues: bool,
    /// In milliseconds. A pool keeps it for as long as it lives.
    pub(crate) slow_start: u64,
    pub(crate) primary: Option<AskedPrimary>,
    /// Where more servers are found, if they are.
    pub(crate) discover: Option<AskedSource>,
    pub(crate) servers: Vec<AskedServer>,
}

/// How a pool has a primary.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum AskedPrimary {
    /// The one that says so.
    ByRoles,
    /// The first that is fit, and after how many milliseconds one before it takes over again.
    ByOrder(Option<u64>),
}

/// What a source's answers may be like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct AskedSource {
    pub(crate) allow_empty: bool,
    pub(crate) max_servers: usize,
}

/// A server.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AskedServer {
    /// `None` leaves it to be called by its address.
    pub(crate) given_name: Option<&'static str>,
    pub(crate) port: u16,
    pub(crate) weight: u16,
    pub(crate) priority: u8,
    pub(crate) backup: bool,
    /// Whether the operator lets it serve.
    pub(crate) ready: bool,
    pub(crate) zone: Option<&'static str>,
    /// 0 sets no limit.
    pub(crate) max_connections: u32,
}

/// Few names and ports, so that what was removed soon comes back.
const POOLS: [&str; 3] = ["p", "q", "r"];
const SERVERS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
const PORTS: std::ops::Range<u16> = 1001..1009;
const ZONES: [&str; 3] = ["north", "east", "south"];
const MOST_SERVERS: usize = 9;

impl AskedServer {
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn name(&self) -> String {
        self.given_name.map_or_else(|| self.address(), str::to_owned)
    }

    pub(crate) fn any(random: &mut Rng) -> Self {
        Self {
            given_name: (random.u8(..4) > 0).then(|| SERVERS[random.usize(..SERVERS.len())]),
            port: random.u16(PORTS),
            weight: any_weight(random),
            priority: if random.bool() { 0 } else { random.u8(..3) },
            backup: random.u8(..5) == 0,
            ready: random.u8(..8) > 0,
            zone: any_zone(random),
            max_connections: any_limit(random),
        }
    }

    /// As it stands in a list; what is the default is sometimes left out.
    pub(crate) fn text(&self, random: &mut Rng) -> String {
        let Self { given_name, port: _, weight, priority, backup, ready, zone, max_connections } = self;
        let mut say = |default: bool| !default || random.bool();
        let mut keys = vec![format!("address = \"{}\"", self.address())];
        keys.extend(given_name.map(|name| format!("name = \"{name}\"")));
        keys.extend(say(*weight == 1).then(|| format!("weight = {weight}")));
        if *backup {
            keys.push("backup = true".to_owned());
        } else {
            keys.extend(say(*priority == 0).then(|| format!("priority = {priority}")));
            keys.extend(say(true).then(|| "backup = false".to_owned()));
        }
        let state = if *ready { "ready" } else { "drain" };
        keys.extend(say(*ready).then(|| format!("state = {state:?}")));
        keys.extend(zone.map(|zone| format!("zone = \"{zone}\"")));
        keys.extend(say(*max_connections == 0).then(|| format!("max_connections = {max_connections}")));
        if keys.len() == 1 { format!("\"{}\"", self.address()) } else { format!("{{ {} }}", keys.join(", ")) }
    }
}

impl AskedPool {
    fn any(name: &'static str, random: &mut Rng) -> Self {
        let mut pool = Self {
            name,
            balance: any_policy(random),
            check: any_check(random),
            retries: random.usize(..4),
            max_connections: any_limit(random) * 4,
            fail_open: any_share(random),
            queues: random.bool(),
            slow_start: if random.bool() { 0 } else { random.u64(1..20_000) },
            primary: any_primary(random),
            discover: any_source(random),
            servers: Vec::new(),
        };
        (0..random.usize(1..=5)).for_each(|_| pool.add_server(random));
        pool
    }

    fn add_server(&mut self, random: &mut Rng) {
        let server = AskedServer::any(random);
        let taken = self.servers.iter().any(|other| other.name() == server.name());
        if !taken && self.servers.len() < MOST_SERVERS {
            let place = random.usize(..=self.servers.len());
            self.servers.insert(place, server);
        }
    }

    /// Whether its algorithm wants to hear of changes.
    pub(crate) fn is_watching(&self) -> bool {
        match &self.balance {
            Policy::RoundRobin | Policy::Random | Policy::P2c => false,
            Policy::LeastConn | Policy::PeakEwma { .. } => true,
            Policy::SourceHash(hashing) | Policy::Maglev { hashing, .. } | Policy::RingHash(hashing) => {
                hashing.load_factor.is_some()
            }
        }
    }

    /// Whether its check asks the servers what they are.
    pub(crate) fn asks_roles(&self) -> bool {
        self.primary == Some(AskedPrimary::ByRoles)
    }

    fn change(&mut self, random: &mut Rng) {
        if self.servers.is_empty() {
            return self.add_server(random);
        }
        let at = random.usize(..self.servers.len());
        match random.u8(..21) {
            0..3 => self.add_server(random),
            3..5 if self.servers.len() > 1 || self.discover.is_some() => drop(self.servers.remove(at)),
            5 => self.balance = any_policy(random),
            6 => self.check = any_check(random),
            7 => self.servers[at].backup ^= true,
            8 => self.servers[at].max_connections = any_limit(random),
            9 if self.servers[at].given_name.is_some() => self.servers[at].port = random.u16(PORTS),
            10 => random.shuffle(&mut self.servers),
            11 => self.retries = random.usize(..4),
            12 => self.servers[at].priority = random.u8(..3),
            13 => self.servers[at].ready ^= true,
            14 => self.max_connections = any_limit(random) * 4,
            15 => self.fail_open = any_share(random),
            16 => self.queues ^= true,
            17 => self.servers[at].zone = any_zone(random),
            18 => self.primary = any_primary(random),
            19 => self.discover = any_source(random),
            _ => self.servers[at].weight = any_weight(random),
        }
    }
}

impl Asked {
    pub(crate) fn any(random: &mut Rng) -> Self {
        let pools = vec![AskedPool::any(POOLS[0], random), AskedPool::any(POOLS[1], random)];
        let mut asked = Self { zone: any_zone(random), pools };
        asked.make_valid();
        asked
    }

    /// The same with a few changes, or none.
    pub(crate) fn changed(&self, random: &mut Rng) -> Self {
        let mut asked = self.clone();
        for _ in 0..random.usize(..4) {
            let at = random.usize(..asked.pools.len());
            match random.u8(..17) {
                2 => asked.zone = any_zone(random),
                0 if asked.pools.len() > 1 => drop(asked.pools.remove(at)),
                1 => {
                    let free = POOLS.into_iter().find(|name| asked.pools.iter().all(|pool| pool.name != *name));
                    asked.pools.extend(free.map(|name| AskedPool::any(name, random)));
                }
                _ => asked.pools[at].change(random),
            }
        }
        asked.make_valid();
        asked
    }

    /// A pool needs a server with weight.
    fn make_valid(&mut self) {
        for pool in &mut self.pools {
            if pool.asks_roles() {
                pool.check.get_or_insert((2, 3));
            }
            if pool.servers.is_empty() && pool.discover.is_some() {
                continue;
            }
            if pool.servers.is_empty() {
                let server = AskedServer {
                    given_name: Some("only"),
                    port: PORTS.start,
                    weight: 1,
                    priority: 0,
                    backup: false,
                    ready: true,
                    zone: None,
                    max_connections: 0,
                };
                pool.servers.push(server);
            }
            if pool.servers.iter().all(|server| server.weight == 0) {
                pool.servers[0].weight = 1;
            }
        }
    }

    /// The file that asks for it; what is the default is sometimes left out.
    pub(crate) fn text(&self, random: &mut Rng) -> String {
        let mut text = self.zone.map(|zone| format!("zone = \"{zone}\"\n")).unwrap_or_default();
        text += &format!("[listeners.web]\nbind = \"127.0.0.1:9\"\npool = \"{}\"\n", self.pools[0].name);
        for pool in &self.pools {
            let AskedPool { name, balance, check, retries, max_connections, fail_open, queues, .. } = pool;
            let AskedPool { slow_start, primary, discover, servers, .. } = pool;
            let settings = if matches!(balance, Policy::Maglev { .. }) { ", table_size = 251" } else { "" };
            writeln!(text, "[pools.{name}]\nbalance = {{ algorithm = \"{}\"{settings} }}", balance.label()).unwrap();
            writeln!(text, "retries = {retries}").unwrap();
            if *max_connections > 0 || random.bool() {
                writeln!(text, "max_connections = {max_connections}").unwrap();
            }
            if *fail_open > 0 || random.bool() {
                writeln!(text, "fail_open = \"{fail_open}%\"").unwrap();
            }
            if !queues {
                text.push_str("queue = { max = 0 }\n");
            }
            if *slow_start > 0 || random.bool() {
                writeln!(text, "slow_start = \"{slow_start}ms\"").unwrap();
            }
            match primary {
                None => {}
                Some(AskedPrimary::ByRoles | AskedPrimary::ByOrder(None)) => text.push_str("role = \"primary\"\n"),
                Some(AskedPrimary::ByOrder(Some(patience))) => {
                    writeln!(text, "role = \"primary\"\nfailback = \"{patience}ms\"").unwrap();
                }
            }
            if let Some(AskedSource { allow_empty, max_servers }) = discover {
                let terms = format!("allow_loopback = true, allow_empty = {allow_empty}, max_servers = {max_servers}");
                writeln!(text, "discover = {{ type = \"file\", path = \"/lists/{name}.toml\", {terms} }}").unwrap();
            }
            match check {
                None => text.push_str("check = \"none\"\n"),
                Some((rise, fall)) if pool.asks_roles() => {
                    let asked = "type = \"mysql\", user = \"monitor\"";
                    writeln!(text, "check = {{ {asked}, rise = {rise}, fall = {fall} }}").unwrap();
                }
                Some((2, 3)) if random.bool() => {}
                Some((rise, fall)) => writeln!(text, "check = {{ rise = {rise}, fall = {fall} }}").unwrap(),
            }
            if servers.is_empty() {
                continue;
            }
            text.push_str("servers = [\n");
            for server in servers {
                writeln!(text, "  {},", server.text(random)).unwrap();
            }
            text.push_str("]\n");
        }
        text
    }
}

fn any_weight(random: &mut Rng) -> u16 {
    match random.u8(..10) {
        0 => 0,
        1 => random.u16(1..=1000),
        2..6 => 1,
        _ => random.u16(1..=6),
    }
}

fn any_limit(random: &mut Rng) -> u32 {
    if random.bool() { 0 } else { random.u32(1..8) }
}

fn any_share(random: &mut Rng) -> usize {
    if random.u8(..3) > 0 { 0 } else { random.usize(..=100) }
}

fn any_policy(random: &mut Rng) -> Policy {
    let mut policy = Policy::ALL[random.usize(..Policy::ALL.len())].clone();
    if let Policy::Maglev { table_size, .. } = &mut policy {
        // One of the usual size takes too long to lay out thousands of times.
        *table_size = TableSize::new(251).unwrap();
    }
    policy
}

fn any_check(random: &mut Rng) -> Option<(u32, u32)> {
    match random.u8(..4) {
        0 => None,
        1 => Some((2, 3)),
        _ => Some((random.u32(1..=4), random.u32(1..=4))),
    }
}

fn any_zone(random: &mut Rng) -> Option<&'static str> {
    ZONES.get(random.usize(..=ZONES.len())).copied()
}

fn any_primary(random: &mut Rng) -> Option<AskedPrimary> {
    match random.u8(..9) {
        0 => Some(AskedPrimary::ByRoles),
        1 => Some(AskedPrimary::ByOrder(None)),
        2 => Some(AskedPrimary::ByOrder(Some(random.u64(..5000)))),
        _ => None,
    }
}

fn any_source(random: &mut Rng) -> Option<AskedSource> {
    random.bool().then(|| AskedSource { allow_empty: random.bool(), max_servers: random.usize(1..9) })
}
