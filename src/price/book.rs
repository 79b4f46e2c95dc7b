//! The price book: ask it what a usage cost.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use rust_decimal::Decimal;

use super::error::PriceError;
use super::file::{self, BookLimits, BookText};
use super::find::Finder;
use super::usage::{Quantities, Side, UsageKind};
use crate::base::{Money, TimestampUs};

/// Prices of many models, immutable. Another version is another book.
#[derive(Debug)]
pub struct PriceBook {
    version: String,
    models: Vec<Model>,
    finder: Finder,
}

/// What is asked: what did this usage of this model cost then?
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// As the sender names it.
    pub model: &'a str,
    pub provider: Option<&'a str>,
    /// The start of the observation: decides which price held.
    pub at_us: TimestampUs,
    /// `flex`, `priority`, `batch`, …
    pub service_tier: Option<&'a str>,
    /// `fast`, …
    pub speed: Option<&'a str>,
    /// How long the call took, where it has ended.
    pub duration_us: Option<i64>,
    pub usage: &'a Quantities,
}

/// The answer. `total` is the sum of `by_kind`, to the last digit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Priced {
    pub by_kind: BTreeMap<String, Money>,
    /// Input tokens of every kind, caches and audio included.
    pub input: Money,
    /// Output tokens of every kind.
    pub output: Money,
    pub total: Money,
    /// The book's name for the model.
    pub model_id: String,
    /// `book version/model/valid-from/tier`; `start` for a price that holds from the beginning.
    pub price_id: String,
}

pub(super) const BUILT_IN: &str = include_str!("book.json");

impl PriceBook {
    /// The book that comes with the program, parsed once.
    pub fn built_in() -> Arc<PriceBook> {
        static BOOK: LazyLock<Arc<PriceBook>> = LazyLock::new(|| {
            // Compiling its thousand patterns one by one takes longer than all else at a start: a test has done it.
            let book = PriceBook::shipped(PriceBook::built_in_text());
            Arc::new(book.expect("a test parses this very text"))
        });
        BOOK.clone()
    }

    /// A book that comes with a program: this one's, or another version's.
    pub fn parse(text: &str) -> Result<PriceBook, PriceError> {
        Self::new(read(text)?, file::SHIPPED, false)
    }

    /// A book that a program came with, kept for the rows priced by it.
    pub fn shipped(text: BookText) -> Result<PriceBook, PriceError> {
        Self::new(text, file::SHIPPED, true)
    }

    /// A tenant's own book, checked whole.
    pub fn own(text: BookText) -> Result<PriceBook, PriceError> {
        Self::new(text, file::OWN, false)
    }

    /// A tenant's own book that was checked when it was made.
    pub fn own_again(text: BookText) -> Result<PriceBook, PriceError> {
        Self::new(text, file::OWN, true)
    }

    fn new(text: BookText, limits: BookLimits, checked: bool) -> Result<PriceBook, PriceError> {
        let file::Parsed { version, models, finder } = file::parse(text, limits, checked)?;
        Ok(PriceBook { version, models, finder })
    }

    /// The text of the book that comes with the program.
    pub fn built_in_text() -> BookText {
        read(BUILT_IN).expect("a test parses this very text")
    }

    pub fn version(&self) -> &str {
        &self.version
    }

    pub fn models(&self) -> impl Iterator<Item = &Model> {
        self.models.iter()
    }

    /// The model a name stands for, priced or not.
    pub fn find(&self, model: &str, provider: Option<&str>) -> Option<&Model> {
        self.finder.find(model, provider).map(|index| &self.models[index])
    }

    /// The model, price and tier that an ask goes by, used or not.
    pub fn tier(&self, ask: &Ask<'_>) -> Option<(&Model, &Price, &Tier)> {
        let model = self.find(ask.model, ask.provider)?;
        let price = model.price_at(ask.at_us)?;
        Some((model, price, price.tier(ask)?))
    }

