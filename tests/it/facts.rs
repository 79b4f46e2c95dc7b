//! Facts about how real clients send, each by the doors in and by SQL out. Where another test holds a fact already it
//! is named here; the numbers are those of the list the recordings were made with.
//!
//! |    | what clients do | test |
//! |----|-----------------|------|
//! |  1 | five ways in, metrics and logs beside them | `doors::the_same_span_is_kept_whatever_it_is_wrapped_in`, `batch`, `captures`, `doors::metrics_and_logs_of_clients_are_answered_with_yes` |
//! |  2 | gzip, chunks without a length | `doors::the_same_span_is_kept_whatever_it_is_wrapped_in` |
//! |  3 | headers with dashes, capitals or underscores, or none | [`headers_say_who_sends_in_any_spelling_and_may_be_missing`] |
//! |  4 | an ingestion version does not make metadata JSON | [`an_ingestion_version_says_nothing_of_metadata`], `decode::tests::rules::only_langfuses_python_sdk_from_5…` |
//! |  5 | an update before its create, all in one millisecond | [`a_batch_in_no_order_within_one_millisecond_merges_create_before_update`] |
//! |  6 | a later `trace-create` says a later time | [`what_is_said_of_a_trace_again_and_again_keeps_its_first_time_and_loses_nothing`] |
//! |  7 | a later `trace-create` lacks what was said | the same |
//! |  8 | updates and scores in other requests, scores first | [`scores_and_updates_may_come_before_what_they_are_about`] |
//! |  9 | unknown fields, explicit nulls | [`fields_that_nobody_knows_are_let_pass`] |
//! | 10 | ids of every form | `decode::tests::langfuse::ids_of_every_form_are_kept_as_they_came` |
//! | 11 | whole batches sent again | `batch::a_batch_sent_thrice_shuffled_and_over_two_restarts_answers_as_sent_once` |
//! | 12 | a 500 loses data | `doors::tests::http::trouble_of_ours_asks_for_another_try_with_a_delay`, `doors::tests::every_kind_has_its_codes_and_the_way_in_never_says_internal` |
//! | 13 | three kinds of roots | [`a_root_has_no_parent_or_a_mark_or_a_parent_that_never_came`], `captures::a_span_whose_parent_never_comes…` |
//! | 14 | children first | `captures::requests_sent_twice_and_backwards_change_no_number`, `ingest::tests::rows_without_a_root_are_carried…` |
//! | 15 | a trace is told by some of its spans | [`every_row_knows_what_any_span_said_of_the_trace`] |
//! | 16 | a span's environment goes before its resource's | [`the_environment_of_a_request_goes_before_that_of_its_process`] |
//! | 17 | JSON in strings, a time in quotes in quotes | `decode::tests::rules::the_first_token_is_a_time_or_a_wait_or_an_event`, `captures` |
//! | 18 | a raw usage object with nulls | `decode::tests::usage::usage_is_read_in_every_convention` |
//! | 19 | one call in seven conventions | the same |
//! | 20 | spans that sum up others | `repeated::an_agent_counts_what_nobody_below_it_reports`, `decode::tests::usage::an_aggregating_span…` |
//! | 21 | one call by two instrumentations | `repeated::one_call_that_two_instrumentations_report_counts_once_in_any_order` |
//! | 22 | errors by level, by status, by both, on every ancestor | [`errors_are_said_by_level_or_by_status`], `decode::tests::rules::errors_come_from…` |
//! | 23 | the first token in five ways | `decode::tests::rules::the_first_token_is_a_time_or_a_wait_or_an_event`, `decode::tests::dialects` |
//! | 24 | cost without a total, nought, by six names | [`a_cost_may_lack_its_total_and_may_be_nought`], `decode::tests::usage::costs_are_exact…` |
//! | 25 | tags in every spelling, both ways | [`tags_are_sent_in_seven_ways_and_asked_for_in_two`], `decode::tests::rules::tags_come_in_four_spellings` |
//! | 26 | numbers as numbers or as text, null as `{}` | [`values_come_back_as_they_were_sent`], `decode::tests::reading::every_spelling_of_json_reads_the_same` |
//! | 27 | large, empty and odd values | the same |
//! | 28 | lists in pieces with gaps | `decode::tests::rules::input_and_output_come_from_the_best_source` |
//! | 29 | children that start before or end after their parent, spans of no length | [`times_are_kept_to_the_nanosecond_and_need_not_nest`] |
//! | 30 | redirects lose data | `doors::a_slash_at_the_end_is_served_and_never_redirected` |
//!
//! And of order and time:
//!
//! | what clients do | test |
//! |-----------------|------|
//! | scores and spans of one flush overtake each other | [`scores_and_updates_may_come_before_what_they_are_about`] |
//! | a long root comes last, or never | `captures::a_span_whose_parent_never_comes_is_the_root_of_its_trace_and_names_it` |
//! | the user is set after siblings ended | [`every_row_knows_what_any_span_said_of_the_trace`] |
//! | who and tags first, then the observations, then the output | [`what_is_said_of_a_trace_again_and_again_keeps_its_first_time_and_loses_nothing`] |
//! | traces interleaved in one request, one trace by two SDKs | [`one_request_speaks_of_many_traces_and_many_clients_of_one`] |
//! | sibling and child of one name | [`spans_of_one_name_are_spans_of_their_own`] |
//! | nothing is sent twice without a failed answer, but then it is | `batch::a_batch_sent_thrice_shuffled…`, `captures::requests_sent_twice…` |

