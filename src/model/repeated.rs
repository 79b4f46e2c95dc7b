//! Usage that is reported more than once: which observations of a trace repeat what others of it say.
//!
//! Two instrumentations around one call each report it, under one response id; and spans around several calls (an
//! agent's, a chain's) report the sum of theirs. Such an observation stays, and its usage and what its sender says it
//! costs stay readable by kind, but its columns count nothing.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Observation, ObservationType, UsageSource};

impl Observation {
    /// It says what was used or what it cost, and that it is its own.
    pub fn reports(&self) -> bool {
        let is_own = !self.repeats() && !self.is_counted();
        is_own && !(self.usage.is_empty() && self.provided_cost.is_empty())
    }

    /// What it says is another's.
    fn repeats(&self) -> bool {
        self.usage_source == Some(UsageSource::Repeated as i32)
    }

    /// It may stand around the calls of others, and say their sum.
    pub fn may_sum_up(&self) -> bool {
        matches!(self.observation_type(), ObservationType::Agent | ObservationType::Chain) && self.reports()
    }

    /// Nothing but what decides whether it repeats others: all rows of a trace are held at once.
    pub fn as_report(self) -> Self {
        Self {
            trace_id: self.trace_id,
            id: self.id,
            parent_id: self.parent_id,
            observation_type: self.observation_type,
            response_id: self.response_id,
            start_ns: self.start_ns,
            model: self.model,
            usage: self.usage,
            usage_source: self.usage_source,
            total_tokens: self.total_tokens,
            provided_cost: self.provided_cost,
            ..Self::default()
        }
    }

    /// From now on its usage is another's.
    pub fn repeat(&mut self) {
        self.set_usage_source(UsageSource::Repeated);
        self.input_tokens = None;
        self.cached_input_tokens = None;
        self.cache_write_tokens = None;
        self.output_tokens = None;
        self.reasoning_tokens = None;
        self.total_tokens = None;
    }

    /// All its tokens, and what it is said to cost.
    fn size(&self) -> (i64, i64) {
        let cost = &self.provided_cost;
        (
            self.total_tokens.unwrap_or(0),
            cost.get("total").copied().unwrap_or_else(|| cost.values().fold(0, |sum, cost| sum.saturating_add(*cost))),
        )
    }
}

/// An observation of a trace, as far as it matters here.
#[derive(Debug, Clone)]
pub struct Report<'a> {
    pub said: &'a Observation,
    /// Its row is in a file, or came late.
    pub stands: bool,
}

/// For each observation of `trace`, in its order, whether it repeats others. Pure: the order does not matter.
///
/// * Of those with one response id, one counts: one whose row stands, so that it need not be written again; else the one
///   that says a cost, else the one that says more kinds of usage; else the first to start.
/// * An agent or a chain repeats what is below it, at any depth, if it says at least as much as they do together. It
///   counts where nothing below it reports anything, or where they report more than it does.
/// * What is counted from texts gives way to every report of the same call: one under its response id, one around it or
///   one below it. Of those counted around each other, the innermost counts; of those under one response id, one.
pub fn repeated(trace: &[Report<'_>]) -> Vec<bool> {
    let mut repeats = vec![false; trace.len()];
    let mut by_response: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, report) in trace.iter().enumerate().filter(|(_, report)| report.said.reports()) {
        if let Some(response) = report.said.response_id.as_deref() {
            by_response.entry(response).or_default().push(at);
        }
    }
    for same in by_response.values().filter(|same| same.len() > 1) {
        let counts = *same.iter().min_by_key(|at| preference(&trace[**at])).expect("more than one");
        same.iter().filter(|at| **at != counts).for_each(|at| repeats[*at] = true);
    }
    sum_up(trace, &mut repeats);
    give_way(trace, &mut repeats);
    repeats
}

