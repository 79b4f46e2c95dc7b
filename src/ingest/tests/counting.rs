//! Calls whose sender says no usage.

use super::late::order;
use super::*;
use crate::model::{Level, ObservationType, UsageSource};

const PROMPT: &str = r#"[{"role": "user", "content": "hello world"}]"#;

fn call(id: &str, order: Order, said: impl FnOnce(&mut Observation)) -> Event {
    let mut call = Observation { trace_id: "t".into(), id: id.into(), ..Default::default() };
    call.set_observation_type(ObservationType::Generation);
    said(&mut call);
    Event { order, kind: Some(EventKind::Observation(call)) }
}

fn begins(id: &str) -> Event {
    call(id, order(1, false, "begins"), |said| {
        said.parent_id = Some("agent".into());
        said.start_ns = Some(START_US * 1000);
        said.model = Some("gpt-4o".into());
        said.input = Some(PROMPT.into());
    })
}

fn ends(id: &str) -> Event {
    call(id, order(2, true, "ends"), |said| {
        said.end_ns = Some(START_US * 1000 + 9_000_000);
        said.output = Some("hello world".into());
    })
}

/// Input, output and total tokens, their source and that of the cost, of the row of this id.
fn row(process: &Process, id: &str) -> (Option<i64>, Option<i64>, Option<i64>, String, String) {
    let mut found = Vec::new();
    for batch in process.rows("acme", Table::Observations) {
        let text = |name: &str| batch.column_by_name(name).unwrap().as_string_view().clone();
        let number = |name: &str, row: usize| {
            let numbers: &arrow::array::Int64Array = batch.column_by_name(name).unwrap().as_primitive();
            numbers.iter().nth(row).flatten()
        };
        for at in (0..batch.num_rows()).filter(|at| text("id").value(*at) == id) {
            found.push((
                number("input_tokens", at),
                number("output_tokens", at),
                number("total_tokens", at),
                text("usage_source").value(at).to_owned(),
                text("cost_source").value(at).to_owned(),
            ));
        }
    }
    assert_eq!(found.len(), 1, "{id} stands once");
    found.remove(0)
}

fn counted(output: Option<i64>) -> (Option<i64>, Option<i64>, Option<i64>, String, String) {
    (Some(9), output, Some(9 + output.unwrap_or(0)), "counted".into(), "computed".into())
}

fn late_objects(process: &Process) -> usize {
    let tenant = "acme".parse().unwrap();
    process.run(process.catalog.known_snapshot(&tenant, Table::Observations)).unwrap().late.len()
}

#[test]
fn a_call_without_usage_is_counted_from_its_texts_fresh_flushed_and_replayed() {
    let world = World::new();
    let process = Process::start(&world, "main");
    process.append("acme", vec![begins("c")]).unwrap();
    assert_eq!(row(&process, "c"), counted(None), "it goes on");
    process.append("acme", vec![ends("c")]).unwrap();
    assert_eq!(row(&process, "c"), counted(Some(2)));
    drop(process);
    let process = Process::start(&world, "main");
    assert_eq!(row(&process, "c"), counted(Some(2)), "replayed");
    process.flush().unwrap();
    assert_eq!(row(&process, "c"), counted(Some(2)), "flushed");
    process.append("acme", vec![begins("c"), ends("c")]).unwrap();
    assert_eq!(row(&process, "c"), counted(Some(2)), "sent again");
    process.flush().unwrap();
    assert_eq!((row(&process, "c"), late_objects(&process)), (counted(Some(2)), 0), "which changes nothing");
}

