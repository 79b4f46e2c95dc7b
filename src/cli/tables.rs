//! Metric answers as tables and sparklines.

use chrono::{DateTime, Utc};
use comfy_table::modifiers::UTF8_ROUND_CORNERS;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use super::numbers;
use crate::wire::metric_value::Value;
use crate::wire::{MetricValue, MetricsResponse, MetricsRow};

const ABSENT: &str = "—";

/// One line per row, the rest as "other", the total last and below a rule.
pub(super) fn metrics(response: &MetricsResponse) -> String {
    let mut table = bare();
    let has_buckets = response.rows.iter().any(|row| row.bucket_start_unix_micros.is_some());
    let bucket = has_buckets.then(|| Cell::new("from (UTC)"));
    let dimensions = response.dimensions.iter().map(|name| Cell::new(title(name)));
    let measures = response.measures.iter().map(|column| right(title(&column.name)));
    table.set_header(bucket.into_iter().chain(dimensions).chain(measures));
    for row in &response.rows {
        let label = row.is_other.then_some("other");
        table.add_row(cells(response, row, has_buckets, label));
    }
    let Some(total) = &response.total else { return table.to_string() };
    table.add_row(cells(response, total, has_buckets, Some("total")));
    with_rule_above_last_row(&table.to_string())
}

/// A table without rows, as all of ours look.
pub(super) fn bare() -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).apply_modifier(UTF8_ROUND_CORNERS);
    table
}

pub(super) fn right(text: impl ToString) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

/// One line per measure: its course as blocks, its peak; below them the time. For answers without dimensions.
pub(super) fn sparklines(response: &MetricsResponse) -> String {
    let titles: Vec<String> = response.measures.iter().map(|column| title(&column.name)).collect();
    let width = titles.iter().map(|title| title.chars().count()).max().unwrap_or_default();
    let mut text = String::new();
    for (place, (column, title)) in response.measures.iter().zip(&titles).enumerate() {
        let values: Vec<&MetricValue> = response.rows.iter().filter_map(|row| row.measures.get(place)).collect();
        let heights: Vec<f64> = values.iter().map(|value| height(value)).collect();
        let peak = (0..values.len()).max_by(|one, other| heights[*one].total_cmp(&heights[*other]));
        let peak = peak.map_or(ABSENT.to_owned(), |peak| measure(&column.unit, values[peak]));
        text.push_str(&format!("{title:<width$}  {}  peak {peak}\n", blocks(&heights)));
    }
    let time = |row: &MetricsRow| row.bucket_start_unix_micros.and_then(DateTime::<Utc>::from_timestamp_micros);
    let (first, last) = (response.rows.first().and_then(time), response.rows.last().and_then(time));
    if let (Some(first), Some(last)) = (first, last) {
        let (first, last) = (first.format("%H:%M").to_string(), last.format("%H:%M UTC").to_string());
        let gap = response.rows.len().saturating_sub(first.len() + 5).max(1);
        text.push_str(&format!("{:width$}  {first}{:gap$}{last}\n", "", ""));
    }
    text
}

fn cells(response: &MetricsResponse, row: &MetricsRow, has_buckets: bool, label: Option<&str>) -> Vec<Cell> {
    let mut cells = Vec::with_capacity(response.dimensions.len() + response.measures.len() + 1);
    if has_buckets {
        let at = row.bucket_start_unix_micros.and_then(DateTime::<Utc>::from_timestamp_micros);
        cells.push(Cell::new(at.map(|at| at.format("%Y-%m-%d %H:%M").to_string()).unwrap_or_default()));
    }
    for place in 0..response.dimensions.len() {
        cells.push(Cell::new(match label {
            Some(label) if place == 0 => label.to_owned(),
            Some(_) => String::new(),
            None => row.dimensions.get(place).map_or(ABSENT.into(), dimension),
        }));
    }
    for (place, column) in response.measures.iter().enumerate() {
        cells.push(right(row.measures.get(place).map_or(ABSENT.into(), |value| measure(&column.unit, value))));
    }
    cells
}

fn dimension(value: &MetricValue) -> String {
    match &value.value {
        None => ABSENT.into(),
        Some(Value::Text(text) | Value::Decimal(text)) => text.clone(),
        Some(Value::Integer(integer)) => integer.to_string(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Boolean(boolean)) => boolean.to_string(),
        Some(Value::UnixMicros(us)) => {
            let at = DateTime::<Utc>::from_timestamp_micros(*us);
            at.map(|at| at.format("%Y-%m-%d %H:%M:%S").to_string()).unwrap_or_default()
        }
        Some(Value::Histogram(histogram)) => {
            blocks(&histogram.bins.iter().map(|bin| bin.count as f64).collect::<Vec<_>>())
        }
        Some(Value::Texts(texts)) => texts.values.join(", "),
        Some(Value::Sketch(bytes)) => format!("{} bytes", bytes.len()),
    }
}

pub(super) fn measure(unit: &str, value: &MetricValue) -> String {
    match (unit, &value.value) {
        (_, None) => ABSENT.into(),
        ("USD", Some(Value::Decimal(text))) => text.parse().map_or(text.clone(), numbers::money),
        ("ms", Some(Value::Integer(ms))) => numbers::duration(*ms as f64),
        ("ms", Some(Value::Number(ms))) => numbers::duration(*ms),
        ("ratio", Some(Value::Number(ratio))) => numbers::percent(*ratio),
        ("tokens/s", Some(Value::Number(speed))) => format!("{speed:.1}/s"),
        (_, Some(Value::Integer(integer))) => numbers::count(*integer),
        (_, Some(Value::Number(number))) => numbers::plain(*number),
        (_, Some(_)) => dimension(value),
    }
}

