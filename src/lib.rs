//! Portreeve keeps ports: a layer-4 TCP load balancer and HTTP reverse proxy that says what it does and why.
//!
//! This file is the map of the house. Modules are declared in floor order, ground first, and **a file names only
//! modules declared above its own**; `tests/architecture.rs` reads the order from here and holds every file to it.
//! To follow one connection, read [`listener`], [`proxy`], [`pool`] and [`relay`], in that order, and for one request
//! [`message`] and `proxy::http`; to follow one reload,
//! read [`app`], [`config`] and [`snapshot`].
//!
//! Embedding takes one call: see [`app::start`].

// Ground: words and tools that know nothing of proxying.
pub mod units; // durations, weights, ports, names: what a settings file is made of
pub mod disk; // reading files within bounds
pub mod ending; // the closed list of reasons a connection ends for
pub mod net; // addresses, socket options, connecting, streams, classes of errno
pub mod message; // HTTP heads, framing and chunks, read strictly
pub mod http2; // HTTP/2 without a socket: frames, packed heads, streams and windows
pub mod metrics; // the Prometheus catalogue, counted in one shard per worker
pub mod logging; // the subscriber and the access log
pub mod task; // every spawned task is named, counted, told to stop and awaited

// Parts: each does one thing and reports; none of them logs or counts.
pub mod route; // from a host name or a request to whatever it is for
pub mod admission; // who may ask for what: networks, names and passwords
pub mod relay; // bytes both ways between two streams: copy, splice, half-close, deadlines
pub mod tls; // certificates, handshakes with clients and servers, ClientHello without terminating
pub mod discovery; // where servers are found: one file per kind of source

// Choice: which server gets the next connection.
pub mod backend; // a server: identity, state, in-flight guard
pub mod balance; // one file per balancing algorithm
pub mod health; // active checks, streaks, the checker loop
pub mod pool; // servers, tiers and an algorithm: the only place that picks

// Plan: from the file to what is.
pub mod config; // the file as written -> every problem at once -> the model
pub mod snapshot; // model -> snapshot, and what outlives a reload

// Path: what a connection walks through.
pub mod proxy; // pick, connect, try again, relay, report
pub mod listener; // accept, the gate, hand-over to the idlest worker
pub mod worker; // one data thread: its sockets, its connections, its orders

// House: what runs it all.
pub mod admin; // the admin listener: metrics, health, read-only API
pub mod app; // start, the single writer, reload, signals, drain
pub mod demo; // the tour: an embedded default that proves itself
pub mod cli; // the command line