    /// The tier of this id: what a row was priced by.
    pub fn tier_of(&self, price_id: &str) -> Option<&Tier> {
        let prices = self.models.iter().flat_map(|model| &model.prices);
        prices.flat_map(|price| &price.tiers).find(|tier| tier.price_id == price_id)
    }

    /// `None`: the book has no such model, no price of it held then, nothing was used that has a rate, or the usage
    /// is nonsense (a million dollars or more). Never zero in place of "unknown".
    pub fn price(&self, ask: &Ask<'_>) -> Option<Priced> {
        let (model, _, tier) = self.tier(ask)?;
        let mut by_kind = BTreeMap::new();
        let (mut input, mut output, mut total) = (Money::ZERO, Money::ZERO, Money::ZERO);
        // A call is one request unless it says otherwise, and takes its time.
        let request = (UsageKind::Requests, 1);
        let requests = (!ask.usage.by_kind.contains_key(&request.0)).then_some(request);
        let implied = requests.into_iter().chain(ask.duration_us.map(|us| (UsageKind::Duration, us)));
        for (kind, count) in ask.usage.by_kind.iter().map(|(kind, count)| (*kind, *count)).chain(implied) {
            let Some(rate) = tier.rates.of(kind) else { continue };
            let cost = rate.cost_of(count)?;
            match kind.side() {
                Side::Input => input = input + cost,
                Side::Output => output = output + cost,
                Side::Other => {}
            }
            total = total + cost;
            by_kind.insert(kind.as_str().to_string(), cost);
        }
        if by_kind.is_empty() || total >= MONEY_END {
            return None;
        }
        Some(Priced { by_kind, input, output, total, model_id: model.id.clone(), price_id: tier.price_id.clone() })
    }
}

fn read(text: &str) -> Result<BookText, PriceError> {
    serde_json::from_str(text).map_err(|error| PriceError::Unreadable(error.to_string()))
}

/// Columns of money hold less than this.
const MONEY_END: Money = Money::from_pico(1_000_000 * 1_000_000_000_000);

#[derive(Debug, Clone)]
pub struct Model {
    pub id: String,
    /// Who sells it at this price.
    pub providers: Vec<String>,
    /// Regular expression for the names it goes by.
    pub pattern: String,
    /// When it was first put into the book, if that is known.
    pub created: Option<String>,
    /// Oldest first.
    pub prices: Vec<Price>,
}

impl Model {
    /// The price that held at that time: the last one that had begun.
    pub fn price_at(&self, at_us: TimestampUs) -> Option<&Price> {
        self.prices.iter().rev().find(|price| price.valid_from_us.is_none_or(|from_us| from_us <= at_us))
    }
}

#[derive(Debug, Clone)]
pub struct Price {
    /// `None`: from the beginning.
    pub valid_from_us: Option<TimestampUs>,
    /// The first whose conditions hold is used; the last one has none.
    pub tiers: Vec<Tier>,
}

impl Price {
    /// `start`, a day or a moment: as price ids name it.
    pub fn since(&self) -> String {
        self.valid_from_us.map_or("start".to_owned(), file::date)
    }

    fn tier(&self, ask: &Ask<'_>) -> Option<&Tier> {
        let input_tokens = ask.usage.input_tokens();
        self.tiers.iter().find(|tier| tier.holds(input_tokens, ask.service_tier, ask.speed))
    }
}

#[derive(Debug, Clone)]
pub struct Tier {
    pub name: String,
    /// Holds above this number of input tokens, cached ones included.
    pub input_tokens_above: Option<i64>,
    /// Holds for these service tiers; empty: for every one.
    pub service_tiers: Vec<String>,
    /// Holds for these speeds; empty: for every one.
    pub speeds: Vec<String>,
    pub(super) rates: Rates,
    /// `book version/model/valid-from/tier`
    pub price_id: String,
}

