//! `Compare`: cohorts beside the first of them, with what is sure about the difference.

use super::figures::Figures;
use super::statistics::{self, Estimate, Mean, Share};
use super::{Preset, and, missing, named, percentile, readings};
use crate::query::error::QueryError;
use crate::query::functions;
use crate::query::metrics::{filter, request};
use crate::wire::metric_value::Value;
use crate::wire::{
    Aggregation as A, Cohort, CohortFigure, CompareMeasure, CompareRequest, CompareResponse, ComparedMeasure, Filter,
    Measure, MetricsRequest, MetricsResponse, Statistic, View,
};

pub struct Comparison(pub CompareRequest);

const COHORTS_MAX: usize = 10;
const MEASURES_MAX: usize = 10;
/// Around the filters of several cohorts: one of them, all of its own.
const LEVELS_AROUND: usize = 2;
/// Of one measure of a cohort, what is asked.
const PARTS_MAX: usize = 3;
const CONFIDENCE: f64 = 0.95;
/// Below, an interval says little.
const SMALL_BELOW: f64 = 30.0;

impl Comparison {
    /// The rows are read once for so many cohorts: as many as have room in one question.
    fn cohorts_at_once(&self) -> usize {
        let lists = self.0.cohorts.iter().map(|cohort| &cohort.filters);
        let lists = lists.chain(self.0.measures.iter().map(|measure| &measure.filters)).chain([&self.0.filters]);
        let sizes: Vec<(usize, usize)> = lists.map(|filters| size(filters)).collect();
        let (comparisons, levels) = sizes.into_iter().fold((0, 0), |a, b| (a.0 + b.0, a.1.max(b.1)));
        if comparisons > filter::FILTERS_MAX || levels + LEVELS_AROUND > filter::LEVELS_MAX {
            return 1;
        }
        (request::MEASURES_MAX / (PARTS_MAX * self.0.measures.len()).max(1)).max(1)
    }

    /// What must be known of one measure of a cohort, by names that [`Side::of`] looks up. `of_cohort`: what tells its
    /// rows from those of the others in the question.
    fn measures(
        &self,
        (cohort, of_cohort): (usize, &[Filter]),
        (measure, said): (usize, &CompareMeasure),
    ) -> Result<Vec<Measure>, QueryError> {
        let name = |what: &str| part_name(what, cohort, measure);
        let of = |what: &str, field: &str, aggregation| Measure {
            filters: and(of_cohort, said.filters.iter().cloned()),
            ..named(&name(what), field, aggregation)
        };
        Ok(match self.statistic(said)? {
            Statistic::Rate if said.filters.is_empty() => {
                return Err(QueryError::invalid("a rate needs filters: it is the share that passes them"));
            }
            Statistic::Rate => {
                let all = Measure { filters: of_cohort.to_vec(), ..named(&name("n"), "", A::Count) };
                vec![of("passed", "", A::Count), all]
            }
            Statistic::Percentile => {
                let own = percentile("", &said.field, Self::q(said));
                let value = of("value", &said.field, A::Unspecified);
                let value = Measure { name: value.name, filters: value.filters, ..own };
                vec![value, of("sketch", &said.field, A::Sketch), of("n", &said.field, A::Count)]
            }
            _ => vec![
                of("value", &said.field, A::Avg),
                of("deviation", &said.field, A::Stddev),
                of("n", &said.field, A::Count),
            ],
        })
    }

    fn confidence(&self) -> f64 {
        if self.0.confidence == 0.0 { CONFIDENCE } else { self.0.confidence }
    }

    fn statistic(&self, measure: &CompareMeasure) -> Result<Statistic, QueryError> {
        match Statistic::try_from(measure.statistic) {
            Ok(Statistic::Unspecified) => Ok(Statistic::Mean),
            Ok(statistic) => Ok(statistic),
            Err(_) => Err(QueryError::invalid("a statistic is MEAN, RATE or PERCENTILE")),
        }
    }

    fn q(measure: &CompareMeasure) -> f64 {
        if measure.percentile == 0.0 { 50.0 } else { measure.percentile }
    }
}

impl Preset for Comparison {
    type Response = CompareResponse;

