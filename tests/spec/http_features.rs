//! What can be asked of HTTP beside that requests go where they should: compression, users, clients kept with a server, copies,
//! limits, calls of gRPC.

mod compression;
mod grpc;
mod http2;
mod limits;
mod mirror;
mod origin;
mod sticky;
mod users;
