//! Checks: when they probe, where, and what each kind of them says and hears.

use std::sync::Arc;

use super::files::Files;
use super::{health, tls};
use crate::config::model::Server;
use crate::config::problem::{Findings, quoted};
use crate::config::raw_check::{CheckKind, RawAccount, RawCheck, RawStep};
use crate::config::read::At;
use crate::health::{
    Account, Active, AgentProbe, Check, GrpcProbe, Handshake, HttpVersion, Probe, Script, Step, Timing,
};
use crate::tls::ServerSettings;
use crate::units::{Secret, format_duration, parse_port};

/// The most bytes of a password.
const LONGEST_PASSWORD: u64 = 4096;
/// The most bytes of the name of a user or a database; servers have 63 or 64 at most.
const LONGEST_NAME: usize = 128;
/// The most bytes that an agent is sent.
const LONGEST_QUESTION: usize = 1024;

/// What a check has to know of its pool.
pub(super) struct Context<'p> {
    /// What is asked of its servers if TLS is spoken to them.
    pub(super) tls: Option<&'p Arc<ServerSettings>>,
    /// The version of HTTP that they are spoken to.
    pub(super) version: HttpVersion,
    pub(super) servers: &'p [Server],
}

/// The check of a pool; of one that speaks TLS to its servers it shakes hands as well, unless it is told otherwise.
pub(super) fn resolve(raw: RawCheck<'_>, pool: &Context<'_>, files: &mut Files<'_>, findings: &mut Findings) -> Check {
    if !raw.refused {
        check_order(&raw, findings);
    }
    let timing = timing(&raw);
    let RawCheck {
        kind,
        interval: _,
        fast_interval: _,
        down_interval: _,
        timeout: _,
        rise: _,
        fall: _,
        initial: _,
        port,
        tls,
        server_name,
        ca,
        reuse,
        host,
        http,
        service,
        steps,
        account,
        send,
        refused,
    } = raw;
    let default = if pool.tls.is_some() { CheckKind::Tls } else { CheckKind::Tcp };
    let place = kind.as_ref().map(|At { span, .. }| span.clone());
    let kind = kind.map_or(default, |At { value, .. }| value);
    let speaks_tls =
        kind == CheckKind::Tls || kind.may_speak_tls() && tls.map_or(pool.tls.is_some(), |At { value, .. }| value);
    for (key, unused) in [("server_name", &server_name), ("ca", &ca)] {
        if let Some(At { span, .. }) = unused.as_ref().filter(|_| !speaks_tls) {
            findings
                .error(span.clone(), &format!("`{key}` of a check means nothing unless it speaks TLS"))
                .expected("a check of the type `tls`, or `tls = true` where it can have that");
        }
    }
    if let Some(At { span, .. }) = ca.as_ref().filter(|_| speaks_tls && pool.tls.is_some()) {
        let message = "`ca` of a check means nothing in a pool with `tls`, whose roots are those of its checks";
        findings.error(span.clone(), message);
    }
    // Where traffic shakes hands first so does the check; where it does not, the protocols of databases have words for it.
    let upgrades = pool.tls.is_none() && matches!(kind, CheckKind::Postgres | CheckKind::MySql);
    let settings = if speaks_tls {
        tls::resolve_check(server_name.as_ref(), ca.as_ref(), pool.tls, files, findings)
    } else {
        None
    };
    let settings = settings.map(|settings| Handshake { settings, upgrades });
    let reuse = reuse.is_some_and(|At { value, .. }| value);
    let elsewhere = port.is_some() || pool.servers.iter().any(|server| server.check_address.is_some());
    let port = port.and_then(|port| resolve_port(&port, findings));
    let needs = |key: &str, findings: &mut Findings| {
        if !refused {
            findings.error(place.clone(), &format!("a check of the type `{}` needs the key `{key}`", kind.label()));
        }
    };
    let probe = match kind {
        CheckKind::None => return Check::None,
        CheckKind::Tcp => Some(Probe::Tcp),
        CheckKind::Tls => settings.is_some().then_some(Probe::Tls),
        CheckKind::Http => health::resolve_http(http, host.as_ref(), pool.version, reuse, findings)
            .map(|probe| Probe::Http(Arc::new(probe))),
        CheckKind::Grpc => {
            let service = service.map_or(Some(""), |service| {
                fitting(&service, "the name of a service", 0, GrpcProbe::LONGEST_SERVICE, findings)
            });
            let host = host.and_then(|host| health::resolve_host(&host, findings));
            service.map(|service| Probe::Grpc(Arc::new(GrpcProbe { service: service.into(), host, reuse })))
        }
        CheckKind::SendExpect => match steps {
            Some(steps) => Some(Probe::SendExpect(Arc::new(resolve_steps(steps, findings)))),
            None => {
                needs("steps", findings);
                None
            }
        },
        CheckKind::Postgres => Some(Probe::Postgres(resolve_account(account, files, findings))),
        CheckKind::MySql => Some(Probe::MySql(resolve_account(account, files, findings))),
        CheckKind::Agent => {
            if !elsewhere {
                needs("port", findings);
            }
            let send = send.and_then(|send| fitting(&send, "what an agent is sent", 0, LONGEST_QUESTION, findings));
            Some(Probe::Agent(Arc::new(AgentProbe { send: send.unwrap_or_default().as_bytes().into() })))
        }
    };
    // Whatever is missing was reported.
    Check::Active(Active { probe: probe.unwrap_or(Probe::Tcp), timing, tls: settings, port })
}

