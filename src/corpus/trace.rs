//! The corpus: an iterator of traces, in time order give or take a minute.

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::{Span, Status, status::StatusCode};

use super::attributes::exception;
use super::cast::{ACCOUNTS, APPS, App, CHANNELS, MODELS, Model, PLANS, RELEASES};
use super::conversation::Scribe;
use super::dialect::Dialect;
use super::dice::{Dice, Zipf};
use super::plan::{PlanSettings, STEPS_MAX, Step, StepKind, plan};
use super::text::Writer;
use super::timeline::Timeline;
use super::{Call, CorpusConfig, Facts};
use crate::base::TimestampUs;

/// One trace and what is true of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// The root comes first, children in the order they started.
    pub spans: Vec<Span>,
    /// Also the root span's name.
    pub name: &'static str,
    pub user_id: Option<String>,
    /// Spans that failed.
    pub errors: u64,
    /// Its model calls, in the order of their spans.
    pub calls: Vec<Call>,
}

/// All traces of a configuration, one after the other.
#[derive(Debug)]
pub struct Corpus {
    config: CorpusConfig,
    timeline: Timeline,
    users: Zipf,
    apps: Zipf,
    writer: Writer,
    traces_sent: u64,
    observations_sent: u64,
}

impl Corpus {
    pub fn new(config: CorpusConfig) -> Self {
        Self {
            timeline: Timeline::new(config.start_us, config.end_us),
            users: Zipf::new(config.users),
            apps: Zipf::new(APPS.len() as u32),
            writer: Writer::new(config.text),
            traces_sent: 0,
            observations_sent: 0,
            config,
        }
    }

    /// What a whole corpus holds, without keeping it. Text is not written for it.
    pub fn facts(config: CorpusConfig) -> Facts {
        let mut facts = Facts::default();
        Corpus::new(CorpusConfig { text: super::TextSize::None, ..config }).for_each(|trace| facts.add(&trace));
        facts
    }
}

impl Iterator for Corpus {
    type Item = Trace;

    fn next(&mut self) -> Option<Trace> {
        let left = self.config.observations.saturating_sub(self.observations_sent);
        if left == 0 {
            return None;
        }
        let trace = self.trace(left.min(STEPS_MAX));
        self.traces_sent += 1;
        self.observations_sent += trace.spans.len() as u64;
        Some(trace)
    }
}

/// What all spans of a trace have in common.
#[derive(Debug)]
pub(super) struct Circumstances {
    pub(super) app: &'static App,
    pub(super) user_id: Option<String>,
    pub(super) session_id: Option<String>,
    pub(super) tags: Vec<&'static str>,
    pub(super) metadata: Vec<(&'static str, String)>,
    pub(super) environment: Option<&'static str>,
    pub(super) release: &'static str,
}

impl Corpus {
    fn trace(&self, steps_max: u64) -> Trace {
        let mut dice = Dice::new(self.config.seed, 2 * self.traces_sent);
        let app = &APPS[self.apps.draw(&mut dice)];
        let model = draw_model(&mut dice);
        let start_us = self.timeline.start_us(self.observations_sent, self.config.observations, &mut dice);
        let common = self.circumstances(app, start_us, &mut dice);
        let dialect = Dialect::draw(&mut dice);
        let says_cost = dice.chance(self.config.provided_cost_rate);
        let trace_id = [dice.bits() | 1, dice.bits()].map(u64::to_be_bytes).concat();
        let settings = PlanSettings { steps_max, error_rate: self.config.error_rate, says_cost };
        let mut steps = plan(&mut dice, app, model, settings);

        let length_us = steps.iter().map(|step| step.start_us + step.duration_us).max().unwrap_or_default();
        let start_us = start_us.min(self.config.end_us - length_us).max(self.config.start_us);
        let span_ids: Vec<_> = steps.iter().map(|_| (dice.bits() | 1).to_be_bytes().to_vec()).collect();
        let mut scribe = self.scribe(dialect, &common);
        let mut spans = Vec::with_capacity(steps.len());
        for (step, span_id) in steps.iter().zip(&span_ids) {
            let mut span = span(step, start_us);
            span.trace_id = trace_id.clone();
            span.span_id = span_id.clone();
            span.parent_span_id = step.parent.map(|parent| span_ids[parent].clone()).unwrap_or_default();
            span.attributes = scribe.attributes(step, start_us).into_vec();
            spans.push(span);
        }
        scribe.close(&mut spans[0], steps[0].kind);
        let errors = steps.iter().filter(|step| step.failure.is_some()).count() as u64;
        let calls = steps.iter_mut().filter_map(|step| step.model.take()).map(|model| model.call).collect();
        Trace { spans, name: app.name, user_id: common.user_id, errors, calls }
    }

