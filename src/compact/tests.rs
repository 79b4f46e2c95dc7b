mod leases;
mod rewrites;
mod tables;
mod workers;
