//! A quantile sketch: logarithmic bins, so that any quantile is right within 0.5 % of its value (DDSketch's mapping).
//!
//! Counts are whole numbers: merging is exact, and the same values give the same sketch in any order (I6).

use arrow::error::ArrowError;

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Sketch {
    positive: Bins,
    negative: Bins,
    zeros: u64,
    /// Smallest and largest value; quantiles never leave them.
    range: Option<(f64, f64)>,
}

/// Counts of neighbouring bins, from bin `first` on.
#[derive(Debug, Clone, Default, PartialEq)]
struct Bins {
    first: i32,
    counts: Vec<u64>,
    total: u64,
}

/// One bar of a histogram.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bin {
    pub(crate) lower: f64,
    pub(crate) upper: f64,
    pub(crate) count: u64,
}

/// Relative error of a quantile.
pub(crate) const ALPHA: f64 = 0.005;
/// Values nearer to zero are zero.
const SMALLEST: f64 = 1e-12;
/// Bins kept on each side of zero: values differ by a factor of 10¹⁷ before the smallest share a bin.
const BINS_MAX: usize = 4096;
const VERSION: u8 = 1;

fn ln_gamma() -> f64 {
    ((1.0 + ALPHA) / (1.0 - ALPHA)).ln()
}

impl Sketch {
    pub(super) fn add(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        let bin = |size: f64| (size.ln() / ln_gamma()).ceil() as i32;
        if value > SMALLEST {
            self.positive.add(bin(value), 1);
        } else if value < -SMALLEST {
            self.negative.add(bin(-value), 1);
        } else {
            self.zeros += 1;
        }
        self.widen(value, value);
    }

    pub(super) fn merge(&mut self, other: &Sketch) {
        let Some((low, high)) = other.range else { return };
        self.positive.merge(&other.positive);
        self.negative.merge(&other.negative);
        self.zeros += other.zeros;
        self.widen(low, high);
    }

    /// `q` from 0 to 1; between two values by proportion, as `percentile_cont` does. `None` without values.
    pub(super) fn quantile(&self, q: f64) -> Option<f64> {
        let (low, high) = self.range?;
        let position = q.clamp(0.0, 1.0) * (self.count() - 1) as f64;
        let below = position.floor();
        let (lower, upper) = (self.value_at(below as u64), self.value_at(position.ceil() as u64));
        Some((lower + (upper - lower) * (position - below)).clamp(low, high))
    }

    /// Bins of equal width from the least value to the greatest; counts are exact but for values near a bin's edge.
    pub(super) fn bins(&self, count: u32) -> Vec<Bin> {
        let Some((low, high)) = self.range else { return Vec::new() };
        let width = (high - low) / f64::from(count);
        if width <= 0.0 {
            return vec![Bin { lower: low, upper: high, count: self.count() }];
        }
        let edge = |at: u32| if at == count { high } else { low + width * f64::from(at) };
        let mut bins: Vec<Bin> = (0..count).map(|at| Bin { lower: edge(at), upper: edge(at + 1), count: 0 }).collect();
        let mut put = |value: f64, values: u64| {
            let at = ((value.clamp(low, high) - low) / width) as usize;
            bins[at.min(count as usize - 1)].count += values;
        };
        put(0.0, self.zeros);
        self.positive.each(|bin, values| put(middle(bin), values));
        self.negative.each(|bin, values| put(-middle(bin), values));
        bins
    }

    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + 8 * (self.positive.counts.capacity() + self.negative.counts.capacity())
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        if let Some((low, high)) = self.range {
            bytes.extend(low.to_le_bytes());
            bytes.extend(high.to_le_bytes());
            put(&mut bytes, self.zeros);
            self.positive.encode(&mut bytes);
            self.negative.encode(&mut bytes);
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, ArrowError> {
        let bad = || ArrowError::InvalidArgumentError("these bytes are not a quantile sketch".to_owned());
        match bytes {
            [VERSION] => Ok(Self::default()),
            [VERSION, rest @ ..] => Self::decode_filled(rest).ok_or_else(bad),
            [version, ..] => Err(ArrowError::InvalidArgumentError(format!(
                "a quantile sketch of version {version} is not known here: this is version {VERSION}"
            ))),
            [] => Err(bad()),
        }
    }

    fn decode_filled(mut rest: &[u8]) -> Option<Self> {
        let low = f64::from_le_bytes(*rest.split_off(..8)?.first_chunk()?);
        let high = f64::from_le_bytes(*rest.split_off(..8)?.first_chunk()?);
        let zeros = take(&mut rest)?;
        let positive = Bins::decode(&mut rest)?;
        let negative = Bins::decode(&mut rest)?;
        let count = zeros.checked_add(positive.total)?.checked_add(negative.total)?;
        let sound = rest.is_empty() && low <= high && low.is_finite() && high.is_finite() && count > 0;
        sound.then_some(Self { positive, negative, zeros, range: Some((low, high)) })
    }

    fn count(&self) -> u64 {
        self.negative.total + self.zeros + self.positive.total
    }

    fn widen(&mut self, low: f64, high: f64) {
        let (lowest, highest) = self.range.unwrap_or((low, high));
        self.range = Some((lowest.min(low), highest.max(high)));
    }

    fn value_at(&self, rank: u64) -> f64 {
        if rank < self.negative.total {
            return -middle(self.negative.bin_at(self.negative.total - 1 - rank));
        }
        match (rank - self.negative.total).checked_sub(self.zeros) {
            None => 0.0,
            Some(rank) => middle(self.positive.bin_at(rank)),
        }
    }
}

/// The value that stands for all values of a bin.
fn middle(bin: i32) -> f64 {
    2.0 * (f64::from(bin) * ln_gamma()).exp() / (1.0 + ln_gamma().exp())
}

impl Bins {
    fn each(&self, mut put: impl FnMut(i32, u64)) {
        let filled = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        filled.for_each(|(at, count)| put(self.first + at as i32, *count));
    }

