//! Exact money: US dollars in units of 10⁻¹² (`Decimal(18,12)` at rest), rounded half to even.

use std::fmt;
use std::iter::Sum;
use std::ops::Add;
use std::str::FromStr;

use rust_decimal::{Decimal, RoundingStrategy};

/// An amount in picodollars. 18 digits: below 1,000,000 USD in size, which is a rule, not a limit of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Money(i64);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    #[error("an amount of 1,000,000 USD or more is not accepted: {0}")]
    TooLarge(String),
    #[error("not a decimal amount: {0:?}")]
    NotANumber(String),
}

impl Money {
    pub const ZERO: Money = Money(0);
    /// Digits and digits after the point of the columns that hold money.
    pub const PRECISION: u8 = 18;
    pub const SCALE: i8 = 12;
    const LIMIT: i64 = 1_000_000 * 1_000_000_000_000;

    pub const fn from_pico(pico: i64) -> Self {
        Self(pico)
    }

    pub const fn pico(self) -> i64 {
        self.0
    }

    /// Rounds half to even at the twelfth digit. Errors at one million and above.
    pub fn from_decimal(amount: Decimal) -> Result<Self, MoneyError> {
        let too_large = || MoneyError::TooLarge(amount.to_string());
        let rounded = amount.round_dp_with_strategy(Self::SCALE as u32, RoundingStrategy::MidpointNearestEven);
        if rounded.abs() >= Decimal::from(1_000_000) {
            return Err(too_large());
        }
        let scaled = rounded.checked_mul(Decimal::from(1_000_000_000_000i64)).ok_or_else(too_large)?;
        let pico: i64 = scaled.trunc().try_into().map_err(|_| too_large())?;
        debug_assert!(pico.abs() < Self::LIMIT);
        Ok(Self(pico))
    }

    /// A float as clients send it stands for its shortest decimal: 0.0031 is 0.0031, not 0.00310000000000000001.
    pub fn from_f64(amount: f64) -> Result<Self, MoneyError> {
        if !amount.is_finite() {
            return Err(MoneyError::NotANumber(amount.to_string()));
        }
        format!("{amount}").parse()
    }

    pub fn to_decimal(self) -> Decimal {
        Decimal::from_i128_with_scale(i128::from(self.0), Self::SCALE as u32)
    }
}

impl FromStr for Money {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let text = text.trim();
        let amount = Decimal::from_str(text).or_else(|_| Decimal::from_scientific(text));
        match amount {
            Ok(amount) => Self::from_decimal(amount),
            Err(_) => match text.parse::<f64>() {
                // More digits than a decimal holds: large amounts are refused, tiny ones round to zero.
                Ok(float) if float.abs() >= 1e6 => Err(MoneyError::TooLarge(text.chars().take(40).collect())),
                Ok(float) if float.is_finite() => Ok(Self((float * 1e12).round_ties_even() as i64)),
                _ => Err(MoneyError::NotANumber(text.chars().take(40).collect())),
            },
        }
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to_decimal().normalize())
    }
}

impl Add for Money {
    type Output = Money;
    /// Saturates at the edge of 64 bits, nine times above the largest accepted amount.
    fn add(self, other: Money) -> Money {
        Money(self.0.saturating_add(other.0))
    }
}

impl Sum for Money {
    fn sum<I: Iterator<Item = Money>>(amounts: I) -> Money {
        amounts.fold(Money::ZERO, Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact_and_round_half_to_even() {
        let pico = |text: &str| text.parse::<Money>().unwrap().pico();
        assert_eq!(pico("0.0031"), 3_100_000_000);
        assert_eq!(pico("1.5e-7"), 150_000);
        assert_eq!(pico("0.0000000000005"), 0);
        assert_eq!(pico("0.0000000000015"), 2);
        assert_eq!(Money::from_f64(0.1).unwrap().pico(), 100_000_000_000);
        assert_eq!("999999.999999999999".parse::<Money>().unwrap().to_string(), "999999.999999999999");
    }

    #[test]
    fn a_million_and_nonsense_are_refused() {
        assert!(matches!("1000000".parse::<Money>(), Err(MoneyError::TooLarge(_))));
        assert!(matches!("1e30".parse::<Money>(), Err(MoneyError::TooLarge(_))));
        assert!(matches!("free".parse::<Money>(), Err(MoneyError::NotANumber(_))));
        assert!(matches!(Money::from_f64(f64::NAN), Err(MoneyError::NotANumber(_))));
    }
}
