//! `tracelake ask`: one metrics question, as its proto's JSON, answered as a table or as lines of blocks.

use std::io::Write;

use serde_json::{Map, Value as Json};

use super::{CliError, Connection, tables};
use crate::base::{Clock, SystemClock};
use crate::wire::{
    Aggregation, Filter, FilterOperator, Measure, MetricsRequest, MetricsResponse, OrderBy, TimeBucket, TimeRange,
    TimeUnit, View,
};

/// Asks and prints.
pub async fn ask(connection: &Connection, question: &str, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    let request = parse(question, SystemClock.now_us())?;
    print(&connection.metrics(request).await?, out)
}

fn print(answer: &MetricsResponse, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    let is_series =
        answer.dimensions.is_empty() && answer.rows.iter().any(|row| row.bucket_start_unix_micros.is_some());
    match is_series {
        true => write!(out, "{}", tables::sparklines(answer))?,
        false => writeln!(out, "{}", tables::metrics(answer))?,
    }
    if let Some(reading) = &answer.reading {
        let exact = if reading.exact { "exact" } else { "percentiles within 0.5 %" };
        writeln!(
            out,
            "{} rows and {} bytes read, {} files left alone; {exact}",
            reading.rows, reading.bytes, reading.files_pruned
        )?;
    }
    Ok(())
}

/// A question as the proto's JSON, in lowerCamelCase or as the fields are named, enums by their names with or without
/// prefix. `range` may be a time span up to now, such as `"7d"`; without one it is the last day.
fn parse(question: &str, now_us: i64) -> Result<MetricsRequest, CliError> {
    let json: Json =
        serde_json::from_str(question).map_err(|e| CliError::Invalid(format!("the question is not JSON: {e}")))?;
    let mut fields = Fields::of(&json, "the question")?;
    let request = MetricsRequest {
        view: fields.word("view", "VIEW_", |name| View::from_str_name(name).map(Into::into))?,
        measures: fields.list("measures", measure)?,
        dimensions: fields.texts("dimensions")?,
        filters: fields.list("filters", filter)?,
        range: Some(range(fields.take("range"), now_us)?),
        bucket: fields.take("bucket").map(bucket).transpose()?,
        order_by: fields.list("order_by", order)?,
        top_k: fields.number("top_k")? as u32,
        with_total: fields.boolean("with_total")?,
        exact_percentiles: fields.boolean("exact_percentiles")?,
        steps: fields.list("steps", filter)?,
    };
    fields.nothing_else()?;
    Ok(request)
}

fn measure(json: &Json) -> Result<Measure, CliError> {
    let mut fields = Fields::of(json, "a measure")?;
    let measure = Measure {
        field: fields.text("field")?,
        aggregation: fields
            .word("aggregation", "AGGREGATION_", |name| Aggregation::from_str_name(name).map(Into::into))?,
        name: fields.text("name")?,
        percentile: fields.number("percentile")?,
        filters: fields.list("filters", filter)?,
        bins: fields.number("bins")? as u32,
    };
    fields.nothing_else()?;
    Ok(measure)
}

fn filter(json: &Json) -> Result<Filter, CliError> {
    let mut fields = Fields::of(json, "a filter")?;
    let filter = Filter {
        field: fields.text("field")?,
        operator: fields
            .word("operator", "FILTER_OPERATOR_", |name| FilterOperator::from_str_name(name).map(Into::into))?,
        values: fields.texts("values")?,
        all_of: fields.list("all_of", filter)?,
        any_of: fields.list("any_of", filter)?,
        none_of: fields.list("none_of", filter)?,
    };
    fields.nothing_else()?;
    Ok(filter)
}

fn bucket(json: &Json) -> Result<TimeBucket, CliError> {
    if let Some(unit) = json.as_str() {
        return bucket(&serde_json::json!({ "unit": unit }));
    }
    let mut fields = Fields::of(json, "the bucket")?;
    let bucket = TimeBucket {
        unit: fields.word("unit", "TIME_UNIT_", |name| TimeUnit::from_str_name(name).map(Into::into))?,
        count: fields.number("count")? as u32,
        time_zone: fields.text("time_zone")?,
        skip_gaps: fields.boolean("skip_gaps")?,
    };
    fields.nothing_else()?;
    Ok(bucket)
}

