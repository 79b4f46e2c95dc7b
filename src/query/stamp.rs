//! Facts of traces on rows of `observations`: which columns they change, and what must be read for it.

use arrow::array::RecordBatch;
use datafusion::error::{DataFusionError, Result};

use crate::catalog::{self, Changes};
use crate::model::tables::Table;

/// The columns that a trace's facts can change.
const STAMPED: [&str; 12] = [
    "is_root",
    "trace_name",
    "account",
    "project",
    "flow",
    "user_id",
    "session_id",
    "environment",
    "release",
    "version",
    "tags",
    "_own",
];

pub(super) const TRACE: &str = "trace_id";

/// The columns that stamping needs besides those it stamps.
pub(super) const NEEDED: [&str; 3] = [TRACE, "id", "_own"];

pub(super) fn is_stamped(column: &str) -> bool {
    STAMPED.contains(&column)
}

/// Rows with the columns of [`NEEDED`], as if they had been written with all facts.
pub(super) fn stamped(rows: &RecordBatch, changes: &Changes) -> Result<RecordBatch> {
    let stamped = catalog::stamped(Table::Observations, rows, &changes.facts, &changes.dimensions);
    stamped.map_err(|e| DataFusionError::External(Box::new(e)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use arrow::array::Int64Array;

    use super::*;
    use crate::model::{DimensionKeys, TraceFacts};

    #[test]
    fn no_other_column_is_ever_changed() {
        let own = Table::Observations.file_schema().index_of("_own").unwrap();
        let word = |word: &str| Some(word.to_owned());
        let keys = DimensionKeys::default();
        let facts = TraceFacts {
            trace_id: "t".into(),
            name: word("name"),
            user_id: word("user"),
            session_id: word("session"),
            tags: vec!["tag".into()],
            release: word("release"),
            version: word("version"),
            environment: word("environment"),
            metadata: [keys.account, "project_id".into(), "flow_id".into()].map(|key| (key, "x".into())).into(),
            root_id: word("another"),
            root_name: word("root"),
            timestamp_us: Some(1),
            public: Some(true),
            input: word("input"),
            output: word("output"),
            attributes: [("k".to_owned(), "x".to_owned())].into(),
            sensitive_kinds: vec!["email".into()],
            cleared: 0,
        };
        let changes =
            Changes { facts: Arc::new(HashMap::from([("t".to_owned(), Arc::new(facts))])), ..Default::default() };
        let mut seen = std::collections::BTreeSet::new();
        for bits in [None, Some(1 << 11), Some(1 << 12 | 1 << 11), Some(1 << 13)] {
            let rows = crate::query::tests::one_observation("t", "i");
            let mut columns = rows.columns().to_vec();
            columns[own] = Arc::new(Int64Array::from(vec![bits]));
            let rows = RecordBatch::try_new(rows.schema(), columns).unwrap();
            let after = stamped(&rows, &changes).unwrap();
            let fields = rows.schema();
            let changed = (0..rows.num_columns()).filter(|at| rows.column(*at) != after.column(*at));
            seen.extend(changed.map(|at| fields.field(at).name().clone()));
        }
        let expected: std::collections::BTreeSet<String> = STAMPED.map(str::to_owned).into();
        assert_eq!(seen, expected);
    }
}
