//! What a process does about events and for operators: publish, take in, show.

use std::sync::Arc;

use super::App;
use crate::{
    config::Delivery,
    consume::{Consumer, DeadLetters, Handler, Settings},
    log::{
        Tail, retention,
        sequencer::Sequencer,
        service::{self, EventLog},
    },
    operator::{
        Table,
        audit::{self, AuditExport},
        outbox::Outbox,
        sagas::Sagas,
    },
    page::Pages,
    saga::Runner,
    store::Store,
    wire::ordermesh::{
        events::v1::event_log_service_server::EventLogServiceServer,
        operator::v1::{
            audit_export_service_server::AuditExportServiceServer,
            dead_letters_service_server::DeadLettersServiceServer,
            outbox_service_server::OutboxServiceServer, sagas_service_server::SagasServiceServer,
        },
    },
};

/// What is gathered while a process is described. Each of its services is served once, however
/// often it was asked for.
#[derive(Debug, Default)]
pub(super) struct Events {
    consumers: Vec<Consumer>,
    runners: Vec<(Store, Runner)>,
    exports: Option<(Store, Vec<Table>)>,
}

// === impl App ===

impl App {
    /// Publishes the events of this database's outbox: gives them positions, serves the log and
    /// the backlog to those who may ask, and deletes what is past the replay window.
    #[must_use]
    pub fn publishes(mut self, store: &Store) -> Self {
        let tail = Tail::of(store);
        tail.name(self.name);
        let log = EventLog::new(Arc::clone(&tail), self.draining.clone());
        let sequencer = Sequencer::new(Arc::clone(&tail));
        self.exports_from(store);
        let app = self
            .longest(service::SUBSCRIBE, service::LONGEST)
            .grpc(EventLogServiceServer::new(log))
            .grpc(OutboxServiceServer::new(Outbox::new(store)));
        if app.config.delivery == Delivery::Off {
            return app;
        }
        app.task("sequencer", move |draining| sequencer.run(draining))
            .task("retention", move |draining| retention::keep(tail, draining))
    }

    /// Lets operators export these tables, beside those that every database has.
    #[must_use]
    pub fn exports(mut self, store: &Store, tables: &[Table]) -> Self {
        self.exports_from(store).extend_from_slice(tables);
        self
    }

    /// Takes in the events of `source`, a name of the registry or a URL: each once in effect, and
    /// those of an aggregate in their order. What cannot be taken in is parked, and served to
    /// operators.
    #[must_use]
    pub fn consumes<H: Handler>(mut self, store: &Store, source: &str, handler: H) -> Self {
        let channel = self.channel(source);
        let handler = Arc::new(handler);
        let consumer =
            Consumer::new(self.name, source, store, handler, channel, Settings::default());
        self.events.consumers.push(consumer.clone());
        self.exports_from(store);
        if self.config.delivery == Delivery::Off {
            return self;
        }
        self.task("consumer", move |draining| consumer.run(draining))
    }

    /// Lets operators look at the sagas in this database, and at those that `runner` does.
    #[must_use]
    pub fn sagas(mut self, store: &Store, runner: &Runner) -> Self {
        self.events.runners.push((store.clone(), runner.clone()));
        self
    }

    /// Serves what was gathered.
    pub(super) fn serve_operators(mut self) -> anyhow::Result<Self> {
        let Events { consumers, runners, exports } = std::mem::take(&mut self.events);
        let pages = Pages::new(self.config.page_key()?);
        if let Some((store, tables)) = exports {
            let export = AuditExport::new(&store, tables);
            self = self
                .longest(audit::EXPORT, audit::LONGEST)
                .grpc(AuditExportServiceServer::new(export));
        }
        if let Some(store) = consumers.first().map(|consumer| consumer.store().clone()) {
            let letters = DeadLetters::new(consumers, store, pages.clone());
            self = self.grpc(DeadLettersServiceServer::new(letters));
        }
        if let Some(store) = runners.first().map(|(store, _)| store.clone()) {
            let runners = runners.into_iter().map(|(_, runner)| runner).collect();
            self = self.grpc(SagasServiceServer::new(Sagas::new(&store, runners, pages)));
        }
        Ok(self)
    }

    fn exports_from(&mut self, store: &Store) -> &mut Vec<Table> {
        &mut self.events.exports.get_or_insert_with(|| (store.clone(), Vec::new())).1
    }
}
