//! How much was used: by tenant, by user, right now, by any key.

use rust_decimal::Decimal;

use super::figures::Figures;
use super::{Preset, and, filter, is, missing, named, only, percentile, readings};
use crate::query::error::QueryError;
use crate::wire::{
    Aggregation as A, Filter, FilterOperator, GetSpendRequest, GetSpendResponse, Measure, MetricsRequest,
    MetricsResponse, MetricsRow, PlatformStatsResponse, RealtimeRequest, RealtimeResponse, Spend, SpendKey,
    TenantUsage, TimeBucket, TimeRange, Usage, UsageStatsRequest, UsageStatsResponse, UserStatsRequest,
    UserStatsResponse, View,
};

/// `UsageStats`.
pub struct Usages(pub UsageStatsRequest);

impl Preset for Usages {
    type Response = UsageStatsResponse;

    fn asks(&self, _: i64) -> Result<Vec<MetricsRequest>, QueryError> {
        let UsageStatsRequest { range, filters, bucket, credits_per_usd } = &self.0;
        credits(Some("0"), credits_per_usd)?;
        Ok(used(*range, filters, bucket.clone()))
    }

    fn answer(&self, answers: Vec<MetricsResponse>) -> Result<UsageStatsResponse, QueryError> {
        let reading = Some(readings(&answers));
        let [traces, used] = answers.as_slice() else { return Err(missing()) };
        let range = self.0.range.unwrap_or_default();
        let total = usage(totalled(traces), totalled(used), range, &self.0.credits_per_usd)?;
        let starts: Vec<i64> = used.rows.iter().filter_map(|row| row.bucket_start_unix_micros).collect();
        let mut periods = Vec::with_capacity(starts.len());
        for (at, row) in used.rows.iter().enumerate().filter(|(_, row)| row.bucket_start_unix_micros.is_some()) {
            let begins = |row: &&MetricsRow| row.bucket_start_unix_micros == Some(starts[at]);
            let of_traces = traces.rows.iter().find(begins);
            let period = TimeRange {
                from_unix_micros: starts[at].max(range.from_unix_micros),
                to_unix_micros: starts.get(at + 1).copied().unwrap_or(range.to_unix_micros),
            };
            let counted = of_traces.map(|row| (traces, row));
            periods.push(usage(counted, Some((used, row)), period, &self.0.credits_per_usd)?);
        }
        Ok(UsageStatsResponse { total: Some(total), periods, reading })
    }
}

/// What was used in a range: traces that began, and what observations add up to.
fn used(range: Option<TimeRange>, filters: &[Filter], bucket: Option<TimeBucket>) -> Vec<MetricsRequest> {
    let observations = MetricsRequest {
        measures: vec![
            named("total_cost", "total_cost", A::Sum),
            named("total_tokens", "total_tokens", A::Sum),
            named("observations", "", A::Count),
            only(is("is_call", "true"), named("calls", "", A::Count)),
            only(is("is_error", "true"), named("errors", "", A::Count)),
            named("users", "user_id", A::CountDistinct),
            named("sessions", "session_id", A::CountDistinct),
            Measure {
                filters: vec![is("is_call", "true"), filter_null("total_cost")],
                ..named("unpriced", "", A::Count)
            },
        ],
        range,
        filters: filters.to_vec(),
        bucket,
        with_total: true,
        ..Default::default()
    };
    let traces = MetricsRequest {
        view: View::Traces.into(),
        measures: vec![named("traces", "", A::Count)],
        ..observations.clone()
    };
    vec![traces, observations]
}

fn filter_null(field: &str) -> Filter {
    filter(field, FilterOperator::IsNull, &[])
}

type Counted<'a> = Option<(&'a MetricsResponse, &'a MetricsRow)>;

fn totalled(answer: &MetricsResponse) -> Counted<'_> {
    answer.total.as_ref().map(|total| (answer, total))
}

fn usage(traces: Counted<'_>, used: Counted<'_>, period: TimeRange, rate: &str) -> Result<Usage, QueryError> {
    let traces = traces.map_or(0, |(answer, row)| Figures(answer).whole(row, "traces"));
    let whole = |name: &str| used.map_or(0, |(answer, row)| Figures(answer).whole(row, name));
    let cost = used.and_then(|(answer, row)| Figures(answer).money(row, "total_cost"));
    Ok(Usage {
        period_start_unix_micros: period.from_unix_micros,
        period_end_unix_micros: period.to_unix_micros,
        total_traces: traces,
        total_credits_used: credits(cost.as_deref(), rate)?,
        total_cost_usd: cost,
        active_users_count: whole("users"),
        sessions: whole("sessions"),
        observations: whole("observations"),
        calls: whole("calls"),
        errors: whole("errors"),
        total_tokens: whole("total_tokens"),
        unpriced_calls: whole("unpriced"),
    })
}