fn order(json: &Json) -> Result<OrderBy, CliError> {
    let mut fields = Fields::of(json, "an order")?;
    let order = OrderBy { field: fields.text("field")?, ascending: fields.boolean("ascending")? };
    fields.nothing_else()?;
    Ok(order)
}

const DAY_US: i64 = crate::base::Day::US;

fn range(json: Option<&Json>, now_us: i64) -> Result<TimeRange, CliError> {
    // What begins in this moment is in it.
    let up_to_now = |length_us: i64| TimeRange { from_unix_micros: now_us - length_us, to_unix_micros: now_us + 1 };
    let Some(json) = json else { return Ok(up_to_now(DAY_US)) };
    let Some(text) = json.as_str() else {
        let mut fields = Fields::of(json, "the range")?;
        let range = TimeRange { from_unix_micros: fields.time("from")?, to_unix_micros: fields.time("to")? };
        fields.nothing_else()?;
        return Ok(range);
    };
    let bad = || CliError::Invalid(format!("{text:?} is no time span: use 90m, 24h, 7d or 4w"));
    let (count, unit) = text.split_at(text.len().saturating_sub(text.chars().last().map_or(0, char::len_utf8)));
    let unit_us = match unit {
        "m" => DAY_US / 1_440,
        "h" => DAY_US / 24,
        "d" => DAY_US,
        "w" => 7 * DAY_US,
        _ => return Err(bad()),
    };
    let length = count.parse::<i64>().ok().filter(|count| *count > 0).and_then(|count| count.checked_mul(unit_us));
    Ok(up_to_now(length.ok_or_else(bad)?))
}

/// Fields of a JSON object, taken one by one: what is left over is a mistake.
struct Fields<'a> {
    what: &'static str,
    left: Map<String, Json>,
    object: &'a Map<String, Json>,
}

impl<'a> Fields<'a> {
    fn of(json: &'a Json, what: &'static str) -> Result<Self, CliError> {
        match json.as_object() {
            Some(object) => Ok(Self { what, left: object.clone(), object }),
            None => Err(CliError::Invalid(format!("{what} is not an object"))),
        }
    }

