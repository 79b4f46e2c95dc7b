//! The proof, in one binary.

mod wire;
