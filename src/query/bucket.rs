//! Time buckets in any IANA zone: where a bucket begins, and which buckets a range has. Pure.
//!
//! A bucket begins whenever the wall clock of the zone shows a multiple of its length, counted from local midnight,
//! from Monday, or from January. Where the clock is set forward over such a moment, it begins at the change; where the
//! clock is set back over one, it begins twice.

use std::str::FromStr;

use chrono::{DateTime, Offset, TimeZone};
use chrono_tz::Tz;

use crate::base::TimestampUs;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Unit {
    Minute,
    Hour,
    Day,
    Week,
    Month,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Bucket {
    unit: Unit,
    count: i64,
    zone: Tz,
}

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// The first Monday after 1970-01-01, in days.
const MONDAY: i64 = 4;

impl Bucket {
    pub(super) fn new(unit: Unit, count: u32, zone: &str) -> Result<Self, String> {
        let most = match unit {
            Unit::Minute => 1440,
            Unit::Hour => 24,
            Unit::Day => 366,
            Unit::Week => 53,
            Unit::Month => 120,
        };
        if !(1..=most).contains(&count) {
            return Err(format!("a time bucket of {count} units is not possible: use 1 to {most}"));
        }
        let zone = match zone {
            "" => Tz::UTC,
            name => Tz::from_str(name).map_err(|_| {
                format!("the time zone {:?} is not known: use an IANA name such as Europe/Berlin", shorten(name))
            })?,
        };
        Ok(Self { unit, count: i64::from(count), zone })
    }

    /// `hour`, `15 minutes`, `2 weeks`.
    pub(super) fn parse(width: &str, zone: &str) -> Result<Self, String> {
        let bad = || format!("{:?} is not a bucket: use a width such as '15 minutes' or 'day'", shorten(width));
        let text = width.trim();
        let (count, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
            Some(0) => (1, text),
            Some(at) => (text[..at].parse().map_err(|_| bad())?, text[at..].trim_start()),
            None => return Err(bad()),
        };
        let unit = match unit.to_ascii_lowercase().trim_end_matches('s') {
            "minute" | "min" | "m" => Unit::Minute,
            "hour" | "h" => Unit::Hour,
            "day" | "d" => Unit::Day,
            "week" | "w" => Unit::Week,
            "month" | "mon" => Unit::Month,
            _ => return Err(bad()),
        };
        Self::new(unit, count, zone)
    }

    /// `15 minute`: as [`Bucket::parse`] reads it.
    pub(super) fn width(&self) -> String {
        format!("{} {}", self.count, format!("{:?}", self.unit).to_ascii_lowercase())
    }
    pub(super) fn zone(&self) -> &'static str {
        self.zone.name()
    }

    /// The zone's clock around a range, good for any instant from `from_us` to `to_us`.
    pub(super) fn clock(&self, from_us: TimestampUs, to_us: TimestampUs) -> Clock {
        // Two more buckets on both sides, so that the neighbours' limits are right as well.
        let margin = 2 * self.longest_us() + 3 * DAY;
        Clock::between(self.zone, from_us.saturating_sub(margin), to_us.saturating_add(margin))
    }

    /// Where the bucket that holds `at_us` begins; `None` outside of the years 1 to 9999.
    pub(super) fn start_of(&self, clock: &Clock, at_us: TimestampUs) -> Option<TimestampUs> {
        if !(TIME_FIRST..TIME_END).contains(&at_us) {
            return None;
        }
        let mut span = clock.span_of(at_us);
        let floor = self.floor(at_us + clock.0[span].offset);
        loop {
            let current = clock.0[span];
            let begin = floor - current.offset;
            if begin >= current.start || span == 0 {
                return Some(begin);
            }
            // The clock did not show it since its last change. Did the change jump over it?
            let previous = clock.0[span - 1];
            if floor >= current.start + previous.offset {
                return Some(current.start);
            }
            span -= 1;
        }
    }

    /// The beginnings of all buckets that overlap `[from_us, to_us)`, or `None` if there are more than `most`.
    pub(super) fn starts(&self, from_us: TimestampUs, to_us: TimestampUs, most: usize) -> Option<Vec<TimestampUs>> {
        let clock = self.clock(from_us, to_us);
        let mut starts = Vec::new();
        let mut start = self.start_of(&clock, from_us.max(TIME_FIRST))?;
        while start < to_us.min(TIME_END) {
            if starts.len() == most {
                return None;
            }
            starts.push(start);
            start = self.next(&clock, start);
        }
        Some(starts)
    }

    fn next(&self, clock: &Clock, start: TimestampUs) -> TimestampUs {
        let mut at = start;
        for span in clock.span_of(start)..clock.0.len() {
            let current = clock.0[span];
            let next = self.ceil(self.floor(at + current.offset)) - current.offset;
            if next < current.end {
                return next;
            }
            // The clock changes first. A bucket may begin with the change, or this one goes on behind it.
            match self.start_of(clock, current.end) {
                Some(begin) if begin > start => return begin,
                _ => at = current.end,
            }
        }
        at.saturating_add(self.longest_us())
    }

    fn floor(&self, local: i64) -> i64 {
        match self.unit {
            Unit::Minute | Unit::Hour => {
                let midnight = local.div_euclid(DAY) * DAY;
                midnight + (local - midnight) / self.length_us() * self.length_us()
            }
            Unit::Day => local.div_euclid(DAY * self.count) * self.count * DAY,
            Unit::Week => {
                let days = 7 * self.count;
                ((local.div_euclid(DAY) - MONDAY).div_euclid(days) * days + MONDAY) * DAY
            }
            Unit::Month => first_day(month_of(local.div_euclid(DAY)).div_euclid(self.count) * self.count) * DAY,
        }
    }

    /// The beginning after `floor`, on the wall clock.
    fn ceil(&self, floor: i64) -> i64 {
        match self.unit {
            Unit::Minute | Unit::Hour => {
                let next_midnight = (floor.div_euclid(DAY) + 1) * DAY;
                (floor + self.length_us()).min(next_midnight)
            }
            Unit::Day => floor + self.count * DAY,
            Unit::Week => floor + 7 * self.count * DAY,
            Unit::Month => first_day(month_of(floor.div_euclid(DAY)) + self.count) * DAY,
        }
    }

    fn length_us(&self) -> i64 {
        match self.unit {
            Unit::Minute => self.count * MINUTE,
            _ => self.count * HOUR,
        }
    }

    fn longest_us(&self) -> i64 {
        match self.unit {
            Unit::Minute | Unit::Hour | Unit::Day => self.count * DAY,
            Unit::Week => 7 * self.count * DAY,
            Unit::Month => 31 * self.count * DAY,
        }
    }
}

