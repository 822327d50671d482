//! Why a connection ended: one closed list, with the same word in the log, the metric and the API.
//!
//! It stands on the ground floor because everything above speaks it: metrics have a counter per reason, the access log a
//! field, the proxy a verdict. What the network or a part reports is turned into one of these exactly once, in
//! [`crate::proxy`].

macro_rules! words {
    ($(#[$list:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $label:literal,)* }) => {
        $(#[$list])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// Every one there is, in the order of their indices.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The word for it in logs, metrics and the API.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }

            /// Its place among all.
            #[must_use]
            pub const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

words! {
/// The reason a connection ended for.
Reason {
    /// Both sides finished: each sent its end and each was delivered.
    Done = "done",
    /// The client closed and nothing was left to deliver to it.
    ClientClosed = "client_closed",
    /// The server closed before it had answered, or in the middle of its answer.
    ServerClosed = "server_closed",
    /// The client sent a reset.
    ClientReset = "client_reset",
    /// The server sent a reset.
    ServerReset = "server_reset",
    /// The client closed without the end that TLS has, so something may be missing.
    ClientTruncated = "client_truncated",
    /// The server closed without the end that TLS has, so something may be missing.
    ServerTruncated = "server_truncated",
    /// Nothing moved either way for the idle timeout.
    IdleTimeout = "idle_timeout",
    /// One side had finished and the other did not within the half-close timeout.
    HalfCloseTimeout = "half_close_timeout",
    /// The client did not say what it had to within the handshake timeout: PROXY header, ClientHello, TLS handshake.
    HandshakeTimeout = "handshake_timeout",
    /// The connection reached the age it may have.
    MaxAge = "max_age",
    /// Its listener was removed, or its server is to serve nobody, and the drain timeout passed.
    Drained = "drained",
    /// Its server was found down, or is no more, or no longer the primary, and the pool does not keep such connections.
    ServerDown = "server_down",
    /// The process stopped.
    Shutdown = "shutdown",
    /// The client's PROXY header is missing, broken, or not one it may send.
    BadProxyHeader = "bad_proxy_header",
    /// No route leads on from what the client asked for.
    NoRoute = "no_route",
    /// The TLS handshake with the client failed, or what it sent is no TLS.
    TlsError = "tls_error",
    /// The TLS handshake with the server failed, or what it sent is no TLS.
    ServerTlsError = "server_tls_error",
    /// What the client sent is no request, or could be read in two ways.
    BadRequest = "bad_request",
    /// The client did not send the head of a request in time.
    HeaderTimeout = "header_timeout",
    /// The client did not send the body of a request in time, or too slowly.
    BodyTimeout = "body_timeout",
    /// The request took longer than it may.
    RequestTimeout = "request_timeout",
    /// The body of a request is larger than it may be.
    BodyTooLarge = "body_too_large",
    /// The target of a request is longer than it may be.
    UriTooLong = "uri_too_long",
    /// The header of a request is larger than it may be.
    HeaderTooLarge = "header_too_large",
    /// The host has other rules for client certificates than the name that the handshake was for.
    Misdirected = "misdirected",
    /// The route is not for clients from there.
    RefusedAcl = "refused_acl",
    /// The route asks for a name and a password, and got none that it knows.
    Unauthorized = "unauthorized",
    /// The route has all the requests it may have at once, or too many passwords wait to be verified.
    RefusedLimit = "refused_limit",
    /// What the server sent is no response, or could be read in two ways.
    BadResponse = "bad_response",
    /// The server did not begin its response in time.
    ResponseTimeout = "response_timeout",
    /// The listener or the process has all the connections it may have.
    RefusedFull = "refused_full",
    /// No server of the pool could be given the connection.
    NoServer = "no_server",
    /// Every server that could serve is full, and as many wait as may.
    QueueFull = "queue_full",
    /// Every server that could serve was full for as long as one waits.
    QueueTimeout = "queue_timeout",
    /// The server's port is closed.
    ConnectRefused = "connect_refused",
    /// The server did not answer within the connect timeout.
    ConnectTimeout = "connect_timeout",
    /// The network says there is no way to the server.
    ConnectUnreachable = "connect_unreachable",
    /// No local port is left to connect from.
    PortsExhausted = "ports_exhausted",
    /// No descriptor is left to connect with.
    DescriptorsExhausted = "descriptors_exhausted",
    /// A failure of our own; the log has its words.
    Internal = "internal",
}
}

words! {
/// How a TLS handshake with a client went.
Handshake {
    /// It was completed.
    Full = "full",
    /// It was completed by resuming an earlier session.
    Resumed = "resumed",
    /// The client closed before it was over.
    Closed = "closed",
    /// The client sent a reset before it was over.
    Reset = "reset",
    /// It was not over within the handshake timeout.
    Timeout = "timeout",
    /// The client does not speak TLS.
    NotTls = "not_tls",
    /// The client asked for a name there is no certificate for, or for none.
    UnknownName = "unknown_name",
    /// There is no version, cipher or protocol that both sides speak.
    Incompatible = "incompatible",
    /// The client showed no certificate though it had to.
    NoCertificate = "no_certificate",
    /// The client's certificate is not good.
    BadCertificate = "bad_certificate",
    /// The client sent an alert: it does not trust the certificate, for one.
    RefusedByClient = "refused_by_client",
    /// What the client sent breaks the protocol.
    ProtocolError = "protocol_error",
    /// A failure of our own.
    Internal = "internal",
}
}

words! {
/// The version of TLS that was agreed upon.
TlsVersion {
    /// None, since it did not come to that.
    None = "none",
    /// TLS 1.2
    Tls12 = "1.2",
    /// TLS 1.3
    Tls13 = "1.3",
}
}

words! {
/// The class of a response's status.
Class {
    /// None, since there was no response.
    None = "none",
    /// 100 to 199
    Informational = "1xx",
    /// 200 to 299
    Successful = "2xx",
    /// 300 to 399
    Redirection = "3xx",
    /// 400 to 499
    ClientError = "4xx",
    /// 500 to 599, and what has no class
    ServerError = "5xx",
}
}

impl Class {
    /// The class of a status; 0 is none.
    #[must_use]
    pub const fn of(status: u16) -> Self {
        match status {
            0 => Self::None,
            1..=199 => Self::Informational,
            200..=299 => Self::Successful,
            300..=399 => Self::Redirection,
            400..=499 => Self::ClientError,
            _ => Self::ServerError,
        }
    }
}

impl Reason {
    /// Whether the connection was turned away at the gate, before any server was considered.
    #[must_use]
    pub const fn is_refusal(self) -> bool {
        matches!(self, Self::RefusedFull)
    }

    /// The status of our own answer to a request that ends so, where the client is to have one.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::BadRequest | Self::BadProxyHeader | Self::TlsError => 400,
            Self::Unauthorized => 401,
            Self::RefusedAcl => 403,
            Self::NoRoute => 404,
            Self::HeaderTimeout | Self::BodyTimeout | Self::HandshakeTimeout => 408,
            Self::BodyTooLarge => 413,
            Self::UriTooLong => 414,
            Self::Misdirected => 421,
            Self::HeaderTooLarge => 431,
            Self::Internal => 500,
            Self::ServerClosed
            | Self::ServerReset
            | Self::ServerTruncated
            | Self::ServerTlsError
            | Self::BadResponse
            | Self::ConnectRefused
            | Self::ConnectUnreachable => 502,
            Self::Done
            | Self::ClientClosed
            | Self::ClientReset
            | Self::ClientTruncated
            | Self::NoServer
            | Self::QueueFull
            | Self::QueueTimeout
            | Self::RefusedFull
            | Self::RefusedLimit
            | Self::PortsExhausted
            | Self::DescriptorsExhausted
            | Self::MaxAge
            | Self::Drained
            | Self::ServerDown
            | Self::Shutdown => 503,
            Self::ConnectTimeout
            | Self::ResponseTimeout
            | Self::RequestTimeout
            | Self::IdleTimeout
            | Self::HalfCloseTimeout => 504,
        }
    }

    /// Whether it is a way for connecting to a server to fail.
    #[must_use]
    pub const fn is_connect_failure(self) -> bool {
        matches!(
            self,
            Self::ConnectRefused
                | Self::ConnectTimeout
                | Self::ConnectUnreachable
                | Self::PortsExhausted
                | Self::DescriptorsExhausted
                | Self::ServerTlsError
                | Self::Internal
        )
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.label())
    }
}

impl serde::Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.label())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_place_and_its_own_word() {
        let mut labels = std::collections::HashSet::new();
        for (place, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), place);
            assert!(labels.insert(reason.label()), "{reason} stands twice");
        }
        assert_eq!(labels.len(), Reason::COUNT);
    }
}
