//! Certificates, keys and lists: what is read, and what is said of those that are odd.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, SerialNumber, date_time_ymd,
};
use tempfile::TempDir;

use super::*;

/// A folder with every file that the full configuration names.
pub(super) fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("tls")).unwrap();
    let (params, ca_key) = root();
    let ca = params.self_signed(&ca_key).unwrap().pem();
    put(&folder, "clients.crt", &ca);
    put(&folder, "servers.crt", &ca);
    for name in ["example", "client"] {
        let key = KeyPair::generate().unwrap();
        let certificate = leaf("example.com").self_signed(&key).unwrap();
        put(&folder, &format!("{name}.crt"), &certificate.pem());
        put(&folder, &format!("{name}.key"), &key.serialize_pem());
    }
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2020, 1, 1),
        next_update: date_time_ymd(2120, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let issuer = Issuer::new(params, ca_key);
    put(&folder, "clients.crl", &list.signed_by(&issuer).unwrap().pem().unwrap());
    put(&folder, "example.ocsp", "an answer");
    put(&folder, "../sorry.html", "<h1>Back soon</h1>\n");
    put(&folder, "../users.htpasswd", "alice:$2y$05$bvIG6Nmid91Mu9RcmmWZfO5HJIMCT8riNW0hEp8f6/FuA2/mHZFpe\n");
    put(&folder, "../monitor.pass", "correct horse\n");
    put(&folder, "tickets.keys", "# newest first\nMDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n");
    folder
}

fn put(folder: &TempDir, name: &str, content: &str) {
    let path = folder.path().join("tls").join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn root() -> (CertificateParams, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "Root");
    (params, key)
}

fn leaf(name: &str) -> CertificateParams {
    CertificateParams::new(vec![name.to_owned()]).unwrap()
}

/// A configuration whose listener has this in its `tls`, and whose pool has this in its table.
fn text(tls: &str, pool: &str) -> String {
    format!(
        "[listeners.web]\nbind = \"8443\"\npool = \"web\"\ntls = {{ {tls} }}\n\
         [pools.web]\nservers = [\"10.0.0.1:8080\"]\n{pool}\n"
    )
}

const PAIR: &str = "certificates = [{ cert = \"tls/example.crt\", key = \"tls/example.key\" }]";

fn said_in(folder: &Path, text: &str) -> Vec<String> {
    match load_text(text, "test.toml", folder, &ENVIRONMENT) {
        Ok(loaded) => loaded.warnings.iter().map(|problem| format!("warning {}", line(problem))).collect(),
        Err(problems) => problems.iter().map(line).collect(),
    }
}

#[test]
fn a_pair_that_fits_is_taken_without_a_word() {
    let folder = folder();
    assert_eq!(said_in(folder.path(), &text(PAIR, "")), Vec::<String>::new());
}

#[test]
fn files_that_are_missing_or_hold_something_else_are_named_where_they_stand() {
    let folder = folder();
    put(&folder, "garbage.crt", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n");
    for (tls, expected) in [
        (
            PAIR.replace("example.crt", "none.crt"),
            "4:34 \"tls/none.crt\": cannot read the file: there is none at this path",
        ),
        (PAIR.replace("example.crt", "example.key"), "4:34 \"tls/example.key\": there is no certificate in PEM in it"),
        (PAIR.replace("example.key", "example.crt"), "4:59 \"tls/example.crt\": there is no private key in PEM in it"),
        (
            PAIR.replace("example.key", "client.key"),
            "4:59 \"tls/client.key\" is not the key to the certificate \"tls/example.crt\"",
        ),
        (format!("{PAIR}, ticket_keys = \"tls/example.crt\""), "4:95 \"tls/example.crt\": line 1 is no base64"),
        (format!("{PAIR}, client_auth = \"required\""), "4:95 `client_auth` means nothing without `client_ca`"),
        ("certificates = []".to_owned(), "4:24 `certificates` cannot be empty"),
    ] {
        assert_eq!(said_in(folder.path(), &text(&tls, "")), [expected], "{tls}");
    }
    let said = said_in(folder.path(), &text(&PAIR.replace("example.crt", "garbage.crt"), ""));
    assert!(said[0].starts_with("4:34 \"tls/garbage.crt\": the certificate cannot be read"), "{said:?}");
}

#[test]
fn certificates_that_are_not_valid_now_or_not_for_long_are_warned_about() {
    let folder = folder();
    let soon = time::OffsetDateTime::now_utc() + time::Duration::days(9) + time::Duration::hours(1);
    for (from, until, expected) in [
        (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1), "ran out"),
        (date_time_ymd(2120, 1, 1), date_time_ymd(2121, 1, 1), "is not valid yet"),
        (date_time_ymd(2020, 1, 1), soon, "runs out in 9 days"),
    ] {
        let key = KeyPair::generate().unwrap();
        let mut params = leaf("example.com");
        (params.not_before, params.not_after) = (from, until);
        put(&folder, "example.crt", &params.self_signed(&key).unwrap().pem());
        put(&folder, "example.key", &key.serialize_pem());
        let said = said_in(folder.path(), &text(PAIR, ""));
        let starts = format!("warning 4:34 the certificate \"tls/example.crt\" {expected}");
        assert!(said.len() == 1 && said[0].starts_with(&starts), "{said:?}");
    }
}

