//! Numbers as people read them: $1,234.56, 1.2 s, 34,797,150, 1.5 %.

use rust_decimal::{Decimal, RoundingStrategy};

/// Cents from a dollar up; below, four decimals, or two digits that count when there is less still.
pub(super) fn money(amount: Decimal) -> String {
    let size = amount.abs();
    let decimals = if size >= Decimal::ONE || size.is_zero() {
        2
    } else {
        let leading_zeros = (1..=12).find(|zeros| size >= Decimal::new(1, *zeros)).unwrap_or(12);
        (leading_zeros + 1).max(4)
    };
    let rounded = size.round_dp_with_strategy(decimals, RoundingStrategy::MidpointNearestEven);
    let text = format!("{rounded:.*}", decimals as usize);
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, "00"));
    let sign = if amount.is_sign_negative() && !amount.is_zero() { "-" } else { "" };
    format!("{sign}${}.{fraction}", grouped(whole))
}

/// From milliseconds.
pub(super) fn duration(ms: f64) -> String {
    match ms {
        _ if !ms.is_finite() => "—".into(),
        _ if ms < 10.0 => format!("{ms:.1} ms"),
        _ if ms < 999.5 => format!("{ms:.0} ms"),
        _ if ms < 59_950.0 => format!("{:.1} s", ms / 1e3),
        _ if ms < 3_599_500.0 => {
            let seconds = (ms / 1e3).round() as u64;
            format!("{} m {:02} s", seconds / 60, seconds % 60)
        }
        _ => {
            let minutes = (ms / 6e4).round() as u64;
            format!("{} h {:02} m", minutes / 60, minutes % 60)
        }
    }
}

pub(super) fn count(value: i64) -> String {
    let digits = grouped(&value.unsigned_abs().to_string());
    if value < 0 { format!("-{digits}") } else { digits }
}

/// From a ratio.
pub(super) fn percent(ratio: f64) -> String {
    format!("{:.1} %", ratio * 100.0)
}

/// A number without a unit of its own.
pub(super) fn plain(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 { count(value as i64) } else { format!("{value:.2}") }
}

/// Digits in threes.
fn grouped(digits: &str) -> String {
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_reads_well_at_every_size() {
        for (amount, text) in [
            ("1234.5649", "$1,234.56"),
            ("1", "$1.00"),
            ("1234567.005", "$1,234,567.00"),
            ("0.5", "$0.5000"),
            ("0.0042", "$0.0042"),
            ("0.00421", "$0.0042"),
            ("0.000012345", "$0.000012"),
            ("0.000000000001", "$0.0000000000010"),
            ("0", "$0.00"),
            ("-3.1", "-$3.10"),
        ] {
            assert_eq!(money(amount.parse().unwrap()), text);
        }
    }

    #[test]
    fn durations_change_their_unit_as_they_grow() {
        for (ms, text) in [
            (0.25, "0.2 ms"),
            (820.4, "820 ms"),
            (999.6, "1.0 s"),
            (1_234.0, "1.2 s"),
            (65_000.0, "1 m 05 s"),
            (7_500_000.0, "2 h 05 m"),
        ] {
            assert_eq!(duration(ms), text);
        }
        assert_eq!(
            (count(-1_234_567), count(12), percent(0.0151), plain(0.5)),
            ("-1,234,567".into(), "12".into(), "1.5 %".into(), "0.50".into())
        );
    }
}
