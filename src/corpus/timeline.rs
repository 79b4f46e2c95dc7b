//! When traces start: spread over the period as people are awake, in order.

use super::dice::Dice;
use crate::base::TimestampUs;

const HOUR_US: i64 = 3_600_000_000;

/// How busy each hour of the day is, UTC.
const RHYTHM: [u64; 24] =
    [18, 14, 12, 11, 12, 16, 26, 42, 66, 88, 97, 100, 92, 94, 99, 98, 90, 78, 64, 55, 47, 39, 31, 24];

/// The period cut at full hours, each piece with the work done up to its end.
#[derive(Debug)]
pub(super) struct Timeline {
    pieces: Vec<Piece>,
    work: u128,
}

#[derive(Debug)]
struct Piece {
    start_us: TimestampUs,
    length_us: i64,
    work_until_end: u128,
}

impl Timeline {
    pub(super) fn new(start_us: TimestampUs, end_us: TimestampUs) -> Self {
        let (mut pieces, mut work, mut at_us) = (Vec::new(), 0u128, start_us);
        while at_us < end_us || pieces.is_empty() {
            let hour = at_us.div_euclid(HOUR_US);
            let until_us = ((hour + 1) * HOUR_US).min(end_us).max(at_us + 1);
            let length_us = until_us - at_us;
            work += length_us as u128 * u128::from(RHYTHM[hour.rem_euclid(24) as usize]);
            pieces.push(Piece { start_us: at_us, length_us, work_until_end: work });
            at_us = until_us;
        }
        Self { pieces, work }
    }

    /// The start of a trace when `done` of `all` observations have been sent: up to a minute around its place.
    pub(super) fn start_us(&self, done: u64, all: u64, dice: &mut Dice) -> TimestampUs {
        let work = self.work * u128::from(done) / u128::from(all.max(1));
        let place = self.pieces.partition_point(|piece| piece.work_until_end <= work).min(self.pieces.len() - 1);
        let piece = &self.pieces[place];
        let before = if place == 0 { 0 } else { self.pieces[place - 1].work_until_end };
        let inside = (work - before) * piece.length_us as u128 / (piece.work_until_end - before);
        let jitter_us = dice.below(60_000_000.min(piece.length_us as u64)) as i64;
        piece.start_us + (inside as i64 + jitter_us).min(piece.length_us - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_is_filled_from_its_start_to_its_end() {
        let (start_us, end_us) = (17 * HOUR_US + 5, 65 * HOUR_US - 7);
        let (timeline, mut dice) = (Timeline::new(start_us, end_us), Dice::new(1, 1));
        let starts: Vec<_> = (0..1_000).map(|done| timeline.start_us(done, 1_000, &mut dice)).collect();
        assert!(starts.iter().all(|at| (start_us..end_us).contains(at)));
        assert!(starts[0] < start_us + 2 * HOUR_US && starts[999] > end_us - 2 * HOUR_US);
        let at_noon = starts.iter().filter(|at| at.div_euclid(HOUR_US).rem_euclid(24) == 11).count();
        let at_night = starts.iter().filter(|at| at.div_euclid(HOUR_US).rem_euclid(24) == 3).count();
        assert!(at_noon > 5 * at_night, "{at_noon} {at_night}");
        assert_eq!(Timeline::new(9, 9).start_us(0, 0, &mut dice), 9);
    }
}
