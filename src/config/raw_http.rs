//! What the file says of HTTP, of listeners, their routes and of pools, with the place where it says it.

use std::time::Duration;

use super::keys::Section;
use super::model::Model;
use super::model::http::{HttpVersion, SameSite};
use super::problem::Span;
use super::raw_tls::Texts;
use super::read::{At, ByName, Either, Field, Fields, Read};
use crate::units::Weight;

/// The most of anything that is counted: requests, streams, connections.
const MOST: i64 = 1_000_000_000;
/// The most fields of a head that can be allowed.
const MOST_FIELDS: i64 = 1000;
/// The most streams at once that a connection can be allowed.
const MOST_STREAMS: i64 = 1000;
/// The most connections to a server that a worker can be told to keep.
const MOST_IDLE: i64 = 100_000;
/// The most retries at once that can be always allowed.
const MOST_ALWAYS: i64 = 10_000;

/// The keys of a listener that are for HTTP alone.
#[derive(Debug)]
pub(super) struct RawHttp<'t> {
    pub(super) routes: Option<At<Vec<Option<RawRoute<'t>>>>>,
    pub(super) trusted_proxies: Option<Texts<'t>>,
    pub(super) compress: Option<At<bool>>,
    pub(super) error_pages: Option<ByName<'t>>,
    pub(super) limits: Option<RawHttpLimits>,
}

impl<'t> RawHttp<'t> {
    pub(super) const KEYS: &'static [&'static str] = &["routes", "trusted_proxies", "compress", "error_pages", "http"];

    pub(super) fn read(fields: &mut Fields<'t, '_>) -> Self {
        Self {
            routes: fields.optional("routes").list(|entry| entry.table()),
            trusted_proxies: fields.optional("trusted_proxies").list(|entry| entry.text()),
            compress: fields.optional("compress").boolean(),
            error_pages: fields.optional("error_pages").texts_by_name(),
            limits: fields.optional("http").table(),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct RawHttpLimits {
    pub(super) max_header: Option<At<u64>>,
    pub(super) max_header_fields: Option<At<usize>>,
    pub(super) max_uri: Option<At<u64>>,
    pub(super) max_body: Option<At<u64>>,
    pub(super) min_rate: Option<At<u64>>,
    pub(super) max_requests: Option<At<u32>>,
    pub(super) max_streams: Option<At<u32>>,
    pub(super) underscores_in_headers: Option<At<bool>>,
}

impl<'t> Read<'t> for RawHttpLimits {
    const SECTION: Section = Section::Http;

    fn read(fields: &mut Fields<'t, '_>) -> Self {
        Self {
            max_header: fields.optional("max_header").size(),
            max_header_fields: fields.optional("max_header_fields").whole_number(1..=MOST_FIELDS),
            max_uri: fields.optional("max_uri").size(),
            max_body: fields.optional("max_body").size(),
            min_rate: fields.optional("min_rate").size(),
            max_requests: fields.optional("max_requests").whole_number(0..=MOST),
            max_streams: fields.optional("max_streams").whole_number(1..=MOST_STREAMS),
            underscores_in_headers: fields.optional("underscores_in_headers").boolean(),
        }
    }
}

/// The keys in `timeouts` of a listener that are for HTTP alone.
#[derive(Debug, Default)]
pub(super) struct RawHttpTimeouts {
    pub(super) request_header: Option<At<Duration>>,
    pub(super) request: Option<At<Duration>>,
    pub(super) keep_alive: Option<At<Duration>>,
    pub(super) body_idle: Option<At<Duration>>,
}

impl RawHttpTimeouts {
    pub(super) fn read(fields: &mut Fields<'_, '_>) -> Self {
        Self {
            request_header: fields.optional("request_header").deadline(),
            request: fields.optional("request").duration(),
            keep_alive: fields.optional("keep_alive").deadline(),
            body_idle: fields.optional("body_idle").deadline(),
        }
    }
}

#[derive(Debug)]
pub(super) struct RawRoute<'t> {
    pub(super) matches: RawMatch<'t>,
    pub(super) action: Option<RawAction<'t>>,
    pub(super) rewrite: Option<RawRewrite<'t>>,
    pub(super) request_headers: Option<RawHeaderRules<'t>>,
    pub(super) response_headers: Option<RawHeaderRules<'t>>,
    pub(super) timeout: Option<At<Duration>>,
    pub(super) retries: Option<At<u8>>,
    pub(super) mirror: Option<At<&'t str>>,
    pub(super) allow: Option<Texts<'t>>,
    pub(super) deny: Option<Texts<'t>>,
    pub(super) basic_auth: Option<At<&'t str>>,
    pub(super) realm: Option<At<&'t str>>,
    pub(super) max_in_flight: Option<At<u32>>,
    pub(super) compress: Option<At<bool>>,
    /// Where the route stands.
    pub(super) span: Span,
    /// Whether a value was refused: it may have named a pool.
    pub(super) refused: bool,
}

/// Which requests a route is for.
#[derive(Debug)]
pub(super) struct RawMatch<'t> {
    pub(super) host: Option<At<&'t str>>,
    pub(super) path: Option<At<&'t str>>,
    pub(super) method: Option<Texts<'t>>,
    pub(super) headers: Option<ByName<'t>>,
    pub(super) query: Option<ByName<'t>>,
}

