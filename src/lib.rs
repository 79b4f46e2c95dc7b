pub mod base;
pub mod decode;
pub mod model;
pub mod wire;
