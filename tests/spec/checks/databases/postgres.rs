//! PostgreSQL.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Daemon, command, copy, folder, password, run};
use crate::stage::pki::{Pair, Pki};
use crate::stage::watch::Port;
use crate::stage::{Program, Server, balancing, eventually, within};

use super::super::{checked, checking, often, reason, saying, shows};

/// Who is let in how.
const HBA: &str = "hostnossl all sealed all reject\nhostssl all sealed all password\nhost all trusted all trust\nhost all hashed all md5\nhost all shown all password\n\
                   host all all all scram-sha-256\nhost replication all all scram-sha-256\n";

/// A folder of programs of some version of PostgreSQL.
fn program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed").flatten();
    versions.map(|version| version.path().join("bin").join(name)).find(|path| path.exists()).unwrap()
}

/// A server.
struct Postgres {
    port: Port,
    folder: TempDir,
    daemon: Daemon,
}

impl Postgres {
    /// A primary with users that are let in in each of four ways, `secret` being the password of those that have one.
    async fn primary() -> Self {
        Self::primary_with(None).await
    }

    /// The same for one that speaks TLS with this certificate, and lets the user `sealed` in by that alone.
    async fn primary_with(tls: Option<&Pair>) -> Self {
        let folder = folder();
        let secret = password(folder.path(), "secret");
        let mut init = command(program("initdb"), folder.path());
        init.args(["-D", "data", "-U", "postgres", "-N", "--auth=scram-sha-256", "--pwfile"]).arg(secret);
        run(init).await;
        std::fs::write(folder.path().join("data/pg_hba.conf"), HBA).unwrap();
        if let Some(Pair { cert, key, .. }) = tls {
            copy(cert, &folder.path().join("data/server.crt"));
            copy(key, &folder.path().join("data/server.key"));
        }
        let started = Self::start(folder);
        started.listens().await;
        started.ask("create role trusted login; create role shown login password 'secret'").await;
        started.ask("create role sealed login password 'secret'").await;
        started.ask("set password_encryption = 'md5'; create role hashed login password 'secret'").await;
        started
    }

    /// A replica of this one.
    async fn replica(&self) -> Self {
        let folder = folder();
        let mut copy = self.client("pg_basebackup");
        copy.current_dir(folder.path()).args(["-D", "data", "-R", "-c", "fast"]);
        run(copy).await;
        let started = Self::start(folder);
        started.listens().await;
        started
    }

    fn start(folder: TempDir) -> Self {
        let port = Port::claim();
        let mut server = command(program("postgres"), folder.path());
        if folder.path().join("data/server.key").exists() {
            server.args(["-c", "ssl=on"]);
        }
        server.args(["-D", "data", "-F", "-h", "127.0.0.1", "-p", &port.to_string(), "-c", "unix_socket_directories="]);
        Self { port, daemon: Daemon::start(server), folder }
    }

    /// A client of the user `postgres`.
    fn client(&self, name: &str) -> Command {
        let mut client = command(program(name), self.folder.path());
        client.args(["-h", "127.0.0.1", "-U", "postgres", "-p", &self.port.to_string()]).env("PGPASSWORD", "secret");
        client
    }

    async fn listens(&self) {
        let is_ready = || self.client("pg_isready").status().unwrap().success();
        eventually("the server takes clients", is_ready).await;
    }

    async fn ask(&self, question: &str) -> String {
        let mut client = self.client("psql");
        client.args(["-d", "postgres", "-c", question]);
        within("an answer", run(client)).await
    }

    fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], *self.port).into()
    }

    /// A check by this user with this password.
    fn asked_by(&self, user: &str, word: &str) -> String {
        let file = password(self.folder.path(), word);
        often(&format!("type = \"postgres\", user = \"{user}\", password_file = {file:?}"))
    }
}

