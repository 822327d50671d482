//! The keys there are, section by section. `config/full.toml` is held against this table.

/// A kind of table in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    /// The file itself.
    Top,
    /// `[admin]`
    Admin,
    /// `[log]`
    Log,
    /// `[listeners.NAME]`
    Listener,
    /// `timeouts` of a listener.
    ListenerTimeouts,
    /// `proxy_protocol` of a listener.
    ProxyProtocol,
    /// An entry of a listener's `sni`.
    SniRoute,
    /// `tls` of a listener.
    Tls,
    /// An entry of `certificates` in a listener's `tls`.
    Certificate,
    /// An entry of `hosts` in a listener's `tls`.
    TlsHost,
    /// `http` of a listener.
    Http,
    /// An entry of a listener's `routes`.
    Route,
    /// An entry of a route's `split`.
    Split,
    /// `redirect` of a route, where it is a table.
    Redirect,
    /// `respond` of a route, where it is a table.
    Respond,
    /// `rewrite` of a route.
    Rewrite,
    /// `request_headers` and `response_headers` of a route.
    HeaderRules,
    /// `[pools.NAME]`
    Pool,
    /// `balance` of a pool, where it is a table.
    Balance,
    /// An entry of a pool's `servers`, where it is a table.
    Server,
    /// `discover` of a pool.
    Discover,
    /// A document with a list of servers, which is no part of the file.
    List,
    /// `check` of a pool, where it is a table.
    Check,
    /// An entry of `steps` in a pool's `check`.
    CheckStep,
    /// `outlier` of a pool.
    Outlier,
    /// `queue` of a pool.
    Queue,
    /// `breaker` of a pool.
    Breaker,
    /// `timeouts` of a pool.
    PoolTimeouts,
    /// `tls` of a pool.
    PoolTls,
    /// `http` of a pool.
    PoolHttp,
    /// `upstream` of a pool.
    Upstream,
    /// `retry_budget` of a pool.
    RetryBudget,
    /// `sticky` of a pool.
    Sticky,
}

