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
/// Bytes the hashes of a row's key and of its trace take until its file's filters are made, and while they are made.
pub(super) const KEY_BYTES: u64 = 2 * HASH_BYTES;
pub(super) const KEY_FILTER_BYTES: u64 = 56;
pub(super) const HASH_BYTES: u64 = 8;

/// Of the memory of a merge whose rows become one file, what their keys may take while rows are read. When they are
/// made a filter, nothing else is held.
const KEYS_SHARE_ALONE: u64 = 5;
/// Of one with several outputs, those of the open one.
const KEYS_SHARE_IN_TURN: u64 = 8;

/// What is left for a merge whose rows are summed up on the way. `None`: too little.
pub(super) fn beside_sums(whole: ByteSize, sums: ByteSize) -> Option<ByteSize> {
    whole.bytes().checked_sub(sums.bytes()).map(ByteSize).filter(|left| *left >= LEAST)
}

/// Rows that the only output of a merge may have.
pub(super) fn rows_max_alone(whole: ByteSize) -> u64 {
    whole.bytes() / KEYS_SHARE_ALONE / KEY_BYTES
}

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
    /// Rows that one output may have, so that its keys fit: all, or as many as leave room for others' inputs.
    pub(super) output_rows_max: u64,
}

impl Shares {
    /// The shares of a merge of so many files; `None` if it would have too little for each. `alone`: all its rows, if
    /// they become one file.
    pub(super) fn of(whole: ByteSize, files: usize, alone: Option<u64>) -> Option<Self> {
        let alone = alone.filter(|rows| *rows <= rows_max_alone(whole));
        let whole = whole.bytes();
        let row_group = (whole / 8).clamp(ROW_GROUP_LEAST, ROW_GROUP_MOST);
        let upload = ((PARTS_AT_ONCE + 1) * PART_BYTES) as u64;
        // The open row group, and its copy on the way out.
        let writing = 2 * row_group + upload;
        // Keys are made a filter when the row group is gone.
        let in_turn = (writing / KEY_FILTER_BYTES).min(whole / KEYS_SHARE_IN_TURN / KEY_BYTES).max(1);
        let output_rows_max = alone.unwrap_or(in_turn).max(in_turn);
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
        self.input / 3
    }

    /// A row group up to this size too.
    pub(super) fn row_group_whole_max(&self) -> u64 {
        self.input / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_never_add_up_to_more_than_the_whole() {
        for (mib, files, alone) in [48, 64, 100, 256, 1024, 8192]
            .into_iter()
            .flat_map(|mib| [1, 2, 8, 20, 32].map(|files| (mib, files)))
            .flat_map(|(mib, files)| [Some(1_000), Some(3_000_000), None].map(|alone| (mib, files, alone)))
        {
            let whole = ByteSize::mib(mib);
            let Some(shares) = Shares::of(whole, files, alone) else { continue };
            let upload = ((PARTS_AT_ONCE + 1) * PART_BYTES) as u64;
            let keys = shares.output_rows_max * KEY_BYTES;
            let writing = 2 * shares.row_group.bytes() + upload;
            let sum = writing + keys + shares.input * files as u64;
            assert!(sum <= whole.bytes(), "{mib} MiB, {files} files of {alone:?} rows: {shares:?}");
            let is_alone = alone.is_some_and(|rows| rows <= shares.output_rows_max);
            let room = if is_alone { whole.bytes() } else { writing };
            assert!(shares.output_rows_max * KEY_FILTER_BYTES <= room, "{shares:?}");
        }
        assert!(Shares::of(LEAST, 2, None).is_some());
        assert!(Shares::of(ByteSize::mib(20), 2, None).is_none());
    }

    #[test]
    fn a_day_of_three_million_rows_is_one_file_at_the_default_memory() {
        let settings = crate::compact::CompactSettings::default();
        let sums = ByteSize::mib(56 + 72);
        let whole = beside_sums(settings.memory_of_one(), sums).unwrap();
        let shares = Shares::of(whole, 18, Some(3_000_000)).unwrap();
        assert!(shares.output_rows_max >= 3_000_000, "{shares:?}");
    }
}
