#[path = "../../../tests/captures/fixtures.rs"]
mod fixtures;
mod mutation;
mod recordings;
