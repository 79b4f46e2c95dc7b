//! Where a page ended: after this trace, in the order of pages (newest first, then by id).

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::base::TimestampUs;
use crate::query::error::QueryError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) start_us: TimestampUs,
    pub(super) trace_id: String,
}

impl Cursor {
    /// Empty: the first page.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, QueryError> {
        if text.is_empty() {
            return Ok(None);
        }
        let bad = || QueryError::invalid("the cursor is not one of ours: use `next_cursor` of the page before");
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| bad())?;
        let (start, trace_id) = bytes.split_at_checked(8).ok_or_else(bad)?;
        let start_us = TimestampUs::from_be_bytes(start.try_into().map_err(|_| bad())?);
        Ok(Some(Self { start_us, trace_id: String::from_utf8(trace_id.to_vec()).map_err(|_| bad())? }))
    }

    pub(super) fn text(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode([&self.start_us.to_be_bytes(), self.trace_id.as_bytes()].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_as_it_was_written() {
        let cursor = Cursor { start_us: -5, trace_id: "größe/1".to_owned() };
        assert_eq!(Cursor::parse(&cursor.text()).unwrap(), Some(cursor));
        assert_eq!(Cursor::parse("").unwrap(), None);
        for bad in ["!", "AAAA", "_w", "AAAAAAAAAAD_"] {
            assert!(Cursor::parse(bad).unwrap_err().to_string().contains("next_cursor"), "{bad}");
        }
    }
}
