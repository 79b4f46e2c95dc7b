//! `tracelake prices`: what models cost, asked of a server or of a store.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use chrono::DateTime;
use comfy_table::Cell;
use tonic::Status;

use super::tables::{bare, right};
use super::{CliError, Connection};
use crate::base::{Clock, Day, SystemClock, TenantId, TimestampUs};
use crate::catalog::prices::PriceBooks;
use crate::catalog::system::SystemObjects;
use crate::doors::{self, Refusal};
use crate::price::{ImportFormat, Imported, ModelText, PriceText, Prices, TierText, UsageKind, WhenText, import};
use crate::store::{Location, Store};
use crate::wire::{
    CheckPriceRequest, CheckPriceResponse, DeletePricesRequest, ListPricesRequest, ListPricesResponse, ModelPrice,
    PriceTier, PutPricesRequest,
};

/// Who is asked.
pub enum PriceDesk {
    Server(Box<Connection>),
    /// The tenant's prices in a store.
    Store(PriceBooks, TenantId),
    /// The book in this program.
    Program,
}

impl PriceDesk {
    pub async fn open(location: Location, tenant: TenantId) -> Result<Self, CliError> {
        let store = Store::open(location).await?;
        let books = PriceBooks::new(SystemObjects::new(store, Arc::new(SystemClock)));
        Ok(Self::Store(books, tenant))
    }

    pub async fn list(&self, request: ListPricesRequest) -> Result<ListPricesResponse, CliError> {
        match self {
            Self::Server(connection) => connection.list_prices(request).await,
            _ => Ok(doors::list_prices(&*self.prices().await?, &request)),
        }
    }

    async fn check(&self, request: CheckPriceRequest) -> Result<CheckPriceResponse, CliError> {
        match self {
            Self::Server(connection) => connection.check_price(request).await,
            _ => doors::check_price(&*self.prices().await?, &request, SystemClock.now_us()).map_err(refused),
        }
    }

    async fn put(&self, request: PutPricesRequest) -> Result<String, CliError> {
        match self {
            Self::Server(connection) => Ok(connection.put_prices(request).await?.version),
            Self::Store(books, tenant) => {
                Ok(doors::put_prices(books, tenant, COMMAND_LINE, request).await.map_err(refused)?.version)
            }
            Self::Program => Err(refused(Refusal::new(crate::base::Kind::Invalid, FIXED))),
        }
    }

    async fn delete(&self, request: DeletePricesRequest) -> Result<String, CliError> {
        match self {
            Self::Server(connection) => Ok(connection.delete_prices(request).await?.version),
            Self::Store(books, tenant) => {
                Ok(doors::delete_prices(books, tenant, COMMAND_LINE, request).await.map_err(refused)?.version)
            }
            Self::Program => Err(refused(Refusal::new(crate::base::Kind::Invalid, FIXED))),
        }
    }

    async fn prices(&self) -> Result<Arc<Prices>, CliError> {
        match self {
            Self::Store(books, tenant) => Ok(books.newest_of(tenant).await?),
            _ => Ok(Prices::built_in()),
        }
    }
}

const COMMAND_LINE: &str = "command line";
const FIXED: &str = "the book in the program cannot be changed: name a server, or --data and --tenant";

fn refused(refusal: Refusal) -> CliError {
    Status::from(refusal).into()
}

/// One line a model: its newest price without conditions.
pub async fn list_prices(desk: &PriceDesk, filter: &str, own_only: bool, out: &mut dyn Write) -> Result<(), CliError> {
    let answer = desk.list(ListPricesRequest { filter: filter.to_owned(), own_only }).await?;
    writeln!(out, "price book {}", answer.version)?;
    for model in answer.models {
        let own = if model.is_shipped { " " } else { "*" };
        write!(out, "{own} {:<44} {:<24}", model.id, model.providers.join(","))?;
        let last = model.prices.last().and_then(|price: &ModelPrice| price.tiers.last());
        writeln!(out, "{}", last.map_or(String::new(), rates))?;
    }
    Ok(())
}

fn rates(tier: &PriceTier) -> String {
    let rate = |rate: &crate::wire::PriceRate| {
        format!(" {} {}{}", rate.kind, rate.usd, if rate.per_million { "/M" } else { "" })
    };
    tier.rates.iter().map(rate).collect()
}

/// What is to be checked.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Checked {
    /// The model as senders name it
    pub model: String,
    /// What a call uses: input=1000 cached_input=200 output=50; input includes cached input, output includes reasoning
    #[arg(value_parser = usage)]
    pub usage: Vec<(String, i64)>,
    #[arg(long, default_value = "")]
    pub provider: String,
    /// When the call begins: 2026-11-21 or 2026-11-21T08:00:00Z; now if not given
    #[arg(long, value_parser = moment)]
    pub at: Option<TimestampUs>,
    #[arg(long, default_value = "")]
    pub service_tier: String,
    #[arg(long, default_value = "")]
    pub speed: String,
    /// How long the call takes, in seconds
    #[arg(long)]
    pub seconds: Option<f64>,
}

