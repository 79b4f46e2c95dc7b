//! Sorted inputs become one sorted stream. Rows are compared by their sort columns only, and moved in runs.

use std::cmp::Ordering;
use std::collections::VecDeque;

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use arrow::row::{RowConverter, Rows, SortField};

use super::fold::Fold;
use super::input::FileInput;
use super::{CompactError, Result};
use crate::model::tables::Table;

/// Rows put together at once.
const BATCH_ROWS_MAX: usize = 8_192;

/// Where sorted rows come from.
pub(super) enum Source {
    File(Box<FileInput>),
    /// Rows in memory already.
    Rows(VecDeque<RecordBatch>),
}

impl Source {
    fn name(&self) -> &str {
        match self {
            Self::File(file) => file.path(),
            Self::Rows(_) => "the replacement rows",
        }
    }

    fn held_bytes(&self) -> u64 {
        match self {
            Self::File(file) => file.held_bytes(),
            Self::Rows(batches) => batches.iter().map(|batch| batch.get_array_memory_size() as u64).sum(),
        }
    }

    fn forget_pages(&mut self) {
        if let Self::File(file) = self {
            file.forget_pages();
        }
    }

    /// The next rows to merge, and how many were dropped on the way.
    pub(super) async fn next(&mut self, fold: &dyn Fold, table: Table) -> Result<Option<(RecordBatch, u64)>> {
        match self {
            Self::Rows(batches) => Ok(batches.pop_front().map(|batch| (batch, 0))),
            Self::File(file) => {
                let Some(rows) = file.next().await? else { return Ok(None) };
                let before = rows.num_rows() as u64;
                let kept = fold.keep(rows).map_err(|source| CompactError::Arrow { table: table.name(), source })?;
                let dropped = before.checked_sub(kept.num_rows() as u64);
                let dropped = dropped.ok_or_else(|| CompactError::RowsDiffer {
                    table: table.name(),
                    reason: "a fold made rows out of nothing".to_owned(),
                })?;
                Ok(Some((kept, dropped)))
            }
        }
    }
}

/// Rows of one input that are decoded and not merged yet.
struct Window {
    batch: RecordBatch,
    keys: Rows,
    at: usize,
}

struct Cursor {
    source: Source,
    window: Option<Window>,
}

/// Rows of one window, one after the other.
#[derive(Debug, Clone, Copy)]
struct Run {
    cursor: usize,
    start: usize,
    len: usize,
}

pub(super) struct Merge<'a> {
    table: Table,
    fold: &'a dyn Fold,
    converter: RowConverter,
    cursors: Vec<Cursor>,
    /// Cursors with rows left, by their next row; equal rows in the order of the inputs.
    order: Vec<usize>,
    /// What comes next, not put together yet.
    runs: Vec<Run>,
    dropped: u64,
}

impl<'a> Merge<'a> {
    pub(super) async fn begin(table: Table, sources: Vec<Source>, fold: &'a dyn Fold) -> Result<Self> {
        let schema = table.file_schema();
        let field = |name: &&str| {
            let field = schema.field_with_name(name).expect("the table declares its sort columns");
            SortField::new(field.data_type().clone())
        };
        let converter = RowConverter::new(table.sort_columns().iter().map(field).collect());
        let converter = converter.map_err(|source| CompactError::Arrow { table: table.name(), source })?;
        let cursors = sources.into_iter().map(|source| Cursor { source, window: None }).collect();
        let mut merge = Self { table, fold, converter, cursors, order: Vec::new(), runs: Vec::new(), dropped: 0 };
        for cursor in 0..merge.cursors.len() {
            merge.refill(cursor).await?;
        }
        Ok(merge)
    }

    /// Rows dropped so far because a replacement stands for them.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Memory held for the inputs.
    pub(super) fn held_bytes(&self) -> u64 {
        let of = |cursor: &Cursor| {
            let window = cursor.window.as_ref();
            let decoded = window.map_or(0, |w| w.batch.get_array_memory_size() + w.keys.size());
            cursor.source.held_bytes() + decoded as u64
        };
        self.cursors.iter().map(of).sum()
    }

    pub(super) fn forget_pages(&mut self) {
        self.cursors.iter_mut().for_each(|cursor| cursor.source.forget_pages());
    }

