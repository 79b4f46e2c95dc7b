//! Realistic LLM traces from a seed: what the demo sends, the benches measure and the tests count.
//!
//! Promises: the same configuration gives the same bytes, in every run and on every 64-bit machine (no libm, no clock,
//! no hash order); what was generated is known exactly (`Facts`); the text setting changes no id, time or count.
//! Must never know: who receives the traces, what is stored of them, what a price book says.

mod attributes;
mod cast;
mod config;
mod conversation;
mod dialect;
mod dice;
mod facts;
mod plan;
mod request;
#[cfg(test)]
mod tests;
mod text;
mod timeline;
mod trace;

pub use config::{CorpusConfig, TextSize};
pub use facts::{Call, Facts, ModelFacts};
pub use request::{request, requests};
pub use trace::{Corpus, Trace};
