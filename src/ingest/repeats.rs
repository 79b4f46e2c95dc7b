//! Which rows of a segment repeat what others of their traces report, though those came by other requests, or stand in
//! files already. And which of those in files repeat what comes now: an agent whose calls come after it.
//!
//! What stands counts on, where two report one call; so no row is written again for it, but one that was counted from its
//! texts and gives way to a report. An agent that repeats calls below it stays one that repeats, whatever they report
//! later, and what gave way stays so.

use super::counting;
use super::packed::Packed;
use super::rows::RowSettings;
use super::segment::{ObservationKey, Segment};
use super::standing::Standing;
use crate::base::{Day, RowMap, RowSet};
use crate::model::tables::Table;
use crate::model::{Counted, Observation, Report, UsageSource, merge_observation, repeated};

/// Rows whose usage is not to be counted.
pub(super) struct Repeats<'a> {
    /// Of the segment.
    pub(super) new: RowSet<&'a ObservationKey>,
    /// Of rows that stand, of which the segment says nothing.
    pub(super) standing: Vec<ObservationKey>,
}

pub(super) fn find<'a>(segment: &'a Segment, standing: &Standing) -> Repeats<'a> {
    let mut repeats = Repeats { new: RowSet::default(), standing: Vec::new() };
    let told: RowSet<&str> = standing.reports.iter().map(|said| said.trace_id.as_str()).collect();
    let mut suspects = suspects(segment);
    suspects.extend(&told);
    if suspects.is_empty() {
        return repeats;
    }
    let mut traces: RowMap<&str, Vec<(Whose<'a>, Observation)>> = RowMap::default();
    for (key, entry) in segment.observations.iter().filter(|((trace, _), _)| suspects.contains(trace.as_ref())) {
        let base = standing.observations.get(key);
        let events = base.map_or(&[][..], |base| &base.events);
        let merged = entry.merged(Table::Observations, events, Packed::hot, merge_observation);
        if let Some(mut merged) = merged {
            match counting::counted(entry, &merged.row, base) {
                Some(Counted::Tokens(_)) => merged.row.set_usage_source(UsageSource::Counted),
                Some(Counted::GaveWay) => merged.row.repeat(),
                None => {}
            }
            let whose = Whose::Segment(key, base.is_some());
            traces.entry(&key.0).or_default().push((whose, merged.row.as_report()));
        }
    }
    for said in &standing.reports {
        let Some(trace) = traces.get_mut(said.trace_id.as_str()) else { continue };
        let key: ObservationKey = (said.trace_id.as_str().into(), said.id.as_str().into());
        if !segment.observations.contains_key(&key) {
            trace.push((Whose::File(key), said.clone()));
        }
    }
    for rows in traces.into_values() {
        let stands = |whose: &Whose<'_>| !matches!(whose, Whose::Segment(_, false));
        let reports: Vec<Report<'_>> =
            rows.iter().map(|(whose, said)| Report { said, stands: stands(whose) }).collect();
        let repeated = repeated(&reports);
        for ((whose, _), _) in rows.into_iter().zip(repeated).filter(|(_, repeats)| *repeats) {
            match whose {
                Whose::Segment(key, _) => _ = repeats.new.insert(key),
                Whose::File(key) => repeats.standing.push(key),
            }
        }
    }
    repeats
}

/// Where a row of a trace is: in the segment, and whether it stands as well; or only in a file.
enum Whose<'a> {
    Segment(&'a ObservationKey, bool),
    File(ObservationKey),
}

/// Traces of which the segment reports usage, or a call whose usage may be counted, and the days on which what it may
/// repeat would stand: a call and its repetition are not days apart.
pub(super) fn traces<'a>(
    segment: &'a Segment,
    standing: &Standing,
    settings: &RowSettings,
) -> RowMap<&'a str, (Day, Day)> {
    let mut traces: RowMap<&str, (Day, Day)> = RowMap::default();
    for (key, entry) in &segment.observations {
        let Some(glance) = entry.glance(Table::Observations) else { continue };
        let is_recounted = || standing.observations.get(key).is_some_and(|base| base.recount.is_some());
        if !glance.reports && !glance.may_be_counted && !is_recounted() {
            continue;
        }
        let day = settings.home_day(glance.start_us.or(glance.end_us), entry.origin().stamp_us);
        let near = |by: i32| Day::from_days(day.days() + by);
        let days = traces.entry(&key.0).or_insert((near(-1), near(1)));
        *days = (days.0.min(near(-1)), days.1.max(near(1)));
    }
    traces
}

/// Traces in which one response id stands on two observations, or a sum may stand, or a call whose usage may be counted. Of
/// most there is nothing to unpack.
fn suspects(segment: &Segment) -> RowSet<&str> {
    let mut suspects: RowSet<&str> = RowSet::default();
    let mut responses: RowMap<(&str, u64), &str> = RowMap::default();
    for ((trace, id), entry) in &segment.observations {
        if entry.glance(Table::Observations).is_some_and(|glance| glance.may_be_counted) {
            suspects.insert(trace);
        }
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
