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
    /// `[pools.NAME]`
    Pool,
    /// `balance` of a pool, where it is a table.
    Balance,
    /// An entry of a pool's `servers`, where it is a table.
    Server,
    /// `check` of a pool, where it is a table.
    Check,
    /// `timeouts` of a pool.
    PoolTimeouts,
    /// `tls` of a pool.
    PoolTls,
}

impl Section {
    /// Every kind of table.
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
        Self::Pool,
        Self::Balance,
        Self::Server,
        Self::Check,
        Self::PoolTimeouts,
        Self::PoolTls,
    ];

    /// Its keys, in the order in which they are shown.
    pub(crate) const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Top => {
                &["workers", "max_connections", "drain_timeout", "watch", "admin", "log", "listeners", "pools"]
            }
            Self::Admin => &["http"],
            Self::Log => &["level", "format", "access", "insecure_key_log"],
            Self::Listener => {
                &["bind", "protocol", "pool", "max_connections", "backlog", "timeouts", "proxy_protocol", "sni", "tls"]
            }
            Self::ListenerTimeouts => &["handshake", "idle", "half_close", "max_age"],
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
            Self::Pool => {
                &["balance", "servers", "check", "timeouts", "source", "retries", "on_down", "proxy_protocol", "tls"]
            }
            Self::Balance => &["algorithm"],
            Self::Server => &["name", "address", "weight", "backup", "max_connections"],
            Self::Check => &["type", "interval", "fast_interval", "timeout", "rise", "fall", "server_name"],
            Self::PoolTimeouts => &["connect"],
            Self::PoolTls => &["ca", "server_name", "verify", "cert", "key", "alpn", "min_version"],
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
            Self::Pool => "a pool",
            Self::Balance => "`balance`",
            Self::Server => "a server",
            Self::Check => "`check`",
            Self::PoolTimeouts => "`timeouts` of a pool",
            Self::PoolTls => "`tls` of a pool",
        }
    }
}
