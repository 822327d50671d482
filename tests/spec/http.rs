//! Chapter: HTTP/1, request by request.

mod answers;
mod bodies;
mod draining;
mod forwarding;
mod limits;
mod messages;
mod observing;
mod routing;
mod secure;
mod upstream;

use std::net::SocketAddr;

use crate::stage::Instance;
use crate::stage::http::{Client, Recorder, serving};

/// An instance in front of one server.
async fn in_front_of(server: SocketAddr) -> Instance {
    with(server, "", "").await
}

/// The same with more in the tables of the listener and of the pool.
async fn with(server: SocketAddr, listener: &str, pool: &str) -> Instance {
    Instance::start(&serving(&[server], listener, pool)).await
}

/// A server that answers `ok`, an instance in front of it and a client.
async fn plain() -> (Recorder, Instance, Client) {
    let server = Recorder::ok().await;
    let instance = in_front_of(server.address()).await;
    let client = Client::of(&instance).await;
    (server, instance, client)
}
