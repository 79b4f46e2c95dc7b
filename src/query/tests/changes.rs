//! Late changes: a table whose files hold rows that no longer count, and rows of traces about which more was said
//! since, answers like a table that was written in one go from the final rows.

use std::collections::{HashMap, HashSet};

use datafusion::physical_plan::displayable;

use super::*;
use crate::catalog::RowKeys;
use crate::format::index::key_hash;
use crate::model::TraceFacts;
use crate::model::tables::{IoRow, OBSERVATION_IO};
use crate::wire::{self, View};

/// What an update may do to a row.
fn revised(row: &ObservationRow, random: &mut SmallRng) -> ObservationRow {
    let mut row = row.clone();
    let mut observation = Observation::clone(&row.observation);
    let moved_ns = random.random_range(-7_200..7_200) * 1_000_000_000;
    // Its day stays: a row never leaves its home.
    let day = Day::of_us(row.start_us());
    if Day::of_us(row.start_us() + moved_ns / 1000) == day {
        observation.start_ns = observation.start_ns.map(|start| start + moved_ns);
    }
    observation.user_id =
        [None, Some("user 3".to_owned()), Some("a new user".to_owned())][random.random_range(0..3)].clone();
    observation.model = Some("a new model".to_owned());
    observation.input_tokens = Some(random.random_range(0..100_000));
    row.cost.total = (random.random_range(0..4) > 0).then(|| Money::from_pico(random.random_range(0..1_000_000_000)));
    row.observation = Arc::new(observation);
    row
}

/// Two tenants' worth of the same rows: `changed` with files, replacements and facts, `clean` written in one go.
struct Twins {
    setting: Setting,
}

struct Share {
    replaced: f64,
    traces: usize,
    /// Files said to be touched that are not.
    false_alarms: f64,
}

const CHANGED: &str = "changed";
const CLEAN: &str = "clean";

impl Twins {
    async fn new(seed: u64, share: Share, limits: QueryLimits) -> Self {
        let mut random = SmallRng::seed_from_u64(seed);
        let setting = Setting::new(limits).await;
        let base = observations(seed, 1500, 72);
        let mut facts: HashMap<String, Arc<TraceFacts>> = HashMap::new();
        for at in 0..share.traces {
            let trace_id = format!("trace-{seed}-{}", random.random_range(0..500));
            // Beyond what any row group says of its users, on either side.
            let user_id = [Some(format!("zz late {at}")), Some("aa early".to_owned()), None][at % 3].clone();
            let name = (at % 2 == 0).then(|| format!("named late {at}"));
            let tags = if at % 4 == 0 { vec!["beta".to_owned(), "late".to_owned()] } else { Vec::new() };
            let metadata = BTreeMap::from([("my_flow_id".to_owned(), format!("flow of {}", at % 5))]);
            let said = TraceFacts { trace_id, user_id, name, tags, metadata, ..Default::default() };
            facts.insert(said.trace_id.clone(), Arc::new(said));
        }
        let mut replaced = RowKeys::default();
        let (mut last, mut replacements) = (Vec::new(), Vec::new());
        for row in &base {
            let is_replaced = random.random_bool(share.replaced);
            let mut row = if is_replaced { revised(row, &mut random) } else { row.clone() };
            if let Some(facts) = facts.get(&row.observation.trace_id) {
                row.facts = Some(Arc::clone(facts));
            }
            if is_replaced {
                insert(&mut replaced, &[&row.observation.trace_id, &row.observation.id]);
                replacements.push(row.clone());
            }
            last.push(row);
        }
        let mut touched = HashSet::new();
        for rows in base.chunks(200) {
            for (day, rows) in by_day(rows) {
                let file = batch(Table::Observations, OBSERVATIONS, &rows);
                let path = setting.add_file(CHANGED, Table::Observations, day, file).await;
                let is_touched = rows.iter().any(|row| {
                    let key = [row.observation.trace_id.as_str(), row.observation.id.as_str()];
                    facts.contains_key(key[0]) || replaced.contains(key_hash(&key), &key)
                });
                if is_touched || random.random_bool(share.false_alarms) {
                    touched.insert(path);
                }
            }
        }
        if !replacements.is_empty() {
            setting.add_fresh(CHANGED, &replacements);
        }
        let changes = Changes {
            replaced: Arc::new(replaced),
            facts: Arc::new(facts),
            touched: Arc::new(touched.clone()),
            ..Default::default()
        };
        setting.change(CHANGED, Table::Observations, changes);
        setting.add_files(CLEAN, &last).await;

        let twins = Self { setting };
        twins.add_texts(&base, &mut random, share.replaced).await;
        twins.add_scores(&base, &mut random, share.replaced).await;
        twins
    }

