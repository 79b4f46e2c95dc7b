use chrono::{FixedOffset, SecondsFormat};
use proptest::prelude::*;

use super::*;

fn us(text: &str) -> TimestampUs {
    DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros()
}

/// The beginnings of the buckets of a range, in local time with offset.
fn starts(width: &str, zone: &str, from: &str, to: &str) -> Vec<String> {
    let bucket = Bucket::parse(width, zone).unwrap();
    let starts = bucket.starts(us(from), us(to), 1000).unwrap();
    let clock = bucket.clock(us(from), us(to));
    for pair in starts.windows(2) {
        assert!(pair[0] < pair[1]);
        for at in [pair[0], pair[0] + 1, pair[1] - 1] {
            assert_eq!(bucket.start_of(&clock, at), Some(pair[0]), "{width} {zone}");
        }
    }
    let local = |at: &i64| {
        let offset = FixedOffset::east_opt((offset_us(bucket.zone, *at) / SECOND) as i32).unwrap();
        let local = DateTime::from_timestamp_micros(*at).unwrap().with_timezone(&offset);
        local.to_rfc3339_opts(SecondsFormat::Secs, false)[5..].replace(":00:00", ":00")
    };
    starts.iter().map(local).collect()
}

fn check(width: &str, zone: &str, from: &str, to: &str, expected: &[&str]) {
    assert_eq!(starts(width, zone, from, to), expected, "{width} in {zone}");
}

#[test]
fn an_hour_that_is_skipped_has_no_bucket_and_one_that_comes_twice_has_two() {
    let spring = ("2026-03-29T00:00:00Z", "2026-03-29T03:00:00Z");
    check(
        "hour",
        "Europe/Berlin",
        spring.0,
        spring.1,
        &["03-29T01:00+01:00", "03-29T03:00+02:00", "03-29T04:00+02:00"],
    );
    let autumn = ("2026-10-24T23:00:00Z", "2026-10-25T03:00:00Z");
    let twice = ["10-25T01:00+02:00", "10-25T02:00+02:00", "10-25T02:00+01:00", "10-25T03:00+01:00"];
    check("1 hour", "Europe/Berlin", autumn.0, autumn.1, &twice);
    let new_york = ["11-01T00:00-04:00", "11-01T01:00-04:00", "11-01T01:00-05:00", "11-01T02:00-05:00"];
    check("1 hour", "America/New_York", "2026-11-01T04:00:00Z", "2026-11-01T08:00:00Z", &new_york);
}

#[test]
fn hours_follow_the_wall_clock_and_restart_at_midnight() {
    let day = ("2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z");
    check(
        "6 hours",
        "Europe/Berlin",
        day.0,
        day.1,
        &["03-29T00:00+01:00", "03-29T06:00+02:00", "03-29T12:00+02:00", "03-29T18:00+02:00"],
    );
    check(
        "5 hours",
        "UTC",
        "2026-03-28T00:00:00Z",
        "2026-03-29T04:00:00Z",
        &[
            "03-28T00:00+00:00",
            "03-28T05:00+00:00",
            "03-28T10:00+00:00",
            "03-28T15:00+00:00",
            "03-28T20:00+00:00",
            "03-29T00:00+00:00",
        ],
    );
    let autumn = ["10-25T00:00+02:00", "10-25T06:00+01:00"];
    check("6 hours", "Europe/Berlin", "2026-10-24T22:00:00Z", "2026-10-25T06:00:00Z", &autumn);
    check(
        "2 hours",
        "Europe/Berlin",
        "2026-03-28T23:00:00Z",
        "2026-03-29T03:00:00Z",
        &["03-29T00:00+01:00", "03-29T03:00+02:00", "03-29T04:00+02:00"],
    );
}

#[test]
fn zones_off_the_hour() {
    check(
        "hour",
        "Asia/Kolkata",
        "2026-01-01T00:00:00Z",
        "2026-01-01T02:00:00Z",
        &["01-01T05:00+05:30", "01-01T06:00+05:30", "01-01T07:00+05:30"],
    );
    check(
        "day",
        "Asia/Kolkata",
        "2025-12-31T18:30:00Z",
        "2026-01-01T18:31:00Z",
        &["01-01T00:00+05:30", "01-02T00:00+05:30"],
    );
    // Set back by half an hour: the wall clock shows 01:30 to 02:00 twice, and no new hour begins with it.
    check(
        "hour",
        "Australia/Lord_Howe",
        "2026-04-04T14:00:00Z",
        "2026-04-04T17:00:00Z",
        &["04-05T01:00+11:00", "04-05T02:00+10:30", "04-05T03:00+10:30"],
    );
    check(
        "30 minutes",
        "Australia/Lord_Howe",
        "2026-04-04T14:00:00Z",
        "2026-04-04T15:30:00Z",
        &["04-05T01:00+11:00", "04-05T01:30:00+11:00", "04-05T01:30:00+10:30"],
    );
    // Set forward from 02:00 to 02:30.
    check(
        "hour",
        "Australia/Lord_Howe",
        "2026-10-03T15:00:00Z",
        "2026-10-03T17:00:00Z",
        &["10-04T01:00+10:30", "10-04T02:30:00+11:00", "10-04T03:00+11:00"],
    );
}

