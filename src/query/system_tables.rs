//! What a tenant may know about its own tables, as tables: built from snapshots when a query first names one.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Int64Array, RecordBatch, StringViewArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::datasource::{MemTable, TableProvider};
use datafusion::error::Result;
use tokio::sync::Mutex;

use super::QueryError;
use super::tenant::Snapshots;
use crate::base::{Money, TenantId, TimestampUs};
use crate::catalog::audit::AuditRow;
use crate::catalog::erasures::ErasureStatus;
use crate::catalog::media::Medium;
use crate::catalog::system::SystemError;
use crate::catalog::{CatalogError, DataFile, Snapshot};
use crate::model::tables::Table;
use crate::price::{Model, Price, Prices, Tier, UsageKind};

/// A table that is not data: its columns by name, SQL type and meaning.
#[derive(Debug)]
pub struct SystemTable {
    pub name: &'static str,
    pub comment: &'static str,
    pub columns: &'static [(&'static str, &'static str, &'static str)],
}

const TEXT: &str = "VARCHAR";
const LONG: &str = "BIGINT";
const DATE: &str = "DATE";
const BOOLEAN: &str = "BOOLEAN";
const TIMESTAMP: &str = "TIMESTAMP WITH TIME ZONE";
const MONEY: &str = "DECIMAL(18,12)";

/// All of them; `sql/system.sql` is written from this.
pub const SYSTEM_TABLES: [SystemTable; 6] = [FILES, ERASURES, PRICES, AUDIT, MEDIA, SENSITIVE_USE];

const FILES: SystemTable = SystemTable {
    name: "files",
    comment: "One row per live Parquet file of this tenant's tables. What is acked but not in a file yet is not in it.",
    columns: &[
        ("table_name", TEXT, "The table the file belongs to."),
        ("path", TEXT, "Where it is, below the table's folder."),
        ("day", DATE, "UTC day of placement (partition)."),
        ("rows", LONG, "Rows in it."),
        ("bytes", LONG, "Its size."),
        ("time_min", TIMESTAMP, "The earliest time of a row; null where it is not known."),
        ("time_max", TIMESTAMP, "The latest."),
        ("footer_bytes", LONG, "Size of its Parquet footer."),
        ("index_id", TEXT, "The _index object that holds its key filter."),
        ("added_version", LONG, "The version of the table that made it live; null where it is not known."),
        ("added_at", TIMESTAMP, "When that was."),
        (
            "rollup_bytes",
            LONG,
            "Size of its roll-ups, which metrics questions are answered by; null where it has none.",
        ),
    ],
};

const ERASURES: SystemTable = SystemTable {
    name: "erasures",
    comment: "One row per erasure of this tenant's, with its receipt once the last copy is gone.",
    columns: &[
        ("id", TEXT, "The erasure."),
        ("kind", TEXT, "trace, session, user, tenant or score."),
        ("subjects", TEXT, "Traces by their ids, sessions and users by digests; joined by commas."),
        ("state", TEXT, "asked, masked (no answer shows it), rewritten (no live file holds it) or done."),
        (
            "asked_by",
            TEXT,
            "The public key that asked; tracelake itself for traces that were named as a forgotten user's later.",
        ),
        ("asked_at", TIMESTAMP, "When that was."),
        ("refused_until", TIMESTAMP, "What is said about it is refused until then; longer while files hold it."),
        ("rewritten_at", TIMESTAMP, "When no live file held it any more."),
        ("done_at", TIMESTAMP, "When the last copy was seen to be gone."),
        ("observations", LONG, "Rows taken out of observations; some of them may have been in no file yet."),
        ("observation_io", LONG, "Rows taken out of observation_io."),
        ("trace_facts", LONG, "Rows taken out of trace_facts."),
        ("scores", LONG, "Rows taken out of scores."),
        ("files_rewritten", LONG, "Files written again without it."),
        ("copies", LONG, "Objects that held it, or may have, after no live one did."),
    ],
};