    async fn add_texts(&self, observed: &[ObservationRow], random: &mut SmallRng, share: f64) {
        let text = |row: &ObservationRow, output: String| {
            let mut observation = Observation::clone(&row.observation);
            observation.output = Some(output);
            IoRow::Observation { observation: Arc::new(observation), start_us: row.start_us(), provenance: None }
        };
        let day = Day::of_us(START_US);
        let mut replaced = RowKeys::default();
        let (mut base, mut last, mut replacements) = (Vec::new(), Vec::new(), Vec::new());
        for row in observed {
            base.push(text(row, format!("answer to {}", row.observation.id)));
            match random.random_bool(share) {
                true => {
                    insert(&mut replaced, &[&row.observation.trace_id, &row.observation.id]);
                    let row = text(row, "a better answer".to_owned());
                    replacements.push(row.clone());
                    last.push(row);
                }
                false => last.push(text(row, format!("answer to {}", row.observation.id))),
            }
        }
        let table = Table::ObservationIo;
        let path = self.setting.add_file(CHANGED, table, day, batch(table, OBSERVATION_IO, &base)).await;
        self.setting.add_file(CLEAN, table, day, batch(table, OBSERVATION_IO, &last)).await;
        let days = replacements.iter().map(|_| day.days());
        self.setting.add_fresh_batch(CHANGED, table, batch(table, OBSERVATION_IO, &replacements), days);
        let touched = Arc::new([path].into());
        self.setting.change(CHANGED, table, Changes { replaced: Arc::new(replaced), touched, ..Default::default() });
    }

    async fn add_scores(&self, observed: &[ObservationRow], random: &mut SmallRng, share: f64) {
        let judged = |at: usize, value: f64| {
            let mut row = score(at, value, observed[at].start_us());
            let mut score = Score::clone(&row.score);
            score.trace_id = Some(observed[at].observation.trace_id.clone());
            score.observation_id = Some(observed[at].observation.id.clone());
            row.score = score.into();
            row
        };
        let mut replaced = RowKeys::default();
        let (mut base, mut last, mut replacements) = (Vec::new(), Vec::new(), Vec::new());
        for at in (0..observed.len()).step_by(3) {
            base.push(judged(at, at as f64));
            match random.random_bool(share) {
                true => {
                    insert(&mut replaced, &[&format!("score-{at}")]);
                    replacements.push(judged(at, -1.0));
                    last.push(judged(at, -1.0));
                }
                false => last.push(judged(at, at as f64)),
            }
        }
        let day = Day::of_us(START_US);
        let path = self.setting.add_file(CHANGED, Table::Scores, day, batch(Table::Scores, SCORES, &base)).await;
        self.setting.add_file(CLEAN, Table::Scores, day, batch(Table::Scores, SCORES, &last)).await;
        self.setting.add_fresh_scores(CHANGED, &replacements);
        let touched = Arc::new([path].into());
        let changes = Changes { replaced: Arc::new(replaced), touched, ..Default::default() };
        self.setting.change(CHANGED, Table::Scores, changes);
    }

    async fn agree_on(&self, sql: &str) {
        let (changed, clean) = (self.setting.text(CHANGED, sql).await, self.setting.text(CLEAN, sql).await);
        assert!(clean.starts_with('+'), "{sql}: {clean}");
        assert_eq!(changed, clean, "{sql}\n{}", self.plan(CHANGED, sql).await);
    }

    async fn plan(&self, tenant: &str, sql: &str) -> String {
        plan(&self.setting, tenant, sql).await
    }
}

fn insert(replaced: &mut RowKeys, key: &[&str]) {
    assert!(replaced.insert(key_hash(key), key.iter().map(|part| Box::from(*part)).collect()));
}

fn by_day(rows: &[ObservationRow]) -> BTreeMap<Day, Vec<ObservationRow>> {
    let mut days: BTreeMap<Day, Vec<ObservationRow>> = BTreeMap::new();
    for row in rows {
        days.entry(Day::of_us(row.start_us())).or_default().push(row.clone());
    }
    days
}

async fn plan(setting: &Setting, tenant: &str, sql: &str) -> String {
    let query = setting.engine.begin(&all_of(tenant)).unwrap();
    let logical = query.plan_sql(sql).await.unwrap();
    displayable(query.physical(&logical).await.unwrap().as_ref()).indent(true).to_string()
}

