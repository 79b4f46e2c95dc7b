//! Price lists that people have: a book of ours as JSON or TOML, a CSV of rates, or the JSON that LiteLLM publishes.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::{Number, Value};

use super::error::PriceError;
use super::file::{ModelText, PriceText, TierText, WhenText};
use super::usage::UsageKind;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportFormat {
    /// `{"models": […]}` as a book of ours has them, or LiteLLM's object of models.
    Json,
    /// `[[models]]` as in a book of ours.
    Toml,
    /// One rate a line: model,kind,usd and, where wanted, per,pattern,provider,valid_from,tier,input_tokens_above,
    /// service_tier,speed.
    Csv,
}

/// What was read, and the names in the list that have no price known here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Imported {
    pub models: Vec<ModelText>,
    pub without_price: Vec<String>,
}

/// Reads a list. Whether the models are sound, the book they are put in says.
pub fn import(text: &str, format: ImportFormat) -> Result<Imported, PriceError> {
    match format {
        ImportFormat::Toml => Ok(whole(toml::from_str::<List>(text).map_err(unreadable)?)),
        ImportFormat::Csv => csv(text),
        ImportFormat::Json => {
            let list: Value = serde_json::from_str(text).map_err(unreadable)?;
            match list {
                Value::Object(object) if object.get("models").is_some_and(Value::is_array) => {
                    Ok(whole(serde_json::from_value(Value::Object(object)).map_err(unreadable)?))
                }
                Value::Object(object) => litellm(object),
                _ => Err(unreadable("neither {\"models\": […]} nor an object of models")),
            }
        }
    }
}

fn unreadable(why: impl ToString) -> PriceError {
    PriceError::Unreadable(why.to_string())
}

/// A book's version and providers are not the importer's to say.
#[derive(Deserialize)]
struct List {
    models: Vec<ModelText>,
}

fn whole(list: List) -> Imported {
    Imported { models: list.models, without_price: Vec::new() }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    model: String,
    kind: String,
    usd: String,
    /// `million` or `unit`; tokens are for a million unless it says otherwise, all else for one.
    #[serde(default)]
    per: String,
    #[serde(default)]
    pattern: String,
    #[serde(default)]
    provider: String,
    #[serde(default)]
    valid_from: String,
    #[serde(default)]
    tier: String,
    #[serde(default)]
    input_tokens_above: Option<i64>,
    /// Several are joined by `|`.
    #[serde(default)]
    service_tier: String,
    #[serde(default)]
    speed: String,
}

fn csv(text: &str) -> Result<Imported, PriceError> {
    let mut models: Vec<ModelText> = Vec::new();
    let mut reader = ::csv::ReaderBuilder::new().trim(::csv::Trim::All).from_reader(text.as_bytes());
    for line in reader.deserialize::<Line>() {
        let line = line.map_err(unreadable)?;
        let model = match models.iter().position(|known| known.id == line.model) {
            Some(known) => &mut models[known],
            None => {
                models.push(named(&line.model));
                models.last_mut().expect("one was pushed")
            }
        };
        if !line.pattern.is_empty() {
            model.pattern = line.pattern.clone();
        }
        if !line.provider.is_empty() && !model.providers.contains(&line.provider) {
            model.providers.push(line.provider.clone());
        }
        let valid_from = filled(&line.valid_from);
        let price = match model.prices.iter().position(|known| known.valid_from == valid_from) {
            Some(known) => &mut model.prices[known],
            None => {
                model.prices.push(PriceText { valid_from, tiers: Vec::new() });
                model.prices.last_mut().expect("one was pushed")
            }
        };
        let several = |text: &str| text.split('|').filter_map(filled).collect();
        let (service_tier, speed) = (several(&line.service_tier), several(&line.speed));
        let when = WhenText { input_tokens_above: line.input_tokens_above, service_tier, speed };
        let name = filled(&line.tier).unwrap_or_else(|| STANDARD.to_owned());
        let tier = tier_of(price, name, when);
        let is_per_million = match line.per.as_str() {
            "" => UsageKind::from_word(&line.kind).is_some_and(UsageKind::is_token),
            "million" => true,
            "unit" => false,
            other => return Err(unreadable(format!("per is million or unit, not {other:?}"))),
        };
        let rates = if is_per_million { &mut tier.usd_per_million } else { &mut tier.usd_per_unit };
        if rates.insert(line.kind.clone(), line.usd).is_some() {
            let why = format!("{} stands twice", line.kind);
            return Err(PriceError::Model { model: line.model, why });
        }
    }
    for model in &mut models {
        model.prices.sort_by(|one, other| one.valid_from.cmp(&other.valid_from));
        // What has more conditions is asked first; what has none is the last.
        for price in &mut model.prices {
            price.tiers.sort_by_key(|tier| std::cmp::Reverse(conditions(&tier.when)));
        }
    }
    Ok(Imported { models, without_price: Vec::new() })
}

const STANDARD: &str = "standard";

fn named(id: &str) -> ModelText {
    ModelText { id: id.to_owned(), providers: vec![], pattern: regex::escape(id), created: None, prices: vec![] }
}

fn tier_of(price: &mut PriceText, name: String, when: WhenText) -> &mut TierText {
    let at = price.tiers.iter().position(|tier| tier.name == name).unwrap_or_else(|| {
        let (usd_per_million, usd_per_unit) = (BTreeMap::new(), BTreeMap::new());
        price.tiers.push(TierText { name, when, usd_per_million, usd_per_unit });
        price.tiers.len() - 1
    });
    &mut price.tiers[at]
}

