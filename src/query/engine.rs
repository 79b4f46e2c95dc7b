//! The one who answers: a session per question, run on a task of its own, within limits.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::SchemaProvider;
use datafusion::error::DataFusionError;
use futures::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::bound::{BoundTables, Scope};
use super::error::QueryError;
use super::footers::Footers;
use super::limits::{Gate, QueryLimits, SqlLimits};
use super::records::{self, RecordsAnswer, RecordsAsked};
use super::running::Query;
use super::session::Template;
use super::stream::{AnswerLimits, SqlAnswer, Task};
use super::tenant::{Snapshots, TenantTables};
use super::{metrics, traces};
use crate::catalog::{Catalog, FreshRows};
use crate::store::Store;
use crate::wire;

/// Parts of a trace. After an error nothing follows.
pub type TraceParts = futures::stream::BoxStream<'static, Result<wire::GetTraceResponse, QueryError>>;

/// Cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    snapshots: Arc<dyn Snapshots>,
    store: Store,
    fresh: Arc<dyn FreshRows>,
    limits: QueryLimits,
    template: Template,
    footers: Footers,
    gate: Gate,
    runtime: Option<Handle>,
}

impl Engine {
    pub fn new(catalog: Catalog, fresh: Arc<dyn FreshRows>, limits: QueryLimits) -> Result<Self, QueryError> {
        let store = catalog.store().clone();
        Self::over(Arc::new(catalog), store, fresh, limits, None)
    }

    /// Computes on `runtime` rather than on the one that serves: a heavy query then delays no ingest.
    pub fn on(
        catalog: Catalog,
        fresh: Arc<dyn FreshRows>,
        limits: QueryLimits,
        runtime: Handle,
    ) -> Result<Self, QueryError> {
        let store = catalog.store().clone();
        Self::over(Arc::new(catalog), store, fresh, limits, Some(runtime))
    }

    pub(super) fn over(
        snapshots: Arc<dyn Snapshots>,
        store: Store,
        fresh: Arc<dyn FreshRows>,
        limits: QueryLimits,
        runtime: Option<Handle>,
    ) -> Result<Self, QueryError> {
        let internal = |e: DataFusionError| QueryError::Internal(e.to_string());
        let template = Template::new(&limits).map_err(internal)?;
        let footers = Footers::new(limits.footers_max).map_err(internal)?;
        let gate = Gate::new(&limits);
        Ok(Self(Arc::new(Inner { snapshots, store, fresh, limits, template, footers, gate, runtime })))
    }

    /// Runs one statement that reads. It sees all that was acked before the call on this node (I4), each row once (I2).
    pub async fn sql(&self, whose: impl Into<Scope>, sql: &str, ask: SqlLimits) -> Result<SqlAnswer, QueryError> {
        let whose = whose.into();
        let limits = &self.0.limits;
        let answer_limits = AnswerLimits {
            time_max: ask.time_max.map_or(limits.time_max(), |asked| asked.min(limits.time_max())),
            rows_max: ask.rows_max.map_or(limits.rows_max, |asked| asked.min(limits.rows_max)),
            bytes_max: limits.result_bytes_max,
        };
        let deadline = Instant::now() + answer_limits.time_max;
        let turn = self.0.gate.enter(&whose.tenant).await?;
        let query = self.begin(&whose)?;
        let (engine, sql) = (self.clone(), sql.to_owned());
        let (schema_sender, schema) = oneshot::channel();
        let (sender, batches) = mpsc::channel(2);
        let task = self.spawn(async move {
            let _turn = turn;
            let mut outlet = Outlet { schema: Some(schema_sender), rows: sender, has_rows: false };
            let mut answered = outlet.send(&query, &sql).await;
            // Files were deleted under it, and nobody has seen a row: once more, over the tables as they stand now.
            if !outlet.has_rows && answered.as_ref().is_err_and(QueryError::is_gone) {
                answered = match engine.begin(&whose) {
                    Ok(query) => outlet.send(&query, &sql).await,
                    Err(error) => Err(error),
                };
            }
            outlet.end(answered).await;
        });
        match tokio::time::timeout_at(deadline, schema).await {
            Err(_) => Err(QueryError::time(answer_limits.time_max)),
            Ok(Err(_)) => Err(QueryError::Internal("the query's task ended without an answer".to_owned())),
            Ok(Ok(schema)) => Ok(SqlAnswer::new(schema?, batches, task, deadline, answer_limits)),
        }
    }

