//! How a pool chooses: an algorithm and the settings that mean something to it.

use super::listeners::references;
use crate::balance::{Hashing, KeySource, Policy, TableSize};
use crate::config::problem::{Findings, Span, choice, quoted};
use crate::config::raw::{RawListener, RawPool, Spoken};
use crate::config::raw_balance::RawBalance;
use crate::config::read::{At, Named};

/// The algorithm for so many servers; the default one where what is written cannot be read.
pub(super) fn resolve(raw: RawBalance<'_>, servers: usize, findings: &mut Findings) -> Policy {
    let RawBalance { algorithm, key, load_factor, table_size, decay } = raw;
    let Some(At { value: algorithm, .. }) = algorithm else { return Policy::default() };
    let refuse = |name: &str, span: Option<&Span>, takes: fn(&Policy) -> bool, findings: &mut Findings| {
        if let Some(span) = span.filter(|_| !takes(algorithm)) {
            let label = algorithm.label();
            let those = Policy::ALL.iter().filter(|policy| takes(policy)).map(Policy::label);
            findings
                .error(span.clone(), &format!("`{name}` means nothing to the algorithm `{label}`"))
                .help(&format!("it is for {}", choice(those)));
        }
    };
    let hashes = |policy: &Policy| policy.hashing().is_some();
    refuse("key", key.as_ref().map(|key| &key.span), hashes, findings);
    refuse("load_factor", load_factor.as_ref().map(|factor| &factor.span), hashes, findings);
    let has_table = |policy: &Policy| matches!(policy, Policy::Maglev { .. });
    refuse("table_size", table_size.as_ref().map(|size| &size.span), has_table, findings);
    let forgets = |policy: &Policy| matches!(policy, Policy::PeakEwma { .. });
    refuse("decay", decay.as_ref().map(|decay| &decay.span), forgets, findings);
    let key = key.and_then(|At { value: text, span }| match KeySource::parse(text) {
        Ok(key) => Some(key),
        Err(why) => {
            findings.refused(span, text, "what a server is chosen by", &why);
            None
        }
    });
    let with = |hashing: &Hashing| Hashing {
        key: key.clone().unwrap_or_else(|| hashing.key.clone()),
        load_factor: load_factor.as_ref().map_or(hashing.load_factor, |At { value, .. }| *value),
    };
    match algorithm {
        Policy::RoundRobin | Policy::LeastConn | Policy::Random | Policy::P2c => algorithm.clone(),
        Policy::PeakEwma { decay: default } => {
            Policy::PeakEwma { decay: decay.map_or(*default, |At { value, .. }| value) }
        }
        Policy::SourceHash(hashing) => Policy::SourceHash(with(hashing)),
        Policy::RingHash(hashing) => Policy::RingHash(with(hashing)),
        Policy::Maglev { hashing, table_size: default } => {
            let size = table_size.and_then(|size| resolve_table_size(&size, servers, findings));
            Policy::Maglev { hashing: with(hashing), table_size: size.unwrap_or(*default) }
        }
    }
}

/// A prime with room for the servers.
fn resolve_table_size(size: &At<u32>, servers: usize, findings: &mut Findings) -> Option<TableSize> {
    let Some(table_size) = TableSize::new(size.value) else {
        let near = TableSize::at_least(size.value).get();
        findings
            .error(
                size.span.clone(),
                &format!("{} is no prime number, so that not every slot would be found", size.value),
            )
            .expected(&format!("a prime number such as {near}"));
        return None;
    };
    let slots = size.value as usize / servers.max(1);
    if slots < FEW_SLOTS {
        let enough =
            u32::try_from(servers.saturating_mul(100)).map_or(TableSize::MOST, |most| TableSize::at_least(most).get());
        let message =
            format!("{servers} servers have {slots} slots each in such a table, and are off their shares by one");
        findings.warning(size.span.clone(), &message).help(&format!("{enough} makes that 1 %"));
    }
    Some(table_size)
}

/// So few slots a server that it is off its share by more than 5 %.
const FEW_SLOTS: usize = 20;

/// Checks that what the servers of a pool are chosen by is there on a connection of some listener that leads to it.
pub(super) fn check_keys(
    listeners: &[Named<'_, RawListener<'_>>],
    pools: &[Named<'_, RawPool<'_>>],
    findings: &mut Findings,
) {
    if !findings.complete() {
        return;
    }
    for Named { name: pool, body } in pools {
        let key = body.as_ref().and_then(|body| body.balance.as_ref()?.key.as_ref());
        let Some((key, source)) = key.and_then(|key| Some((key, KeySource::parse(key.value).ok()?))) else { continue };
        let mut users = listeners.iter().filter(|listener| {
            let references = references(listener.body.as_ref());
            references.iter().any(|reference| reference.is_none_or(|name| name.value == pool.value))
        });
        let mut is_used = false;
        let has_it = users.any(|listener| {
            is_used = true;
            listener.body.as_ref().is_none_or(|listener| has(listener, &source))
        });
        if !is_used || has_it {
            continue;
        }
        let (what, needed) = match source.is_of_requests() {
            true => ("requests", "`protocol = \"http\"`"),
            false => ("handshakes of TLS", "`sni` or `tls`"),
        };
        let message = format!("{} is a part of {what}, and no listener that leads here reads any", quoted(key.value));
        findings.error(key.span.clone(), &message).expected(&format!("`source`, or a listener with {needed}"));
    }
}

/// Whether what comes in at a listener has what is to be hashed. One that could not be read may have it.
fn has(listener: &RawListener<'_>, source: &KeySource) -> bool {
    match source {
        KeySource::Source => true,
        KeySource::Sni => listener.sni.is_some() || listener.tls.is_some(),
        KeySource::Header(_) | KeySource::Cookie(_) | KeySource::Path | KeySource::Query(_) => {
            listener.protocol != Some(Spoken::Tcp)
        }
    }
}
