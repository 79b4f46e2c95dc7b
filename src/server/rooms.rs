//! The rooms below as the doors need them: their traits, filled, and what they say put into words that a caller may read.

use std::collections::BTreeSet;

use async_trait::async_trait;
use futures::StreamExt;

use crate::base::{Kind, Reservation, TenantId, TimestampUs, WriterId};
use crate::catalog::Catalog;
use crate::catalog::erasures::{ErasureKind, ErasureStatus};
use crate::catalog::keys::{Identity, Keys};
use crate::catalog::system::SystemError;
use crate::doors::{
    self, Answers, AskedLimits, Booking, Erasing, Intake, Node, Operating, Ready, Refusal, SqlAnswer, TraceParts,
};
use crate::ingest::{Ingest, IngestError};
use crate::model::tables::Table;
use crate::model::{EventBatch, Rejection};
use crate::query::records::{RecordsAnswer, RecordsAsked};
use crate::query::{Engine, QueryError, SqlLimits, metrics_shape, statement_shape};
use crate::store::Store;
use crate::wire;

pub(super) struct WayIn(pub(super) Ingest);

fn refuse_ingest(error: &IngestError) -> Refusal {
    let mut refusal = match error {
        // These name only our own limits: senders may read them.
        IngestError::Full { .. } | IngestError::Stopped | IngestError::System(SystemError::Invalid(_)) => {
            Refusal::new(error.kind(), error.to_string())
        }
        _ => Refusal::from_below(error.kind(), error),
    };
    refusal.retry_after = Some(error.retry_after());
    refusal
}

#[async_trait]
impl Intake for WayIn {
    async fn admit(&self, bytes: u64) -> Result<Reservation, Refusal> {
        self.0.admit(bytes).await.map_err(|error| refuse_ingest(&error))
    }

    async fn append(&self, tenant: &TenantId, batch: EventBatch, held: Reservation) -> Result<(), Refusal> {
        self.0.append(tenant, batch, held).await.map_err(|error| refuse_ingest(&error))
    }

    fn booked(&self) -> Vec<Booking> {
        let booked = self.0.booked().into_iter();
        booked.map(|((door, outcome, reason), count)| Booking { door, outcome, reason, count }).collect()
    }

    async fn refuse_erased(&self, tenant: &TenantId, batch: &mut EventBatch) -> Vec<Rejection> {
        self.0.refuse_erased(tenant, batch).await
    }
}

pub(super) struct Forgetting {
    pub(super) ingest: Ingest,
    pub(super) catalog: Catalog,
    pub(super) keys: Keys,
}

#[async_trait]
impl Erasing for Forgetting {
    async fn erase(&self, who: &Identity, kind: ErasureKind, values: Vec<String>) -> Result<ErasureStatus, Refusal> {
        let tenant = &who.tenant;
        if kind == ErasureKind::Tenant {
            if values != [tenant.as_str()] {
                return Err(Refusal::new(Kind::Invalid, "a tenant is erased whole, and by its own name"));
            }
            self.keys.tenants().delete(tenant).await?;
        }
        let erased = self.ingest.erase(tenant, kind, values, &who.public_key).await;
        let erasure = erased.map_err(|error| refuse_ingest(&error))?;
        Ok(self.catalog.erasures().status(erasure).await?)
    }

    async fn erasure(&self, who: &Identity, id: &str) -> Result<ErasureStatus, Refusal> {
        let erasures = self.catalog.erasures();
        Ok(erasures.status(erasures.find(&who.tenant, id)?).await?)
    }

    async fn erasures(&self, who: &Identity) -> Result<Vec<ErasureStatus>, Refusal> {
        let erasures = self.catalog.erasures();
        let mut all = Vec::new();
        for erasure in erasures.of_tenant(&who.tenant) {
            all.push(erasures.status(erasure).await?);
        }
        Ok(all)
    }
}

pub(super) struct WayOut(pub(super) Engine);

fn refuse_query(error: &QueryError) -> Refusal {
    match (error.kind(), error.limit()) {
        (Kind::LimitReached, Some(limit)) => Refusal::limit(limit, error.to_string()),
        (kind, Some(_)) => Refusal::new(kind, error.to_string()),
        (kind, None) => Refusal::from_below(kind, error),
    }
}