    /// What it cost, how slow it was, how that changed: all answers from one snapshot, in the order of the questions.
    pub async fn metrics(
        &self,
        whose: impl Into<Scope>,
        requests: Vec<wire::MetricsRequest>,
    ) -> Result<Vec<wire::MetricsResponse>, QueryError> {
        let rows_max = self.0.limits.metric_rows_max;
        self.ask(whose.into(), requests, rows_max).await
    }

    /// The same for one question with a long answer.
    pub async fn metrics_series(
        &self,
        whose: impl Into<Scope>,
        request: wire::MetricsRequest,
    ) -> Result<wire::MetricsResponse, QueryError> {
        let answers = self.ask(whose.into(), vec![request], self.0.limits.metric_series_rows_max).await?;
        answers.into_iter().next().ok_or_else(|| QueryError::Internal("a question has no answer".to_owned()))
    }

    /// Traces by filter, newest first.
    pub async fn list_traces(
        &self,
        whose: impl Into<Scope>,
        request: wire::ListTracesRequest,
    ) -> Result<wire::ListTracesResponse, QueryError> {
        self.run(whose.into(), move |query| {
            let request = request.clone();
            async move { traces::list(&query, &request).await }
        })
        .await
    }

    /// Traces that say a text, newest first.
    pub async fn search_traces(
        &self,
        whose: impl Into<Scope>,
        request: wire::SearchTracesRequest,
    ) -> Result<wire::SearchTracesResponse, QueryError> {
        self.run(whose.into(), move |query| {
            let request = request.clone();
            async move { traces::search(&query, &request).await }
        })
        .await
    }

    /// Pages of traces, observations, sessions and scores: all from one snapshot, in the order of the questions.
    pub async fn records(
        &self,
        whose: impl Into<Scope>,
        asked: Vec<RecordsAsked>,
    ) -> Result<Vec<RecordsAnswer>, QueryError> {
        let asked = Arc::new(asked);
        self.run(whose.into(), move |query| {
            let asked = Arc::clone(&asked);
            async move {
                let mut answers = Vec::with_capacity(asked.len());
                for asked in asked.iter() {
                    answers.push(records::answer(&query, asked).await?);
                }
                Ok(answers)
            }
        })
        .await
    }

    /// One trace whole, in parts. Dropping them stops the work.
    pub async fn trace(
        &self,
        whose: impl Into<Scope>,
        request: wire::GetTraceRequest,
    ) -> Result<TraceParts, QueryError> {
        let whose = whose.into();
        let time_max = self.0.limits.time_max();
        let deadline = Instant::now() + time_max;
        let turn = self.0.gate.enter(&whose.tenant).await?;
        let query = self.begin(&whose)?;
        let (sender, mut parts) = mpsc::channel(2);
        let task = self.spawn(async move {
            let _turn = turn;
            let sent = tokio::time::timeout_at(deadline, traces::send(&query, &request, &sender)).await;
            if let Err(error) = sent.unwrap_or_else(|_| Err(QueryError::time(time_max))) {
                let _ = sender.send(Err(error)).await;
            }
        });
        // Its last part says what was read: without it, a trace has not come whole.
        let first = match parts.recv().await {
            Some(first) => first?,
            None => return Err(QueryError::Internal("the query's task ended without an answer".to_owned())),
        };
        let rest = futures::stream::unfold((parts, task), |(mut parts, task)| async move {
            parts.recv().await.map(|part| (part, (parts, task)))
        });
        Ok(futures::stream::iter([Ok(first)]).chain(rest).boxed())
    }

    async fn ask(
        &self,
        whose: Scope,
        requests: Vec<wire::MetricsRequest>,
        rows_max: u64,
    ) -> Result<Vec<wire::MetricsResponse>, QueryError> {
        // What cannot be asked is said before anybody waits for a turn.
        for request in &requests {
            metrics::Question::parse(request, rows_max)?;
        }
        let requests = Arc::new(requests);
        self.run(whose, move |query| {
            let requests = Arc::clone(&requests);
            async move {
                let mut answers = Vec::with_capacity(requests.len());
                for request in requests.iter() {
                    answers.push(metrics::answer(&query, metrics::Question::parse(request, rows_max)?).await?);
                }
                Ok(answers)
            }
        })
        .await
    }

