//! HAProxy, which the protocol comes from, at either end.

use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::stage::access::AccessLog;
use crate::stage::watch::Port;
use crate::stage::{Instance, Server, balancing, hear, listening, within};

/// HAProxy with one section, in a process of its own.
struct HaProxy {
    _child: Child,
    _folder: TempDir,
}

impl HaProxy {
    /// Starts it and waits until it listens on the port.
    async fn start(section: &str, port: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("haproxy.cfg");
        let defaults = "defaults\n timeout connect 20s\n timeout client 20s\n timeout server 20s\n";
        std::fs::write(&file, format!("global\n maxconn 100\n{defaults}{section}")).unwrap();
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(&file).stdin(Stdio::null()).kill_on_drop(true);
        let child = command.spawn().expect("haproxy, which tests/run installs");
        let mut look = tokio::time::interval(std::time::Duration::from_millis(5));
        within("haproxy", async {
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                look.tick().await;
            }
        })
        .await;
        Self { _child: child, _folder: folder }
    }
}

#[tokio::test]
async fn haproxy_learns_the_client_from_us() {
    let port = Port::claim();
    let section = format!(
        "frontend web\n mode http\n bind 127.0.0.1:{} accept-proxy\n http-request return status 200 \
         content-type text/plain lf-string \"%[src]:%[src_port] %[dst]:%[dst_port] %[fc_pp_unique_id]\"\n",
        *port
    );
    let _haproxy = HaProxy::start(&section, *port).await;
    for version in ["v1", "v2"] {
        let log = AccessLog::new();
        let more = format!("proxy_protocol = \"{version}\"");
        let server = ([127, 0, 0, 1], *port).into();
        let instance = Instance::start(&log.of(&balancing(&[server], &more))).await;
        let mut client = instance.connect().await;
        let own = client.local_addr().unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        let answer = hear(client).await.unwrap();
        let line = log.line(1).await;
        let id = if version == "v2" { line["unique_id"].as_str().unwrap() } else { "" };
        let told = format!("\r\n\r\n{own} {} {id}", instance.address("web"));
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(&told), "{version} {told}: {answer}");
    }
}

#[tokio::test]
async fn we_learn_the_client_from_haproxy() {
    for options in ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"] {
        let (server, log, port) = (Server::echo().await, AccessLog::new(), Port::claim());
        let trusted = "proxy_protocol = { from = [\"127.0.0.1\"] }";
        let instance = Instance::start(&log.of(&listening(trusted, &[server.address], ""))).await;
        let section = format!(
            "listen web\n mode tcp\n unique-id-format of-haproxy\n bind 127.0.0.1:{}\n server us {} {options}\n",
            *port,
            instance.address("web")
        );
        let _haproxy = HaProxy::start(&section, *port).await;
        // The connection that found it listening.
        log.line(1).await;
        let mut client = TcpStream::connect(("127.0.0.1", *port)).await.unwrap();
        let own = client.local_addr().unwrap().to_string();
        client.write_all(b"hello").await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(hear(client).await.unwrap(), "hello", "{options}");
        let line = log.line(2).await;
        assert_eq!((&line["client"], &line["bytes_in"]), (&own.into(), &5.into()), "{options}: {line}");
        let id = options.contains("unique-id").then_some("of-haproxy");
        assert_eq!(line.get("unique_id").and_then(serde_json::Value::as_str), id, "{options}: {line}");
    }
}
