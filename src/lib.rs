//! tracelake: a columnar analytics engine for LLM trace data on open Delta tables.
//!
//! # The rooms, from the ground up
//!
//! A room imports only rooms below it, never one on its own floor (`tests/it/layers.rs` holds this).
//!
//! | floor | room | what it is |
//! |---|---|---|
//! | 0 | [`wire`] | `tracelake.v1`, generated |
//! | 0 | [`base`] | words all share: ids, day, money, sizes, clock, budget, kinds of error |
//! | 1 | [`model`] | what an observation, a trace fact and a score are; merge rules; the tables' columns |
//! | 1 | [`price`] | price books, model matching, the cost of a usage |
//! | 1 | [`tokens`] | tokens counted from texts, with a model's own vocabulary |
//! | 1 | [`corpus`] | realistic traces from a seed, for the demo, the benches and the tests |
//! | 2 | [`decode`] | OTLP with its dialects, Langfuse's own requests, and our own proto, into the model |
//! | 2 | [`masking`] | what a tenant's rules take out of what was said, or name in it |
//! | 2 | [`format`] | bytes at rest: log objects, Delta commits, Parquet files, index objects |
//! | 3 | [`store`] | the bucket or folder: create-once, fsync, lost replies, probe, faults |
//! | 4 | [`catalog`] | live files per table: snapshots and commits; tenants and keys |
//! | 5 | [`ingest`] | the way in: log, buffer, flush, replay |
//! | 5 | [`query`] | the way out: SQL and metrics, one tenant per session |
//! | 5 | [`compact`] | the upkeep: many small files become few large, sorted ones; retention, lingering deletes, erasure |
//! | 6 | [`doors`] | gRPC and HTTP |
//! | 7 | [`cli`] | what a person types: the SQL prompt, the demo |
//! | 7 | [`doctor`] | what is wrong in a bucket, and what can be mended |
//! | 7 | [`server`] | the rooms joined and the doors opened |
//! | 8 | [`config`] | flags, environment and file, composed once |
//! | 9 | `commands` | what can be typed; part of the binary, thin |
//!
//! # The life of a span
//!
//! A door authenticates the request and decodes it into a [`model::EventBatch`]. [`ingest`] appends it to the writer's
//! open log object; when that object is durable, the events enter the tenant's buffer and the sender is told. Queries
//! see buffer and files as one. A flush freezes the buffer, writes Parquet, and commits files and log position in one
//! Delta commit; after a crash, what lies above a table's position is replayed.
//!
//! # Invariants
//!
//! I1 acked is durable · I2 counted once · I3 merged by rule · I4 read your writes · I5 tenants cannot see each other ·
//! I6 money is exact · I7 memory is bounded · I8 a rewrite retires exactly what it read · I9 the books balance ·
//! I10 no LIST on a hot path. Code that keeps one names it.

pub mod base;
pub mod catalog;
pub mod cli;
pub mod compact;
pub mod config;
pub mod corpus;
pub mod decode;
pub mod doctor;
pub mod doors;
pub mod format;
pub mod ingest;
pub mod masking;
pub mod model;
pub mod price;
pub mod query;
pub mod server;
#[cfg(test)]
mod simulation;
pub mod store;
pub mod tokens;
pub mod wire;
