use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use proptest::prelude::*;

use super::*;
use crate::base::Money;
use crate::model::tests::random::Random;
use crate::model::{
    CostSource, Counted, CountedTokens, DimensionKeys, Merge, Merged, Observation, Order, ReadError, Score, TraceFacts,
    UsageSource, trace_bits,
};

fn merge<T: Merge>(events: &[(Order, T)]) -> Merged<T> {
    T::merge(&events.iter().map(|(order, event)| (order, event)).collect::<Vec<_>>())
}

const INGESTED_US: i64 = 1_700_000_000_000_000;

fn hot(random: &mut Random) -> Observation {
    let none = Observation::default();
    Observation {
        input: None,
        output: None,
        exception_stacktrace: None,
        attributes: none.attributes,
        ..random.observation()
    }
}

fn cold(random: &mut Random) -> Observation {
    let Observation { trace_id, id, input, output, exception_stacktrace, attributes, .. } = random.observation();
    Observation { trace_id, id, input, output, exception_stacktrace, attributes, ..Default::default() }
}

fn trace_text(random: &mut Random) -> TraceFacts {
    let TraceFacts { trace_id, input, output, attributes, .. } = random.facts();
    TraceFacts { trace_id, input, output, attributes, ..Default::default() }
}

fn facts_only(random: &mut Random) -> TraceFacts {
    TraceFacts { input: None, output: None, attributes: Default::default(), ..random.facts() }
}

fn own_time_us<T: Merge>(row: &T) -> i64 {
    row.order_of_one().event_time_us
}

fn cost(random: &mut Random, observation: &Observation) -> RowCost {
    let provided = &observation.provided_cost;
    if !provided.is_empty() {
        let by_kind = provided.iter().map(|(kind, pico)| (kind.clone(), Money::from_pico(*pico))).collect();
        return RowCost { by_kind, source: Some(CostSource::Provided), ..Default::default() };
    }
    match observation.usage_source == Some(UsageSource::Repeated as i32) || random.chance(50) {
        true => RowCost::default(),
        false => RowCost {
            by_kind: [("input".to_owned(), Money::from_pico(3))].into(),
            input: Some(Money::from_pico(3)),
            total: Some(Money::from_pico(3)),
            output: None,
            source: Some(CostSource::Computed),
            model_id: Some("m".into()),
            price_id: Some("book/m/2026/standard".into()),
        },
    }
}

/// Of some rows that say no usage, it is counted.
fn count_silent(random: &mut Random, row: &mut Observation) {
    let is_silent = row.usage.is_empty() && row.provided_cost.is_empty() && row.usage_source.is_none();
    if is_silent && row.tokens().iter().all(Option::is_none) && random.chance(70) {
        let tokens = CountedTokens { input: 7, output: random.chance(50).then_some(5) };
        row.count(if random.chance(30) { Counted::GaveWay } else { Counted::Tokens(tokens) });
    }
}

fn observation_row(random: &mut Random) -> ObservationRow {
    let mut merged = merge(&random.events(hot, own_time_us));
    count_silent(random, &mut merged.row);
    let orphan = random
        .chance(50)
        .then(|| Orphan { name: random.chance(70).then(|| "stray".into()), is_root: random.chance(50) });
    ObservationRow {
        facts: random.chance(60).then(|| random.facts().into()),
        orphan,
        keys: Arc::default(),
        cost: cost(random, &merged.row),
        ingested_at_us: INGESTED_US,
        provenance: merged.provenance,
        observation: merged.row.into(),
    }
}

fn observations(rows: &[ObservationRow]) -> RecordBatch {
    batch(Table::Observations, OBSERVATIONS, rows)
}

fn assert_same(again: &RecordBatch, before: &RecordBatch) {
    for (at, field) in before.schema().fields().iter().enumerate() {
        assert_eq!(again.column(at), before.column(at), "{}", field.name());
    }
}

