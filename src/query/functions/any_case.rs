//! Whether a text holds another one, whatever the case of the letters A to Z: what `contains(lower(text), …)` says of
//! such a text, without a copy of every text in small letters.

use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::exec_err;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};
use datafusion::scalar::ScalarValue;
use memchr::{memchr_iter, memchr2_iter};

/// Of a column and a constant text of ASCII.
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
            true => memchr_iter(small, text).any(is_here),
            false => memchr2_iter(small, large, text).any(is_here),
        }
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
            for one in sought.into_iter().filter(|one| one.is_ascii()) {
                let expected = text.to_lowercase().contains(&one.to_lowercase());
                assert_eq!(Sought::new(one).is_in(text.as_bytes()), expected, "{one:?} in {text:?}");
            }
        }
    }
}