fn timing(raw: &RawCheck<'_>) -> Timing {
    let default = Timing::default();
    let interval = raw.interval.as_ref().map_or(default.interval, |At { value, .. }| *value);
    Timing {
        interval,
        fast_interval: raw
            .fast_interval
            .as_ref()
            .map_or_else(|| default.fast_interval.min(interval), |At { value, .. }| *value),
        down_interval: raw.down_interval.as_ref().map_or(interval, |At { value, .. }| *value),
        // A shorter interval alone is a wish for quicker checks and not a mistake.
        timeout: raw.timeout.as_ref().map_or(default.timeout.min(interval / 2), |At { value, .. }| *value),
        rise: raw.rise.as_ref().map_or(default.rise, |At { value, .. }| *value),
        fall: raw.fall.as_ref().map_or(default.fall, |At { value, .. }| *value),
        initial: raw.initial.as_ref().map_or(default.initial, |At { value, .. }| *value),
    }
}

/// Checks that one probe ends before the next begins, and that the fast interval is the shorter one.
fn check_order(raw: &RawCheck<'_>, findings: &mut Findings) {
    let Timing { interval, fast_interval, down_interval: _, timeout, rise: _, fall: _, initial: _ } = timing(raw);
    let [every, fast, limit] = [interval, fast_interval, timeout].map(format_duration);
    if timeout >= interval
        && let Some(At { span, .. }) = raw.timeout.as_ref().or(raw.interval.as_ref())
    {
        let message = format!("the `timeout` of a check ({limit}) is not shorter than its `interval` ({every})");
        findings.error(span.clone(), &message).expected("a `timeout` shorter than the `interval`");
    }
    if fast_interval > interval
        && let Some(At { span, .. }) = &raw.fast_interval
    {
        let message = format!("the `fast_interval` of a check ({fast}) is longer than its `interval` ({every})");
        findings.error(span.clone(), &message).expected("a `fast_interval` no longer than the `interval`");
    }
}

fn resolve_port(port: &At<String>, findings: &mut Findings) -> Option<u16> {
    match parse_port(&port.value) {
        Ok(0) => {
            findings.error(port.span.clone(), "nothing can be checked on port 0").expected("a port from 1 to 65535");
            None
        }
        Ok(number) => Some(number),
        Err(why) => {
            findings.refused(port.span.clone(), &port.value, "a port", &why);
            None
        }
    }
}

/// A text of at least and at most so many bytes.
fn fitting<'t>(text: &At<&'t str>, what: &str, least: usize, most: usize, findings: &mut Findings) -> Option<&'t str> {
    if (least..=most).contains(&text.value.len()) {
        return Some(text.value);
    }
    findings
        .error(text.span.clone(), &format!("{what} cannot be {} bytes long", text.value.len()))
        .expected(&format!("{least} to {most} bytes"));
    None
}

