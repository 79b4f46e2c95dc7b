//! Sums that do not depend on the order of rows, and averages rounded half to even (I6).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Float64Array};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Field, FieldRef, Float64Type, Int64Type};
use datafusion::common::plan_err;
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDFImpl, ColumnarValue, EmitTo, GroupsAccumulator, ScalarFunctionArgs, ScalarUDFImpl,
    Signature, Volatility,
};
use datafusion::scalar::ScalarValue;

/// `exact_sum(x)`: whole numbers and decimals in 128 bits; floats in units of 2⁻⁴⁰, so that their order does not matter.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ExactSum {
    in_units: bool,
    signature: Signature,
}

impl ExactSum {
    pub(super) fn new() -> Self {
        Self { in_units: false, signature: Signature::user_defined(Volatility::Immutable) }
    }

    /// `exact_units(x)`: floats are left in their units: sums of such sums are exact too.
    pub(super) fn in_units() -> Self {
        Self { in_units: true, ..Self::new() }
    }

    fn sums(&self, args: &AccumulatorArgs<'_>) -> Result<Sums> {
        Ok(Sums { input: args.exprs[0].data_type(args.schema)?, in_units: self.in_units, sums: Vec::new() })
    }
}

impl AggregateUDFImpl for ExactSum {
    fn name(&self) -> &str {
        if self.in_units { "exact_units" } else { "exact_sum" }
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [DataType::Decimal128(..) | DataType::Int64 | DataType::Float64] => Ok(types.to_vec()),
            [whole] if whole.is_integer() => Ok(vec![DataType::Int64]),
            [DataType::Float32 | DataType::Null] => Ok(vec![DataType::Float64]),
            _ => plan_err!("exact_sum takes one number"),
        }
    }
    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(match types[0] {
            DataType::Float64 if !self.in_units => DataType::Float64,
            ref other => DataType::Decimal128(DECIMAL128_MAX_PRECISION, scale_of(other)),
        })
    }
    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let scale = args.input_fields.first().map_or(0, |field| scale_of(field.data_type()));
        let state = DataType::Decimal128(DECIMAL128_MAX_PRECISION, scale);
        Ok(vec![Arc::new(Field::new(format!("{}[sum]", args.name), state, true))])
    }
    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(One(self.sums(&args)?)))
    }
    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        !args.is_distinct
    }
    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(self.sums(&args)?))
    }
    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

fn scale_of(input: &DataType) -> i8 {
    match input {
        DataType::Decimal128(_, scale) => *scale,
        _ => 0,
    }
}

/// 2⁴⁰: about 10⁻¹² is the smallest difference a sum of floats sees.
pub(in crate::query) const FLOAT_UNIT: f64 = 1_099_511_627_776.0;
/// Larger floats count as this much, which leaves room for a million of them.
const FLOAT_MOST: f64 = 1e20;

#[derive(Debug)]
struct Sums {
    input: DataType,
    in_units: bool,
    sums: Vec<Option<i128>>,
}

impl Sums {
    fn add(&mut self, group: usize, amount: i128) {
        let sum = &mut self.sums[group];
        *sum = Some(sum.unwrap_or(0).saturating_add(amount));
    }

    fn take(&mut self, emit_to: EmitTo) -> Vec<Option<i128>> {
        emit_to.take_needed(&mut self.sums)
    }

    fn decimals(&self, sums: Vec<Option<i128>>) -> ArrayRef {
        let kind = DataType::Decimal128(DECIMAL128_MAX_PRECISION, scale_of(&self.input));
        Arc::new(Decimal128Array::from(sums).with_data_type(kind))
    }

    fn result(&self, sums: Vec<Option<i128>>) -> ArrayRef {
        match self.input {
            DataType::Float64 if !self.in_units => {
                Arc::new(sums.iter().map(|sum| sum.map(|sum| sum as f64 / FLOAT_UNIT)).collect::<Float64Array>())
            }
            _ => self.decimals(sums),
        }
    }
}