    /// The next rows in order, or `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let mut rows = 0;
        while let Some(&first) = self.order.first() {
            let run = self.run(first);
            rows += run.len;
            self.runs.push(run);
            self.order.remove(0);
            let window = self.cursors[first].window.as_mut().expect("cursors in order have rows");
            window.at += run.len;
            if window.at < window.batch.num_rows() {
                self.insert(first);
                if rows < BATCH_ROWS_MAX {
                    continue;
                }
                return self.put_together().map(Some);
            }
            // The window goes: what it holds must be moved first.
            let batch = self.put_together()?;
            self.refill(first).await?;
            return Ok(Some(batch));
        }
        Ok(None)
    }

    /// The rows of `first` that come before every other cursor's.
    fn run(&self, first: usize) -> Run {
        let window = self.cursors[first].window.as_ref().expect("cursors in order have rows");
        let (start, end) = (window.at, window.batch.num_rows());
        let Some(&second) = self.order.get(1) else {
            return Run { cursor: first, start, len: (end - start).min(BATCH_ROWS_MAX) };
        };
        let other = self.cursors[second].window.as_ref().expect("cursors in order have rows");
        let limit = other.keys.row(other.at);
        let comes_first = |row: usize| match window.keys.row(row).cmp(&limit) {
            Ordering::Less => true,
            Ordering::Equal => first < second,
            Ordering::Greater => false,
        };
        // Runs are short or very long: look further by doubling, then halve.
        let (mut step, mut low) = (1, start + 1);
        while low + step < end && comes_first(low + step - 1) {
            low += step;
            step *= 2;
        }
        let mut high = (low + step).min(end);
        while low < high {
            let middle = low + (high - low) / 2;
            match comes_first(middle) {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        Run { cursor: first, start, len: (low - start).min(BATCH_ROWS_MAX) }
    }

    fn put_together(&mut self) -> Result<RecordBatch> {
        let runs = std::mem::take(&mut self.runs);
        let batch = |cursor: usize| &self.cursors[cursor].window.as_ref().expect("it is held until it is moved").batch;
        if let [run] = runs.as_slice() {
            return Ok(batch(run.cursor).slice(run.start, run.len));
        }
        let mut used: Vec<usize> = runs.iter().map(|run| run.cursor).collect();
        used.sort_unstable();
        used.dedup();
        let batches: Vec<&RecordBatch> = used.iter().map(|cursor| batch(*cursor)).collect();
        let place = |cursor: usize| used.binary_search(&cursor).expect("it was collected from the runs");
        let indices: Vec<(usize, usize)> = runs
            .iter()
            .flat_map(|run| {
                let place = place(run.cursor);
                (run.start..run.start + run.len).map(move |row| (place, row))
            })
            .collect();
        interleave_record_batch(&batches, &indices)
            .map_err(|source| CompactError::Arrow { table: self.table.name(), source })
    }

    /// Reads the next window of a cursor; a cursor without rows leaves the order.
    async fn refill(&mut self, cursor: usize) -> Result<()> {
        let last = self.cursors[cursor].window.take();
        let last = last.map(|window| window.keys.row(window.keys.num_rows() - 1).owned());
        loop {
            let source = &mut self.cursors[cursor].source;
            let Some((batch, dropped)) = source.next(self.fold, self.table).await? else { return Ok(()) };
            self.dropped += dropped;
            if batch.num_rows() == 0 {
                continue;
            }
            let columns: Vec<_> = self
                .table
                .sort_columns()
                .iter()
                .map(|name| batch.column_by_name(name).expect("the table declares it").clone())
                .collect();
            let keys = self.converter.convert_columns(&columns);
            let keys = keys.map_err(|source| CompactError::Arrow { table: self.table.name(), source })?;
            let begins_late = last.as_ref().is_some_and(|last| keys.row(0) < last.row());
            if begins_late || (1..keys.num_rows()).any(|row| keys.row(row) < keys.row(row - 1)) {
                let reason = format!("its rows are not in the order of {:?}", self.table.sort_columns());
                return Err(CompactError::Corrupt { path: self.cursors[cursor].source.name().to_owned(), reason });
            }
            self.cursors[cursor].window = Some(Window { batch, keys, at: 0 });
            self.insert(cursor);
            return Ok(());
        }
    }

    fn insert(&mut self, cursor: usize) {
        let head = |cursor: usize| {
            let window = self.cursors[cursor].window.as_ref().expect("only cursors with rows are inserted");
            (window.keys.row(window.at), cursor)
        };
        let at = self.order.partition_point(|other| head(*other) < head(cursor));
        self.order.insert(at, cursor);
    }
}