/// Who asks a database, if somebody in particular does.
fn resolve_account(raw: RawAccount<'_>, files: &mut Files<'_>, findings: &mut Findings) -> Option<Arc<Account>> {
    let RawAccount { user, password_file, database } = raw;
    let Some(user) = user else {
        for (key, unused) in [("password_file", &password_file), ("database", &database)] {
            if let Some(At { span, .. }) = unused {
                findings.error(span.clone(), &format!("`{key}` of a check means nothing without a `user`"));
            }
        }
        return None;
    };
    let mut name = |text: &At<&str>, what: &str| {
        let fits = fitting(text, what, 1, LONGEST_NAME, findings)?;
        if fits.contains('\0') {
            findings.error(text.span.clone(), &format!("{what} cannot have a zero byte"));
        }
        Some(Box::from(fits))
    };
    let user = name(&user, "the name of a user");
    let database = database.and_then(|database| name(&database, "the name of a database"));
    let password = password_file.and_then(|file| {
        let mut bytes = files.read_secret_up_to(LONGEST_PASSWORD, &file, findings)?;
        // As editors and `echo` leave it.
        bytes.truncate(bytes.trim_ascii_end().len());
        if bytes.is_empty() || bytes.contains(&0) {
            findings.error(file.span, &format!("{} holds no password", quoted(file.value))).expected("a line of text");
        }
        Some(Secret::new(bytes))
    });
    Some(Arc::new(Account { user: user?, password, database }))
}

fn resolve_steps(raw: At<Vec<Option<RawStep<'_>>>>, findings: &mut Findings) -> Script {
    if !(1..=Script::MOST_STEPS).contains(&raw.value.len()) {
        findings
            .error(raw.span.clone(), &format!("`steps` of a check cannot have {} entries", raw.value.len()))
            .expected(&format!("1 to {} entries", Script::MOST_STEPS));
    }
    let written = raw.value.len();
    let steps: Vec<Step> = raw.value.into_iter().flatten().filter_map(|step| resolve_step(&step, findings)).collect();
    if steps.len() == written && !steps.iter().any(|step| matches!(step, Step::Expect(_))) && written > 0 {
        findings.warning(raw.span, "no step of this check expects anything, so whatever can be connected to passes");
    }
    Script { steps }
}

fn resolve_step(step: &RawStep<'_>, findings: &mut Findings) -> Option<Step> {
    const WHAT: &str = "a step of a check";
    let mut text =
        |text: &At<&str>| fitting(text, WHAT, 1, Script::LONGEST_STEP, findings).map(|text| text.as_bytes().into());
    match step {
        RawStep::Send(bytes) => text(bytes).map(Step::Send),
        RawStep::Expect(bytes) => text(bytes).map(Step::Expect),
        RawStep::SendHex(hex) => bytes_in(hex, findings).map(Step::Send),
        RawStep::ExpectHex(hex) => bytes_in(hex, findings).map(Step::Expect),
    }
}

/// Bytes in hex, two digits each, perhaps apart from each other.
fn bytes_in(hex: &At<&str>, findings: &mut Findings) -> Option<Box<[u8]>> {
    let digits: Option<Vec<u8>> = hex
        .value
        .chars()
        .filter(|c| !c.is_ascii_whitespace())
        .map(|digit| u8::try_from(digit.to_digit(16)?).ok())
        .collect();
    let pairs =
        digits.filter(|digits| digits.len() % 2 == 0 && (1..=Script::LONGEST_STEP).contains(&(digits.len() / 2)));
    let bytes = pairs.map(|digits| {
        let pair = |pair: &[u8]| pair.iter().fold(0, |byte, digit| byte << 4 | digit);
        digits.chunks(2).map(pair).collect()
    });
    if bytes.is_none() {
        let why = format!("expected 1 to {} bytes of two digits each, such as \"0d 0a\"", Script::LONGEST_STEP);
        findings.refused(hex.span.clone(), hex.value, "a step in hex", &why);
    }
    bytes
}