fn give_way(trace: &[Report<'_>], repeats: &mut [bool]) {
    if !trace.iter().any(|report| report.said.is_counted()) {
        return;
    }
    let said: Vec<&Observation> = trace.iter().map(|report| report.said).collect();
    let is_embedding = |at: usize| said[at].observation_type() == ObservationType::Embedding;
    let counts: Vec<bool> = said.iter().zip(&*repeats).map(|(said, repeats)| said.reports() && !repeats).collect();
    let reported: HashSet<&str> =
        said.iter().filter(|said| said.reports()).filter_map(|said| said.response_id.as_deref()).collect();
    let above = above(&said);
    // To embed a text is no part of a call of a model to answer. A report that repeats another is one all the same.
    let is_call = |at: usize| {
        let tells = said[at].reports() || said[at].is_counted() || said[at].repeats();
        tells && !is_embedding(at)
    };
    let has_below = has_below(&above, (0..said.len()).filter(|at| is_call(*at)));
    let below_sums = is_below(&above, |at| counts[at] && said[at].may_sum_up());
    let below_calls = is_below(&above, |at| said[at].reports() && !said[at].may_sum_up() && !is_embedding(at));
    let mut by_response: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for at in (0..said.len()).filter(|at| said[*at].is_counted()) {
        let response = said[at].response_id.as_deref();
        let is_around = !is_embedding(at) && (has_below[at] || below_calls[at]);
        repeats[at] = response.is_some_and(|response| reported.contains(response)) || below_sums[at] || is_around;
        if let Some(response) = response.filter(|_| !repeats[at]) {
            by_response.entry(response).or_default().push(at);
        }
    }
    for same in by_response.values() {
        let first = |at: &&usize| (!trace[**at].stands, said[**at].start_ns.unwrap_or(i64::MAX), &said[**at].id);
        let counts = *same.iter().min_by_key(first).expect("one at least");
        same.iter().filter(|at| **at != counts).for_each(|at| repeats[*at] = true);
    }
}

/// Which have one of `marked` below them, at any depth.
fn has_below(above: &[Option<usize>], marked: impl Iterator<Item = usize>) -> Vec<bool> {
    let mut has_below = vec![false; above.len()];
    for at in marked {
        let mut next = above[at];
        // Parents in a loop end where they began.
        while let Some(parent) = next.filter(|parent| !has_below[*parent] && *parent != at) {
            has_below[parent] = true;
            next = above[parent];
        }
    }
    has_below
}

/// Which have one of `marked` around them, at any distance. Each step of the way up is taken once.
fn is_below(above: &[Option<usize>], marked: impl Fn(usize) -> bool) -> Vec<bool> {
    let mut known: Vec<Option<bool>> = vec![None; above.len()];
    for at in 0..above.len() {
        let (mut way, mut next, mut found) = (Vec::new(), Some(at), false);
        while let Some(here) = next {
            if let Some(known) = known[here] {
                found = known;
                break;
            }
            known[here] = Some(false);
            way.push(here);
            next = above[here];
            if next.is_some_and(&marked) {
                found = true;
                break;
            }
        }
        way.into_iter().for_each(|here| known[here] = Some(found));
    }
    known.into_iter().map(|known| known == Some(true)).collect()
}

/// Where the parent of each is, if it is there.
fn above(trace: &[&Observation]) -> Vec<Option<usize>> {
    let places: HashMap<&str, usize> = trace.iter().enumerate().map(|(at, said)| (said.id.as_str(), at)).collect();
    trace.iter().map(|said| places.get(said.parent_id.as_deref()?).copied()).collect()
}

/// The least of these counts.
fn preference<'a>(report: &Report<'a>) -> (bool, bool, std::cmp::Reverse<usize>, bool, i64, &'a str) {
    let said = report.said;
    (
        !report.stands,
        said.provided_cost.is_empty(),
        std::cmp::Reverse(said.usage.len()),
        said.model.is_none(),
        said.start_ns.unwrap_or(i64::MAX),
        &said.id,
    )
}