#[tokio::test]
async fn the_primary_is_told_from_its_replica_and_a_replica_that_is_promoted_is_logged() {
    let primary = Postgres::primary().await;
    let mut replica = primary.replica().await;
    let text = balancing(&[primary.address(), replica.address()], &primary.asked_by("postgres", "secret"));
    let mut program = Program::start(&text);
    let line = program.says("server is replica: postgres check").await;
    assert!(line.contains(&format!("\"server\":\"{}\"", replica.address())), "{line}");
    replica.ask("select pg_promote()").await;
    let line = program.says(&format!("\"server\":\"{}\"", replica.address())).await;
    assert!(line.contains("server is primary: postgres check"), "{line}");
    replica.daemon.stop();
    let line = program.says("server is down").await;
    assert!(line.contains("postgres check failed: connect: "), "{line}");
    program.signal(Signal::TERM);
    program.exit().await;
}

#[tokio::test]
async fn connections_go_to_the_primary_and_to_the_replica_once_that_is_promoted() {
    let mut primary = Postgres::primary().await;
    let mut replica = primary.replica().await;
    let more = format!("{}\nrole = \"primary\"", primary.asked_by("postgres", "secret"));
    let instance = checking(&[replica.address(), primary.address()], &more).await;
    let port = instance.address("web").port().to_string();
    let serves = |server: &Postgres| {
        let mut client = server.client("psql");
        client.args(["-p", &port, "-d", "postgres", "-At", "-c", "select inet_server_port()"]);
        async { within("an answer", run(client)).await.trim().to_owned() }
    };
    shows(&instance, primary.address(), "standby", false).await;
    for _ in 0..3 {
        assert_eq!(serves(&primary).await, primary.port.to_string());
    }
    primary.daemon.stop();
    shows(&instance, primary.address(), "standby", true).await;
    instance.refuses().await;
    replica.ask("select pg_promote()").await;
    shows(&instance, replica.address(), "standby", false).await;
    assert_eq!(serves(&replica).await, replica.port.to_string());
    replica.daemon.stop();
}

#[tokio::test]
async fn whoever_is_let_in_hears_the_role_and_whoever_is_not_hears_why() {
    let primary = Postgres::primary().await;
    let server = primary.address();
    for check in [
        primary.asked_by("postgres", "secret"),
        primary.asked_by("hashed", "secret"),
        often("type = \"postgres\", user = \"trusted\", database = \"template1\""),
    ] {
        let instance = checking(&[server], &check).await;
        shows(&instance, server, "role", "primary").await;
        assert!(instance.is_up(server), "{check}");
    }
    for (check, words) in [
        (primary.asked_by("postgres", "wrong"), "password authentication failed for user \"postgres\" (28P01)"),
        (primary.asked_by("hashed", "wrong"), "password authentication failed for user \"hashed\" (28P01)"),
        (often("type = \"postgres\", user = \"hashed\""), "it asks for a password"),
        (
            primary.asked_by("shown", "secret"),
            "it asks for the password in the clear, which takes tls that is verified",
        ),
        (
            often("type = \"postgres\", user = \"trusted\", database = \"none\""),
            "database \"none\" does not exist (3D000)",
        ),
    ] {
        let instance = checking(&[server], &check).await;
        assert_eq!(reason(&instance, server).await, format!("postgres check failed: {words}"));
        assert_eq!(instance.server(server).await["role"], serde_json::Value::Null);
    }
    let instance = checking(&[server], &often("type = \"postgres\"")).await;
    checked(&instance, server, "passed", 1.0).await;
    assert!(instance.is_up(server));
}

