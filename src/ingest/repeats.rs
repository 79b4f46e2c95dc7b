//! Which rows of a segment repeat what others of their traces report, though they came by other requests.
//!
//! It sees what the segment holds: a report that comes after the other one stands in a file counts as well.

use std::collections::{HashMap, HashSet};

use super::packed::Packed;
use super::segment::{ObservationKey, Segment};
use super::standing::Standing;
use crate::model::tables::Table;
use crate::model::{Observation, merge_observation, repeated};

/// The keys of rows whose usage is not to be counted.
pub(super) fn keys<'a>(segment: &'a Segment, standing: &Standing) -> HashSet<&'a ObservationKey> {
    let suspects = suspects(segment);
    let mut traces: HashMap<&str, Vec<(&ObservationKey, Observation)>> = HashMap::new();
    if suspects.is_empty() {
        return HashSet::new();
    }
    for (key, entry) in segment.observations.iter().filter(|((trace, _), _)| suspects.contains(trace.as_ref())) {
        let events = standing.observations.get(key).map_or(&[][..], |base| &base.events);
        let merged = entry.merged(Table::Observations, events, Packed::hot, merge_observation);
        if let Some(merged) = merged {
            traces.entry(&key.0).or_default().push((key, as_far_as_it_matters(merged.row)));
        }
    }
    let repeats = |rows: Vec<(&'a ObservationKey, Observation)>| {
        let said: Vec<&Observation> = rows.iter().map(|(_, said)| said).collect();
        let repeats = repeated(&said);
        let keys = rows.iter().zip(repeats).filter(|(_, repeats)| *repeats).map(|((key, _), _)| *key);
        keys.collect::<Vec<_>>()
    };
    traces.into_values().flat_map(repeats).collect()
}

/// Traces in which one response id stands on two observations, or a sum may stand. Of most there is nothing to unpack.
fn suspects(segment: &Segment) -> HashSet<&str> {
    let mut suspects: HashSet<&str> = HashSet::new();
    let mut responses: HashMap<(&str, u64), &str> = HashMap::new();
    for ((trace, id), entry) in &segment.observations {
        for glance in entry.wanted_by(Table::Observations).map(|said| said.glance) {
            if glance.may_sum_up {
                suspects.insert(trace);
            }
            if let Some(response) = glance.response
                && *responses.entry((trace, response)).or_insert(id) != id.as_ref()
            {
                suspects.insert(trace);
            }
        }
    }
    suspects
}

/// All rows of a trace are held at once, so without what decides nothing.
fn as_far_as_it_matters(said: Observation) -> Observation {
    Observation {
        id: said.id,
        parent_id: said.parent_id,
        observation_type: said.observation_type,
        response_id: said.response_id,
        start_ns: said.start_ns,
        model: said.model,
        usage: said.usage,
        usage_source: said.usage_source,
        total_tokens: said.total_tokens,
        provided_cost: said.provided_cost,
        ..Observation::default()
    }
}
