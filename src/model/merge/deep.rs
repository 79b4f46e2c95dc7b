//! JSON objects that stand as text, merged key by key.

use serde_json::Value;
use serde_json::map::Entry;

/// What is nested deeper is replaced: no sender's metadata is, and recursion stays bounded.
const DEPTH_MAX: usize = 32;

/// `after` over `before`: where both are objects, key by key, as deep as both are; else `after` takes its place. Whether
/// anything changed.
pub(super) fn merge(before: &mut String, after: &str) -> bool {
    if before == after {
        return false;
    }
    let (Some(was), Some(more)) = (object(before), object(after)) else {
        after.clone_into(before);
        return true;
    };
    let mut all = was.clone();
    merge_objects(&mut all, more, DEPTH_MAX);
    let changed = all != was;
    if changed {
        *before = Value::Object(all).to_string();
    }
    changed
}

fn object(text: &str) -> Option<serde_json::Map<String, Value>> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    serde_json::from_str(text).ok()
}

fn merge_objects(all: &mut serde_json::Map<String, Value>, more: serde_json::Map<String, Value>, depth_left: usize) {
    for (key, value) in more {
        match all.entry(key) {
            Entry::Vacant(place) => _ = place.insert(value),
            Entry::Occupied(mut place) => match (place.get_mut(), value) {
                (Value::Object(before), Value::Object(after)) if depth_left > 0 => {
                    merge_objects(before, after, depth_left - 1);
                }
                (before, after) => *before = after,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn objects_merge_by_key_and_all_else_is_replaced() {
        let check = |before: &str, after: &str, expected: &str| {
            let mut merged = before.to_owned();
            assert_eq!(super::merge(&mut merged, after), expected != before, "{after} over {before}");
            assert_eq!(merged, expected, "{after} over {before}");
        };
        check(r#"{"a":1,"b":{"c":2,"d":3}}"#, r#"{"b":{"c":4}}"#, r#"{"a":1,"b":{"c":4,"d":3}}"#);
        check(r#"{"a":{"b":1}}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#);
        check(r#"{"a":1}"#, "plain", "plain");
        check(r#"{"b":1,"a":2}"#, r#"{"a":2}"#, r#"{"b":1,"a":2}"#);
        check("[1]", "[2]", "[2]");
        check("{broken", r#"{"a":1}"#, r#"{"a":1}"#);
        check(r#"{"a":1}"#, r#"{"a":null}"#, r#"{"a":null}"#);
        let deep = format!("{}1{}", r#"{"a":"#.repeat(100), "}".repeat(100));
        check(&deep, &deep.replace('1', "2"), &deep.replace('1', "2"));
    }
}
