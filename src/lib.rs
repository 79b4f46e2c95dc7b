pub mod base;
pub mod corpus;
pub mod model;
pub mod wire;
