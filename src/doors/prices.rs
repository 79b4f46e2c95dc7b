//! Prices as `tracelake.v1.PriceService` says them; the command line asks the same of a store without a server.

use std::collections::BTreeMap;

use super::Refusal;
use crate::base::{Kind, TenantId, TimestampUs};
use crate::catalog::prices::PriceBooks;
use crate::catalog::system::SystemError;
use crate::price::{
    Ask, BookText, Model, ModelText, PriceText, Prices, Quantities, Tier, TierText, UsageKind, WhenText,
};
use crate::wire::{
    CheckPriceRequest, CheckPriceResponse, DeletePricesRequest, DeletePricesResponse, ListPricesRequest,
    ListPricesResponse, ModelPrice, PriceMatch, PriceRate, PriceTier, PricedModel, PutPricesRequest, PutPricesResponse,
};

/// The models of `prices` that `request` asks for.
pub fn list_prices(prices: &Prices, request: &ListPricesRequest) -> ListPricesResponse {
    let filter = request.filter.to_ascii_lowercase();
    let is_asked = |model: &&Model| {
        let names = std::iter::once(&model.id).chain(&model.providers);
        names.into_iter().any(|name| name.to_ascii_lowercase().contains(&filter))
    };
    let own = prices.own().into_iter().flat_map(|book| book.models()).filter(is_asked);
    let shipped = prices.shipped().models().filter(is_asked).filter(|_| !request.own_only);
    let models = own.map(|model| told(model, false)).chain(shipped.map(|model| told(model, true)));
    ListPricesResponse { version: prices.version().to_string(), models: models.collect() }
}

