//! The manual, as tests: each chapter drives a whole instance, or the program itself, with scripted clients and servers
//! over real sockets.

#![allow(
    clippy::disallowed_methods,
    reason = "clients and servers of the tests' own do not go through net::dial or task"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "in a test a broken expectation should stop loudly"
)]
#![allow(clippy::large_futures, reason = "tests run once")]
#![allow(unreachable_pub, reason = "what the chapters share is public to them and to nobody else")]

mod stage;

mod tcp;
mod sni;
mod proxy_protocol;
mod server_tls;
mod hostile;
mod balance;
mod capacity;
mod health;
mod discovery;
mod ejection;
mod ports;
mod reload;
mod drain;
mod admin;
mod metrics;
mod command_line;
mod tls;
mod http_features;
mod http;
mod websocket;
mod retry;
mod hostile_http;
mod http2;
mod hostile_h2;
mod grpc;
mod checks;