#[async_trait]
impl Answers for WayOut {
    async fn sql(&self, who: &Identity, sql: &str, asked: AskedLimits) -> Result<SqlAnswer, Refusal> {
        doors::asked(|| statement_shape(sql));
        let limits = SqlLimits { rows_max: asked.rows_max, time_max: asked.time_max };
        let answer = self.0.sql(who, sql, limits).await.map_err(|error| refuse_query(&error))?;
        let schema = answer.schema();
        let batches = answer.map(|batch| batch.map_err(|error| refuse_query(&error))).boxed();
        Ok(SqlAnswer { schema, batches })
    }

    async fn metrics(
        &self,
        who: &Identity,
        asked: Vec<wire::MetricsRequest>,
    ) -> Result<Vec<wire::MetricsResponse>, Refusal> {
        doors::asked(|| metrics_shape(&asked));
        self.0.metrics(who, asked).await.map_err(|error| refuse_query(&error))
    }

    async fn metrics_series(
        &self,
        who: &Identity,
        asked: wire::MetricsRequest,
    ) -> Result<wire::MetricsResponse, Refusal> {
        doors::asked(|| metrics_shape(std::slice::from_ref(&asked)));
        self.0.metrics_series(who, asked).await.map_err(|error| refuse_query(&error))
    }

    async fn list_traces(
        &self,
        who: &Identity,
        asked: wire::ListTracesRequest,
    ) -> Result<wire::ListTracesResponse, Refusal> {
        self.0.list_traces(who, asked).await.map_err(|error| refuse_query(&error))
    }

    async fn search_traces(
        &self,
        who: &Identity,
        asked: wire::SearchTracesRequest,
    ) -> Result<wire::SearchTracesResponse, Refusal> {
        self.0.search_traces(who, asked).await.map_err(|error| refuse_query(&error))
    }

    async fn records(&self, who: &Identity, asked: Vec<RecordsAsked>) -> Result<Vec<RecordsAnswer>, Refusal> {
        self.0.records(who, asked).await.map_err(|error| refuse_query(&error))
    }

    async fn trace(&self, who: &Identity, asked: wire::GetTraceRequest) -> Result<TraceParts, Refusal> {
        let parts = self.0.trace(who, asked).await.map_err(|error| refuse_query(&error))?;
        Ok(parts.map(|part| part.map_err(|error| refuse_query(&error))).boxed())
    }
}

/// Ready while the store answers: replay was done before the doors opened.
pub(super) struct StoreAnswers(pub(super) Store);

#[async_trait]
impl Ready for StoreAnswers {
    async fn ready(&self) -> Result<(), String> {
        let read = self.0.get(&crate::store::system("probe", "ready")).await;
        read.map(drop).map_err(|_| "the store is not reachable now".to_owned())
    }
}

pub(super) struct ThisNode {
    pub(super) ingest: Ingest,
    pub(super) catalog: Catalog,
    pub(super) started_us: TimestampUs,
}

#[async_trait]
impl Operating for ThisNode {
    fn node(&self, of: Option<&TenantId>) -> Node {
        let held = self.ingest.held(of).into_iter().map(|held| wire::Held {
            tenant: held.tenant.to_string(),
            writer: held.writer.to_string(),
            bytes: held.bytes,
            oldest_unix_micros: held.oldest_us,
            waiting_since_unix_micros: held.waiting_since_us,
        });
        Node {
            writer: self.ingest.writer().to_string(),
            started_us: self.started_us,
            held: held.collect(),
            followed_logs: self.ingest.followed().iter().map(WriterId::to_string).collect(),
        }
    }

    async fn flush(&self, of: Option<&TenantId>) -> Result<Vec<wire::FlushedTable>, Refusal> {
        let mut tenants: BTreeSet<TenantId> = self.ingest.held(of).into_iter().map(|held| held.tenant).collect();
        tenants.extend(of.cloned());
        self.ingest.flush_now(of.cloned()).await.map_err(|error| refuse_ingest(&error))?;
        let mut tables = Vec::new();
        for (tenant, table) in tenants.iter().flat_map(|tenant| Table::ALL.map(|table| (tenant, table))) {
            let known = self.catalog.known_snapshot(tenant, table).await;
            let known = known.map_err(|error| Refusal::from_below(error.kind(), &error))?;
            tables.extend(known.version.map(|version| wire::FlushedTable {
                tenant: tenant.to_string(),
                table: table.name().to_owned(),
                version: version as i64,
                files: known.files.len() as u64,
                rows: known.rows(),
            }));
        }
        Ok(tables)
    }
}
