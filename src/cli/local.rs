//! A tenant's tables opened right here, read-only, without a server: what is in files is seen, what is only in a
//! server's log or buffer is not.

use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};

use super::CliError;
use super::sql::{Answer, Asked};
use crate::base::{SystemClock, TenantId};
use crate::catalog::{Catalog, FilesOnly};
use crate::query::{Engine, QueryLimits, SqlLimits};
use crate::store::{Location, Store};

pub struct LocalTables {
    engine: Engine,
    tenant: TenantId,
}

impl LocalTables {
    pub fn open(location: Location, tenant: TenantId) -> Result<Self, CliError> {
        let catalog = Catalog::new(Store::open_read_only(location)?, Arc::new(SystemClock));
        let engine = Engine::new(catalog.clone(), Arc::new(FilesOnly(catalog)), QueryLimits::default())?;
        Ok(Self { engine, tenant })
    }
}

#[async_trait]
impl Asked for LocalTables {
    async fn ask(&self, sql: &str) -> Result<Answer, CliError> {
        let answer = self.engine.sql(&self.tenant, sql, SqlLimits::default()).await?;
        let schema = answer.schema();
        Ok(Answer { schema, batches: answer.map_err(CliError::from).boxed() })
    }
}