#[test]
fn days_are_23_to_25_hours_long_and_one_is_missing() {
    check(
        "day",
        "Europe/Berlin",
        "2026-03-28T00:00:00Z",
        "2026-03-31T00:00:00Z",
        &["03-28T00:00+01:00", "03-29T00:00+01:00", "03-30T00:00+02:00", "03-31T00:00+02:00"],
    );
    // Samoa went over the date line: its 30 December 2011 never was.
    check(
        "day",
        "Pacific/Apia",
        "2011-12-29T10:00:00Z",
        "2012-01-01T09:00:00Z",
        &["12-29T00:00-10:00", "12-31T00:00+14:00", "01-01T00:00+14:00"],
    );
    // Midnight itself is skipped: the day begins at one.
    check(
        "day",
        "America/Santiago",
        "2026-09-05T05:00:00Z",
        "2026-09-07T05:00:00Z",
        &["09-05T00:00-04:00", "09-06T01:00-03:00", "09-07T00:00-03:00"],
    );
}

#[test]
fn weeks_begin_on_monday_and_months_on_the_first() {
    check(
        "week",
        "Europe/Berlin",
        "2026-03-25T00:00:00Z",
        "2026-04-07T00:00:00Z",
        &["03-23T00:00+01:00", "03-30T00:00+02:00", "04-06T00:00+02:00"],
    );
    check(
        "month",
        "America/New_York",
        "2024-01-31T00:00:00Z",
        "2024-04-01T04:00:01Z",
        &["01-01T00:00-05:00", "02-01T00:00-05:00", "03-01T00:00-05:00", "04-01T00:00-04:00"],
    );
    check(
        "3 months",
        "UTC",
        "2025-12-31T00:00:00Z",
        "2026-07-02T00:00:00Z",
        &["10-01T00:00+00:00", "01-01T00:00+00:00", "04-01T00:00+00:00", "07-01T00:00+00:00"],
    );
    check(
        "12 months",
        "UTC",
        "2024-02-29T00:00:00Z",
        "2026-07-02T00:00:00Z",
        &["01-01T00:00+00:00", "01-01T00:00+00:00", "01-01T00:00+00:00"],
    );
}

#[test]
fn too_many_buckets_and_nonsense_are_refused() {
    let minute = Bucket::parse("minute", "UTC").unwrap();
    assert_eq!(minute.starts(0, 11 * MINUTE, 10), None);
    assert_eq!(minute.starts(0, 10 * MINUTE, 10).map(|starts| starts.len()), Some(10));
    assert!(Bucket::parse("0 days", "").unwrap_err().contains("use 1 to 366"));
    assert!(
        Bucket::parse("25 hours", "").is_err() && Bucket::parse("7", "").is_err() && Bucket::parse("", "").is_err()
    );
    assert!(Bucket::parse("hour", "Berlin").unwrap_err().contains("Berlin"));
    assert_eq!(minute.start_of(&minute.clock(0, 0), i64::MAX), None);
    assert_eq!(minute.start_of(&minute.clock(i64::MIN, i64::MAX), -1), Some(-MINUTE));
    assert_eq!(Bucket::parse("2 weeks", "Asia/Tokyo").unwrap().width(), "2 week");
}

proptest! {
    /// Every instant lies in the last bucket that began before it, wherever the batch's clock was looked up from.
    #[test]
    fn buckets_cover_time_without_gaps(
        at in 0i64..4_000_000_000,
        zone in proptest::sample::select(vec!["Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca", "America/Santiago", "Asia/Tehran"]),
        width in proptest::sample::select(vec!["5 minutes", "hour", "6 hours", "day", "3 days", "week", "month", "quarter"]),
    ) {
        let width = if width == "quarter" { "3 months" } else { width };
        let bucket = Bucket::parse(width, zone).unwrap();
        let at = at * SECOND;
        let narrow = bucket.clock(at, at);
        let start = bucket.start_of(&narrow, at).unwrap();
        prop_assert!(start <= at);
        let next = bucket.next(&narrow, start);
        prop_assert!(at < next, "{start} {at} {next}");
        let wide = bucket.clock(at - 400 * DAY, at + 400 * DAY);
        prop_assert_eq!(bucket.start_of(&wide, at), Some(start));
        prop_assert_eq!(bucket.start_of(&wide, next - 1), Some(start));
        prop_assert_eq!(bucket.start_of(&wide, next), Some(next));
    }
}
