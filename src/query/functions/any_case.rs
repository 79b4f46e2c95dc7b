//! Whether a text holds another one, whatever the case of the letters A to Z: what `contains(lower(text), …)` says,
//! without a copy of every text in small letters. Signs that are no such letters but become one in small letters (the
//! Kelvin sign) are not found by it.

use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use datafusion::scalar::ScalarValue;
use memchr::{memchr_iter, memchr2_iter, memmem};

/// Of a column and a constant text of ASCII in small letters.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct HoldsAnyCase {
    signature: Signature,
}

impl HoldsAnyCase {
    pub(super) fn new() -> Self {
        Self { signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for HoldsAnyCase {
    fn name(&self) -> &str {
        "holds_any_case"
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let ColumnarValue::Scalar(ScalarValue::Utf8(Some(sought))) = &args.args[1] else {
            return exec_err!("what is searched for is a constant");
        };
        let sought = Sought::new(sought);
        let texts = cast(&args.args[0].to_array(args.number_rows)?, &DataType::Utf8View)?;
        let held = texts.as_string_view().iter().map(|text| Some(sought.is_in(text?.as_bytes())));
        Ok(ColumnarValue::Array(Arc::new(held.collect::<BooleanArray>())))
    }
}

/// The letters of English and what stands between them, most frequent first.
const FREQUENT: &[u8] = b" etaoinshrdlcumwfgypbvkjxqz";

struct Sought<'a> {
    text: &'a [u8],
    /// Where its rarest byte is: nearly every other place in a text is passed over for want of that one.
    rarest: usize,
}

impl<'a> Sought<'a> {
    fn new(text: &'a str) -> Self {
        let text = text.as_bytes();
        // Digits and signs stand between the frequent letters and the rare ones.
        let rank = |byte: &u8| FREQUENT.iter().position(|known| *known == byte.to_ascii_lowercase()).unwrap_or(12);
        let rarest = (0..text.len()).max_by_key(|at| rank(&text[*at])).unwrap_or(0);
        Self { text, rarest }
    }

    fn is_in(&self, text: &[u8]) -> bool {
        let Some(rarest) = self.text.get(self.rarest) else { return true };
        let begins = |at: usize| {
            let from = at.checked_sub(self.rarest)?;
            text.get(from..from + self.text.len())
        };
        let is_here = |at: usize| begins(at).is_some_and(|here| here.eq_ignore_ascii_case(self.text));
        let (small, large) = (rarest.to_ascii_lowercase(), rarest.to_ascii_uppercase());
        match small == large {
            true => self.is_at(memchr_iter(small, text), text, is_here),
            false => self.is_at(memchr2_iter(small, large, text), text, is_here),
        }
    }

    /// Where each place costs as much as the text is long, a text full of such places is looked through another way.
    fn is_at(&self, places: impl Iterator<Item = usize>, text: &[u8], is_here: impl Fn(usize) -> bool) -> bool {
        let places_max = 16 + 8 * text.len() / self.text.len();
        for (tried, at) in places.enumerate() {
            if tried > places_max {
                return memmem::find(&text.to_ascii_lowercase(), self.text).is_some();
            }
            if is_here(at) {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_where_small_letters_would_find_it() {
        let texts =
            ["", "a", "Where is my Order ORD-77?", "order", "ORDE", "rOrDeR", "Größe des ORDERS", "ord\u{0}er", "é"];
        let sought = ["", "a", "order", "ORD-77", "?", " o", "z", "größ", "order orders and orders", "\u{0}"];
        for text in texts {
            for one in sought.into_iter().filter(|one| one.is_ascii()).map(str::to_lowercase) {
                let expected = text.to_lowercase().contains(&one);
                assert_eq!(Sought::new(&one).is_in(text.as_bytes()), expected, "{one:?} in {text:?}");
            }
        }
        let (many, sought) = ("Q".repeat(100_000), format!("{}z", "q".repeat(999)));
        assert!(!Sought::new(&sought).is_in(many.as_bytes()));
        let sought = format!("{}a", "q".repeat(999));
        assert!(!Sought::new(&sought).is_in(many.as_bytes()));
        assert!(Sought::new(&sought).is_in(format!("{many}A").as_bytes()), "however many places look like it");
    }
}
