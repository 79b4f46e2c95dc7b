//! How sure a difference is: Welch for means, Newcombe for shares, the bootstrap for percentiles, Holm for many at once.
//! Pure.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use statrs::distribution::{Beta, ContinuousCDF, Normal, StudentsT};

/// What was estimated, with the ends of its confidence interval; the ends are missing where too little is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Estimate {
    pub(super) value: f64,
    pub(super) low: Option<f64>,
    pub(super) high: Option<f64>,
    /// Of no difference; two-sided.
    pub(super) p_value: Option<f64>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Mean {
    pub(super) n: f64,
    pub(super) mean: f64,
    pub(super) deviation: f64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    pub(super) n: f64,
    pub(super) passed: f64,
}

/// `b` − `a`, with unequal variances.
pub(super) fn welch(a: Mean, b: Mean, confidence: f64) -> Estimate {
    let value = b.mean - a.mean;
    let unknown = Estimate { value, low: None, high: None, p_value: None };
    if a.n < 2.0 || b.n < 2.0 {
        return unknown;
    }
    let (va, vb) = (a.deviation.powi(2) / a.n, b.deviation.powi(2) / b.n);
    let error = (va + vb).sqrt();
    if error == 0.0 {
        let p_value = Some(if value == 0.0 { 1.0 } else { 0.0 });
        return Estimate { value, low: Some(value), high: Some(value), p_value };
    }
    let freedom = (va + vb).powi(2) / (va.powi(2) / (a.n - 1.0) + vb.powi(2) / (b.n - 1.0));
    let Ok(students) = StudentsT::new(0.0, 1.0, freedom) else { return unknown };
    let reach = students.inverse_cdf(0.5 + confidence / 2.0) * error;
    let p_value = 2.0 * students.sf((value / error).abs());
    Estimate { value, low: Some(value - reach), high: Some(value + reach), p_value: Some(p_value.min(1.0)) }
}

fn z(confidence: f64) -> f64 {
    Normal::standard().inverse_cdf(0.5 + confidence / 2.0)
}

/// Wilson's interval of one share.
pub(super) fn wilson(share: Share, confidence: f64) -> Option<(f64, f64)> {
    if share.n == 0.0 {
        return None;
    }
    let (z, n, p) = (z(confidence), share.n, share.passed / share.n);
    let middle = (p + z * z / (2.0 * n)) / (1.0 + z * z / n);
    let reach = z / (1.0 + z * z / n) * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    Some(((middle - reach).max(0.0), (middle + reach).min(1.0)))
}

/// `b` − `a`, by Newcombe's hybrid of Wilson's intervals.
pub(super) fn newcombe(a: Share, b: Share, confidence: f64) -> Option<Estimate> {
    let ((la, ua), (lb, ub)) = (wilson(a, confidence)?, wilson(b, confidence)?);
    let (pa, pb) = (a.passed / a.n, b.passed / b.n);
    let value = pb - pa;
    let low = value - ((pb - lb).powi(2) + (ua - pa).powi(2)).sqrt();
    let high = value + ((ub - pb).powi(2) + (pa - la).powi(2)).sqrt();
    let pooled = (a.passed + b.passed) / (a.n + b.n);
    let error = (pooled * (1.0 - pooled) * (1.0 / a.n + 1.0 / b.n)).sqrt();
    let p_value = match error == 0.0 {
        true => 1.0,
        false => 2.0 * Normal::standard().sf((value / error).abs()),
    };
    Some(Estimate { value, low: Some(low.max(-1.0)), high: Some(high.min(1.0)), p_value: Some(p_value.min(1.0)) })
}

/// How often is drawn. The seed is fixed: the same data gives the same interval.
const DRAWS: usize = 2_000;
const SEED: u64 = 0x7261_6365;

/// Resampled values of a percentile, sorted. The percentile of a resample of `n` values is the quantile of the data at a
/// Beta-distributed place: drawing the place is drawing the resample.
pub(super) fn bootstrap(n: f64, q: f64, stream: u64, quantile: impl Fn(f64) -> Option<f64>) -> Vec<f64> {
    let rank = (q * (n - 1.0)).round() + 1.0;
    let Ok(places) = Beta::new(rank, n - rank + 1.0) else { return Vec::new() };
    let mut random = SmallRng::seed_from_u64(SEED ^ stream);
    let draw = |_| quantile(places.inverse_cdf(random.random_range(1e-9..1.0 - 1e-9)));
    let mut drawn: Vec<f64> = (0..DRAWS).filter_map(draw).collect();
    drawn.sort_by(f64::total_cmp);
    drawn
}

