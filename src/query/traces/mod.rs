//! Traces as they were: one whole (`one`), many by filter and those that say a text (`list`). Fields and filters are the
//! metrics compiler's.

mod cells;
mod cursor;
mod list;
mod one;
mod search;

pub(super) use cells::{Cells, text_of};
pub(super) use list::list;
pub(super) use one::{observation, send, text};
pub(super) use search::search;
