//! From what the file says to the model: defaults are filled in, references followed, contradictions found. Nothing stops
//! at the first problem.

mod balance;
mod checks;
mod discover;
mod files;
mod health;
mod http;
mod listeners;
mod matches;
mod overlaps;
mod pools;
mod routes;
mod rules;
mod tls;
mod words;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use super::limits::{Demand, Descriptors, Environment};
use super::model::{AccessLog, Admin, AdminHttp, Listener, Log, LogFormat, LogLevel, Model, Pool};
use super::problem::Findings;
use super::raw::{MOST_WORKERS, RawAdmin, RawFile, RawLog};
use super::raw_tls::Texts;
use super::read::At;
use crate::net::address::{BindAddr, Networks};
use crate::units::Name;
use files::Files;
use overlaps::{Claim, Claims};
pub(super) use pools::resolve_list;

/// The model, unless something that was found so far is an error.
pub(super) fn resolve(
    raw: RawFile<'_>,
    base: &Path,
    environment: &Environment,
    findings: &mut Findings,
) -> Option<Model> {
    let RawFile { workers, max_connections, drain_timeout, watch, zone, admin, log, listeners, pools } = raw;
    let (mut claims, mut files) = (Claims::default(), Files::new(base));
    let zone = zone.and_then(|zone| name(&zone, "a name for a zone", findings));
    let admin = resolve_admin(admin, &mut claims, findings);
    let log = resolve_log(log, base, findings);
    listeners::check_references(&listeners, &pools, findings);
    balance::check_keys(&listeners, &pools, findings);
    let wanted: Vec<At<u32>> =
        listeners.iter().filter_map(|listener| listener.body.as_ref()?.max_connections.clone()).collect();
    let mut listeners: Vec<Listener> = listeners
        .into_iter()
        .filter_map(|listener| listeners::resolve(listener, base, &mut claims, &mut files, findings))
        .collect();
    let pools: Vec<Pool> =
        pools.into_iter().filter_map(|pool| pools::resolve(pool, zone.as_ref(), base, &mut files, findings)).collect();

    let workers = workers.map_or_else(|| default_workers(environment), |At { value, .. }| value);
    let descriptors = Descriptors::plan(environment.descriptor_limit, demand(workers, &listeners, &pools));
    check_descriptors(&descriptors, max_connections.iter().chain(&wanted), findings);
    if let Some(whole) = &max_connections {
        warn_of_unreachable(whole.value, &wanted, findings);
    }
    let max_connections = max_connections.map_or_else(|| descriptors.default_connections(), |At { value, .. }| value);
    for listener in &mut listeners {
        listener.max_connections = listener.max_connections.min(max_connections);
    }

    let model = Model {
        workers,
        max_connections,
        descriptors,
        drain_timeout: drain_timeout.map_or(Model::DRAIN_TIMEOUT, |At { value, .. }| value),
        watch: watch.is_none_or(|At { value, .. }| value),
        admin,
        log,
        listeners,
        pools,
        files: files.seen.clone(),
    };
    findings.set_files(files.seen);
    (findings.errors() == 0).then_some(model)
}

fn default_workers(environment: &Environment) -> usize {
    environment.cores.clamp(1, usize::try_from(MOST_WORKERS).unwrap_or(usize::MAX))
}

fn demand(workers: usize, listeners: &[Listener], pools: &[Pool]) -> Demand {
    let active = |pool: &'_ Pool| {
        // There may be as many more as are taken from an answer.
        let found = pool.discover.iter().map(|discover| discover.terms.max_servers).sum::<usize>();
        pool.check.active().map(|active| (active.probe.keeps_connections(), pool.servers.len() + found))
    };
    Demand {
        workers,
        addresses: listeners.iter().map(|listener| listener.bind.len()).sum(),
        checked: pools.iter().filter_map(active).map(|(_, servers)| servers).sum(),
        kept: pools.iter().filter_map(active).filter(|(keeps, _)| *keeps).map(|(_, servers)| servers).sum(),
        sources: pools.iter().map(|pool| pool.discover.len()).sum(),
    }
}