/// What a cost is in credits; `None` without a rate or a cost.
fn credits(cost: Option<&str>, per_usd: &str) -> Result<Option<String>, QueryError> {
    let (Some(cost), false) = (cost, per_usd.is_empty()) else { return Ok(None) };
    let bad = || QueryError::invalid(format!("credits_per_usd {per_usd:?} is not a decimal number such as 100 or 0.5"));
    let rate: Decimal = per_usd.parse().ok().filter(|rate: &Decimal| !rate.is_sign_negative()).ok_or_else(bad)?;
    let cost: Decimal = cost.parse().map_err(|_| QueryError::Internal("an amount that is none".to_owned()))?;
    let credits = cost.checked_mul(rate).ok_or_else(|| QueryError::invalid("more credits than can be counted"))?;
    Ok(Some(credits.normalize().to_string()))
}

/// `UserStats`.
pub struct UserUsage(pub UserStatsRequest);

impl Preset for UserUsage {
    type Response = UserStatsResponse;

    fn asks(&self, _: i64) -> Result<Vec<MetricsRequest>, QueryError> {
        let UserStatsRequest { user_id, range, credits_per_usd } = &self.0;
        if user_id.is_empty() {
            return Err(QueryError::invalid("user_id is required"));
        }
        credits(Some("0"), credits_per_usd)?;
        Ok(used(*range, &[is("user_id", user_id)], None))
    }

    fn answer(&self, answers: Vec<MetricsResponse>) -> Result<UserStatsResponse, QueryError> {
        let reading = Some(readings(&answers));
        let [traces, used] = answers.as_slice() else { return Err(missing()) };
        let range = self.0.range.unwrap_or_default();
        let usage = usage(totalled(traces), totalled(used), range, &self.0.credits_per_usd)?;
        Ok(UserStatsResponse {
            user_id: self.0.user_id.clone(),
            period_start_unix_micros: usage.period_start_unix_micros,
            period_end_unix_micros: usage.period_end_unix_micros,
            credits_used: usage.total_credits_used,
            traces_count: usage.total_traces,
            cost_usd: usage.total_cost_usd,
            sessions_count: usage.sessions,
            total_tokens: usage.total_tokens,
            reading,
        })
    }
}

/// What tenants used, each by its own answer, and all together. Users and sessions of two tenants are different ones.
pub fn platform(tenants: Vec<TenantUsage>) -> Result<PlatformStatsResponse, QueryError> {
    let mut all = Usage::default();
    let (mut cost, mut credits): (Option<Decimal>, Option<Decimal>) = (None, None);
    let add = |sum: &mut Option<Decimal>, amount: &Option<String>| -> Result<(), QueryError> {
        let Some(amount) = amount else { return Ok(()) };
        let amount: Decimal = amount.parse().map_err(|_| QueryError::Internal("an amount that is none".to_owned()))?;
        let added = sum.unwrap_or_default().checked_add(amount);
        *sum = Some(added.ok_or_else(|| QueryError::invalid("more money than can be counted"))?);
        Ok(())
    };
    let mut watermark = i64::MAX;
    for usage in &tenants {
        let reading = usage.reading.as_ref();
        watermark = watermark.min(reading.map_or(i64::MAX, |reading| reading.watermark_unix_micros));
        let Some(usage) = &usage.usage else { continue };
        add(&mut cost, &usage.total_cost_usd)?;
        add(&mut credits, &usage.total_credits_used)?;
        all = Usage {
            period_start_unix_micros: usage.period_start_unix_micros,
            period_end_unix_micros: usage.period_end_unix_micros,
            total_traces: all.total_traces + usage.total_traces,
            active_users_count: all.active_users_count + usage.active_users_count,
            sessions: all.sessions + usage.sessions,
            observations: all.observations + usage.observations,
            calls: all.calls + usage.calls,
            errors: all.errors + usage.errors,
            total_tokens: all.total_tokens + usage.total_tokens,
            unpriced_calls: all.unpriced_calls + usage.unpriced_calls,
            total_cost_usd: None,
            total_credits_used: None,
        };
    }
    all.total_cost_usd = cost.map(|cost| cost.normalize().to_string());
    all.total_credits_used = credits.map(|credits| credits.normalize().to_string());
    let watermark = if watermark == i64::MAX { 0 } else { watermark };
    Ok(PlatformStatsResponse { total: Some(all), tenants, watermark_unix_micros: watermark })
}

/// `Realtime`.
pub struct Now(pub RealtimeRequest);

const WINDOW_MINUTES: u32 = 5;
const MINUTE_US: i64 = 60_000_000;
const HOUR_US: i64 = 60 * MINUTE_US;
/// Clocks of senders run ahead of ours.
const AHEAD_US: i64 = HOUR_US;

