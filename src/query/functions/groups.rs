//! Two functions only the metrics compiler uses: which of the shown groups a row is in, and lists that lose no row.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray, RecordBatch, UInt32Array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{cast, take};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

/// `shown_group(dimensions…)`: the rank of the group a row belongs to; one past the last for all others together.
#[derive(Debug)]
pub(in crate::query) struct ShownGroup {
    signature: Signature,
    types: Vec<DataType>,
    converter: RowConverter,
    /// By the bytes of the row: of all rows that are looked up none is copied.
    ranks: Arc<HashMap<Box<[u8]>, i64>>,
}

impl ShownGroup {
    /// `groups`: the dimensions of each shown group, best first.
    pub(in crate::query) fn new(groups: &RecordBatch) -> Result<Self> {
        let types: Vec<DataType> = groups.columns().iter().map(|column| column.data_type().clone()).collect();
        let converter = RowConverter::new(types.iter().cloned().map(SortField::new).collect())?;
        let rows = converter.convert_columns(groups.columns())?;
        let ranks = Arc::new(rows.iter().enumerate().map(|(rank, row)| (row.as_ref().into(), rank as i64)).collect());
        Ok(Self { signature: Signature::any(types.len(), Volatility::Immutable), types, converter, ranks })
    }
}

impl PartialEq for ShownGroup {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.ranks, &other.ranks)
    }
}

impl Eq for ShownGroup {}

impl Hash for ShownGroup {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.ranks).hash(state);
    }
}

impl ScalarUDFImpl for ShownGroup {
    fn name(&self) -> &str {
        "shown_group"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int64)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = args
            .args
            .iter()
            .zip(&self.types)
            .map(|(value, kind)| Ok(cast(&value.to_array(args.number_rows)?, kind)?))
            .collect::<Result<Vec<ArrayRef>>>()?;
        let rows = self.converter.convert_columns(&arrays)?;
        let others = self.ranks.len() as i64;
        let ranks: Int64Array =
            rows.iter().map(|row| Some(self.ranks.get(row.as_ref()).copied().unwrap_or(others))).collect();
        Ok(ColumnarValue::Array(Arc::new(ranks)))
    }
}

/// `or_none(list)`: an empty list becomes a list of one null, so that taking it apart keeps its row.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(in crate::query) struct OrNone {
    signature: Signature,
}

impl OrNone {
    pub(in crate::query) fn new() -> Self {
        Self { signature: Signature::any(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for OrNone {
    fn name(&self) -> &str {
        "or_none"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let array = args.args[0].to_array(args.number_rows)?;
        let (Some(lists), DataType::List(element)) = (array.as_list_opt::<i32>(), array.data_type()) else {
            return exec_err!("or_none takes a list");
        };
        let is_empty = |row: usize| lists.is_null(row) || lists.value_length(row) == 0;
        if !(0..lists.len()).any(is_empty) {
            return Ok(ColumnarValue::Array(array));
        }
        let offsets = lists.value_offsets();
        let mut places: Vec<Option<u32>> = Vec::with_capacity(lists.values().len() + lists.len());
        let mut lengths = Vec::with_capacity(lists.len());
        for row in 0..lists.len() {
            let before = places.len();
            match is_empty(row) {
                true => places.push(None),
                false => places.extend((offsets[row]..offsets[row + 1]).map(|place| Some(place as u32))),
            }
            lengths.push(places.len() - before);
        }
        let values = take(lists.values(), &UInt32Array::from(places), None)?;
        let filled = ListArray::try_new(Arc::clone(element), OffsetBuffer::from_lengths(lengths), values, None)?;
        Ok(ColumnarValue::Array(Arc::new(filled)))
    }
}