    /// By the field's name or by its lowerCamelCase.
    fn take(&mut self, name: &str) -> Option<&'a Json> {
        let mut camel = String::new();
        let mut words = name.split('_');
        camel.push_str(words.next().unwrap_or_default());
        for word in words {
            camel.extend(word.chars().next().map(|first| first.to_ascii_uppercase()));
            camel.push_str(word.get(1..).unwrap_or_default());
        }
        let found = [name, camel.as_str()].into_iter().find(|name| self.object.contains_key(*name))?;
        self.left.remove(found);
        self.object.get(found).filter(|json| !json.is_null())
    }

    fn wrong(&self, name: &str, wanted: &str) -> CliError {
        CliError::Invalid(format!("{name:?} of {} is not {wanted}", self.what))
    }

    fn text(&mut self, name: &str) -> Result<String, CliError> {
        match self.take(name) {
            None => Ok(String::new()),
            Some(json) => json.as_str().map(str::to_owned).ok_or_else(|| self.wrong(name, "a text")),
        }
    }

    fn number(&mut self, name: &str) -> Result<f64, CliError> {
        match self.take(name) {
            None => Ok(0.0),
            Some(json) => json.as_f64().filter(|n| *n >= 0.0).ok_or_else(|| self.wrong(name, "a number of 0 or more")),
        }
    }

    fn boolean(&mut self, name: &str) -> Result<bool, CliError> {
        match self.take(name) {
            None => Ok(false),
            Some(json) => json.as_bool().ok_or_else(|| self.wrong(name, "true or false")),
        }
    }

    fn texts(&mut self, name: &str) -> Result<Vec<String>, CliError> {
        self.list(name, |json| match json {
            Json::String(text) => Ok(text.clone()),
            Json::Number(_) | Json::Bool(_) => Ok(json.to_string()),
            _ => Err(CliError::Invalid(format!("{name:?} holds something that is no text"))),
        })
    }

    fn list<T>(&mut self, name: &str, read: impl Fn(&Json) -> Result<T, CliError>) -> Result<Vec<T>, CliError> {
        match self.take(name) {
            None => Ok(Vec::new()),
            Some(Json::Array(items)) => items.iter().map(read).collect(),
            Some(_) => Err(self.wrong(name, "a list")),
        }
    }

    /// A value of an enum by its name, whole or without the enum's own.
    fn word(&mut self, name: &str, prefix: &str, of: impl Fn(&str) -> Option<i32>) -> Result<i32, CliError> {
        let text = self.text(name)?;
        if text.is_empty() {
            return Ok(0);
        }
        let upper = text.to_ascii_uppercase();
        let known = of(&upper).or_else(|| of(&format!("{prefix}{upper}")));
        known.ok_or_else(|| CliError::Invalid(format!("{text:?} is no {name} of {}", self.what)))
    }

    /// RFC 3339, or the proto's microseconds.
    fn time(&mut self, name: &str) -> Result<i64, CliError> {
        if let Some(micros) = self.take(&format!("{name}_unix_micros")) {
            let text = micros.as_str().and_then(|text| text.parse().ok());
            return micros.as_i64().or(text).ok_or_else(|| self.wrong(name, "a whole number of microseconds"));
        }
        let text = self.text(name)?;
        let at = chrono::DateTime::parse_from_rfc3339(&text);
        at.map(|at| at.timestamp_micros()).map_err(|_| self.wrong(name, "a time such as 2026-11-21T08:00:00Z"))
    }

    fn nothing_else(self) -> Result<(), CliError> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(name) => Err(CliError::Invalid(format!("{} has no {name:?}", self.what))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_reads_as_it_is_written() {
        let question = r#"{
            "view": "traces", "range": "7d", "bucket": "day", "topK": 3, "with_total": true,
            "measures": [{"aggregation": "percentile", "field": "latency_ms", "percentile": 95},
                         {"aggregation": "AGGREGATION_COUNT", "name": "n"}],
            "filters": [{"anyOf": [{"field": "errors", "operator": "greater", "values": [0]},
                                   {"field": "tags", "operator": "HAS_ANY", "values": ["panic"]}]}],
            "orderBy": [{"field": "n"}]
        }"#;
        let request = parse(question, 10 * DAY_US).unwrap();
        assert_eq!(request.view, i32::from(View::Traces));
        assert_eq!(request.range.unwrap().from_unix_micros, 3 * DAY_US);
        assert_eq!((request.bucket.unwrap().unit, request.top_k, request.with_total), (TimeUnit::Day.into(), 3, true));
        assert_eq!(request.measures[0].percentile, 95.0);
        assert_eq!(request.measures[1].name, "n");
        assert_eq!(request.filters[0].any_of[0].values, ["0"]);
        assert_eq!(request.filters[0].any_of[1].operator, i32::from(FilterOperator::HasAny));
        let micros = r#"{"range": {"fromUnixMicros": "5", "to": "1970-01-01T00:00:01Z"}}"#;
        let range = parse(micros, 0).unwrap().range.unwrap();
        assert_eq!((range.from_unix_micros, range.to_unix_micros), (5, 1_000_000));
    }

    #[test]
    fn a_mistake_is_named() {
        let cases = [
            ("{", "not JSON"),
            ("[]", "the question is not an object"),
            (r#"{"measure": []}"#, "the question has no \"measure\""),
            (r#"{"view": "spans"}"#, "\"spans\" is no view"),
            (r#"{"range": "7"}"#, "use 90m, 24h, 7d or 4w"),
            (r#"{"range": {"from": "now", "to": "then"}}"#, "is not a time such as"),
            (r#"{"top_k": -1}"#, "a number of 0 or more"),
            (r#"{"filters": {}}"#, "is not a list"),
            (r#"{"filters": [{"values": [{}]}]}"#, "no text"),
        ];
        for (question, expected) in cases {
            let error = parse(question, DAY_US).unwrap_err().to_string();
            assert!(error.contains(expected), "{question}: {error}");
        }
    }
}