impl Preset for Now {
    type Response = RealtimeResponse;

    fn asks(&self, now_us: i64) -> Result<Vec<MetricsRequest>, QueryError> {
        let minutes = if self.0.window_minutes == 0 { WINDOW_MINUTES } else { self.0.window_minutes };
        let since =
            |ago_us: i64| Some(TimeRange { from_unix_micros: now_us - ago_us, to_unix_micros: now_us + AHEAD_US });
        let window = MetricsRequest {
            measures: vec![
                named("sessions", "session_id", A::CountDistinct),
                named("users", "user_id", A::CountDistinct),
                named("tokens", "total_tokens", A::Sum),
                named("cost", "total_cost", A::Sum),
                only(is("is_call", "true"), named("calls", "", A::Count)),
            ],
            range: since(i64::from(minutes) * MINUTE_US),
            filters: self.0.filters.clone(),
            ..Default::default()
        };
        let last_hour = MetricsRequest { range: since(HOUR_US), ..window.clone() };
        let errors = MetricsRequest {
            measures: vec![only(is("is_error", "true"), named("errors", "", A::Count))],
            ..last_hour.clone()
        };
        let latency = MetricsRequest {
            view: View::Traces.into(),
            measures: vec![percentile("p95", "latency_ms", 95.0), named("traces", "", A::Count)],
            ..last_hour
        };
        Ok(vec![window, errors, latency])
    }

    fn answer(&self, answers: Vec<MetricsResponse>) -> Result<RealtimeResponse, QueryError> {
        let reading = Some(readings(&answers));
        let [window, errors, latency] = answers.as_slice() else { return Err(missing()) };
        let (window, errors, latency) = (Figures(window), Figures(errors), Figures(latency));
        Ok(RealtimeResponse {
            active_sessions: window.whole(window.one(), "sessions"),
            active_users: window.whole(window.one(), "users"),
            current_token_usage: window.whole(window.one(), "tokens"),
            current_cost_usd: window.money(window.one(), "cost"),
            current_calls: window.whole(window.one(), "calls"),
            response_time_p95: latency.number(latency.one(), "p95"),
            traces_last_hour: latency.whole(latency.one(), "traces"),
            error_count_last_hour: errors.whole(errors.one(), "errors"),
            reading,
        })
    }
}

/// `GetSpend`.
pub struct Spending(pub GetSpendRequest);

const KEYS_MAX: usize = 100;
/// Measures of one question hold so many keys.
const KEYS_PER_ASK: usize = 16;

impl Preset for Spending {
    type Response = GetSpendResponse;

    fn asks(&self, _: i64) -> Result<Vec<MetricsRequest>, QueryError> {
        let keys = &self.0.keys;
        if keys.is_empty() || keys.len() > KEYS_MAX {
            return Err(QueryError::invalid(format!("{} keys: 1 to {KEYS_MAX} are possible", keys.len())));
        }
        let ask = |keys: &[SpendKey]| {
            let measures = keys.iter().enumerate().flat_map(|(at, key)| {
                let of = |name: &str, field: &str, aggregation, more: Vec<Filter>| Measure {
                    filters: and(&key.filters, more),
                    ..named(&format!("{name} {at}"), field, aggregation)
                };
                let unpriced = vec![is("is_call", "true"), filter_null("total_cost")];
                [
                    of("cost", "total_cost", A::Sum, vec![]),
                    of("calls", "", A::Count, vec![is("is_call", "true")]),
                    of("unpriced", "", A::Count, unpriced),
                ]
            });
            MetricsRequest { measures: measures.collect(), range: self.0.range, ..Default::default() }
        };
        Ok(keys.chunks(KEYS_PER_ASK).map(ask).collect())
    }

    fn answer(&self, answers: Vec<MetricsResponse>) -> Result<GetSpendResponse, QueryError> {
        let reading = readings(&answers);
        let spends = self.0.keys.iter().enumerate().map(|(at, key)| {
            let answer = answers.get(at / KEYS_PER_ASK).ok_or_else(missing)?;
            let (figures, at) = (Figures(answer), at % KEYS_PER_ASK);
            let row = figures.one();
            Ok(Spend {
                name: key.name.clone(),
                cost_usd: figures.money(row, &format!("cost {at}")),
                calls: figures.whole(row, &format!("calls {at}")),
                unpriced_calls: figures.whole(row, &format!("unpriced {at}")),
            })
        });
        let spends = spends.collect::<Result<_, QueryError>>()?;
        Ok(GetSpendResponse { spends, watermark_unix_micros: reading.watermark_unix_micros, reading: Some(reading) })
    }
}