/// For drawing only: how high a value stands.
fn height(value: &MetricValue) -> f64 {
    match &value.value {
        Some(Value::Integer(integer)) => *integer as f64,
        Some(Value::Number(number)) if number.is_finite() => *number,
        Some(Value::Decimal(text)) => text.parse().ok().and_then(|amount: Decimal| amount.to_f64()).unwrap_or(0.0),
        _ => 0.0,
    }
}

/// Nothing is a blank, anything at all at least the lowest block.
fn blocks(heights: &[f64]) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let peak = heights.iter().copied().fold(0.0, f64::max);
    let block = |height: &f64| {
        if *height <= 0.0 { ' ' } else { BLOCKS[((height / peak * 8.0).ceil() as usize).clamp(1, 8) - 1] }
    };
    heights.iter().map(block).collect()
}

/// `sum_total_cost` is "total cost", `p95_latency_ms` is "p95 latency": the unit stands with the value.
fn title(name: &str) -> String {
    let name = name.strip_prefix("sum_").unwrap_or(name);
    name.strip_suffix("_ms").unwrap_or(name).replace('_', " ")
}

/// The rule under the header, thinner, once more.
fn with_rule_above_last_row(table: &str) -> String {
    let mut lines: Vec<String> = table.lines().map(str::to_owned).collect();
    if lines.len() > 5 {
        let thin = |border| match border {
            '╞' => '├',
            '═' => '─',
            '╪' => '┼',
            '╡' => '┤',
            other => other,
        };
        let rule: String = lines[2].chars().map(thin).collect();
        lines.insert(lines.len() - 2, rule);
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::MeasureColumn;

    fn value(value: Value) -> MetricValue {
        MetricValue { value: Some(value) }
    }
    fn row(model: &str, calls: i64, cost: Option<&str>, p95: f64, errors: f64) -> MetricsRow {
        MetricsRow {
            dimensions: vec![value(Value::Text(model.into()))],
            measures: vec![
                value(Value::Integer(calls)),
                cost.map(|cost| value(Value::Decimal(cost.into()))).unwrap_or_default(),
                value(Value::Number(p95)),
                value(Value::Number(errors)),
            ],
            ..Default::default()
        }
    }
    fn response() -> MetricsResponse {
        let measures =
            [("count", "count"), ("sum_total_cost", "USD"), ("p95_latency_ms", "ms"), ("error_rate", "ratio")];
        let column =
            |(name, unit): (&str, &str)| MeasureColumn { name: name.into(), unit: unit.into(), ..Default::default() };
        MetricsResponse {
            dimensions: vec!["model".into()],
            measures: measures.map(column).into(),
            rows: vec![
                row("gpt-4o", 5_543, Some("1234.567890000001"), 1_234.0, 0.0151),
                row("größe-mini", 12, Some("0.004213"), 65_000.0, 0.0),
                row("local", 7, None, 82.0, 1.0),
                MetricsRow { is_other: true, ..row("", 3, Some("0.00001"), 5.0, 0.0) },
            ],
            total: Some(row("", 5_565, Some("1234.572113"), 1_300.0, 0.015)),
            ..Default::default()
        }
    }

    #[test]
    fn a_breakdown_reads_like_a_bill() {
        let table = metrics(&response());
        println!("{table}");
        let expected = "\
╭────────────┬───────┬────────────┬─────────────┬────────────╮
│ model      ┆ count ┆ total cost ┆ p95 latency ┆ error rate │
╞════════════╪═══════╪════════════╪═════════════╪════════════╡
│ gpt-4o     ┆ 5,543 ┆  $1,234.57 ┆       1.2 s ┆      1.5 % │
│ größe-mini ┆    12 ┆    $0.0042 ┆    1 m 05 s ┆      0.0 % │
│ local      ┆     7 ┆          — ┆       82 ms ┆    100.0 % │
│ other      ┆     3 ┆  $0.000010 ┆      5.0 ms ┆      0.0 % │
├────────────┼───────┼────────────┼─────────────┼────────────┤
│ total      ┆ 5,565 ┆  $1,234.57 ┆       1.3 s ┆      1.5 % │
╰────────────┴───────┴────────────┴─────────────┴────────────╯";
        assert_eq!(table, expected);
    }

    #[test]
    fn a_day_is_a_line_of_blocks() {
        let mut series = response();
        series.dimensions.clear();
        series.measures.truncate(2);
        series.rows = (0..24i64)
            .map(|hour| MetricsRow {
                bucket_start_unix_micros: Some((490_000 + hour) * 3_600_000_000),
                measures: vec![
                    value(Value::Integer(if hour == 3 { 0 } else { (hour - 12).abs() * 10 + 1 })),
                    value(Value::Decimal(format!("{}.5", hour))),
                ],
                ..Default::default()
            })
            .collect();
        let text = sparklines(&series);
        println!("{text}");
        let expected = "\
count       ██▇ ▆▅▅▄▃▃▂▁▁▁▂▃▃▄▅▅▆▇▇█  peak 121
total cost  ▁▁▁▂▂▂▃▃▃▄▄▄▅▅▅▆▆▆▇▇▇███  peak $23.50
            16:00              15:00 UTC
";
        assert_eq!(text, expected);
        assert_eq!(sparklines(&MetricsResponse::default()), "");
    }
}
