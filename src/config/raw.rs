//! What the file says, section by section, with the place where it says it. Every value is of the right type and within
//! its own range, and no key stands beside one that excludes it; whether the values go together, `resolve` decides.

use std::time::Duration;

use super::keys::Section;
use super::model::{LogFormat, LogLevel, Model, OnDown, Server};
use super::raw_balance::RawBalance;
use super::raw_check::RawCheck;
use super::raw_discover::RawDiscover;
use super::raw_health::RawOutlier;
use super::raw_http::{RawHttp, RawHttpPool, RawHttpTimeouts};
use super::raw_rules::{RawPrimary, RawRules};
use super::raw_tls::{RawPoolTls, RawProxyProtocol, RawSniRoute, RawTls};
use super::read::{At, Either, Field, Fields, Named, Read};
use crate::backend::Duty;
use crate::net::proxy_protocol::Version;
use crate::units::Weight;

/// The most data threads.
pub(super) const MOST_WORKERS: i64 = 256;
/// The most connections anything can be configured to have; what the machine allows is far less.
pub(super) const MOST_CONNECTIONS: i64 = 1_000_000_000;
/// The last level that servers can be put in, before that of backup servers.
const LAST_LEVEL: i64 = Server::LAST_PRIORITY as i64;

#[derive(Debug)]
pub(super) struct RawFile<'t> {
    pub(super) workers: Option<At<usize>>,
    pub(super) max_connections: Option<At<u32>>,
    pub(super) drain_timeout: Option<At<Duration>>,
    pub(super) watch: Option<At<bool>>,
    pub(super) zone: Option<At<&'t str>>,
    pub(super) admin: Option<RawAdmin<'t>>,
    pub(super) log: Option<RawLog<'t>>,
    pub(super) listeners: Vec<Named<'t, RawListener<'t>>>,
    pub(super) pools: Vec<Named<'t, RawPool<'t>>>,
}

impl<'t> Read<'t> for RawFile<'t> {
    const SECTION: Section = Section::Top;

    fn read(fields: &mut Fields<'t, '_>) -> Self {
        Self {
            workers: fields.optional("workers").whole_number(1..=MOST_WORKERS),
            max_connections: fields.optional("max_connections").whole_number(1..=MOST_CONNECTIONS),
            drain_timeout: fields.optional("drain_timeout").duration(),
            watch: fields.optional("watch").boolean(),
            zone: fields.optional("zone").text(),
            admin: fields.optional("admin").table(),
            log: fields.optional("log").table(),
            listeners: fields.optional("listeners").named(),
            pools: fields.optional("pools").named(),
        }
    }
}

#[derive(Debug)]
pub(super) struct RawAdmin<'t> {
    pub(super) http: Option<At<&'t str>>,
}

impl<'t> Read<'t> for RawAdmin<'t> {
    const SECTION: Section = Section::Admin;

    fn read(fields: &mut Fields<'t, '_>) -> Self {
        Self { http: fields.optional("http").text() }
    }
}

#[derive(Debug)]
pub(super) struct RawLog<'t> {
    pub(super) level: Option<At<LogLevel>>,
    pub(super) format: Option<At<LogFormat>>,
    pub(super) access: Option<At<&'t str>>,
    pub(super) insecure_key_log: Option<At<bool>>,
}

impl<'t> Read<'t> for RawLog<'t> {
    const SECTION: Section = Section::Log;

    fn read(fields: &mut Fields<'t, '_>) -> Self {
        Self {
            level: fields.optional("level").word(&[
                ("error", LogLevel::Error),
                ("warn", LogLevel::Warn),
                ("info", LogLevel::Info),
                ("debug", LogLevel::Debug),
                ("trace", LogLevel::Trace),
            ]),
            format: fields.optional("format").word(&[("json", LogFormat::Json), ("text", LogFormat::Text)]),
            access: fields.optional("access").text(),
            insecure_key_log: fields.optional("insecure_key_log").boolean(),
        }
    }
}

/// What the clients of a listener speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    Tcp,
    Http,
}

