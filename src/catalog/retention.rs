//! How long a tenant's rows are kept: `system/retention/{tenant}/{number}`, of which the highest number holds.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::system::{Result, SystemObjects};
use crate::base::{Day, TenantId, TimestampUs};
use crate::model::tables::Table;

const RETENTION: &str = "retention";

/// Days that rows are kept, counted from the end of their day. What is not said is kept for ever.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// For every table that is not named, but for the ledger: the books of what is gone stay.
    #[serde(default)]
    pub days: Option<u32>,
    /// For tables by name; 0 means for ever.
    #[serde(default)]
    pub tables: BTreeMap<String, u32>,
}

impl Retention {
    /// The last day of `table` whose rows are to go.
    pub fn through(&self, table: Table, now_us: TimestampUs) -> Option<Day> {
        let own = self.tables.get(table.name()).copied();
        let days = own.or(self.days.filter(|_| table != Table::Ledger)).filter(|days| *days > 0)?;
        Some(Day::from_days(Day::of_us(now_us).days().saturating_sub_unsigned(days).saturating_sub(1)))
    }
}

/// One line.
impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = |days: u32| match days {
            0 => "for ever".to_owned(),
            days => format!("for {days} days"),
        };
        write!(f, "rows are kept {}", kept(self.days.unwrap_or(0)))?;
        self.tables.iter().try_for_each(|(table, days)| write!(f, ", those of {table} {}", kept(*days)))
    }
}

/// The retention rules of a store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Retentions {
    objects: SystemObjects,
}

impl Retentions {
    pub fn new(objects: SystemObjects) -> Self {
        Self { objects }
    }

    /// The rule holds from the next round of upkeep on.
    pub async fn set(&self, tenant: &TenantId, rule: &Retention) -> Result<()> {
        let kind = format!("{RETENTION}/{tenant}");
        let newest = self.objects.newest::<Retention>(&kind).await?;
        let mut number = newest.map_or(0, |(number, _)| number) + 1;
        // Of two who set it at once, the later number holds.
        while self.objects.create(&kind, &format!("{number:020}"), rule.clone()).await?.is_some() {
            number += 1;
        }
        Ok(())
    }

    /// `None`: the tenant has no rule of its own. Lists: never on a hot path (I10).
    pub async fn of(&self, tenant: &TenantId) -> Result<Option<Retention>> {
        Ok(self.objects.newest(&format!("{RETENTION}/{tenant}")).await?.map(|(_, rule)| rule))
    }

    /// The rules of all tenants that have one. One LIST, and one request for each.
    pub async fn all(&self) -> Result<BTreeMap<TenantId, Retention>> {
        let rules = self.objects.newest_of_each::<Retention>(RETENTION).await?;
        Ok(rules.into_iter().filter_map(|(tenant, rule)| Some((tenant.parse().ok()?, rule))).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;

    use super::*;
    use crate::base::SystemClock;
    use crate::store::{Location, Store};

    #[test]
    fn a_day_goes_when_it_is_over_for_so_many_days_and_the_books_stay() {
        let now_us = Day::from_days(100).start_us() + 5;
        let rule =
            Retention { days: Some(30), tables: [("scores".to_owned(), 7), ("trace_facts".to_owned(), 0)].into() };
        assert_eq!(rule.through(Table::Observations, now_us), Some(Day::from_days(69)));
        assert_eq!(rule.through(Table::Scores, now_us), Some(Day::from_days(92)));
        assert_eq!(rule.through(Table::TraceFacts, now_us), None);
        assert_eq!(rule.through(Table::Ledger, now_us), None);
        assert_eq!(Retention::default().through(Table::Observations, now_us), None);
        let said = "rows are kept for 30 days, those of scores for 7 days, those of trace_facts for ever";
        assert_eq!(rule.to_string(), said);
    }

    #[tokio::test]
    async fn the_rule_set_last_holds() {
        let store = Store::open(Location::Memory(Arc::new(InMemory::new()))).await.unwrap();
        let retentions = Retentions::new(SystemObjects::new(store, Arc::new(SystemClock)));
        let (acme, other): (TenantId, TenantId) = ("acme".parse().unwrap(), "acme-2".parse().unwrap());
        assert_eq!(retentions.of(&acme).await.unwrap(), None);
        let rule = |days| Retention { days: Some(days), ..Default::default() };
        for days in [90, 30] {
            retentions.set(&acme, &rule(days)).await.unwrap();
        }
        retentions.set(&other, &rule(7)).await.unwrap();
        assert_eq!(retentions.of(&acme).await.unwrap(), Some(rule(30)));
        assert_eq!(retentions.all().await.unwrap(), [(acme, rule(30)), (other, rule(7))].into());
    }
}
