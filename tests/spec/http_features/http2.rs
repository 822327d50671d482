//! The same over HTTP/2, asked by curl: what depends on the version is how heads and bodies are sent.

use tokio::process::Command;

use super::origin::{Message, Origin, configuration, http, ok};
use super::users::{basic_auth, users};
use crate::stage::{ClosedPort, Instance, eventually, within};

/// Asks for a target with these arguments, and returns the answer with its body as it came.
async fn curl(instance: &Instance, target: &str, arguments: &[&str]) -> Message {
    let url = format!("http://{}{target}", instance.address("web"));
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--include", "--http2-prior-knowledge", "--max-time", "15"]);
    let output = within("curl", command.args(arguments).arg(url).output()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let end = output.stdout.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 2;
    let head = String::from_utf8(output.stdout[..end].to_vec()).unwrap();
    // So that its status stands where that of HTTP/1 does.
    let head = head.replacen("HTTP/2 ", "HTTP/2.0 ", 1);
    Message { head, body: output.stdout[end + 2..].to_vec(), trailers: String::new() }
}

#[tokio::test]
async fn responses_are_compressed() {
    let page = "All work and no play makes Jack a dull boy.\n".repeat(4000);
    let served = page.clone();
    let origin = Origin::start(move |request| {
        let fields = "Content-Type: text/plain\r\nETag: \"strong\"\r\n";
        match request.head.starts_with("HEAD") {
            true => format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n", served.len()).into_bytes(),
            false => ok(fields, &served),
        }
    })
    .await;
    let instance = http("compress = true", &[origin.server.address], "").await;
    for coding in ["gzip", "br", "zstd"] {
        let accept = format!("Accept-Encoding: {coding}");
        let answer = curl(&instance, "/", &["-H", &accept]).await;
        assert_eq!((answer.status(), answer.value("content-encoding")), (200, Some(coding)));
        assert_eq!((answer.value("content-length"), answer.value("etag")), (None, Some("W/\"strong\"")));
        assert_eq!(answer.decoded(), page.as_bytes());
        let head = curl(&instance, "/", &["-H", &accept, "--head"]).await;
        assert_eq!((head.value("content-encoding"), head.value("content-length")), (Some(coding), None));
    }
    let answer = curl(&instance, "/", &[]).await;
    assert_eq!(answer.value("vary"), Some("accept-encoding"));
    assert_eq!(answer.value("content-length"), Some(&*page.len().to_string()));
}

#[tokio::test]
async fn users_are_asked_for_and_clients_are_kept_with_a_server() {
    let (folder, a, b) = (users(), Origin::named("a").await, Origin::named("b").await);
    let servers = [a.server.address, b.server.address];
    let instance = http(&basic_auth(&folder), &servers, "sticky = { cookie = \"srv\" }").await;
    let refused = curl(&instance, "/private", &[]).await;
    assert_eq!((refused.status(), refused.value("x-portreeve-reason")), (401, Some("unauthorized")));
    assert!(refused.value("www-authenticate").unwrap().starts_with("Basic "));
    let first = curl(&instance, "/private", &["--user", "anna:secret"]).await;
    assert_eq!(first.status(), 200);
    for _ in 0..4 {
        let again = curl(&instance, "/private", &["--user", "anna:secret", "-b", first.cookie().unwrap()]).await;
        assert_eq!((again.text(), again.value("set-cookie")), (first.text(), None));
    }
    let asked: Vec<Message> = [a.asked(), b.asked()].concat();
    assert!(asked.len() == 5 && asked.iter().all(|request| request.value("authorization").is_none()));
}

#[tokio::test]
async fn requests_are_copied_with_their_bodies() {
    let (web, next) = (Origin::named("web").await, Origin::named("next").await);
    let route = "routes = [{ path = \"/\", pool = \"web\", mirror = \"next\" }]";
    let more = format!("[pools.next]\nservers = [\"{}\"]\ncheck = \"none\"", next.server.address);
    let instance = Instance::start(&configuration(route, &[web.server.address], &more)).await;
    assert_eq!(curl(&instance, "/a", &["--data", "the body"]).await.text(), "web");
    eventually("the copy", || !next.asked().is_empty()).await;
    assert_eq!((web.last().text(), next.last().text()), ("the body", "the body"));
    assert_eq!(web.last().value("x-request-id"), next.last().value("x-request-id"));
}

#[tokio::test]
async fn callers_of_grpc_are_answered_so_that_they_understand() {
    let closed = ClosedPort::new();
    let instance = http("", &[closed.address], "").await;
    let answer = curl(&instance, "/echo.Echo/Say", &["-H", "Content-Type: application/grpc"]).await;
    assert_eq!((answer.status(), answer.value("grpc-status")), (200, Some("14")));
    assert_eq!(answer.value("grpc-message"), Some("connect_refused"));
}
