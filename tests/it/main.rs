//! The proof, in one binary.

mod kills;
mod layers;
mod process;
mod readers;
mod s3;
mod schema;
mod wire;
