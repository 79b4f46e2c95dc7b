//! The proof, in one binary.

mod kills;
mod layers;
mod process;
mod schema;
mod wire;
