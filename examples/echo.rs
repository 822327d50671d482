//! A TCP server that sends back what it gets: something to balance over while trying things out.
//!
//! `cargo run --example echo -- 127.0.0.1:9001`
#![allow(clippy::disallowed_methods, reason = "an example server stands outside the house and its laws on threads")]

use std::io::{self, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".to_owned());
    let listener = TcpListener::bind(&address)?;
    writeln!(io::stderr(), "echo: listening on {}", listener.local_addr()?)?;
    for client in listener.incoming() {
        match client {
            Ok(client) => drop(thread::spawn(move || echo(&client))),
            Err(error) => writeln!(io::stderr(), "echo: accept: {error}")?,
        }
    }
    Ok(())
}

/// Sends back what `client` says until it has finished, then finishes too. An error ends this connection and no other.
fn echo(client: &TcpStream) {
    let (mut from, mut to) = (client, client);
    if io::copy(&mut from, &mut to).is_ok() {
        let _ = client.shutdown(Shutdown::Write);
    }
}
