//! The whole of it under a seed: writers, re-sends, late changes, readers, kills, adoption and a store that fails, over
//! days of simulated time, held against a model in memory after every step.
//!
//! Promises: a failure names its seed, and the seed draws the same steps again. What threads do at the same moment is
//! theirs; a store call that a step is killed at is not.
//!
//! By hand: `TRACELAKE_SIMULATION=200 cargo test --lib simulation` runs that many fresh seeds;
//! `TRACELAKE_SIMULATION_SEED=7` runs one.

mod checks;
mod history;
mod life;
mod node;
mod said;
mod versions;

use life::Life;

/// Seeds that CI always runs: the first few, and each that once found a fault.
const SEEDS: [u64; 6] = [1, 2, 3, 4, 5, 6];
/// And as many that nobody has run before.
const FRESH_SEEDS: u64 = 3;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn every_invariant_holds_after_every_step() {
    let seeds: Vec<u64> = match (number("TRACELAKE_SIMULATION_SEED"), number("TRACELAKE_SIMULATION")) {
        (Some(seed), _) => vec![seed],
        (None, Some(count)) => (0..count).map(|_| rand::random()).collect(),
        (None, None) => SEEDS.into_iter().chain((0..FRESH_SEEDS).map(|_| rand::random())).collect(),
    };
    for seed in seeds {
        println!("seed {seed}");
        Life::new(seed).run();
    }
}
