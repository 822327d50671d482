//! Chapter: clients and servers that speak HTTP/1 in ways that two readers could take for two things, or slowly, or not at
//! all. What is doubtful is never passed on: a server sees one well-formed request or none, a client a whole response, an
//! answer of ours, or an end that it cannot take for a whole one.

mod clients;
mod http2_servers;
mod requests;
mod servers;
mod slow;
