//! Everything said about one id that is not in a file yet.

use std::sync::Arc;

use super::packed::{Glance, Packed};
use crate::base::TimestampUs;
use crate::model::tables::Table;
use crate::model::{Merge, Merged, Order};
use crate::price::Prices;

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
    pub(super) fn both(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
    pub(super) const fn of(tables: &[Table]) -> Self {
        let (mut set, mut at) = (0, 0);
        while at < tables.len() {
            set |= 1 << tables[at] as u8;
            at += 1;
        }
        Self(set)
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
    pub(super) prices: Arc<Prices>,
}

/// One event about the id.
#[derive(Debug, Clone)]
pub(super) struct Said<T> {
    pub(super) order: Order,
    pub(super) glance: Glance,
    pub(super) packed: Packed<T>,
    pub(super) origin: Origin,
    /// The last log object that holds it.
    pub(super) position: u64,
    pub(super) wanted: TableSet,
}

/// All events about one id, sorted by order, each once.
#[derive(Debug, Clone)]
pub(super) struct Entry<T> {
    pub(super) said: Vec<Said<T>>,
    /// Where the books count the id as stored: the log object of the first event that the ledger wants. The others are
    /// in the books as merged, each at its own place.
    counted_at: u64,
    /// Its table holds the id by this very log: a crash, or another owner of the log, came between that commit and the
    /// ledger's.
    pub(super) by_half: bool,
}

/// Whether a row's event may be one that was said. An event id is not kept for rows born of one event, so one of the same
/// time may be the same or another.
pub(super) fn is_same(known: &Order, said: &Order) -> bool {
    let moment = |order: &Order| (order.event_time_us, order.is_update);
    known == said || (known.event_id.is_empty() && moment(known) == moment(said))
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// The first about this id.
    New,
    /// About an id known already: it says more, or the same again. `counted`: the id stands in the books that are open.
    Again { counted: bool },
    /// No table wants it.
    Unwanted,
}

impl<T> Entry<T> {
    pub(super) fn new(said: Said<T>) -> Self {
        Self { counted_at: said.position, by_half: is_in_table(said.wanted), said: vec![said] }
    }

    pub(super) fn add(&mut self, said: Said<T>) -> Heard {
        let counted = self.counted_at().is_some();
        if !counted {
            self.count_at(said.position, said.wanted);
        }
        match self.said.binary_search_by(|known| known.order.cmp(&said.order)) {
            Ok(at) => {
                let known = &mut self.said[at];
                // Carried, or sent again: what holds it last decides how long the log must keep it.
                known.position = known.position.max(said.position);
                known.wanted = known.wanted.union(said.wanted);
            }
            Err(at) => self.said.insert(at, said),
        }
        Heard::Again { counted }
    }

    /// Takes in what else was said about the id.
    pub(super) fn absorb(&mut self, other: Entry<T>) {
        let counted = |entry: &Self| entry.counted_at().map(|at| (at, entry.by_half));
        // Places of two logs do not compare: if either has brought it to its table, it stands there.
        let both = |one: (u64, bool), other: (u64, bool)| (one.0.min(other.0), one.1 || other.1);
        let first = counted(self).into_iter().chain(counted(&other)).reduce(both);
        for said in other.said {
            self.add(said);
        }
        (self.counted_at, self.by_half) = first.unwrap_or((self.counted_at, self.by_half));
    }

    /// Where the ledger is still to count it; none: it is counted.
    fn counted_at(&self) -> Option<u64> {
        self.wanted().has(Table::Ledger).then_some(self.counted_at)
    }

    /// The books count it at `position`, where the log says it to the tables that want it.
    pub(super) fn count_at(&mut self, position: u64, wanted: TableSet) {
        (self.counted_at, self.by_half) = (position, is_in_table(wanted));
    }

    /// The events that `table` still wants, unpacked by `unpack` and merged into its row, onto what `base` holds already;
    /// `None` if it wants none.
    pub(super) fn merged(
        &self,
        table: Table,
        base: &[(Order, T)],
        unpack: fn(&Packed<T>) -> T,
        merge: fn(&[(&Order, &T)]) -> Merged<T>,
    ) -> Option<Merged<T>>
    where
        T: Merge,
    {
        let held = |order: &Order| base.iter().any(|(known, _)| known == order);
        let wanted: Vec<&Said<T>> = self.wanted_by(table).collect();
        if wanted.is_empty() {
            return None;
        }
        let news = wanted.into_iter().filter(|said| !held(&said.order));
        let mut unpacked: Vec<(&Order, T)> = news.map(|said| (&said.order, unpack(&said.packed))).collect();
        if base.is_empty() && unpacked.len() == 1 {
            return unpacked.pop().map(|(order, row)| T::alone(order, row));
        }
        let mut events: Vec<(&Order, &T)> = base.iter().map(|(order, event)| (order, event)).collect();
        events.extend(unpacked.iter().map(|(order, event)| (*order, event)));
        events.sort_by(|one, other| one.0.cmp(other.0));
        Some(merge(&events))
    }

    /// Whether `table` wants an event that `base` may not hold: only its columns tell.
    pub(super) fn says_more(&self, table: Table, base: &[(Order, T)]) -> bool {
        self.wanted_by(table).any(|said| !base.iter().any(|(known, _)| is_same(known, &said.order)))
    }

    pub(super) fn wanted_by(&self, table: Table) -> impl Iterator<Item = &Said<T>> {
        self.said.iter().filter(move |said| said.wanted.has(table))
    }

    /// What can be said of the merged row without unpacking it: the first start said, the last end, any root.
    pub(super) fn glance(&self, table: Table) -> Option<Glance> {
        self.wanted_by(table).map(|said| said.glance).reduce(|before, after| Glance {
            start_us: before.start_us.or(after.start_us),
            end_us: after.end_us.or(before.end_us),
            is_root: before.is_root && after.is_root,
            has_text: before.has_text || after.has_text,
            response: after.response.or(before.response),
            reports: before.reports || after.reports,
            may_sum_up: before.may_sum_up || after.may_sum_up,
            // Whoever says usage or cost is not unsaid by others.
            may_be_counted: (before.may_be_counted || after.may_be_counted) && !before.reports && !after.reports,
        })
    }

    /// The earliest event to arrive: its stamp dates the row, its door is where the row is counted.
    pub(super) fn origin(&self) -> &Origin {
        let first = self.said.iter().min_by_key(|said| said.origin.stamp_us);
        &first.expect("an entry holds an event").origin
    }

    /// What prices the row of `table`: the book stamped last on what the row is made of. What is said later was stamped
    /// later, so that it does not matter what of it stands in a file already.
    pub(super) fn prices(&self, table: Table) -> Option<&Prices> {
        let origins = self.wanted_by(table).map(|said| &said.origin);
        let last = origins.max_by_key(|origin| (origin.stamp_us, origin.prices.rank()));
        last.map(|origin| origin.prices.as_ref())
    }

    pub(super) fn wanted(&self) -> TableSet {
        self.said.iter().fold(TableSet::NONE, |all, said| all.union(said.wanted))
    }

    /// `table` holds the events up to `position` already.
    pub(super) fn unwant(&mut self, table: Table, position: u64) {
        let is_its_table = self.wanted().has(table);
        for said in self.said.iter_mut().filter(|said| said.position <= position) {
            said.wanted = said.wanted.without(table);
        }
        match table {
            Table::Ledger => self.counted_up_to(position),
            Table::Observations | Table::Scores => self.by_half |= is_its_table && self.counted_at <= position,
            Table::ObservationIo | Table::TraceFacts => {}
        }
    }

    /// Lets go of the events up to `floor`, which all tables hold.
    pub(super) fn forget_up_to(&mut self, floor: u64) {
        self.said.retain(|said| said.position > floor);
        self.counted_up_to(floor);
    }

    /// The books up to `position` are in the ledger: with an id that they count as stored nothing is left to count.
    fn counted_up_to(&mut self, position: u64) {
        if self.counted_at <= position {
            for said in &mut self.said {
                said.wanted = said.wanted.without(Table::Ledger);
            }
        }
    }

    /// The log holds the events at `position` again, and the id is counted there.
    pub(super) fn move_to(&mut self, position: u64) {
        self.count_at(position, TableSet::ALL);
        for said in &mut self.said {
            said.position = said.position.max(position);
        }
    }
}

/// Whether the table of an id that is wanted so holds it.
fn is_in_table(wanted: TableSet) -> bool {
    !wanted.has(Table::Observations) && !wanted.has(Table::Scores)
}
