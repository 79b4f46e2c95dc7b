//! What is said in a trace: questions, answers and tool results, and the history that every call sends again.

use opentelemetry_proto::tonic::trace::v1::Span;

use super::attributes::Attributes;
use super::dialect::Dialect;
use super::dice::Dice;
use super::plan::{Step, StepKind};
use super::text::{Piece, Writer};
use super::trace::Circumstances;
use crate::base::TimestampUs;

/// The input and output of one step, ready to be an attribute's value.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) input: String,
    pub(super) output: Option<String>,
}

/// Writes down the steps of one trace, in order.
#[derive(Debug)]
pub(super) struct Scribe<'c> {
    dialect: Dialect,
    common: &'c Circumstances,
    writer: &'c Writer,
    dice: Dice,
    question: String,
    /// Messages as JSON, separated by commas, in the dialect's own form.
    history: String,
    answer: String,
}

impl<'c> Scribe<'c> {
    pub(super) fn new(dialect: Dialect, common: &'c Circumstances, writer: &'c Writer, mut dice: Dice) -> Self {
        let (mut question, mut history) = (String::new(), String::new());
        if !writer.is_silent() {
            // An application's instructions are the same in all its traces.
            let name_seed =
                common.app.name.bytes().fold(0u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
            let instructions = writer.write(Piece::System, &mut Dice::new(name_seed, 0));
            question = writer.write(Piece::Question, &mut dice);
            history = [message(dialect, "system", &instructions), message(dialect, "user", &question)].join(",");
        }
        Self { dialect, common, writer, dice, question, history, answer: String::new() }
    }

    pub(super) fn attributes(&mut self, step: &Step, trace_start_us: TimestampUs) -> Attributes {
        let said = if self.writer.is_silent() { None } else { self.said(step) };
        self.dialect.attributes(step, said, self.common, trace_start_us)
    }

    /// The last answer is also the root's.
    pub(super) fn close(self, root: &mut Span, root_kind: StepKind) {
        if self.answer.is_empty() || root_kind == StepKind::Generation {
            return;
        }
        let mut attributes = Attributes::default();
        match self.dialect {
            Dialect::GenAi if root_kind == StepKind::Agent => {
                let messages = format!("[{}]", message(self.dialect, "assistant", &self.answer));
                attributes.text("gen_ai.output.messages", messages);
            }
            Dialect::Langfuse => attributes.text("langfuse.observation.output", self.answer),
            Dialect::GenAi | Dialect::OpenInference => attributes.text("output.value", self.answer),
        }
        root.attributes.extend(attributes.into_vec());
    }

    fn said(&mut self, step: &Step) -> Option<Said> {
        let written = |output: String| if step.failure.is_some() { None } else { Some(output) };
        Some(match step.kind {
            StepKind::Agent if self.dialect == Dialect::GenAi => {
                Said { input: format!("[{}]", message(self.dialect, "user", &self.question)), output: None }
            }
            StepKind::Agent | StepKind::Chain => Said { input: self.question.clone(), output: None },
            StepKind::Guardrail => Said { input: self.question.clone(), output: written("allowed".into()) },
            StepKind::Embedding => Said { input: self.writer.write(Piece::Question, &mut self.dice), output: None },
            StepKind::Retriever => {
                let found = self.writer.write(Piece::ToolResult, &mut self.dice);
                self.remember("user", &found);
                Said { input: self.question.clone(), output: written(found) }
            }
            StepKind::Tool => {
                let result = self.writer.write(Piece::ToolResult, &mut self.dice);
                self.remember("tool", &result);
                let arguments = format!("{{\"query\":\"{}\"}}", self.dice.below(100_000));
                Said { input: arguments, output: written(result) }
            }
            StepKind::Generation => {
                let input = format!("[{}]", self.history);
                if step.failure.is_some() {
                    return Some(Said { input, output: None });
                }
                self.answer = self.writer.write(Piece::Answer, &mut self.dice);
                let answer = message(self.dialect, "assistant", &self.answer);
                self.history.push(',');
                self.history.push_str(&answer);
                let output = if self.dialect == Dialect::GenAi { format!("[{answer}]") } else { answer };
                Said { input, output: Some(output) }
            }
        })
    }

    fn remember(&mut self, role: &str, content: &str) {
        self.history.push(',');
        self.history.push_str(&message(self.dialect, role, content));
    }
}

/// `content` needs no escaping: the writer's words are plain.
fn message(dialect: Dialect, role: &str, content: &str) -> String {
    match dialect {
        Dialect::GenAi => {
            format!("{{\"role\":\"{role}\",\"parts\":[{{\"type\":\"text\",\"content\":\"{content}\"}}]}}")
        }
        Dialect::Langfuse | Dialect::OpenInference => format!("{{\"role\":\"{role}\",\"content\":\"{content}\"}}"),
    }
}