#[test]
fn a_name_that_the_certificate_is_not_for_and_a_key_that_all_can_read_are_warned_about() {
    let folder = folder();
    let names = PAIR.replace(" }]", ", names = [\"example.com\", \"example.org\"] }]");
    let expected = "warning 4:102 the certificate \"tls/example.crt\" is not one for \"example.org\"";
    assert_eq!(said_in(folder.path(), &text(&names, "")), [expected]);
    let key = folder.path().join("tls/example.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let expected = "warning 4:59 \"tls/example.key\" can be read by everybody on this machine";
    assert_eq!(said_in(folder.path(), &text(PAIR, "")), [expected]);
    let host = format!("{PAIR}, hosts = [{{ host = \"other.example\", client_ca = \"tls/clients.crt\" }}]");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let expected = "warning 4:99 no certificate of this listener is one for the host \"other.example\"";
    assert_eq!(said_in(folder.path(), &text(&host, "")), [expected]);
}

#[test]
fn servers_are_verified_unless_somebody_says_by_name_that_they_are_not() {
    let folder = folder();
    let unverified =
        "warning 7:18 the servers of this pool are not verified: whoever answers at their addresses is believed";
    assert_eq!(said_in(folder.path(), &text(PAIR, "tls = { verify = false }")), [unverified]);
    let load = |pool: &str| {
        let text = text(PAIR, pool);
        load_text(&text, "test.toml", folder.path(), &ENVIRONMENT)
            .unwrap_or_else(|p| panic!("{}", p.human(false)))
            .model
    };
    let verified = load("tls = { ca = \"tls/servers.crt\", server_name = \"api.internal\" }");
    assert_eq!(verified.pools[0].check.label(), "tls", "its checks shake hands as well");
    assert_eq!(load("tls = { ca = \"tls/servers.crt\" }\ncheck = \"tcp\"").pools[0].check.label(), "tcp");
    assert_eq!(load("check = \"tls\"").pools[0].check.label(), "tls", "a pool that passes TLS through");
    assert_eq!(load("").pools[0].check.label(), "tcp");
    for (pool, expected) in [
        ("tls = { cert = \"tls/client.crt\" }", "7:16 `cert` and `key` stand together or not at all"),
        ("tls = { server_name = \"a b\" }", "7:23 \"a b\" is not the name of a server"),
        ("check = { server_name = \"a\" }", "7:25 `server_name` of a check means nothing unless it speaks TLS"),
    ] {
        assert_eq!(said_in(folder.path(), &text(PAIR, pool)), [expected], "{pool}");
    }
}

#[test]
fn the_files_a_configuration_is_made_of_are_known() {
    let folder = folder();
    let text = text(&format!("{PAIR}, client_ca = \"tls/clients.crt\""), "");
    let model = load_text(&text, "test.toml", folder.path(), &ENVIRONMENT).unwrap().model;
    let names: Vec<_> = model.files.keys().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["clients.crt", "example.crt", "example.key"]);
}

#[test]
fn settings_differ_when_a_file_does_and_are_equal_when_none_does() {
    let folder = folder();
    let load = || load_text(&text(PAIR, ""), "test.toml", folder.path(), &ENVIRONMENT).unwrap().model;
    let before = load();
    assert_eq!(load(), before);
    let key = KeyPair::generate().unwrap();
    put(&folder, "example.crt", &leaf("example.com").self_signed(&key).unwrap().pem());
    put(&folder, "example.key", &key.serialize_pem());
    assert_ne!(load(), before);
}

#[test]
fn routes_by_name_make_a_pool_of_the_listener_s_own_unnecessary() {
    let listener =
        |routes: &str| format!("[listeners.web]\nbind = 1\nsni = [{routes}]\n[pools.a]\nservers = [\"10.0.0.1:1\"]\n");
    assert_eq!(said(&listener("{ host = \"a.example\", pool = \"a\" }")), Vec::<String>::new());
    assert_eq!(said(&listener("{ alpn = [\"h2\"], pool = \"a\" }")), Vec::<String>::new());
    for (routes, expected) in [
        ("", &["3:7 `sni` cannot be empty", "4:8 no listener uses the pool \"a\""][..]),
        ("{ pool = \"a\" }", &["3:8 a route of `sni` needs the key `host`"]),
        ("{ host = \"a\", pool = \"b\" }", &["3:29 there is no pool \"b\"", "4:8 no listener uses the pool \"a\""]),
        ("{ host = \"1.2.3.4\", pool = \"a\" }", &["3:17 \"1.2.3.4\" is not a host name: it is an IP address"]),
        (
            "{ host = \"a\", pool = \"a\" }, { host = \"A.\", pool = \"a\" }",
            &["3:45 an earlier route of this listener is for the same"],
        ),
    ] {
        assert_eq!(said(&listener(routes)), expected, "{routes}");
    }
}