    fn circumstances(&self, app: &'static App, start_us: TimestampUs, dice: &mut Dice) -> Circumstances {
        let user = self.users.draw(dice);
        let has_user = dice.chance(0.93);
        let has_session = has_user && dice.chance(0.8);
        let plan = PLANS[user % PLANS.len()];
        let mut tags = vec![app.feature, plan];
        if dice.chance(0.2) {
            tags.push(if dice.chance(0.5) { "variant_A" } else { "variant_B" });
        }
        let account = ACCOUNTS[user % ACCOUNTS.len()];
        let mut metadata = vec![
            ("tenant_id", account.to_owned()),
            ("project_id", format!("{account}-{}", 1 + user % 3)),
            ("flow_id", format!("flow-{}", app.name)),
            ("channel", (*dice.pick(CHANNELS)).to_owned()),
        ];
        if dice.chance(0.3) {
            metadata.push(("app_version", format!("4.{}.{}", dice.below(6), dice.below(10))));
        }
        Circumstances {
            app,
            user_id: has_user.then(|| format!("user-{user:05}")),
            // A person's traces within half an hour are one session.
            session_id: has_session.then(|| format!("sess-{user:05}-{}", start_us.div_euclid(1_800_000_000))),
            tags,
            metadata,
            environment: dice.chance(0.08).then_some("staging"),
            release: dice.pick::<&str>(RELEASES),
        }
    }

    fn scribe<'c>(&'c self, dialect: Dialect, common: &'c Circumstances) -> Scribe<'c> {
        let dice = Dice::new(self.config.seed, 2 * self.traces_sent + 1);
        Scribe::new(dialect, common, &self.writer, dice)
    }
}

fn draw_model(dice: &mut Dice) -> &'static Model {
    let mut draw = dice.below(MODELS.iter().map(|model| model.weight).sum());
    for model in MODELS {
        if draw < model.weight {
            return model;
        }
        draw -= model.weight;
    }
    &MODELS[0]
}

fn span(step: &Step, trace_start_us: TimestampUs) -> Span {
    let start_us = trace_start_us + step.start_us;
    let end_us = start_us + step.duration_us;
    let name = match step.kind {
        _ if step.parent.is_none() => step.name.to_owned(),
        StepKind::Generation => format!("chat {}", step.name),
        StepKind::Embedding => format!("embeddings {}", step.name),
        StepKind::Tool => format!("execute_tool {}", step.name),
        _ => step.name.to_owned(),
    };
    let kind = if step.model.is_some() { SpanKind::Client } else { SpanKind::Internal };
    let failed = |message: &str| Status { code: StatusCode::Error as i32, message: message.to_owned() };
    Span {
        name,
        kind: kind as i32,
        start_time_unix_nano: start_us as u64 * 1_000,
        end_time_unix_nano: end_us as u64 * 1_000,
        flags: 0x101,
        events: step.failure.iter().map(|failure| exception(failure, end_us)).collect(),
        status: step.failure.map(|failure| failed(failure.message)),
        ..Default::default()
    }
}
