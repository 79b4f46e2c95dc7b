//! `tracelake.v1.MetricsService`: the general question and the presets over it.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::super::{Doors, Refusal};
use super::passed;
use super::subscribe::{self, Changes};
use crate::base::{Clock, Kind, SystemClock};
use crate::catalog::keys::Identity;
use crate::query::QueryError;
use crate::query::presets::{self, Preset};
use crate::wire::metrics_service_server::MetricsService;
use crate::wire::{
    BatchQueryRequest, BatchQueryResponse, CompareRequest, CompareResponse, ConversationsRequest,
    ConversationsResponse, CostBreakdownRequest, FunnelRequest, FunnelResponse, GetSpendRequest, GetSpendResponse,
    LatencyPercentilesRequest, MetricsRequest, MetricsResponse, NamedAnswer, PlatformStatsRequest,
    PlatformStatsResponse, RealtimeRequest, RealtimeResponse, ReportRequest, ReportResponse, SubscribeRequest,
    TenantUsage, TimeSeriesRequest, TopRequest, UsageStatsRequest, UsageStatsResponse, UserStatsRequest,
    UserStatsResponse,
};

/// Rows of one message of a streamed answer.
const ROWS_PER_MESSAGE: usize = 1_000;
/// Questions of one batch.
const BATCH_MAX: usize = 50;
/// Tenants that are asked at the same time for the platform's statistics.
const TENANTS_AT_ONCE: usize = 4;

/// Open subscriptions, all keys together: each holds the rows of one answer.
const SUBSCRIPTIONS_MAX: usize = 64;
const SUBSCRIPTIONS_RETRY: Duration = Duration::from_secs(30);
/// Then a subscriber shows its key again: one that was revoked has gone.
const SUBSCRIPTION_TIME_MAX: Duration = Duration::from_secs(600);

pub(super) struct Metrics {
    doors: Doors,
    subscriptions: Arc<Semaphore>,
}

impl Metrics {
    pub(super) fn new(doors: Doors) -> Self {
        Self { doors, subscriptions: Arc::new(Semaphore::new(SUBSCRIPTIONS_MAX)) }
    }
}

type Answer = Result<Response<MetricsResponse>, Status>;

#[tonic::async_trait]
impl MetricsService for Metrics {
    async fn query(&self, request: Request<MetricsRequest>) -> Answer {
        self.one(request, |request| request).await
    }

    type QueryStreamStream = BoxStream<'static, Result<MetricsResponse, Status>>;

    async fn query_stream(
        &self,
        request: Request<MetricsRequest>,
    ) -> Result<Response<Self::QueryStreamStream>, Status> {
        let (caller, _) = passed(&request)?;
        let answer = self.doors.answers.metrics_series(&caller.who, request.into_inner()).await?;
        Ok(Response::new(futures::stream::iter(in_parts(answer)).map(Ok).boxed()))
    }

    async fn cost_breakdown(&self, request: Request<CostBreakdownRequest>) -> Answer {
        self.one(request, presets::cost_breakdown).await
    }

    async fn latency_percentiles(&self, request: Request<LatencyPercentilesRequest>) -> Answer {
        self.one(request, presets::latency_percentiles).await
    }

    async fn time_series(&self, request: Request<TimeSeriesRequest>) -> Answer {
        self.one(request, presets::time_series).await
    }

    async fn batch_query(&self, request: Request<BatchQueryRequest>) -> Result<Response<BatchQueryResponse>, Status> {
        let (caller, _) = passed(&request)?;
        let queries = request.into_inner().queries;
        if queries.is_empty() || queries.len() > BATCH_MAX {
            let message = format!("{} queries: 1 to {BATCH_MAX} are possible", queries.len());
            return Err(Refusal::new(Kind::Invalid, message).into());
        }
        let (names, asked): (Vec<_>, Vec<_>) =
            queries.into_iter().map(|query| (query.name, query.query.unwrap_or_default())).unzip();
        let answers = self.doors.answers.metrics(&caller.who, asked).await?;
        let reading = answers.first().and_then(|answer| answer.reading);
        let answers = names.into_iter().zip(answers).map(|(name, answer)| NamedAnswer { name, answer: Some(answer) });
        Ok(Response::new(BatchQueryResponse {
            answers: answers.collect(),
            watermark_unix_micros: reading.map_or(0, |reading| reading.watermark_unix_micros),
        }))
    }

