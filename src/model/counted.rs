//! Tokens of a call as counted from its texts, where its sender says no usage.

use super::{Observation, UsageSource};

/// Kinds of usage.
const INPUT: &str = "input";
const OUTPUT: &str = "output";
const TOTAL: &str = "total";

/// What of a row nobody said: it is not read back as said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    Tokens(CountedTokens),
    /// Another reports the call: nothing is counted here.
    GaveWay,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CountedTokens {
    pub input: i64,
    /// None: the answer is not there yet, or there is none, as of an embedding.
    pub output: Option<i64>,
}

impl Observation {
    /// Its tokens were counted, or are to be. It reports nothing by that.
    pub fn is_counted(&self) -> bool {
        self.usage_source == Some(UsageSource::Counted as i32)
    }

    /// Shows what was counted as if it had been said.
    pub fn count(&mut self, counted: Counted) {
        let Counted::Tokens(CountedTokens { input, output }) = counted else { return self.repeat() };
        let total = input.saturating_add(output.unwrap_or(0));
        self.set_usage_source(UsageSource::Counted);
        self.usage = [(INPUT, Some(input)), (OUTPUT, output), (TOTAL, Some(total))]
            .into_iter()
            .filter_map(|(kind, tokens)| Some((kind.to_owned(), tokens?)))
            .collect();
        (self.input_tokens, self.output_tokens, self.total_tokens) = (Some(input), output, Some(total));
    }

    /// What of its usage has columns of its own.
    pub(super) fn tokens(&self) -> [Option<i64>; 6] {
        [
            self.input_tokens,
            self.cached_input_tokens,
            self.cache_write_tokens,
            self.output_tokens,
            self.reasoning_tokens,
            self.total_tokens,
        ]
    }

    /// Takes what [`Observation::count`] put there.
    pub fn take_counted(&mut self) -> Option<Counted> {
        let is_counted = self.is_counted();
        // Whoever repeats what it said itself has it in its maps.
        let gave_way = self.usage_source == Some(UsageSource::Repeated as i32)
            && self.usage.is_empty()
            && self.provided_cost.is_empty()
            && self.tokens().iter().all(Option::is_none);
        if !is_counted && !gave_way {
            return None;
        }
        (self.usage_source, self.total_tokens) = (None, None);
        self.usage.clear();
        let (input, output) = (self.input_tokens.take(), self.output_tokens.take());
        if gave_way { Some(Counted::GaveWay) } else { Some(Counted::Tokens(CountedTokens { input: input?, output })) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_taken_again() {
        let tokens = |output| Counted::Tokens(CountedTokens { input: 7, output });
        for (counted, shown) in [
            (tokens(Some(5)), (Some(7), Some(5), Some(12), 3)),
            (tokens(None), (Some(7), None, Some(7), 2)),
            (Counted::GaveWay, (None, None, None, 0)),
        ] {
            let said = Observation { id: "o".into(), model: Some("gpt-4o".into()), ..Observation::default() };
            let mut row = said.clone();
            row.count(counted);
            assert_eq!((row.input_tokens, row.output_tokens, row.total_tokens, row.usage.len()), shown);
            assert!(!row.reports());
            assert_eq!(row.take_counted(), Some(counted));
            assert_eq!(row, said);
            assert_eq!(row.take_counted(), None);
        }
        let usage = [("total".to_owned(), 5)].into();
        let mut repeats = Observation { usage, total_tokens: Some(5), ..Observation::default() };
        repeats.repeat();
        assert_eq!(repeats.take_counted(), None, "it said that itself");
    }
}