/// The stretches of time between two changes of a zone's clock, in order.
#[derive(Debug, Clone)]
pub(super) struct Clock(Vec<Span>);

#[derive(Debug, Clone, Copy)]
struct Span {
    start: TimestampUs,
    end: TimestampUs,
    /// Local time − UTC.
    offset: i64,
}

/// 0001-01-01 and 10000-01-01.
const TIME_FIRST: TimestampUs = -62_135_596_800 * SECOND;
const TIME_END: TimestampUs = 253_402_300_800 * SECOND;
/// 1900 and 2200: no zone's rules are known to change outside.
const CHANGES_FIRST: TimestampUs = -2_208_988_800 * SECOND;
const CHANGES_END: TimestampUs = 7_258_118_400 * SECOND;

impl Clock {
    fn between(zone: Tz, from_us: TimestampUs, to_us: TimestampUs) -> Self {
        let from = from_us.clamp(CHANGES_FIRST, CHANGES_END);
        let to = to_us.clamp(CHANGES_FIRST, CHANGES_END);
        let mut spans = vec![Span { start: i64::MIN, end: i64::MAX, offset: offset_us(zone, from) }];
        let mut known = from;
        // No zone changes its clock twice within a day.
        while known < to {
            let probe = (known + DAY).min(to);
            let offset = spans[spans.len() - 1].offset;
            if offset_us(zone, probe) != offset {
                let change = change_between(zone, known, probe, offset);
                if let Some(last) = spans.last_mut() {
                    last.end = change;
                }
                spans.push(Span { start: change, end: i64::MAX, offset: offset_us(zone, change) });
            }
            known = probe;
        }
        Self(spans)
    }

    fn span_of(&self, at_us: TimestampUs) -> usize {
        self.0.partition_point(|span| span.end <= at_us).min(self.0.len() - 1)
    }
}

/// The first second after `before` at which the offset is no longer `offset`.
fn change_between(zone: Tz, before: TimestampUs, after: TimestampUs, offset: i64) -> TimestampUs {
    let (mut low, mut high) = (before.div_euclid(SECOND), after.div_euclid(SECOND) + 1);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        match offset_us(zone, middle * SECOND) == offset {
            true => low = middle,
            false => high = middle,
        }
    }
    high * SECOND
}

fn offset_us(zone: Tz, at_us: TimestampUs) -> i64 {
    let utc = DateTime::from_timestamp_micros(at_us).unwrap_or_default().naive_utc();
    i64::from(zone.offset_from_utc_datetime(&utc).fix().local_minus_utc()) * SECOND
}

/// Months since January of the year 0, of a day since 1970-01-01 (proleptic Gregorian calendar).
fn month_of(day: i64) -> i64 {
    // Years begin in March here, so that the leap day is the last of its year.
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let day_of_era = day.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    (era * 400 + year_of_era) * 12 + 2 + month_from_march
}

/// The first day of a month, in days since 1970-01-01.
fn first_day(month: i64) -> i64 {
    let year = (month - 2).div_euclid(12);
    let month_from_march = (month - 2).rem_euclid(12);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * month_from_march + 2) / 5;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn shorten(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
#[path = "tests/bucket.rs"]
mod tests;
