//! What the file says of checks, with the place where it says it. Which key is for which kind of check stands here.

use std::time::Duration;

use super::keys::Section;
use super::problem::choice;
use super::read::{At, ByName, Either, Field, Fields, Read};
use crate::health::Initial;

/// The most probes in a row a change of health can be made to take.
const MOST_PROBES: i64 = 100;

/// What a check does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckKind {
    None,
    Tcp,
    Tls,
    Http,
    Grpc,
    SendExpect,
    Postgres,
    MySql,
    Agent,
}

impl CheckKind {
    const ALL: &'static [(&'static str, Self)] = &[
        ("tcp", Self::Tcp),
        ("tls", Self::Tls),
        ("http", Self::Http),
        ("grpc", Self::Grpc),
        ("send_expect", Self::SendExpect),
        ("postgres", Self::Postgres),
        ("mysql", Self::MySql),
        ("agent", Self::Agent),
        ("none", Self::None),
    ];

    /// The keys that are not for every kind, with the kinds they are for.
    const KEYS: &'static [(&'static str, &'static [Self])] = &[
        ("tls", &[Self::Http, Self::Grpc, Self::SendExpect, Self::Postgres, Self::MySql]),
        ("reuse", &[Self::Http, Self::Grpc]),
        ("method", &[Self::Http]),
        ("path", &[Self::Http]),
        ("host", &[Self::Http, Self::Grpc]),
        ("headers", &[Self::Http]),
        ("status", &[Self::Http]),
        ("body", &[Self::Http]),
        ("service", &[Self::Grpc]),
        ("steps", &[Self::SendExpect]),
        ("user", &[Self::Postgres, Self::MySql]),
        ("password_file", &[Self::Postgres, Self::MySql]),
        ("database", &[Self::Postgres, Self::MySql]),
        ("send", &[Self::Agent]),
    ];

    pub(super) fn label(self) -> &'static str {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or("none", |(label, _)| label)
    }

    /// Whether it begins with a handshake if it is told to, and in a pool with `tls` unless it is told not to.
    pub(super) fn may_speak_tls(self) -> bool {
        Self::KEYS.iter().any(|(key, kinds)| *key == "tls" && kinds.contains(&self))
    }
}

#[derive(Debug, Default)]
pub(super) struct RawCheck<'t> {
    pub(super) kind: Option<At<CheckKind>>,
    pub(super) interval: Option<At<Duration>>,
    pub(super) fast_interval: Option<At<Duration>>,
    pub(super) down_interval: Option<At<Duration>>,
    pub(super) timeout: Option<At<Duration>>,
    pub(super) rise: Option<At<u32>>,
    pub(super) fall: Option<At<u32>>,
    pub(super) initial: Option<At<Initial>>,
    pub(super) port: Option<At<String>>,
    pub(super) tls: Option<At<bool>>,
    pub(super) server_name: Option<At<&'t str>>,
    pub(super) ca: Option<At<&'t str>>,
    pub(super) reuse: Option<At<bool>>,
    pub(super) host: Option<At<&'t str>>,
    pub(super) http: RawHttpProbe<'t>,
    pub(super) service: Option<At<&'t str>>,
    pub(super) steps: Option<At<Vec<Option<RawStep<'t>>>>>,
    pub(super) account: RawAccount<'t>,
    pub(super) send: Option<At<&'t str>>,
    /// Whether a value was refused: nothing is to be concluded from the others then.
    pub(super) refused: bool,
}

/// The keys of a check that are for its type `http` alone.
#[derive(Debug, Default)]
pub(super) struct RawHttpProbe<'t> {
    pub(super) method: Option<At<&'t str>>,
    pub(super) path: Option<At<&'t str>>,
    pub(super) headers: Option<ByName<'t>>,
    pub(super) status: Option<At<Vec<Option<At<String>>>>>,
    pub(super) body: Option<At<&'t str>>,
}

/// The keys of a check that are for databases.
#[derive(Debug, Default)]
pub(super) struct RawAccount<'t> {
    pub(super) user: Option<At<&'t str>>,
    pub(super) password_file: Option<At<&'t str>>,
    pub(super) database: Option<At<&'t str>>,
}

