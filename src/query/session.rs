//! The session a query runs in: cloned from a template that holds functions, rules and limits, but no table.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use datafusion::catalog::SchemaProvider;
use datafusion::datasource::object_store::ObjectStoreUrl;
use datafusion::error::Result;
use datafusion::execution::SessionStateDefaults;
use datafusion::execution::cache::cache_manager::{CacheManager, CacheManagerConfig};
use datafusion::execution::disk_manager::{DiskManager, DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
use datafusion::execution::object_store::{DefaultObjectStoreRegistry, ObjectStoreRegistry};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::prelude::SessionConfig;
use object_store::ObjectStore;

use super::functions;
use super::guard::{Weighing, Yielding};
use super::limits::QueryLimits;
use super::memory::{Outputs, QueryPool};
use super::provider::OBJECTS_URL;
use super::tenant::{CATALOG, OwnCatalog, SCHEMA};

pub(super) struct Template {
    state: SessionState,
    memory_all: Arc<dyn MemoryPool>,
    outputs_all: Arc<AtomicU64>,
    limits: QueryLimits,
    disk: Arc<DiskManager>,
    caches: Arc<CacheManager>,
}

/// Functions that make many rows or elements of a number: what is asked of them is rather asked of the data.
const BOMBS: [&str; 8] =
    ["range", "gen_series", "generate_series", "array_repeat", "list_repeat", "array_resize", "list_resize", "version"];

impl Template {
    pub(super) fn new(limits: &QueryLimits) -> Result<Self> {
        let scalars = SessionStateDefaults::default_scalar_functions()
            .into_iter()
            .filter(|function| !BOMBS.contains(&function.name()))
            .chain(functions::scalars())
            .collect();
        let aggregates =
            SessionStateDefaults::default_aggregate_functions().into_iter().chain(functions::aggregates()).collect();
        let state = SessionStateBuilder::new()
            .with_config(config(limits))
            .with_scalar_functions(scalars)
            .with_aggregate_functions(aggregates)
            .with_window_functions(SessionStateDefaults::default_window_functions())
            .with_higher_order_functions(SessionStateDefaults::default_higher_order_functions())
            .with_expr_planners(SessionStateDefaults::default_expr_planners())
            .with_table_functions(HashMap::new())
            .with_physical_optimizer_rule(Arc::new(Yielding))
            .build();
        Ok(Self {
            state,
            memory_all: Arc::new(GreedyMemoryPool::new(limits.memory_all.as_usize())),
            outputs_all: Arc::default(),
            limits: limits.clone(),
            disk: Arc::new(disk(limits)?),
            caches: CacheManager::try_new(&CacheManagerConfig::default().with_metadata_cache_limit(0))?,
        })
    }

    /// What one query may have of the memory of all.
    pub(super) fn memory(&self) -> Arc<QueryPool> {
        Arc::new(QueryPool::new(Arc::clone(&self.memory_all), &self.limits))
    }

    /// A session in which `tables` is all that can be named and `files` all that can be read.
    pub(super) fn session(
        &self,
        tables: Arc<dyn SchemaProvider>,
        files: Option<Arc<dyn ObjectStore>>,
        memory: &Arc<QueryPool>,
    ) -> Result<SessionState> {
        let objects = DefaultObjectStoreRegistry::new();
        // The local disk is known by default. It is not ours to read.
        let _ = objects.deregister_store(ObjectStoreUrl::local_filesystem().as_ref());
        if let Some(files) = files {
            objects.register_store(ObjectStoreUrl::parse(OBJECTS_URL)?.as_ref(), files);
        }
        let runtime = RuntimeEnv {
            memory_pool: Arc::clone(memory) as Arc<dyn MemoryPool>,
            disk_manager: Arc::clone(&self.disk),
            cache_manager: Arc::clone(&self.caches),
            object_store_registry: Arc::new(objects),
        };
        let outputs = Outputs::new(Arc::clone(&self.outputs_all), &self.limits);
        let state = SessionStateBuilder::new_from_existing(self.state.clone())
            .with_analyzer_rule(Arc::new(Weighing(Arc::new(outputs))))
            .with_runtime_env(Arc::new(runtime))
            .with_catalog_list(Arc::new(OwnCatalog(tables)))
            .build();
        Ok(state)
    }
}

fn config(limits: &QueryLimits) -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(CATALOG, SCHEMA)
        .with_create_default_catalog_and_schema(false)
        // We serve our own: the engine's would show its settings.
        .with_information_schema(false)
        .with_target_partitions(limits.partitions());
    let options = config.options_mut();
    options.execution.time_zone = Some("UTC".to_owned());
    options.execution.enable_recursive_ctes = false;
    options.execution.parquet.pushdown_filters = false;
    options.execution.parquet.max_in_list_size = 200;
    options.optimizer.repartition_file_min_size = 16 << 20;
    // A join in partitions that waits to tell its filter, and a repartition that waits for room in a partition of that join,
    // may wait for each other for ever: one search of 20 over 10 M observations did.
    options.optimizer.enable_join_dynamic_filter_pushdown = false;
    config
}

fn disk(limits: &QueryLimits) -> Result<DiskManager> {
    let builder = DiskManagerBuilder::default();
    match limits.spill_max.bytes() {
        0 => builder.with_mode(DiskManagerMode::Disabled),
        bytes => builder.with_max_temp_directory_size(bytes),
    }
    .build()
}
