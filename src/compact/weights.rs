//! How much the rows of a row group weigh, before they are decoded.

use std::collections::BTreeMap;
use std::ops::Range;

use parquet::basic::Type as PhysicalType;
use parquet::file::metadata::ParquetMetaData;

/// How many bytes the rows of a row group take when decoded, from the sizes of its pages: one weight for each stretch of
/// rows that lie on the same pages.
#[derive(Debug, Default)]
pub(super) struct Weights(Vec<(usize, f64)>);

impl Weights {
    pub(super) fn of(parquet: &ParquetMetaData, row_group: usize) -> Self {
        let group = parquet.row_group(row_group);
        let rows = group.num_rows().max(1) as usize;
        let places = parquet.offset_index().and_then(|index| index.get(row_group));
        let mut changes: BTreeMap<usize, f64> = BTreeMap::new();
        let mut page = |range: Range<usize>, bytes: f64| {
            let weight = bytes / (range.len().max(1)) as f64;
            *changes.entry(range.start).or_default() += weight;
            *changes.entry(range.end).or_default() -= weight;
        };
        for (at, column) in group.columns().iter().enumerate() {
            // A value's own slot, and its share of the bytes of the column.
            let slot = match column.column_type() {
                PhysicalType::BOOLEAN => 1.0,
                PhysicalType::INT32 | PhysicalType::FLOAT => 4.0,
                _ => 16.0,
            };
            let index = places.and_then(|places| places.get(at)).filter(|index| !index.page_locations().is_empty());
            let Some(index) = index else {
                page(0..rows, column.uncompressed_size().max(0) as f64 + slot * rows as f64);
                continue;
            };
            let starts: Vec<usize> = index.page_locations().iter().map(|page| page.first_row_index as usize).collect();
            let text = index.unencoded_byte_array_data_bytes();
            for (number, start) in starts.iter().enumerate() {
                let end = starts.get(number + 1).copied().unwrap_or(rows);
                let bytes = text.and_then(|text| text.get(number)).map_or(0, |bytes| (*bytes).max(0));
                page(*start..end.max(*start), bytes as f64 + slot * (end.saturating_sub(*start)) as f64);
            }
        }
        let mut weight = 0.0;
        Self(
            changes
                .into_iter()
                .map(|(row, change)| {
                    (row, {
                        weight += change;
                        weight
                    })
                })
                .collect(),
        )
    }

    /// So many rows take at most `bytes`, wherever they are; at least one.
    pub(super) fn rows_anywhere(&self, bytes: u64) -> usize {
        let heaviest = self.0.iter().map(|(_, weight)| *weight).fold(1.0, f64::max);
        ((bytes as f64 / heaviest) as usize).max(1)
    }

    /// How many rows from `from` on take at most `bytes`; at least one.
    pub(super) fn rows_within(&self, from: usize, bytes: u64, rows: usize) -> usize {
        let mut left = bytes as f64;
        let mut row = from;
        let mut at = self.0.partition_point(|(start, _)| *start <= from).saturating_sub(1);
        while row < rows {
            let end = self.0.get(at + 1).map_or(rows, |(start, _)| (*start).min(rows));
            let weight = self.0.get(at).map_or(1.0, |(_, weight)| weight.max(1.0));
            let whole = (end - row) as f64 * weight;
            if whole > left {
                row += (left / weight) as usize;
                break;
            }
            left -= whole;
            row = end;
            at += 1;
        }
        (row - from).clamp(1, rows - from)
    }
}
