pub mod base;
pub mod catalog;
pub mod format;
pub mod ingest;
pub mod model;
pub mod price;
pub mod store;
pub mod wire;
