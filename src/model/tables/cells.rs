//! The columns of a batch, found by name and read a value at a time. A column that the batch does not have reads as
//! null: files written before it was added are as good as new ones.

use std::collections::BTreeMap;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BinaryViewArray, BooleanArray, Decimal128Array, Float64Array,
    Int64Array, ListArray, MapArray, PrimitiveArray, RecordBatch, StringViewArray, TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{Decimal128Type, Int64Type};

use super::ColumnType;
use crate::base::Money as Amount;
use crate::model::ReadError;

/// One column of a batch, or the lack of it.
#[derive(Debug)]
pub(super) struct Cells<A> {
    name: &'static str,
    array: Option<A>,
}

// One name for each of the column types that rows are read from.
pub(super) type Text = Cells<StringViewArray>;
pub(super) type Long = Cells<Int64Array>;
pub(super) type Double = Cells<Float64Array>;
pub(super) type Boolean = Cells<BooleanArray>;
pub(super) type Timestamp = Cells<TimestampMicrosecondArray>;
pub(super) type Money = Cells<Decimal128Array>;
pub(super) type Binary = Cells<BinaryViewArray>;
pub(super) type TextList = Cells<ListArray>;
pub(super) type TextMap = Cells<MapArray>;
pub(super) type LongMap = Cells<MapArray>;
pub(super) type MoneyMap = Cells<MapArray>;

/// Declares a struct with a column of a batch in each field, and how to find them all.
macro_rules! cells {
    ($name:ident { $($field:ident: $kind:ident $(= $column:literal)?),* $(,)? }) => {
        #[derive(Debug)]
        struct $name { $($field: $crate::model::tables::cells::$kind),* }

        impl $name {
            fn of(batch: &arrow::array::RecordBatch) -> Result<Self, $crate::model::ReadError> {
                Ok(Self {
                    $($field: $crate::model::tables::cells::Cells::of(
                        batch,
                        cells!(@name $field $($column)?),
                        $crate::model::tables::ColumnType::$kind,
                    )?),*
                })
            }
        }
    };
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $column:literal) => { $column };
}
pub(super) use cells;

/// The column as the table declares it, whatever encoding it came in.
pub(super) fn find(batch: &RecordBatch, name: &'static str, kind: ColumnType) -> Result<Option<ArrayRef>, ReadError> {
    let Some(column) = batch.column_by_name(name) else { return Ok(None) };
    let expected = kind.arrow();
    if *column.data_type() == expected {
        return Ok(Some(ArrayRef::clone(column)));
    }
    let found = column.data_type().clone();
    cast(column, &expected).map(Some).map_err(|_| ReadError::ColumnType { column: name, found, expected })
}

impl<A: Array + Clone + 'static> Cells<A> {
    pub(super) fn of(batch: &RecordBatch, name: &'static str, kind: ColumnType) -> Result<Self, ReadError> {
        let array = find(batch, name, kind)?;
        let array = array.map(|array| array.as_any().downcast_ref::<A>().expect("the array of its type").clone());
        Ok(Self { name, array })
    }

    pub(super) fn is_missing(&self) -> bool {
        self.array.is_none()
    }

    fn at(&self, row: usize) -> Option<&A> {
        self.array.as_ref().filter(|array| array.is_valid(row))
    }

    fn needed<T>(&self, row: usize, value: Option<T>) -> Result<T, ReadError> {
        let column = self.name;
        value.ok_or(match self.is_missing() {
            true => ReadError::MissingColumn(column),
            false => ReadError::MissingValue { column, row },
        })
    }
}

impl Text {
    pub(super) fn get(&self, row: usize) -> Option<&str> {
        self.at(row).map(|array| array.value(row))
    }

    pub(super) fn owned(&self, row: usize) -> Option<String> {
        self.get(row).map(str::to_owned)
    }

    /// The value of a column that has one in every row.
    pub(super) fn key(&self, row: usize) -> Result<String, ReadError> {
        self.needed(row, self.owned(row))
    }
}

impl<P: ArrowPrimitiveType> Cells<PrimitiveArray<P>> {
    pub(super) fn get(&self, row: usize) -> Option<P::Native> {
        self.at(row).map(|array| array.value(row))
    }
}

impl Timestamp {
    /// The value of a column that has one in every row.
    pub(super) fn always(&self, row: usize) -> Result<i64, ReadError> {
        self.needed(row, self.get(row))
    }
}

impl Money {
    pub(super) fn amount(&self, row: usize) -> Option<Amount> {
        self.get(row).and_then(amount)
    }
}

impl Boolean {
    pub(super) fn get(&self, row: usize) -> Option<bool> {
        self.at(row).map(|array| array.value(row))
    }
}

impl Binary {
    pub(super) fn get(&self, row: usize) -> Option<&[u8]> {
        self.at(row).map(|array| array.value(row))
    }
}

impl TextList {
    pub(super) fn texts(&self, row: usize) -> Vec<String> {
        let Some(list) = self.at(row) else { return Vec::new() };
        let offsets = list.value_offsets();
        let texts = list.values().as_string::<i32>();
        let range = offsets[row] as usize..offsets[row + 1] as usize;
        range.filter(|at| texts.is_valid(*at)).map(|at| texts.value(at).to_owned()).collect()
    }
}

impl TextMap {
    pub(super) fn texts(&self, row: usize) -> BTreeMap<String, String> {
        self.entries(row, |map, at| {
            let values = map.values().as_string::<i32>();
            values.is_valid(at).then(|| values.value(at).to_owned())
        })
    }

    pub(super) fn longs(&self, row: usize) -> BTreeMap<String, i64> {
        self.entries(row, |map, at| {
            let values = map.values().as_primitive::<Int64Type>();
            values.is_valid(at).then(|| values.value(at))
        })
    }

    pub(super) fn amounts(&self, row: usize) -> BTreeMap<String, Amount> {
        self.entries(row, |map, at| {
            let values = map.values().as_primitive::<Decimal128Type>();
            values.is_valid(at).then(|| values.value(at)).and_then(amount)
        })
    }

    /// A key without a value is as good as none.
    fn entries<V>(&self, row: usize, value: impl Fn(&MapArray, usize) -> Option<V>) -> BTreeMap<String, V> {
        let Some(map) = self.at(row) else { return BTreeMap::new() };
        let offsets = map.value_offsets();
        let keys = map.keys().as_string::<i32>();
        let range = offsets[row] as usize..offsets[row + 1] as usize;
        range.filter_map(|at| Some((keys.value(at).to_owned(), value(map, at)?))).collect()
    }
}

/// Eighteen digits fit; what others wrote and does not fit is no amount.
fn amount(pico: i128) -> Option<Amount> {
    i64::try_from(pico).ok().map(Amount::from_pico)
}