#[test]
fn what_is_said_after_the_flush_is_counted_with_what_stands_and_usage_replaces_the_count() {
    let world = World::new();
    let process = Process::start(&world, "main");
    process.append("acme", vec![begins("c")]).unwrap();
    process.flush().unwrap();
    assert_eq!(row(&process, "c"), counted(None));
    process.append("acme", vec![ends("c")]).unwrap();
    assert_eq!(row(&process, "c"), counted(Some(2)), "fresh");
    process.flush().unwrap();
    assert_eq!((row(&process, "c"), late_objects(&process)), (counted(Some(2)), 1), "late");
    let renamed = call("c", order(3, true, "named"), |said| said.name = Some("greeting".into()));
    process.append("acme", vec![renamed]).unwrap();
    process.flush().unwrap();
    assert_eq!(row(&process, "c"), counted(Some(2)), "whatever else is said of it");
    let usage = call("c", order(4, true, "usage"), |said| {
        said.usage = [("input".to_owned(), 100), ("output".to_owned(), 20), ("total".to_owned(), 120)].into();
        (said.input_tokens, said.output_tokens, said.total_tokens) = (Some(100), Some(20), Some(120));
        said.set_usage_source(UsageSource::Provided);
    });
    process.append("acme", vec![usage]).unwrap();
    let provided = (Some(100), Some(20), Some(120), "provided".to_owned(), "computed".to_owned());
    assert_eq!(row(&process, "c"), provided);
    process.flush().unwrap();
    assert_eq!(row(&process, "c"), provided);
}

