//! How one merge divides its memory (I7).

use crate::base::ByteSize;
use crate::store::{PART_BYTES, PARTS_AT_ONCE};

/// Below this a merge of wide rows does not get anywhere.
pub(super) const LEAST: ByteSize = ByteSize::mib(48);
/// An input with less than this would be read a few rows at a time.
const INPUT_LEAST: u64 = 1 << 20;
/// Row groups of what is written: large ones prune badly, small ones press badly.
const ROW_GROUP_LEAST: u64 = 4 << 20;
const ROW_GROUP_MOST: u64 = 128 << 20;
/// Bytes a row's key takes until its file's filter is made, and while it is made.
pub(super) const KEY_BYTES: u64 = 8;
const KEY_FILTER_BYTES: u64 = 48;

/// What a merge may hold, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shares {
    /// Of all together.
    pub(super) whole: u64,
    /// Of encoded row groups that are not finished.
    pub(super) row_group: ByteSize,
    /// Of all inputs together: fetched pages and decoded rows.
    pub(super) inputs: u64,
    /// Of each.
    pub(super) input: u64,
    /// Rows that one output may have, so that its keys fit.
    pub(super) output_rows_max: u64,
}

impl Shares {
    /// The shares of a merge of so many files; `None` if it would have too little for each.
    pub(super) fn of(whole: ByteSize, files: usize) -> Option<Self> {
        let whole = whole.bytes();
        let row_group = (whole / 8).clamp(ROW_GROUP_LEAST, ROW_GROUP_MOST);
        let upload = ((PARTS_AT_ONCE + 1) * PART_BYTES) as u64;
        // The open row group, and its copy on the way out.
        let writing = 2 * row_group + upload;
        // Keys are made a filter when the row group is gone.
        let output_rows_max = (writing / KEY_FILTER_BYTES).max(1);
        let keys = output_rows_max * KEY_BYTES;
        let inputs = whole.checked_sub(writing + keys)?;
        let input = inputs / files.max(1) as u64;
        (input >= INPUT_LEAST).then_some(Self { whole, row_group: ByteSize(row_group), inputs, input, output_rows_max })
    }

    /// Decoded bytes of an input's window. The rest of its share is for fetched pages and for sort keys.
    pub(super) fn window(&self) -> u64 {
        self.input / 3
    }

    /// A file up to this size is fetched by one request.
    pub(super) fn whole_file_max(&self) -> u64 {
        (self.input / 4).min(PART_BYTES as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_never_add_up_to_more_than_the_whole() {
        for mib in [48, 64, 100, 256, 1024, 8192] {
            for files in [1, 2, 8, 20, 32] {
                let Some(shares) = Shares::of(ByteSize::mib(mib), files) else { continue };
                let upload = ((PARTS_AT_ONCE + 1) * PART_BYTES) as u64;
                let keys = shares.output_rows_max * KEY_BYTES;
                let sum = 2 * shares.row_group.bytes() + upload + keys + shares.input * files as u64;
                assert!(sum <= mib << 20, "{mib} MiB, {files} files: {shares:?}");
                assert!(shares.output_rows_max * KEY_FILTER_BYTES <= 2 * shares.row_group.bytes() + upload);
            }
        }
        assert!(Shares::of(LEAST, 2).is_some());
        assert!(Shares::of(ByteSize::mib(20), 2).is_none());
    }
}
