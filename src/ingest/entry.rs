//! Everything said about one id that is not in a file yet.

use std::sync::Arc;

use crate::base::TimestampUs;
use crate::model::tables::Table;
use crate::model::{Merged, Order};

/// A set of tables: which of them still want an event. After a crash between two tables' commits, replay feeds each
/// table only what lies above its own position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TableSet(u8);

impl TableSet {
    pub(super) const ALL: TableSet = TableSet((1 << Table::ALL.len()) - 1);
    pub(super) const NONE: TableSet = TableSet(0);

    pub(super) fn with(self, table: Table) -> Self {
        Self(self.0 | 1 << table as u8)
    }
    pub(super) fn without(self, table: Table) -> Self {
        Self(self.0 & !(1 << table as u8))
    }
    pub(super) fn has(self, table: Table) -> bool {
        self.0 & (1 << table as u8) != 0
    }
    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }
    pub(super) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Where an event came from: what its rows are dated, priced and counted by.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Origin {
    /// The stamp of the log object that first held it.
    pub(super) stamp_us: TimestampUs,
    pub(super) door: Arc<str>,
    pub(super) price_book: Arc<str>,
}

/// One event about the id.
#[derive(Debug, Clone)]
pub(super) struct Said<T> {
    pub(super) order: Order,
    pub(super) value: Arc<T>,
    pub(super) origin: Origin,
    /// The last log object that holds it.
    pub(super) position: u64,
    pub(super) wanted: TableSet,
}

/// The merged row of an id.
#[derive(Debug, Clone)]
pub(super) struct Row<T> {
    pub(super) row: Arc<T>,
    pub(super) provenance: Option<Vec<u8>>,
}

/// All events about one id, sorted by order, each once.
#[derive(Debug, Clone)]
pub(super) struct Entry<T> {
    pub(super) said: Vec<Said<T>>,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// The first about this id.
    New,
    /// It says more about an id known already.
    Merged,
    /// It is known already, word for word.
    Known,
}

impl<T> Entry<T> {
    pub(super) fn new(said: Said<T>) -> Self {
        Self { said: vec![said] }
    }

    pub(super) fn add(&mut self, said: Said<T>) -> Heard {
        match self.said.binary_search_by(|known| known.order.cmp(&said.order)) {
            Ok(at) => {
                let known = &mut self.said[at];
                // Carried, or sent again: what holds it last decides how long the log must keep it.
                known.position = known.position.max(said.position);
                known.wanted = known.wanted.union(said.wanted);
                Heard::Known
            }
            Err(at) => {
                self.said.insert(at, said);
                Heard::Merged
            }
        }
    }

    /// The events that `table` still wants, merged into its row; `None` if it wants none. A row of one event is that
    /// event, not a copy.
    pub(super) fn merged(&self, table: Table, merge: fn(&[(&Order, &T)]) -> Merged<T>) -> Option<Row<T>> {
        let mut wanted = self.said.iter().filter(|said| said.wanted.has(table));
        let first = wanted.next()?;
        let Some(second) = wanted.next() else {
            return Some(Row { row: Arc::clone(&first.value), provenance: None });
        };
        let all: Vec<(&Order, &T)> =
            [first, second].into_iter().chain(wanted).map(|said| (&said.order, said.value.as_ref())).collect();
        let merged = merge(&all);
        Some(Row { row: Arc::new(merged.row), provenance: merged.provenance })
    }

    /// The earliest event to arrive: its stamp dates the row, its door is where the row is counted.
    pub(super) fn origin(&self) -> &Origin {
        let first = self.said.iter().min_by_key(|said| said.origin.stamp_us);
        &first.expect("an entry holds an event").origin
    }

    pub(super) fn wanted(&self) -> TableSet {
        self.said.iter().fold(TableSet::NONE, |all, said| all.union(said.wanted))
    }

    /// `table` holds the events up to `position` already.
    pub(super) fn unwant(&mut self, table: Table, position: u64) {
        for said in self.said.iter_mut().filter(|said| said.position <= position) {
            said.wanted = said.wanted.without(table);
        }
    }

    /// The log holds the events at `position` again.
    pub(super) fn move_to(&mut self, position: u64) {
        for said in &mut self.said {
            said.position = said.position.max(position);
        }
    }
}
