//! Facts of traces, stamped onto rows of `observations` that stand in a file already.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::{cast, interleave};
use arrow::error::ArrowError;

use super::ColumnType;
use super::cells::{Boolean, Long, Text, TextList};
use super::columns as fill;
use super::own::Own;
use crate::model::merge::trace_bits;
use crate::model::{DimensionKeys, ReadError, TraceFacts};

/// The rows of `batch`, those of the traces in `facts` as if they had been built with these facts.
///
/// The facts must hold all that were known when the rows were built. `batch` has `trace_id`, `id` and `_own`, and of the
/// other columns any. What a row says itself stays; so does what the facts say nothing of, unless it was cleared.
pub fn stamp(
    batch: &RecordBatch,
    facts: &HashMap<String, Arc<TraceFacts>>,
    keys: &DimensionKeys,
) -> Result<RecordBatch, ReadError> {
    let touched = touched(batch, facts)?;
    if touched.is_empty() {
        return Ok(batch.clone());
    }
    let mut columns = batch.columns().to_vec();
    for (field, column) in batch.schema_ref().fields().iter().zip(&mut columns) {
        if let Some(stamped) = stamped(field.name(), batch, &touched, keys)? {
            *column = replaced(column, &touched, stamped)?;
        }
    }
    Ok(RecordBatch::try_new(batch.schema(), columns)?)
}

/// A row whose trace has facts.
struct Touched<'a> {
    row: usize,
    own: Own,
    facts: &'a TraceFacts,
    is_root_id: bool,
}

fn touched<'a>(
    batch: &RecordBatch,
    facts: &'a HashMap<String, Arc<TraceFacts>>,
) -> Result<Vec<Touched<'a>>, ReadError> {
    if facts.is_empty() || batch.num_rows() == 0 {
        return Ok(Vec::new());
    }
    let trace_ids = Text::of(batch, "trace_id", ColumnType::Text)?;
    let ids = Text::of(batch, "id", ColumnType::Text)?;
    let own = Long::of(batch, "_own", ColumnType::Long)?;
    for (name, is_missing) in
        [("trace_id", trace_ids.is_missing()), ("id", ids.is_missing()), ("_own", own.is_missing())]
    {
        if is_missing {
            return Err(ReadError::MissingColumn(name));
        }
    }
    // Rows of a trace often stand together.
    let mut last: Option<(&str, Option<&'a Arc<TraceFacts>>)> = None;
    let mut touched = Vec::new();
    for row in 0..batch.num_rows() {
        let Some(trace_id) = trace_ids.get(row) else { continue };
        let found = match last {
            Some((known, found)) if known == trace_id => found,
            _ => facts.get(trace_id),
        };
        last = Some((trace_id, found));
        if let Some(facts) = found {
            let is_root_id = facts.root_id.is_some() && facts.root_id.as_deref() == ids.get(row);
            touched.push(Touched { row, own: Own::of_column(own.get(row)), facts, is_root_id });
        }
    }
    Ok(touched)
}