    fn add(&mut self, bin: i32, count: u64) {
        let at = self.reach(bin);
        self.counts[at] += count;
        self.total += count;
    }

    fn merge(&mut self, other: &Bins) {
        // From the top: what must share the lowest bin then does so in any order of merging.
        for (at, count) in other.counts.iter().enumerate().rev().filter(|(_, count)| **count > 0) {
            self.add(other.first + at as i32, *count);
        }
    }

    /// Makes room for `bin` and says where it is.
    fn reach(&mut self, bin: i32) -> usize {
        if self.counts.is_empty() {
            self.first = bin;
            self.counts.push(0);
            return 0;
        }
        let last = self.first + self.counts.len() as i32 - 1;
        let first_allowed = bin.max(last) - (BINS_MAX as i32 - 1);
        if bin > last {
            self.counts.resize((bin - self.first + 1) as usize, 0);
        }
        if self.first < first_allowed {
            let dropped = (first_allowed - self.first) as usize;
            let shared: u64 = self.counts.drain(..dropped.min(self.counts.len())).sum();
            self.counts[0] += shared;
            self.first = first_allowed;
        }
        let bin = bin.max(first_allowed);
        if bin < self.first {
            let missing = (self.first - bin) as usize;
            self.counts.splice(..0, std::iter::repeat_n(0, missing));
            self.first = bin;
        }
        (bin - self.first) as usize
    }

    fn bin_at(&self, rank: u64) -> i32 {
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen > rank {
                return self.first + at as i32;
            }
        }
        self.first + self.counts.len() as i32 - 1
    }

    /// Number of filled bins, then for each its distance from the one before and its count.
    fn encode(&self, bytes: &mut Vec<u8>) {
        let filled = || self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        put(bytes, filled().count() as u64);
        let mut previous = BIN_LEAST;
        for (at, count) in filled() {
            let bin = self.first + at as i32;
            put(bytes, (bin - previous) as u64);
            put(bytes, *count);
            previous = bin;
        }
    }

    fn decode(rest: &mut &[u8]) -> Option<Self> {
        let filled = take(rest)?;
        let mut bins = Self::default();
        let mut bin = BIN_LEAST;
        for _ in 0..filled {
            bin = bin.checked_add(i32::try_from(take(rest)?).ok()?).filter(|bin| *bin <= -BIN_LEAST)?;
            let count = take(rest)?;
            bins.total.checked_add(count)?;
            bins.add(bin, count);
        }
        Some(bins)
    }
}

/// Below the bin of any 64-bit float.
const BIN_LEAST: i32 = -100_000;

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *rest.split_off_first()?;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sketch(values: &[f64]) -> Sketch {
        let mut sketch = Sketch::default();
        values.iter().for_each(|value| sketch.add(*value));
        sketch
    }

    proptest! {
        #[test]
        fn quantiles_are_within_the_error_and_merging_is_exact(
            values in proptest::collection::vec(prop_oneof![-1e5f64..1e5, Just(0.0), 1e-3f64..1.0], 1..200),
            cut in 0usize..200,
            q in 0.0f64..=1.0,
        ) {
            let whole = sketch(&values);
            let (head, tail) = values.split_at(cut.min(values.len()));
            let mut merged = sketch(tail);
            merged.merge(&Sketch::decode(&sketch(head).encode()).unwrap());
            prop_assert_eq!(merged.encode(), whole.encode());

            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            let position = q * (sorted.len() - 1) as f64;
            let (lower, upper) = (sorted[position.floor() as usize], sorted[position.ceil() as usize]);
            let exact = lower + (upper - lower) * position.fract();
            let error = (whole.quantile(q).unwrap() - exact).abs();
            let allowed = (lower.abs().max(upper.abs())) * (ALPHA + 1e-9) + SMALLEST;
            prop_assert!(error <= allowed, "{error} > {allowed}");
        }

        #[test]
        fn decoding_survives_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Sketch::decode(&bytes);
            let mut versioned = vec![VERSION];
            versioned.extend(bytes);
            let _ = Sketch::decode(&versioned).map(|sketch| sketch.quantile(0.5));
        }
    }

    #[test]
    fn a_sketch_without_values_has_no_quantile() {
        assert_eq!(Sketch::default().quantile(0.5), None);
        assert_eq!(sketch(&[f64::NAN, f64::INFINITY]).quantile(0.5), None);
        assert_eq!(sketch(&[3.0]).quantile(0.99), Some(3.0));
        assert!(Sketch::decode(&[9, 1]).unwrap_err().to_string().contains("version 9"));
    }
}
