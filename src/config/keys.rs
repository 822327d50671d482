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
}

impl Section {
    /// Every kind of table.
    pub(crate) const ALL: &'static [Self] = &[
        Self::Top,
        Self::Admin,
        Self::Log,
        Self::Listener,
        Self::ListenerTimeouts,
        Self::Pool,
        Self::Balance,
        Self::Server,
        Self::Check,
        Self::PoolTimeouts,
    ];

    /// Its keys, in the order in which they are shown.
    pub(crate) const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Top => {
                &["workers", "max_connections", "drain_timeout", "watch", "admin", "log", "listeners", "pools"]
            }
            Self::Admin => &["http"],
            Self::Log => &["level", "format", "access"],
            Self::Listener => &["bind", "protocol", "pool", "max_connections", "backlog", "timeouts"],
            Self::ListenerTimeouts => &["idle", "half_close", "max_age"],
            Self::Pool => &["balance", "servers", "check", "timeouts", "source", "retries", "on_down"],
            Self::Balance => &["algorithm"],
            Self::Server => &["name", "address", "weight", "backup", "max_connections"],
            Self::Check => &["type", "interval", "fast_interval", "timeout", "rise", "fall"],
            Self::PoolTimeouts => &["connect"],
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
            Self::Pool => "a pool",
            Self::Balance => "`balance`",
            Self::Server => "a server",
            Self::Check => "`check`",
            Self::PoolTimeouts => "`timeouts` of a pool",
        }
    }
}
