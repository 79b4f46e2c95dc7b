//! `error_fingerprint(type, message)`: what errors have in common once ids, numbers, quoted text and URLs are out of
//! their messages.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, AsArray, StringViewArray, StringViewBuilder};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use regex::Regex;

/// Of a message, what is looked at.
const CHARS_MAX: usize = 300;

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ErrorFingerprint {
    signature: Signature,
}

impl ErrorFingerprint {
    pub(super) fn new() -> Self {
        Self { signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for ErrorFingerprint {
    fn name(&self) -> &str {
        "error_fingerprint"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let texts = |at: usize| -> Result<StringViewArray> {
            let texts = cast(&args.args[at].to_array(args.number_rows)?, &DataType::Utf8View)?;
            Ok(texts.as_string_view().clone())
        };
        let (kinds, messages) = (texts(0)?, texts(1)?);
        let mut found = StringViewBuilder::with_capacity(args.number_rows);
        for row in 0..args.number_rows {
            let at = |texts: &StringViewArray| texts.is_valid(row).then(|| texts.value(row).to_owned());
            found.append_option(fingerprint(at(&kinds).as_deref(), at(&messages).as_deref()));
        }
        Ok(ColumnarValue::Array(Arc::new(found.finish())))
    }
}

/// `None`: nothing is said.
fn fingerprint(kind: Option<&str>, message: Option<&str>) -> Option<String> {
    let message = message.map(normalised).filter(|message| !message.is_empty());
    match (kind.filter(|kind| !kind.is_empty()), message) {
        (Some(kind), Some(message)) => Some(format!("{kind}: {message}")),
        (Some(kind), None) => Some(kind.to_owned()),
        (None, message) => message,
    }
}

static VARYING: LazyLock<[(Regex, &str); 5]> = LazyLock::new(|| {
    let regex = |text: &str| Regex::new(text).expect("a constant");
    [
        (regex(r"\b[a-zA-Z][a-zA-Z0-9+.-]*://[^\s\x22'<>]+"), "<url>"),
        (regex(r#""[^"]*"|'[^']*'|`[^`]*`"#), "<text>"),
        (regex(r"\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b"), "<id>"),
        // Words of eight letters and digits or more, with a digit among them.
        (regex(r"\b(?:[a-zA-Z_-]*[0-9][a-zA-Z0-9_-]*){1}[a-zA-Z0-9_-]{7,}\b"), "<id>"),
        (regex(r"[0-9]+(?:[.,:][0-9]+)*"), "<number>"),
    ]
});

fn normalised(message: &str) -> String {
    let mut text: String = message.chars().take(CHARS_MAX).collect();
    for (varying, instead) in VARYING.iter() {
        if varying.is_match(&text) {
            text = varying.replace_all(&text, *instead).into_owned();
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_varies_from_error_to_error_is_out() {
        let cases = [
            ("Rate limit reached for org-7f3a91bc22 after 30 s", "Rate limit reached for <id> after <number> s"),
            ("Rate limit reached for org-0000000001 after 4.5 s", "Rate limit reached for <id> after <number> s"),
            ("GET https://api.example.com/v1/x?id=7 failed: 503", "GET <url> failed: <number>"),
            ("key 'user 12' not in \"table\"", "key <text> not in <text>"),
            ("trace 0af76519-16cd-43dd-8448-eb211c80319c lost", "trace <id> lost"),
            ("model gpt4 is not there", "model gpt<number> is not there"),
            ("line one\n  line two", "line one line two"),
        ];
        for (message, expected) in cases {
            assert_eq!(normalised(message), expected);
        }
        assert_eq!(fingerprint(Some("Timeout"), Some("after 5 s")).unwrap(), "Timeout: after <number> s");
        assert_eq!(fingerprint(None, Some("after 5 s")).unwrap(), "after <number> s");
        assert_eq!(fingerprint(Some("Timeout"), None).unwrap(), "Timeout");
        assert_eq!(fingerprint(None, Some("  ")), None);
    }
}
