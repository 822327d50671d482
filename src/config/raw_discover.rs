//! What the file says of where servers are found, with the place where it says it.

use std::time::Duration;

use super::keys::Section;
use super::raw::RawServer;
use super::read::{At, Fields, Read};
use crate::discovery::Terms;

/// What is asked for servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SourceKind {
    Dns,
    File,
    Http,
}

/// What is asked for of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordKind {
    Address,
    Srv,
}

#[derive(Debug)]
pub(super) struct RawDiscover<'t> {
    pub(super) kind: Option<At<SourceKind>>,
    pub(super) name: Option<At<&'t str>>,
    pub(super) record: Option<At<RecordKind>>,
    pub(super) resolvers: Option<At<Vec<Option<At<&'t str>>>>>,
    pub(super) path: Option<At<&'t str>>,
    pub(super) url: Option<At<&'t str>>,
    pub(super) ca: Option<At<&'t str>>,
    pub(super) interval: Option<At<Duration>>,
    pub(super) min_ttl: Option<At<Duration>>,
    pub(super) max_ttl: Option<At<Duration>>,
    pub(super) timeout: Option<At<Duration>>,
    pub(super) allow_empty: Option<At<bool>>,
    pub(super) allow_loopback: Option<At<bool>>,
    pub(super) max_servers: Option<At<usize>>,
    /// Where the table stands.
    pub(super) span: std::ops::Range<usize>,
}

impl<'t> Read<'t> for RawDiscover<'t> {
    const SECTION: Section = Section::Discover;

    fn read(fields: &mut Fields<'t, '_>) -> Self {
        let most_servers = i64::try_from(Terms::MOST_SERVERS).unwrap_or(i64::MAX);
        Self {
            kind: fields.required("type").word(&[
                ("dns", SourceKind::Dns),
                ("file", SourceKind::File),
                ("http", SourceKind::Http),
            ]),
            name: fields.optional("name").text(),
            record: fields.optional("record").word(&[("address", RecordKind::Address), ("srv", RecordKind::Srv)]),
            resolvers: fields.optional("resolvers").list(|entry| entry.text()),
            path: fields.optional("path").text(),
            url: fields.optional("url").text(),
            ca: fields.optional("ca").text(),
            interval: fields.optional("interval").deadline(),
            min_ttl: fields.optional("min_ttl").deadline(),
            max_ttl: fields.optional("max_ttl").deadline(),
            timeout: fields.optional("timeout").deadline(),
            allow_empty: fields.optional("allow_empty").boolean(),
            allow_loopback: fields.optional("allow_loopback").boolean(),
            max_servers: fields.optional("max_servers").whole_number(1..=most_servers),
            span: fields.span(),
        }
    }
}

/// A list of servers in a document of its own.
#[derive(Debug)]
pub(super) struct RawList<'t> {
    pub(super) servers: Option<At<Vec<Option<RawServer<'t>>>>>,
}

impl<'t> Read<'t> for RawList<'t> {
    const SECTION: Section = Section::List;

    fn read(fields: &mut Fields<'t, '_>) -> Self {
        Self { servers: fields.required("servers").list(RawServer::either) }
    }
}
