//! What `answers` asks, in three languages. Of the day that the corpus covers; in the statements the tables are named in
//! braces.

use tracelake::query::presets::{Comparison, Preset};
use tracelake::wire::{
    Aggregation, Cohort, CompareMeasure, CompareRequest, Filter, FilterOperator, Measure, MetricsRequest, TimeBucket,
    TimeRange, TimeUnit, View,
};

use crate::corpus::config;

/// The trace that `Ask::Trace` wants, and how many observations it has.
pub(crate) const LONG_TRACE: &str = "long";
pub(crate) const TRACE_OBSERVATIONS: usize = 10_000;

pub(crate) struct Question {
    pub(crate) name: &'static str,
    pub(crate) ask: Ask,
    pub(crate) duckdb: &'static str,
    pub(crate) chdb: &'static str,
}

pub(crate) enum Ask {
    /// All from one snapshot.
    Metrics(fn() -> Vec<MetricsRequest>),
    Sql(&'static str),
    /// The newest traces.
    List,
    /// The newest traces that say this.
    Search(&'static str),
    /// One large trace with its texts.
    Trace,
}

/// The whole day of the corpus.
pub(crate) fn day() -> TimeRange {
    let corpus = config(1, tracelake::corpus::TextSize::None);
    TimeRange { from_unix_micros: corpus.start_us, to_unix_micros: corpus.end_us }
}

const NEWEST_ERRORS: &str = "SELECT start_time, trace_id, id, name, status_message FROM observations \
    WHERE level = 'ERROR' AND environment = 'default' AND metadata['tenant_id'] = 'globex' \
    ORDER BY start_time DESC LIMIT 50";

pub(crate) const QUESTIONS: &[Question] = &[
    Question {
        name: "traces per hour",
        ask: Ask::Metrics(|| vec![Asked::of(View::Traces).hourly().count().request()]),
        duckdb: "SELECT date_trunc('hour', s), count(*) FROM (SELECT min(start_time) AS s FROM {observations} \
            GROUP BY trace_id) GROUP BY 1 ORDER BY 1",
        chdb: "SELECT toStartOfHour(s) AS h, count() FROM (SELECT min(start_time) AS s FROM {observations} \
            GROUP BY trace_id) GROUP BY h ORDER BY h",
    },
    Question {
        name: "observations by level and hour",
        ask: Ask::Metrics(|| vec![Asked::of(View::Observations).hourly().by("level").count().request()]),
        duckdb: "SELECT date_trunc('hour', start_time), level, count(*) FROM {observations} GROUP BY 1, 2 ORDER BY 1, 2",
        chdb: "SELECT toStartOfHour(start_time) AS h, level, count() FROM {observations} GROUP BY h, level ORDER BY h, level",
    },
    Question {
        name: "cost and tokens by model",
        ask: Ask::Metrics(|| vec![calls().by("model").sum("total_cost").sum("total_tokens").top(20).request()]),
        duckdb: "SELECT model, sum(total_cost), sum(total_tokens) FROM {observations} \
            WHERE type IN ('GENERATION', 'EMBEDDING') GROUP BY 1 ORDER BY 2 DESC LIMIT 20",
        chdb: "SELECT model, sum(total_cost) AS c, sum(total_tokens) FROM {observations} \
            WHERE type IN ('GENERATION', 'EMBEDDING') GROUP BY model ORDER BY c DESC LIMIT 20",
    },
    Question {
        name: "cost by model, one hour",
        ask: Ask::Metrics(|| {
            let mut asked = calls().by("model").sum("total_cost").count();
            let from_unix_micros = day().from_unix_micros + 12 * 3_600_000_000;
            let to_unix_micros = from_unix_micros + 3_600_000_000;
            asked.0.range = Some(TimeRange { from_unix_micros, to_unix_micros });
            vec![asked.request()]
        }),
        duckdb: "SELECT model, sum(total_cost), count(*) FROM {observations} \
            WHERE type IN ('GENERATION', 'EMBEDDING') AND start_time >= TIMESTAMPTZ '2026-02-16 12:00:00+00' \
            AND start_time < TIMESTAMPTZ '2026-02-16 13:00:00+00' GROUP BY 1 ORDER BY 2 DESC",
        chdb: "SELECT model, sum(total_cost) AS c, count() FROM {observations} \
            WHERE type IN ('GENERATION', 'EMBEDDING') AND start_time >= toDateTime64('2026-02-16 12:00:00', 6, 'UTC') \
            AND start_time < toDateTime64('2026-02-16 13:00:00', 6, 'UTC') GROUP BY model ORDER BY c DESC",
    },
    Question {
        name: "cost by usage kind and hour",
        ask: Ask::Metrics(|| {
            let asked = Asked::of(View::Observations).hourly();
            vec![asked.sum("cost:input").sum("cost:output").sum("cost:input_cached_tokens").request()]
        }),
        duckdb: "SELECT date_trunc('hour', start_time), sum(cost['input']), sum(cost['output']), \
            sum(cost['input_cached_tokens']) FROM {observations} GROUP BY 1 ORDER BY 1",
        chdb: "SELECT toStartOfHour(start_time) AS h, sum(cost['input']), sum(cost['output']), \
            sum(cost['input_cached_tokens']) FROM {observations} GROUP BY h ORDER BY h",
    },
    Question {
        name: "top 20 users by cost",
        ask: Ask::Metrics(|| {
            vec![Asked::of(View::Observations).by("user_id").sum("total_cost").count().top(20).request()]
        }),
        duckdb: "SELECT user_id, sum(total_cost), count(*) FROM {observations} GROUP BY 1 ORDER BY 2 DESC NULLS LAST LIMIT 20",
        chdb: "SELECT user_id, sum(total_cost) AS c, count() FROM {observations} GROUP BY user_id ORDER BY c DESC LIMIT 20",
    },
    Question {
        name: "cost by tag",
        ask: Ask::Metrics(|| {
            vec![Asked::of(View::Observations).by("tags").sum("total_cost").count().top(20).request()]
        }),
        duckdb: "SELECT t, sum(total_cost), count(*) FROM (SELECT unnest(tags) AS t, total_cost FROM {observations}) \
            GROUP BY 1 ORDER BY 2 DESC LIMIT 20",
        chdb: "SELECT t, sum(total_cost) AS c, count() FROM {observations} ARRAY JOIN tags AS t \
            GROUP BY t ORDER BY c DESC LIMIT 20",
    },
    Question {
        name: "cost by a metadata key",
        ask: Ask::Metrics(|| {
            vec![Asked::of(View::Observations).by("metadata:channel").sum("total_cost").count().top(20).request()]
        }),
        duckdb: "SELECT metadata['channel'], sum(total_cost), count(*) FROM {observations} GROUP BY 1 ORDER BY 2 DESC LIMIT 20",
        chdb: "SELECT metadata['channel'] AS k, sum(total_cost) AS c, count() FROM {observations} \
            GROUP BY k ORDER BY c DESC LIMIT 20",
    },
    Question {
        name: "trace latency percentiles by name",
        ask: Ask::Metrics(|| {
            let asked = Asked::of(View::Traces).by("trace_name");
            vec![asked.percentiles("latency_ms", &[50.0, 90.0, 95.0, 99.0]).top(20).request()]
        }),
        duckdb: "SELECT n, approx_quantile(l, [0.5, 0.9, 0.95, 0.99]) FROM (SELECT any_value(trace_name) AS n, \
            epoch_us(max(end_time)) - epoch_us(min(start_time)) AS l FROM {observations} GROUP BY trace_id) GROUP BY 1",
        chdb: "SELECT n, quantilesTDigest(0.5, 0.9, 0.95, 0.99)(l) FROM (SELECT any(trace_name) AS n, \
            toUnixTimestamp64Micro(assumeNotNull(max(end_time))) - toUnixTimestamp64Micro(assumeNotNull(min(start_time))) AS l \
            FROM {observations} GROUP BY trace_id) GROUP BY n",
    },
    Question {
        name: "model latency percentiles by hour",
        ask: Ask::Metrics(|| {
            let asked = calls().hourly().by("model");
            vec![asked.percentiles("latency_ms", &[50.0, 75.0, 90.0, 95.0, 99.0]).request()]
        }),
        duckdb: "SELECT date_trunc('hour', start_time), model, approx_quantile(latency_ms, [0.5, 0.75, 0.9, 0.95, 0.99]) \
            FROM {observations} WHERE type IN ('GENERATION', 'EMBEDDING') GROUP BY 1, 2",
        chdb: "SELECT toStartOfHour(start_time) AS h, model, quantilesTDigest(0.5, 0.75, 0.9, 0.95, 0.99)(latency_ms) \
            FROM {observations} WHERE type IN ('GENERATION', 'EMBEDDING') GROUP BY h, model",
    },
    Question {
        name: "time to first token by model and hour",
        ask: Ask::Metrics(|| {
            let asked = calls().hourly().by("model");
            vec![asked.percentiles("ttft_ms", &[95.0]).average("tokens_per_second").request()]
        }),
        duckdb: "SELECT date_trunc('hour', start_time), model, approx_quantile(ttft_ms, 0.95), \
            avg(CASE WHEN latency_ms > 0 THEN output_tokens / (latency_ms / 1000) END) FROM {observations} \
            WHERE type IN ('GENERATION', 'EMBEDDING') GROUP BY 1, 2",
        chdb: "SELECT toStartOfHour(start_time) AS h, model, quantileTDigest(0.95)(ttft_ms), \
            avg(if(latency_ms > 0, output_tokens / (latency_ms / 1000), NULL)) FROM {observations} \
            WHERE type IN ('GENERATION', 'EMBEDDING') GROUP BY h, model",
    },
    Question {
        name: "p95 of a trace's cost by name and hour",
        ask: Ask::Metrics(|| {
            let asked = Asked::of(View::Traces).hourly().by("trace_name");
            vec![asked.percentiles("total_cost", &[95.0]).request()]
        }),
        duckdb: "SELECT date_trunc('hour', s), n, approx_quantile(c, 0.95) FROM (SELECT any_value(trace_name) AS n, \
            min(start_time) AS s, sum(total_cost)::DOUBLE AS c FROM {observations} GROUP BY trace_id) GROUP BY 1, 2",
        chdb: "SELECT toStartOfHour(s) AS h, n, quantileTDigest(0.95)(c) FROM (SELECT any(trace_name) AS n, \
            min(start_time) AS s, toFloat64(sum(total_cost)) AS c FROM {observations} GROUP BY trace_id) GROUP BY h, n",
    },
    Question {
        name: "scores by name and source",
        ask: Ask::Metrics(|| {
            let asked = Asked::of(View::Scores).by("name").by("source").by("data_type");
            vec![asked.count().average("value").request()]
        }),
        duckdb: "SELECT name, source, data_type, count(*), avg(value) FROM {scores} GROUP BY 1, 2, 3",
        chdb: "SELECT name, source, data_type, count(), avg(value) FROM {scores} GROUP BY name, source, data_type",
    },
    Question {
        name: "two variants compared",
        ask: Ask::Metrics(|| {
            let measure = |field: &str| CompareMeasure { field: field.into(), ..Default::default() };
            let cohort =
                |tag: &str| Cohort { name: tag.into(), filters: vec![filter("tags", FilterOperator::HasAny, &[tag])] };
            let compared = Comparison(CompareRequest {
                range: Some(day()),
                cohorts: ["variant_A", "variant_B"].map(cohort).into(),
                measures: ["latency_ms", "total_cost"].map(measure).into(),
                ..Default::default()
            });
            compared.asks(0).expect("a comparison")
        }),
        duckdb: "SELECT v, avg(l), stddev(l), avg(c), stddev(c), count(*) FROM (SELECT CASE WHEN list_contains(any_value(tags), 'variant_A') \
            THEN 'A' WHEN list_contains(any_value(tags), 'variant_B') THEN 'B' END AS v, sum(total_cost) AS c, \
            epoch_us(max(end_time)) - epoch_us(min(start_time)) AS l FROM {observations} GROUP BY trace_id) \
            WHERE v IS NOT NULL GROUP BY 1",
        chdb: "SELECT v, avg(l), stddevSamp(l), avg(c), stddevSamp(c), count() FROM (SELECT multiIf(has(any(tags), 'variant_A'), 'A', \
            has(any(tags), 'variant_B'), 'B', '') AS v, sum(total_cost) AS c, \
            toUnixTimestamp64Micro(assumeNotNull(max(end_time))) - toUnixTimestamp64Micro(assumeNotNull(min(start_time))) AS l \
            FROM {observations} GROUP BY trace_id) WHERE v != '' GROUP BY v",
    },
    Question {
        name: "values of five fields to filter by",
        ask: Ask::Metrics(|| {
            let of = |field: &str| Asked::of(View::Observations).by(field).count().top(100).request();
            ["name", "model", "user_id", "tags", "environment"].map(of).into()
        }),
        duckdb: "(SELECT name AS v, count(*) AS n FROM {observations} GROUP BY 1 ORDER BY 2 DESC LIMIT 100) UNION ALL \
            (SELECT model, count(*) AS n FROM {observations} GROUP BY 1 ORDER BY 2 DESC LIMIT 100) UNION ALL \
            (SELECT user_id, count(*) AS n FROM {observations} GROUP BY 1 ORDER BY 2 DESC LIMIT 100) UNION ALL \
            (SELECT t, count(*) AS n FROM (SELECT unnest(tags) AS t FROM {observations}) GROUP BY 1 ORDER BY 2 DESC LIMIT 100) \
            UNION ALL (SELECT environment, count(*) AS n FROM {observations} GROUP BY 1 ORDER BY 2 DESC LIMIT 100)",
        chdb: "SELECT * FROM (SELECT name AS v, count() AS n FROM {observations} GROUP BY v ORDER BY n DESC LIMIT 100) UNION ALL \
            SELECT * FROM (SELECT model AS v, count() AS n FROM {observations} GROUP BY v ORDER BY n DESC LIMIT 100) UNION ALL \
            SELECT * FROM (SELECT user_id AS v, count() AS n FROM {observations} GROUP BY v ORDER BY n DESC LIMIT 100) UNION ALL \
            SELECT * FROM (SELECT v, count() AS n FROM {observations} ARRAY JOIN tags AS v GROUP BY v ORDER BY n DESC LIMIT 100) \
            UNION ALL SELECT * FROM (SELECT environment AS v, count() AS n FROM {observations} GROUP BY v ORDER BY n DESC LIMIT 100)",
    },
    Question {
        name: "newest 50 errors of one customer (SQL)",
        ask: Ask::Sql(NEWEST_ERRORS),
        duckdb: "SELECT start_time, trace_id, id, name, status_message FROM {observations} \
            WHERE level = 'ERROR' AND environment = 'default' AND metadata['tenant_id'] = 'globex' \
            ORDER BY start_time DESC LIMIT 50",
        chdb: "SELECT start_time, trace_id, id, name, status_message FROM {observations} \
            WHERE level = 'ERROR' AND environment = 'default' AND metadata['tenant_id'] = 'globex' \
            ORDER BY start_time DESC LIMIT 50",
    },
    Question {
        name: "ListTraces, newest 50",
        ask: Ask::List,
        duckdb: "SELECT trace_id, min(start_time) AS s, max(end_time), any_value(trace_name), any_value(user_id), \
            any_value(session_id), count(*), sum(total_cost), sum(total_tokens) FROM {observations} \
            GROUP BY trace_id ORDER BY s DESC LIMIT 50",
        chdb: "SELECT trace_id, min(start_time) AS s, max(end_time), any(trace_name), any(user_id), \
            any(session_id), count(), sum(total_cost), sum(total_tokens) FROM {observations} \
            GROUP BY trace_id ORDER BY s DESC LIMIT 50",
    },
    Question {
        name: "SearchTraces, common text",
        ask: Ask::Search("refund"),
        duckdb: "SELECT trace_id, max(start_time) AS s, count(*) FROM {observation_io} \
            WHERE contains(lower(input), 'refund') OR contains(lower(output), 'refund') \
            GROUP BY trace_id ORDER BY s DESC LIMIT 20",
        chdb: "SELECT trace_id, max(start_time) AS s, count() FROM {observation_io} \
            WHERE positionCaseInsensitive(input, 'refund') > 0 OR positionCaseInsensitive(output, 'refund') > 0 \
            GROUP BY trace_id ORDER BY s DESC LIMIT 20",
    },
    Question {
        name: "SearchTraces, a text of one step",
        ask: Ask::Search("what step 9999 made"),
        duckdb: "SELECT trace_id, max(start_time) AS s, count(*) FROM {observation_io} \
            WHERE contains(lower(input), 'what step 9999 made') OR contains(lower(output), 'what step 9999 made') \
            GROUP BY trace_id ORDER BY s DESC LIMIT 20",
        chdb: "SELECT trace_id, max(start_time) AS s, count() FROM {observation_io} \
            WHERE positionCaseInsensitive(input, 'what step 9999 made') > 0 \
            OR positionCaseInsensitive(output, 'what step 9999 made') > 0 \
            GROUP BY trace_id ORDER BY s DESC LIMIT 20",
    },
    Question {
        name: "GetTrace, 10,000 observations with texts",
        ask: Ask::Trace,
        duckdb: "SELECT o.*, i.input, i.output FROM (SELECT * FROM {observations} WHERE trace_id = 'long') AS o \
            LEFT JOIN (SELECT id, input, output FROM {observation_io} WHERE trace_id = 'long') AS i ON i.id = o.id \
            ORDER BY o.start_time",
        chdb: "SELECT o.*, i.input, i.output FROM (SELECT * FROM {observations} WHERE trace_id = 'long') AS o \
            LEFT JOIN (SELECT id, input, output FROM {observation_io} WHERE trace_id = 'long') AS i ON i.id = o.id \
            ORDER BY o.start_time",
    },
];

/// Observations that call a model.
fn calls() -> Asked {
    let mut asked = Asked::of(View::Observations);
    asked.0.filters = vec![filter("type", FilterOperator::In, &["GENERATION", "EMBEDDING"])];
    asked
}

fn filter(field: &str, operator: FilterOperator, values: &[&str]) -> Filter {
    let values = values.iter().map(|value| (*value).to_owned()).collect();
    Filter { field: field.to_owned(), operator: operator.into(), values, ..Default::default() }
}

/// A metrics question of the day, in few words.
struct Asked(MetricsRequest);

impl Asked {
    fn of(view: View) -> Self {
        Self(MetricsRequest { view: view.into(), range: Some(day()), ..Default::default() })
    }

    fn request(self) -> MetricsRequest {
        self.0
    }

    fn hourly(mut self) -> Self {
        self.0.bucket = Some(TimeBucket { unit: TimeUnit::Hour.into(), ..Default::default() });
        self
    }

    fn by(mut self, dimension: &str) -> Self {
        self.0.dimensions.push(dimension.to_owned());
        self
    }

    fn top(mut self, top_k: u32) -> Self {
        self.0.top_k = top_k;
        self
    }

    fn measure(mut self, field: &str, aggregation: Aggregation, percentile: f64) -> Self {
        let field = field.to_owned();
        self.0.measures.push(Measure { field, aggregation: aggregation.into(), percentile, ..Default::default() });
        self
    }

    fn count(self) -> Self {
        self.measure("", Aggregation::Count, 0.0)
    }

    fn sum(self, field: &str) -> Self {
        self.measure(field, Aggregation::Sum, 0.0)
    }

    fn average(self, field: &str) -> Self {
        self.measure(field, Aggregation::Avg, 0.0)
    }

    fn percentiles(self, field: &str, percentiles: &[f64]) -> Self {
        percentiles.iter().fold(self, |asked, percentile| asked.measure(field, Aggregation::Percentile, *percentile))
    }
}