    async fn top_users(&self, request: Request<TopRequest>) -> Answer {
        self.one(request, presets::top_users).await
    }

    async fn top_flows(&self, request: Request<TopRequest>) -> Answer {
        self.one(request, presets::top_flows).await
    }

    async fn errors(&self, request: Request<TopRequest>) -> Answer {
        self.one(request, presets::errors).await
    }

    async fn tool_usage(&self, request: Request<TopRequest>) -> Answer {
        self.one(request, presets::tool_usage).await
    }

    async fn usage_stats(&self, request: Request<UsageStatsRequest>) -> Result<Response<UsageStatsResponse>, Status> {
        self.several(request, presets::Usages).await
    }

    async fn user_stats(&self, request: Request<UserStatsRequest>) -> Result<Response<UserStatsResponse>, Status> {
        self.several(request, presets::UserUsage).await
    }

    /// Each tenant is asked for itself; only what it adds up to comes together here (I5).
    async fn platform_stats(
        &self,
        request: Request<PlatformStatsRequest>,
    ) -> Result<Response<PlatformStatsResponse>, Status> {
        let (caller, _) = passed(&request)?;
        let PlatformStatsRequest { range, credits_per_usd } = request.into_inner();
        let asked = UsageStatsRequest { range, credits_per_usd, ..Default::default() };
        let tenants = self.doors.keys.tenants().live().await.map_err(Refusal::from)?;
        let usages = futures::stream::iter(tenants).map(|tenant| {
            let (who, preset) = (Identity { tenant, ..caller.who.clone() }, presets::Usages(asked.clone()));
            async move {
                let usage = self.preset(&who, preset).await?;
                let tenant = who.tenant.to_string();
                Ok::<_, Status>(TenantUsage { tenant, usage: usage.total, reading: usage.reading })
            }
        });
        let usages: Vec<TenantUsage> = usages.buffered(TENANTS_AT_ONCE).try_collect().await?;
        Ok(Response::new(presets::platform(usages).map_err(refused)?))
    }

    async fn realtime(&self, request: Request<RealtimeRequest>) -> Result<Response<RealtimeResponse>, Status> {
        self.several(request, presets::Now).await
    }

    async fn get_spend(&self, request: Request<GetSpendRequest>) -> Result<Response<GetSpendResponse>, Status> {
        self.several(request, presets::Spending).await
    }

    async fn compare(&self, request: Request<CompareRequest>) -> Result<Response<CompareResponse>, Status> {
        self.several(request, presets::Comparison).await
    }

    async fn conversations(
        &self,
        request: Request<ConversationsRequest>,
    ) -> Result<Response<ConversationsResponse>, Status> {
        self.several(request, presets::Conversing).await
    }

    async fn funnel(&self, request: Request<FunnelRequest>) -> Result<Response<FunnelResponse>, Status> {
        self.several(request, presets::FunnelSteps).await
    }

    async fn report(&self, request: Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        self.several(request, presets::Reporting).await
    }

    type SubscribeStream = BoxStream<'static, Result<crate::wire::SubscribeResponse, Status>>;