/// With the column `day`, as tables are read; or not, as files are.
fn with_day(random: &mut Random, table: Table, batch: &RecordBatch) -> RecordBatch {
    if random.chance(50) {
        return batch.clone();
    }
    let day = arrow::array::Date32Array::from_value(20_000, batch.num_rows());
    let arrays = batch.columns().iter().cloned().chain([Arc::new(day) as ArrayRef]).collect();
    RecordBatch::try_new(table.table_schema(), arrays).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Read back, merged again and built again, a row is the row it was: every column, provenance included.
    #[test]
    fn an_observation_read_back_builds_the_same_row(seed: u64) {
        let mut random = Random::new(seed);
        let rows: Vec<ObservationRow> = (0..4).map(|_| observation_row(&mut random)).collect();
        let before = observations(&rows);
        let standing = with_day(&mut random, Table::Observations, &before);
        let read: Vec<ReadObservation> = (0..rows.len()).map(|row| read_observation(&standing, row).unwrap()).collect();
        let again = |read: &ReadObservation, facts, orphan| {
            let mut merged = merge(&read.events);
            if let Some(counted) = read.counted {
                merged.row.count(counted);
            }
            ObservationRow {
                facts,
                orphan,
                keys: Arc::default(),
                cost: read.cost.clone(),
                ingested_at_us: read.ingested_at_us,
                provenance: merged.provenance,
                observation: merged.row.into(),
            }
        };
        let with_facts = read.iter().zip(&rows).map(|(read, row)| again(read, row.facts.clone(), row.orphan.clone()));
        assert_same(&observations(&with_facts.collect::<Vec<_>>()), &before);

        // And without the facts: what stands on the row is enough, but for who else is the root.
        let alone: Vec<_> = read.iter().map(|read| {
            let facts = read.stamped.facts(&DimensionKeys::default());
            again(read, Some(facts.into()), read.stamped.orphan.clone())
        }).collect();
        let (alone, own) = (observations(&alone), before.schema().index_of("_own").unwrap());
        let but_own: Vec<usize> = (0..before.num_columns()).filter(|at| *at != own).collect();
        assert_same(&alone.project(&but_own).unwrap(), &before.project(&but_own).unwrap());
    }

    #[test]
    fn a_text_read_back_builds_the_same_row(seed: u64) {
        let mut random = Random::new(seed);
        let (of_observation, of_trace) =
            (merge(&random.events(cold, own_time_us)), merge(&random.events(trace_text, own_time_us)));
        let row = |observation: Merged<Observation>, facts: Merged<TraceFacts>| [
            IoRow::Observation { observation: observation.row.into(), start_us: 7, provenance: observation.provenance },
            IoRow::Trace { facts: facts.row.into(), start_us: 8, provenance: facts.provenance },
        ];
        let before = batch(Table::ObservationIo, OBSERVATION_IO, &row(of_observation, of_trace));
        let (first, second) = (read_io(&before, 0).unwrap(), read_io(&before, 1).unwrap());
        prop_assert_eq!((first.start_us, second.start_us), (7, 8));
        let (IoEvents::Observation(observation), IoEvents::Trace(facts)) = (first.said, second.said) else {
            panic!("an empty id is a trace's")
        };
        let again = batch(Table::ObservationIo, OBSERVATION_IO, &row(merge(&observation), merge(&facts)));
        assert_same(&again, &before);
    }

    #[test]
    fn facts_read_back_build_the_same_row(seed: u64) {
        let mut random = Random::new(seed);
        let row = |merged: Merged<TraceFacts>| {
            [TraceRow { facts: merged.row.into(), ingested_at_us: INGESTED_US, provenance: merged.provenance }]
        };
        let events = random.events(facts_only, own_time_us);
        let (late, written): (Vec<_>, Vec<_>) = events.iter().cloned().partition(|_| random.chance(30));
        if written.is_empty() {
            return Ok(());
        }
        let before = batch(Table::TraceFacts, TRACE_FACTS, &row(merge(&written)));
        let read = read_trace_facts(&before, 0).unwrap();
        prop_assert_eq!(read.ingested_at_us, INGESTED_US);
        assert_same(&batch(Table::TraceFacts, TRACE_FACTS, &row(merge(&read.events))), &before);
        // And late facts merge with it as if they had been in time.
        let mut all = [read.events, late].concat();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        let map_free = |merged: Merged<TraceFacts>| TraceFacts { metadata: Default::default(), ..merged.row };
        prop_assert_eq!(map_free(merge(&all)), map_free(merge(&events)));
    }

    #[test]
    fn a_score_read_back_builds_the_same_row(seed: u64) {
        let mut random = Random::new(seed);
        let row = |merged: Merged<Score>| {
            [ScoreRow { score: merged.row.into(), ingested_at_us: INGESTED_US, provenance: merged.provenance }]
        };
        let events = random.events(Random::score, own_time_us);
        let before = batch(Table::Scores, SCORES, &row(merge(&events)));
        let read = read_score(&before, 0).unwrap();
        assert_same(&batch(Table::Scores, SCORES, &row(merge(&read.events))), &before);
        prop_assert_eq!(merge(&read.events).row, merge(&events).row);
    }

    /// Rows built with what was known, then stamped with more, are the rows built with more.
    #[test]
    fn stamping_is_building_with_the_facts(seed: u64) {
        let mut random = Random::new(seed);
        let mut traces: HashMap<String, Arc<TraceFacts>> = HashMap::new();
        let (mut old, mut new) = (Vec::new(), Vec::new());
        for trace in 0..3 {
            let trace_id = format!("t{trace}");
            let facts_of = |some: &[(Order, TraceFacts)]| (!some.is_empty()).then(|| Arc::new(merge(some).row));
            let events = random.events(Random::facts, own_time_us);
            let known: Vec<_> = events[..random.below(events.len() + 1)].to_vec();
            let (before, after) = (facts_of(&known), facts_of(&events));
            let is_stamped = random.chance(70);
            for _ in 0..random.below(4) {
                let mut row = observation_row(&mut random);
                Arc::make_mut(&mut row.observation).trace_id.clone_from(&trace_id);
                row.facts.clone_from(&before);
                let names = trace_bits::name | trace_bits::root_name;
                if after.as_ref().is_some_and(|facts| facts.cleared & names != 0) {
                    // A name that stood below the one that was cleared is not known.
                    row.orphan = None;
                    Arc::make_mut(&mut row.observation).trace_name = None;
                }
                old.push(row.clone());
                row.facts = if is_stamped { after.clone() } else { before.clone() };
                new.push(row);
            }
            if is_stamped {
                traces.insert(trace_id, after.unwrap());
            }
        }
        let (old, new) = (observations(&old), observations(&new));
        let keys = DimensionKeys::default();
        let stamped = stamp(&old, &traces, &keys).unwrap();
        assert_same(&stamped, &new);
        // A second time changes nothing.
        assert_same(&stamp(&stamped, &traces, &keys).unwrap(), &new);
        // So does any projection, in whatever order.
        let needed = ["trace_id", "id", "_own"];
        let mut some: Vec<usize> = (0..old.num_columns())
            .filter(|at| needed.contains(&old.schema().field(*at).name().as_str()) || random.chance(30))
            .collect();
        random.shuffle(&mut some);
        let projected = stamp(&old.project(&some).unwrap(), &traces, &keys).unwrap();
        assert_same(&projected, &new.project(&some).unwrap());
    }
}

