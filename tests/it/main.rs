//! The proof, in one binary.

mod batch;
mod captures;
mod clients;
mod compaction;
mod differential;
mod doors;
mod erasure;
mod grpc;
mod http;
mod isolation;
mod kills;
mod langfuse_metrics;
mod langfuse_reads;
mod layers;
mod own_proto;
mod prices;
mod process;
mod readers;
mod s3;
mod schema;
mod spans;
mod tail;
mod two_nodes;
mod upkeep;
mod wire;
