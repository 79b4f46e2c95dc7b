//! Functions whose result can be far larger than what they are given. The engine counts memory where rows are kept, not
//! while they are made: these are weighed before they run (I7).

use std::any::Any;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringViewArray};
use arrow::compute::{cast, kernels::length::length, max, sum};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema};
use datafusion::error::Result;
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Column};

use crate::query::memory::Outputs;
use crate::query::stream::bytes_of_column;

/// Those that are weighed, by the name the engine knows them by.
const GROWING: [&str; 28] = [
    "array_append",
    "array_concat",
    "array_prepend",
    "array_replace",
    "array_replace_all",
    "array_replace_n",
    "array_to_string",
    "array_union",
    "arrays_zip",
    "concat",
    "concat_ws",
    "date_format",
    "flatten",
    "lpad",
    "make_array",
    "map",
    "named_struct",
    "overlay",
    "regexp_match",
    "regexp_replace",
    "repeat",
    "replace",
    "rpad",
    "string_to_array",
    "struct",
    "to_char",
    "translate",
    CONCAT,
];

const CONCAT: &str = "||";

/// The function to call instead, if this one is among them and not weighed yet.
pub(in crate::query) fn bounded(function: &Arc<ScalarUDF>, outputs: &Arc<Outputs>) -> Option<Arc<ScalarUDF>> {
    let inner: &dyn Any = function.inner().as_ref();
    let is_bounded = inner.is::<Bounded>();
    (!is_bounded && GROWING.contains(&function.name())).then(|| {
        let bounded = Bounded { inner: Arc::clone(function), outputs: Arc::clone(outputs) };
        Arc::new(ScalarUDF::from(bounded))
    })
}

/// What `a || b` is called as.
pub(in crate::query) fn text_concat() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::from(TextConcat { signature: Signature::any(2, Volatility::Immutable) }))
}

#[derive(Debug)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    outputs: Arc<Outputs>,
}

impl PartialEq for Bounded {
    fn eq(&self, other: &Self) -> bool {
        self.inner == other.inner && Arc::ptr_eq(&self.outputs, &other.outputs)
    }
}

impl Eq for Bounded {}

impl Hash for Bounded {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }
    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }
    fn signature(&self) -> &Signature {
        self.inner.signature()
    }
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }
    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }
    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }
    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let room = self.outputs.admit(bytes_at_most(self.inner.name(), &args.args, args.number_rows)?)?;
        let result = self.inner.invoke_with_args(args)?;
        if let ColumnarValue::Array(array) = &result {
            room.fill(array, bytes_of_column(array));
        }
        Ok(result)
    }
}

/// What the result of a function can weigh at most.
fn bytes_at_most(function: &str, args: &[ColumnarValue], rows: usize) -> Result<u64> {
    let given = || args.iter().map(|arg| weigh(arg, rows)).fold(0, u64::saturating_add);
    let count = args.len() as u64;
    Ok(match (function, args) {
        ("repeat", [text, times]) => by_row(text, times, rows, |text, times| text.saturating_mul(times))?,
        // A character has up to four bytes.
        ("lpad" | "rpad", [_, width, ..]) => {
            numbers(width, rows)?.into_iter().fold(given(), |all, width| all.saturating_add(width.saturating_mul(4)))
        }
        ("replace", [text, from, to]) => {
            let (froms, tos) = (lengths(from, rows)?, lengths(to, rows)?);
            let texts = lengths(text, rows)?.into_iter().zip(froms).zip(tos);
            texts.fold(0, |all, ((text, from), to)| {
                let found = text.checked_div(from).unwrap_or(0);
                all.saturating_add(text.saturating_add(found.saturating_mul(to)))
            })
        }
        ("regexp_replace", [text, _, with, ..]) => {
            let (texts, with) = (lengths(text, rows)?, words(with, rows)?);
            texts.into_iter().enumerate().fold(0, |all, (row, text)| {
                let with = if with.is_valid(row) { with.value(row) } else { "" };
                // What groups catch is part of the text, and no part is in two matches.
                let groups = with.bytes().filter(|byte| matches!(byte, b'\\' | b'$')).count() as u64;
                let written = (text + 1).saturating_mul(with.len() as u64);
                all.saturating_add(text.saturating_mul(groups + 1)).saturating_add(written)
            })
        }
        ("regexp_match", [text, pattern, ..]) => {
            let patterns = words(pattern, rows)?;
            let groups = |pattern: &str| pattern.bytes().filter(|byte| *byte == b'(').count() as u64 + 1;
            weigh(text, rows).saturating_mul(patterns.iter().flatten().map(groups).max().unwrap_or(1))
        }
        ("array_to_string", [list, between @ ..]) => {
            let between = between.iter().map(|word| longest(word, rows)).sum::<Result<u64>>()?;
            given().saturating_add(elements(list, rows)?.saturating_mul(between.saturating_add(NUMBER_BYTES)))
        }
        ("array_replace" | "array_replace_n" | "array_replace_all", [list, _, to, ..]) => {
            given().saturating_add(elements(list, rows)?.saturating_mul(longest(to, rows)?))
        }
        // Each character may become a text of its own.
        ("string_to_array", _) => given().saturating_mul(20),
        ("concat_ws", [between, ..]) => given().saturating_add(weigh(between, rows).saturating_mul(count)),
        // Short lists are filled up to the longest.
        ("arrays_zip", _) => given().saturating_mul(count.max(1)),
        // `%+` is a whole date.
        ("to_char" | "date_format", _) => given().saturating_mul(20),
        ("translate", _) => given().saturating_mul(4),
        _ => given(),
    })
}