/// What becomes of the requests of a route.
#[derive(Debug)]
pub(super) enum RawAction<'t> {
    Pool(At<&'t str>),
    Split(At<Vec<Option<RawSplit<'t>>>>),
    Redirect(RawRedirect<'t>),
    Respond(RawRespond<'t>),
}

impl<'t> RawAction<'t> {
    fn read(fields: &mut Fields<'t, '_>) -> Option<Self> {
        fields.one_of(&["pool", "split", "redirect", "respond"]);
        let pool = fields.optional("pool").text().map(Self::Pool);
        let split = fields.optional("split").list(|entry| entry.table()).map(Self::Split);
        let redirect = RawRedirect::either(fields.optional("redirect")).map(Self::Redirect);
        let respond = RawRespond::either(fields.optional("respond")).map(Self::Respond);
        pool.or(split).or(redirect).or(respond)
    }
}

impl<'t> RawRoute<'t> {
    /// The keys that are about servers, so that they mean nothing where none is asked.
    const ABOUT_SERVERS: &'static [&'static str] = &["rewrite", "request_headers", "timeout", "retries", "mirror"];

    /// The pools its requests go to, with `None` for one that could not be read.
    pub(super) fn pools(&self) -> Vec<Option<&At<&'t str>>> {
        let mut pools = match &self.action {
            Some(RawAction::Pool(pool)) => vec![Some(pool)],
            Some(RawAction::Split(entries)) => {
                entries.value.iter().map(|entry| entry.as_ref().and_then(|entry| entry.pool.as_ref())).collect()
            }
            Some(RawAction::Redirect(_) | RawAction::Respond(_)) | None => Vec::new(),
        };
        pools.extend(self.mirror.as_ref().map(Some));
        pools.extend(self.refused.then_some(None));
        pools
    }
}

impl<'t> Read<'t> for RawRoute<'t> {
    const SECTION: Section = Section::Route;

    fn read(fields: &mut Fields<'t, '_>) -> Self {
        let before = fields.problems();
        let action = RawAction::read(fields);
        if let Some(RawAction::Redirect(_) | RawAction::Respond(_)) = action {
            for key in Self::ABOUT_SERVERS {
                fields.refuse(key, &format!("`{key}` means nothing in a route that asks no server"));
            }
        }
        let mut route = Self {
            matches: RawMatch {
                host: fields.optional("host").text(),
                path: fields.optional("path").text(),
                method: fields.optional("method").one_or_many(|entry| entry.text()),
                headers: fields.optional("headers").texts_by_name(),
                query: fields.optional("query").texts_by_name(),
            },
            action,
            rewrite: fields.optional("rewrite").table(),
            request_headers: fields.optional("request_headers").table(),
            response_headers: fields.optional("response_headers").table(),
            timeout: fields.optional("timeout").duration(),
            retries: fields.optional("retries").whole_number(0..=i64::from(Model::MOST_RETRIES)),
            mirror: fields.optional("mirror").text(),
            allow: fields.optional("allow").list(|entry| entry.text()),
            deny: fields.optional("deny").list(|entry| entry.text()),
            basic_auth: fields.optional("basic_auth").text(),
            realm: fields.optional("realm").text(),
            max_in_flight: fields.optional("max_in_flight").whole_number(0..=MOST),
            compress: fields.optional("compress").boolean(),
            span: fields.span(),
            refused: false,
        };
        route.refused = fields.problems() > before;
        route
    }
}