const PRICES: SystemTable = SystemTable {
    name: "prices",
    comment: "One row per rate that rows are priced by now: this tenant's own, which come first, and those the server brings along.",
    columns: &[
        ("model_id", TEXT, "The book's name for the model; observations say it in model_id."),
        ("is_own", BOOLEAN, "Of the tenant's own book."),
        ("providers", TEXT, "Who sells it at this price; joined by commas."),
        ("pattern", TEXT, "Regular expression for the whole of the names it goes by, whatever the case."),
        ("valid_from", TIMESTAMP, "From when on, by the start of the call; null: ever."),
        ("tier", TEXT, "The first tier of a price whose conditions hold is used."),
        ("tier_place", LONG, "Its place among the tiers of the price, from 1."),
        ("input_tokens_above", LONG, "It holds above so many input tokens; null: for any number."),
        ("service_tiers", TEXT, "It holds for these service tiers, joined by commas; null: for all."),
        ("speeds", TEXT, "It holds for these speeds, joined by commas; null: for all."),
        ("kind", TEXT, "What is counted: input, cached_input, output, requests, duration_seconds, …"),
        ("usd", MONEY, "US dollars for so many of them as per says."),
        ("per", LONG, "1000000 for tokens, 1 for most else."),
        ("price_id", TEXT, "As it stands in observations.price_id: book/model/valid-from/tier."),
    ],
};

const AUDIT: SystemTable = SystemTable {
    name: "audit",
    comment: "Who called for what of this tenant's: one row per key, door, method, query and outcome of a minute (of the way in: an hour). What other nodes answered shows within five minutes (the way in: six hours).",
    columns: &[
        ("period_start", TIMESTAMP, "The minute the calls began in; of the way in the hour."),
        ("first_at", TIMESTAMP, "When the first of them began."),
        ("last_at", TIMESTAMP, "When the last of them began."),
        ("public_key", TEXT, "Whose key was shown."),
        ("door", TEXT, "otlp-grpc, sql-grpc, langfuse-http, …: as in ledger.door."),
        ("method", TEXT, "The gRPC service and method, or the HTTP method and the pattern of its path."),
        ("query", TEXT, "What was asked for, without values; null for calls that ask nothing, or were not understood."),
        ("outcome", TEXT, "ok, or the name of the code they were refused with."),
        ("calls", LONG, "How many they were."),
        ("duration_ms", LONG, "Until their answers began, all together."),
    ],
};

const MEDIA: SystemTable = SystemTable {
    name: "media",
    comment: "One row per medium of this tenant's: an image, a sound, a document that a client took out of an input, an output or metadata, and left `@@@langfuseMedia:type=…|id=…|source=…@@@` there. GET /api/public/media/{id}/content has its bytes.",
    columns: &[
        ("id", TEXT, "As in the reference: the beginning of the hash of its bytes."),
        ("content_type", TEXT, "Its media type: image/png, application/pdf, …"),
        ("bytes", LONG, "How large it is."),
        ("uploaded_at", TIMESTAMP, "When its bytes came."),
        ("traces", LONG, "How many traces mention it."),
    ],
};

/// Made by [`super::sensitive`], of the tenant's tables.
pub(super) const SENSITIVE_USE: SystemTable = SystemTable {
    name: "sensitive_use",
    comment: "What the tenant's masking rules found, by day, kind, model and user: a view over sensitive_kinds of observations, trace_facts and scores.",
    columns: &[
        ("day", DATE, "UTC day the observation began, the trace began, or the score was given."),
        ("kind", TEXT, "The rule that found it: email, phone, cpf, …"),
        ("model", TEXT, "The model as its sender names it; null for traces and scores."),
        ("user_id", TEXT, "The end user; null for scores."),
        ("found_in", TEXT, "observations, trace_facts or scores."),
        ("rows", LONG, "How many of them."),
    ],
};

