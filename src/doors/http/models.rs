//! Langfuse's `/api/public/models`: one of theirs is one price of a model here, from its date on.
//!
//! Their prices are for one unit, ours for a million tokens or for one of anything else. Their patterns are searched for
//! in a name unless they say where it begins and ends; ours stand for whole names.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, Query, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::{Map, Number, Value, json};
use sha2::{Digest, Sha256};

use super::super::body::{self, Admission, Encoding, Pieces};
use super::super::{Door, Doors, Refusal, auth};
use super::problem::Problem;
use super::{decimal_number, instant};
use crate::base::{ByteSize, Kind};
use crate::catalog::keys::Role;
use crate::catalog::system::SystemError;
use crate::price::{
    BookText, Model, ModelText, Price, PriceText, Prices, Tier, TierText, UsageKind, WhenText, per_unit,
};

const BODY_MAX: ByteSize = ByteSize::mib(1);
const PAGE_MAX: usize = 100;
const PAGE_DEFAULT: usize = 50;
const MILLION: Decimal = Decimal::from_parts(1_000_000, 0, 0, false, 0);
/// Around a pattern that is searched for in a name.
const ANYWHERE: (&str, &str) = (".*(?:", ").*");

/// What is posted; prices are numbers for one unit.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    model_name: String,
    match_pattern: String,
    start_date: Option<String>,
    unit: Option<String>,
    input_price: Option<Number>,
    output_price: Option<Number>,
    total_price: Option<Number>,
    pricing_tiers: Option<Vec<SaidTier>>,
    tokenizer_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SaidTier {
    name: String,
    #[serde(default)]
    is_default: bool,
    #[serde(default)]
    priority: i64,
    #[serde(default)]
    conditions: Vec<SaidCondition>,
    prices: BTreeMap<String, Number>,
}

/// Of the usage, or of an attribute of the call.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SaidCondition {
    usage_detail_pattern: Option<String>,
    key: Option<String>,
    operator: String,
    value: Option<Number>,
    values: Option<Vec<String>>,
}

#[derive(Deserialize)]
pub(super) struct Page {
    page: Option<usize>,
    limit: Option<usize>,
}

pub(super) async fn list(
    State(doors): State<Doors>,
    Query(Page { page, limit }): Query<Page>,
    headers: HeaderMap,
) -> Response {
    let listed = async {
        let caller = auth::caller(&doors, &headers, Role::Read).await?;
        let (page, limit) = (page.unwrap_or(1), limit.unwrap_or(PAGE_DEFAULT));
        if page == 0 || !(1..=PAGE_MAX).contains(&limit) {
            return Err(invalid(format!("page begins at 1, and limit is 1 to {PAGE_MAX}")));
        }
        let prices = doors.prices.current(&caller.tenant);
        let skipped = (page - 1).saturating_mul(limit);
        let (items, shown) = (all(&prices).count(), all(&prices).skip(skipped).take(limit));
        let data: Vec<Value> = shown.map(|one| one.shown()).collect();
        let meta = json!({ "page": page, "limit": limit, "totalItems": items, "totalPages": items.div_ceil(limit) });
        Ok(json!({ "data": data, "meta": meta }))
    };
    answered(&doors, listed.await)
}

pub(super) async fn one(State(doors): State<Doors>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let found = async {
        let caller = auth::caller(&doors, &headers, Role::Read).await?;
        let prices = doors.prices.current(&caller.tenant);
        let found = all(&prices).find(|one| one.id() == id);
        Ok(found.ok_or_else(|| missing(&id))?.shown())
    };
    answered(&doors, found.await)
}

pub(super) async fn create(State(doors): State<Doors>, request: Request) -> Response {
    answered(&doors, put(&doors, request, None).await)
}

/// Puts a model in the place of the one of this id; where there is none, it is made, and has an id of ours.
pub(super) async fn replace(State(doors): State<Doors>, Path(id): Path<String>, request: Request) -> Response {
    answered(&doors, put(&doors, request, Some(id)).await)
}