#[derive(Debug)]
pub(super) struct RawListener<'t> {
    pub(super) bind: Option<At<Vec<Option<At<String>>>>>,
    /// Absent where it was refused: nothing is to be concluded from it then.
    pub(super) protocol: Option<Spoken>,
    pub(super) pool: Option<At<&'t str>>,
    pub(super) max_connections: Option<At<u32>>,
    pub(super) backlog: Option<At<u32>>,
    pub(super) timeouts: Option<RawListenerTimeouts>,
    pub(super) proxy_protocol: Option<RawProxyProtocol<'t>>,
    pub(super) sni: Option<At<Vec<Option<RawSniRoute<'t>>>>>,
    pub(super) tls: Option<RawTls<'t>>,
    pub(super) http: RawHttp<'t>,
}

impl RawListener<'_> {
    /// What its clients speak; keys that have nothing to do with that are reported.
    fn spoken(fields: &mut Fields<'_, '_>) -> Option<Spoken> {
        let written = fields.has("protocol");
        let spoken = fields.optional("protocol").word(&[("tcp", Spoken::Tcp), ("http", Spoken::Http)]);
        let spoken = spoken.map(|At { value, .. }| value).or((!written).then_some(Spoken::Tcp));
        match spoken {
            None => {}
            Some(Spoken::Tcp) => {
                for key in RawHttp::KEYS {
                    fields.refuse(key, &format!("`{key}` needs `protocol = \"http\"`"));
                }
            }
            Some(Spoken::Http) => {
                let message = "`sni` sends whole connections, and a listener for HTTP sends each request on its own";
                if let Some(problem) = fields.refuse("sni", message) {
                    problem.expected("`routes`, whose `host` is what a request asks for");
                }
            }
        }
        spoken
    }
}

impl<'t> Read<'t> for RawListener<'t> {
    const SECTION: Section = Section::Listener;

    fn read(fields: &mut Fields<'t, '_>) -> Self {
        Self {
            bind: fields.required("bind").one_or_many(|entry| entry.text_or_number("a string or a port number")),
            protocol: Self::spoken(fields),
            // What no route takes may be refused, but without routes there is nowhere to go.
            pool: if fields.has("sni") || fields.has("routes") {
                fields.optional("pool").text()
            } else {
                fields.required("pool").text()
            },
            max_connections: fields.optional("max_connections").whole_number(1..=MOST_CONNECTIONS),
            backlog: fields.optional("backlog").whole_number(1..=i64::from(u16::MAX)),
            timeouts: fields.optional("timeouts").table(),
            proxy_protocol: fields.optional("proxy_protocol").table(),
            sni: fields.optional("sni").list(|entry| entry.table()),
            tls: fields.optional("tls").table(),
            http: RawHttp::read(fields),
        }
    }
}

#[derive(Debug)]
pub(super) struct RawListenerTimeouts {
    pub(super) handshake: Option<At<Duration>>,
    pub(super) idle: Option<At<Duration>>,
    pub(super) half_close: Option<At<Duration>>,
    pub(super) max_age: Option<At<Duration>>,
    pub(super) http: RawHttpTimeouts,
}

impl<'t> Read<'t> for RawListenerTimeouts {
    const SECTION: Section = Section::ListenerTimeouts;

    fn read(fields: &mut Fields<'t, '_>) -> Self {
        Self {
            handshake: fields.optional("handshake").deadline(),
            idle: fields.optional("idle").deadline(),
            half_close: fields.optional("half_close").deadline(),
            max_age: fields.optional("max_age").duration(),
            http: RawHttpTimeouts::read(fields),
        }
    }
}

#[derive(Debug)]
pub(super) struct RawPool<'t> {
    pub(super) balance: Option<RawBalance<'t>>,
    pub(super) servers: Option<At<Vec<Option<RawServer<'t>>>>>,
    pub(super) discover: Option<RawDiscover<'t>>,
    pub(super) check: Option<RawCheck<'t>>,
    pub(super) outlier: Option<RawOutlier>,
    pub(super) timeouts: Option<RawPoolTimeouts>,
    pub(super) source: Option<At<Vec<Option<At<&'t str>>>>>,
    pub(super) retries: Option<At<u8>>,
    pub(super) on_down: Option<At<OnDown>>,
    pub(super) primary: RawPrimary<'t>,
    pub(super) rules: RawRules,
    pub(super) proxy_protocol: Option<At<Version>>,
    pub(super) tls: Option<RawPoolTls<'t>>,
    pub(super) http: RawHttpPool<'t>,
}

