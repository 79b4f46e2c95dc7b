//! What stands behind the question mark, checked: every error names its parameter.

use axum::extract::Query;
use axum::http::Uri;

use super::super::super::super::Refusal;
use super::{comparison, invalid, is};
use crate::base::TimestampUs;
use crate::wire::{Filter, FilterOperator, TimeRange};

const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: usize = 100;

/// Names and values in their order; a name may come several times.
pub(super) struct Parameters(Vec<(String, String)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) number: usize,
    pub(super) limit: usize,
}

impl Page {
    pub(super) fn skip(self) -> usize {
        (self.number - 1).saturating_mul(self.limit)
    }
}

impl Parameters {
    pub(super) fn of(uri: &Uri) -> Result<Self, Refusal> {
        let read = Query::<Vec<(String, String)>>::try_from_uri(uri);
        read.map(|Query(all)| Self(all)).map_err(|_| invalid("the query of the address is no list of names and values"))
    }

    /// What is empty was not said.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, value)| known == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// Repeated, or once with commas between: clients differ.
    pub(super) fn texts(&self, name: &str) -> Vec<String> {
        let said = || self.0.iter().filter(|(known, value)| known == name && !value.is_empty());
        match said().count() {
            1 => said().flat_map(|(_, value)| value.split(',')).map(str::to_owned).collect(),
            _ => said().map(|(_, value)| value.clone()).collect(),
        }
    }

    pub(super) fn time(&self, name: &str) -> Result<Option<TimestampUs>, Refusal> {
        self.text(name).map(|text| time(name, text)).transpose()
    }

    /// From `from` on, until before `to`.
    pub(super) fn range(&self, from: &str, to: &str) -> Result<TimeRange, Refusal> {
        let range = TimeRange {
            from_unix_micros: self.time(from)?.unwrap_or(i64::MIN),
            to_unix_micros: self.time(to)?.unwrap_or(i64::MAX),
        };
        match range.from_unix_micros < range.to_unix_micros {
            true => Ok(range),
            false => Err(invalid(format!("{from} is not before {to}"))),
        }
    }

    pub(super) fn whole(&self, name: &str, least: usize, most: usize) -> Result<Option<usize>, Refusal> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        number.map(Some).ok_or_else(|| match most {
            usize::MAX => invalid(format!("{name} is a whole number from {least} on, not {}", shown(text))),
            most => invalid(format!("{name} is a whole number from {least} to {most}, not {}", shown(text))),
        })
    }

    pub(super) fn limit(&self, most: usize) -> Result<usize, Refusal> {
        Ok(self.whole("limit", 1, most)?.unwrap_or(LIMIT_DEFAULT))
    }

    pub(super) fn page(&self) -> Result<Page, Refusal> {
        Ok(Page { number: self.whole("page", 1, usize::MAX)?.unwrap_or(1), limit: self.limit(LIMIT_MAX)? })
    }

    pub(super) fn boolean(&self, name: &str) -> Result<Option<bool>, Refusal> {
        match self.text(name) {
            None => Ok(None),
            Some("true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(text) => Err(invalid(format!("{name} is true or false, not {}", shown(text)))),
        }
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<f64>, Refusal> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let number = text.parse().ok().filter(|number: &f64| number.is_finite());
        number.map(Some).ok_or_else(|| invalid(format!("{name} is a number, not {}", shown(text))))
    }

    /// One of a few words.
    pub(super) fn word<'a>(&'a self, name: &str, words: &[&str]) -> Result<Option<&'a str>, Refusal> {
        match self.text(name) {
            Some(text) if !words.contains(&text) => {
                Err(invalid(format!("{name} is one of {}, not {}", words.join(", "), shown(text))))
            }
            text => Ok(text),
        }
    }

    /// `field` is what the parameter says, if it says something.
    pub(super) fn equal(&self, name: &str, field: &str) -> Option<Filter> {
        self.text(name).map(|value| is(field, value))
    }

    /// `field` is one of those that the parameter says.
    pub(super) fn among(&self, name: &str, field: &str) -> Option<Filter> {
        let values = self.texts(name);
        (!values.is_empty()).then(|| comparison(field, FilterOperator::In, values))
    }

    /// The list `field` has all that the parameter says.
    pub(super) fn has_all(&self, name: &str, field: &str) -> Option<Filter> {
        let values = self.texts(name);
        (!values.is_empty()).then(|| comparison(field, FilterOperator::HasAll, values))
    }
}

/// RFC 3339; the plus of an offset that was not escaped has become a space.
pub(super) fn time(name: &str, text: &str) -> Result<TimestampUs, Refusal> {
    let read = chrono::DateTime::parse_from_rfc3339(&text.replace(' ', "+"));
    read.map(|at| at.timestamp_micros())
        .map_err(|_| invalid(format!("{name} is a time such as 2026-11-21T08:00:00Z, not {}", shown(text))))
}

/// As much of a value as an error may say.
pub(super) fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(80).collect::<String>())
}
