//! How the steps of a trace are written down: three of the vocabularies that clients speak.

use chrono::{DateTime, SecondsFormat};

use super::attributes::Attributes;
use super::conversation::Said;
use super::dice::Dice;
use super::plan::{ModelStep, Step, StepKind};
use super::trace::Circumstances;
use crate::base::TimestampUs;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// OpenTelemetry's GenAI conventions; what is said of the trace stands on its root only.
    GenAi,
    /// Langfuse's SDKs from version 3 on.
    Langfuse,
    OpenInference,
}

impl Dialect {
    pub(super) fn draw(dice: &mut Dice) -> Self {
        match dice.below(100) {
            0..60 => Self::GenAi,
            60..85 => Self::Langfuse,
            _ => Self::OpenInference,
        }
    }

    pub(super) fn attributes(
        self,
        step: &Step,
        said: Option<Said>,
        common: &Circumstances,
        trace_start_us: TimestampUs,
    ) -> Attributes {
        let mut attributes = Attributes::with_capacity(24);
        match self {
            Self::GenAi => gen_ai(&mut attributes, step, said, common),
            Self::Langfuse => langfuse(&mut attributes, step, said, common, trace_start_us),
            Self::OpenInference => open_inference(&mut attributes, step, said, common),
        }
        attributes.text_if("error.type", step.failure.map(|failure| failure.kind));
        attributes
    }
}

fn gen_ai(attributes: &mut Attributes, step: &Step, said: Option<Said>, common: &Circumstances) {
    if step.parent.is_none() {
        people(attributes, common);
        attributes.texts("langfuse.trace.tags", &common.tags);
        for (key, value) in &common.metadata {
            attributes.text(format!("langfuse.trace.metadata.{key}"), value.as_str());
        }
    }
    let operation = match step.kind {
        StepKind::Agent => Some("invoke_agent"),
        StepKind::Chain => Some("invoke_workflow"),
        StepKind::Generation => Some("chat"),
        StepKind::Embedding => Some("embeddings"),
        StepKind::Retriever => Some("retrieval"),
        StepKind::Tool => Some("execute_tool"),
        StepKind::Guardrail => None,
    };
    attributes.text_if("gen_ai.operation.name", operation);
    match step.kind {
        StepKind::Agent => {
            attributes.text("gen_ai.agent.name", step.name);
            attributes.text("gen_ai.agent.id", format!("agent-{}", step.name));
        }
        StepKind::Tool => attributes.text("gen_ai.tool.name", step.name),
        _ => {}
    }
    if let Some(model) = &step.model {
        gen_ai_call(attributes, step, model);
    }
    if let Some(said) = said {
        let (input, output) = match step.kind {
            StepKind::Tool => ("gen_ai.tool.call.arguments", "gen_ai.tool.call.result"),
            StepKind::Generation | StepKind::Agent => ("gen_ai.input.messages", "gen_ai.output.messages"),
            _ => ("input.value", "output.value"),
        };
        attributes.text(input, said.input);
        attributes.text_if(output, said.output);
    }
}

fn gen_ai_call(attributes: &mut Attributes, step: &Step, model: &ModelStep) {
    let call = &model.call;
    attributes.text("gen_ai.provider.name", model.model.provider);
    attributes.text("gen_ai.request.model", call.model);
    if call.failed {
        return;
    }
    attributes.text("gen_ai.response.model", call.model);
    attributes.text("gen_ai.response.id", format!("resp-{:016x}", model.response));
    attributes.int("gen_ai.usage.input_tokens", call.input_tokens);
    if step.kind == StepKind::Generation {
        attributes.int("gen_ai.usage.output_tokens", call.output_tokens);
        attributes.double("gen_ai.request.temperature", model.temperature as f64 / 100.0);
        attributes.texts("gen_ai.response.finish_reasons", &[model.finish_reason]);
    }
    attributes.count("gen_ai.usage.cache_read.input_tokens", call.cached_input_tokens);
    attributes.count("gen_ai.usage.reasoning.output_tokens", call.reasoning_tokens);
    if let Some(first_token_us) = model.first_token_us {
        attributes.flag("gen_ai.request.stream", true);
        attributes.double("gen_ai.response.time_to_first_chunk", first_token_us as f64 / 1e6);
    }
    if let Some(cost) = call.provided_cost {
        // 15 digits at most, so the double stands for exactly this amount.
        attributes.double("gen_ai.usage.cost", cost.pico() as f64 / 1e12);
    }
}

