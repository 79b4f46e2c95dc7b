pub mod base;
pub mod cli;
pub mod corpus;
pub mod model;
pub mod wire;
