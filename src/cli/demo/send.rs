//! What the demo sends: a day of traces, some that come days late, and some requests twice.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;

use super::{DemoTarget, Visit};
use crate::base::{Day, TimestampUs};
use crate::cli::{CliError, numbers};
use crate::corpus::{Corpus, CorpusConfig, Facts, TextSize, requests};
use crate::wire::TimeRange;

const SPANS_PER_REQUEST: usize = 200;
/// Of the spans sent once, one in this many started days ago.
const LATE_ONE_IN: u64 = 10;
/// One request in this many is sent a second time, as after a lost answer.
const REPEAT_ONE_IN: usize = 9;
const REQUESTS_AT_ONCE: usize = 4;
/// Above this a tenant's texts are short. Whole prompts of more spans than this fill a server's buffer (64 MiB), and a
/// span sent again after its first copy was flushed is not merged with it yet.
const WITH_PROMPTS_MAX: u64 = 8_000;
const LATE_DAYS: i64 = 5;

/// What one tenant is sent. A function of the target: asked twice, it is the same.
#[derive(Debug)]
pub(super) struct Load {
    today: CorpusConfig,
    late: CorpusConfig,
    now_us: TimestampUs,
}

impl Load {
    pub(super) fn new(target: &DemoTarget, place: u64) -> Self {
        let observations = (target.observations / (place + 1)).max(1);
        let late = observations / LATE_ONE_IN;
        let (now_us, day_ago_us) = (target.now_us, target.now_us - Day::US);
        let today = CorpusConfig {
            seed: (target.now_us as u64).wrapping_mul(31).wrapping_add(place),
            observations: observations - late,
            start_us: day_ago_us,
            end_us: now_us,
            users: 400,
            text: if observations > WITH_PROMPTS_MAX { TextSize::Small } else { TextSize::Prompts },
            ..CorpusConfig::default()
        };
        let late = CorpusConfig {
            seed: !today.seed,
            observations: late,
            start_us: now_us - LATE_DAYS * Day::US,
            end_us: day_ago_us,
            ..today.clone()
        };
        Self { today, late, now_us }
    }

    /// All that is sent lies in it.
    pub(super) fn range(&self) -> TimeRange {
        TimeRange { from_unix_micros: self.late.start_us, to_unix_micros: self.now_us + Day::US }
    }

    /// Up to now.
    pub(super) fn last_day(&self) -> TimeRange {
        TimeRange { from_unix_micros: self.today.start_us, to_unix_micros: self.now_us }
    }

    /// What must be counted when all of it was sent, however often.
    pub(super) fn facts(&self) -> Facts {
        let both = [&self.today, &self.late].map(|config| CorpusConfig { text: TextSize::None, ..config.clone() });
        let mut facts = Facts::default();
        both.into_iter().flat_map(Corpus::new).for_each(|trace| facts.add(&trace));
        facts
    }

    /// In the order of sending: today's, with late ones between them, and some of both again.
    fn requests(&self) -> impl Iterator<Item = Outgoing> {
        let mut late = requests(self.late.clone(), SPANS_PER_REQUEST);
        let today = requests(self.today.clone(), SPANS_PER_REQUEST);
        let late_steps = LATE_ONE_IN as usize - 1;
        let mixed = today.enumerate().flat_map(move |(place, request)| {
            let guest = if place % late_steps == late_steps - 1 { late.next() } else { None };
            // Whatever is late and was not due yet comes in the end.
            std::iter::once(request).chain(guest)
        });
        let rest = requests(self.late.clone(), SPANS_PER_REQUEST).skip(self.today_requests() / late_steps);
        mixed.chain(rest).enumerate().flat_map(|(place, request)| {
            let again = (place % REPEAT_ONE_IN == 4).then(|| Outgoing { request: request.clone(), again: true });
            std::iter::once(Outgoing { request, again: false }).chain(again)
        })
    }

    fn today_requests(&self) -> usize {
        (self.today.observations as usize).div_ceil(SPANS_PER_REQUEST)
    }

    fn observations(&self) -> u64 {
        self.today.observations + self.late.observations
    }
}

