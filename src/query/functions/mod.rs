//! The functions we add to the engine's own. Names and meanings are part of what SQL users rely on.

mod any_case;
mod bounded;
mod exact;
mod fingerprint;
mod groups;
mod hour;
mod qsketch;
mod samples;
mod sketch;
mod time_bucket;

use std::sync::Arc;

use datafusion::logical_expr::{AggregateUDF, ScalarUDF};

pub(super) use bounded::{bounded, text_concat};
pub(super) use exact::FLOAT_UNIT;
pub(super) use groups::{OrNone, ShownGroup};
pub(super) use hour::HOUR_US;
pub(super) use sketch::{ALPHA as SKETCH_ERROR, Bin};

use qsketch::Form;

pub(super) fn scalars() -> Vec<Arc<ScalarUDF>> {
    vec![Arc::new(time_bucket()), Arc::new(sketch_quantile()), Arc::new(exact_ratio()), Arc::new(error_fingerprint())]
}

pub(super) fn aggregates() -> Vec<Arc<AggregateUDF>> {
    let quantile = AggregateUDF::from(qsketch::QuantileSketch::new(Form::Quantile));
    vec![Arc::new(sketch()), Arc::new(sketch_merge()), Arc::new(quantile), Arc::new(exact_sum()), Arc::new(samples())]
}

pub(super) fn time_bucket() -> ScalarUDF {
    ScalarUDF::from(time_bucket::TimeBucket::new())
}
pub(super) fn sketch() -> AggregateUDF {
    AggregateUDF::from(qsketch::QuantileSketch::new(Form::Sketch))
}
pub(super) fn sketch_merge() -> AggregateUDF {
    AggregateUDF::from(qsketch::QuantileSketch::new(Form::Merge))
}
pub(super) fn sketch_quantile() -> ScalarUDF {
    ScalarUDF::from(qsketch::QuantileOf::new())
}
pub(super) fn exact_sum() -> AggregateUDF {
    AggregateUDF::from(exact::ExactSum::new())
}
/// Sums of floats as whole numbers of units, of which [`FLOAT_UNIT`] make one.
pub(super) fn exact_units() -> AggregateUDF {
    AggregateUDF::from(exact::ExactSum::in_units())
}
/// Not for SQL, which has `time_bucket`.
pub(super) fn hour_of() -> ScalarUDF {
    ScalarUDF::from(hour::HourOf::new())
}
pub(super) fn exact_ratio() -> ScalarUDF {
    ScalarUDF::from(exact::ExactRatio::new())
}
pub(super) fn error_fingerprint() -> ScalarUDF {
    ScalarUDF::from(fingerprint::ErrorFingerprint::new())
}
/// Not for SQL: it takes a text of ASCII only.
pub(super) fn holds_any_case() -> ScalarUDF {
    ScalarUDF::from(any_case::HoldsAnyCase::new())
}
pub(super) fn samples() -> AggregateUDF {
    AggregateUDF::from(samples::Samples::new())
}
/// The quantiles of an encoded sketch.
pub(super) fn quantiles(sketch: &[u8]) -> Option<impl Fn(f64) -> Option<f64> + use<>> {
    let sketch = sketch::Sketch::decode(sketch).ok()?;
    Some(move |q| sketch.quantile(q))
}
/// An encoded sketch as a histogram.
pub(super) fn bins(sketch: &[u8], count: u32) -> Option<Vec<Bin>> {
    Some(sketch::Sketch::decode(sketch).ok()?.bins(count))
}
