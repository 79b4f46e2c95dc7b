//! A price book as text: JSON with rates in decimal text, checked whole before it is used. What is changed in a book is
//! changed here.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, SecondsFormat};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::book::{Model, Price, Rates, Tier};
use super::error::PriceError;
use super::find::{Finder, NAME_BYTES_MAX, compiles};
use super::usage::UsageKind;
use crate::base::{Day, TimestampUs};

/// How large a book may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct BookLimits {
    pub(super) models: usize,
    /// Of all patterns as text.
    pub(super) pattern_bytes: usize,
    /// Of the automaton in memory.
    pub(super) automaton_bytes: usize,
}

/// Of the book that comes with the program: its 58 KB of patterns fit the automaton five times.
pub(super) const SHIPPED: BookLimits =
    BookLimits { models: 20_000, pattern_bytes: 256 << 10, automaton_bytes: 64 << 20 };
/// Of a tenant's own: there are many tenants.
pub(super) const OWN: BookLimits = BookLimits { models: 2_000, pattern_bytes: 64 << 10, automaton_bytes: 4 << 20 };

/// A book as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BookText {
    pub version: String,
    /// The prefix that a provider's own entries have, and the names that clients give the provider.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub providers: BTreeMap<String, Vec<String>>,
    pub models: Vec<ModelText>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelText {
    pub id: String,
    /// Who sells it at this price; for people, not for matching.
    #[serde(default)]
    pub providers: Vec<String>,
    /// Regular expression for the whole of the names it goes by, read without regard to case.
    pub pattern: String,
    /// When it was first put into the book; for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Oldest first. Only the first may lack a date: it holds from the beginning.
    pub prices: Vec<PriceText>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceText {
    /// A UTC day such as 2026-11-21, or a moment such as 2026-11-21T08:00:00Z.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_from: Option<String>,
    /// The first tier whose conditions all hold is used; the last one has none.
    pub tiers: Vec<TierText>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TierText {
    pub name: String,
    #[serde(default, skip_serializing_if = "WhenText::is_always")]
    pub when: WhenText,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub usd_per_million: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub usd_per_unit: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhenText {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_tokens_above: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service_tier: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub speed: Vec<String>,
}

impl WhenText {
    fn is_always(&self) -> bool {
        *self == Self::default()
    }
}

impl PriceText {
    /// The moment that a date stands for; `None` for none, and for what is no date.
    pub fn since_us(valid_from: Option<&str>) -> Option<TimestampUs> {
        since_us(valid_from).ok().flatten()
    }
}

impl BookText {
    /// A book without models.
    pub fn empty(version: impl Into<String>) -> Self {
        Self { version: version.into(), providers: BTreeMap::new(), models: Vec::new() }
    }

    /// Puts `model` in the place of the one with its id, or at the end.
    pub fn put(&mut self, mut model: ModelText) {
        match self.models.iter_mut().find(|known| known.id.eq_ignore_ascii_case(&model.id)) {
            Some(known) => {
                model.created = known.created.take().or(model.created);
                *known = model;
            }
            None => self.models.push(model),
        }
    }

    /// Puts one price of `model` in the place of the one that begins at the same moment, or among the others by its time.
    /// The model's pattern and providers are `model`'s from now on.
    pub fn put_price(&mut self, mut model: ModelText) -> Result<(), PriceError> {
        if let Some(known) = self.models.iter().find(|known| known.id.eq_ignore_ascii_case(&model.id)) {
            let since = |price: &PriceText| since_us(price.valid_from.as_deref());
            let wrong = |why| PriceError::Model { model: known.id.clone(), why };
            let new = model.prices.iter().map(since).collect::<Result<Vec<_>, _>>().map_err(wrong)?;
            for price in &known.prices {
                if !new.contains(&since(price).map_err(wrong)?) {
                    model.prices.push(price.clone());
                }
            }
            model.prices.sort_by_key(|price| since(price).ok().flatten());
        }
        self.put(model);
        Ok(())
    }

    /// Whether it was there.
    pub fn remove(&mut self, id: &str) -> bool {
        let before = self.models.len();
        self.models.retain(|model| !model.id.eq_ignore_ascii_case(id));
        self.models.len() < before
    }
}

pub(super) struct Parsed {
    pub(super) version: String,
    pub(super) models: Vec<Model>,
    pub(super) finder: Finder,
}

/// `checked`: its patterns compile, which another parse of the same text may have found already.
pub(super) fn parse(book: BookText, limits: BookLimits, checked: bool) -> Result<Parsed, PriceError> {
    if !is_label(&book.version) {
        return Err(PriceError::Version(book.version.chars().take(80).collect()));
    }
    if book.models.len() > limits.models {
        return Err(PriceError::TooMany { models: book.models.len(), limit: limits.models });
    }
    let providers = providers(book.providers)?;
    let mut ids = HashSet::new();
    let mut models = Vec::with_capacity(book.models.len());
    for model in book.models {
        if !ids.insert(model.id.to_ascii_lowercase()) {
            return Err(PriceError::ModelTwice { model: model.id });
        }
        let id = model.id.clone();
        let read = match checked {
            true => Ok(()),
            false => compiles(&model.pattern),
        };
        let read = read.and_then(|()| read_model(&book.version, model));
        models.push(read.map_err(|why| PriceError::Model { model: id, why })?);
    }
    let ids = models.iter().map(|model| model.id.clone()).collect();
    let patterns: Vec<String> = models.iter().map(|model| model.pattern.clone()).collect();
    let finder = Finder::new(ids, patterns, providers, limits)?;
    if !checked {
        finder.build()?;
    }
    Ok(Parsed { finder, version: book.version, models })
}

fn providers(said: BTreeMap<String, Vec<String>>) -> Result<HashMap<String, String>, PriceError> {
    let mut providers = HashMap::new();
    for (prefix, names) in said {
        for name in names {
            if providers.insert(name.to_ascii_lowercase(), prefix.clone()).is_some() {
                return Err(PriceError::ProviderTwice(name));
            }
        }
    }
    Ok(providers)
}

fn read_model(version: &str, mut model: ModelText) -> Result<Model, String> {
    if model.id.is_empty() || model.id.len() > NAME_BYTES_MAX {
        return Err(format!("an id has 1 to {NAME_BYTES_MAX} bytes"));
    }
    if model.prices.is_empty() {
        return Err("no price".into());
    }
    let mut prices: Vec<Price> = Vec::with_capacity(model.prices.len());
    for price in std::mem::take(&mut model.prices) {
        let price = read_price(version, &model.id, price)?;
        if prices.last().is_some_and(|before| before.valid_from_us >= price.valid_from_us) {
            return Err("prices stand oldest first, and only the first may lack a date".into());
        }
        prices.push(price);
    }
    let ModelText { id, providers, pattern, created, .. } = model;
    Ok(Model { id, providers, pattern, created, prices })
}

fn read_price(version: &str, id: &str, price: PriceText) -> Result<Price, String> {
    let valid_from_us = since_us(price.valid_from.as_deref())?;
    let since = valid_from_us.map_or("start".to_string(), date);
    let mut tiers: Vec<Tier> = Vec::with_capacity(price.tiers.len());
    for tier in price.tiers {
        if !is_label(&tier.name) || tiers.iter().any(|before| before.name == tier.name) {
            return Err(format!("tier name {:?} is empty, odd or stands twice", tier.name));
        }
        tiers.push(read_tier(format!("{version}/{id}/{since}/{}", tier.name), tier)?);
    }
    match tiers.split_last() {
        Some((last, before)) if last.is_default() && !before.iter().any(Tier::is_default) => {
            Ok(Price { valid_from_us, tiers })
        }
        _ => Err("the last tier, and no other, has no condition".into()),
    }
}

fn since_us(valid_from: Option<&str>) -> Result<Option<TimestampUs>, String> {
    let Some(text) = valid_from else { return Ok(None) };
    if let Ok(day) = text.parse::<Day>() {
        return Ok(Some(day.start_us()));
    }
    match DateTime::parse_from_rfc3339(text) {
        Ok(at) => Ok(Some(at.timestamp_micros())),
        Err(_) => Err(format!("valid_from {text:?} is not a date like 2026-11-21 or a time like 2026-11-21T08:00:00Z")),
    }
}

/// The shortest text that [`PriceText::valid_from`] reads as this moment.
pub(super) fn date(at_us: TimestampUs) -> String {
    match DateTime::from_timestamp_micros(at_us) {
        Some(at) if at_us % Day::US != 0 => at.to_rfc3339_opts(SecondsFormat::AutoSi, true),
        _ => Day::of_us(at_us).to_string(),
    }
}

fn read_tier(price_id: String, tier: TierText) -> Result<Tier, String> {
    let mut rates = Rates::default();
    let per_million = tier.usd_per_million.iter().map(|(kind, rate)| (kind, rate, true));
    let per_unit = tier.usd_per_unit.iter().map(|(kind, rate)| (kind, rate, false));
    for (kind, rate, is_per_million) in per_million.chain(per_unit) {
        // Milliseconds are priced by the second.
        let known = UsageKind::from_word(kind).filter(|kind| *kind != UsageKind::Milliseconds);
        let kind = known.ok_or_else(|| format!("{kind:?} is not a kind of usage that can be priced"))?;
        let wrong = || format!("the rate {rate:?} of {} is not a decimal from 0 to 1,000,000", kind.as_str());
        let usd = Decimal::from_str_exact(rate).map_err(|_| wrong())?;
        if rates.has(kind) {
            return Err(format!("{} has two rates", kind.as_str()));
        }
        if rates.set(kind, usd, is_per_million).is_none() {
            return Err(wrong());
        }
    }
    if rates.is_empty() {
        return Err(format!("tier {:?} has no rates", tier.name));
    }
    if tier.when.input_tokens_above.is_some_and(|above| above < 0) {
        return Err("input_tokens_above is not below 0".into());
    }
    Ok(Tier {
        name: tier.name,
        input_tokens_above: tier.when.input_tokens_above,
        service_tiers: tier.when.service_tier,
        speeds: tier.when.speed,
        rates,
        price_id,
    })
}

fn is_label(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=64).contains(&text.len()) && text.bytes().all(legal)
}