    fn asks(&self, _: i64) -> Result<Vec<MetricsRequest>, QueryError> {
        let CompareRequest { range, view, filters, cohorts, measures, .. } = &self.0;
        if !(2..=COHORTS_MAX).contains(&cohorts.len()) {
            return Err(QueryError::invalid(format!("{} cohorts: 2 to {COHORTS_MAX} are possible", cohorts.len())));
        }
        if !(1..=MEASURES_MAX).contains(&measures.len()) {
            return Err(QueryError::invalid(format!("{} measures: 1 to {MEASURES_MAX} are possible", measures.len())));
        }
        if !(0.5..1.0).contains(&self.confidence()) {
            return Err(QueryError::invalid(format!("{} is not a confidence from 0.5 to below 1", self.0.confidence)));
        }
        let view = if *view == 0 { View::Traces.into() } else { *view };
        let asked = |(from, cohorts): (usize, &[Cohort])| -> Result<MetricsRequest, QueryError> {
            let is_one = cohorts.len() == 1;
            let mut asked = Vec::new();
            for (at, cohort) in cohorts.iter().enumerate() {
                let of_cohort = if is_one { &[][..] } else { &cohort.filters };
                for said in measures.iter().enumerate() {
                    asked.extend(self.measures((from + at, of_cohort), said)?);
                }
            }
            // What is in none of them need not be looked at.
            let all_of = |cohort: &Cohort| Filter { all_of: cohort.filters.clone(), ..Filter::default() };
            let any_of = || vec![Filter { any_of: cohorts.iter().map(all_of).collect(), ..Filter::default() }];
            let shared = match is_one {
                true => cohorts[0].filters.clone(),
                false if cohorts.iter().any(|cohort| cohort.filters.is_empty()) => Vec::new(),
                false => any_of(),
            };
            let filters = and(filters, shared);
            Ok(MetricsRequest { view, range: *range, filters, measures: asked, ..Default::default() })
        };
        let some = self.cohorts_at_once();
        cohorts.chunks(some).enumerate().map(|(at, cohorts)| asked((at * some, cohorts))).collect()
    }

    fn answer(&self, answers: Vec<MetricsResponse>) -> Result<CompareResponse, QueryError> {
        if answers.len() != self.0.cohorts.len().div_ceil(self.cohorts_at_once()) {
            return Err(missing());
        }
        let mut measures = Vec::with_capacity(self.0.measures.len());
        for (at, measure) in self.0.measures.iter().enumerate() {
            measures.push(self.compared(at, measure, &answers)?);
        }
        Ok(CompareResponse { measures, confidence: self.confidence(), reading: Some(readings(&answers)) })
    }
}

impl Comparison {
    fn compared(
        &self,
        at: usize,
        measure: &CompareMeasure,
        answers: &[MetricsResponse],
    ) -> Result<ComparedMeasure, QueryError> {
        let statistic = self.statistic(measure)?;
        let side = |cohort: usize| {
            let figures = Figures(&answers[cohort / self.cohorts_at_once()]);
            Side::of(figures, (cohort, at), statistic, Self::q(measure))
        };
        let sides: Vec<Side> = (0..self.0.cohorts.len()).map(side).collect();
        let baseline = &sides[0];
        let confidence = self.confidence();
        let differences: Vec<Option<Estimate>> =
            sides.iter().skip(1).map(|side| baseline.difference(side, confidence)).collect();
        let known: Vec<f64> = differences.iter().flatten().filter_map(|difference| difference.p_value).collect();
        let mut adjusted = statistics::holm(&known).into_iter();
        let mut figures = Vec::with_capacity(sides.len());
        for (cohort, side) in sides.iter().enumerate() {
            let difference = cohort.checked_sub(1).and_then(|at| differences[at]);
            let p_value = difference.and_then(|difference| difference.p_value);
            let adjusted = p_value.and_then(|_| adjusted.next());
            let interval = side.interval(confidence);
            figures.push(CohortFigure {
                name: self.0.cohorts[cohort].name.clone(),
                n: side.n() as i64,
                value: side.value(),
                low: interval.map(|(low, _)| low),
                high: interval.map(|(_, high)| high),
                difference: difference.map(|difference| difference.value),
                difference_low: difference.and_then(|difference| difference.low),
                difference_high: difference.and_then(|difference| difference.high),
                p_value,
                p_value_adjusted: adjusted,
                is_significant: adjusted.is_some_and(|p| p < 1.0 - confidence),
                is_small: side.n() < SMALL_BELOW,
            });
        }
        let name = if measure.name.is_empty() { measure.field.clone() } else { measure.name.clone() };
        let method = match statistic {
            Statistic::Rate => "Newcombe's interval of a difference of shares; z test",
            Statistic::Percentile => "bootstrap of 2,000 draws",
            _ => "Welch's t test",
        };
        Ok(ComparedMeasure { name, method: method.to_owned(), cohorts: figures })
    }
}

