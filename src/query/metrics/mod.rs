//! The metrics compiler: one request type, checked (`request`, by the table of `fields`), turned into plans (`plan`, of
//! `rows` and `parts`, and of `rollup` and `trace_rows`, which are `sums` of files), run and put together (`answer`). Built
//! from expressions, never from SQL text: what a client sends is only ever a name looked up or a value.

mod answer;
mod field;
mod fields;
mod filter;
mod listing;
mod parts;
mod plan;
pub mod presets;
mod request;
pub(super) mod rollup;
mod rows;
mod sums;
mod trace_rows;
mod value;

pub(super) use answer::answer;
#[cfg(test)]
pub(super) use field::names as field_names;
pub(super) use filter::on_columns;
pub(super) use listing::Listing;
pub(super) use request::Question;
pub(super) use rows::{GROUP_SPAN_MAX_US, scan, within};
pub(super) use sums::Sums;
pub(super) use value::amount;
