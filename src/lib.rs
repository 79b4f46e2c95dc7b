pub mod base;
pub mod catalog;
pub mod format;
pub mod model;
pub mod query;
pub mod store;
pub mod wire;
