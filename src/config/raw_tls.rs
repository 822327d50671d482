//! What the file says of TLS, of routes by server name and of the PROXY protocol, with the place where it says it.

use super::keys::Section;
use super::read::{At, Fields, Read};
use crate::tls::{ClientAuth, MinVersion};

/// A list of texts, with `None` for one that was refused.
pub(super) type Texts<'t> = At<Vec<Option<At<&'t str>>>>;

#[derive(Debug)]
pub(super) struct RawProxyProtocol<'t> {
    pub(super) from: Option<Texts<'t>>,
}

impl<'t> Read<'t> for RawProxyProtocol<'t> {
    const SECTION: Section = Section::ProxyProtocol;

    fn read(fields: &mut Fields<'t, '_>) -> Self {
        Self { from: fields.required("from").list(|entry| entry.text()) }
    }
}

#[derive(Debug)]
pub(super) struct RawSniRoute<'t> {
    pub(super) host: Option<At<&'t str>>,
    pub(super) alpn: Option<Texts<'t>>,
    pub(super) pool: Option<At<&'t str>>,
}

impl<'t> Read<'t> for RawSniRoute<'t> {
    const SECTION: Section = Section::SniRoute;

    fn read(fields: &mut Fields<'t, '_>) -> Self {
        Self {
            // A route is for a host, a protocol, or both.
            host: if fields.has("alpn") { fields.optional("host") } else { fields.required("host") }.text(),
            alpn: fields.optional("alpn").list(|entry| entry.text()),
            pool: fields.required("pool").text(),
        }
    }
}

/// What is asked of clients; the same keys stand in `tls` itself and in each of its hosts.
#[derive(Debug)]
pub(super) struct RawClients<'t> {
    pub(super) ca: Option<At<&'t str>>,
    pub(super) auth: Option<At<ClientAuth>>,
    pub(super) crl: Option<At<&'t str>>,
}

impl<'t> RawClients<'t> {
    fn read(fields: &mut Fields<'t, '_>) -> Self {
        Self {
            ca: fields.optional("client_ca").text(),
            auth: fields
                .optional("client_auth")
                .word(&[("optional", ClientAuth::Optional), ("required", ClientAuth::Required)]),
            crl: fields.optional("client_crl").text(),
        }
    }
}

#[derive(Debug)]
pub(super) struct RawTls<'t> {
    pub(super) certificates: Option<At<Vec<Option<RawCertificate<'t>>>>>,
    pub(super) min_version: Option<At<MinVersion>>,
    pub(super) alpn: Option<Texts<'t>>,
    pub(super) strict_sni: Option<At<bool>>,
    pub(super) clients: RawClients<'t>,
    pub(super) hosts: Option<At<Vec<Option<RawTlsHost<'t>>>>>,
    pub(super) ticket_keys: Option<At<&'t str>>,
}

impl<'t> Read<'t> for RawTls<'t> {
    const SECTION: Section = Section::Tls;

    fn read(fields: &mut Fields<'t, '_>) -> Self {
        Self {
            certificates: fields.required("certificates").list(|entry| entry.table()),
            min_version: min_version(fields),
            alpn: fields.optional("alpn").list(|entry| entry.text()),
            strict_sni: fields.optional("strict_sni").boolean(),
            clients: RawClients::read(fields),
            hosts: fields.optional("hosts").list(|entry| entry.table()),
            ticket_keys: fields.optional("ticket_keys").text(),
        }
    }
}

#[derive(Debug)]
pub(super) struct RawCertificate<'t> {
    pub(super) cert: Option<At<&'t str>>,
    pub(super) key: Option<At<&'t str>>,
    pub(super) names: Option<Texts<'t>>,
    pub(super) ocsp: Option<At<&'t str>>,
}

impl<'t> Read<'t> for RawCertificate<'t> {
    const SECTION: Section = Section::Certificate;

    fn read(fields: &mut Fields<'t, '_>) -> Self {
        Self {
            cert: fields.required("cert").text(),
            key: fields.required("key").text(),
            names: fields.optional("names").list(|entry| entry.text()),
            ocsp: fields.optional("ocsp").text(),
        }
    }
}

#[derive(Debug)]
pub(super) struct RawTlsHost<'t> {
    pub(super) host: Option<At<&'t str>>,
    pub(super) clients: RawClients<'t>,
}

impl<'t> Read<'t> for RawTlsHost<'t> {
    const SECTION: Section = Section::TlsHost;

    fn read(fields: &mut Fields<'t, '_>) -> Self {
        Self { host: fields.required("host").text(), clients: RawClients::read(fields) }
    }
}

#[derive(Debug)]
pub(super) struct RawPoolTls<'t> {
    pub(super) ca: Option<At<&'t str>>,
    pub(super) server_name: Option<At<&'t str>>,
    pub(super) verify: Option<At<bool>>,
    pub(super) cert: Option<At<&'t str>>,
    pub(super) key: Option<At<&'t str>>,
    pub(super) alpn: Option<Texts<'t>>,
    pub(super) min_version: Option<At<MinVersion>>,
}

impl<'t> Read<'t> for RawPoolTls<'t> {
    const SECTION: Section = Section::PoolTls;

    fn read(fields: &mut Fields<'t, '_>) -> Self {
        Self {
            ca: fields.optional("ca").text(),
            server_name: fields.optional("server_name").text(),
            verify: fields.optional("verify").boolean(),
            cert: fields.optional("cert").text(),
            key: fields.optional("key").text(),
            alpn: fields.optional("alpn").list(|entry| entry.text()),
            min_version: min_version(fields),
        }
    }
}

fn min_version(fields: &mut Fields<'_, '_>) -> Option<At<MinVersion>> {
    fields.optional("min_version").word(&[("1.2", MinVersion::Tls12), ("1.3", MinVersion::Tls13)])
}
