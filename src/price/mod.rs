//! Price books: which model a name stands for, which price held when, and what a usage cost at it.
//!
//! Promises: money is exact (I6) and rounded once per kind, half to even; no token is paid for twice; the same usage,
//! time and book version give the same cost for ever; a book that parses is a book that works; a tenant's own entries come
//! before the shipped ones.
//! Must never know: what an observation is, where books are kept, what time it is. Pure: no IO, no clock.

mod book;
mod error;
mod file;
mod find;
mod import;
mod layers;
mod usage;

pub use book::{Ask, Model, Price, PriceBook, Priced, Tier, per_unit};
pub use error::PriceError;
pub use file::{BookText, ModelText, PriceText, TierText, WhenText};
pub use import::{ImportFormat, Imported, import};
pub use layers::{Prices, split_version};
pub use usage::{Quantities, UsageKind};

#[cfg(test)]
mod tests;