/// Asked of both twins. Every order is total, so that answers are compared as they stand.
const QUESTIONS: &[&str] = &[
    "SELECT count(*) FROM observations",
    "SELECT count(*), count(user_id), count(total_cost), sum(total_cost), sum(input_tokens) FROM observations",
    "SELECT min(start_time), max(start_time), min(user_id), max(user_id), min(day), max(day) FROM observations",
    "SELECT count(DISTINCT user_id), count(DISTINCT trace_name), count(DISTINCT id), count(DISTINCT trace_id) FROM observations",
    "SELECT user_id, count(*) AS n, sum(total_cost) AS cost FROM observations GROUP BY user_id ORDER BY user_id",
    "SELECT trace_name, model, count(*) AS n, sum(output_tokens) AS t FROM observations GROUP BY 1, 2 ORDER BY 1, 2",
    "SELECT day, count(*) AS n, min(start_time) AS first, max(start_time) AS last FROM observations GROUP BY day ORDER BY day",
    "SELECT id, start_time, user_id, trace_name, model, total_cost FROM observations ORDER BY id",
    "SELECT id FROM observations ORDER BY start_time DESC, id LIMIT 20",
    "SELECT id, start_time FROM observations ORDER BY start_time, id LIMIT 20",
    "SELECT user_id, id FROM observations ORDER BY user_id DESC NULLS LAST, id LIMIT 30",
    "SELECT user_id, id FROM observations ORDER BY user_id, id LIMIT 30",
    "SELECT trace_name, start_time, id FROM observations ORDER BY trace_name DESC NULLS LAST, start_time, id LIMIT 30",
    "SELECT count(*) FROM (SELECT id FROM observations LIMIT 77)",
    "SELECT count(*) FROM (SELECT id FROM observations LIMIT 1500)",
    "SELECT count(*) FROM (SELECT user_id FROM observations LIMIT 1490 OFFSET 20)",
    "SELECT id FROM observations WHERE user_id = 'zz late 0' ORDER BY id",
    "SELECT id FROM observations WHERE user_id = 'aa early' ORDER BY id",
    "SELECT id, user_id FROM observations WHERE user_id LIKE 'zz%' OR user_id < 'b' ORDER BY id",
    "SELECT count(*) FROM observations WHERE user_id IS NULL",
    "SELECT count(*) FROM observations WHERE user_id IS NULL AND start_time >= '2026-03-29T00:00:00Z'",
    "SELECT count(*) FROM observations WHERE user_id IN ('zz late 0', 'user 3') AND model <> 'llama'",
    "SELECT count(*), sum(total_cost) FROM observations WHERE trace_name = 'named late 2'",
    "SELECT count(*), sum(total_cost) FROM observations WHERE model = 'a new model'",
    "SELECT count(*) FROM observations WHERE model = 'gpt-5' AND start_time BETWEEN '2026-03-28T05:00:00Z' AND '2026-03-29T07:00:00Z'",
    "SELECT count(*), sum(total_cost) FROM observations WHERE start_time >= '2026-03-28T20:00:00Z' AND start_time < '2026-03-29T04:00:00Z'",
    "SELECT count(*) FROM observations WHERE day = '2026-03-29'",
    "SELECT id FROM observations WHERE total_cost > 0.01 ORDER BY id",
    "SELECT DISTINCT user_id FROM observations ORDER BY 1",
    "SELECT flow, count(*) AS n FROM observations WHERE array_has(tags, 'late') GROUP BY flow ORDER BY flow",
    "SELECT id, array_to_string(tags, ','), flow, is_root, environment FROM observations ORDER BY id",
    "SELECT * FROM observations ORDER BY id",
    "SELECT user_id, max(start_time) AS last FROM observations GROUP BY user_id ORDER BY last DESC, user_id LIMIT 5",
    "SELECT approx_distinct(id) = approx_distinct(trace_id || id) FROM observations",
    "SELECT o.user_id, count(*) AS n, sum(s.value) AS v FROM observations o JOIN scores s ON s.observation_id = o.id
     GROUP BY o.user_id ORDER BY 1",
    "SELECT o.id, i.output FROM observations o JOIN observation_io i ON i.trace_id = o.trace_id AND i.id = o.id
     WHERE o.user_id = 'zz late 0' OR o.model = 'a new model' ORDER BY o.id",
    "SELECT a.user_id, count(*) AS n FROM observations a JOIN observations b ON a.user_id = b.user_id AND a.id < b.id
     GROUP BY a.user_id ORDER BY 1",
    "SELECT count(*) FROM observations WHERE user_id NOT IN (SELECT user_id FROM observations WHERE user_id LIKE 'zz%')",
    "SELECT id FROM observations o WHERE EXISTS (SELECT 1 FROM scores s WHERE s.observation_id = o.id AND s.value < 0) ORDER BY id",
    "SELECT count(*), sum(value), min(value) FROM scores",
    "SELECT id, value FROM scores ORDER BY value, id LIMIT 40",
    "SELECT count(*), count(DISTINCT output) FROM observation_io",
    "SELECT id, output FROM observation_io WHERE trace_id > 'trace-3' ORDER BY trace_id, start_time, id LIMIT 50",
    "SELECT id, rank() OVER (PARTITION BY user_id ORDER BY start_time, id) AS place FROM observations ORDER BY id",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_that_of_a_table_written_clean() {
    for (seed, replaced, traces, false_alarms) in
        [(1, 0.02, 0, 0.0), (2, 0.0, 9, 0.3), (3, 0.05, 12, 0.2), (4, 0.5, 200, 1.0), (5, 1.0, 3, 0.0)]
    {
        let limits = QueryLimits { partitions: 1 + seed as usize % 3, ..Default::default() };
        let twins = Twins::new(seed, Share { replaced, traces, false_alarms }, limits).await;
        for sql in QUESTIONS {
            twins.agree_on(sql).await;
        }
        for (sql, count) in [("SELECT count(*) FROM observations", 1500), ("SELECT count(*) FROM scores", 500)] {
            assert!(twins.setting.text(CHANGED, sql).await.contains(&format!("| {count} ")), "{sql}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_those_of_a_table_written_clean() {
    let share = Share { replaced: 0.05, traces: 30, false_alarms: 0.2 };
    let twins = Twins::new(6, share, QueryLimits::default()).await;
    for (dimensions, view, users) in [
        (vec!["user_id", "model"], View::Observations, true),
        (vec!["models"], View::Traces, true),
        (vec![], View::Observations, true),
        // What roll-ups answer of the files that no change touches.
        (vec!["trace_name"], View::Traces, false),
        (vec!["trace_name", "model"], View::Observations, false),
        (vec!["environment"], View::Observations, false),
    ] {
        let request = wire::MetricsRequest {
            view: view as i32,
            measures: metrics::measures(users),
            dimensions: dimensions.iter().map(|name| name.to_string()).collect(),
            range: Some(wire::TimeRange { from_unix_micros: START_US, to_unix_micros: START_US + 72 * HOUR_US }),
            top_k: 5,
            ..Default::default()
        };
        let answer = async |tenant: &str| {
            let mut answer = twins.setting.metrics(tenant, request.clone()).await.unwrap();
            answer.snapshot.clear();
            answer.reading = None;
            answer
        };
        assert_eq!(answer(CHANGED).await, answer(CLEAN).await, "{dimensions:?}");
        let reading = twins.setting.metrics(CHANGED, request.clone()).await.unwrap().reading.unwrap();
        assert_eq!(!users, reading.files_rolled_up > 0 && reading.files_rolled_up < reading.files, "{reading:?}");
    }
}

#[tokio::test]
async fn only_touched_files_are_read_through_a_patch() {
    let setting = Setting::new(QueryLimits { partitions: 1, ..Default::default() }).await;
    let rows = observations(1, 300, 72);
    let mut paths = Vec::new();
    for (day, rows) in by_day(&rows) {
        let file = batch(Table::Observations, OBSERVATIONS, &rows);
        paths.push((setting.add_file("acme", Table::Observations, day, file).await, rows));
    }
    let all = "SELECT id, user_id, start_time FROM observations";
    let before = plan(&setting, "acme", all).await;
    assert!(!before.contains("PatchExec"), "{before}");
    assert!(plan(&setting, "acme", "SELECT count(*) FROM observations").await.contains("PlaceholderRowExec"));

    let (path, held) = &paths[1];
    let row = &held[0].observation;
    let mut replaced = RowKeys::default();
    insert(&mut replaced, &[&row.trace_id, &row.id]);
    let touched: Arc<HashSet<String>> = Arc::new([path.clone()].into());
    let only_replaced = Changes { replaced: Arc::new(replaced), touched: Arc::clone(&touched), ..Default::default() };
    setting.change("acme", Table::Observations, only_replaced.clone());
    let after = plan(&setting, "acme", all).await;
    let (clean, patched) = after.split_once("PatchExec: replaced_keys=1, traces_stamped=0").expect(&after);
    assert!(patched.contains(path) && patched.contains("trace_id") && !clean.contains(path), "{after}");
    assert!(paths.iter().filter(|(other, _)| other != path).all(|(other, _)| clean.contains(other)), "{after}");
    assert!(!clean.contains("projection=[id, user_id, start_time, trace_id]"), "other files are read as ever: {after}");
    for operator in ["SortExec", "AggregateExec", "Join", "Window"] {
        assert!(!after.contains(operator), "{after}");
    }
    let count = plan(&setting, "acme", "SELECT count(*) FROM observations").await;
    assert!(count.contains("PatchExec") && !count.contains("PlaceholderRowExec"), "{count}");
    assert!(setting.text("acme", "SELECT count(*) FROM observations").await.contains("| 299 "));

    // A question about other days has nothing to do with it.
    let elsewhere = plan(&setting, "acme", "SELECT id FROM observations WHERE day = '2026-03-28'").await;
    assert!(!elsewhere.contains("PatchExec"), "{elsewhere}");

    // Facts concern those who ask for what they change.
    let facts = TraceFacts { trace_id: row.trace_id.clone(), user_id: Some("late".into()), ..Default::default() };
    let facts = Arc::new(HashMap::from([(row.trace_id.clone(), Arc::new(facts))]));
    let only_facts = Changes { facts, touched, ..Default::default() };
    setting.change("acme", Table::Observations, only_facts);
    for sql in ["SELECT count(*) FROM observations", "SELECT model, sum(total_cost) FROM observations GROUP BY model"] {
        let unaware = plan(&setting, "acme", sql).await;
        assert!(!unaware.contains("PatchExec"), "{unaware}");
    }
    let stamped = plan(&setting, "acme", "SELECT user_id, count(*) FROM observations GROUP BY 1").await;
    assert!(stamped.contains("PatchExec: replaced_keys=0, traces_stamped=1"), "{stamped}");
}

#[tokio::test]
async fn what_is_asked_of_stamped_columns_does_not_reach_the_files() {
    let share = Share { replaced: 0.0, traces: 20, false_alarms: 1.0 };
    let twins = Twins::new(7, share, QueryLimits { partitions: 1, ..Default::default() }).await;
    let below = async |sql: &str| -> String {
        let plan = twins.plan(CHANGED, sql).await;
        plan.split_once("PatchExec").expect(&plan).1.to_owned()
    };
    let filtered = below(
        "SELECT id FROM observations WHERE user_id = 'zz late 0' AND start_time > '2026-03-28T02:00:00Z' AND model = 'llama'",
    )
    .await;
    assert!(filtered.contains("start_time_max@") && filtered.contains("model_min@"), "{filtered}");
    assert!(!filtered.contains("user_id_m") && !filtered.contains("user_id@"), "{filtered}");
    let ordered = below("SELECT user_id, id FROM observations ORDER BY user_id LIMIT 3").await;
    assert!(!ordered.contains("DynamicFilter") && !ordered.contains("limit="), "{ordered}");
    let newest = below("SELECT user_id, id FROM observations ORDER BY start_time DESC LIMIT 3").await;
    assert!(newest.contains("DynamicFilter") && !newest.contains("limit="), "{newest}");
    let sorted =
        twins.plan(CHANGED, "SELECT user_id, start_time, id FROM observations ORDER BY user_id, start_time, id").await;
    assert!(sorted.find("SortExec") < sorted.find("PatchExec"), "a sort by what is stamped comes after it: {sorted}");
    let some = below("SELECT user_id FROM observations LIMIT 3").await;
    assert!(!some.contains("limit=") && !some.contains("fetch="), "{some}");
}

#[tokio::test]
async fn an_order_is_claimed_only_where_it_is_kept() {
    let share = Share { replaced: 0.1, traces: 20, false_alarms: 1.0 };
    let twins = Twins::new(8, share, QueryLimits { partitions: 1, ..Default::default() }).await;
    let query = twins.setting.engine.begin(&all_of(CHANGED)).unwrap();
    let plan = query.plan_sql("SELECT start_time, user_id FROM observations").await.unwrap();
    let plan = query.physical(&plan).await.unwrap();
    let patch = find(&plan, "PatchExec").expect("a patch");
    let below = patch.children()[0].properties().output_ordering().map(ToString::to_string);
    let above = patch.properties().output_ordering().map(ToString::to_string);
    assert_eq!(below, above, "start_time is never stamped");
    assert_eq!(
        patch.properties().partitioning.partition_count(),
        patch.children()[0].properties().partitioning.partition_count()
    );
}

fn find(
    plan: &Arc<dyn datafusion::physical_plan::ExecutionPlan>,
    name: &str,
) -> Option<Arc<dyn datafusion::physical_plan::ExecutionPlan>> {
    if plan.name() == name {
        return Some(Arc::clone(plan));
    }
    plan.children().into_iter().find_map(|child| find(child, name))
}
