//! Where a page ended, as Langfuse writes it: JSON in base64. Pages go on with what is older, then by ids.

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::super::super::super::Refusal;
use super::{comparison, invalid, shapes};
use crate::base::TimestampUs;
use crate::wire::{Filter, FilterOperator, TimeRange};

/// The last row of a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cursor {
    /// Microseconds.
    last_time: TimestampUs,
    /// In the order in which rows of one time are sorted.
    last_ids: Vec<String>,
}

const LAX: GeneralPurposeConfig = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const ENGINES: [GeneralPurpose; 2] = [GeneralPurpose::new(&URL_SAFE, LAX), GeneralPurpose::new(&STANDARD, LAX)];

impl Cursor {
    pub(super) fn at<const IDS: usize>(last_time: TimestampUs, ids: [&str; IDS]) -> Self {
        Self { last_time, last_ids: ids.map(str::to_owned).to_vec() }
    }

    pub(super) fn text(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// `ids`: how many there must be.
    pub(super) fn parse(text: &str, ids: usize) -> Result<Self, Refusal> {
        let read = ENGINES.iter().find_map(|engine| engine.decode(text).ok());
        let read = read.and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok());
        read.filter(|cursor| cursor.last_ids.len() == ids)
            .ok_or_else(|| invalid("cursor is not one of ours: use meta.cursor of the page before"))
    }

    /// What of `range` is left.
    pub(super) fn rest(&self, range: TimeRange) -> TimeRange {
        let to_unix_micros = range.to_unix_micros.min(self.last_time.saturating_add(1));
        // Nothing is left of a range that ended before: the least there is.
        let from_unix_micros = range.from_unix_micros.min(to_unix_micros.saturating_sub(1));
        TimeRange { from_unix_micros, to_unix_micros }
    }

    /// Rows after it, newest first and then by `ids`.
    pub(super) fn after(&self, time: &str, ids: &[&str]) -> Filter {
        let at = || vec![shapes::instant_us(self.last_time)];
        let same = |upto: usize| {
            let same_ids = ids.iter().zip(&self.last_ids).take(upto);
            let same_ids = same_ids.map(|(field, id)| comparison(field, FilterOperator::Equals, vec![id.clone()]));
            std::iter::once(comparison(time, FilterOperator::Equals, at())).chain(same_ids)
        };
        let beyond = ids.iter().zip(&self.last_ids).enumerate().map(|(place, (field, id))| {
            let next = comparison(field, FilterOperator::Greater, vec![id.clone()]);
            Filter { all_of: same(place).chain([next]).collect(), ..Default::default() }
        });
        let older = comparison(time, FilterOperator::Less, at());
        Filter { any_of: std::iter::once(older).chain(beyond).collect(), ..Default::default() }
    }
}