pub(super) fn interval(sorted: &[f64], confidence: f64) -> Option<(f64, f64)> {
    let at = |q: f64| sorted.get(((sorted.len() - 1) as f64 * q).round() as usize).copied();
    match sorted.is_empty() {
        true => None,
        false => Some((at((1.0 - confidence) / 2.0)?, at((1.0 + confidence) / 2.0)?)),
    }
}

/// `b` − `a` of two resampled percentiles; each list in the order it was drawn in, or any that has nothing to do with
/// the other's.
pub(super) fn resampled(value: f64, a: &[f64], b: &[f64], confidence: f64) -> Estimate {
    // Sorted lists must not be paired rank by rank: a fixed step through one of them mixes them.
    let step = 619;
    let count = a.len().min(b.len());
    let mut differences: Vec<f64> = (0..count).map(|at| b[at] - a[(at * step + 7) % count]).collect();
    differences.sort_by(f64::total_cmp);
    let Some((low, high)) = interval(&differences, confidence) else {
        return Estimate { value, low: None, high: None, p_value: None };
    };
    let below = differences.iter().filter(|difference| **difference <= 0.0).count() as f64 / count as f64;
    let p_value = (2.0 * below.min(1.0 - below)).max(1.0 / count as f64).min(1.0);
    Estimate { value, low: Some(low), high: Some(high), p_value: Some(p_value) }
}

/// The p-values as they stand when all are looked at together, in the order given.
pub(super) fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
    let mut adjusted = vec![0.0; p_values.len()];
    let mut least: f64 = 0.0;
    for (place, at) in order.into_iter().enumerate() {
        least = least.max(((p_values.len() - place) as f64 * p_values[at]).min(1.0));
        adjusted[at] = least;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, expected: f64, tolerance: f64) {
        assert!((found - expected).abs() <= tolerance, "{found} is not {expected}");
    }

    #[test]
    fn welch_agrees_with_a_worked_example() {
        // Two samples of 10 with means 20.82 and 23.01 (deviations 2.804, 1.952): t = -2.03, 16.1 degrees of freedom.
        let a = Mean { n: 10.0, mean: 20.82, deviation: 2.804 };
        let b = Mean { n: 10.0, mean: 23.01, deviation: 1.952 };
        let found = welch(a, b, 0.95);
        near(found.value, 2.19, 1e-9);
        near(found.p_value.unwrap(), 0.0597, 0.002);
        near(found.low.unwrap(), -0.10, 0.02);
        near(found.high.unwrap(), 4.48, 0.02);
        assert_eq!(welch(Mean { n: 1.0, ..a }, b, 0.95).low, None);
    }

    #[test]
    fn newcombe_agrees_with_the_published_example() {
        // 56/70 − 48/80 = 0.2: interval 0.0524 to 0.3339 (method 10).
        let found = newcombe(Share { n: 80.0, passed: 48.0 }, Share { n: 70.0, passed: 56.0 }, 0.95).unwrap();
        near(found.low.unwrap(), 0.0524, 5e-5);
        near(found.high.unwrap(), 0.3339, 5e-5);
        assert!(newcombe(Share { n: 0.0, passed: 0.0 }, Share { n: 70.0, passed: 56.0 }, 0.95).is_none());
    }

    #[test]
    fn holm_is_stepwise_and_never_falls() {
        let found = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (found, expected) in found.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            near(*found, expected, 1e-12);
        }
    }

    #[test]
    fn the_bootstrap_covers_the_true_median_as_often_as_it_says() {
        let mut random = SmallRng::seed_from_u64(1);
        let mut covered = 0;
        for round in 0..200 {
            let mut values: Vec<f64> = (0..60).map(|_| random.random_range(0.0..1.0)).collect();
            values.sort_by(f64::total_cmp);
            let quantile = |q: f64| values.get((q * 59.0).round() as usize).copied();
            let (low, high) = interval(&bootstrap(60.0, 0.5, round, quantile), 0.9).unwrap();
            covered += usize::from((low..=high).contains(&0.5));
        }
        assert!((165..=197).contains(&covered), "{covered} of 200");
    }
}