async fn put(doors: &Doors, request: Request, replaced: Option<String>) -> Result<Value, Refusal> {
    let (parts, body) = request.into_parts();
    let caller = auth::caller(doors, &parts.headers, Role::Admin).await?;
    let mut pieces = Pieces::new(body);
    let admission = Admission::Intake(doors.intake.clone());
    let held = body::read(admission, &mut pieces, None, Encoding::Identity, BODY_MAX).await?;
    let said: Said = serde_json::from_slice(&held.bytes).map_err(|e| invalid(format!("the body is no model: {e}")))?;
    let mut model = said.model()?;
    model.created = Some(now(doors));
    if let Some(id) = &replaced {
        may_change(&doors.prices.current(&caller.tenant), id)?;
    }
    let put = |book: &mut BookText| {
        if let Some(id) = &replaced {
            remove(book, id);
        }
        Ok(book.put_price(model.clone())?)
    };
    let prices = doors.prices.change(&caller.tenant, &caller.who.public_key, put).await?;
    let since = model.prices[0].valid_from.as_deref();
    let is_it = |one: &One<'_>| {
        !one.is_shipped && one.model.id.eq_ignore_ascii_case(&model.id) && since_of(since) == one.price.valid_from_us
    };
    let shown = all(&prices).find(is_it).map(|one| one.shown());
    shown.ok_or_else(|| Refusal::new(Kind::Internal, "the model was put and is not there"))
}

pub(super) async fn delete(State(doors): State<Doors>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let deleted = async {
        let caller = auth::caller(&doors, &headers, Role::Admin).await?;
        may_change(&doors.prices.current(&caller.tenant), &id)?;
        let remove = |book: &mut BookText| match remove(book, &id) {
            true => Ok(()),
            false => Err(SystemError::ModelMissing(id.clone())),
        };
        doors.prices.change(&caller.tenant, &caller.who.public_key, remove).await?;
        Ok(json!({ "message": "Model successfully deleted" }))
    };
    answered(&doors, deleted.await)
}

fn may_change(prices: &Arc<Prices>, id: &str) -> Result<(), Refusal> {
    match all(prices).any(|one| one.is_shipped && one.id() == id) {
        true => Err(invalid("this model comes with the server: it stays as it is, one of your own comes first")),
        false => Ok(()),
    }
}

/// Takes the price of this id out of the book; false if it has none.
fn remove(book: &mut BookText, id: &str) -> bool {
    for model in &mut book.models {
        let name = model.id.clone();
        let before = model.prices.len();
        model.prices.retain(|price| id_of(&name, since_of(price.valid_from.as_deref()), false) != id);
        if model.prices.len() < before {
            book.models.retain(|model| !model.prices.is_empty());
            return true;
        }
    }
    false
}

impl Said {
    fn model(self) -> Result<ModelText, Refusal> {
        if self.tokenizer_id.is_some_and(|id| !id.is_empty()) {
            return Err(invalid(
                "tokenizerId is not known here: a model has the vocabulary that its name tells, or none",
            ));
        }
        let flat = [("input", self.input_price), ("output", self.output_price), ("total", self.total_price)];
        let flat: BTreeMap<String, Number> =
            flat.into_iter().filter_map(|(kind, price)| Some((kind.to_owned(), price?))).collect();
        if flat.contains_key("total") && flat.len() > 1 {
            return Err(invalid("totalPrice cannot stand beside inputPrice and outputPrice"));
        }
        let tiers = match (self.pricing_tiers.filter(|tiers| !tiers.is_empty()), flat.is_empty()) {
            (Some(mut tiers), true) => {
                // The default holds where no other does.
                tiers.sort_by_key(|tier| (tier.is_default, tier.priority));
                tiers.into_iter().map(SaidTier::tier).collect::<Result<Vec<_>, _>>()?
            }
            (None, false) => vec![tier("Standard".to_owned(), WhenText::default(), flat, self.unit.as_deref())?],
            _ => return Err(invalid("a model has either flat prices or pricingTiers")),
        };
        let valid_from = self.start_date.filter(|date| !date.is_empty());
        let pattern = format!("{}{}{}", ANYWHERE.0, self.match_pattern, ANYWHERE.1);
        let prices = vec![PriceText { valid_from, tiers }];
        Ok(ModelText { id: self.model_name, providers: Vec::new(), pattern, created: None, prices })
    }
}

