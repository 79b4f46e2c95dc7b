//! Masking inside JSON: strings, keys and numbers are looked at as what they mean, and everything between them stays as
//! it was written.

use serde::de::IgnoredAny;

use super::mask::{Become, Kinds, Mask};
use super::path::Way;

/// JSON in a string in JSON: tool calls and their answers come so.
const JSON_IN_JSON_MAX: u32 = 4;

/// Lists and objects in each other that are gone through one by one. What lies deeper is looked at as one row of strings
/// and numbers, to which no path leads: no text takes more of the stack than this.
const DEPTH_MAX: u32 = 64;

/// `text` without what the rules find in it; `None`: it stays as it is.
pub(super) fn masked(mask: &Mask, text: &str, ways: &[Way<'_>], kinds: &mut Kinds, level: u32) -> Option<String> {
    let looks_so = text.trim_start().starts_with(['{', '[', '"']);
    // Parsing without building anything is cheap, and lets the walk take the grammar for granted.
    if level < JSON_IN_JSON_MAX && looks_so && serde_json::from_str::<IgnoredAny>(text).is_ok() {
        let mut walk =
            Walk { mask, text, at: 0, copied: 0, out: String::new(), changed: false, kinds, level, depth: 0 };
        walk.value(ways);
        return walk.changed.then(|| walk.out + &text[walk.copied..]);
    }
    mask.plain(text, kinds)
}

/// A walk over valid JSON.
struct Walk<'a> {
    mask: &'a Mask,
    text: &'a str,
    at: usize,
    /// Up to where `out` stands for `text`.
    copied: usize,
    out: String,
    changed: bool,
    kinds: &'a mut Kinds,
    level: u32,
    depth: u32,
}

