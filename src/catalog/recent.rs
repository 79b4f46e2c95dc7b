//! A bounded map of answers that may be used for a while.

use std::collections::HashMap;

use parking_lot::Mutex;

use crate::base::TimestampUs;

/// How long a looked-up key or tenant may be used before it is looked up again.
pub(super) const FRESH_FOR_US: i64 = 10_000_000;

/// Answers by name, each with the time its look-up began. When full it is emptied: that costs look-ups, nothing else.
#[derive(Debug)]
pub(super) struct Recent<V> {
    entries: Mutex<HashMap<String, (TimestampUs, V)>>,
    entries_max: usize,
}

impl<V: Clone> Recent<V> {
    pub(super) fn new(entries_max: usize) -> Self {
        Self { entries: Mutex::default(), entries_max }
    }

    pub(super) fn get(&self, name: &str, now_us: TimestampUs) -> Option<V> {
        let entries = self.entries.lock();
        let (asked_us, answer) = entries.get(name)?;
        // A clock that was set back makes an answer old, not young.
        (0..FRESH_FOR_US).contains(&(now_us - asked_us)).then(|| answer.clone())
    }

    pub(super) fn put(&self, name: &str, asked_us: TimestampUs, answer: V) {
        let mut entries = self.entries.lock();
        if entries.len() >= self.entries_max && !entries.contains_key(name) {
            entries.clear();
        }
        entries.insert(name.to_owned(), (asked_us, answer));
    }

    pub(super) fn forget(&self, name: &str) {
        self.entries.lock().remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_age_and_their_number_is_bounded() {
        let recent = Recent::new(2);
        for name in ["a", "b", "c"] {
            recent.put(name, 0, name.len());
        }
        assert!(recent.entries.lock().len() <= 2);
        assert_eq!(recent.get("c", FRESH_FOR_US - 1), Some(1));
        assert_eq!(recent.get("c", FRESH_FOR_US), None);
        assert_eq!(recent.get("c", -1), None);
    }
}
