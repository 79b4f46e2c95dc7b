//! The proof, in one binary.

mod layers;
mod schema;
mod wire;