/// A number as text.
const NUMBER_BYTES: u64 = 48;

fn weigh(value: &ColumnarValue, rows: usize) -> u64 {
    match value {
        ColumnarValue::Array(array) => bytes_of_column(array),
        ColumnarValue::Scalar(scalar) => (scalar.size() as u64).saturating_mul(rows as u64),
    }
}

fn by_row(a: &ColumnarValue, b: &ColumnarValue, rows: usize, of: fn(u64, u64) -> u64) -> Result<u64> {
    let pairs = lengths(a, rows)?.into_iter().zip(numbers(b, rows)?);
    Ok(pairs.fold(0, |all, (a, b)| all.saturating_add(of(a, b))))
}

/// Bytes of each text; none where it is null.
fn lengths(value: &ColumnarValue, rows: usize) -> Result<Vec<u64>> {
    let texts = words(value, rows)?;
    Ok((0..texts.len()).map(|row| if texts.is_valid(row) { texts.value(row).len() as u64 } else { 0 }).collect())
}

fn words(value: &ColumnarValue, rows: usize) -> Result<StringViewArray> {
    let words = match value {
        ColumnarValue::Array(array) => cast(array, &DataType::Utf8View)?,
        // Written once for all rows.
        ColumnarValue::Scalar(scalar) => scalar.cast_to(&DataType::Utf8View)?.to_array_of_size(rows)?,
    };
    Ok(words.as_string_view().clone())
}

fn numbers(value: &ColumnarValue, rows: usize) -> Result<Vec<u64>> {
    let numbers = cast(&value.to_array(rows)?, &DataType::Int64)?;
    Ok(numbers.as_primitive::<Int64Type>().iter().map(|number| number.unwrap_or(0).max(0) as u64).collect())
}

/// How many elements the lists have, all rows together.
fn elements(value: &ColumnarValue, rows: usize) -> Result<u64> {
    let lists = value.to_array(rows)?;
    if !matches!(lists.data_type(), DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..)) {
        return Ok(bytes_of_column(&lists));
    }
    let lengths = cast(&length(&lists)?, &DataType::Int64)?;
    let count = sum(lengths.as_primitive::<Int64Type>()).unwrap_or(0).max(0) as u64;
    // An element may be a list itself.
    Ok(count.max(match lists.data_type() {
        DataType::List(field) | DataType::LargeList(field) if field.data_type().is_nested() => bytes_of_column(&lists),
        _ => count,
    }))
}

/// Bytes of the largest value.
fn longest(value: &ColumnarValue, rows: usize) -> Result<u64> {
    match value {
        ColumnarValue::Scalar(scalar) => Ok(scalar.size() as u64),
        ColumnarValue::Array(array) => match array.data_type() {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                let lengths = cast(&length(array)?, &DataType::Int64)?;
                Ok(max(lengths.as_primitive::<Int64Type>()).unwrap_or(0).max(0) as u64)
            }
            _ => Ok(weigh(value, rows)),
        },
    }
}

/// `a || b`: null where one of them is.
#[derive(Debug, PartialEq, Eq, Hash)]
struct TextConcat {
    signature: Signature,
}

impl ScalarUDFImpl for TextConcat {
    fn name(&self) -> &str {
        CONCAT
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        BinaryTypeCoercer::new(&types[0], &Operator::StringConcat, &types[1]).get_result_type()
    }
    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, nullable)))
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays: Vec<ArrayRef> =
            args.args.iter().map(|arg| arg.to_array(args.number_rows)).collect::<Result<Vec<_>>>()?;
        let names = ["left", "right"];
        let fields: Vec<Field> =
            names.iter().zip(&arrays).map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?;
        let side = |at: usize| Arc::new(Column::new(names[at], at)) as Arc<dyn PhysicalExpr>;
        BinaryExpr::new(side(0), Operator::StringConcat, side(1)).evaluate(&rows)
    }
}
