//! `AuditExportService`: tables as they are, for whoever checks that the whole adds up.

mod store;

use std::{pin::Pin, time::Duration};

use futures_util::Stream;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use super::Error;
use crate::{
    ctx,
    store::Store,
    wire::ordermesh::operator::v1::{
        ExportRequest, ExportResponse, audit_export_service_server::AuditExportService,
    },
};

/// The path of the one call here that lasts.
pub(crate) const EXPORT: &str = "/ordermesh.operator.v1.AuditExportService/Export";

/// How long an export may take.
pub(crate) const LONGEST: Duration = Duration::from_secs(600);

/// What is exported under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// What its rows are called.
    pub name: &'static str,
    /// A `SELECT … ORDER BY …` without parameters, whose columns are integers, texts, booleans
    /// and bytes.
    pub sql: &'static str,
}

/// Serves the tables of one database.
#[derive(Debug)]
pub(crate) struct AuditExport {
    store: Store,
    tables: Vec<Table>,
}

/// What every database has.
const OWN: [Table; 7] = [
    Table {
        name: "outbox",
        sql: "SELECT event_id, aggregate, seq, type, payload, created_at, position FROM outbox \
              ORDER BY id",
    },
    Table {
        name: "cursor",
        sql: "SELECT consumer, source, position FROM cursor ORDER BY consumer, source",
    },
    Table {
        name: "dead_letter",
        sql: "SELECT id, consumer, source, position, event_id, aggregate, type, state, cause, error, \
              attempts, created_at, updated_at, actor, reason FROM dead_letter ORDER BY id",
    },
    Table {
        name: "saga",
        sql: "SELECT id, kind, key, state, step, revision, next_run_at, deadline_at, attempts, \
              lease_owner, lease_until, fence, reason, message, last_error, created_at FROM saga \
              ORDER BY id",
    },
    Table {
        name: "saga_step",
        sql: "SELECT saga, step_key, direction, state, command_id, started_at, ended_at \
              FROM saga_step ORDER BY saga, started_at, direction",
    },
    Table {
        name: "barrier",
        sql: "SELECT saga, step_key, op, reason, command_id, at FROM barrier \
              ORDER BY saga, step_key, op",
    },
    Table {
        name: "operator_action",
        sql: "SELECT id, actor, action, target, reason, at FROM operator_action ORDER BY id",
    },
];

/// Rows that wait to be sent.
const WAITING: usize = 256;

// === impl AuditExport ===

impl AuditExport {
    /// Of these tables and mesh's own; one of a service goes before one of the same name.
    pub(crate) fn new(store: &Store, mut tables: Vec<Table>) -> Self {
        for own in OWN {
            if tables.iter().all(|table| table.name != own.name) {
                tables.push(own);
            }
        }
        Self { store: store.clone(), tables }
    }

    fn chosen(&self, names: &[String]) -> Result<Vec<Table>, Error> {
        if names.is_empty() {
            return Ok(self.tables.clone());
        }
        let known = |name: &String| {
            let table = self.tables.iter().find(|table| table.name == name).copied();
            let problem = || format!("names `{name}`, which is not exported");
            table.ok_or_else(|| Error::Malformed { field: "tables", problem: problem() })
        };
        names.iter().map(known).collect()
    }
}

#[tonic::async_trait]
impl AuditExportService for AuditExport {
    type ExportStream =
        Pin<Box<dyn Stream<Item = Result<ExportResponse, Status>> + Send + 'static>>;

    async fn export(
        &self,
        request: Request<ExportRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        let tables = self.chosen(&request.into_inner().tables)?;
        let (rows, waiting) = mpsc::channel(WAITING);
        let store = self.store.clone();
        // Ends with the call: a reader that left keeps no snapshot open.
        let _ends_with_the_call = ctx::spawn("audit export", async move {
            if let Err(failure) = store::export(&store, tables, rows.clone()).await {
                // Whoever left does not hear of it.
                let _heard = rows.send(Err(Status::from(Error::from(failure)))).await.is_ok();
            }
        });
        let stream = tokio_stream::wrappers::ReceiverStream::new(waiting);
        Ok(Response::new(Box::pin(stream)))
    }
}
