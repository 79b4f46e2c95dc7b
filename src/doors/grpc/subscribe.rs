//! What changed between two answers to one question.

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message;

use super::super::Refusal;
use crate::base::Kind;
use crate::wire::{MetricsResponse, MetricsRow, SubscribeResponse};

const INTERVAL_DEFAULT_MS: u32 = 5_000;
const INTERVAL_MIN_MS: u32 = 1_000;
const INTERVAL_MAX_MS: u32 = 3_600_000;

pub(super) fn interval(asked_ms: u32) -> Result<Duration, Refusal> {
    let ms = if asked_ms == 0 { INTERVAL_DEFAULT_MS } else { asked_ms };
    match (INTERVAL_MIN_MS..=INTERVAL_MAX_MS).contains(&ms) {
        true => Ok(Duration::from_millis(ms.into())),
        false => {
            let message = format!("an interval of {ms} ms is not possible: use {INTERVAL_MIN_MS} to {INTERVAL_MAX_MS}");
            Err(Refusal::new(Kind::Invalid, message))
        }
    }
}

/// The rows a subscriber has, by bucket and dimensions.
#[derive(Debug, Default)]
pub(super) struct Changes {
    known: BTreeMap<Vec<u8>, MetricsRow>,
    total: Option<MetricsRow>,
    has_begun: bool,
}

impl Changes {
    /// What to say of a new answer; `None`: nothing changed.
    pub(super) fn since(&mut self, mut answer: MetricsResponse) -> Option<SubscribeResponse> {
        let rows = std::mem::take(&mut answer.rows);
        let mut known: BTreeMap<Vec<u8>, MetricsRow> = BTreeMap::new();
        let mut changed = Vec::new();
        for row in rows {
            let key = place(&row).encode_to_vec();
            if self.known.get(&key) != Some(&row) {
                changed.push(row.clone());
            }
            known.insert(key, row);
        }
        let gone: Vec<MetricsRow> =
            self.known.iter().filter(|(key, _)| !known.contains_key(*key)).map(|(_, row)| place(row)).collect();
        let is_same = self.has_begun && changed.is_empty() && gone.is_empty() && self.total == answer.total;
        self.known = known;
        self.total.clone_from(&answer.total);
        self.has_begun = true;
        if is_same {
            return None;
        }
        let watermark_unix_micros = answer.reading.map_or(0, |reading| reading.watermark_unix_micros);
        answer.rows = changed;
        Some(SubscribeResponse { changed: Some(answer), gone, watermark_unix_micros })
    }
}

/// Which row it is.
fn place(row: &MetricsRow) -> MetricsRow {
    MetricsRow { measures: Vec::new(), unpriced_rows: None, ..row.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{MetricValue, Reading, metric_value::Value};

    fn row(bucket: i64, model: &str, count: i64) -> MetricsRow {
        let value = |value| MetricValue { value: Some(value) };
        MetricsRow {
            bucket_start_unix_micros: Some(bucket),
            dimensions: vec![value(Value::Text(model.to_owned()))],
            measures: vec![value(Value::Integer(count))],
            ..Default::default()
        }
    }

    fn answer(rows: Vec<MetricsRow>, watermark: i64) -> MetricsResponse {
        let reading = Some(Reading { watermark_unix_micros: watermark, ..Default::default() });
        MetricsResponse { rows, reading, ..Default::default() }
    }

    #[test]
    fn what_changed_put_onto_what_was_known_is_the_answer() {
        let answers = [
            vec![],
            vec![row(0, "a", 1), row(0, "b", 1)],
            vec![row(0, "a", 1), row(0, "b", 1)],
            vec![row(0, "a", 2), row(0, "b", 1), row(1, "a", 1)],
            vec![row(1, "a", 1)],
        ];
        let (mut changes, mut held) = (Changes::default(), BTreeMap::new());
        let mut said = Vec::new();
        for (at, rows) in answers.into_iter().enumerate() {
            if let Some(message) = changes.since(answer(rows.clone(), at as i64)) {
                let changed = message.changed.unwrap().rows;
                said.push((message.watermark_unix_micros, changed.len(), message.gone.len()));
                message.gone.iter().for_each(|row| {
                    held.remove(&place(row).encode_to_vec());
                });
                held.extend(changed.into_iter().map(|row| (place(&row).encode_to_vec(), row)));
            }
            assert_eq!(held.values().cloned().collect::<Vec<_>>().len(), rows.len());
            assert!(rows.iter().all(|row| held.values().any(|known| known == row)));
        }
        assert_eq!(said, [(0, 0, 0), (1, 2, 0), (3, 2, 0), (4, 0, 2)]);
    }

    #[test]
    fn an_interval_out_of_bounds_names_them() {
        assert_eq!(interval(0).unwrap(), Duration::from_secs(5));
        assert!(interval(10).unwrap_err().message.contains("use 1000 to 3600000"));
    }
}