#[tokio::test]
async fn tls_is_asked_for_in_the_words_of_the_protocol_and_shows_the_password_to_whom_is_trusted_alone() {
    let (pki, strangers) = (Pki::new(), Pki::new());
    let primary = Postgres::primary_with(Some(&pki.issue(&["127.0.0.1"]))).await;
    let server = primary.address();
    let asking = |keys: &str| primary.asked_by("sealed", "secret").replace(", user", &format!(", {keys} user"));
    let trusting = |pki: &Pki| asking(&format!("tls = true, ca = {:?},", pki.root()));
    let instance = checking(&[server], &trusting(&pki)).await;
    shows(&instance, server, "role", "primary").await;
    for (check, words) in [
        (asking("tls = true,"), "it asks for the password in the clear, which takes tls that is verified"),
        (trusting(&strangers), "handshake: "),
        (asking(""), "pg_hba.conf rejects connection for host \"127.0.0.1\", user \"sealed\""),
    ] {
        let instance = checking(&[server], &check).await;
        let reason = reason(&instance, server).await;
        assert!(reason.starts_with(&format!("postgres check failed: {words}")), "{reason}");
    }
    let instance = checking(&[server], &often("type = \"postgres\", tls = true")).await;
    checked(&instance, server, "passed", 2.0).await;
    assert!(instance.is_up(server));
}

#[tokio::test]
async fn a_server_that_has_no_tls_or_goes_on_in_the_clear_where_it_is_to_begin_does_not_pass() {
    for (answer, words) in [
        ("N", "it does not speak TLS"),
        ("SR\0\0\0\x08\0\0\0\0", "handshake: received corrupt message of type InvalidContentType"),
        ("E\0\0\0\x08\0\0\0\0", "it answers the request for TLS with an error"),
        ("HTTP/1.1 400 Bad Request", "it does not speak PostgreSQL"),
    ] {
        let server = saying(answer).await;
        let instance = checking(&[server.address], &often("type = \"postgres\", tls = true")).await;
        assert_eq!(reason(&instance, server.address).await, format!("postgres check failed: {words}"));
    }
}

/// A message that refuses, as servers send it.
fn refusal(code: &str, words: &str) -> Vec<u8> {
    let fields = format!("SFATAL\0C{code}\0M{words}\0\0");
    let length = u32::try_from(fields.len() + 4).unwrap().to_be_bytes();
    [&b"E"[..], &length, fields.as_bytes()].concat()
}

#[tokio::test]
async fn without_a_user_a_server_that_lets_nobody_in_passes_and_one_that_takes_nobody_for_now_does_not() {
    let strict = saying(refusal("28000", "no pg_hba.conf entry")).await;
    let starting = saying(refusal("57P03", "the database system is starting up")).await;
    let instance = checking(&[strict.address, starting.address], &often("type = \"postgres\"")).await;
    let words = "postgres check failed: the database system is starting up (57P03)";
    assert_eq!(reason(&instance, starting.address).await, words);
    checked(&instance, strict.address, "passed", 2.0).await;
    assert!(instance.is_up(strict.address));
}

#[tokio::test]
async fn a_server_cannot_have_checks_hash_for_ever_nor_get_the_password_by_asking() {
    let hashing = Server::start(|mut stream: TcpStream| async move {
        let mut read = vec![0; 1024];
        let _startup = stream.read(&mut read).await;
        let _gone = stream.write_all(b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0").await;
        let Ok(length) = stream.read(&mut read).await else { return };
        let said = String::from_utf8_lossy(&read[..length]).into_owned();
        let Some((_, nonce)) = said.split_once("r=") else { return };
        let challenge = format!("r={nonce}x,s=c2FsdA==,i=4294967295");
        let length = u32::try_from(challenge.len() + 8).unwrap().to_be_bytes();
        let _gone = stream.write_all(&[b"R", &length[..], &[0, 0, 0, 11], challenge.as_bytes()].concat()).await;
        let _end = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let folder = folder();
    let file = password(folder.path(), "secret");
    let check = often(&format!("type = \"postgres\", user = \"monitor\", password_file = {file:?}"));
    let instance = checking(&[hashing.address], &check).await;
    let words = "postgres check failed: SCRAM iteration count exceeds the maximum allowed";
    assert_eq!(reason(&instance, hashing.address).await, words);
}