#[test]
fn what_is_sent_again_or_comes_too_late_to_count_changes_nothing() {
    let reworded = || {
        call("c", order(2, true, "ends"), |said| {
            said.end_ns = Some(START_US * 1000 + 9_000_000);
            said.input = Some(r#"[{"role": "user", "content": "hello"}]"#.into());
            said.output = Some("hello world".into());
        })
    };
    let wanted = (Some(8), Some(2), Some(10), "counted".to_owned(), "computed".to_owned());
    for events in [[begins("c"), reworded()], [reworded(), begins("c")]] {
        for flush_between in [false, true] {
            let world = World::new();
            let process = Process::start(&world, "main");
            for event in events.clone() {
                process.append("acme", vec![event]).unwrap();
                if flush_between {
                    process.flush().unwrap();
                }
            }
            assert_eq!(row(&process, "c"), wanted, "{flush_between}");
            process.flush().unwrap();
            let late = late_objects(&process);
            for event in events.clone() {
                process.append("acme", vec![event]).unwrap();
                assert_eq!(row(&process, "c"), wanted, "{flush_between}, sent again");
                process.flush().unwrap();
            }
            assert_eq!((row(&process, "c"), late_objects(&process)), (wanted.clone(), late), "{flush_between}");
        }
    }
}

#[test]
fn texts_that_stand_are_counted_with_what_makes_them_a_call() {
    // Only at the end is it said which model it was; then it was another, then it failed, then it did not.
    let said = |at: i64, change: fn(&mut Observation)| {
        call("c", order(at, true, &at.to_string()), move |said| {
            said.end_ns = Some(START_US * 1000 + 9_000_000);
            change(said);
        })
    };
    let birthday = "お誕生日おめでとう";
    let process = Process::start(&World::new(), "main");
    let begins = call("c", order(1, false, "begins"), |said| {
        said.start_ns = Some(START_US * 1000);
        said.input = Some(birthday.into());
    });
    let steps: [(Event, Option<i64>); 5] = [
        (begins, None),
        (said(2, |said| (said.model, said.output) = (Some("gpt-4".into()), Some("hello world".into()))), Some(9)),
        (said(3, |said| said.model = Some("gpt-4o".into())), Some(8)),
        (said(4, |said| said.set_level(Level::Error)), None),
        (said(5, |said| said.set_level(Level::Default)), Some(8)),
    ];
    for (at, (event, input)) in steps.into_iter().enumerate() {
        process.append("acme", vec![event]).unwrap();
        assert_eq!(row(&process, "c").0, input, "step {at}");
        process.flush().unwrap();
        assert_eq!(row(&process, "c").0, input, "step {at}, flushed");
    }
}

/// An agent that says what its calls took together.
fn agent() -> Event {
    call("agent", order(5, false, "agent"), |said| {
        said.set_observation_type(ObservationType::Agent);
        said.start_ns = Some(START_US * 1000);
        said.end_ns = Some(START_US * 1000 + 10_000_000);
        said.usage = [("total".to_owned(), 50)].into();
        said.total_tokens = Some(50);
        said.set_usage_source(UsageSource::Provided);
    })
}

#[test]
fn a_call_that_is_to_be_counted_after_all_is_held_against_reports_that_stand() {
    let level = |at: i64, level: Level| call("c", order(at, true, &at.to_string()), |said| said.set_level(level));
    for agent_first in [true, false] {
        let process = Process::start(&World::new(), "main");
        process.append("acme", vec![begins("c"), ends("c")]).unwrap();
        process.flush().unwrap();
        let (agent, failed) = (agent(), level(6, Level::Error));
        for event in if agent_first { [agent, failed] } else { [failed, agent] } {
            process.append("acme", vec![event]).unwrap();
            process.flush().unwrap();
        }
        process.append("acme", vec![level(7, Level::Default)]).unwrap();
        for when in ["fresh", "flushed"] {
            let row = row(&process, "c");
            assert_eq!((row.2, row.3.as_str()), (None, "repeated"), "{agent_first}, {when}");
            process.flush().unwrap();
        }
    }
}

#[test]
fn a_count_gives_way_to_a_report_around_it_whenever_that_comes() {
    let gone = (None, None, None, "repeated".to_owned(), "none".to_owned());
    for flush_between in [false, true] {
        let world = World::new();
        let process = Process::start(&world, "main");
        process.append("acme", vec![begins("c"), ends("c")]).unwrap();
        if flush_between {
            process.flush().unwrap();
        }
        process.append("acme", vec![agent()]).unwrap();
        assert_eq!(row(&process, "c"), gone, "{flush_between}");
        assert_eq!(row(&process, "agent").2, Some(50));
        process.flush().unwrap();
        assert_eq!(row(&process, "c"), gone, "{flush_between}, flushed");
        process.append("acme", vec![ends("c")]).unwrap();
        process.flush().unwrap();
        assert_eq!(row(&process, "c"), gone, "{flush_between}, and sent again");
    }
    // And the call that comes after its agent.
    let world = World::new();
    let process = Process::start(&world, "main");
    process.append("acme", vec![agent()]).unwrap();
    process.flush().unwrap();
    process.append("acme", vec![begins("c"), ends("c")]).unwrap();
    assert_eq!(row(&process, "c"), gone);
}

#[test]
fn what_no_text_tells_is_not_counted() {
    let none = (None, None, None, "none".to_owned(), "none".to_owned());
    let change: [fn(&mut Observation); 7] = [
        |said| said.model = Some("gpt-5".into()),
        |said| said.model = Some("claude-sonnet-4-5".into()),
        |said| said.input = None,
        |said| said.output = None,
        |said| said.set_level(Level::Error),
        |said| said.tools_offered = vec!["search".into()],
        |said| said.input = Some(r#"[{"role": "user", "content": [{"type": "image_url"}]}]"#.into()),
    ];
    let world = World::new();
    let process = Process::start(&world, "main");
    for (at, change) in change.into_iter().enumerate() {
        let whole = call(&at.to_string(), order(1, false, "whole"), |said| {
            said.start_ns = Some(START_US * 1000);
            said.end_ns = Some(START_US * 1000 + 9_000_000);
            said.model = Some("gpt-4o".into());
            said.input = Some(PROMPT.into());
            said.output = Some("hello world".into());
            change(said);
        });
        process.append("acme", vec![whole]).unwrap();
        let row = row(&process, &at.to_string());
        assert_eq!((row.0, row.1, row.2, row.3), (none.0, none.1, none.2, none.3.clone()), "{at}");
    }
    let embedding = call("embedding", order(1, false, "embedding"), |said| {
        said.set_observation_type(ObservationType::Embedding);
        said.end_ns = Some(START_US * 1000);
        said.model = Some("text-embedding-3-small".into());
        said.input = Some("hello world".into());
        said.output = Some("[0.1, 0.2]".into());
    });
    process.append("acme", vec![embedding]).unwrap();
    assert_eq!(row(&process, "embedding"), (Some(2), None, Some(2), "counted".into(), "computed".into()));
}
