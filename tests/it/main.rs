//! The proof, in one binary.

mod captures;
mod grpc;
mod http;
mod kills;
mod layers;
mod process;
mod schema;
mod wire;
