//! What happens in a trace, before anybody writes it down: its steps, their times, calls and failures.

use super::Call;
use super::cast::{App, EMBEDDING, Failure, MODEL_FAILURES, Model, Shape, TOOL_FAILURES, TOOLS};
use super::dice::Dice;
use crate::base::Money;

/// A trace has at most this many spans.
pub(super) const STEPS_MAX: u64 = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StepKind {
    Agent,
    Chain,
    Generation,
    Embedding,
    Retriever,
    Tool,
    Guardrail,
}

#[derive(Debug)]
pub(super) struct Step {
    pub(super) kind: StepKind,
    /// Of a root the application's name, of a tool its own.
    pub(super) name: &'static str,
    /// The position of the parent among the steps; the root is the first and has none.
    pub(super) parent: Option<usize>,
    /// Since the trace began.
    pub(super) start_us: i64,
    pub(super) duration_us: i64,
    pub(super) failure: Option<&'static Failure>,
    pub(super) model: Option<ModelStep>,
}

#[derive(Debug)]
pub(super) struct ModelStep {
    pub(super) model: &'static Model,
    pub(super) call: Call,
    /// Until the first token, if the answer is streamed.
    pub(super) first_token_us: Option<i64>,
    pub(super) finish_reason: &'static str,
    /// In hundredths.
    pub(super) temperature: u64,
    /// The provider's id of its answer.
    pub(super) response: u64,
}

/// The first step is the root; at most `steps_max` of them, at least one.
pub(super) fn plan(dice: &mut Dice, app: &'static App, model: &'static Model, settings: PlanSettings) -> Vec<Step> {
    let mut script = Script { dice, app, model, settings, steps: Vec::new(), now_us: 0, history_tokens: 0.0 };
    match app.shape {
        Shape::Single => script.generation(None, true),
        Shape::Pipeline => script.under_root(StepKind::Chain, Script::pipeline),
        Shape::Retrieval => script.under_root(StepKind::Chain, Script::retrieval),
        Shape::Agent => script.under_root(StepKind::Agent, Script::agent),
        Shape::Index => script.under_root(StepKind::Chain, Script::index),
    }
    script.steps
}

#[derive(Debug, Clone, Copy)]
pub(super) struct PlanSettings {
    pub(super) steps_max: u64,
    pub(super) error_rate: f64,
    pub(super) says_cost: bool,
}

struct Script<'d> {
    dice: &'d mut Dice,
    app: &'static App,
    model: &'static Model,
    settings: PlanSettings,
    steps: Vec<Step>,
    now_us: i64,
    /// What the next call must send again.
    history_tokens: f64,
}