/// Says which entry and pattern a name goes by and what the usage would cost. True if the model has a price.
pub async fn check_price(desk: &PriceDesk, asked: Checked, out: &mut dyn Write) -> Result<bool, CliError> {
    let has_usage = !asked.usage.is_empty() || asked.seconds.is_some();
    let request = CheckPriceRequest {
        model: asked.model.clone(),
        provider: asked.provider,
        at_unix_micros: asked.at,
        service_tier: asked.service_tier,
        speed: asked.speed,
        duration_micros: asked.seconds.map(|seconds| (seconds * 1e6) as i64),
        usage: asked.usage.into_iter().collect(),
    };
    let answer = desk.check(request).await?;
    writeln!(out, "price book {}", answer.version)?;
    let Some(found) = answer.r#match else {
        writeln!(out, "{}: no price; its rows have no cost and count as unpriced", asked.model)?;
        return Ok(false);
    };
    let whose = if found.is_shipped { "shipped" } else { "own" };
    writeln!(out, "{} is {} ({whose}) by the pattern {}", asked.model, found.model_id, found.pattern)?;
    let tier = found.tier.unwrap_or_default();
    writeln!(out, "price {}:{}", found.price_id, rates(&tier))?;
    if !has_usage {
        return Ok(true);
    }
    let Some(total) = found.total else {
        writeln!(out, "none of this usage has a rate")?;
        return Ok(true);
    };
    let mut table = bare();
    table.set_header(["kind", "USD"]);
    for (kind, cost) in &found.by_kind {
        table.add_row(vec![Cell::new(kind), right(cost)]);
    }
    table.add_row(vec![Cell::new("total"), right(total)]);
    writeln!(out, "{table}")?;
    Ok(true)
}

/// One price of one model.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct SetPrice {
    /// The model's name
    pub model: String,
    /// USD for a million tokens, or for one of anything else: input=0.2 output=0.6 duration_seconds=0.0012 requests=0.01
    #[arg(required = true, value_parser = rate)]
    pub rates: Vec<(String, String)>,
    /// Regular expression for all names it goes by; the model's name alone if not given
    #[arg(long, default_value = "")]
    pub pattern: String,
    #[arg(long)]
    pub provider: Vec<String>,
    /// From when on: 2026-11-21 or 2026-11-21T08:00:00Z; ever if not given. Its other prices stay.
    #[arg(long)]
    pub from: Option<String>,
}

pub async fn set_price(desk: &PriceDesk, set: SetPrice, out: &mut dyn Write) -> Result<(), CliError> {
    let is_token = |kind: &str| UsageKind::from_word(kind).is_some_and(UsageKind::is_token);
    let (usd_per_million, usd_per_unit) = set.rates.into_iter().partition(|(kind, _)| is_token(kind));
    let tier = TierText { name: "standard".to_owned(), when: WhenText::default(), usd_per_million, usd_per_unit };
    let prices = vec![PriceText { valid_from: set.from, tiers: vec![tier] }];
    let model =
        ModelText { id: set.model.clone(), providers: set.provider, pattern: set.pattern, created: None, prices };
    let models = doors::put_of(vec![model]);
    let version = desk.put(PutPricesRequest { models, keep_other_prices: true, replace_all: false }).await?;
    writeln!(out, "{} has this price in price book {version}", set.model)?;
    Ok(())
}

pub async fn remove_prices(desk: &PriceDesk, model_ids: Vec<String>, out: &mut dyn Write) -> Result<(), CliError> {
    let version = desk.delete(DeletePricesRequest { model_ids }).await?;
    writeln!(out, "removed; price book {version}")?;
    Ok(())
}

/// Reads a list and puts all its models, or none.
pub async fn import_prices(
    desk: &PriceDesk,
    file: &Path,
    replace_all: bool,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    let text = std::fs::read_to_string(file)?;
    let format = match file.extension().and_then(|ending| ending.to_str()) {
        Some("csv") => ImportFormat::Csv,
        Some("toml") => ImportFormat::Toml,
        _ => ImportFormat::Json,
    };
    let wrong = |error: crate::price::PriceError| refused(Refusal::new(error.kind(), error.to_string()));
    let Imported { models, without_price } = import(&text, format).map_err(wrong)?;
    let count = models.len();
    let models = doors::put_of(models);
    let version = desk.put(PutPricesRequest { models, keep_other_prices: false, replace_all }).await?;
    writeln!(out, "{count} models put into price book {version}")?;
    if !without_price.is_empty() {
        writeln!(out, "{} have no price that is known here: {}", without_price.len(), without_price.join(", "))?;
    }
    Ok(())
}

fn pair(text: &str) -> Result<(&str, &str), String> {
    text.split_once('=').ok_or_else(|| format!("{text:?} is not KIND=NUMBER, such as input=1000"))
}

fn usage(text: &str) -> Result<(String, i64), String> {
    let (kind, count) = pair(text)?;
    Ok((kind.to_owned(), count.parse().map_err(|_| format!("{count:?} is not a whole number"))?))
}

fn rate(text: &str) -> Result<(String, String), String> {
    let (kind, usd) = pair(text)?;
    let Some(known) = UsageKind::from_word(kind) else {
        let all: Vec<&str> = UsageKind::ALL.into_iter().map(UsageKind::as_str).collect();
        return Err(format!("{kind:?} is not a kind of usage that can be priced: use {}", all.join(", ")));
    };
    Ok((known.as_str().to_owned(), usd.to_owned()))
}

fn moment(text: &str) -> Result<TimestampUs, String> {
    let day = text.parse::<Day>().map(|day| day.start_us());
    let moment = day.or_else(|_| DateTime::parse_from_rfc3339(text).map(|at| at.timestamp_micros()));
    moment.map_err(|_| format!("{text:?} is not a day like 2026-11-21 or a time like 2026-11-21T08:00:00Z"))
}
