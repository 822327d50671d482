//! MySQL and MariaDB.

use std::net::SocketAddr;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::{checked, checking, often, reason, saying, shows};
use super::{Daemon, command, copy, folder, password, run};
use crate::stage::pki::{Pair, Pki};
use crate::stage::watch::Port;
use crate::stage::{Instance, Server, eventually, within};

/// A MariaDB with the user `monitor`, whose password is `secret`.
struct MariaDb {
    port: Port,
    folder: TempDir,
    daemon: Daemon,
}

impl MariaDb {
    async fn start() -> Self {
        Self::start_with(None).await
    }

    /// The same for one that speaks TLS with this certificate.
    async fn start_with(tls: Option<&Pair>) -> Self {
        let folder = folder();
        let data = format!("--datadir={}", folder.path().join("data").display());
        let mut install = command("mariadb-install-db", folder.path());
        install.args(["--no-defaults", &data, "--auth-root-authentication-method=normal", "--skip-test-db"]);
        run(install).await;
        let port = Port::claim();
        let mut server = command("/usr/sbin/mariadbd", folder.path());
        server.args(["--no-defaults", &data, "--bind-address=127.0.0.1", &format!("--port={}", *port)]);
        server.args(["--socket=s", "--pid-file=p", "--innodb-flush-log-at-trx-commit=0", "--tmpdir=."]);
        if let Some(Pair { cert, key, .. }) = tls {
            copy(cert, &folder.path().join("server.crt"));
            copy(key, &folder.path().join("server.key"));
            // Relative to its data.
            server.args(["--ssl-cert=../server.crt", "--ssl-key=../server.key"]);
        }
        let started = Self { port, daemon: Daemon::start(server), folder };
        let is_ready = || started.client("select 1").status().unwrap().success();
        eventually("the server takes clients", is_ready).await;
        started.ask("create user monitor@'%' identified by 'secret'").await;
        started
    }

    fn client(&self, question: &str) -> std::process::Command {
        let mut client = command("mariadb", self.folder.path());
        let port = format!("--port={}", *self.port);
        client.args(["--no-defaults", "--host=127.0.0.1", &port, "--user=root", "-e", question]);
        client
    }

    async fn ask(&self, question: &str) -> String {
        within("an answer", run(self.client(question))).await
    }

    fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], *self.port).into()
    }
}

#[tokio::test]
async fn tls_is_asked_for_after_the_greeting_and_has_to_be_that_of_whom_is_trusted() {
    let (pki, strangers) = (Pki::new(), Pki::new());
    let database = MariaDb::start_with(Some(&pki.issue(&["127.0.0.1"]))).await;
    let server = database.address();
    database.ask("create user sealed@'%' identified by 'secret' require ssl").await;
    let asking = |user: &str, keys: &str| {
        asked_by(user, &database.folder, "secret").replace(", user", &format!(", {keys} user"))
    };
    let trusting = |pki: &Pki| asking("sealed", &format!("tls = true, ca = {:?},", pki.root()));
    for check in [trusting(&pki), asking("sealed", "tls = true,"), asking("monitor", "")] {
        let instance = checking(&[server], &check).await;
        shows(&instance, server, "role", "primary").await;
    }
    for (check, words) in
        [(asking("sealed", ""), "Access denied for user 'sealed'@"), (trusting(&strangers), "handshake: ")]
    {
        let instance = checking(&[server], &check).await;
        let reason = reason(&instance, server).await;
        assert!(reason.starts_with(&format!("mysql check failed: {words}")), "{reason}");
    }
    let instance = checking(&[server], &often("type = \"mysql\", tls = true")).await;
    checked(&instance, server, "passed", 2.0).await;
}

#[tokio::test]
async fn a_server_that_cannot_speak_tls_is_not_asked_for_it() {
    let payload = [
        b"\x0a5.5.5\0\x05\0\0\0abcdefgh\0",
        &[0xff, 0xf7, 45, 2, 0, 0xff, 0x81, 21][..],
        &[0; 10],
        b"ijklmnopqrst\0x\0",
    ];
    let old = saying(packet(0, &payload.concat())).await;
    let instance = checking(&[old.address], &often("type = \"mysql\", tls = true")).await;
    assert_eq!(reason(&instance, old.address).await, "mysql check failed: it does not speak TLS");
}

fn asked_by(user: &str, folder: &TempDir, word: &str) -> String {
    let file = password(folder.path(), word);
    often(&format!("type = \"mysql\", user = \"{user}\", password_file = {file:?}"))
}