impl GroupsAccumulator for Sums {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total_groups: usize,
    ) -> Result<()> {
        self.sums.resize(total_groups.max(self.sums.len()), None);
        let values = &values[0];
        let counts =
            |row: usize| values.is_valid(row) && filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
        let rows = groups.iter().enumerate().filter(|(row, _)| counts(*row));
        match self.input {
            DataType::Int64 => {
                let numbers = values.as_primitive::<Int64Type>();
                rows.for_each(|(row, group)| self.add(*group, i128::from(numbers.value(row))));
            }
            DataType::Float64 => {
                let numbers = values.as_primitive::<Float64Type>();
                let units = |value: f64| (value.clamp(-FLOAT_MOST, FLOAT_MOST) * FLOAT_UNIT).round_ties_even() as i128;
                let finite = rows.filter(|(row, _)| !numbers.value(*row).is_nan());
                finite.for_each(|(row, group)| self.add(*group, units(numbers.value(row))));
            }
            _ => {
                let numbers = values.as_primitive::<Decimal128Type>();
                rows.for_each(|(row, group)| self.add(*group, numbers.value(row)));
            }
        }
        Ok(())
    }

    fn merge_batch(&mut self, values: &[ArrayRef], groups: &[usize], total_groups: usize) -> Result<()> {
        self.sums.resize(total_groups.max(self.sums.len()), None);
        let sums = values[0].as_primitive::<Decimal128Type>();
        for (row, group) in groups.iter().enumerate().filter(|(row, _)| sums.is_valid(*row)) {
            self.add(*group, sums.value(row));
        }
        Ok(())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let sums = self.take(emit_to);
        Ok(self.result(sums))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let sums = self.take(emit_to);
        Ok(vec![self.decimals(sums)])
    }

    fn convert_to_state(&self, values: &[ArrayRef], filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = values[0].len();
        let mut alone = Sums { input: self.input.clone(), in_units: true, sums: Vec::new() };
        alone.update_batch(values, &(0..rows).collect::<Vec<_>>(), filter, rows)?;
        alone.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.sums.capacity() * size_of::<Option<i128>>()
    }
}

/// The same for a query without groups.
#[derive(Debug)]
struct One(Sums);

impl One {
    fn scalar(&mut self, result: bool) -> Result<ScalarValue> {
        self.0.sums.resize(1, None);
        let sums = self.0.sums.clone();
        let array = if result { self.0.result(sums) } else { self.0.decimals(sums) };
        ScalarValue::try_from_array(&array, 0)
    }
}

impl Accumulator for One {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.update_batch(values, &vec![0; values[0].len()], None, 1)
    }
    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.0.merge_batch(states, &vec![0; states[0].len()], 1)
    }
    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.scalar(true)
    }
    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.scalar(false)?])
    }
    fn size(&self) -> usize {
        self.0.size()
    }
}

/// `exact_ratio(sum, count)`: a decimal divided by a whole number, rounded half to even at the decimal's own scale.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ExactRatio {
    signature: Signature,
}

impl ExactRatio {
    pub(super) fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for ExactRatio {
    fn name(&self) -> &str {
        "exact_ratio"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [sum @ DataType::Decimal128(..), count] if count.is_integer() => Ok(vec![sum.clone(), DataType::Int64]),
            _ => plan_err!("exact_ratio takes a decimal and a whole number"),
        }
    }
    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let (sums, counts) = (arrays[0].as_primitive::<Decimal128Type>(), arrays[1].as_primitive::<Int64Type>());
        let pairs = sums.iter().zip(counts.iter());
        let ratios: Decimal128Array = pairs.map(|(sum, count)| half_even(sum?, i128::from(count?))).collect();
        Ok(ColumnarValue::Array(Arc::new(ratios.with_data_type(arrays[0].data_type().clone()))))
    }
}

fn half_even(sum: i128, count: i128) -> Option<i128> {
    if count <= 0 {
        return None;
    }
    let (down, rest) = (sum.div_euclid(count), sum.rem_euclid(count));
    let up = match (rest * 2).cmp(&count) {
        std::cmp::Ordering::Less => 0,
        std::cmp::Ordering::Equal => down & 1,
        std::cmp::Ordering::Greater => 1,
    };
    Some(down + up)
}

#[cfg(test)]
mod tests {
    use super::half_even;

    #[test]
    fn halves_go_to_the_even_neighbour_on_both_sides_of_zero() {
        let cases = [(5, 2, 2), (7, 2, 4), (-5, 2, -2), (-7, 2, -4), (1, 3, 0), (2, 3, 1), (-2, 3, -1), (10, 4, 2)];
        for (sum, count, expected) in cases {
            assert_eq!(half_even(sum, count), Some(expected), "{sum}/{count}");
        }
        assert_eq!(half_even(1, 0), None);
    }
}
