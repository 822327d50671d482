//! Routes of HTTP inside another program: an instance in front of a server of the program's own.
//!
//! `cargo run --example embed_http`

#![allow(clippy::disallowed_methods, reason = "the server and the client are the example's own")]

use std::io::{self, Write};
use std::net::SocketAddr;

use portreeve::app::{Source, start};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Three routes: one leads to the server, one elsewhere, and one is answered by the instance itself.
fn configuration(server: SocketAddr) -> String {
    format!(
        r#"
        [listeners.web]
        bind = "127.0.0.1:0"
        protocol = "http"

        [[listeners.web.routes]]
        path = "/app/"
        pool = "app"
        rewrite = {{ prefix = "/" }}
        request_headers = {{ set = {{ "x-embedded" = "yes" }} }}

        [[listeners.web.routes]]
        path = "= /"
        redirect = {{ to = "/app/", status = 302 }}

        [[listeners.web.routes]]
        path = "= /ping"
        respond = {{ status = 200, body = "pong\n" }}

        [pools.app]
        servers = ["{server}"]
        "#
    )
}

/// Answers each connection with the head of the request it got.
async fn serve(listener: TcpListener) -> io::Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await? > 0 {}
            let answer = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", head.len());
            stream.write_all(answer.as_bytes()).await?;
            stream.write_all(&head).await
        });
    }
}

/// Asks for a path and returns the whole answer.
async fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// The runtime that calls `start` becomes the control thread; requests are served on threads of their own.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = io::stdout();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let server = listener.local_addr()?;
    tokio::spawn(serve(listener));

    let instance = start(Source::Text(configuration(server))).await?;
    let address = instance.address("web").ok_or("the listener has no address")?;
    for path in ["/ping", "/", "/app/hello?who=world", "/nowhere"] {
        writeln!(out, "--- {path}\n{}", get(address, path).await?)?;
    }
    instance.stop().await;
    Ok(())
}