#[tokio::test]
async fn a_server_that_is_read_only_is_a_replica_and_another_the_primary() {
    let mut database = MariaDb::start().await;
    let server = database.address();
    let instance =
        checking(&[server], &asked_by("monitor", &database.folder, "secret").replace("fall = 2", "fall = 20")).await;
    shows(&instance, server, "role", "primary").await;
    database.ask("set global read_only = 1").await;
    shows(&instance, server, "role", "replica").await;
    assert!(instance.is_up(server));
    database.daemon.stop();
    assert!(reason(&instance, server).await.starts_with("mysql check failed: connect: "));
    assert_eq!(instance.server(server).await["role"], "replica", "as it last said");
}

#[tokio::test]
async fn whoever_is_not_let_in_hears_why_and_without_a_user_the_greeting_is_enough() {
    let database = MariaDb::start().await;
    let server = database.address();
    let instance = checking(&[server], &asked_by("monitor", &database.folder, "wrong")).await;
    let reason = reason(&instance, server).await;
    assert!(reason.starts_with("mysql check failed: Access denied for user 'monitor'@"), "{reason}");
    assert!(reason.ends_with(" (1045)"), "{reason}");
    let instance = checking(&[server], &often("type = \"mysql\"")).await;
    checked(&instance, server, "passed", 2.0).await;
    assert_eq!(instance.server(server).await["role"], serde_json::Value::Null);
}

/// A packet with its head.
fn packet(number: u8, payload: &[u8]) -> Vec<u8> {
    [&[u8::try_from(payload.len()).unwrap(), 0, 0, number], payload].concat()
}

/// What a MySQL 8 begins with.
fn greeting() -> Vec<u8> {
    let rest = [0xff, 0xff, 255, 2, 0, 0xff, 0xdf, 21, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let payload = [b"\x0a8.0.36\0\x05\0\0\0abcdefgh\0", &rest[..], b"ijklmnopqrst\0caching_sha2_password\0"].concat();
    packet(0, &payload)
}

/// A MySQL 8 that answers a login like this, and a question with no.
async fn mysql8(answer: Vec<u8>) -> Server {
    Server::start(move |mut stream: TcpStream| {
        let answer = answer.clone();
        async move {
            stream.write_all(&greeting()).await.unwrap();
            let mut read = vec![0; 1024];
            let length = stream.read(&mut read).await.unwrap();
            assert!(read[..length].ends_with(b"caching_sha2_password\0"));
            let _gone = stream.write_all(&answer).await;
            let Ok(5..) = stream.read(&mut read).await else { return };
            let column = b"\x03def\0\0\0\x12@@global.read_only\0\x0c\x3f\0\x01\0\0\0\x08\x80\0\0\0\0";
            let end = b"\xfe\0\0\x02\0";
            let parts = [packet(1, &[1]), packet(2, column), packet(3, end), packet(4, b"\x010"), packet(5, end)];
            let _gone = stream.write_all(&parts.concat()).await;
            let _end = stream.read_to_end(&mut Vec::new()).await;
        }
    })
    .await
}

async fn asking(server: &Server) -> Instance {
    checking(&[server.address], &asked_by("monitor", &folder(), "secret")).await
}

#[tokio::test]
async fn a_server_that_remembers_the_user_is_content_with_a_proof_and_one_that_does_not_wants_the_password() {
    let ok = [0, 0, 0, 2, 0, 0, 0];
    let knowing = mysql8([packet(2, &[1, 3]), packet(3, &ok)].concat()).await;
    let instance = asking(&knowing).await;
    shows(&instance, knowing.address, "role", "primary").await;
    let forgetful = mysql8(packet(2, &[1, 4])).await;
    let instance = asking(&forgetful).await;
    let words = "mysql check failed: it asks for the password in the clear, which takes tls that is verified";
    assert_eq!(reason(&instance, forgetful.address).await, words);
    let clear = mysql8(packet(2, b"\xfemysql_clear_password\0")).await;
    let instance = asking(&clear).await;
    assert_eq!(reason(&instance, clear.address).await, words);
    let other = mysql8(packet(2, b"\xfeclient_ed25519\0salt")).await;
    let instance = asking(&other).await;
    let words = "mysql check failed: it asks for client_ed25519, which checks do not have";
    assert_eq!(reason(&instance, other.address).await, words);
}

#[tokio::test]
async fn a_server_that_is_full_says_so_in_place_of_a_greeting() {
    let full = saying(packet(0, b"\xff\x10\x04#08004Too many connections")).await;
    let instance = checking(&[full.address], &often("type = \"mysql\"")).await;
    assert_eq!(reason(&instance, full.address).await, "mysql check failed: Too many connections (1040)");
}
