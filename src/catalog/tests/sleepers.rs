//! A process that slept between putting and committing: what it put may have been swept.

use super::*;
use crate::format::late::LateObject;
use crate::store::timed_id;

const HOUR_US: i64 = 3_600_000_000;

fn made(at_us: i64, rows: u64) -> NewFile {
    let file = file(1, rows);
    NewFile { path: data_file(file.day, timed_id(at_us)), ..file }
}

#[tokio::test]
async fn what_was_put_half_a_day_before_is_not_committed() {
    let location = memory();
    let clock = ManualClock::at(100 * 24 * HOUR_US);
    let catalog = Catalog::new(Store::open(location).await.unwrap(), Arc::new(clock.clone()));
    let table = Table::Observations;
    let first = made(clock.now_us(), 3);
    let written = Change::Append(appended("w", 0, 1, vec![first.clone()]));
    clock.advance_us(11 * HOUR_US);
    catalog.commit(&tenant(), table, written).await.unwrap();

    let (inputs, outputs) = (vec![first.path], vec![made(clock.now_us(), 3)]);
    let merged = Change::Rewrite(Rewrite { inputs, outputs, ..Default::default() });
    let flushed = Change::Append(appended("w", 1, 2, vec![made(clock.now_us(), 1)]));
    let snapshot = catalog.snapshot(&tenant(), table).await.unwrap();
    let late = catalog.put_late(&tenant(), table, &snapshot, &LateObject::default()).await.unwrap();
    let masked = Change::Mask { late, checked: Checked(snapshot.version) };
    let told = Change::Append(Append { late: Some(late), ..appended("w", 1, 2, Vec::new()) });
    clock.advance_us(13 * HOUR_US);
    for change in [merged, flushed, masked, told] {
        let slept = catalog.commit(&tenant(), table, change.clone()).await.unwrap_err();
        assert!(matches!(slept, CatalogError::Slept { .. }), "{change:?}: {slept}");
        assert_eq!(slept.kind(), Kind::Unavailable, "it is put again");
    }
    assert_eq!(catalog.snapshot(&tenant(), table).await.unwrap().version, Some(0));
    let again = catalog.put_late(&tenant(), table, &snapshot, &LateObject::default()).await.unwrap();
    catalog.commit(&tenant(), table, Change::Mask { late: again, checked: Checked(Some(0)) }).await.unwrap();
}
