//! `_own`: which of a row's values the row says itself. What its trace says may be stamped over all others.

/// The bits are a contract: they stand in files. Never used twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Own(i64);

impl Own {
    pub(super) const TRACE_NAME: Own = Own(1);
    pub(super) const USER_ID: Own = Own(1 << 1);
    pub(super) const SESSION_ID: Own = Own(1 << 2);
    pub(super) const ENVIRONMENT: Own = Own(1 << 3);
    pub(super) const RELEASE: Own = Own(1 << 4);
    pub(super) const VERSION: Own = Own(1 << 5);
    pub(super) const TAGS: Own = Own(1 << 6);
    pub(super) const ACCOUNT: Own = Own(1 << 7);
    pub(super) const PROJECT: Own = Own(1 << 8);
    pub(super) const FLOW: Own = Own(1 << 9);
    /// Its sender marks it as the root.
    pub(super) const ROOT_MARK: Own = Own(1 << 10);
    /// It stands for the root as long as its trace has none.
    pub(super) const ORPHAN: Own = Own(1 << 11);
    /// `trace_name` is the name of an orphan, for want of a root.
    pub(super) const ORPHAN_NAME: Own = Own(1 << 12);
    /// `trace_name` is the name of the root, for want of a name said.
    pub(super) const ROOT_NAME: Own = Own(1 << 13);
    /// Its sender says that it is not the root.
    pub(super) const NO_ROOT_MARK: Own = Own(1 << 14);
    // These show a word where nothing was said; the bit tells that the word was said.
    pub(super) const TYPE: Own = Own(1 << 15);
    pub(super) const LEVEL: Own = Own(1 << 16);
    pub(super) const STATUS: Own = Own(1 << 17);
    pub(super) const USAGE_SOURCE: Own = Own(1 << 18);

    pub(super) fn of(pairs: &[(Own, bool)]) -> Self {
        Self(pairs.iter().filter(|(_, is_set)| *is_set).fold(0, |all, (bit, _)| all | bit.0))
    }

    pub(super) fn has(self, bit: Own) -> bool {
        self.0 & bit.0 != 0
    }

    pub(super) fn with(self, other: Own) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn without(self, other: Own) -> Self {
        Self(self.0 & !other.0)
    }

    /// As the column holds it.
    pub(super) fn column(self) -> Option<i64> {
        (self.0 != 0).then_some(self.0)
    }

    pub(super) fn of_column(value: Option<i64>) -> Self {
        Self(value.unwrap_or(0))
    }
}
