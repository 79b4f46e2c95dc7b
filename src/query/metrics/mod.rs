//! The metrics compiler: one request type, checked (`request`), turned into plans (`plan`, of `parts`), run and put together
//! (`answer`). Built from expressions, never from SQL text: what a client sends is only ever a name looked up or a value.

mod answer;
mod fields;
mod filter;
mod parts;
mod plan;
pub(super) mod presets;
mod request;
mod value;

pub(super) use answer::answer;
pub(super) use request::Question;
