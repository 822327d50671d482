//! What a reload has to do, from what was and what is to be: pure, so that it can be read and tested without sockets.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::config::model::{Model, Pool};
use crate::net::address::{BindAddr, Endpoint};
use crate::units::Name;

/// A listening address and the listener it belongs to.
pub(super) type Binding = (Name, BindAddr);

/// What a reload has to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Addresses to listen on anew, with the backlog, and whether a socket of ours that is to close stands in the way.
    pub(super) open: Vec<Opening>,
    /// Addresses to stop listening on.
    pub(super) close: Vec<Binding>,
    /// Addresses whose sockets stay and change hands, or backlog.
    pub(super) adopt: Vec<Adoption>,
    /// Listeners that are no more.
    pub(super) removed_listeners: Vec<Name>,
    /// What differs, for people; empty when nothing does.
    pub(super) changes: Vec<String>,
    /// What differs and takes effect only when the process starts anew.
    pub(super) needs_restart: Vec<&'static str>,
}

/// An address to listen on anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Opening {
    pub(super) binding: Binding,
    pub(super) backlog: u32,
    /// Whether one of our own sockets on the same port closes in the same reload.
    pub(super) displaces: bool,
}

/// A listening socket that changes hands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Adoption {
    pub(super) from: Binding,
    pub(super) to: Name,
    pub(super) backlog: u32,
}

/// Compares two models.
pub(super) fn reconcile(old: &Model, new: &Model) -> Plan {
    let mut plan = Plan::default();
    plan_sockets(old, new, &mut plan);
    let names = |model: &Model| model.listeners.iter().map(|l| l.name.clone()).collect::<BTreeSet<_>>();
    plan.removed_listeners = names(old).difference(&names(new)).cloned().collect();
    describe("listener", &old.listeners, &new.listeners, |l| &l.name, &mut plan.changes);
    describe_pools(&old.pools, &new.pools, &mut plan.changes);
    if old.drain_timeout != new.drain_timeout {
        plan.changes.push("drain_timeout changed".to_owned());
    }
    if old.max_connections != new.max_connections {
        plan.changes.push(format!("max_connections {} -> {}", old.max_connections, new.max_connections));
    }
    let restart = [
        ("workers", old.workers != new.workers),
        ("watch", old.watch != new.watch),
        ("admin", old.admin != new.admin),
        ("log", old.log != new.log),
    ];
    plan.needs_restart = restart.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect();
    plan
}

fn bindings(model: &Model) -> impl Iterator<Item = (Binding, u32)> {
    model.listeners.iter().flat_map(|listener| {
        listener.bind.iter().map(move |bind| ((listener.name.clone(), bind.clone()), listener.backlog))
    })
}

fn plan_sockets(old: &Model, new: &Model, plan: &mut Plan) {
    let wanted: HashSet<Binding> = bindings(new).map(|(binding, _)| binding).collect();
    let had: HashMap<Binding, u32> = bindings(old).collect();
    // Sockets whose listener no longer wants them, by address: another listener may.
    let mut orphans: HashMap<BindAddr, Name> = had
        .keys()
        .filter(|binding| !wanted.contains(*binding) && is_fixed(&binding.1))
        .map(|(name, address)| (address.clone(), name.clone()))
        .collect();
    let mut openings = Vec::new();
    for (binding, backlog) in bindings(new) {
        match had.get(&binding) {
            Some(before) if *before == backlog => {}
            Some(_) => plan.adopt.push(Adoption { to: binding.0.clone(), from: binding, backlog }),
            None => match orphans.remove(&binding.1) {
                Some(owner) => plan.adopt.push(Adoption { from: (owner, binding.1), to: binding.0, backlog }),
                None => openings.push((binding, backlog)),
            },
        }
    }
    let adopted: HashSet<&Binding> = plan.adopt.iter().map(|adoption| &adoption.from).collect();
    let close: Vec<Binding> = bindings(old)
        .map(|(binding, _)| binding)
        .filter(|binding| !wanted.contains(binding) && !adopted.contains(binding))
        .collect();
    plan.open = openings
        .into_iter()
        .map(|(binding, backlog)| {
            let displaces = close.iter().any(|(_, closing)| port(closing).is_some_and(|p| Some(p) == port(&binding.1)));
            Opening { binding, backlog, displaces }
        })
        .collect();
    plan.close = close;
}

/// Whether the address means one socket only, and not "any free port", which is another each time.
fn is_fixed(address: &BindAddr) -> bool {
    port(address) != Some(0)
}

fn port(address: &BindAddr) -> Option<u16> {
    match address {
        BindAddr::Tcp(address) => Some(address.port()),
        BindAddr::Dual(port) => Some(*port),
        BindAddr::Unix(_) => None,
    }
}