/// What a call would cost at `prices`; one without a time begins at `now_us`.
pub fn check_price(
    prices: &Prices,
    request: &CheckPriceRequest,
    now_us: TimestampUs,
) -> Result<CheckPriceResponse, Refusal> {
    let unknown = request.usage.keys().find(|kind| UsageKind::from_word(kind).is_none());
    if let Some(unknown) = unknown {
        return Err(invalid(format!("{unknown:?} is not a kind of usage that can be priced")));
    }
    let (wholes, mut others) = (["input", "cached_input", "cache_write", "output", "reasoning"], request.usage.clone());
    let [input, cached, write, output, reasoning] = wholes.map(|kind| others.remove(kind));
    let usage = Quantities::from_inclusive(input, cached, write, output, reasoning, &others);
    let said = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let (provider, service_tier, speed) = (said(&request.provider), said(&request.service_tier), said(&request.speed));
    let ask = Ask {
        model: &request.model,
        provider: provider.as_deref(),
        at_us: request.at_unix_micros.unwrap_or(now_us),
        service_tier: service_tier.as_deref(),
        speed: speed.as_deref(),
        duration_us: request.duration_micros,
        usage: &usage,
    };
    let priced = prices.price(&ask);
    let matched = prices.tier(&ask).map(|(model, _, tier)| PriceMatch {
        model_id: model.id.clone(),
        is_shipped: std::sync::Arc::ptr_eq(prices.book_for(&ask), prices.shipped()),
        pattern: model.pattern.clone(),
        price_id: tier.price_id.clone(),
        tier: Some(told_tier(tier)),
        total: priced.as_ref().map(|priced| priced.total.to_string()),
        by_kind: priced.map_or_else(BTreeMap::new, |priced| {
            priced.by_kind.into_iter().map(|(kind, cost)| (kind, cost.to_string())).collect()
        }),
    });
    Ok(CheckPriceResponse { version: prices.version().to_string(), r#match: matched })
}

/// In force on return here, elsewhere within 10 seconds.
pub async fn put_prices(
    books: &PriceBooks,
    tenant: &TenantId,
    by: &str,
    request: PutPricesRequest,
) -> Result<PutPricesResponse, Refusal> {
    let models: Vec<ModelText> = request.models.into_iter().map(said).collect();
    if models.is_empty() && !request.replace_all {
        return Err(invalid("no models are named"));
    }
    let put = |book: &mut BookText| {
        if request.replace_all {
            book.models.retain(|known| models.iter().any(|model| model.id.eq_ignore_ascii_case(&known.id)));
        }
        for model in models.iter().cloned() {
            match request.keep_other_prices {
                true => book.put_price(model)?,
                false => book.put(model),
            }
        }
        Ok(())
    };
    let prices = books.change(tenant, by, put).await?;
    Ok(PutPricesResponse { version: prices.version().to_string() })
}

pub async fn delete_prices(
    books: &PriceBooks,
    tenant: &TenantId,
    by: &str,
    request: DeletePricesRequest,
) -> Result<DeletePricesResponse, Refusal> {
    let remove = |book: &mut BookText| {
        for id in &request.model_ids {
            if !book.remove(id) {
                return Err(SystemError::ModelMissing(id.clone()));
            }
        }
        Ok(())
    };
    let prices = books.change(tenant, by, remove).await?;
    Ok(DeletePricesResponse { version: prices.version().to_string() })
}

fn invalid(why: impl Into<String>) -> Refusal {
    Refusal::new(Kind::Invalid, why)
}

fn told(model: &Model, is_shipped: bool) -> PricedModel {
    let price = |price: &crate::price::Price| ModelPrice {
        valid_from: price.valid_from_us.map(|_| price.since()),
        tiers: price.tiers.iter().map(told_tier).collect(),
    };
    PricedModel {
        id: model.id.clone(),
        providers: model.providers.clone(),
        pattern: model.pattern.clone(),
        prices: model.prices.iter().map(price).collect(),
        is_shipped,
    }
}

fn told_tier(tier: &Tier) -> PriceTier {
    let rate = |(kind, usd, per_million): (UsageKind, rust_decimal::Decimal, bool)| PriceRate {
        kind: kind.as_str().to_owned(),
        usd: usd.to_string(),
        per_million,
    };
    PriceTier {
        name: tier.name.clone(),
        input_tokens_above: tier.input_tokens_above,
        service_tiers: tier.service_tiers.clone(),
        speeds: tier.speeds.clone(),
        rates: tier.rates().map(rate).collect(),
    }
}

/// Whether it is sound, the book says.
fn said(model: PricedModel) -> ModelText {
    let tier = |tier: PriceTier| {
        let rates = |per_million: bool| {
            let some = tier.rates.iter().filter(|rate| rate.per_million == per_million);
            some.map(|rate| (rate.kind.clone(), rate.usd.clone())).collect()
        };
        TierText {
            usd_per_million: rates(true),
            usd_per_unit: rates(false),
            when: WhenText {
                input_tokens_above: tier.input_tokens_above,
                service_tier: tier.service_tiers,
                speed: tier.speeds,
            },
            name: tier.name,
        }
    };
    let price = |price: ModelPrice| PriceText {
        valid_from: price.valid_from,
        tiers: price.tiers.into_iter().map(tier).collect(),
    };
    let pattern = match model.pattern.is_empty() {
        true => regex::escape(&model.id),
        false => model.pattern,
    };
    let prices = model.prices.into_iter().map(price).collect();
    ModelText { id: model.id, providers: model.providers, pattern, created: None, prices }
}

/// What a tenant's own book says, as it is put.
pub fn put_of(models: Vec<ModelText>) -> Vec<PricedModel> {
    let tier = |tier: TierText| {
        let rate = |per_million: bool| move |(kind, usd): (String, String)| PriceRate { kind, usd, per_million };
        let rates = tier.usd_per_million.into_iter().map(rate(true));
        PriceTier {
            name: tier.name,
            input_tokens_above: tier.when.input_tokens_above,
            service_tiers: tier.when.service_tier,
            speeds: tier.when.speed,
            rates: rates.chain(tier.usd_per_unit.into_iter().map(rate(false))).collect(),
        }
    };
    let price = |price: PriceText| ModelPrice {
        valid_from: price.valid_from,
        tiers: price.tiers.into_iter().map(tier).collect(),
    };
    let model = |model: ModelText| PricedModel {
        id: model.id,
        providers: model.providers,
        pattern: model.pattern,
        prices: model.prices.into_iter().map(price).collect(),
        is_shipped: false,
    };
    models.into_iter().map(model).collect()
}
