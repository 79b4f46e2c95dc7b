//! What is done to every event that was read, whatever it was read from, before it is let in.

use super::{DecodeLimits, InlineMedium, cut, media, tools};
use crate::model::{Event, Rejection};

/// Names its tools, takes media out of its texts and, where it `may_be_long`, cuts them. A refused one leaves no media.
pub(super) fn fit(
    event: &mut Event,
    may_be_long: bool,
    limits: &DecodeLimits,
    media: &mut Vec<InlineMedium>,
) -> Result<(), Rejection> {
    tools::find(event);
    let before = media.len();
    media::take_out(event, limits, media);
    match may_be_long {
        true => cut::event(event, limits).inspect_err(|_| media.truncate(before)),
        false => Ok(()),
    }
}