fn check_descriptors<'a>(
    descriptors: &Descriptors,
    wanted: impl Iterator<Item = &'a At<u32>>,
    findings: &mut Findings,
) {
    const HELP: &str = "raise the limit with `LimitNOFILE=` in the systemd unit or `ulimit -n` in the shell";
    let Descriptors { limit, reserve, pipes_per_worker: _, max_connections } = *descriptors;
    if max_connections == 0 {
        let message = format!(
            "this process may have {limit} descriptors open, which leaves none for connections: {reserve} are needed \
             for listening, checks, pipes and logs"
        );
        findings
            .error(None, &message)
            .expected(&format!("a limit of at least {}", descriptors.needed_for(1)))
            .help(HELP);
        return;
    }
    for At { value, span } in wanted.filter(|wanted| wanted.value > max_connections) {
        let message = format!(
            "{value} connections need {} descriptors, and this process may have {limit} open",
            descriptors.needed_for(*value)
        );
        let expected = format!("at most {max_connections}, which the limit has room for");
        findings.error(span.clone(), &message).expected(&expected).help(HELP);
    }
}

fn warn_of_unreachable(whole: u32, wanted: &[At<u32>], findings: &mut Findings) {
    for At { value, span } in wanted.iter().filter(|wanted| wanted.value > whole) {
        let message = format!("the listener never has {value} connections: the process serves {whole} in all");
        findings.warning(span.clone(), &message);
    }
}

fn resolve_admin(admin: Option<RawAdmin<'_>>, claims: &mut Claims, findings: &mut Findings) -> Admin {
    let http = admin.and_then(|RawAdmin { http }| http).and_then(|http| admin_http(&http, claims, findings));
    Admin { http: http.map_or(AdminHttp::Off, AdminHttp::On) }
}

fn admin_http(http: &At<&str>, claims: &mut Claims, findings: &mut Findings) -> Option<SocketAddr> {
    const EXPECTED: &str = "a loopback address and a port such as \"127.0.0.1:9180\" or \"[::1]:9180\"";
    let Ok(address) = http.value.parse::<SocketAddr>() else {
        findings.refused(http.span.clone(), http.value, "an address", &format!("expected {EXPECTED}"));
        return None;
    };
    if !address.ip().is_loopback() {
        let message = "the admin listener has no authentication yet, so it takes a loopback address only";
        findings.error(http.span.clone(), message).expected(EXPECTED);
        return None;
    }
    // Nothing was claimed before it.
    let _: Result<(), Claim> =
        claims.add(Claim { owner: Arc::from("the admin listener"), address: BindAddr::Tcp(address) });
    Some(address)
}

fn resolve_log(log: Option<RawLog<'_>>, base: &Path, findings: &mut Findings) -> Log {
    let (level, format, access, insecure_key_log) = match log {
        Some(RawLog { level, format, access, insecure_key_log }) => (level, format, access, insecure_key_log),
        None => (None, None, None, None),
    };
    if let Some(At { value: true, span }) = &insecure_key_log {
        let message = "whoever can read the file that SSLKEYLOGFILE names can read every TLS connection";
        findings.warning(span.clone(), message).help("leave `insecure_key_log` out when you have seen what you need");
    }
    Log {
        level: level.map_or(LogLevel::Info, |At { value, .. }| value),
        format: format.map_or(LogFormat::Auto, |At { value, .. }| value),
        access: access.map_or(AccessLog::Off, |access| access_log(&access, base, findings)),
        insecure_key_log: insecure_key_log.is_some_and(|At { value, .. }| value),
    }
}

fn access_log(access: &At<&str>, base: &Path, findings: &mut Findings) -> AccessLog {
    match access.value {
        "off" => AccessLog::Off,
        "stdout" => AccessLog::Stdout,
        "stderr" => AccessLog::Stderr,
        "" => {
            findings
                .error(access.span.clone(), "`access` cannot be empty")
                .expected("`off`, `stdout`, `stderr` or the path of a file");
            AccessLog::Off
        }
        path => AccessLog::File(base.join(path)),
    }
}

/// The name of a listener, pool or server.
fn name(name: &At<&str>, what: &str, findings: &mut Findings) -> Option<Name> {
    match Name::parse(name.value) {
        Ok(name) => Some(name),
        Err(why) => {
            findings.refused(name.span.clone(), name.value, what, &why);
            None
        }
    }
}

/// A list of networks.
fn networks(list: Texts<'_>, findings: &mut Findings) -> Networks {
    let mut networks = Networks::default();
    for At { value: text, span } in list.value.into_iter().flatten() {
        if let Err(why) = networks.add(text) {
            findings.refused(span, text, "a network", &why);
        }
    }
    networks
}
