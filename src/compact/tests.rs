mod erasing;
mod folds;
mod leases;
mod rewrites;
mod tables;
mod vacuum;
mod workers;
