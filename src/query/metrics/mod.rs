pub(super) mod presets;
use super::engine::Query;
use super::error::QueryError;
use super::limits::QueryLimits;
use crate::wire;
pub(super) struct Question;
impl Question {
    pub(super) fn parse(_: &wire::MetricsRequest, _: &QueryLimits) -> Result<Self, QueryError> {
        Ok(Self)
    }
}
pub(super) async fn answer(_: &Query, _: Question) -> Result<wire::MetricsResponse, QueryError> {
    Ok(Default::default())
}
