//! What open late changes do to the rows of a file, while it is read: rows that another row stands for are left out,
//! and what is said about a trace since is stamped onto its rows. A stream of batches: no sort, no deduplication.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, StringViewArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{ColumnStatistics, Statistics};
use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{EquivalenceProperties, LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::execution_plan::{
    CardinalityEffect, ChildrenPropertiesMode, EmissionType, ReplaceChildrenOptions,
};
use datafusion::physical_plan::filter_pushdown::{ChildFilterDescription, FilterDescription, FilterPushdownPhase};
use datafusion::physical_plan::metrics::{BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::sort_pushdown::SortOrderPushdownResult;
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
    SendableRecordBatchStream,
};
use futures::{StreamExt, TryStreamExt, future};
use parking_lot::Mutex;

use super::stamp::{NEEDED, TRACE, is_stamped, stamped};
use crate::catalog::{BatchKeys, Changes};
use crate::model::tables::Table;

/// Stands above the scan of the files that open changes may touch. Its input has the asked columns first, then those
/// it needs itself; it gives the asked ones, in the same order of rows.
#[derive(Debug)]
pub(super) struct PatchExec {
    input: Arc<dyn ExecutionPlan>,
    patch: Arc<Patch>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

/// What to do to each batch.
#[derive(Debug)]
pub(super) struct Patch {
    changes: Changes,
    /// The key columns in the input. Empty: no row is replaced.
    keys: Vec<usize>,
    /// The trace's column in the input. `None`: no asked column is ever stamped.
    trace: Option<usize>,
    /// The asked columns.
    schema: SchemaRef,
    lookup: Mutex<Option<Arc<Lookup>>>,
}

impl Patch {
    /// What `changes` mean for a scan of the columns `asked`, and the columns to read for it. `None`: nothing, because
    /// no row is replaced and none of these columns is ever stamped.
    pub(super) fn of(
        table: Table,
        changes: &Changes,
        asked: Option<&Vec<usize>>,
    ) -> Result<Option<(Self, Vec<usize>)>> {
        let all = table.table_schema();
        let asked: Vec<usize> = asked.cloned().unwrap_or_else(|| (0..all.fields().len()).collect());
        let schema = Arc::new(all.project(&asked)?);
        let stamps = !changes.facts.is_empty() && schema.fields().iter().any(|field| is_stamped(field.name()));
        if changes.replaced.is_empty() && !stamps {
            return Ok(None);
        }
        let keys = if changes.replaced.is_empty() { &[][..] } else { table.key_columns() };
        let mut read = asked;
        let mut place = |name: &str| -> Result<usize> {
            let column = all.index_of(name)?;
            Ok(read.iter().position(|known| *known == column).unwrap_or_else(|| {
                read.push(column);
                read.len() - 1
            }))
        };
        let keys = keys.iter().map(|name| place(name)).collect::<Result<_>>()?;
        let mut trace = None;
        if stamps {
            for name in NEEDED {
                place(name)?;
            }
            trace = Some(place(TRACE)?);
        }
        Ok(Some((Self { changes: changes.clone(), keys, trace, schema, lookup: Mutex::default() }, read)))
    }

    /// A column whose values come out as they went in.
    fn keeps(&self, column: usize) -> bool {
        let name = self.schema.fields().get(column).map(|field| field.name());
        name.is_some_and(|name| self.trace.is_none() || !is_stamped(name))
    }

    fn apply(&self, lookup: &Lookup, batch: RecordBatch, counts: &Counts) -> Result<RecordBatch> {
        let mut batch = batch;
        if let Some(kept) = self.kept(lookup, &batch)? {
            counts.replaced.add(batch.num_rows() - kept.true_count());
            batch = filter_record_batch(&batch, &kept)?;
        }
        if let Some(trace) = self.trace {
            let hits = lookup.facts.hits(&[batch.column(trace)])?.len();
            if hits > 0 {
                counts.stamped.add(hits);
                batch = stamped(&batch, &self.changes)?;
            }
        }
        let columns = batch.columns()[..self.schema.fields().len()].to_vec();
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }

    /// Which rows stay. `None`: all.
    fn kept(&self, lookup: &Lookup, batch: &RecordBatch) -> Result<Option<BooleanArray>> {
        if self.keys.is_empty() {
            return Ok(None);
        }
        let columns: Vec<&ArrayRef> = self.keys.iter().map(|at| batch.column(*at)).collect();
        let hits = lookup.replaced.hits(&columns)?;
        let keys = BatchKeys::over(columns.iter().map(|column| column.as_string_view()).collect());
        Ok(self.changes.replaced.staying(&keys, hits.into_iter()))
    }

    /// Made once for all partitions, out of the query's own memory.
    fn lookup(&self, pool: &Arc<dyn MemoryPool>) -> Result<Arc<Lookup>> {
        let mut made = self.lookup.lock();
        if let Some(lookup) = made.as_ref() {
            return Ok(Arc::clone(lookup));
        }
        let replaced = if self.keys.is_empty() { 0 } else { self.changes.replaced.len() };
        let facts = if self.trace.is_none() { 0 } else { self.changes.facts.len() };
        let reservation = MemoryConsumer::new("late changes").register(pool);
        reservation.try_grow((replaced + facts) * Hashes::BYTES_A_KEY)?;
        let keys = |part: usize| {
            self.changes.replaced.iter().map(|(_, key)| key).take(replaced).map(move |key| key.get(part).map(|s| &**s))
        };
        let keys: Vec<ArrayRef> =
            (0..self.keys.len()).map(|part| Arc::new(keys(part).collect::<StringViewArray>()) as ArrayRef).collect();
        let traces = self.changes.facts.keys().take(facts).map(|trace| Some(trace.as_str()));
        let traces: ArrayRef = Arc::new(traces.collect::<StringViewArray>());
        let lookup = Arc::new(Lookup {
            replaced: Hashes::of(&keys.iter().collect::<Vec<_>>())?,
            facts: Hashes::of(&[&traces])?,
            _reservation: reservation,
        });
        *made = Some(Arc::clone(&lookup));
        Ok(lookup)
    }
}

/// Says quickly of most rows that no change is about them: the hash the catalog knows keys by takes far longer.
#[derive(Debug)]
struct Lookup {
    replaced: Hashes,
    facts: Hashes,
    _reservation: MemoryReservation,
}

#[derive(Debug, Default)]
struct Hashes(HashSet<u64, RandomState>);

const HASH: RandomState = RandomState::with_seed(0);

impl Hashes {
    /// The set's share and, while it is made, that of the texts.
    const BYTES_A_KEY: usize = 96;

    fn of(columns: &[&ArrayRef]) -> Result<Self> {
        let rows = columns.first().map_or(0, |column| column.len());
        let mut hashes = vec![0; rows];
        create_hashes(columns.iter().copied(), &HASH, &mut hashes)?;
        let mut set = HashSet::with_capacity_and_hasher(rows, HASH);
        set.extend(hashes);
        Ok(Self(set))
    }

    /// Rows that may be in the set.
    fn hits(&self, columns: &[&ArrayRef]) -> Result<Vec<usize>> {
        let mut hashes = vec![0; columns.first().map_or(0, |column| column.len())];
        create_hashes(columns.iter().copied(), &HASH, &mut hashes)?;
        Ok((0..hashes.len()).filter(|row| self.0.contains(&hashes[*row])).collect())
    }
}

struct Counts {
    baseline: BaselineMetrics,
    replaced: Count,
    stamped: Count,
}

impl PatchExec {
    pub(super) fn new(input: Arc<dyn ExecutionPlan>, patch: Patch) -> Self {
        Self::over(input, Arc::new(patch))
    }

    fn over(input: Arc<dyn ExecutionPlan>, patch: Arc<Patch>) -> Self {
        let schema = Arc::clone(&patch.schema);
        let same = |sort: &&PhysicalSortExpr| unchanged(&patch, &sort.expr);
        let ordering = input.output_ordering().into_iter().flatten().take_while(same).cloned();
        let ordering = LexOrdering::new(ordering.collect::<Vec<_>>());
        let properties = PlanProperties::new(
            EquivalenceProperties::new_with_orderings(schema, ordering),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            EmissionType::Incremental,
            input.boundedness(),
        );
        Self { input, patch, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() }
    }
}

/// An expression over columns that come out as they went in. They have the same place in the input.
fn unchanged(patch: &Patch, expression: &Arc<dyn PhysicalExpr>) -> bool {
    expression.downcast_ref::<Column>().is_some_and(|column| patch.keeps(column.index()))
}

impl ExecutionPlan for PatchExec {
    fn name(&self) -> &str {
        "PatchExec"
    }
    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }
    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }
    /// Whoever says yes here gets sorts pushed below, by columns that are stamped above. What is kept of the input's
    /// order stands in the properties.
    fn maintains_input_order(&self) -> Vec<bool> {
        vec![false]
    }
    /// The scan below cuts large files itself; handing batches around before they are patched would lose their order.
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }
    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::LowerEqual
    }
    /// Of `n` rows below, fewer may come out: limits stay above.
    fn supports_limit_pushdown(&self) -> bool {
        false
    }
    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => Ok(Arc::new(Self::over(input, Arc::clone(&self.patch)))),
            _ => Err(DataFusionError::Internal("a patch has one input".to_owned())),
        }
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let counts = Counts {
            baseline: BaselineMetrics::new(&self.metrics, partition),
            replaced: MetricBuilder::new(&self.metrics).counter("replaced_rows", partition),
            stamped: MetricBuilder::new(&self.metrics).counter("stamped_rows", partition),
        };
        let lookup = self.patch.lookup(context.memory_pool())?;
        let patch = Arc::clone(&self.patch);
        // Each batch is asked of the scan below, which yields and is stopped between two of them.
        let rows = self.input.execute(partition, context)?.map(move |batch| {
            let batch = batch?;
            let _timer = counts.baseline.elapsed_compute().timer();
            let batch = patch.apply(&lookup, batch, &counts)?;
            counts.baseline.record_output(batch.num_rows());
            Ok(batch)
        });
        let rows = rows.try_filter(|batch| future::ready(batch.num_rows() > 0));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    /// Never exact: nobody may count rows from them, nor take their bounds for values.
    fn statistics_from_inputs(&self, input: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let Some(input) = input.first() else { return Ok(Arc::new(Statistics::new_unknown(&self.patch.schema))) };
        let mut statistics = Statistics::clone(input).to_inexact();
        statistics.column_statistics.resize_with(self.patch.schema.fields().len(), ColumnStatistics::new_unknown);
        for (at, column) in statistics.column_statistics.iter_mut().enumerate() {
            if !self.patch.keeps(at) {
                *column = ColumnStatistics::new_unknown();
            }
        }
        Ok(Arc::new(statistics))
    }

    /// Below, a stamped column still has its old value: a filter on it would prune rows that pass it.
    fn gather_filters_for_pushdown(
        &self,
        _: FilterPushdownPhase,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        _: &ConfigOptions,
    ) -> Result<FilterDescription> {
        let kept = (0..self.patch.schema.fields().len()).filter(|at| self.patch.keeps(*at)).collect();
        let child = ChildFilterDescription::from_child_with_allowed_indices(&filters, kept, &self.input)?;
        Ok(FilterDescription::new().with_child(child))
    }

    fn try_pushdown_sort(&self, order: &[PhysicalSortExpr]) -> Result<SortOrderPushdownResult<Arc<dyn ExecutionPlan>>> {
        if !order.iter().all(|sort| unchanged(&self.patch, &sort.expr)) {
            return Ok(SortOrderPushdownResult::Unsupported);
        }
        let over = |input| Ok(Arc::new(Self::over(input, Arc::clone(&self.patch))) as Arc<dyn ExecutionPlan>);
        self.input.try_pushdown_sort(order)?.try_map(over)
    }
}

impl DisplayAs for PatchExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let replaced = if self.patch.keys.is_empty() { 0 } else { self.patch.changes.replaced.len() };
        let facts = if self.patch.trace.is_none() { 0 } else { self.patch.changes.facts.len() };
        write!(f, "PatchExec: replaced_keys={replaced}, traces_stamped={facts}")
    }
}
