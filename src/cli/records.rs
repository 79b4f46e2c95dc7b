//! Arrow record batches as a table, CSV or JSON.

use std::io::{self, Write};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow::{csv, json};
use comfy_table::Cell;

use super::sql::OutputFormat;
use super::{CliError, numbers, tables};

/// A table's widths are known only when all rows are; beyond this many the rest is counted, not held.
const TABLE_ROWS_MAX: usize = 10_000;

/// Takes batches one by one; CSV and JSON go straight out.
pub(super) enum RecordWriter<'o> {
    Table { batches: Vec<RecordBatch>, schema: SchemaRef, rows_left_out: usize, out: &'o mut (dyn Write + Send) },
    Csv(Box<csv::Writer<&'o mut (dyn Write + Send)>>),
    Json(json::ArrayWriter<&'o mut (dyn Write + Send)>),
}

impl<'o> RecordWriter<'o> {
    pub(super) fn new(
        format: OutputFormat,
        schema: SchemaRef,
        out: &'o mut (dyn Write + Send),
    ) -> Result<Self, CliError> {
        Ok(match format {
            OutputFormat::Table => Self::Table { batches: Vec::new(), schema, rows_left_out: 0, out },
            OutputFormat::Csv => {
                let mut writer = csv::WriterBuilder::new().with_header(true).build(out);
                // So that an empty answer still has its header.
                writer.write(&flat(&RecordBatch::new_empty(schema))?)?;
                Self::Csv(Box::new(writer))
            }
            OutputFormat::Json => Self::Json(json::WriterBuilder::new().with_explicit_nulls(true).build(out)),
        })
    }

    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<(), CliError> {
        match self {
            Self::Table { batches, rows_left_out, .. } => {
                let held: usize = batches.iter().map(RecordBatch::num_rows).sum();
                let kept = batch.num_rows().min(TABLE_ROWS_MAX - held);
                *rows_left_out += batch.num_rows() - kept;
                if kept > 0 {
                    batches.push(batch.slice(0, kept));
                }
            }
            Self::Csv(writer) => writer.write(&flat(batch)?)?,
            Self::Json(writer) => writer.write(batch)?,
        }
        Ok(())
    }

    pub(super) fn finish(self, rows: u64) -> Result<(), CliError> {
        match self {
            Self::Table { batches, schema, rows_left_out, out } => {
                writeln!(out, "{}", table(&schema, &batches)?)?;
                if rows_left_out > 0 {
                    let left_out = numbers::count(rows_left_out as i64);
                    writeln!(out, "… and {left_out} more rows: use --format csv or json to see all")?;
                }
                writeln!(out, "({} {})", numbers::count(rows as i64), if rows == 1 { "row" } else { "rows" })?;
            }
            Self::Csv(writer) => writer.into_inner().flush()?,
            Self::Json(mut writer) => {
                writer.finish()?;
                writeln!(writer.into_inner())?;
            }
        }
        Ok(())
    }
}

fn table(schema: &Schema, batches: &[RecordBatch]) -> Result<comfy_table::Table, ArrowError> {
    let mut table = tables::bare();
    let is_number: Vec<bool> = schema.fields().iter().map(|field| field.data_type().is_numeric()).collect();
    let header = schema
        .fields()
        .iter()
        .zip(&is_number)
        .map(|(field, is_number)| if *is_number { tables::right(field.name()) } else { Cell::new(field.name()) });
    table.set_header(header);
    let options = FormatOptions::default().with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.6f")).with_null("");
    for batch in batches {
        let columns = batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options));
        let columns: Vec<ArrayFormatter<'_>> = columns.collect::<Result<_, _>>()?;
        for row in 0..batch.num_rows() {
            let cells = columns.iter().zip(&is_number).map(|(column, is_number)| {
                if *is_number { tables::right(column.value(row)) } else { Cell::new(column.value(row)) }
            });
            table.add_row(cells.collect::<Vec<_>>());
        }
    }
    Ok(table)
}

/// CSV has no lists, maps, structs or bytes: they become text.
fn flat(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let schema = batch.schema();
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        if field.data_type().is_nested() || is_binary(field.data_type()) {
            fields.push(Arc::new(Field::new(field.name(), DataType::Utf8, true)));
            columns.push(text_of(column)?);
        } else {
            fields.push(field.clone());
            columns.push(column.clone());
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

fn is_binary(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_))
}

fn text_of(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(column, &options)?;
    let value = |row| (!column.is_null(row)).then(|| formatter.value(row).to_string());
    Ok(Arc::new((0..column.len()).map(value).collect::<StringArray>()))
}

/// Somebody stopped reading (`| head`): not an error worth a sentence.
pub(super) fn is_closed_pipe(error: &CliError) -> bool {
    match error {
        CliError::Local(error) => error.kind() == io::ErrorKind::BrokenPipe,
        CliError::Answer(ArrowError::IoError(_, error)) => error.kind() == io::ErrorKind::BrokenPipe,
        _ => false,
    }
}