/// The system tables of one tenant for the length of one query.
pub(super) struct SystemTables {
    tenant: TenantId,
    snapshots: Arc<dyn Snapshots>,
    made: Mutex<BTreeMap<&'static str, Arc<dyn TableProvider>>>,
}

impl SystemTables {
    pub(super) fn new(tenant: TenantId, snapshots: Arc<dyn Snapshots>) -> Self {
        Self { tenant, snapshots, made: Mutex::default() }
    }

    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        SYSTEM_TABLES.iter().map(|table| table.name)
    }

    /// The same table at every call. `None`: its rows are not made here.
    pub(super) async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some(table) = SYSTEM_TABLES.iter().find(|table| table.name == name) else { return Ok(None) };
        let mut made = self.made.lock().await;
        if let Some(made) = made.get(name) {
            return Ok(Some(Arc::clone(made)));
        }
        let Some(rows) = self.rows(name).await? else { return Ok(None) };
        let provider: Arc<dyn TableProvider> = Arc::new(MemTable::try_new(schema(table), vec![vec![rows]])?);
        made.insert(table.name, Arc::clone(&provider));
        Ok(Some(provider))
    }

    async fn rows(&self, name: &str) -> Result<Option<RecordBatch>> {
        let (tenant, snapshots) = (&self.tenant, &self.snapshots);
        let failed = |error: SystemError| QueryError::from(CatalogError::from(error));
        let rows = match name {
            _ if name == FILES.name => {
                let mut live = Vec::with_capacity(Table::ALL.len());
                for table in Table::ALL {
                    live.push((table, snapshots.snapshot(tenant, table).await.map_err(QueryError::from)?));
                }
                files(&live)
            }
            _ if name == ERASURES.name => erasures(&snapshots.erasures(tenant).await.map_err(failed)?),
            _ if name == PRICES.name => rates(snapshots.prices(tenant).await.map_err(failed)?.as_ref()),
            _ if name == AUDIT.name => calls(&snapshots.audit(tenant).await.map_err(failed)?),
            _ if name == MEDIA.name => media(&snapshots.media(tenant).await.map_err(failed)?),
            _ => return Ok(None),
        };
        rows.map(Some)
    }
}

fn media(all: &[Medium]) -> Result<RecordBatch> {
    let text = |get: fn(&Medium) -> &str| -> ArrayRef {
        Arc::new(all.iter().map(|medium| Some(get(medium))).collect::<StringViewArray>())
    };
    let long = |get: fn(&Medium) -> u64| -> ArrayRef {
        Arc::new(all.iter().map(|medium| Some(get(medium) as i64)).collect::<Int64Array>())
    };
    let uploaded: TimestampMicrosecondArray = all.iter().map(|medium| Some(medium.uploaded_us)).collect();
    let columns = vec![
        text(|medium| &medium.kind.id),
        text(|medium| &medium.kind.content_type),
        long(|medium| medium.bytes),
        Arc::new(uploaded.with_timezone("UTC")),
        long(|medium| medium.traces.len() as u64),
    ];
    Ok(RecordBatch::try_new(schema(&MEDIA), columns)?)
}

fn calls(all: &[AuditRow]) -> Result<RecordBatch> {
    let text =
        |get: fn(&AuditRow) -> Option<&str>| -> ArrayRef { Arc::new(all.iter().map(get).collect::<StringViewArray>()) };
    let time = |get: fn(&AuditRow) -> TimestampUs| -> ArrayRef {
        let times: TimestampMicrosecondArray = all.iter().map(|row| Some(get(row))).collect();
        Arc::new(times.with_timezone("UTC"))
    };
    let long = |get: fn(&AuditRow) -> i64| -> ArrayRef {
        Arc::new(all.iter().map(|row| Some(get(row))).collect::<Int64Array>())
    };
    let columns = vec![
        time(|row| row.alike.period_us),
        time(|row| row.calls.first_us),
        time(|row| row.calls.last_us),
        text(|row| Some(&row.alike.public_key)),
        text(|row| Some(&row.alike.door)),
        text(|row| Some(&row.alike.method)),
        text(|row| row.alike.query.as_deref()),
        text(|row| Some(&row.alike.outcome)),
        long(|row| row.calls.count as i64),
        long(|row| row.calls.duration_us / 1000),
    ];
    Ok(RecordBatch::try_new(schema(&AUDIT), columns)?)
}