impl SaidTier {
    fn tier(self) -> Result<TierText, Refusal> {
        let mut when = WhenText::default();
        for condition in self.conditions {
            let key = condition.key.as_deref();
            match (condition.operator.as_str(), key, condition.values, condition.value) {
                ("in", Some("service_tier"), Some(values), _) => when.service_tier = values,
                ("in", Some("speed"), Some(values), _) => when.speed = values,
                ("gt", None, _, Some(above)) if is_input(condition.usage_detail_pattern.as_deref()) => {
                    when.input_tokens_above = above.as_i64();
                }
                _ => {
                    let known = "input tokens `gt` a number, service_tier or speed `in` values";
                    return Err(invalid(format!("tier {:?} has a condition other than {known}", self.name)));
                }
            }
        }
        if self.is_default != (when == WhenText::default()) {
            return Err(invalid(format!("tier {:?} must have conditions or be the default", self.name)));
        }
        tier(self.name, when, self.prices, None)
    }
}

/// Whether a pattern of usage keys means the input.
fn is_input(pattern: Option<&str>) -> bool {
    pattern.is_some_and(|pattern| {
        regex::RegexBuilder::new(pattern)
            .size_limit(1 << 16)
            .build()
            .is_ok_and(|found| found.is_match("input") && !found.is_match("output"))
    })
}

/// Their prices for one unit as ours.
fn tier(
    name: String,
    when: WhenText,
    prices: BTreeMap<String, Number>,
    unit: Option<&str>,
) -> Result<TierText, Refusal> {
    let (mut usd_per_million, mut usd_per_unit) = (BTreeMap::new(), BTreeMap::new());
    let unit_kind = match unit.map(str::to_ascii_uppercase).as_deref() {
        None | Some("TOKENS") => None,
        Some("CHARACTERS") => Some(UsageKind::Characters),
        Some("SECONDS") => Some(UsageKind::Seconds),
        Some("REQUESTS") => Some(UsageKind::Requests),
        Some("IMAGES") => Some(UsageKind::Images),
        Some(other) => return Err(invalid(format!("unit {other:?} has no price here"))),
    };
    for (key, price) in prices {
        let wrong = || invalid(format!("the price {price} of {key:?} is no decimal number"));
        let text = price.to_string();
        let usd = Decimal::from_str_exact(&text).or_else(|_| Decimal::from_scientific(&text)).map_err(|_| wrong())?;
        // A price of the total is one of each of its parts.
        let kinds = match (key.as_str(), unit_kind) {
            (_, Some(kind)) => vec![kind],
            ("total", None) => vec![UsageKind::Input, UsageKind::Output],
            (key, None) => vec![kind_of(key)?],
        };
        for kind in kinds {
            let (rates, usd) = match kind.is_token() {
                true => (&mut usd_per_million, usd.checked_mul(MILLION).ok_or_else(wrong)?),
                false => (&mut usd_per_unit, usd),
            };
            let usd = usd.normalize().to_string();
            // The same price is often listed under every name that a kind goes by.
            if rates.insert(kind.as_str().to_owned(), usd.clone()).is_some_and(|known| known != usd) {
                return Err(invalid(format!("{key:?} has another price under another name")));
            }
        }
    }
    // Names are their own to choose there, and labels here.
    let legal = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
    Ok(TierText { name: name.chars().map(legal).collect(), when, usd_per_million, usd_per_unit })
}

fn kind_of(key: &str) -> Result<UsageKind, Refusal> {
    UsageKind::of_name(key).ok_or_else(|| {
        let known: Vec<&str> = UsageKind::ALL.into_iter().map(UsageKind::as_str).collect();
        invalid(format!("{key:?} is not a kind of usage that can be priced: use {}", known.join(", ")))
    })
}

/// One of theirs: a model and one of its prices.
struct One<'a> {
    model: &'a Model,
    price: &'a Price,
    is_shipped: bool,
    shipped_version: &'a str,
}

/// The tenant's own first.
fn all(prices: &Arc<Prices>) -> impl Iterator<Item = One<'_>> {
    let own = prices.own().into_iter().flat_map(|book| book.models()).map(|model| (model, false));
    let shipped = prices.shipped().models().map(|model| (model, true));
    let shipped_version = prices.shipped().version();
    own.chain(shipped).flat_map(move |(model, is_shipped)| {
        model.prices.iter().map(move |price| One { model, price, is_shipped, shipped_version })
    })
}