use serde_json::{Value, json};

use crate::json_spans::{START_NS, export, post, send, send_all, send_batch, span, span_id, trace_id};
use crate::process::{ServerProcess, path, rows};

struct Life {
    server: ServerProcess,
    _folder: tempfile::TempDir,
}

impl Life {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { server: ServerProcess::start(path(folder.path())), _folder: folder }
    }

    async fn rows(&self, statement: &str) -> Value {
        rows(&self.server.connect().await, statement).await.into()
    }
}

fn event(kind: &str, at: &str, body: Value) -> Value {
    let id = format!("{kind} {at} {body}").chars().take(200).collect::<String>();
    json!({"id": id, "type": kind, "timestamp": format!("2026-11-21T05:37:{at}Z"), "body": body})
}

const SDK: (&str, &str) = ("langfuse-sdk", "");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_say_who_sends_in_any_spelling_and_may_be_missing() {
    let life = Life::start();
    let spellings: [&[(&str, &str)]; 4] = [
        &[("x-langfuse-sdk-name", "python"), ("x-langfuse-sdk-version", "5.0.4")],
        &[("X-Langfuse-Sdk-Name", "python"), ("X-Langfuse-Sdk-Version", "5.0.4")],
        &[("x_langfuse_sdk_name", "python"), ("x_langfuse_sdk_version", "5.0.4")],
        &[],
    ];
    for (trace, headers) in spellings.into_iter().enumerate() {
        let span = span(trace as u8 + 1, 1, None, "s", &json!({"langfuse.observation.metadata.k": "\"123\""}));
        send_all(&life.server, &export(SDK, &json!({}), &[span]), headers).await;
    }
    let found = life.rows("SELECT metadata['k'] AS k FROM observations ORDER BY trace_id").await;
    assert_eq!(found, json!([{"k": "123"}, {"k": "123"}, {"k": "123"}, {"k": "\"123\""}]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ingestion_version_says_nothing_of_metadata() {
    let life = Life::start();
    let quoted = |trace| span(trace, 1, None, "s", &json!({"langfuse.observation.metadata.k": "\"123\""}));
    let version = ("x-langfuse-ingestion-version", "4");
    let litellm = [version, ("x-langfuse-sdk-name", "python"), ("x-langfuse-sdk-version", "4.18.0")];
    send_all(&life.server, &export(SDK, &json!({}), &[quoted(1)]), &litellm).await;
    send_all(&life.server, &export(("litellm", ""), &json!({}), &[quoted(2)]), &[version]).await;
    let python = json!({"telemetry.sdk.language": "python"});
    send_all(&life.server, &export(("langfuse-sdk", "5.0.4"), &python, &[quoted(3)]), &[version]).await;
    let found = life.rows("SELECT metadata['k'] AS k FROM observations ORDER BY trace_id").await;
    assert_eq!(found, json!([{"k": "\"123\""}, {"k": "\"123\""}, {"k": "123"}]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_in_no_order_within_one_millisecond_merges_create_before_update() {
    let life = Life::start();
    let at = "25.638";
    send_batch(
        &life.server,
        &[
            event("generation-update", at, json!({"id": "g", "traceId": "t", "output": "late", "endTime": "2026-11-21T05:37:27Z"})),
            event("span-create", at, json!({"id": "s", "traceId": "t", "name": "step", "startTime": "2026-11-21T05:37:25Z"})),
            event("generation-create", at, json!({
                "id": "g", "traceId": "t", "parentObservationId": "s", "name": "llm", "model": "gpt-4o-mini",
                "startTime": "2026-11-21T05:37:25Z", "output": "early", "usage": {"promptTokens": 120, "completionTokens": 45},
            })),
            event("trace-create", at, json!({"id": "t", "name": "run", "userId": "user-42"})),
        ],
    )
    .await;
    let found = life
        .rows(
            "SELECT o.name, o.type, o.parent_id, o.trace_name, o.user_id, o.total_tokens, o.latency_ms, io.output
             FROM observations o LEFT JOIN observation_io io ON io.trace_id = o.trace_id AND io.id = o.id
             ORDER BY o.name",
        )
        .await;
    assert_eq!(
        found,
        json!([
            {"name": "llm", "type": "GENERATION", "parent_id": "s", "trace_name": "run", "user_id": "user-42",
             "total_tokens": 165, "latency_ms": 2000.0, "output": "late"},
            {"name": "step", "type": "SPAN", "parent_id": null, "trace_name": "run", "user_id": "user-42",
             "total_tokens": null, "latency_ms": null, "output": null},
        ])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_said_of_a_trace_again_and_again_keeps_its_first_time_and_loses_nothing() {
    let life = Life::start();
    let said = [
        event("trace-create", "25.000", json!({"id": "t", "name": "run", "timestamp": "2026-11-21T05:37:25.500Z"})),
        event(
            "trace-create",
            "26.000",
            json!({"id": "t", "userId": "user-42", "tags": ["a"], "timestamp": "2026-11-21T05:37:26.500Z"}),
        ),
        event("span-create", "27.000", json!({"id": "s", "traceId": "t", "name": "step"})),
        event(
            "trace-create",
            "28.000",
            json!({"id": "t", "output": {"ok": true}, "tags": ["b"], "timestamp": "2026-11-21T05:37:28.500Z"}),
        ),
    ];
    for event in &said {
        send_batch(&life.server, std::slice::from_ref(event)).await;
    }
    let found = life.rows("SELECT CAST(timestamp AS VARCHAR) AS at, name, user_id, tags FROM trace_facts").await;
    let at = found[0]["at"].as_str().unwrap();
    assert!(at.contains("05:37:25.5"), "{at}");
    assert_eq!((&found[0]["name"], &found[0]["user_id"]), (&json!("run"), &json!("user-42")));
    assert_eq!(found[0]["tags"], json!(["a", "b"]));
    let found = life.rows("SELECT output FROM observation_io WHERE id = ''").await;
    assert_eq!(found, json!([{"output": "{\"ok\":true}"}]));
    let found = life.rows("SELECT trace_name, user_id, tags FROM observations").await;
    assert_eq!(found, json!([{"trace_name": "run", "user_id": "user-42", "tags": ["a", "b"]}]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scores_and_updates_may_come_before_what_they_are_about() {
    let life = Life::start();
    let score =
        json!([{"id": "x", "traceId": trace_id(1), "observationId": span_id(2), "name": "quality", "value": 0.5}]);
    let answer = post(&life.server, "/api/public/scores", &score, &[]).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let update = json!({"id": "late", "traceId": "t", "metadata": {"late": "yes"}});
    send_batch(&life.server, &[event("span-update", "29.000", update)]).await;
    send(&life.server, &[span(1, 2, Some(1), "llm", &json!({}))]).await;
    let create = json!({"id": "late", "traceId": "t", "name": "step", "startTime": "2026-11-21T05:37:25Z"});
    send_batch(&life.server, &[event("span-create", "25.000", create)]).await;
    let found = life
        .rows("SELECT o.name, s.value FROM scores s JOIN observations o ON o.trace_id = s.trace_id AND o.id = s.observation_id")
        .await;
    assert_eq!(found, json!([{"name": "llm", "value": 0.5}]));
    let found = life.rows("SELECT name, metadata['late'] AS late FROM observations WHERE id = 'late'").await;
    assert_eq!(found, json!([{"name": "step", "late": "yes"}]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_that_nobody_knows_are_let_pass() {
    let life = Life::start();
    let events = [
        event(
            "trace-create",
            "25.000",
            json!({"id": "t", "name": "run", "start_time": "2026-11-21T05:37:25Z", "end_time": null,
            "status_message": "fine"}),
        ),
        event(
            "generation-create",
            "25.100",
            json!({"id": "g", "traceId": "t", "name": "llm", "trace": {"release": "r"},
            "user_id": "u", "release": "r", "generationName": "g", "generationMetadata": {}, "traceName": "run",
            "parentObservationId": null, "status": null, "modelParameters": {"temperature": "0.2", "max_tokens": "inf",
            "response_format": null, "stop": ["x"]}}),
        ),
        event(
            "score-create",
            "25.200",
            json!({"id": "x", "traceId": "t", "name": "n", "value": 1, "parent_observation_id": "g"}),
        ),
    ];
    send_batch(&life.server, &events).await;
    let found = life.rows("SELECT name, parent_id, is_root, model_parameters FROM observations").await;
    assert_eq!((&found[0]["name"], &found[0]["is_root"]), (&json!("llm"), &json!(true)));
    assert_eq!(found[0]["model_parameters"]["max_tokens"], "inf");
    assert_eq!(life.rows("SELECT count(*) AS n FROM scores").await, json!([{"n": 1}]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_has_no_parent_or_a_mark_or_a_parent_that_never_came() {
    let life = Life::start();
    let plain = span(1, 1, None, "plain", &json!({}));
    let app = span(2, 1, Some(99), "app", &json!({"langfuse.internal.is_app_root": true}));
    let marked = span(3, 1, Some(99), "as-root", &json!({"langfuse.internal.as_root": true}));
    let orphan = span(4, 1, Some(99), "orphan", &json!({}));
    let below = |trace| span(trace, 2, Some(1), "below", &json!({}));
    send(&life.server, &[below(1), below(2), below(3), below(4), plain, app, marked, orphan]).await;
    let found = life
        .rows("SELECT array_agg(name ORDER BY name) AS roots, count(DISTINCT trace_name) AS names FROM observations WHERE is_root")
        .await;
    assert_eq!(found, json!([{"roots": ["app", "as-root", "orphan", "plain"], "names": 4}]));
    assert_eq!(life.rows("SELECT count(*) AS n FROM observations WHERE trace_name IS NULL").await, json!([{"n": 0}]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_knows_what_any_span_said_of_the_trace() {
    let life = Life::start();
    // A sibling that ended before the user was set; an LLM span with a tag of its own; the root, with the session.
    send(&life.server, &[span(1, 2, Some(1), "early", &json!({}))]).await;
    let user = json!({"user.id": "user-42", "langfuse.trace.tags": ["a"]});
    send(&life.server, &[span(1, 3, Some(1), "llm", &user)]).await;
    let root = json!({"session.id": "s", "langfuse.trace.tags": "[\"b\"]", "langfuse.trace.metadata.tenant": "acme"});
    send(&life.server, &[span(1, 1, None, "root", &root)]).await;
    let found = life
        .rows("SELECT name, trace_name, user_id, session_id, array_to_string(tags, ' ') AS tags FROM observations ORDER BY name")
        .await;
    let row = |name: &str, tags: &str| json!({"name": name, "trace_name": "root", "user_id": "user-42", "session_id": "s", "tags": tags});
    assert_eq!(found, json!([row("early", "a b"), row("llm", "a b"), row("root", "a b")]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_environment_of_a_request_goes_before_that_of_its_process() {
    let life = Life::start();
    let spans = [
        span(1, 1, None, "own", &json!({"langfuse.environment": "e2e-request"})),
        span(2, 1, None, "of the process", &json!({})),
    ];
    send_all(&life.server, &export(("langfuse-sdk", "4.18.0"), &json!({"langfuse.environment": "e2e"}), &spans), &[])
        .await;
    let found = life.rows("SELECT environment FROM observations ORDER BY trace_id").await;
    assert_eq!(found, json!([{"environment": "e2e-request"}, {"environment": "e2e"}]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_are_said_by_level_or_by_status() {
    let life = Life::start();
    let failed = |mut span: Value| {
        span["status"] = json!({"code": 2, "message": "429"});
        span
    };
    send(
        &life.server,
        &[
            span(1, 1, None, "level", &json!({"langfuse.observation.level": "ERROR"})),
            failed(span(1, 2, Some(1), "status", &json!({}))),
            failed(span(1, 3, Some(1), "both", &json!({"langfuse.observation.level": "ERROR"}))),
            span(1, 4, Some(1), "neither", &json!({})),
        ],
    )
    .await;
    let found = life
        .rows(
            "SELECT array_agg(name ORDER BY name) AS names FROM observations WHERE level = 'ERROR' OR status = 'error'",
        )
        .await;
    assert_eq!(found, json!([{"names": ["both", "level", "status"]}]));
    assert_eq!(life.rows("SELECT count(*) AS n FROM observations WHERE level = 'ERROR'").await, json!([{"n": 3}]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cost_may_lack_its_total_and_may_be_nought() {
    let life = Life::start();
    let details = |json: &str| {
        json!({"langfuse.observation.cost_details": json, "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.usage.input_tokens": 120})
    };
    send(
        &life.server,
        &[
            span(1, 1, None, "parts", &details(r#"{"input": 0.001, "output": 0.0021}"#)),
            span(1, 2, Some(1), "nought", &details(r#"{"input": 0, "output": 0, "total": 0}"#)),
            span(1, 3, Some(1), "litellm", &json!({"gen_ai.cost.total_cost": 0.5})),
        ],
    )
    .await;
    let legacy = json!({"id": "g", "traceId": "t", "name": "legacy", "usage": {"input": 8, "totalCost": 0.25}});
    send_batch(&life.server, &[event("generation-create", "25.000", legacy)]).await;
    let found = life
        .rows("SELECT name, CAST(total_cost AS VARCHAR) AS cost, cost_source FROM observations ORDER BY name")
        .await;
    let row = |name: &str, cost: &str| json!({"name": name, "cost": cost, "cost_source": "provided"});
    let wanted = [
        row("legacy", "0.250000000000"),
        row("litellm", "0.500000000000"),
        row("nought", "0.000000000000"),
        row("parts", "0.003100000000"),
    ];
    assert_eq!(found, json!(wanted));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tags_are_sent_in_seven_ways_and_asked_for_in_two() {
    let life = Life::start();
    let ways = [
        json!({"langfuse.trace.tags": ["a", "b"]}),
        json!({"langfuse.trace.tags": "[\"a\", \"b\"]"}),
        json!({"langfuse.observation.metadata.langfuse_tags": "[\"b\", \"a\"]"}),
        json!({"tag.tags": ["a", "b"]}),
        json!({"ai.telemetry.metadata.tags": ["a", "b"]}),
        json!({"ai.settings.context.tags": ["a", "b"]}),
        json!({"logfire.tags": ["b", "a"]}),
    ];
    for (at, attributes) in ways.iter().enumerate() {
        send(&life.server, &[span(at as u8 + 1, 1, None, "s", attributes)]).await;
    }
    send(&life.server, &[span(50, 1, None, "s", &json!({"langfuse.trace.tags": ["a"]}))]).await;
    let found = life.rows("SELECT count(*) AS n FROM observations WHERE array_to_string(tags, ' ') = 'a b'").await;
    assert_eq!(found, json!([{"n": 7}]));
    for query in ["tags=a&tags=b", "tags=a,b"] {
        let request = crate::http::HttpRequest::get(&format!("/api/public/traces?{query}"));
        let key = crate::grpc::basic(crate::process::PUBLIC_KEY, crate::process::SECRET_KEY);
        let answer = request.header("authorization", &key).send(&life.server.http_addr).await;
        let answer: Value = serde_json::from_str(&answer.text()).unwrap();
        assert_eq!(answer["meta"]["totalItems"], 7, "{query}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_come_back_as_they_were_sent() {
    let life = Life::start();
    let mut attributes = json!({
        "app.large": 9_007_199_254_740_993i64, "app.empty": "", "app.none": "None", "app.list": [1, 2.5, true, null],
        "app.empty_list": [], "llm.headers": "None", "llm.openai.usage": "{'completion_tokens': 45, 'x': None}",
        "embedding.embeddings.0.embedding.vector": [0.1, -0.2], "metadata.user_api_key": "",
    });
    for number in 0..30 {
        attributes[format!("metadata.empty{number}")] = json!("");
    }
    let mut odd = span(1, 1, None, "odd", &attributes);
    // Numbers as numbers, as JavaScript writes them.
    let by_number = json!({"key": "app.by_number", "value": {"intValue": 7}});
    odd["attributes"].as_array_mut().unwrap().push(by_number);
    send(&life.server, &[odd]).await;
    let found = life.rows("SELECT attributes FROM observation_io").await;
    let attributes = &found[0]["attributes"];
    for (key, wanted) in [
        ("app.large", "9007199254740993"),
        ("app.none", "None"),
        ("app.list", "[1,2.5,true,null]"),
        ("app.empty", ""),
        ("app.empty_list", "[]"),
        ("app.by_number", "7"),
        ("llm.openai.usage", "{'completion_tokens': 45, 'x': None}"),
        ("embedding.embeddings.0.embedding.vector", "[0.1,-0.2]"),
        ("metadata.empty29", ""),
    ] {
        assert_eq!(attributes[key], wanted, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn times_are_kept_to_the_nanosecond_and_need_not_nest() {
    let life = Life::start();
    let timed = |id, parent, name: &str, from_ns: u64, to_ns: u64| {
        let mut span = span(1, id, parent, name, &json!({"langfuse.observation.type": "span"}));
        span["startTimeUnixNano"] = (START_NS + from_ns).to_string().into();
        span["endTimeUnixNano"] = (START_NS + to_ns).to_string().into();
        span
    };
    let mut moment = timed(3, Some(1), "moment", 5_000_001, 5_000_001);
    moment["attributes"][0]["value"]["stringValue"] = "event".into();
    let spans =
        [timed(1, None, "parent", 2_000_000, 9_000_123), timed(2, Some(1), "child", 1_000_000, 9_500_456), moment];
    send(&life.server, &spans).await;
    let found = life.rows("SELECT name, type, start_ns, latency_ms FROM observations ORDER BY name").await;
    let row = |name: &str, kind: &str, from_ns: u64, ms: f64| json!({"name": name, "type": kind, "start_ns": START_NS + from_ns, "latency_ms": ms});
    assert_eq!(
        found,
        json!([
            row("child", "SPAN", 1_000_000, 8.500_456),
            row("moment", "EVENT", 5_000_001, 0.0),
            row("parent", "SPAN", 2_000_000, 7.000_123),
        ])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_speaks_of_many_traces_and_many_clients_of_one() {
    let life = Life::start();
    let user = |name: &str| json!({ "user.id": name });
    send(
        &life.server,
        &[
            span(1, 2, Some(1), "below", &json!({})),
            span(2, 2, Some(1), "below", &json!({})),
            span(1, 1, None, "one", &user("u1")),
            span(2, 1, None, "two", &user("u2")),
        ],
    )
    .await;
    // Another SDK, in another process, with the same trace id.
    let body = json!({"id": "classic", "traceId": trace_id(1), "parentObservationId": span_id(1), "name": "classic"});
    send_batch(&life.server, &[event("span-create", "25.000", body)]).await;
    let found = life.rows("SELECT trace_name, user_id, count(*) AS n FROM observations GROUP BY 1, 2 ORDER BY 1").await;
    assert_eq!(
        found,
        json!([{"trace_name": "one", "user_id": "u1", "n": 3}, {"trace_name": "two", "user_id": "u2", "n": 2}])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_of_one_name_are_spans_of_their_own() {
    let life = Life::start();
    let call = |id, parent| span(1, id, parent, "litellm-acompletion", &json!({"llm.model_name": "m"}));
    send(&life.server, &[call(3, Some(2)), call(2, Some(1)), call(4, Some(1)), call(1, None)]).await;
    let found = life.rows("SELECT count(*) AS n, count(DISTINCT id) AS ids FROM observations").await;
    assert_eq!(found, json!([{"n": 4, "ids": 4}]));
}
