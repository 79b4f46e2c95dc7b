mod erasing;
mod folds;
mod inputs;
mod leases;
mod rewrites;
mod tables;
mod vacuum;
mod workers;
