//! The generator itself: it must be so fast that other benches do not measure it.

use prost::Message;
use tracelake::corpus::{Corpus, CorpusConfig, TextSize, requests};

use crate::Settings;
use crate::report::{Baseline, Report};
use crate::timing::median;

/// What the generator promises without text.
const PROMISE: Baseline = Baseline { name: "promise", value: 300_000.0 };
/// Spans with prompts are some ten times larger.
const TEXT_SHARE: u64 = 10;

pub(crate) fn run(settings: &Settings, report: &mut Report) {
    for (name, text, observations) in [
        ("no text", TextSize::None, settings.observations),
        ("small text", TextSize::Small, settings.observations),
        ("prompts", TextSize::Prompts, (settings.observations / TEXT_SHARE).max(1)),
    ] {
        let config = config(observations, text);
        let timing =
            median(|| config.clone(), |config| Corpus::new(config).map(|trace| trace.spans.len()).sum::<usize>());
        let baseline = (text == TextSize::None).then_some(PROMISE);
        report.rate(&format!("generate, {name}"), observations, "spans/s", &timing, baseline);
        let bytes: usize = requests(config, 500).map(|request| request.encoded_len()).sum();
        report.value(&format!("OTLP size, {name}"), bytes as f64 / observations.max(1) as f64, "B/span");
    }
}

/// The data of every bench: a day of one tenant, seed 42.
pub(crate) fn config(observations: u64, text: TextSize) -> CorpusConfig {
    CorpusConfig { observations, text, ..CorpusConfig::default() }
}