/// From the leaves up, so that each is held up to what is below it. Parents in a loop are nobody's: they stay as they
/// are.
fn sum_up(trace: &[Report<'_>], repeats: &mut [bool]) {
    let trace: Vec<&Observation> = trace.iter().map(|report| report.said).collect();
    if !trace.iter().zip(&*repeats).any(|(said, repeats)| said.may_sum_up() && !repeats) {
        return;
    }
    let above = above(&trace);
    let mut children_left = vec![0usize; trace.len()];
    above.iter().flatten().for_each(|parent| children_left[*parent] += 1);
    let mut below = vec![(0i64, 0i64); trace.len()];
    let mut ready: Vec<usize> = (0..trace.len()).filter(|at| children_left[*at] == 0).collect();
    while let Some(at) = ready.pop() {
        let (said, (own_tokens, own_cost), (tokens, cost)) = (trace[at], trace[at].size(), below[at]);
        if said.may_sum_up() && !repeats[at] {
            repeats[at] =
                if own_tokens > 0 { tokens > 0 && own_tokens >= tokens } else { cost > 0 && own_cost >= cost };
        }
        if let Some(parent) = above[at] {
            let counts = said.reports() && !repeats[at];
            let (own_tokens, own_cost) = if counts { (own_tokens, own_cost) } else { (0, 0) };
            below[parent].0 = below[parent].0.saturating_add(tokens).saturating_add(own_tokens);
            below[parent].1 = below[parent].1.saturating_add(cost).saturating_add(own_cost);
            children_left[parent] -= 1;
            if children_left[parent] == 0 {
                ready.push(parent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(id: &str, parent: Option<&str>, kind: ObservationType, total: i64) -> Observation {
        let mut said = Observation { id: id.into(), parent_id: parent.map(str::to_owned), ..Observation::default() };
        said.set_observation_type(kind);
        if total > 0 {
            said.usage = [("total".to_owned(), total)].into();
            said.total_tokens = Some(total);
            said.set_usage_source(UsageSource::Provided);
        }
        said
    }

    fn with_response(mut said: Observation, response: &str) -> Observation {
        said.response_id = Some(response.to_owned());
        said
    }

    /// The ids of those that repeat; in whatever order they come.
    fn check(trace: &[Observation], wanted: &[&str]) {
        let forwards: Vec<&Observation> = trace.iter().collect();
        let backwards: Vec<&Observation> = trace.iter().rev().collect();
        for trace in [forwards, backwards] {
            let reports: Vec<Report<'_>> = trace.iter().map(|said| Report { said, stands: false }).collect();
            let repeats = repeated(&reports);
            let mut ids: Vec<&str> =
                trace.iter().zip(&repeats).filter(|(_, repeats)| **repeats).map(|(said, _)| said.id.as_str()).collect();
            ids.sort_unstable();
            assert_eq!(ids, wanted);
        }
    }

    use ObservationType::{Agent, Chain, Embedding, Generation, Span};

    #[test]
    fn one_call_counts_once_however_many_report_it() {
        let plain = with_response(said("plain", None, Generation, 165), "r1");
        let mut detailed = with_response(said("detailed", Some("plain"), Generation, 165), "r1");
        detailed.usage.insert("input_cached_tokens".to_owned(), 100);
        let mut priced = with_response(said("priced", None, Generation, 165), "r1");
        priced.provided_cost = [("total".to_owned(), 5)].into();
        let other = with_response(said("other", None, Generation, 7), "r2");
        let silent = with_response(said("silent", None, Generation, 0), "r1");
        check(&[plain.clone(), detailed.clone(), other.clone(), silent], &["plain"]);
        check(&[plain.clone(), detailed, priced, other], &["detailed", "plain"]);
        let twin = Observation { id: "twin".into(), ..plain.clone() };
        check(&[plain, twin], &["twin"]);
    }

    #[test]
    fn what_stands_goes_on_counting() {
        let one = with_response(said("one", None, Generation, 165), "r1");
        let mut two = with_response(said("two", None, Generation, 165), "r1");
        two.provided_cost = [("total".to_owned(), 5)].into();
        let trace = [Report { said: &one, stands: true }, Report { said: &two, stands: false }];
        assert_eq!(repeated(&trace), [false, true]);
    }

    #[test]
    fn an_agent_that_sums_up_its_calls_repeats_them() {
        let call = |id: &str, parent: &str, total| said(id, Some(parent), Generation, total);
        let tree = |agent, chain| {
            vec![
                said("agent", None, Agent, agent),
                said("chain", Some("agent"), Chain, chain),
                said("step", Some("chain"), Span, 0),
                call("one", "step", 100),
                call("two", "chain", 50),
            ]
        };
        check(&tree(150, 150), &["agent", "chain"]);
        check(&tree(150, 0), &["agent"]);
        check(&tree(200, 0), &["agent"]);
        check(&tree(20, 0), &[]);
        check(&[said("agent", None, Agent, 165), said("tool", Some("agent"), Span, 0)], &[]);
        // Its own usage is that of a chain below it, which has it from nobody.
        check(&[said("agent", None, Agent, 10), said("chain", Some("agent"), Chain, 10)], &["agent"]);
        check(&[said("agent", Some("agent"), Agent, 10)], &[]);
        check(&[said("a", Some("b"), Agent, 10), said("b", Some("a"), Generation, 10)], &[]);
    }

    #[test]
    fn sums_of_money_alone_are_sums_too() {
        let cost = |id: &str, parent: Option<&str>, kind, cost: i64| {
            let mut said = said(id, parent, kind, 0);
            said.provided_cost = [("total".to_owned(), cost)].into();
            said
        };
        check(&[cost("agent", None, Agent, 9), cost("call", Some("agent"), Generation, 9)], &["agent"]);
        check(&[cost("agent", None, Agent, 3), cost("call", Some("agent"), Generation, 9)], &[]);
    }

    #[test]
    fn what_is_counted_gives_way_to_what_is_reported() {
        let counted = |id: &str, parent: Option<&str>| {
            let mut said = said(id, parent, Generation, 0);
            said.set_usage_source(UsageSource::Counted);
            said
        };
        let call = |id: &str, parent: &str, total| said(id, Some(parent), Generation, total);
        check(&[counted("alone", None)], &[]);
        // Under one response id.
        let sibling = with_response(counted("c", Some("root")), "r1");
        let reported = with_response(call("d", "root", 20), "r1");
        check(&[said("root", None, Span, 0), sibling.clone(), reported], &["c"]);
        check(&[said("root", None, Span, 0), sibling.clone(), with_response(call("d", "root", 20), "r2")], &[]);
        // Around it, at any distance, and below it.
        check(&[said("a", None, Agent, 30), said("b", Some("a"), Span, 0), counted("c", Some("b"))], &["c"]);
        check(&[counted("c", None), said("b", Some("c"), Span, 0), call("d", "b", 20)], &["c"]);
        check(&[counted("c", None), counted("d", Some("c")), counted("e", Some("d"))], &["c", "d"]);
        // An agent that repeats one call says nothing of another.
        let tree = [said("a", None, Agent, 30), call("b", "a", 30), counted("c", Some("a"))];
        check(&tree, &["a"]);
        // A report that repeats another tells of a call all the same; so does what gave way.
        let mut told = with_response(call("e", "root", 20), "r1");
        told.provided_cost = [("total".to_owned(), 5)].into();
        let around = [told.clone(), counted("c", Some("root")), with_response(call("d", "c", 20), "r1")];
        check(&around, &["c", "d"]);
        let mut gave_way = said("d", Some("c"), Generation, 0);
        gave_way.repeat();
        check(&[told, counted("c", Some("root")), gave_way], &["c"]);
        // To embed is another call.
        let mut embedding = said("e", Some("c"), Embedding, 0);
        embedding.set_usage_source(UsageSource::Counted);
        check(&[counted("c", None), embedding.clone()], &[]);
        check(&[call("c", "root", 20), embedding.clone()], &[]);
        check(&[said("c", None, Chain, 20), embedding], &["e"]);
        // Reported by nobody, and counted twice.
        let twins = ["x", "y"].map(|id| with_response(counted(id, Some("root")), "r1"));
        check(&twins, &["y"]);
        let around = [with_response(counted("x", None), "r1"), with_response(counted("y", Some("x")), "r1")];
        check(&around, &["x"]);
        // Parents in a loop.
        check(&[counted("a", Some("b")), said("b", Some("a"), Span, 0)], &[]);
        check(&[counted("a", Some("a"))], &[]);
    }

    #[test]
    fn what_repeats_keeps_its_usage_and_cost_and_counts_nothing() {
        let mut agent = said("agent", None, Agent, 150);
        agent.provided_cost = [("total".to_owned(), 5)].into();
        agent.repeat();
        assert_eq!((agent.usage["total"], agent.total_tokens, agent.provided_cost["total"]), (150, None, 5));
        assert!(!agent.may_sum_up());
    }
}