fn conditions(when: &WhenText) -> (usize, i64) {
    let some = [when.input_tokens_above.is_some(), !when.service_tier.is_empty(), !when.speed.is_empty()];
    (some.into_iter().filter(|some| *some).count(), when.input_tokens_above.unwrap_or(0))
}

fn filled(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// LiteLLM's names of prices for one unit, and ours.
const LITELLM: [(&str, UsageKind); 14] = [
    ("input_cost_per_token", UsageKind::Input),
    ("cache_read_input_token_cost", UsageKind::CachedInput),
    ("cache_creation_input_token_cost", UsageKind::CacheWrite),
    ("cache_creation_input_token_cost_above_1hr", UsageKind::CacheWrite1h),
    ("input_cost_per_audio_token", UsageKind::InputAudio),
    ("cache_read_input_audio_token_cost", UsageKind::CachedInputAudio),
    ("input_cost_per_image_token", UsageKind::InputImage),
    ("output_cost_per_token", UsageKind::Output),
    ("output_cost_per_reasoning_token", UsageKind::Reasoning),
    ("output_cost_per_audio_token", UsageKind::OutputAudio),
    ("output_cost_per_image_token", UsageKind::OutputImage),
    ("output_cost_per_image", UsageKind::Images),
    ("input_cost_per_query", UsageKind::Requests),
    ("input_cost_per_second", UsageKind::Seconds),
];
/// Service tiers by what stands behind a price's name.
const SERVICE_TIERS: [(&str, &str); 3] = [("_batches", "batch"), ("_flex", "flex"), ("_priority", "priority")];
const ABOVE: &str = "_above_";

fn litellm(list: serde_json::Map<String, Value>) -> Result<Imported, PriceError> {
    let mut imported = Imported::default();
    for (id, said) in list {
        let Value::Object(said) = said else {
            return Err(PriceError::Model { model: id, why: "an object with prices was expected".to_owned() });
        };
        // It explains the others.
        if id == "sample_spec" {
            continue;
        }
        let mut model = named(&id);
        model.providers.extend(said.get("litellm_provider").and_then(Value::as_str).map(str::to_owned));
        let mut price = PriceText { valid_from: None, tiers: Vec::new() };
        for (name, value) in &said {
            let (Some((kind, when)), Value::Number(usd)) = (rate_named(name), value) else { continue };
            let wrong = || PriceError::Model { model: id.clone(), why: format!("{name} is {usd}") };
            let tier_name = tier_name(&when);
            let tier = tier_of(&mut price, tier_name, when);
            let usd = decimal(usd).ok_or_else(wrong)?;
            let (rates, usd) = match kind.is_token() {
                true => (&mut tier.usd_per_million, usd.checked_mul(Decimal::from(1_000_000)).ok_or_else(wrong)?),
                false => (&mut tier.usd_per_unit, usd),
            };
            rates.insert(kind.as_str().to_owned(), usd.normalize().to_string());
        }
        // A list of exceptions to nothing is no price.
        let Some(standard) = price.tiers.iter().find(|tier| tier.when == WhenText::default()).cloned() else {
            imported.without_price.push(id);
            continue;
        };
        for tier in &mut price.tiers {
            // What a tier does not say is as in the standard.
            for (kind, usd) in &standard.usd_per_million {
                tier.usd_per_million.entry(kind.clone()).or_insert_with(|| usd.clone());
            }
            for (kind, usd) in &standard.usd_per_unit {
                tier.usd_per_unit.entry(kind.clone()).or_insert_with(|| usd.clone());
            }
        }
        price.tiers.sort_by_key(|tier| std::cmp::Reverse(conditions(&tier.when)));
        model.prices.push(price);
        imported.models.push(model);
    }
    Ok(imported)
}

/// `output_cost_per_token_above_200k_tokens_priority`: the kind, and when.
fn rate_named(name: &str) -> Option<(UsageKind, WhenText)> {
    let mut when = WhenText::default();
    let mut rest = name;
    if let Some((suffix, tier)) = SERVICE_TIERS.iter().find(|(suffix, _)| rest.ends_with(suffix)) {
        when.service_tier = vec![(*tier).to_owned()];
        rest = &rest[..rest.len() - suffix.len()];
    }
    if !LITELLM.iter().any(|(known, _)| *known == rest)
        && let Some((before, above)) = rest.rsplit_once(ABOVE)
    {
        let thousands = above.strip_suffix("k_tokens")?.parse::<i64>().ok()?;
        when.input_tokens_above = Some(thousands.checked_mul(1000)?);
        rest = before;
    }
    let (_, kind) = LITELLM.iter().find(|(known, _)| *known == rest)?;
    Some((*kind, when))
}

fn tier_name(when: &WhenText) -> String {
    let above = when.input_tokens_above.map(|above| format!("above-{}k", above / 1000));
    let parts: Vec<String> = when.service_tier.iter().cloned().chain(above).collect();
    if parts.is_empty() { STANDARD.to_owned() } else { parts.join("-") }
}

/// A number stands for its shortest decimal: 1.5e-7 is 0.00000015.
pub(super) fn decimal(number: &Number) -> Option<Decimal> {
    let text = number.to_string();
    let decimal = Decimal::from_str_exact(&text).or_else(|_| Decimal::from_scientific(&text)).ok()?;
    (!decimal.is_sign_negative()).then_some(decimal)
}
