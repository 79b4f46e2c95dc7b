//! `samples(text)`: a few different values, the same ones in whatever order the rows come. In bounded memory.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListBuilder, StringBuilder};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};
use datafusion::scalar::ScalarValue;

const SAMPLES_MAX: usize = 5;

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Samples {
    signature: Signature,
}

impl Samples {
    pub(super) fn new() -> Self {
        Self { signature: Signature::exact(vec![DataType::Utf8], Volatility::Immutable) }
    }
}

fn texts() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)))
}

impl AggregateUDFImpl for Samples {
    fn name(&self) -> &str {
        "samples"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(texts())
    }
    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format!("{}[samples]", args.name), texts(), true))])
    }
    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Kept::default()))
    }
    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// The values with the smallest hashes: which ones is chance, but always the same chance.
#[derive(Debug, Default)]
struct Kept(BTreeSet<(u64, String)>);

impl Kept {
    fn add(&mut self, value: &str) {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        let hash = hasher.finish();
        if self.0.len() == SAMPLES_MAX && self.0.last().is_some_and(|(last, _)| *last <= hash) {
            return;
        }
        self.0.insert((hash, value.to_owned()));
        if self.0.len() > SAMPLES_MAX {
            self.0.pop_last();
        }
    }

    fn list(&self) -> ScalarValue {
        let mut list = ListBuilder::new(StringBuilder::new());
        self.0.iter().for_each(|(_, value)| list.values().append_value(value));
        list.append(true);
        ScalarValue::List(Arc::new(list.finish()))
    }
}

impl Accumulator for Kept {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        values[0].as_string::<i32>().iter().flatten().for_each(|value| self.add(value));
        Ok(())
    }
    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let lists = states[0].as_list::<i32>();
        for row in (0..lists.len()).filter(|row| lists.is_valid(*row)) {
            lists.value(row).as_string::<i32>().iter().flatten().for_each(|value| self.add(value));
        }
        Ok(())
    }
    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(self.list())
    }
    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.list()])
    }
    fn size(&self) -> usize {
        size_of::<Self>() + self.0.iter().map(|(_, value)| value.capacity() + 48).sum::<usize>()
    }
}
