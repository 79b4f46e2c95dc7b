//! A price book as text: JSON with rates in decimal text, checked whole before it is used.

use std::collections::{BTreeMap, HashMap, HashSet};

use rust_decimal::Decimal;
use serde::Deserialize;

use super::book::{Model, Price, Rates, Tier};
use super::error::PriceError;
use super::find::{Finder, NAME_BYTES_MAX, matches_own_id};
use super::usage::UsageKind;
use crate::base::Day;

const MODELS_MAX: usize = 20_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BookText {
    version: String,
    /// The prefix that a provider's own entries have, and the names that clients give the provider.
    #[serde(default)]
    providers: BTreeMap<String, Vec<String>>,
    models: Vec<ModelText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelText {
    id: String,
    /// Who sells it at this price; for people, not for matching.
    providers: Vec<String>,
    /// Regular expression for the whole of the names it goes by, read without regard to case.
    pattern: String,
    /// Oldest first. Only the first may lack a date: it holds from the beginning.
    prices: Vec<PriceText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PriceText {
    valid_from: Option<String>,
    /// The first tier whose conditions all hold is used; the last one has none.
    tiers: Vec<TierText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TierText {
    name: String,
    #[serde(default)]
    when: WhenText,
    #[serde(default)]
    usd_per_million: BTreeMap<String, String>,
    #[serde(default)]
    usd_per_unit: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct WhenText {
    input_tokens_above: Option<i64>,
    #[serde(default)]
    service_tier: Vec<String>,
}

pub(super) struct Parsed {
    pub(super) version: String,
    pub(super) models: Vec<Model>,
    pub(super) finder: Finder,
}

pub(super) fn parse(text: &str) -> Result<Parsed, PriceError> {
    let book: BookText = serde_json::from_str(text).map_err(|error| PriceError::Unreadable(error.to_string()))?;
    if !is_label(&book.version) {
        return Err(PriceError::Version(book.version.chars().take(80).collect()));
    }
    if book.models.len() > MODELS_MAX {
        return Err(PriceError::TooMany { models: book.models.len(), limit: MODELS_MAX });
    }
    let providers = providers(book.providers)?;
    let mut ids = HashSet::new();
    let mut models = Vec::with_capacity(book.models.len());
    for model in book.models {
        if !ids.insert(model.id.to_ascii_lowercase()) {
            return Err(PriceError::ModelTwice { model: model.id });
        }
        let id = model.id.clone();
        models.push(read_model(&book.version, model).map_err(|why| PriceError::Model { model: id, why })?);
    }
    let ids = models.iter().map(|model| model.id.clone()).collect();
    let patterns: Vec<String> = models.iter().map(|model| model.pattern.clone()).collect();
    Ok(Parsed { finder: Finder::new(ids, patterns, providers)?, version: book.version, models })
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

fn read_model(version: &str, model: ModelText) -> Result<Model, String> {
    if model.id.is_empty() || model.id.len() > NAME_BYTES_MAX {
        return Err(format!("an id has 1 to {NAME_BYTES_MAX} bytes"));
    }
    if !matches_own_id(&model.pattern, &model.id)? {
        return Err("the pattern does not match the id".into());
    }
    if model.prices.is_empty() {
        return Err("no price".into());
    }
    let mut prices: Vec<Price> = Vec::with_capacity(model.prices.len());
    for price in model.prices {
        let price = read_price(version, &model.id, price)?;
        if prices.last().is_some_and(|before| before.valid_from >= price.valid_from) {
            return Err("prices stand oldest first, and only the first may lack a date".into());
        }
        prices.push(price);
    }
    Ok(Model { id: model.id, providers: model.providers, pattern: model.pattern, prices })
}

fn read_price(version: &str, id: &str, price: PriceText) -> Result<Price, String> {
    let valid_from: Option<Day> = match price.valid_from.as_deref() {
        Some(text) => Some(text.parse().map_err(|_| format!("valid_from {text:?} is not a date like 2026-11-21"))?),
        None => None,
    };
    let since = valid_from.map_or("start".to_string(), |day| day.to_string());
    let mut tiers: Vec<Tier> = Vec::with_capacity(price.tiers.len());
    for tier in price.tiers {
        if !is_label(&tier.name) || tiers.iter().any(|before| before.name == tier.name) {
            return Err(format!("tier name {:?} is empty, odd or stands twice", tier.name));
        }
        tiers.push(read_tier(format!("{version}/{id}/{since}/{}", tier.name), tier)?);
    }
    match tiers.split_last() {
        Some((last, before)) if last.is_default() && !before.iter().any(Tier::is_default) => {
            Ok(Price { valid_from, tiers })
        }
        _ => Err("the last tier, and no other, has no condition".into()),
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
        if rates.set(kind, usd, is_per_million).is_none() {
            return Err(wrong());
        }
        if tier.usd_per_million.contains_key(kind.as_str()) && tier.usd_per_unit.contains_key(kind.as_str()) {
            return Err(format!("{} has two rates", kind.as_str()));
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
        rates,
        price_id,
    })
}

fn is_label(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=64).contains(&text.len()) && text.bytes().all(legal)
}
