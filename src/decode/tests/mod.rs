mod dialects;
#[path = "../../../tests/captures/fixtures.rs"]
mod fixtures;
mod langfuse;
mod mutation;
mod own_proto;
mod reading;
mod recordings;
mod rules;
mod tools;
mod usage;