struct Outgoing {
    request: ExportTraceServiceRequest,
    again: bool,
}

impl Outgoing {
    fn spans(&self) -> u64 {
        let resources = self.request.resource_spans.iter();
        resources.flat_map(|resource| &resource.scope_spans).map(|scope| scope.spans.len() as u64).sum()
    }
}

/// On return every span is durable.
pub(super) async fn send_all(visits: &[Visit<'_>], out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    let spans: u64 = visits.iter().map(|visit| visit.load.observations()).sum();
    let tenants = visits.len();
    writeln!(out, "Sending {} spans for {tenants} tenants over OTLP/gRPC …", numbers::count(spans as i64))?;
    let (bar, started, mut repeated) = (progress_bar(spans), Instant::now(), 0);
    for visit in visits {
        let connection = &visit.connection;
        let sending = stream::iter(visit.load.requests()).map(|outgoing| async move {
            let (spans, again) = (outgoing.spans(), outgoing.again);
            let answer = connection.export(outgoing.request).await?;
            match answer.partial_success.filter(|partial| partial.rejected_spans > 0) {
                Some(partial) => Err(CliError::Mismatch(format!(
                    "{} spans were rejected: {}",
                    partial.rejected_spans, partial.error_message
                ))),
                None => Ok((spans, again)),
            }
        });
        let mut sending = std::pin::pin!(sending.buffer_unordered(REQUESTS_AT_ONCE));
        while let Some((spans, again)) = sending.try_next().await? {
            if again {
                repeated += spans;
            } else {
                bar.inc(spans);
            }
        }
        if bar.is_hidden() {
            writeln!(out, "  {}: {} spans", visit.tenant.name, numbers::count(visit.load.observations() as i64))?;
        }
    }
    bar.finish_and_clear();
    let (seconds, sent) = (started.elapsed().as_secs_f64(), spans + repeated);
    writeln!(
        out,
        "{} spans in {}: {} spans/s, each request durable before its answer. {} of them were sent twice, one in \
         {LATE_ONE_IN} started days ago.\n",
        numbers::count(sent as i64),
        numbers::duration(seconds * 1e3),
        numbers::count((sent as f64 / seconds) as i64),
        numbers::count(repeated as i64),
    )?;
    Ok(())
}

/// Draws nothing unless somebody is watching.
fn progress_bar(spans: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} spans  {per_sec}  {eta} left");
    let bar =
        ProgressBar::new(spans).with_style(style.expect("the template is a constant").progress_chars("█▉▊▋▌▍▎▏ "));
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    #[test]
    fn every_span_is_sent_and_some_are_sent_again() {
        for observations in [1, 150, 2_500, 9_000] {
            let target = DemoTarget {
                grpc_addr: String::new(),
                tenants: vec![],
                data: String::new(),
                observations,
                now_us: 1_795_000_000_000_000,
                program: String::new(),
                keeps_serving: false,
            };
            let load = Load::new(&target, 0);
            let (mut first, mut again) = (HashMap::new(), HashSet::new());
            for outgoing in load.requests() {
                for span in outgoing
                    .request
                    .resource_spans
                    .into_iter()
                    .flat_map(|resource| resource.scope_spans.into_iter().flat_map(|scope| scope.spans))
                {
                    let id = (span.trace_id.clone(), span.span_id.clone());
                    if outgoing.again {
                        assert_eq!(first.get(&id), Some(&span));
                        again.insert(id);
                    } else {
                        assert!(first.insert(id, span).is_none(), "sent once only");
                    }
                }
            }
            assert_eq!(first.len() as u64, observations);
            assert_eq!(load.facts().observations, observations);
            let late = first.values().filter(|span| (span.start_time_unix_nano as i64) < load.today.start_us * 1_000);
            assert_eq!(late.count() as u64, observations / LATE_ONE_IN);
            assert!(observations < 1_000 || !again.is_empty());
            let range = load.range();
            for span in first.values() {
                let start_us = span.start_time_unix_nano as i64 / 1_000;
                assert!((range.from_unix_micros..range.to_unix_micros).contains(&start_us));
            }
        }
    }
}
