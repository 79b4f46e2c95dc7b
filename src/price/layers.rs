//! The prices of one tenant: its own book, where it has one, over the book that came with the program.

use std::sync::{Arc, LazyLock};

use super::book::{Ask, Model, Price, PriceBook, Priced, Tier};

/// Between the versions of the two books.
const OVER: char = '+';

/// Two books that price as one. Cheap to clone; another version is another value.
#[derive(Debug, Clone)]
pub struct Prices {
    version: Arc<str>,
    own: Option<Arc<PriceBook>>,
    shipped: Arc<PriceBook>,
}

impl Prices {
    pub fn new(shipped: Arc<PriceBook>, own: Option<Arc<PriceBook>>) -> Self {
        let version = match &own {
            Some(own) => format!("{}{OVER}{}", shipped.version(), own.version()),
            None => shipped.version().to_owned(),
        };
        Self { version: version.into(), own, shipped }
    }

    /// What a tenant without a book of its own pays.
    pub fn built_in() -> Arc<Prices> {
        static PRICES: LazyLock<Arc<Prices>> = LazyLock::new(|| Arc::new(Prices::new(PriceBook::built_in(), None)));
        PRICES.clone()
    }

    /// `shipped` or `shipped+own`: what log frames are stamped with.
    pub fn version(&self) -> &Arc<str> {
        &self.version
    }

    /// Orders versions of one tenant's prices by when they were made.
    pub fn rank(&self) -> (&str, usize, &str) {
        let own = self.own.as_ref().map_or("", |own| own.version());
        (self.shipped.version(), own.len(), own)
    }

    pub fn own(&self) -> Option<&Arc<PriceBook>> {
        self.own.as_ref()
    }

    pub fn shipped(&self) -> &Arc<PriceBook> {
        &self.shipped
    }

    /// The book that answers an ask: the tenant's own if it knows the model and had a price for it then.
    pub fn book_for(&self, ask: &Ask<'_>) -> &Arc<PriceBook> {
        self.own.as_ref().filter(|own| own.tier(ask).is_some()).unwrap_or(&self.shipped)
    }

    pub fn tier(&self, ask: &Ask<'_>) -> Option<(&Model, &Price, &Tier)> {
        self.book_for(ask).tier(ask)
    }

    /// As [`PriceBook::price`]. Where the tenant's own book has a price it decides alone: what it leaves out is free.
    pub fn price(&self, ask: &Ask<'_>) -> Option<Priced> {
        self.book_for(ask).price(ask)
    }
}

impl PartialEq for Prices {
    fn eq(&self, other: &Self) -> bool {
        self.version == other.version
    }
}

impl Eq for Prices {}

/// The versions of the shipped book and of the tenant's own that a stamp names.
pub fn split_version(version: &str) -> (&str, Option<&str>) {
    match version.split_once(OVER) {
        Some((shipped, own)) => (shipped, Some(own)),
        None => (version, None),
    }
}