impl Section {
    /// Every kind of table in the file.
    pub(crate) const ALL: &'static [Self] = &[
        Self::Top,
        Self::Admin,
        Self::Log,
        Self::Listener,
        Self::ListenerTimeouts,
        Self::ProxyProtocol,
        Self::SniRoute,
        Self::Tls,
        Self::Certificate,
        Self::TlsHost,
        Self::Http,
        Self::Route,
        Self::Split,
        Self::Redirect,
        Self::Respond,
        Self::Rewrite,
        Self::HeaderRules,
        Self::Pool,
        Self::Balance,
        Self::Server,
        Self::Discover,
        Self::Check,
        Self::CheckStep,
        Self::Outlier,
        Self::Queue,
        Self::Breaker,
        Self::PoolTimeouts,
        Self::PoolTls,
        Self::PoolHttp,
        Self::Upstream,
        Self::RetryBudget,
        Self::Sticky,
    ];

    /// Its keys, in the order in which they are shown.
    pub(crate) const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Top => {
                &["workers", "max_connections", "drain_timeout", "watch", "zone", "admin", "log", "listeners", "pools"]
            }
            Self::Admin => &["http"],
            Self::Log => &["level", "format", "access", "insecure_key_log"],
            Self::Listener => &[
                "bind",
                "protocol",
                "pool",
                "max_connections",
                "backlog",
                "timeouts",
                "proxy_protocol",
                "sni",
                "tls",
                "routes",
                "trusted_proxies",
                "compress",
                "error_pages",
                "http",
            ],
            Self::ListenerTimeouts => {
                &["handshake", "idle", "half_close", "max_age", "request_header", "request", "keep_alive", "body_idle"]
            }
            Self::ProxyProtocol => &["from"],
            Self::SniRoute => &["host", "alpn", "pool"],
            Self::Tls => &[
                "certificates",
                "min_version",
                "alpn",
                "strict_sni",
                "client_ca",
                "client_auth",
                "client_crl",
                "hosts",
                "ticket_keys",
            ],
            Self::Certificate => &["cert", "key", "names", "ocsp"],
            Self::TlsHost => &["host", "client_ca", "client_auth", "client_crl"],
            Self::Http => &[
                "max_header",
                "max_header_fields",
                "max_uri",
                "max_body",
                "min_rate",
                "max_requests",
                "max_streams",
                "underscores_in_headers",
            ],
            Self::Route => &[
                "host",
                "path",
                "method",
                "headers",
                "query",
                "pool",
                "split",
                "redirect",
                "respond",
                "rewrite",
                "request_headers",
                "response_headers",
                "timeout",
                "retries",
                "mirror",
                "allow",
                "deny",
                "basic_auth",
                "realm",
                "max_in_flight",
                "compress",
            ],
            Self::Split => &["pool", "weight"],
            Self::Redirect => &["to", "status"],
            Self::Respond => &["status", "body", "content_type"],
            Self::Rewrite => &["prefix", "host"],
            Self::HeaderRules => &["remove", "set", "add"],
            Self::Pool => &[
                "balance",
                "servers",
                "discover",
                "check",
                "outlier",
                "timeouts",
                "source",
                "retries",
                "on_down",
                "role",
                "failback",
                "spill_below",
                "fail_open",
                "slow_start",
                "max_connections",
                "queue",
                "breaker",
                "proxy_protocol",
                "tls",
                "http",
                "upstream",
                "retry_on",
                "retry_budget",
                "sticky",
            ],
            Self::Balance => &["algorithm", "key", "load_factor", "table_size", "decay"],
            Self::Server => &[
                "name",
                "address",
                "weight",
                "priority",
                "backup",
                "zone",
                "max_connections",
                "state",
                "check_address",
            ],
            Self::Discover => &[
                "type",
                "name",
                "record",
                "resolvers",
                "path",
                "url",
                "ca",
                "interval",
                "min_ttl",
                "max_ttl",
                "timeout",
                "allow_empty",
                "allow_loopback",
                "max_servers",
            ],
            Self::List => &["servers"],
            Self::Check => &[
                "type",
                "interval",
                "fast_interval",
                "down_interval",
                "timeout",
                "rise",
                "fall",
                "initial",
                "port",
                "tls",
                "server_name",
                "ca",
                "reuse",
                "host",
                "method",
                "path",
                "headers",
                "status",
                "body",
                "service",
                "steps",
                "user",
                "password_file",
                "database",
                "send",
            ],
            Self::CheckStep => &["send", "send_hex", "expect", "expect_hex"],
            Self::Outlier => &[
                "consecutive_5xx",
                "consecutive_gateway",
                "consecutive_failures",
                "first_byte",
                "server_speaks_first",
                "success_rate_factor",
                "success_rate_margin",
                "success_rate_min_servers",
                "success_rate_min_requests",
                "interval",
                "ejection",
                "max_ejection",
                "max_ejected",
            ],
            Self::Queue => &["max", "timeout"],
            Self::Breaker => &["max_pending", "max_requests"],
            Self::PoolTimeouts => &["connect", "response_header"],
            Self::PoolTls => &["ca", "server_name", "verify", "cert", "key", "alpn", "min_version"],
            Self::PoolHttp => &["version"],
            Self::Upstream => &["max_idle", "idle_timeout", "max_requests", "max_age"],
            Self::RetryBudget => &["percent", "min"],
            Self::Sticky => &["cookie", "secure", "http_only", "same_site", "ttl"],
        }
    }

    /// What such a table is called in a sentence.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Top => "the top of the file",
            Self::Admin => "`admin`",
            Self::Log => "`log`",
            Self::Listener => "a listener",
            Self::ListenerTimeouts => "`timeouts` of a listener",
            Self::ProxyProtocol => "`proxy_protocol` of a listener",
            Self::SniRoute => "a route of `sni`",
            Self::Tls => "`tls` of a listener",
            Self::Certificate => "a certificate",
            Self::TlsHost => "a host of `tls`",
            Self::Http => "`http` of a listener",
            Self::Route => "a route",
            Self::Split => "an entry of `split`",
            Self::Redirect => "`redirect` of a route",
            Self::Respond => "`respond` of a route",
            Self::Rewrite => "`rewrite` of a route",
            Self::HeaderRules => "what is changed of a header",
            Self::Pool => "a pool",
            Self::Balance => "`balance`",
            Self::Server => "a server",
            Self::Discover => "`discover`",
            Self::List => "the list",
            Self::Check => "`check`",
            Self::CheckStep => "a step of a check",
            Self::Outlier => "`outlier`",
            Self::Queue => "`queue` of a pool",
            Self::Breaker => "`breaker` of a pool",
            Self::PoolTimeouts => "`timeouts` of a pool",
            Self::PoolTls => "`tls` of a pool",
            Self::PoolHttp => "`http` of a pool",
            Self::Upstream => "`upstream` of a pool",
            Self::RetryBudget => "`retry_budget` of a pool",
            Self::Sticky => "`sticky` of a pool",
        }
    }
}