    /// In turn, within the limit of time, over tables pinned once; twice, if files are deleted under it.
    async fn run<T, Work>(
        &self,
        whose: Scope,
        work: impl Fn(Query) -> Work + Send + Sync + 'static,
    ) -> Result<T, QueryError>
    where
        T: Send + 'static,
        Work: Future<Output = Result<T, QueryError>> + Send + 'static,
    {
        let time_max = self.0.limits.time_max();
        let deadline = Instant::now() + time_max;
        let turn = self.0.gate.enter(&whose.tenant).await?;
        let query = self.begin(&whose)?;
        let rolled_up = Arc::clone(&query.rolled_up);
        let first = work(query);
        let engine = self.clone();
        let (sender, answer) = oneshot::channel();
        let _task = self.spawn(async move {
            let _turn = turn;
            let mut answered = first.await;
            // Whatever became of a roll-up, its file's rows are there.
            let is_once_more =
                |error: &QueryError| error.is_gone() || (rolled_up.load(Ordering::Acquire) && error.says_of_a_file());
            if answered.as_ref().is_err_and(is_once_more) {
                answered = match engine.open(&whose, false) {
                    Ok(query) => work(query).await,
                    Err(error) => Err(error),
                };
            }
            let _ = sender.send(answered);
        });
        match tokio::time::timeout_at(deadline, answer).await {
            Err(_) => Err(QueryError::time(time_max)),
            Ok(Err(_)) => Err(QueryError::Internal("the query's task ended without an answer".to_owned())),
            Ok(Ok(answer)) => answer,
        }
    }

    /// Pins what is fresh, then opens a session over it.
    pub(super) fn begin(&self, whose: &Scope) -> Result<Query, QueryError> {
        self.open(whose, self.0.limits.rollups)
    }

    /// With roll-ups, or without.
    fn open(&self, whose: &Scope, rollups: bool) -> Result<Query, QueryError> {
        let inner = &self.0;
        // Before the rows are pinned: what is acked up to here is among them.
        let watermark_us = inner.snapshots.now_us();
        let tables = TenantTables::new(
            whose.tenant.clone(),
            Arc::clone(&inner.snapshots),
            inner.fresh.pin(&whose.tenant),
            inner.store.clone(),
            inner.footers.clone(),
        );
        let memory = inner.template.memory();
        let session = |shown, files| {
            inner.template.session(shown, files, &memory).map_err(|e| QueryError::Internal(e.to_string()))
        };
        let whole = session(Arc::clone(&tables) as Arc<dyn SchemaProvider>, Some(tables.objects()))?;
        let (state, shown) = match &whose.bound {
            None => (whole, Arc::clone(&tables) as Arc<dyn SchemaProvider>),
            Some(bound) => {
                let shown: Arc<dyn SchemaProvider> = Arc::new(BoundTables::new(whole, bound.clone()));
                (session(Arc::clone(&shown), None)?, shown)
            }
        };
        let QueryLimits { memory_max, result_bytes_max, .. } = inner.limits;
        let told = whose.bound.is_none().then_some(tables);
        let (scanned, rolled_up) = (Mutex::default(), Arc::default());
        Ok(Query {
            state,
            shown,
            told,
            rollups,
            rolled_up,
            memory,
            memory_max,
            result_bytes_max,
            watermark_us,
            scanned,
        })
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> Task {
        Task(match &self.0.runtime {
            Some(runtime) => runtime.spawn(work).abort_handle(),
            None => tokio::spawn(work).abort_handle(),
        })
    }
}

/// Where an answer goes.
struct Outlet {
    /// `None`: it was sent.
    schema: Option<oneshot::Sender<Result<SchemaRef, QueryError>>>,
    rows: mpsc::Sender<Result<Option<RecordBatch>, QueryError>>,
    has_rows: bool,
}

impl Outlet {
    /// All rows, as they come, until nobody listens.
    async fn send(&mut self, query: &Query, sql: &str) -> Result<(), QueryError> {
        let (schema, mut rows) = query.start(sql).await?;
        if let Some(sender) = self.schema.take()
            && sender.send(Ok(schema)).is_err()
        {
            return Ok(());
        }
        while let Some(batch) = rows.try_next().await.map_err(|e| query.translate(e))? {
            self.has_rows = true;
            if self.rows.send(Ok(Some(batch))).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The end of the rows, or why there are no more.
    async fn end(mut self, answered: Result<(), QueryError>) {
        match (answered, self.schema.take()) {
            (Err(error), Some(schema)) => drop(schema.send(Err(error))),
            (answered, _) => drop(self.rows.send(answered.map(|()| None)).await),
        }
    }
}