fn rates(prices: &Prices) -> Result<RecordBatch> {
    struct Row<'a> {
        is_own: bool,
        model: &'a Model,
        price: &'a Price,
        place: usize,
        tier: &'a Tier,
        kind: UsageKind,
        usd: rust_decimal::Decimal,
        is_per_million: bool,
    }
    let own = prices.own().into_iter().flat_map(|book| book.models()).map(|model| (model, true));
    let models = own.chain(prices.shipped().models().map(|model| (model, false)));
    let prices = models.flat_map(|(model, is_own)| model.prices.iter().map(move |price| (model, is_own, price)));
    let tiers = prices.flat_map(|(model, is_own, price)| {
        price.tiers.iter().enumerate().map(move |(place, tier)| (model, is_own, price, place, tier))
    });
    let all: Vec<Row<'_>> = tiers
        .flat_map(|(model, is_own, price, place, tier)| {
            let row =
                move |(kind, usd, is_per_million)| Row { is_own, model, price, place, tier, kind, usd, is_per_million };
            tier.rates().map(row)
        })
        .collect();
    let text = |get: &dyn Fn(&Row<'_>) -> Option<String>| -> ArrayRef {
        Arc::new(all.iter().map(get).collect::<StringViewArray>())
    };
    let long =
        |get: &dyn Fn(&Row<'_>) -> Option<i64>| -> ArrayRef { Arc::new(all.iter().map(get).collect::<Int64Array>()) };
    let several = |names: &[String]| (!names.is_empty()).then(|| names.join(","));
    let valid_from: TimestampMicrosecondArray = all.iter().map(|row| row.price.valid_from_us).collect();
    // A rate has at most six digits before the point and twelve after it.
    let pico = |row: &Row<'_>| Money::from_decimal(row.usd).ok().map(|usd| i128::from(usd.pico()));
    let usd: Decimal128Array = all.iter().map(pico).collect();
    let columns: Vec<ArrayRef> = vec![
        text(&|row| Some(row.model.id.clone())),
        Arc::new(all.iter().map(|row| Some(row.is_own)).collect::<BooleanArray>()),
        text(&|row| Some(row.model.providers.join(","))),
        text(&|row| Some(row.model.pattern.clone())),
        Arc::new(valid_from.with_timezone("UTC")),
        text(&|row| Some(row.tier.name.clone())),
        long(&|row| Some(row.place as i64 + 1)),
        long(&|row| row.tier.input_tokens_above),
        text(&|row| several(&row.tier.service_tiers)),
        text(&|row| several(&row.tier.speeds)),
        text(&|row| Some(row.kind.as_str().to_owned())),
        Arc::new(usd.with_precision_and_scale(Money::PRECISION, Money::SCALE)?),
        long(&|row| Some(if row.is_per_million { 1_000_000 } else { 1 })),
        text(&|row| Some(row.tier.price_id.clone())),
    ];
    Ok(RecordBatch::try_new(schema(&PRICES), columns)?)
}