impl<'t> Read<'t> for RawPool<'t> {
    const SECTION: Section = Section::Pool;

    fn read(fields: &mut Fields<'t, '_>) -> Self {
        Self {
            balance: RawBalance::either(fields.optional("balance")),
            // They may all be found elsewhere.
            servers: if fields.has("discover") {
                fields.optional("servers").list(RawServer::either)
            } else {
                fields.required("servers").list(RawServer::either)
            },
            discover: fields.optional("discover").table(),
            check: RawCheck::either(fields.optional("check")),
            outlier: fields.optional("outlier").table(),
            timeouts: fields.optional("timeouts").table(),
            source: fields.optional("source").list(|entry| entry.text()),
            retries: fields.optional("retries").whole_number(0..=i64::from(Model::MOST_RETRIES)),
            on_down: fields.optional("on_down").word(&[
                ("keep", OnDown::Keep),
                ("drain", OnDown::Drain),
                ("reset", OnDown::Reset),
            ]),
            primary: RawPrimary::read(fields),
            rules: RawRules::read(fields),
            proxy_protocol: fields.optional("proxy_protocol").word(&[("v1", Version::V1), ("v2", Version::V2)]),
            tls: fields.optional("tls").table(),
            http: RawHttpPool::read(fields),
        }
    }
}

#[derive(Debug)]
pub(super) struct RawServer<'t> {
    pub(super) name: Option<At<&'t str>>,
    pub(super) address: Option<At<&'t str>>,
    pub(super) weight: Option<At<u16>>,
    pub(super) priority: Option<At<u8>>,
    pub(super) backup: Option<At<bool>>,
    pub(super) zone: Option<At<&'t str>>,
    pub(super) max_connections: Option<At<u32>>,
    pub(super) duty: Option<At<Duty>>,
    pub(super) check_address: Option<At<&'t str>>,
}

impl<'t> RawServer<'t> {
    /// A server is its address, or a table.
    pub(super) fn either(field: Field<'t, '_>) -> Option<Self> {
        match field.table_or(Field::text)? {
            Either::Table(server) => Some(server),
            Either::Short(address) => Some(Self {
                name: None,
                address: Some(address),
                weight: None,
                priority: None,
                backup: None,
                zone: None,
                max_connections: None,
                duty: None,
                check_address: None,
            }),
        }
    }
}

impl<'t> Read<'t> for RawServer<'t> {
    const SECTION: Section = Section::Server;

    fn read(fields: &mut Fields<'t, '_>) -> Self {
        Self {
            name: fields.optional("name").text(),
            address: fields.required("address").text(),
            weight: fields.optional("weight").whole_number(0..=i64::from(Weight::HEAVIEST)),
            priority: fields.optional("priority").whole_number(0..=LAST_LEVEL),
            backup: fields.optional("backup").boolean(),
            zone: fields.optional("zone").text(),
            max_connections: fields.optional("max_connections").whole_number(0..=MOST_CONNECTIONS),
            duty: fields.optional("state").word(&[
                (Duty::Ready.label(), Duty::Ready),
                (Duty::Drain.label(), Duty::Drain),
                (Duty::Maintenance.label(), Duty::Maintenance),
            ]),
            check_address: fields.optional("check_address").text(),
        }
    }
}

#[derive(Debug)]
pub(super) struct RawPoolTimeouts {
    pub(super) connect: Option<At<Duration>>,
    pub(super) response_header: Option<At<Duration>>,
}

impl<'t> Read<'t> for RawPoolTimeouts {
    const SECTION: Section = Section::PoolTimeouts;

    fn read(fields: &mut Fields<'t, '_>) -> Self {
        Self {
            connect: fields.optional("connect").deadline(),
            response_header: fields.optional("response_header").deadline(),
        }
    }
}