fn one_row(observation: Observation, facts: Option<TraceFacts>) -> RecordBatch {
    observations(&[ObservationRow {
        observation: observation.into(),
        facts: facts.map(Arc::new),
        orphan: None,
        keys: Arc::default(),
        cost: RowCost::default(),
        ingested_at_us: INGESTED_US,
        provenance: None,
    }])
}

fn without(batch: &RecordBatch, names: &[&str]) -> RecordBatch {
    let kept = (0..batch.num_columns()).filter(|at| !names.contains(&batch.schema().field(*at).name().as_str()));
    batch.project(&kept.collect::<Vec<_>>()).unwrap()
}

fn says(user: &str) -> Observation {
    Observation { trace_id: "t".into(), id: "o".into(), user_id: Some(user.into()), ..Default::default() }
}

#[test]
fn times_come_back_to_the_nanosecond_however_long_it_took() {
    let start_ns = 1_700_000_000_123_456_789;
    let day_ns = 86_400_000_000_000i64;
    for after_ns in
        [0, 1, 999, 1_000_000_007, 3_600_000_000_001, day_ns + 1, 30 * day_ns + 7, 49 * day_ns + 999_999_999]
    {
        let end_ns = Some(start_ns + after_ns);
        let span = Observation { start_ns: Some(start_ns), end_ns, completion_start_ns: end_ns, ..says("u") };
        let read = read_observation(&one_row(span.clone(), None), 0).unwrap();
        assert_eq!(read.events, [(span.order_of_one(), span)], "{after_ns} ns");
    }
}

