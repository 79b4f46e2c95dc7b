//! What people type that is a client: SQL, the prompt, the demo.
//!
//! Promises: everything is asked over gRPC as any other client would ask; what cannot be answered is said in a sentence
//! and is an error; long answers are streamed, and what must be held is bounded.
//! Must never know: how the server stores, plans or prices anything; only `local` and `vacuum` open a store by themselves.

mod ask;
mod connection;
pub mod demo;
mod erase;
mod error;
mod local;
mod node;
mod numbers;
pub mod prices;
mod records;
mod repl;
mod sql;
mod statements;
mod subject;
mod tables;
mod tail;
#[cfg(test)]
mod tests;
mod vacuum;

pub use ask::ask;
pub use connection::Connection;
pub use erase::{Subject, erase, erasures};
pub use error::CliError;
pub use local::LocalTables;
pub use node::{Whose, flush, status};
pub use repl::repl;
pub use sql::{Answer, Asked, OutputFormat, run};
pub use subject::{Exported, export_subject};
pub use tail::{TailArgs, tail};
pub use vacuum::{VacuumOrder, vacuum};
