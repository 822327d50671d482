//! HTTP messages: heads as spans over the bytes that came, how long bodies are, chunks. It moves no bytes and knows no
//! connections.
//!
//! HTTP/1 is read by this module's own parsers, since a proxy has to refuse what two parsers could read in two ways, keep
//! the order of fields, pass informational responses on, and hold nothing for a connection between requests.

pub mod answer;
pub mod chunked;
pub mod compress;
pub mod decimal;
pub mod forwarded;
pub mod framing;
pub mod grpc;
pub mod head;
mod host;
pub mod line;
mod list;
pub mod name;
pub mod options;
mod plain;
pub mod request;
pub mod response;
pub mod target;
pub mod token;
pub mod trace;
pub mod version;
pub mod websocket;

#[cfg(test)]
mod tests;