impl One<'_> {
    fn id(&self) -> String {
        id_of(&self.model.id, self.price.valid_from_us, self.is_shipped)
    }

    fn shown(&self) -> Value {
        let id = self.id();
        let last = self.price.tiers.last();
        let rate = |kind: UsageKind| last.and_then(|tier| tier.usd_per_unit(kind)).map_or(Value::Null, decimal_number);
        let tiers: Vec<Value> =
            self.price.tiers.iter().enumerate().map(|(priority, tier)| shown_tier(&id, priority, tier)).collect();
        let by_kind = last.map_or_else(Map::new, |tier| rates(tier, |price| json!({ "price": price })));
        let pattern = self.model.pattern.strip_prefix(ANYWHERE.0).and_then(|inner| inner.strip_suffix(ANYWHERE.1));
        let created = format!("{}T00:00:00.000Z", self.shipped_version);
        json!({
            "id": id,
            "modelName": self.model.id,
            "matchPattern": pattern.unwrap_or(&self.model.pattern),
            "startDate": self.price.valid_from_us.map(instant),
            "unit": "TOKENS",
            "inputPrice": rate(UsageKind::Input),
            "outputPrice": rate(UsageKind::Output),
            "totalPrice": Value::Null,
            "tokenizerId": Value::Null,
            "tokenizerConfig": Value::Null,
            "isLangfuseManaged": self.is_shipped,
            "createdAt": self.model.created.as_deref().unwrap_or(&created),
            "prices": by_kind,
            "pricingTiers": tiers,
        })
    }
}

/// The default stands first, as there.
fn shown_tier(id: &str, place: usize, tier: &Tier) -> Value {
    let above = tier.input_tokens_above.map(
        |above| json!({ "usageDetailPattern": "input", "operator": "gt", "value": above, "caseSensitive": false }),
    );
    // Clients of all versions read conditions of this one shape. What depends on the service tier or the speed says so
    // by a pattern that no usage has.
    let attribute = |key: &str, values: &[String]| {
        let pattern = format!("{key} in {}", values.join(", "));
        let shape = json!({ "usageDetailPattern": pattern, "operator": "gt", "value": 0, "caseSensitive": false });
        (!values.is_empty()).then_some(shape)
    };
    let conditions: Vec<Value> = above
        .into_iter()
        .chain(attribute("service_tier", &tier.service_tiers))
        .chain(attribute("speed", &tier.speeds))
        .collect();
    let is_default = conditions.is_empty();
    json!({
        "id": format!("{id}-{}", tier.name),
        "name": tier.name,
        "isDefault": is_default,
        "priority": if is_default { 0 } else { place + 1 },
        "conditions": conditions,
        "prices": rates(tier, |price| price),
    })
}

fn rates(tier: &Tier, value: impl Fn(Value) -> Value) -> Map<String, Value> {
    tier.rates()
        .map(|(kind, usd, per_million)| (kind.as_str().to_owned(), value(decimal_number(per_unit(usd, per_million)))))
        .collect()
}

/// Made of what it stands for, so that it is the same on every node.
fn id_of(model: &str, since_us: Option<i64>, is_shipped: bool) -> String {
    let said = format!("{}\0{since_us:?}\0{is_shipped}", model.to_ascii_lowercase());
    format!("m{}", &hex::encode(Sha256::digest(said))[..24])
}

fn since_of(valid_from: Option<&str>) -> Option<i64> {
    PriceText::since_us(valid_from)
}

fn now(doors: &Doors) -> String {
    instant(doors.prices.now_us())
}

fn invalid(why: impl Into<String>) -> Refusal {
    Refusal::new(Kind::Invalid, why)
}

fn missing(id: &str) -> Refusal {
    Refusal::from(SystemError::ModelMissing(id.to_owned()))
}

fn answered(doors: &Doors, result: Result<Value, Refusal>) -> Response {
    match result {
        Ok(body) => {
            doors.counters.answered(Door::LangfuseHttp, "ok");
            (StatusCode::OK, [(CONTENT_TYPE, "application/json")], body.to_string()).into_response()
        }
        Err(refusal) => {
            doors.counters.answered(Door::LangfuseHttp, refusal.outcome());
            Problem::from(refusal).into_response()
        }
    }
}
