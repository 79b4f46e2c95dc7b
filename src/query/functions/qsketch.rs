//! Quantile sketches in SQL: `qsketch(x)`, `qsketch_merge(sketch)`, `approx_quantile(x, q)`, `qsketch_quantile(sketch, q)`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::{exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, ColumnarValue, EmitTo, GroupsAccumulator, ScalarFunctionArgs, ScalarUDFImpl,
    Signature, Volatility,
};
use datafusion::physical_expr::expressions::Literal;
use datafusion::scalar::ScalarValue;

use super::sketch::Sketch;

/// What an aggregate takes and what it gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Form {
    /// Values in, a sketch out.
    Sketch,
    /// Sketches in, their sum out.
    Merge,
    /// Values in, a quantile out.
    Quantile,
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct QuantileSketch {
    form: Form,
    signature: Signature,
}

impl QuantileSketch {
    pub(super) fn new(form: Form) -> Self {
        let signature = match form {
            Form::Sketch => Signature::exact(vec![DataType::Float64], Volatility::Immutable),
            Form::Merge => Signature::exact(vec![DataType::Binary], Volatility::Immutable),
            Form::Quantile => Signature::exact(vec![DataType::Float64, DataType::Float64], Volatility::Immutable),
        };
        Self { form, signature }
    }

    fn groups(&self, args: &AccumulatorArgs<'_>) -> Result<Groups> {
        let quantile = match self.form {
            Form::Quantile => Some(literal_quantile(args)?),
            _ => None,
        };
        Ok(Groups { merges: self.form == Form::Merge, quantile, sketches: Vec::new(), bytes: 0 })
    }
}

fn literal_quantile(args: &AccumulatorArgs<'_>) -> Result<f64> {
    match args.exprs.get(1).and_then(|expr| expr.downcast_ref::<Literal>()).map(Literal::value) {
        Some(ScalarValue::Float64(Some(q))) if (0.0..=1.0).contains(q) => Ok(*q),
        _ => plan_err!("the second argument of approx_quantile is a number from 0 to 1, the same for all rows"),
    }
}

impl AggregateUDFImpl for QuantileSketch {
    fn name(&self) -> &str {
        match self.form {
            Form::Sketch => "qsketch",
            Form::Merge => "qsketch_merge",
            Form::Quantile => "approx_quantile",
        }
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.form {
            Form::Quantile => DataType::Float64,
            _ => DataType::Binary,
        })
    }
    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format!("{}[sketch]", args.name), DataType::Binary, true))])
    }
    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let mut groups = self.groups(&args)?;
        groups.resize(1);
        Ok(Box::new(One(groups)))
    }
    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        !args.is_distinct
    }
    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(self.groups(&args)?))
    }
    fn order_sensitivity(&self) -> datafusion::logical_expr::utils::AggregateOrderSensitivity {
        datafusion::logical_expr::utils::AggregateOrderSensitivity::Insensitive
    }
}

/// One sketch per group.
#[derive(Debug)]
struct Groups {
    merges: bool,
    quantile: Option<f64>,
    sketches: Vec<Sketch>,
    bytes: usize,
}

impl Groups {
    fn resize(&mut self, groups: usize) {
        self.bytes += groups.saturating_sub(self.sketches.len()) * size_of::<Sketch>();
        self.sketches.resize(groups.max(self.sketches.len()), Sketch::default());
    }

    fn change(&mut self, group: usize, change: impl FnOnce(&mut Sketch)) {
        let sketch = &mut self.sketches[group];
        let before = sketch.bytes();
        change(sketch);
        self.bytes = (self.bytes + sketch.bytes()).saturating_sub(before);
    }

    fn take(&mut self, emit_to: EmitTo) -> Vec<Sketch> {
        let taken = emit_to.take_needed(&mut self.sketches);
        self.bytes = self.sketches.iter().map(Sketch::bytes).sum();
        taken
    }

    fn merge(&mut self, values: &ArrayRef, groups: &[usize], filter: Option<&BooleanArray>) -> Result<()> {
        let sketches = values.as_binary::<i32>();
        for (row, group) in groups.iter().enumerate() {
            if sketches.is_valid(row) && passes(filter, row) {
                let sketch = Sketch::decode(sketches.value(row))?;
                self.change(*group, |own| own.merge(&sketch));
            }
        }
        Ok(())
    }
}

fn passes(filter: Option<&BooleanArray>, row: usize) -> bool {
    filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row))
}

impl GroupsAccumulator for Groups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total_groups: usize,
    ) -> Result<()> {
        self.resize(total_groups);
        if self.merges {
            return self.merge(&values[0], groups, filter);
        }
        let numbers = values[0].as_primitive::<Float64Type>();
        for (row, group) in groups.iter().enumerate() {
            if numbers.is_valid(row) && passes(filter, row) {
                self.change(*group, |sketch| sketch.add(numbers.value(row)));
            }
        }
        Ok(())
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total_groups: usize) -> Result<()> {
        self.resize(total_groups);
        self.merge(&values[0], groups, None)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        match self.quantile {
            Some(q) => Ok(Arc::new(self.take(emit_to).iter().map(|s| s.quantile(q)).collect::<Float64Array>())),
            None => Ok(self.state(emit_to)?.remove(0)),
        }
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let encoded = self.take(emit_to);
        Ok(vec![Arc::new(BinaryArray::from_iter_values(encoded.iter().map(Sketch::encode)))])
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = values[0].len();
        let mut alone = Groups { merges: self.merges, quantile: None, sketches: Vec::new(), bytes: 0 };
        alone.update_batch(values, &(0..rows).collect::<Vec<_>>(), filter, rows)?;
        alone.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.bytes
    }
}

/// The same for a query without groups.
#[derive(Debug)]
struct One(Groups);

impl Accumulator for One {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.update_batch(values, &vec![0; values[0].len()], None, 1)
    }
    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.0.merge_batch(states, &vec![0; states[0].len()], 1)
    }
    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(match self.0.quantile {
            Some(q) => ScalarValue::Float64(self.0.sketches[0].quantile(q)),
            None => ScalarValue::Binary(Some(self.0.sketches[0].encode())),
        })
    }
    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Binary(Some(self.0.sketches[0].encode()))])
    }
    fn size(&self) -> usize {
        self.0.size()
    }
}

/// `qsketch_quantile(sketch, q)`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct QuantileOf {
    signature: Signature,
}

impl QuantileOf {
    pub(super) fn new() -> Self {
        Self { signature: Signature::exact(vec![DataType::Binary, DataType::Float64], Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for QuantileOf {
    fn name(&self) -> &str {
        "qsketch_quantile"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let sketches = arrays[0].as_binary::<i32>();
        let quantiles = arrays[1].as_primitive::<Float64Type>();
        let quantile = |row: usize| -> Result<Option<f64>> {
            if sketches.is_null(row) || quantiles.is_null(row) {
                return Ok(None);
            }
            let q = quantiles.value(row);
            if !(0.0..=1.0).contains(&q) {
                return exec_err!("a quantile is a number from 0 to 1, not {q}");
            }
            Ok(Sketch::decode(sketches.value(row))?.quantile(q))
        };
        let found: Float64Array = (0..sketches.len()).map(quantile).collect::<Result<_>>()?;
        Ok(ColumnarValue::Array(Arc::new(found)))
    }
}