impl<'t> RawCheck<'t> {
    /// `check` is the word for a kind of check, or a table.
    pub(super) fn either(field: Field<'t, '_>) -> Option<Self> {
        match field.table_or(check_kind)? {
            Either::Table(check) => Some(check),
            Either::Short(kind) => Some(Self { kind: Some(kind), ..Self::default() }),
        }
    }
}

impl<'t> Read<'t> for RawCheck<'t> {
    const SECTION: Section = Section::Check;

    fn read(fields: &mut Fields<'t, '_>) -> Self {
        let before = fields.problems();
        let mut check = Self {
            kind: check_kind(fields.optional("type")),
            interval: fields.optional("interval").deadline(),
            fast_interval: fields.optional("fast_interval").deadline(),
            down_interval: fields.optional("down_interval").deadline(),
            timeout: fields.optional("timeout").deadline(),
            rise: fields.optional("rise").whole_number(1..=MOST_PROBES),
            fall: fields.optional("fall").whole_number(1..=MOST_PROBES),
            initial: fields.optional("initial").word(&[
                ("check", Initial::Check),
                ("up", Initial::Up),
                ("down", Initial::Down),
            ]),
            port: fields.optional("port").text_or_number("a port number or the name of a service"),
            tls: fields.optional("tls").boolean(),
            server_name: fields.optional("server_name").text(),
            ca: fields.optional("ca").text(),
            reuse: fields.optional("reuse").boolean(),
            host: fields.optional("host").text(),
            http: RawHttpProbe {
                method: fields.optional("method").text(),
                path: fields.optional("path").text(),
                headers: fields.optional("headers").texts_by_name(),
                status: fields
                    .optional("status")
                    .one_or_many(|entry| entry.text_or_number("a status such as 200, or a range such as \"200-299\"")),
                body: fields.optional("body").text(),
            },
            service: fields.optional("service").text(),
            steps: fields.optional("steps").list(|entry| entry.table::<Option<_>>().flatten()),
            account: RawAccount {
                user: fields.optional("user").text(),
                password_file: fields.optional("password_file").text(),
                database: fields.optional("database").text(),
            },
            send: fields.optional("send").text(),
            refused: false,
        };
        check.refused = fields.problems() > before;
        // Of an unknown type nobody can say which keys are its.
        if !fields.has("type") || check.kind.is_some() {
            refuse_others(check.kind.as_ref().map(|At { value, .. }| *value), fields);
        }
        check
    }
}

/// Reports the keys that are for checks of other kinds; one that names none connects, perhaps by TLS.
fn refuse_others(kind: Option<CheckKind>, fields: &mut Fields<'_, '_>) {
    for (key, kinds) in CheckKind::KEYS {
        if kind.is_some_and(|kind| kinds.contains(&kind)) {
            continue;
        }
        let types = choice(kinds.iter().map(|kind| kind.label()));
        fields.refuse(key, &format!("`{key}` of a check means nothing unless its type is {types}"));
    }
}

fn check_kind(field: Field<'_, '_>) -> Option<At<CheckKind>> {
    field.word(CheckKind::ALL)
}

/// One step of a check of the type `send_expect`: what is sent or expected, as text or as bytes in hex.
#[derive(Debug)]
pub(super) enum RawStep<'t> {
    Send(At<&'t str>),
    SendHex(At<&'t str>),
    Expect(At<&'t str>),
    ExpectHex(At<&'t str>),
}

impl<'t> Read<'t> for Option<RawStep<'t>> {
    const SECTION: Section = Section::CheckStep;

    fn read(fields: &mut Fields<'t, '_>) -> Self {
        fields.one_of(Self::SECTION.keys());
        let send = fields.optional("send").text().map(RawStep::Send);
        let send_hex = fields.optional("send_hex").text().map(RawStep::SendHex);
        let expect = fields.optional("expect").text().map(RawStep::Expect);
        let expect_hex = fields.optional("expect_hex").text().map(RawStep::ExpectHex);
        send.or(send_hex).or(expect).or(expect_hex)
    }
}