fn langfuse(
    attributes: &mut Attributes,
    step: &Step,
    said: Option<Said>,
    common: &Circumstances,
    trace_start_us: TimestampUs,
) {
    people(attributes, common);
    attributes.text("langfuse.trace.name", common.app.name);
    attributes.texts("langfuse.trace.tags", &common.tags);
    for (key, value) in &common.metadata {
        attributes.text(format!("langfuse.trace.metadata.{key}"), value.as_str());
    }
    attributes.text("langfuse.release", common.release);
    let kind = match step.kind {
        StepKind::Agent => "agent",
        StepKind::Chain => "chain",
        StepKind::Generation => "generation",
        StepKind::Embedding => "embedding",
        StepKind::Retriever => "retriever",
        StepKind::Tool => "tool",
        StepKind::Guardrail => "guardrail",
    };
    attributes.text("langfuse.observation.type", kind);
    if let Some(failure) = step.failure {
        attributes.text("langfuse.observation.level", "ERROR");
        attributes.text("langfuse.observation.status_message", failure.message);
    }
    if let Some(model) = &step.model {
        langfuse_call(attributes, model, common, trace_start_us + step.start_us);
    }
    if let Some(said) = said {
        attributes.text("langfuse.observation.input", said.input);
        attributes.text_if("langfuse.observation.output", said.output);
    }
}

/// Usage in parts that do not overlap, as these SDKs hand it on.
fn langfuse_call(attributes: &mut Attributes, model: &ModelStep, common: &Circumstances, start_us: TimestampUs) {
    let call = &model.call;
    attributes.text("langfuse.observation.model.name", call.model);
    let temperature = model.temperature as f64 / 100.0;
    attributes.text("langfuse.observation.model.parameters", format!("{{\"temperature\":{temperature:.1}}}"));
    attributes.text("langfuse.observation.prompt.name", common.app.name);
    attributes.int("langfuse.observation.prompt.version", 3);
    if call.failed {
        return;
    }
    let mut usage = format!("{{\"input\":{}", call.input_tokens - call.cached_input_tokens);
    for (key, tokens) in [
        ("input_cached_tokens", call.cached_input_tokens),
        ("output", call.output_tokens - call.reasoning_tokens),
        ("output_reasoning_tokens", call.reasoning_tokens),
    ] {
        if tokens > 0 {
            usage.push_str(&format!(",\"{key}\":{tokens}"));
        }
    }
    usage.push_str(&format!(",\"total\":{}}}", call.input_tokens + call.output_tokens));
    attributes.text("langfuse.observation.usage_details", usage);
    if let Some(cost) = call.provided_cost {
        attributes.text("langfuse.observation.cost_details", format!("{{\"total\":{cost}}}"));
    }
    if let Some(first_token_us) = model.first_token_us {
        let at = DateTime::from_timestamp_micros(start_us + first_token_us).unwrap_or_default();
        let at = at.to_rfc3339_opts(SecondsFormat::Micros, true);
        attributes.text("langfuse.observation.completion_start_time", format!("\"{at}\""));
    }
}

fn open_inference(attributes: &mut Attributes, step: &Step, said: Option<Said>, common: &Circumstances) {
    people(attributes, common);
    attributes.texts("tag.tags", &common.tags);
    let pairs: Vec<String> = common.metadata.iter().map(|(key, value)| format!("\"{key}\": \"{value}\"")).collect();
    attributes.text("metadata", format!("{{{}}}", pairs.join(", ")));
    let kind = match step.kind {
        StepKind::Agent => "AGENT",
        StepKind::Chain => "CHAIN",
        StepKind::Generation => "LLM",
        StepKind::Embedding => "EMBEDDING",
        StepKind::Retriever => "RETRIEVER",
        StepKind::Tool => "TOOL",
        StepKind::Guardrail => "GUARDRAIL",
    };
    attributes.text("openinference.span.kind", kind);
    if step.kind == StepKind::Tool {
        attributes.text("tool.name", step.name);
    }
    if let Some(model) = &step.model {
        open_inference_call(attributes, step, model);
    }
    if let Some(said) = said {
        attributes.text("input.value", said.input);
        attributes
            .text("input.mime_type", if step.kind == StepKind::Generation { "application/json" } else { "text/plain" });
        attributes.text_if("output.value", said.output);
    }
}

fn open_inference_call(attributes: &mut Attributes, step: &Step, model: &ModelStep) {
    let call = &model.call;
    if step.kind == StepKind::Embedding {
        attributes.text("embedding.model_name", call.model);
    }
    attributes.text("llm.model_name", call.model);
    attributes.text("llm.provider", model.model.provider);
    if call.failed {
        return;
    }
    attributes.int("llm.token_count.prompt", call.input_tokens);
    if step.kind == StepKind::Generation {
        let temperature = model.temperature as f64 / 100.0;
        attributes.text("llm.invocation_parameters", format!("{{\"temperature\": {temperature:.1}}}"));
        attributes.int("llm.token_count.completion", call.output_tokens);
        attributes.text("llm.finish_reason", model.finish_reason);
    }
    attributes.int("llm.token_count.total", call.input_tokens + call.output_tokens);
    attributes.count("llm.token_count.prompt_details.cache_read", call.cached_input_tokens);
    attributes.count("llm.token_count.completion_details.reasoning", call.reasoning_tokens);
    if let Some(cost) = call.provided_cost {
        attributes.double("llm.cost.total", cost.pico() as f64 / 1e12);
    }
}

fn people(attributes: &mut Attributes, common: &Circumstances) {
    attributes.text_if("user.id", common.user_id.as_deref());
    attributes.text_if("session.id", common.session_id.as_deref());
    attributes.text_if("langfuse.environment", common.environment);
}