impl Walk<'_> {
    fn value(&mut self, ways: &[Way<'_>]) {
        self.skip_space();
        if ways.iter().any(|way| way.left.is_empty()) && self.arrive(ways) {
            return;
        }
        match self.byte() {
            Some(b'{' | b'[') if self.depth >= DEPTH_MAX => self.row(),
            Some(open @ (b'{' | b'[')) => {
                self.depth += 1;
                if open == b'{' {
                    self.object(ways)
                } else {
                    self.list(ways)
                }
                self.depth -= 1;
            }
            Some(b'"') => self.string(|walk, text| masked(walk.mask, text, ways, walk.kinds, walk.level + 1)),
            _ => self.word(),
        }
    }

    /// A list or an object and all that is in it, one string or number after the other.
    fn row(&mut self) {
        let mut open = 0usize;
        loop {
            match self.byte() {
                None => return,
                Some(b'"') => self.string(|walk, text| masked(walk.mask, text, &[], walk.kinds, walk.level + 1)),
                Some(byte @ (b'{' | b'[' | b'}' | b']')) => {
                    open = if matches!(byte, b'{' | b'[') { open + 1 } else { open - 1 };
                    self.at += 1;
                }
                Some(byte) if is_between(byte) => self.at += 1,
                Some(_) => self.word(),
            }
            if open == 0 {
                return;
            }
        }
    }

    /// A number, or one of JSON's three words.
    fn word(&mut self) {
        let from = self.at;
        self.skip_word();
        if let Some(new) = self.mask.plain(&self.text[from..self.at], self.kinds) {
            self.replace(from, &quoted(&new));
        }
    }

    /// At a value that a path leads to; whether it is done with.
    fn arrive(&mut self, ways: &[Way<'_>]) -> bool {
        let from = self.at;
        self.skip_value();
        let raw = &self.text[from..self.at];
        let meant = serde_json::from_str::<String>(raw).unwrap_or_else(|_| raw.to_owned());
        let outcome = (raw != "null").then(|| self.mask.arrived(&meant, ways, self.kinds)).flatten();
        match outcome {
            // A null in its place: what reads the rest goes on reading it.
            Some(Become::Nothing) => self.replace(from, "null"),
            Some(Become::Text(new)) => self.replace(from, &quoted(&new)),
            None => {
                self.at = from;
                return false;
            }
        }
        true
    }

    fn object(&mut self, ways: &[Way<'_>]) {
        self.at += 1;
        loop {
            self.skip_space();
            match self.byte() {
                Some(b'"') => {}
                Some(b',') => {
                    self.at += 1;
                    continue;
                }
                _ => break self.at += 1,
            }
            let mut key = String::new();
            self.string(|walk, text| {
                text.clone_into(&mut key);
                walk.mask.plain(text, walk.kinds)
            });
            self.skip_space();
            self.at += 1;
            let below: Vec<Way<'_>> = ways.iter().filter_map(|way| way.below(&key)).collect();
            self.value(&below);
        }
    }

    fn list(&mut self, ways: &[Way<'_>]) {
        self.at += 1;
        let mut place = 0;
        loop {
            self.skip_space();
            match self.byte() {
                Some(b']') | None => break self.at += 1,
                Some(b',') => {
                    self.at += 1;
                    place += 1;
                    continue;
                }
                _ => {}
            }
            // A list is gone through as if it were not there, or by a place in it.
            let mut inside: Vec<Way<'_>> = ways.iter().copied().filter(|way| !way.left.is_empty()).collect();
            if !ways.is_empty() {
                let at_place = place.to_string();
                for below in ways.iter().filter_map(|way| way.below(&at_place)) {
                    if !inside.contains(&below) {
                        inside.push(below);
                    }
                }
            }
            self.value(&inside);
        }
    }

    fn string(&mut self, new: impl FnOnce(&mut Self, &str) -> Option<String>) {
        let from = self.at;
        self.skip_string();
        let raw = &self.text[from..self.at];
        let plain = &raw[1..raw.len() - 1];
        if !plain.contains('\\') {
            if let Some(new) = new(self, plain) {
                self.replace(from, &quoted(&new));
            }
            return;
        }
        match serde_json::from_str::<String>(raw) {
            Ok(meant) => {
                if let Some(new) = new(self, &meant) {
                    self.replace(from, &quoted(&new));
                }
            }
            // A lone half of a surrogate pair is valid to the parser that skips it, and means nothing.
            Err(_) => {
                if let Some(new) = new(self, plain) {
                    let kept = format!("\"{new}\"");
                    let is_valid = serde_json::from_str::<IgnoredAny>(&kept).is_ok();
                    self.replace(from, &if is_valid { kept } else { quoted(&new) });
                }
            }
        }
    }

    /// Puts `new` in the place of what stands from `from` to here.
    fn replace(&mut self, from: usize, new: &str) {
        self.out.push_str(&self.text[self.copied..from]);
        self.out.push_str(new);
        self.copied = self.at;
        self.changed = true;
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while self.byte().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    fn skip_string(&mut self) {
        self.at += 1;
        while let Some(byte) = self.byte() {
            match byte {
                b'"' => {
                    self.at += 1;
                    return;
                }
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
    }

    fn skip_word(&mut self) {
        while self.byte().is_some_and(|byte| !matches!(byte, b']' | b'}') && !is_between(byte)) {
            self.at += 1;
        }
    }

    fn skip_value(&mut self) {
        let mut open = 0usize;
        loop {
            match self.byte() {
                None => return,
                Some(b'"') => self.skip_string(),
                Some(b'{' | b'[') => {
                    open += 1;
                    self.at += 1;
                }
                Some(b'}' | b']') => {
                    open -= 1;
                    self.at += 1;
                }
                Some(byte) if is_between(byte) => self.at += 1,
                Some(_) => self.skip_word(),
            }
            if open == 0 {
                return;
            }
        }
    }
}

fn is_between(byte: u8) -> bool {
    matches!(byte, b',' | b':') || byte.is_ascii_whitespace()
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