#[derive(Debug)]
pub(super) struct RawSplit<'t> {
    pub(super) pool: Option<At<&'t str>>,
    pub(super) weight: Option<At<u16>>,
}

impl<'t> Read<'t> for RawSplit<'t> {
    const SECTION: Section = Section::Split;

    fn read(fields: &mut Fields<'t, '_>) -> Self {
        Self {
            pool: fields.required("pool").text(),
            weight: fields.optional("weight").whole_number(0..=i64::from(Weight::HEAVIEST)),
        }
    }
}

#[derive(Debug)]
pub(super) struct RawRedirect<'t> {
    pub(super) to: Option<At<&'t str>>,
    pub(super) status: Option<At<u16>>,
}

impl<'t> RawRedirect<'t> {
    /// `redirect` is where to, or a table.
    fn either(field: Field<'t, '_>) -> Option<Self> {
        match field.table_or(Field::text)? {
            Either::Table(redirect) => Some(redirect),
            Either::Short(to) => Some(Self { to: Some(to), status: None }),
        }
    }
}

impl<'t> Read<'t> for RawRedirect<'t> {
    const SECTION: Section = Section::Redirect;

    fn read(fields: &mut Fields<'t, '_>) -> Self {
        let status = fields.optional("status").one_of(&[301, 302, 303, 307, 308], "301, 302, 303, 307 or 308");
        Self { to: fields.required("to").text(), status }
    }
}

#[derive(Debug)]
pub(super) struct RawRespond<'t> {
    pub(super) status: Option<At<u16>>,
    pub(super) body: Option<At<&'t str>>,
    pub(super) content_type: Option<At<&'t str>>,
}

impl<'t> RawRespond<'t> {
    /// `respond` is a status, or a table.
    fn either(field: Field<'t, '_>) -> Option<Self> {
        match field.table_or_number(final_status)? {
            Either::Table(respond) => Some(respond),
            Either::Short(status) => Some(Self { status: Some(status), body: None, content_type: None }),
        }
    }
}

impl<'t> Read<'t> for RawRespond<'t> {
    const SECTION: Section = Section::Respond;

    fn read(fields: &mut Fields<'t, '_>) -> Self {
        Self {
            status: final_status(fields.optional("status")),
            body: fields.optional("body").text(),
            content_type: fields.optional("content_type").text(),
        }
    }
}

fn final_status(field: Field<'_, '_>) -> Option<At<u16>> {
    field.whole_number(200..=599)
}

#[derive(Debug)]
pub(super) struct RawRewrite<'t> {
    pub(super) prefix: Option<At<&'t str>>,
    pub(super) host: Option<At<&'t str>>,
}

impl<'t> Read<'t> for RawRewrite<'t> {
    const SECTION: Section = Section::Rewrite;

    fn read(fields: &mut Fields<'t, '_>) -> Self {
        Self { prefix: fields.optional("prefix").text(), host: fields.optional("host").text() }
    }
}

#[derive(Debug)]
pub(super) struct RawHeaderRules<'t> {
    pub(super) remove: Option<Texts<'t>>,
    pub(super) set: Option<ByName<'t>>,
    pub(super) add: Option<ByName<'t>>,
}