/// The new values of the touched rows; `None` for a column that facts have no say in.
fn stamped(
    name: &str,
    batch: &RecordBatch,
    touched: &[Touched<'_>],
    keys: &DimensionKeys,
) -> Result<Option<ArrayRef>, ReadError> {
    type Said<'s> = &'s dyn for<'a> Fn(&'a TraceFacts) -> Option<&'a str>;
    let text = |name: &'static str, bit: Own, clears: u64, said: Said<'_>| {
        let shown = Text::of(batch, name, ColumnType::Text)?;
        let stays = |row: &Touched<'_>| row.own.has(bit) || row.facts.cleared & clears == 0;
        let before = |row: &Touched<'_>| shown.get(row.row).filter(|_| stays(row));
        Ok(Some(fill::text(touched, |row| row.said(bit, said).or_else(|| before(row)))))
    };
    match name {
        "user_id" => text("user_id", Own::USER_ID, trace_bits::user_id, &|facts| facts.user_id.as_deref()),
        "session_id" => text("session_id", Own::SESSION_ID, trace_bits::session_id, &|it| it.session_id.as_deref()),
        "environment" => text("environment", Own::ENVIRONMENT, 0, &|facts| facts.environment.as_deref()),
        "release" => text("release", Own::RELEASE, trace_bits::release, &|facts| facts.release.as_deref()),
        "version" => text("version", Own::VERSION, trace_bits::version, &|facts| facts.version.as_deref()),
        "account" => text("account", Own::ACCOUNT, 0, &|facts| DimensionKeys::find(&keys.account, &facts.metadata)),
        "project" => text("project", Own::PROJECT, 0, &|facts| DimensionKeys::find(&keys.project, &facts.metadata)),
        "flow" => text("flow", Own::FLOW, 0, &|facts| DimensionKeys::find(&keys.flow, &facts.metadata)),
        "trace_name" => {
            let shown = Text::of(batch, "trace_name", ColumnType::Text)?;
            Ok(Some(fill::text(touched, |row| row.trace_name(shown.get(row.row)))))
        }
        "tags" => {
            let shown = TextList::of(batch, "tags", ColumnType::TextList)?;
            Ok(Some(fill::text_list(touched, |row| row.tags(shown.texts(row.row)))))
        }
        "is_root" => {
            let shown = Boolean::of(batch, "is_root", ColumnType::Boolean)?;
            Ok(Some(fill::boolean(touched, |row| row.is_root(shown.get(row.row)))))
        }
        "_own" => Ok(Some(fill::long(touched, |row| row.own_after().column()))),
        _ => Ok(None),
    }
}

impl<'f> Touched<'f> {
    /// What the trace says of a value that the row says nothing of.
    fn said<'a>(&'a self, bit: Own, said: &dyn for<'b> Fn(&'b TraceFacts) -> Option<&'b str>) -> Option<&'a str> {
        if self.own.has(bit) { None } else { said(self.facts) }
    }

    fn trace_name<'a>(&'a self, shown: Option<&'a str>) -> Option<&'a str> {
        let facts = self.facts;
        let own = shown.filter(|_| self.own.has(Own::TRACE_NAME));
        let said = facts.name.as_deref().or(own).or(facts.root_name.as_deref());
        let is_void = match () {
            () if self.own.has(Own::ORPHAN_NAME) => facts.root_id.is_some(),
            () if self.own.has(Own::ROOT_NAME) => facts.cleared & trace_bits::root_name != 0,
            // Whose name stood below a name that was cleared is not known.
            () => facts.cleared & trace_bits::name != 0,
        };
        said.or(shown.filter(|_| !is_void))
    }

    fn tags(&self, mut shown: Vec<String>) -> Cow<'_, [String]> {
        shown.extend(self.facts.tags.iter().cloned());
        shown.sort_unstable();
        shown.dedup();
        Cow::Owned(shown)
    }

    fn is_root(&self, shown: Option<bool>) -> Option<bool> {
        match self.own.has(Own::ORPHAN) {
            true => Some(self.facts.root_id.is_none() || self.is_root_id),
            false => shown,
        }
    }

    /// Whose name the row shows now.
    fn own_after(&self) -> Own {
        let (mut own, facts) = (self.own, self.facts);
        if facts.cleared & trace_bits::root_name != 0 {
            own = own.without(Own::ROOT_NAME);
        }
        if facts.name.is_some() || own.has(Own::TRACE_NAME) {
            own.without(Own::ROOT_NAME).without(Own::ORPHAN_NAME)
        } else if facts.root_name.is_some() {
            own.without(Own::ORPHAN_NAME).with(Own::ROOT_NAME)
        } else if facts.root_id.is_some() {
            own.without(Own::ORPHAN_NAME)
        } else {
            own
        }
    }
}

/// `column` with the values of `stamped` in the touched rows, in the encoding it came in.
fn replaced(column: &ArrayRef, touched: &[Touched<'_>], stamped: ArrayRef) -> Result<ArrayRef, ArrowError> {
    let stamped = match stamped.data_type() == column.data_type() {
        true => stamped,
        false => cast(&stamped, column.data_type())?,
    };
    let mut from: Vec<(usize, usize)> = (0..column.len()).map(|row| (0, row)).collect();
    for (at, touched) in touched.iter().enumerate() {
        from[touched.row] = (1, at);
    }
    interleave(&[column.as_ref(), stamped.as_ref()], &from)
}