#[test]
fn what_nobody_said_is_not_read_as_said() {
    let facts = TraceFacts { user_id: Some("u".into()), tags: vec!["x".into()], ..Default::default() };
    let silent = Observation { trace_id: "t".into(), id: "o".into(), ..Default::default() };
    let read = read_observation(&one_row(silent.clone(), Some(facts)), 0).unwrap();
    assert_eq!(read.events, [(Order::default(), silent)]);
    let stamped = read.stamped.facts(&DimensionKeys::default());
    assert_eq!((stamped.user_id.as_deref(), &stamped.tags[..]), (Some("u"), &["x".to_owned()][..]));
}

#[test]
fn of_an_older_file_everything_is_the_rows_own() {
    let old = without(&one_row(says("u"), None), &["_own", "service_tier"]);
    let read = read_observation(&old, 0).unwrap();
    assert_eq!(read.events[0].1, says("u"));
    let facts = TraceFacts { root_name: Some("r".into()), ..Default::default() };
    let row = [TraceRow { facts: facts.clone().into(), ingested_at_us: INGESTED_US, provenance: None }];
    let old = without(&batch(Table::TraceFacts, TRACE_FACTS, &row), &["root_name"]);
    assert_eq!(read_trace_facts(&old, 0).unwrap().events[0].1.name.as_deref(), Some("r"));
}

#[test]
fn what_cannot_be_read_says_why() {
    let good = one_row(says("u"), None);
    let why = |batch: &RecordBatch, row| read_observation(batch, row).unwrap_err().to_string();
    assert_eq!(why(&good, 1), "row 1 was asked for of a batch with 1");
    assert_eq!(why(&without(&good, &["id"]), 0), "the column id is missing");
    let replaced = |name: &str, kind: &DataType| {
        let nulls = arrow::array::new_null_array(kind, 1);
        let at = good.schema().index_of(name).unwrap();
        let schema = good.schema();
        let fields: Vec<Field> = (schema.fields().iter().enumerate())
            .map(|(found, field)| {
                Field::new(field.name(), if found == at { kind } else { field.data_type() }.clone(), true)
            })
            .collect();
        let mut columns = good.columns().to_vec();
        columns[at] = nulls;
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    };
    assert_eq!(why(&replaced("trace_id", &DataType::Utf8View), 0), "row 0 has no trace_id");
    let list = DataType::new_list(DataType::Int64, true);
    assert_eq!(
        why(&replaced("start_ns", &list), 0),
        format!("the column start_ns holds {list}, which cannot be read as Int64")
    );
    let facts = HashMap::from([("t".to_owned(), Arc::new(TraceFacts::default()))]);
    let blind = stamp(&without(&good, &["_own"]), &facts, &DimensionKeys::default());
    assert!(matches!(blind, Err(ReadError::MissingColumn("_own"))));
}

#[test]
fn other_encodings_of_text_are_stamped_in_their_own() {
    let good = without(
        &one_row(Observation { user_id: None, ..says("") }, None),
        &["usage", "cost", "metadata", "model_parameters"],
    );
    let (fields, columns): (Vec<Field>, Vec<ArrayRef>) = good
        .schema()
        .fields()
        .iter()
        .zip(good.columns())
        .map(|(field, column)| {
            let plain = if column.data_type() == &DataType::Utf8View { &DataType::Utf8 } else { column.data_type() };
            (Field::new(field.name(), plain.clone(), true), cast(column, plain).unwrap())
        })
        .unzip();
    let plain = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    let facts = TraceFacts { user_id: Some("late".into()), ..Default::default() };
    let facts = HashMap::from([("t".to_owned(), Arc::new(facts))]);
    let stamped = stamp(&plain, &facts, &DimensionKeys::default()).unwrap();
    assert_eq!(stamped.schema(), plain.schema());
    let users = stamped.column_by_name("user_id").unwrap();
    assert_eq!(users.as_any().downcast_ref::<arrow::array::StringArray>().unwrap().value(0), "late");
}

#[test]
fn a_batch_without_rows_of_these_traces_stays_as_it_is() {
    let batch = one_row(says("u"), None);
    let facts = HashMap::from([("other".to_owned(), Arc::new(TraceFacts::default()))]);
    let stamped = stamp(&batch, &facts, &DimensionKeys::default()).unwrap();
    assert!(stamped.columns().iter().zip(batch.columns()).all(|(stamped, column)| Arc::ptr_eq(stamped, column)));
}