fn describe<T: PartialEq>(kind: &str, old: &[T], new: &[T], name: impl Fn(&T) -> &Name, changes: &mut Vec<String>) {
    let before: HashMap<&Name, &T> = old.iter().map(|item| (name(item), item)).collect();
    let after: HashSet<&Name> = new.iter().map(&name).collect();
    for item in new {
        match before.get(name(item)) {
            None => changes.push(format!("{kind} {} added", name(item))),
            Some(was) if *was != item => changes.push(format!("{kind} {} changed", name(item))),
            Some(_) => {}
        }
    }
    for item in old.iter().filter(|item| !after.contains(name(item))) {
        changes.push(format!("{kind} {} removed", name(item)));
    }
}

fn describe_pools(old: &[Pool], new: &[Pool], changes: &mut Vec<String>) {
    // Settings and servers apart: a pool whose servers alone differ is told by its servers.
    let bare = |pool: &Pool| Pool { servers: Vec::new(), ..pool.clone() };
    let (old_bare, new_bare): (Vec<_>, Vec<_>) = (old.iter().map(bare).collect(), new.iter().map(bare).collect());
    describe("pool", &old_bare, &new_bare, |pool| &pool.name, changes);
    let before: HashMap<&Name, &Pool> = old.iter().map(|pool| (&pool.name, pool)).collect();
    for pool in new {
        if let Some(was) = before.get(&pool.name) {
            let kind = format!("server {}/", pool.name);
            let mut of_pool = Vec::new();
            describe("", &was.servers, &pool.servers, |server| &server.name, &mut of_pool);
            changes.extend(of_pool.into_iter().map(|change| format!("{kind}{}", change.trim_start())));
        }
    }
}

/// Where a listener that was asked for an address is really found.
pub(super) fn shown(address: &BindAddr, endpoint: &Endpoint) -> String {
    if is_fixed(address) { address.to_string() } else { endpoint.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, load_text};
    use std::path::Path;

    fn model(listeners: &str) -> Model {
        let text = format!("{listeners}\n[pools.p]\nservers = [\"127.0.0.1:1\"]\n");
        let environment = Environment { descriptor_limit: 20_000, cores: 2 };
        load_text(&text, "test", Path::new("/"), &environment).unwrap_or_else(|p| panic!("{}", p.human(false))).model
    }

    fn binding(name: &str, address: &str) -> Binding {
        (Name::new(name), BindAddr::parse(address, Path::new("/")).unwrap().remove(0))
    }

    #[test]
    fn a_listener_that_stays_keeps_its_sockets() {
        let old = model("[listeners.a]\nbind = \"127.0.0.1:80\"\npool = \"p\"");
        let new = model("[listeners.a]\nbind = \"127.0.0.1:80\"\npool = \"p\"\ntimeouts = { idle = \"1h\" }");
        let plan = reconcile(&old, &new);
        assert!(plan.open.is_empty() && plan.close.is_empty() && plan.adopt.is_empty());
        assert_eq!(plan.changes, ["listener a changed"]);
        assert_eq!(reconcile(&old, &old), Plan::default());
    }

    #[test]
    fn a_socket_whose_listener_is_renamed_changes_hands() {
        let old = model("[listeners.a]\nbind = \"127.0.0.1:80\"\npool = \"p\"");
        let new = model("[listeners.b]\nbind = \"127.0.0.1:80\"\npool = \"p\"");
        let plan = reconcile(&old, &new);
        assert!(plan.open.is_empty() && plan.close.is_empty());
        assert_eq!(plan.adopt.len(), 1);
        assert_eq!((&plan.adopt[0].from, plan.adopt[0].to.as_str()), (&binding("a", "127.0.0.1:80"), "b"));
        assert_eq!(plan.removed_listeners, [Name::new("a")]);
    }

    #[test]
    fn a_wider_address_on_the_same_port_displaces_the_narrower() {
        let old = model("[listeners.a]\nbind = \"127.0.0.1:80\"\npool = \"p\"");
        let new = model("[listeners.a]\nbind = \"0.0.0.0:80\"\npool = \"p\"");
        let plan = reconcile(&old, &new);
        assert_eq!(plan.close, [binding("a", "127.0.0.1:80")]);
        assert!(plan.open[0].displaces);
    }

    #[test]
    fn any_free_port_is_kept_by_its_listener_and_never_given_to_another() {
        let old = model("[listeners.a]\nbind = \"127.0.0.1:0\"\npool = \"p\"");
        assert_eq!(reconcile(&old, &old), Plan::default());
        let new = model("[listeners.b]\nbind = \"127.0.0.1:0\"\npool = \"p\"");
        let plan = reconcile(&old, &new);
        assert_eq!((plan.open.len(), plan.close.len(), plan.adopt.len()), (1, 1, 0));
    }

    #[test]
    fn what_needs_a_restart_is_said_and_not_done() {
        let old = model("[listeners.a]\nbind = 80\npool = \"p\"");
        let new = model("workers = 7\n[log]\nlevel = \"warn\"\n[listeners.a]\nbind = 80\npool = \"p\"");
        assert_eq!(reconcile(&old, &new).needs_restart, ["workers", "log"]);
    }
}
