//! `tracelake prices`: what models cost.

use std::io::Write;

use tracelake::price::PriceBook;

use super::Outcome;

pub(super) fn prices() -> Outcome {
    let book = PriceBook::built_in();
    let mut out = std::io::stdout().lock();
    writeln!(out, "price book {}", book.version())?;
    for model in book.models() {
        writeln!(out, "{model}")?;
    }
    Ok(())
}
