//! `tracelake.v1` as Rust, generated from `proto/` and committed. Never edited: `tests/it/wire.rs` writes it and says
//! when it is stale. Must never know: anything.

#![allow(unused_imports, clippy::all, missing_docs, unreachable_pub, rust_2018_idioms)]

#[rustfmt::skip]
mod descriptor;
#[rustfmt::skip]
#[path = "tracelake.v1.rs"]
mod v1;

pub use descriptor::FILE_DESCRIPTOR_SET;
pub use v1::*;
