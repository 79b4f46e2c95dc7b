//! Learning of prices, dimension keys and masking rules changed elsewhere, away from the path of any request.

use std::sync::Arc;
use std::time::Duration;

use super::Shared;

/// What is set on another node holds for what comes in here at most 10 seconds later.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Looks until the process stops.
pub(super) async fn run(shared: Arc<Shared>) {
    while shared.goes_on_after(LOOK_EVERY).await {
        if let Err(error) = shared.catalog.prices().catch_up().await {
            tracing::warn!(%error, "prices changed elsewhere cannot be read; it is tried again");
        }
        if let Err(error) = shared.catalog.dimensions().catch_up().await {
            tracing::warn!(%error, "dimension keys changed elsewhere cannot be read; it is tried again");
        }
        if let Err(error) = shared.catalog.maskings().catch_up().await {
            tracing::warn!(%error, "masking rules changed elsewhere cannot be read; it is tried again");
        }
    }
}
