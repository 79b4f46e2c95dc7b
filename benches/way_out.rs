//! The way out: the three presets and SQL over one tenant's files, beside plain DataFusion on the same Parquet.

use std::sync::Arc;

use datafusion::prelude::{ParquetReadOptions, SessionContext};
use futures::TryStreamExt;
use tracelake::base::TenantId;
use tracelake::catalog::NoFreshRows;
use tracelake::config::Settings as ServerSettings;
use tracelake::corpus::TextSize;
use tracelake::query::presets::{cost_breakdown, latency_percentiles, time_series};
use tracelake::query::{Engine, QueryLimits, SqlLimits};
use tracelake::store::Location;
use tracelake::wire::{
    CostBreakdownRequest, LatencyPercentilesRequest, MetricsRequest, TimeBucket, TimeRange, TimeSeriesRequest, TimeUnit,
};

use crate::Settings;
use crate::corpus::config;
use crate::report::{Baseline, Report};
use crate::timing::median;
use crate::way_in::Server;

/// What a server on this machine allows its questions.
pub(crate) fn limits() -> QueryLimits {
    ServerSettings::for_demo(Location::Memory(Arc::default())).expect("the machine's defaults").server().query
}

/// Questions in SQL, as analysts ask them.
const STATEMENTS: [(&str, &str); 5] = [
    (
        "cost and tokens by model",
        "SELECT model, count(*) AS calls, sum(total_tokens) AS tokens, sum(total_cost) AS cost FROM observations \
         WHERE model IS NOT NULL GROUP BY model ORDER BY cost DESC",
    ),
    (
        "levels per hour",
        "SELECT date_trunc('hour', start_time) AS hour, level, count(*) AS n FROM observations GROUP BY 1, 2 ORDER BY 1, 2",
    ),
    (
        "top 20 users by cost",
        "SELECT user_id, count(*) AS calls, sum(total_cost) AS cost FROM observations GROUP BY user_id \
         ORDER BY cost DESC NULLS LAST LIMIT 20",
    ),
    ("distinct traces", "SELECT count(DISTINCT trace_id) AS traces FROM observations"),
    (
        "newest 50 errors",
        "SELECT start_time, name, status_message FROM observations WHERE level = 'ERROR' ORDER BY start_time DESC LIMIT 50",
    ),
];

/// What plain DataFusion is asked where we are asked a preset.
const PRESETS_IN_SQL: [&str; 3] = [
    "SELECT model, sum(total_cost) AS cost, sum(input_cost) AS i, sum(output_cost) AS o, sum(total_tokens) AS t, \
     sum(input_tokens) AS ti, sum(output_tokens) AS ot, count(*) AS n FROM observations GROUP BY model ORDER BY cost DESC LIMIT 20",
    "SELECT model, approx_percentile_cont(latency_ms, 0.5) AS p50, approx_percentile_cont(latency_ms, 0.75) AS p75, \
     approx_percentile_cont(latency_ms, 0.9) AS p90, approx_percentile_cont(latency_ms, 0.95) AS p95, \
     approx_percentile_cont(latency_ms, 0.99) AS p99, count(*) AS n FROM observations GROUP BY model ORDER BY n DESC LIMIT 20",
    "SELECT date_trunc('hour', start_time) AS hour, count(*) AS n, sum(total_tokens) AS tokens, sum(total_cost) AS cost \
     FROM observations GROUP BY 1 ORDER BY 1",
];

pub(crate) fn query(settings: &Settings, report: &mut Report) {
    let server = Server::start(settings);
    server.fill(settings.observations, TextSize::None);
    server.run(server.ingest.flush(true)).expect("the flush is committed");
    let tenant: TenantId = "bench".parse().expect("a legal tenant id");
    let engine =
        server.run(async { Engine::new(server.catalog.clone(), Arc::new(NoFreshRows), limits()).expect("an engine") });
    let plain = plain(&server);
    let corpus = config(settings.observations, TextSize::None);
    let range = TimeRange { from_unix_micros: corpus.start_us, to_unix_micros: corpus.end_us };
    for ((name, request), sql) in presets(range).into_iter().zip(PRESETS_IN_SQL) {
        let baseline = plain.as_ref().map(|plain| baseline(&server, plain, sql));
        let ask = |()| server.run(engine.metrics(&tenant, vec![request.clone()])).expect("the preset is answered");
        report.rate(name, 1, "queries/s", &median(|| (), ask), baseline);
    }
    for (name, sql) in STATEMENTS {
        let baseline = plain.as_ref().map(|plain| baseline(&server, plain, sql));
        let ask = |()| server.run(rows(&engine, &tenant, sql));
        report.rate(name, 1, "queries/s", &median(|| (), ask), baseline);
    }
    let nobody: TenantId = "nobody".parse().expect("a legal tenant id");
    for (name, tenant) in [("count(*)", &tenant), ("an empty tenant", &nobody)] {
        let ask = |()| server.run(rows(&engine, tenant, "SELECT count(*) FROM observations"));
        report.rate(name, 1, "queries/s", &median(|| (), ask), None);
    }
    server.kill();
}

pub(crate) async fn rows(engine: &Engine, tenant: &TenantId, sql: &str) -> usize {
    let answer = engine.sql(tenant, sql, SqlLimits::default()).await.expect("the statement is answered");
    let batches: Vec<_> = answer.try_collect().await.expect("the statement is answered");
    batches.iter().map(|batch| batch.num_rows()).sum()
}

fn presets(range: TimeRange) -> [(&'static str, MetricsRequest); 3] {
    let bucket = TimeBucket { unit: TimeUnit::Hour.into(), ..Default::default() };
    [
        ("CostBreakdown by model", cost_breakdown(CostBreakdownRequest { range: Some(range), ..Default::default() })),
        (
            "LatencyPercentiles by model",
            latency_percentiles(LatencyPercentilesRequest { range: Some(range), ..Default::default() }),
        ),
        (
            "TimeSeries hourly",
            time_series(TimeSeriesRequest { range: Some(range), bucket: Some(bucket), ..Default::default() }),
        ),
    ]
}

/// Plain DataFusion over the tenant's files, nothing tuned; only where they are in a folder.
fn plain(server: &Server) -> Option<SessionContext> {
    let Location::Folder(folder) = server.catalog.store().location() else { return None };
    let files = folder.join("tenants/bench/observations");
    let context = SessionContext::new();
    let registered = server.run(async {
        let files = files.to_str().expect("a folder's name is UTF-8");
        context.register_parquet("observations", files, ParquetReadOptions::default()).await
    });
    registered.expect("the files are Parquet");
    Some(context)
}

fn baseline(server: &Server, plain: &SessionContext, sql: &str) -> Baseline {
    let ask = |()| {
        let collected = server.run(async { plain.sql(sql).await?.collect().await });
        collected.expect("plain DataFusion answers").len()
    };
    Baseline { name: "plain DataFusion", value: median(|| (), ask).per_second(1) }
}
