pub mod base;
pub mod model;
pub mod price;
pub mod wire;
