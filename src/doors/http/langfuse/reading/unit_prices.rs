//! What one unit of input and of output costs, by the prices that the observations of a page were priced by.

use std::collections::HashMap;

use rust_decimal::Decimal;

use super::Asked;
use crate::price::UsageKind;
use crate::query::records::ObservationRecord;

/// By the id of a price, which is the same for ever.
#[derive(Debug, Default)]
pub(super) struct UnitPrices(HashMap<String, UnitPrice>);

/// USD; none: the book has no rate for it, or the observation was not priced by a book.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct UnitPrice {
    pub(super) input: Option<Decimal>,
    pub(super) output: Option<Decimal>,
}

impl UnitPrices {
    pub(super) fn of(&self, record: &ObservationRecord) -> UnitPrice {
        record.seen.price_id.as_ref().and_then(|id| self.0.get(id)).copied().unwrap_or_default()
    }
}

impl Asked {
    /// What cannot be looked up now is not known: the page is answered all the same.
    pub(super) async fn unit_prices(&self, observations: &[ObservationRecord]) -> UnitPrices {
        let mut known = UnitPrices::default();
        for id in observations.iter().filter_map(|record| record.seen.price_id.as_ref()) {
            if !known.0.contains_key(id) {
                let tier = self.doors.prices.tier_of(&self.caller.tenant, id).await;
                let tier = tier.unwrap_or_else(|error| {
                    tracing::warn!(price = id, tenant = %self.caller.tenant, %error, "a price cannot be looked up");
                    None
                });
                let usd = |kind| tier.as_ref().and_then(|tier| tier.usd_per_unit(kind));
                let price = UnitPrice { input: usd(UsageKind::Input), output: usd(UsageKind::Output) };
                known.0.insert(id.clone(), price);
            }
        }
        known
    }
}