impl<'t> Read<'t> for RawHeaderRules<'t> {
    const SECTION: Section = Section::HeaderRules;

    fn read(fields: &mut Fields<'t, '_>) -> Self {
        Self {
            remove: fields.optional("remove").list(|entry| entry.text()),
            set: fields.optional("set").texts_by_name(),
            add: fields.optional("add").texts_by_name(),
        }
    }
}

/// The keys of a pool that are for HTTP alone, except for those in `timeouts`.
#[derive(Debug)]
pub(super) struct RawHttpPool<'t> {
    pub(super) http: Option<RawPoolHttp>,
    pub(super) upstream: Option<RawUpstream>,
    pub(super) retry_on: Option<At<Vec<Option<At<String>>>>>,
    pub(super) retry_budget: Option<RawRetryBudget>,
    pub(super) sticky: Option<RawSticky<'t>>,
}

impl<'t> RawHttpPool<'t> {
    pub(super) fn read(fields: &mut Fields<'t, '_>) -> Self {
        Self {
            http: fields.optional("http").table(),
            upstream: fields.optional("upstream").table(),
            retry_on: fields.optional("retry_on").list(|entry| entry.text_or_number("a string or a status")),
            retry_budget: fields.optional("retry_budget").table(),
            sticky: fields.optional("sticky").table(),
        }
    }
}

#[derive(Debug)]
pub(super) struct RawPoolHttp {
    pub(super) version: Option<At<HttpVersion>>,
}

impl<'t> Read<'t> for RawPoolHttp {
    const SECTION: Section = Section::PoolHttp;

    fn read(fields: &mut Fields<'t, '_>) -> Self {
        let words = [("1.1", HttpVersion::Http1), ("2", HttpVersion::Http2), ("auto", HttpVersion::Auto)];
        Self { version: fields.optional("version").word(&words) }
    }
}

#[derive(Debug)]
pub(super) struct RawUpstream {
    pub(super) max_idle: Option<At<usize>>,
    pub(super) idle_timeout: Option<At<Duration>>,
    pub(super) max_requests: Option<At<u32>>,
    pub(super) max_age: Option<At<Duration>>,
}

impl<'t> Read<'t> for RawUpstream {
    const SECTION: Section = Section::Upstream;

    fn read(fields: &mut Fields<'t, '_>) -> Self {
        Self {
            max_idle: fields.optional("max_idle").whole_number(0..=MOST_IDLE),
            idle_timeout: fields.optional("idle_timeout").deadline(),
            max_requests: fields.optional("max_requests").whole_number(0..=MOST),
            max_age: fields.optional("max_age").duration(),
        }
    }
}

#[derive(Debug)]
pub(super) struct RawRetryBudget {
    pub(super) percent: Option<At<u32>>,
    pub(super) min: Option<At<u32>>,
}

impl<'t> Read<'t> for RawRetryBudget {
    const SECTION: Section = Section::RetryBudget;

    fn read(fields: &mut Fields<'t, '_>) -> Self {
        Self {
            percent: fields.optional("percent").whole_number(0..=100),
            min: fields.optional("min").whole_number(0..=MOST_ALWAYS),
        }
    }
}

#[derive(Debug)]
pub(super) struct RawSticky<'t> {
    pub(super) cookie: Option<At<&'t str>>,
    pub(super) secure: Option<At<bool>>,
    pub(super) http_only: Option<At<bool>>,
    pub(super) same_site: Option<At<SameSite>>,
    pub(super) ttl: Option<At<Duration>>,
}

impl<'t> Read<'t> for RawSticky<'t> {
    const SECTION: Section = Section::Sticky;

    fn read(fields: &mut Fields<'t, '_>) -> Self {
        let words = [("lax", SameSite::Lax), ("strict", SameSite::Strict), ("none", SameSite::None)];
        Self {
            cookie: fields.required("cookie").text(),
            secure: fields.optional("secure").boolean(),
            http_only: fields.optional("http_only").boolean(),
            same_site: fields.optional("same_site").word(&words),
            ttl: fields.optional("ttl").duration(),
        }
    }
}