impl Tier {
    /// Kinds with their rates as the book gives them: (kind, USD, per million or per unit).
    pub fn rates(&self) -> impl Iterator<Item = (UsageKind, Decimal, bool)> + '_ {
        let own = |kind: UsageKind| self.rates.0[kind as usize].map(|rate| (kind, rate.usd, rate.is_per_million));
        UsageKind::ALL.into_iter().filter_map(own)
    }

    /// USD for one unit of the kind.
    pub fn usd_per_unit(&self, kind: UsageKind) -> Option<Decimal> {
        let rate = self.rates.0[kind as usize]?;
        Some(per_unit(rate.usd, rate.is_per_million))
    }

    pub(super) fn is_default(&self) -> bool {
        self.input_tokens_above.is_none() && self.service_tiers.is_empty() && self.speeds.is_empty()
    }

    fn holds(&self, input_tokens: i64, service_tier: Option<&str>, speed: Option<&str>) -> bool {
        let is_long = self.input_tokens_above.is_none_or(|above| input_tokens > above);
        let has = |names: &[String], said: Option<&str>| {
            let named = |said: &str| names.iter().any(|name| name.eq_ignore_ascii_case(said.trim()));
            names.is_empty() || said.is_some_and(named)
        };
        is_long && has(&self.service_tiers, service_tier) && has(&self.speeds, speed)
    }
}

/// USD for one unit, of a rate as [`Tier::rates`] gives it.
pub fn per_unit(usd: Decimal, is_per_million: bool) -> Decimal {
    if is_per_million { (usd / Decimal::from(1_000_000)).normalize() } else { usd }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Rates([Option<Rate>; UsageKind::ALL.len()]);

#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    /// As the book says it.
    usd: Decimal,
    is_per_million: bool,
    /// 10⁻²¹ USD for one unit: every rate a book may state, also by the thousandth, is a whole number of them.
    zepto_per_unit: i128,
}

impl Rates {
    /// `None` if the rate is negative, a million or more, or has more than twelve digits after the point.
    pub(super) fn set(&mut self, kind: UsageKind, usd: Decimal, is_per_million: bool) -> Option<()> {
        let usd = usd.normalize();
        if usd.is_sign_negative() && !usd.is_zero() || usd >= Decimal::from(1_000_000) || usd.scale() > 12 {
            return None;
        }
        let digits = if is_per_million { 15 } else { 21 } - usd.scale();
        let zepto_per_unit = usd.mantissa().checked_mul(10i128.checked_pow(digits)?)?;
        self.0[kind as usize] = Some(Rate { usd, is_per_million, zepto_per_unit });
        Some(())
    }

    pub(super) fn has(&self, kind: UsageKind) -> bool {
        self.0[kind as usize].is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// The rate of a kind, or of the kind it falls back to.
    fn of(&self, kind: UsageKind) -> Option<Rate> {
        if kind == UsageKind::Milliseconds {
            let second = self.0[UsageKind::Seconds as usize]?;
            return Some(Rate { zepto_per_unit: second.zepto_per_unit / 1000, ..second });
        }
        if kind == UsageKind::Duration {
            let second = self.0[kind as usize]?;
            return Some(Rate { zepto_per_unit: second.zepto_per_unit / 1_000_000, ..second });
        }
        let mut of = Some(kind);
        while let Some(asked) = of {
            if let Some(rate) = self.0[asked as usize] {
                return Some(rate);
            }
            of = asked.rate_of();
        }
        None
    }
}

impl Rate {
    /// Exact, then rounded once at 10⁻¹², half to even. `None` at a million dollars.
    fn cost_of(&self, count: i64) -> Option<Money> {
        const ZEPTO_PER_PICO: i128 = 1_000_000_000;
        let zepto = self.zepto_per_unit.checked_mul(i128::from(count.max(0)))?;
        let (pico, rest) = (zepto / ZEPTO_PER_PICO, zepto % ZEPTO_PER_PICO);
        let is_up = rest * 2 > ZEPTO_PER_PICO || (rest * 2 == ZEPTO_PER_PICO && pico % 2 == 1);
        let cost = Money::from_pico(i64::try_from(pico + i128::from(is_up)).ok()?);
        (cost < MONEY_END).then_some(cost)
    }
}
