pub mod base;
pub mod catalog;
pub mod decode;
pub mod doors;
pub mod format;
pub mod model;
pub mod store;
pub mod wire;