/// How many comparisons these filters are, and how deep they nest.
fn size(filters: &[Filter]) -> (usize, usize) {
    let one = |filter: &Filter| match [&filter.all_of, &filter.any_of, &filter.none_of].map(|inner| size(inner)) {
        [(0, _), (0, _), (0, _)] => (1, 1),
        groups => groups.into_iter().fold((0, 0), |a, b| (a.0 + b.0, a.1.max(b.1 + 1))),
    };
    filters.iter().map(one).fold((0, 0), |a, b| (a.0 + b.0, a.1.max(b.1)))
}

fn part_name(what: &str, cohort: usize, measure: usize) -> String {
    format!("{what} {cohort} {measure}")
}

/// What is known of one cohort.
enum Side {
    Mean(Option<Mean>, f64),
    Share(Share),
    Percentile { n: f64, value: Option<f64>, drawn: Vec<f64> },
}

impl Side {
    fn of(figures: Figures<'_>, (cohort, measure): (usize, usize), statistic: Statistic, q: f64) -> Self {
        let row = figures.one();
        let number = |what: &str| figures.number(row, &part_name(what, cohort, measure));
        let n = number("n").unwrap_or(0.0);
        match statistic {
            Statistic::Rate => Self::Share(Share { n, passed: number("passed").unwrap_or(0.0) }),
            Statistic::Percentile => {
                let drawn = match figures.value(row, &part_name("sketch", cohort, measure)) {
                    Some(Value::Sketch(bytes)) if n > 0.0 => match functions::quantiles(bytes) {
                        Some(quantile) => statistics::bootstrap(n, q / 100.0, cohort as u64, quantile),
                        None => Vec::new(),
                    },
                    _ => Vec::new(),
                };
                Self::Percentile { n, value: number("value"), drawn }
            }
            _ => {
                let mean = number("value").map(|mean| Mean { n, mean, deviation: number("deviation").unwrap_or(0.0) });
                Self::Mean(mean, n)
            }
        }
    }

    fn n(&self) -> f64 {
        match self {
            Self::Mean(_, n) => *n,
            Self::Share(share) => share.n,
            Self::Percentile { n, .. } => *n,
        }
    }

    fn value(&self) -> Option<f64> {
        match self {
            Self::Mean(mean, _) => mean.map(|mean| mean.mean),
            Self::Share(share) => (share.n > 0.0).then(|| share.passed / share.n),
            Self::Percentile { value, .. } => *value,
        }
    }

    fn interval(&self, confidence: f64) -> Option<(f64, f64)> {
        match self {
            // Of a mean alone: its difference from a zero that is known exactly.
            Self::Mean(mean, _) => {
                let mean = (*mean)?;
                let zero = Mean { n: f64::INFINITY, mean: 0.0, deviation: 0.0 };
                let alone = statistics::welch(zero, mean, confidence);
                Some((alone.low?, alone.high?))
            }
            Self::Share(share) => statistics::wilson(*share, confidence),
            Self::Percentile { drawn, .. } => statistics::interval(drawn, confidence),
        }
    }

    /// `other` − `self`.
    fn difference(&self, other: &Self, confidence: f64) -> Option<Estimate> {
        match (self, other) {
            (Self::Mean(Some(a), _), Self::Mean(Some(b), _)) => Some(statistics::welch(*a, *b, confidence)),
            (Self::Share(a), Self::Share(b)) => statistics::newcombe(*a, *b, confidence),
            (
                Self::Percentile { value: Some(a), drawn: da, .. },
                Self::Percentile { value: Some(b), drawn: db, .. },
            ) => Some(statistics::resampled(b - a, da, db, confidence)),
            _ => None,
        }
    }
}