    async fn subscribe(&self, request: Request<SubscribeRequest>) -> Result<Response<Self::SubscribeStream>, Status> {
        let (caller, _) = passed(&request)?;
        let request = request.into_inner();
        let interval = subscribe::interval(request.interval_ms)?;
        let place = Arc::clone(&self.subscriptions).try_acquire_owned().map_err(|_| {
            Refusal::unavailable(format!("{SUBSCRIPTIONS_MAX} subscriptions are open"), SUBSCRIPTIONS_RETRY)
        })?;
        let asked = request.query.ok_or_else(|| Refusal::new(Kind::Invalid, "a query is required"))?;
        let answers = self.doors.answers.clone();
        // What cannot be asked is said at once.
        let first = answers.metrics(&caller.who, vec![asked.clone()]).await?;
        let until = Instant::now() + SUBSCRIPTION_TIME_MAX;
        let mut changes = Changes::default();
        let first = changes.since(first.into_iter().next().unwrap_or_default());
        let rest = futures::stream::unfold(Some((changes, place)), move |held| {
            let (answers, who, asked) = (answers.clone(), caller.who.clone(), asked.clone());
            async move {
                let (mut changes, place) = held?;
                loop {
                    tokio::time::sleep(interval).await;
                    if Instant::now() >= until {
                        return None;
                    }
                    match answers.metrics(&who, vec![asked.clone()]).await {
                        Err(refusal) => return Some((Err(Status::from(refusal)), None)),
                        Ok(mut answer) => match changes.since(answer.pop().unwrap_or_default()) {
                            Some(message) => return Some((Ok(message), Some((changes, place)))),
                            None => continue,
                        },
                    }
                }
            }
        });
        Ok(Response::new(futures::stream::iter(first.map(Ok)).chain(rest).boxed()))
    }
}

fn refused(error: QueryError) -> Status {
    Refusal::new(error.kind(), error.to_string()).into()
}

impl Metrics {
    /// A preset that is one question.
    async fn one<R>(&self, request: Request<R>, preset: impl FnOnce(R) -> MetricsRequest) -> Answer {
        let (caller, _) = passed(&request)?;
        let mut answers = self.doors.answers.metrics(&caller.who, vec![preset(request.into_inner())]).await?;
        answers.pop().map(Response::new).ok_or_else(|| Status::internal("a question without an answer"))
    }
}

impl Metrics {
    /// A preset of several questions, answered from one snapshot.
    async fn several<R, P: Preset>(
        &self,
        request: Request<R>,
        preset: impl FnOnce(R) -> P,
    ) -> Result<Response<P::Response>, Status> {
        let (caller, _) = passed(&request)?;
        Ok(Response::new(self.preset(&caller.who, preset(request.into_inner())).await?))
    }

    async fn preset<P: Preset>(&self, who: &Identity, preset: P) -> Result<P::Response, Status> {
        let asked = preset.asks(SystemClock.now_us()).map_err(refused)?;
        let answers = self.doors.answers.metrics(who, asked).await?;
        preset.answer(answers).map_err(refused)
    }
}

/// The names in the first part, what is about all rows in the last.
fn in_parts(mut answer: MetricsResponse) -> Vec<MetricsResponse> {
    let rows = std::mem::take(&mut answer.rows);
    let mut parts: Vec<MetricsResponse> = Vec::with_capacity(rows.len() / ROWS_PER_MESSAGE + 1);
    let mut rows = rows.into_iter().peekable();
    loop {
        let part = rows.by_ref().take(ROWS_PER_MESSAGE).collect();
        parts.push(MetricsResponse { rows: part, ..Default::default() });
        if rows.peek().is_none() {
            break;
        }
    }
    parts[0].dimensions = std::mem::take(&mut answer.dimensions);
    parts[0].measures = std::mem::take(&mut answer.measures);
    if let Some(last) = parts.last_mut() {
        last.total = answer.total;
        last.snapshot = answer.snapshot;
        last.reading = answer.reading;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{MetricsRow, Reading};

    #[test]
    fn parts_hold_all_rows_once_and_in_order() {
        for count in [0, 1, 1_000, 1_001, 2_500] {
            let rows = (0..count).map(|at| MetricsRow { bucket_start_unix_micros: Some(at), ..Default::default() });
            let answer = MetricsResponse {
                dimensions: vec!["model".into()],
                rows: rows.collect(),
                reading: Some(Reading::default()),
                ..Default::default()
            };
            let parts = in_parts(answer.clone());
            assert_eq!(parts.len(), (count as usize).div_ceil(1_000).max(1));
            assert_eq!(parts.iter().flat_map(|part| part.rows.clone()).collect::<Vec<_>>(), answer.rows);
            assert_eq!((&parts[0].dimensions, parts.last().unwrap().reading.is_some()), (&answer.dimensions, true));
        }
    }
}
