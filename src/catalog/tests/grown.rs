//! A table that an older version made, without columns that this one has: the next commit describes them.

use super::*;
use crate::format::delta::{self, Action, MetaData};
use crate::store::delta_log;

const TABLE: Table = Table::Observations;
const NEW: &str = "sensitive_kinds";

async fn actions(catalog: &Catalog, version: u64) -> Vec<Action> {
    let path = delta_log(&tenant(), TABLE.name(), Some(version));
    delta::decode_commit(&catalog.store().get(&path).await.unwrap().unwrap()).unwrap()
}

fn described(actions: &[Action]) -> Option<&MetaData> {
    actions.iter().find_map(|action| match action {
        Action::MetaData(metadata) => Some(metadata),
        _ => None,
    })
}

/// Writes the table's first commit again as the version before the column did, and says what it describes.
async fn without_the_column(catalog: &Catalog) -> MetaData {
    let mut all = actions(catalog, 0).await;
    let mut old = None;
    for action in &mut all {
        if let Action::MetaData(metadata) = action {
            let mut schema: serde_json::Value = serde_json::from_str(&metadata.schema_string).unwrap();
            schema["fields"].as_array_mut().unwrap().retain(|field| field["name"] != NEW);
            metadata.schema_string = schema.to_string();
            old = Some(metadata.clone());
        }
    }
    let path = delta_log(&tenant(), TABLE.name(), Some(0));
    catalog.store().put(&path, delta::encode_commit(&all)).await.unwrap();
    old.unwrap()
}

#[tokio::test]
async fn the_next_commit_of_whatever_kind_brings_the_columns_once_and_costs_no_request_more() {
    for is_append in [true, false] {
        let location = memory();
        let before = catalog(&location, None).await;
        before.commit(&tenant(), TABLE, append("w", 0, 1, 1)).await.unwrap();
        let old = without_the_column(&before).await;

        let catalog = catalog(&location, None).await;
        let snapshot = catalog.snapshot(&tenant(), TABLE).await.unwrap();
        let inputs: Vec<String> = snapshot.files.keys().cloned().collect();
        let change = match is_append {
            true => append("w", 1, 2, 1),
            false => Change::Rewrite(Rewrite { inputs, outputs: vec![file(1, 1)], ..Default::default() }),
        };
        let counts = catalog.store().counts();
        catalog.commit(&tenant(), TABLE, change).await.unwrap();
        let after = catalog.store().counts();
        assert_eq!((after.put - counts.put, after.get - counts.get), (1, 0));

        let said = actions(&catalog, 1).await;
        let grown = described(&said).expect("the columns are described").clone();
        assert!(grown.schema_string.contains(NEW) && !old.schema_string.contains(NEW));
        assert_eq!((&grown.id, &grown.partition_columns), (&old.id, &old.partition_columns), "it is the same table");
        assert!(!said.iter().any(|action| matches!(action, Action::Protocol(_))), "any reader reads on");

        // Neither this process nor one that reads the log anew says it again.
        catalog.commit(&tenant(), TABLE, append("v", 0, 1, 1)).await.unwrap();
        let other = self::catalog(&location, None).await;
        other.commit(&tenant(), TABLE, append("u", 0, 1, 1)).await.unwrap();
        for version in [2, 3] {
            assert_eq!(described(&actions(&other, version).await), None);
        }
        assert_eq!(other.checkpoint(&tenant(), TABLE).await.unwrap(), Some(3));
        let of_checkpoint = self::catalog(&location, None).await;
        assert_eq!(of_checkpoint.snapshot(&tenant(), TABLE).await.unwrap().grown, None, "checkpoints know it");
    }
}

#[tokio::test]
async fn a_checkpoint_of_an_older_version_leads_to_the_columns_too() {
    let location = memory();
    let before = catalog(&location, None).await;
    before.commit(&tenant(), TABLE, append("w", 0, 1, 1)).await.unwrap();
    without_the_column(&before).await;
    let again = catalog(&location, None).await;
    assert_eq!(again.checkpoint(&tenant(), TABLE).await.unwrap(), Some(0));
    let catalog = catalog(&location, None).await;
    assert!(catalog.snapshot(&tenant(), TABLE).await.unwrap().grown.is_some());
    catalog.commit(&tenant(), TABLE, append("w", 1, 2, 1)).await.unwrap();
    assert!(described(&actions(&catalog, 1).await).is_some());
    assert_eq!(catalog.snapshot(&tenant(), TABLE).await.unwrap().grown, None);
}
