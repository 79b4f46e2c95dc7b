//! One tenant: what its clients say, and what is known of it.

use super::history::History;
use super::said::Speaker;
use super::versions::PublicTables;
use crate::base::{TenantId, TimestampUs};
use crate::model::{Event, EventBatch, EventKind};

pub(super) struct Client {
    pub(super) tenant: TenantId,
    pub(super) speaker: Speaker,
    pub(super) history: History,
    pub(super) public: PublicTables,
    /// Its rows are not kept for ever.
    pub(super) has_rule: bool,
    /// Nothing of it may be left in the end.
    pub(super) is_deleted: bool,
}

impl Client {
    pub(super) fn new(voice: &'static str, has_rule: bool) -> Self {
        let (history, public) = (History::default(), PublicTables::default());
        Self {
            tenant: voice.parse().unwrap(),
            speaker: Speaker::new(voice),
            history,
            public,
            has_rule,
            is_deleted: false,
        }
    }

    /// A request that is about to be sent, by its number.
    pub(super) fn batch(&mut self, request: usize, now_us: TimestampUs) -> EventBatch {
        let request = &mut self.history.requests[request];
        request.last_sent_us = now_us;
        let events = request.events.clone();
        let is_counted = |event: &&Event| !matches!(event.kind, Some(EventKind::Trace(_)));
        let received = events.iter().filter(is_counted).count() as u64;
        EventBatch { door: "test".into(), events, received, ..Default::default() }
    }
}