fn erasures(all: &[ErasureStatus]) -> Result<RecordBatch> {
    let text = |get: &dyn Fn(&ErasureStatus) -> String| -> ArrayRef {
        Arc::new(all.iter().map(|status| Some(get(status))).collect::<StringViewArray>())
    };
    let time = |get: &dyn Fn(&ErasureStatus) -> Option<TimestampUs>| -> ArrayRef {
        // A tenant's has no end: a time that no calendar has reads as none.
        let times: TimestampMicrosecondArray =
            all.iter().map(|status| get(status).filter(|us| *us < i64::MAX)).collect();
        Arc::new(times.with_timezone("UTC"))
    };
    let long = |get: &dyn Fn(&ErasureStatus) -> u64| -> ArrayRef {
        Arc::new(all.iter().map(|status| Some(get(status) as i64)).collect::<Int64Array>())
    };
    let rows = |table: Table| long(&move |status| status.rows.get(table.name()).copied().unwrap_or(0));
    let columns = vec![
        text(&|status| status.erasure.id.clone()),
        text(&|status| status.erasure.kind.to_string()),
        text(&|status| status.erasure.subjects.join(",")),
        text(&|status| status.state.as_str().to_owned()),
        text(&|status| status.erasure.asked_by.clone()),
        time(&|status| Some(status.erasure.asked_us)),
        time(&|status| Some(status.erasure.until_us)),
        time(&|status| status.rewritten_us),
        time(&|status| status.done_us),
        rows(Table::Observations),
        rows(Table::ObservationIo),
        rows(Table::TraceFacts),
        rows(Table::Scores),
        long(&|status| status.files),
        long(&|status| status.copies),
    ];
    Ok(RecordBatch::try_new(schema(&ERASURES), columns)?)
}

fn schema(table: &SystemTable) -> SchemaRef {
    let kind = |sql: &str| match sql {
        LONG => DataType::Int64,
        DATE => DataType::Date32,
        MONEY => DataType::Decimal128(Money::PRECISION, Money::SCALE),
        BOOLEAN => DataType::Boolean,
        TIMESTAMP => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        _ => DataType::Utf8View,
    };
    let fields: Vec<Field> = table.columns.iter().map(|(name, sql, _)| Field::new(*name, kind(sql), true)).collect();
    Arc::new(Schema::new(fields))
}

fn files(live: &[(Table, Arc<Snapshot>)]) -> Result<RecordBatch> {
    let rows = || live.iter().flat_map(|(table, snapshot)| snapshot.files.values().map(move |file| (*table, file)));
    fn long<'a>(
        rows: impl Iterator<Item = (Table, &'a Arc<DataFile>)>,
        get: impl Fn(&DataFile) -> Option<u64>,
    ) -> ArrayRef {
        Arc::new(rows.map(|(_, file)| get(file).map(|value| value as i64)).collect::<Int64Array>())
    }
    fn time<'a>(
        rows: impl Iterator<Item = (Table, &'a Arc<DataFile>)>,
        get: impl Fn(&DataFile) -> Option<TimestampUs>,
    ) -> ArrayRef {
        let times: TimestampMicrosecondArray = rows.map(|(_, file)| get(file)).collect();
        Arc::new(times.with_timezone("UTC"))
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows().map(|(table, _)| Some(table.name())).collect::<StringViewArray>()),
        Arc::new(rows().map(|(_, file)| Some(file.path.as_str())).collect::<StringViewArray>()),
        Arc::new(rows().map(|(_, file)| Some(file.day.days())).collect::<Date32Array>()),
        long(rows(), |file| Some(file.rows)),
        long(rows(), |file| Some(file.size_bytes)),
        time(rows(), |file| file.time_us.map(|(first, _)| first)),
        time(rows(), |file| file.time_us.map(|(_, last)| last)),
        long(rows(), |file| file.footer_bytes),
        Arc::new(rows().map(|(_, file)| file.index.as_deref()).collect::<StringViewArray>()),
        long(rows(), |file| file.added_version),
        time(rows(), |file| Some(file.added_us)),
        long(rows(), |file| file.rollups.all().map(|(_, rollup)| rollup.size_bytes).reduce(|a, b| a + b)),
    ];
    Ok(RecordBatch::try_new(schema(&FILES), columns)?)
}
