//! Time, handed in: no room reads the wall clock by itself.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Datelike, NaiveDate, Utc};

/// Microseconds since 1970 in UTC.
pub type TimestampUs = i64;

pub trait Clock: Send + Sync + fmt::Debug {
    fn now_us(&self) -> TimestampUs;
}

#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_us(&self) -> TimestampUs {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => since.as_micros() as i64,
            Err(before) => -(before.duration().as_micros() as i64),
        }
    }
}

/// A clock that stands still until it is moved: for tests and simulation.
#[derive(Debug, Clone, Default)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    pub fn at(now_us: TimestampUs) -> Self {
        Self(Arc::new(AtomicI64::new(now_us)))
    }
    pub fn advance_us(&self, by: i64) {
        self.0.fetch_add(by, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_us(&self) -> TimestampUs {
        self.0.load(Ordering::SeqCst)
    }
}

/// A UTC calendar day, the partition of every table: days since 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(i32);

impl Day {
    pub const US: i64 = 86_400_000_000;

    pub fn of_us(at: TimestampUs) -> Self {
        Self(at.div_euclid(Self::US).clamp(-700_000, 2_900_000) as i32)
    }
    pub const fn from_days(days: i32) -> Self {
        Self(days)
    }
    pub const fn days(self) -> i32 {
        self.0
    }
    pub const fn start_us(self) -> TimestampUs {
        self.0 as i64 * Self::US
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let date = DateTime::<Utc>::from_timestamp_micros(self.start_us()).unwrap_or_default();
        write!(f, "{:04}-{:02}-{:02}", date.year(), date.month(), date.day())
    }
}

impl FromStr for Day {
    type Err = chrono::ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let date = NaiveDate::parse_from_str(text, "%Y-%m-%d")?;
        Ok(Self::of_us(date.and_hms_opt(0, 0, 0).unwrap_or_default().and_utc().timestamp_micros()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_print_as_they_parse_also_before_1970() {
        for text in ["1969-12-31", "1970-01-01", "2024-02-29", "2026-11-21"] {
            assert_eq!(text.parse::<Day>().unwrap().to_string(), text);
        }
        assert_eq!(Day::of_us(-1), Day::from_days(-1));
        assert!("2026-02-30".parse::<Day>().is_err());
    }
}
