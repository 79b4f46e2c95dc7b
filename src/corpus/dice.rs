//! Randomness that is the same everywhere: integer draws, and floats made of plain IEEE operations only.

use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};

#[derive(Debug)]
pub(super) struct Dice(SmallRng);

impl Dice {
    /// Dice of their own for each (seed, stream): drawing more from one never shifts another.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        Self(SmallRng::seed_from_u64(seed ^ stream.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    pub(super) fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// 0 to `limit` − 1.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(limit)) >> 64) as u64
    }

    /// `low` to `high`, both included.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// 0 to 1, without 1.
    pub(super) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(super) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    pub(super) fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }

    /// Half of the values lie below `median`; about 84 % below `median * e^sigma`.
    pub(super) fn lognormal(&mut self, median: f64, sigma: f64) -> f64 {
        median * exp(sigma * self.normal())
    }

    /// Mean 0, deviation 1: twelve uniform 16-bit draws added up, so never beyond ±6.
    fn normal(&mut self) -> f64 {
        let mut sum = 0u64;
        for _ in 0..3 {
            let bits = self.bits();
            sum += (bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48);
        }
        (sum + 6) as f64 / 65_536.0 - 6.0
    }
}

/// e^x for |x| < 700. The platform's own differs in the last bit from machine to machine.
fn exp(x: f64) -> f64 {
    let halvings = (x * std::f64::consts::LOG2_E).round();
    let rest = x - halvings * std::f64::consts::LN_2;
    // Taylor to the tenth term: |rest| is at most 0.35, the error below 1e-12.
    let series = (1..=10).rev().fold(1.0, |sum, term| 1.0 + sum * rest / f64::from(term));
    series * f64::from_bits(((1023 + halvings as i64) as u64) << 52)
}

/// Draws 0, 1, 2, … with weights 1, 1/2, 1/3, …: a few of everything make up most of it.
#[derive(Debug)]
pub(super) struct Zipf(Vec<f64>);

impl Zipf {
    pub(super) fn new(count: u32) -> Self {
        let mut sum = 0.0;
        let cumulative = (1..=count.max(1)).map(|rank| {
            sum += 1.0 / f64::from(rank);
            sum
        });
        Self(cumulative.collect())
    }

    pub(super) fn draw(&self, dice: &mut Dice) -> usize {
        let total = self.0[self.0.len() - 1];
        let mark = dice.unit() * total;
        self.0.partition_point(|sum| *sum <= mark).min(self.0.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_the_exponential() {
        for x in [-20.0, -1.5, -0.1, 0.0, 0.3, 1.0, 7.2] {
            assert!((exp(x) / f64::exp(x) - 1.0).abs() < 1e-10, "{x}");
        }
    }

    #[test]
    fn draws_have_the_shape_they_promise() {
        let mut dice = Dice::new(7, 0);
        let mut draws: Vec<f64> = (0..20_000).map(|_| dice.lognormal(100.0, 1.0)).collect();
        draws.sort_by(f64::total_cmp);
        assert!((95.0..105.0).contains(&draws[10_000]), "median {}", draws[10_000]);
        assert!((255.0..290.0).contains(&draws[16_827]), "84th percentile {}", draws[16_827]);

        let zipf = Zipf::new(1_000);
        let first = (0..20_000).filter(|_| zipf.draw(&mut dice) == 0).count();
        // 1 / H(1000) = 13.4 %
        assert!((2_500..2_860).contains(&first), "{first}");
    }
}