impl Script<'_> {
    fn under_root(&mut self, kind: StepKind, body: fn(&mut Self)) {
        let failure = self.failure(TOOL_FAILURES);
        self.push(Step { kind, name: self.app.name, parent: None, start_us: 0, duration_us: 0, failure, model: None });
        self.now_us += self.duration_us(0.8, 0.5);
        body(self);
        self.steps[0].duration_us = self.now_us + self.duration_us(1.5, 0.7);
    }

    fn pipeline(&mut self) {
        for round in 0..self.dice.between(1, 3) {
            self.generation(Some(0), round == 0);
        }
    }

    fn retrieval(&mut self) {
        if self.dice.chance(0.2) {
            self.work(StepKind::Guardrail, "check_policy", 45.0);
        }
        self.embedding();
        self.work(StepKind::Retriever, "vector_search", 60.0);
        self.generation(Some(0), true);
    }

    fn agent(&mut self) {
        let rounds = self.dice.between(1, 3) + self.dice.below(3) * self.dice.below(2);
        for round in 1..=rounds {
            self.generation(Some(0), round == rounds);
            if round < rounds {
                self.tools();
            }
        }
    }

    fn index(&mut self) {
        for _ in 0..self.dice.between(2, STEPS_MAX - 1) {
            self.embedding();
        }
    }

    /// One tool, or two at the same time.
    fn tools(&mut self) {
        let (started_us, mut ended_us) = (self.now_us, self.now_us);
        for _ in 0..self.dice.between(1, 2) {
            self.now_us = started_us;
            let name = *self.dice.pick(TOOLS);
            self.work(StepKind::Tool, name, 180.0);
            ended_us = ended_us.max(self.now_us);
        }
        self.now_us = ended_us;
    }

    fn work(&mut self, kind: StepKind, name: &'static str, median_ms: f64) {
        let duration_us = self.duration_us(median_ms, 0.9);
        let failure = self.failure(TOOL_FAILURES);
        let start_us = self.now_us;
        self.history_tokens += self.dice.lognormal(140.0, 0.9).min(8_000.0);
        self.push(Step { kind, name, parent: Some(0), start_us, duration_us, failure, model: None });
        self.now_us = start_us + duration_us + 300;
    }

    fn embedding(&mut self) {
        let input_tokens = self.dice.lognormal(self.app.input_tokens / 8.0, 0.8).clamp(3.0, 8_000.0) as i64;
        let first_token_us = self.duration_us(EMBEDDING.first_token_ms, 0.5);
        let failure = self.failure(MODEL_FAILURES);
        let call = self.call(&EMBEDDING, failure.is_some(), [input_tokens, 0, 0, 0]);
        let response = self.dice.bits();
        let model = ModelStep {
            model: &EMBEDDING,
            call,
            first_token_us: None,
            finish_reason: "stop",
            temperature: 0,
            response,
        };
        self.model_step(StepKind::Embedding, Some(0), first_token_us, failure, model);
    }

    /// `is_last`: an agent's other calls end in tool calls.
    fn generation(&mut self, parent: Option<usize>, is_last: bool) {
        let model = self.model;
        let fresh_tokens = self.dice.lognormal(self.app.input_tokens, 0.7).clamp(8.0, 120_000.0);
        let input_tokens = (fresh_tokens + self.history_tokens).min(190_000.0) as i64;
        let cached_share = self.dice.unit();
        // Providers cache from about a thousand tokens on, in steps of 128.
        let caches = model.cached_input_price < model.input_price && input_tokens > 1_024 && cached_share > 0.45;
        let cached_tokens = if caches { (input_tokens as f64 * cached_share) as i64 / 128 * 128 } else { 0 };

        let answer_tokens = self.dice.lognormal(self.app.output_tokens, 0.8).clamp(1.0, 8_000.0);
        let thought_tokens = self.dice.lognormal(320.0, 0.9).min(6_000.0);
        let reasoning_tokens = if model.reasons { thought_tokens as i64 } else { 0 };
        let output_tokens = answer_tokens as i64 + reasoning_tokens;

        let first_token_us = self.duration_us(model.first_token_ms, 0.45);
        let writing_us = (output_tokens as f64 / model.tokens_per_second * 1e6) as i64;
        let failure = self.failure(MODEL_FAILURES);
        let streams = self.dice.chance(0.6) && failure.is_none();
        let model_step = ModelStep {
            model,
            call: self.call(model, failure.is_some(), [input_tokens, cached_tokens, output_tokens, reasoning_tokens]),
            first_token_us: streams.then_some(first_token_us),
            finish_reason: match (is_last, output_tokens > 4_000) {
                (false, _) => "tool_calls",
                (true, true) => "length",
                (true, false) => "stop",
            },
            temperature: *self.dice.pick(&[0, 20, 20, 70, 100]),
            response: self.dice.bits(),
        };
        self.history_tokens += fresh_tokens * 0.3 + answer_tokens;
        let duration_us = first_token_us + if failure.is_some() { 0 } else { writing_us };
        self.model_step(StepKind::Generation, parent, duration_us, failure, model_step);
    }

    fn model_step(
        &mut self,
        kind: StepKind,
        parent: Option<usize>,
        duration_us: i64,
        failure: Option<&'static Failure>,
        model: ModelStep,
    ) {
        let name = if parent.is_none() { self.app.name } else { model.model.name };
        self.push(Step { kind, name, parent, start_us: self.now_us, duration_us, failure, model: Some(model) });
        self.now_us += duration_us + 500;
    }

    /// A failed call used nothing.
    fn call(&self, model: &'static Model, failed: bool, tokens: [i64; 4]) -> Call {
        let [input_tokens, cached_input_tokens, output_tokens, reasoning_tokens] = if failed { [0; 4] } else { tokens };
        let pico = (input_tokens - cached_input_tokens) * model.input_price
            + cached_input_tokens * model.cached_input_price
            + output_tokens * model.output_price;
        let provided_cost = (self.settings.says_cost && pico > 0).then_some(Money::from_pico(pico));
        Call {
            model: model.name,
            failed,
            input_tokens,
            cached_input_tokens,
            output_tokens,
            reasoning_tokens,
            provided_cost,
        }
    }

    fn failure(&mut self, failures: &'static [Failure]) -> Option<&'static Failure> {
        // The lower of two draws: the first ones are the most common.
        let draw = self.dice.below(failures.len() as u64).min(self.dice.below(failures.len() as u64));
        self.dice.chance(self.settings.error_rate).then(|| &failures[draw as usize])
    }

    fn duration_us(&mut self, median_ms: f64, sigma: f64) -> i64 {
        (self.dice.lognormal(median_ms * 1e3, sigma) as i64).clamp(50, 120_000_000)
    }

    /// A full trace takes no more steps; what was drawn for them is drawn all the same.
    fn push(&mut self, step: Step) {
        if (self.steps.len() as u64) < self.settings.steps_max {
            self.steps.push(step);
        }
    }
}
