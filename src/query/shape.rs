//! What was asked, without what it was asked about: for the audit, which keeps no prompts and no parameters.

use std::collections::BTreeSet;
use std::fmt::Write;

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::wire::{Filter, MetricsRequest};

/// A statement with `?` in place of its literals and without its comments. What is no SQL is not repeated.
pub fn statement_shape(sql: &str) -> String {
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, sql).tokenize() else { return "not SQL".to_owned() };
    let mut shape = String::with_capacity(sql.len());
    for token in &tokens {
        match token {
            // Comments are whitespace too.
            Token::Whitespace(_) => {
                if !shape.is_empty() && !shape.ends_with(' ') {
                    shape.push(' ');
                }
            }
            Token::SemiColon => {}
            token if is_literal(token) => shape.push('?'),
            token => _ = write!(shape, "{token}"),
        }
    }
    shape.truncate(shape.trim_end().len());
    shape
}

/// Whatever holds a value. Of words only names and keywords are left.
fn is_literal(token: &Token) -> bool {
    matches!(
        token,
        Token::Number(..)
            | Token::Char(_)
            | Token::SingleQuotedString(_)
            | Token::DoubleQuotedString(_)
            | Token::TripleSingleQuotedString(_)
            | Token::TripleDoubleQuotedString(_)
            | Token::DollarQuotedString(_)
            | Token::SingleQuotedByteStringLiteral(_)
            | Token::DoubleQuotedByteStringLiteral(_)
            | Token::TripleSingleQuotedByteStringLiteral(_)
            | Token::TripleDoubleQuotedByteStringLiteral(_)
            | Token::SingleQuotedRawStringLiteral(_)
            | Token::DoubleQuotedRawStringLiteral(_)
            | Token::TripleSingleQuotedRawStringLiteral(_)
            | Token::TripleDoubleQuotedRawStringLiteral(_)
            | Token::NationalStringLiteral(_)
            | Token::EscapedStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
            | Token::HexStringLiteral(_)
    )
}

/// View, measures, dimensions, time buckets and the fields that are filtered on; of several questions one after the other.
pub fn metrics_shape(asked: &[MetricsRequest]) -> String {
    asked.iter().map(one_shape).collect::<Vec<_>>().join("; ")
}

fn one_shape(asked: &MetricsRequest) -> String {
    let view = asked.view().as_str_name().trim_start_matches("VIEW_").to_lowercase();
    let mut filtered = BTreeSet::new();
    filters(&asked.filters, &mut filtered);
    filters(&asked.steps, &mut filtered);
    let measures = asked.measures.iter().map(|measure| {
        filters(&measure.filters, &mut filtered);
        let aggregation = measure.aggregation().as_str_name().trim_start_matches("AGGREGATION_").to_lowercase();
        format!("{aggregation}({})", measure.field)
    });
    let mut shape = format!("{view}: {}", measures.collect::<Vec<_>>().join(", "));
    let mut add = |word: &str, names: Vec<&str>| {
        if !names.is_empty() {
            _ = write!(shape, " {word} {}", names.join(", "));
        }
    };
    let bucket = asked.bucket.as_ref().map(|_| "time");
    add("by", asked.dimensions.iter().map(String::as_str).chain(bucket).collect());
    add("where", filtered.into_iter().collect());
    shape
}

fn filters<'a>(all: &'a [Filter], fields: &mut BTreeSet<&'a str>) {
    for filter in all {
        if !filter.field.is_empty() {
            fields.insert(&filter.field);
        }
        [&filter.all_of, &filter.any_of, &filter.none_of].into_iter().for_each(|inner| filters(inner, fields));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Aggregation, Measure, TimeBucket, View};

    #[test]
    fn a_statement_keeps_its_names_and_loses_its_values() {
        for (sql, shape) in [
            (
                "SELECT  model, sum(total_cost)\nFROM observations -- of Ada\nWHERE user_id = 'ada' AND input_tokens > 1e3 LIMIT 10;",
                "SELECT model, sum(total_cost) FROM observations WHERE user_id = ? AND input_tokens > ? LIMIT ?",
            ),
            ("/* Ada's */ SELECT E'a\\n', x'ff', $$secret$$, \"name\"", "SELECT ?, ?, ?, \"name\""),
            ("SELECT 'unterminated", "not SQL"),
            ("", ""),
        ] {
            assert_eq!(statement_shape(sql), shape);
        }
    }

    #[test]
    fn a_metrics_question_keeps_its_fields_and_loses_its_values() {
        let filter = |field: &str| Filter { field: field.into(), values: vec!["ada".into()], ..Default::default() };
        let mut asked = MetricsRequest {
            measures: vec![Measure {
                field: "total_cost".into(),
                filters: vec![filter("level")],
                ..Default::default()
            }],
            dimensions: vec!["model".into()],
            filters: vec![Filter { any_of: vec![filter("user_id"), filter("tags")], ..Default::default() }],
            bucket: Some(TimeBucket::default()),
            ..Default::default()
        };
        asked.set_view(View::Observations);
        asked.measures[0].set_aggregation(Aggregation::Sum);
        let shape = "observations: sum(total_cost) by model, time where level, tags, user_id";
        assert_eq!(metrics_shape(&[asked.clone()]), shape);
        assert_eq!(metrics_shape(&[asked.clone(), asked]), format!("{shape}; {shape}"));
    }
}
