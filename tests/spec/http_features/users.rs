//! Routes that ask for a name and a password.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tempfile::TempDir;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::origin::{Message, Origin, configuration, get, http};
use crate::stage::access::AccessLog;
use crate::stage::{Instance, Program, within};

/// The hash of `secret`, after the cost.
const SECRET: &str = "abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";

/// A folder with a file of users: `anna`, with the password `secret`.
pub fn users() -> TempDir {
    users_with(&format!("$2y$04${SECRET}"))
}

/// The same with another hash.
fn users_with(hash: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users");
    fs::write(&file, format!("anna:{hash}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    folder
}

/// A route below `/private` for those users alone.
pub fn basic_auth(folder: &TempDir) -> String {
    format!("routes = [{{ path = \"/private\", pool = \"web\", basic_auth = {:?} }}]", folder.path().join("users"))
}

fn basic(credentials: &str) -> String {
    format!("Authorization: Basic {}\r\n", BASE64_STANDARD.encode(credentials))
}

#[tokio::test]
async fn one_who_is_asked_is_told_what_for() {
    let (folder, origin) = (users(), Origin::named("a").await);
    let route = basic_auth(&folder).replace(" }]", ", realm = \"Staff only\" }]");
    let instance = http(&route, &[origin.server.address], "").await;
    let answer = get(&instance, "/private", "").await;
    assert_eq!(answer.value("www-authenticate"), Some("Basic realm=\"Staff only\", charset=\"UTF-8\""));
}

#[tokio::test]
async fn one_who_is_no_user_is_asked_for_a_name_and_a_password() {
    let (folder, origin) = (users(), Origin::named("a").await);
    let instance = http(&basic_auth(&folder), &[origin.server.address], "").await;
    let twice = format!("{}{}", basic("anna:secret"), basic("anna:secret"));
    let cases = [
        "",
        &basic("anna:wrong"),
        &basic("otto:secret"),
        &twice,
        "Authorization: Bearer x\r\n",
        "Authorization: Basic\r\n",
    ];
    for fields in cases {
        let answer = get(&instance, "/private", fields).await;
        assert_eq!(answer.status(), 401, "{fields}");
        assert_eq!(answer.value("www-authenticate"), Some("Basic realm=\"restricted\", charset=\"UTF-8\""));
        assert_eq!(answer.value("x-portreeve-reason"), Some("unauthorized"));
    }
    assert!(origin.asked().is_empty());
    assert_eq!(get(&instance, "/public", "").await.status(), 200);
}

#[tokio::test]
async fn a_user_is_let_in_and_named_in_the_access_log_and_the_password_stays_here() {
    let (folder, origin, log) = (users(), Origin::named("a").await, AccessLog::new());
    let configuration = configuration(&basic_auth(&folder), &[origin.server.address], "");
    let instance = Instance::start(&log.of(&configuration)).await;
    for count in [1, 2] {
        assert_eq!(get(&instance, "/private", &basic("anna:secret")).await.status(), 200);
        assert_eq!(origin.last().value("authorization"), None);
        let line = log.line(count).await;
        assert_eq!((&line["user"], &line["status"]), (&"anna".into(), &200.into()), "{line}");
    }
    // What is for the server alone goes there.
    get(&instance, "/public", "Authorization: Bearer token\r\n").await;
    assert_eq!(origin.last().value("authorization"), Some("Bearer token"));
}

#[tokio::test]
async fn a_changed_file_of_users_is_in_effect_after_a_reload() {
    let (folder, origin) = (users(), Origin::named("a").await);
    let configuration = configuration(&basic_auth(&folder), &[origin.server.address], "");
    let instance = Instance::start(&configuration).await;
    assert_eq!(get(&instance, "/private", &basic("anna:secret")).await.status(), 200);
    fs::write(folder.path().join("users"), format!("berta:$2y$04${SECRET}\n")).unwrap();
    instance.running.reload_text(&configuration).await.unwrap();
    assert_eq!(get(&instance, "/private", &basic("anna:secret")).await.status(), 401);
    assert_eq!(get(&instance, "/private", &basic("berta:secret")).await.status(), 200);
}

#[tokio::test]
async fn a_flood_of_passwords_is_turned_away_and_those_who_leave_make_room() {
    // In a process of its own, which shares its threads for passwords with no other test; each takes it a good while.
    let (folder, origin) = (users_with(&format!("$2y$12${SECRET}")), Origin::named("a").await);
    let text = configuration(&basic_auth(&folder), &[origin.server.address], "");
    let mut program = Program::start(&format!("log.access = \"stderr\"\n{text}"));
    let address = program.listening("web").await;
    let ask = async |password: usize| {
        let mut stream = BufReader::new(within("connect", TcpStream::connect(address)).await.unwrap());
        let fields = basic(&format!("anna:{password}"));
        stream.write_all(format!("GET /private HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes()).await.unwrap();
        stream
    };
    let mut flood = Vec::new();
    for password in 0..200 {
        flood.push(ask(password).await);
    }
    let mut last = flood.pop().unwrap();
    let answer = within("an answer", Message::read(&mut last, false)).await.unwrap();
    assert_eq!((answer.status(), answer.value("x-portreeve-reason")), (503, Some("refused_limit")));
    program.says("\"reason\":\"refused_limit\",\"error\":\"too many passwords wait to be verified\"").await;
    // Nobody but users is kept waiting by it.
    let mut other = BufReader::new(TcpStream::connect(address).await.unwrap());
    other.write_all(b"GET /public HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert_eq!(within("an answer", Message::read(&mut other, false)).await.unwrap().status(), 200);
    drop((flood, last));
    loop {
        let answer = within("an answer", Message::read(&mut ask(0).await, false)).await.unwrap();
        if answer.status() == 401 {
            break;
        }
        assert_eq!(answer.status(), 503);
    }
}
