//! Reads what every service, the provider and the maildir say, in an order in which what moved
//! meanwhile can be told from what does not fit.
//!
//! Orders are read first and last: one that is the same both times was at rest while the others
//! were read. The provider's ledger is read before and after ours: what it gained between is not
//! ours to know yet.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context as _;
use mesh::{Channel, Ctx, clock, ctx::Trace};
use proto::operator::v1::{ExportRequest, audit_export_service_client::AuditExportServiceClient};
use tonic::Code;

use crate::{
    access::{Authorization, Place, request},
    check::HISTORY,
    history,
    load::spoken,
    world::{Table, World},
};

mod maildir;
mod provider;
mod values;

/// How long one service may take to export.
const PATIENCE: Duration = Duration::from_secs(600);

/// How often a mesh that is to come to rest is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Which tables each service should export.
const SERVICES: [(&str, &[&str]); 5] = [
    ("inventory", &["stock", "reservation", "reservation_line", "movement", "outbox"]),
    ("payments", &["payment", "attempt", "refund", "ledger_entry", "outbox"]),
    ("shipping", &["shipment", "shipment_line", "carrier_parcel", "carrier_event", "outbox"]),
    ("notifications", &["notification", "cursor", "dead_letter"]),
    (ORDERS, &["orders", "order_line", "order_event", "saga", "saga_step", "outbox"]),
];

const ORDERS: &str = "orders";

/// Whom to ask.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The services that are there.
    pub services: Vec<Channel>,
    /// Who asks them.
    pub authorization: Authorization,
    /// The provider, as `http://host:port`.
    pub provider: Option<String>,
    /// The folder that mails are sent to.
    pub maildir: Option<PathBuf>,
    /// What clients were told.
    pub history: Option<PathBuf>,
}

// === impl Sources ===

impl Sources {
    /// The services to ask at this place.
    ///
    /// # Errors
    /// The registry cannot be read.
    pub async fn services(place: &Place) -> anyhow::Result<Vec<Channel>> {
        let mut known = Vec::new();
        for (name, _) in SERVICES {
            known.extend(place.find(name).await?);
        }
        Ok(known)
    }

    /// Reads everything.
    ///
    /// # Errors
    /// Something that was named cannot be read, or rows have a shape that is not known.
    pub async fn world(&self) -> anyhow::Result<World> {
        let mut world = World { at: clock::micros(clock::now()), ..World::default() };
        let orders = self.find(ORDERS).context("the registry has no `orders`")?;
        let before = self.export(&orders, &[ORDERS, "saga"]).await?;
        let mut seen = World::default();
        take(&mut seen, ORDERS, before)?;

        let known = match &self.provider {
            Some(url) => provider::ledger(url, 0).await?,
            None => Vec::new(),
        };
        for (service, tables) in SERVICES {
            let Some(channel) = self.find(service) else { continue };
            let exported = self.export(&channel, &[]).await?;
            take(&mut world, service, exported)?;
            for table in tables {
                if !world.tables.contains(*table) && self.has(&channel, table).await? {
                    world.tables.insert((*table).to_owned());
                }
            }
            if service == "payments"
                && let Some(url) = &self.provider
            {
                let last = known.last().map_or(0, |entry| entry.position);
                let late = provider::ledger(url, last).await?;
                world.provider = known.clone();
                for entry in &mut world.provider {
                    entry.settled = true;
                }
                world.provider.extend(late);
                world.tables.insert("provider".to_owned());
            }
        }
        if let Some(path) = &self.maildir {
            world.mails = maildir::read(path)?;
            maildir::name_orders(&mut world);
        }
        if let Some(path) = &self.history {
            world.history = history::read(path)?;
            world.tables.insert(HISTORY.to_owned());
        }
        world.moving = moving(&seen, &world);
        Ok(world)
    }

    /// Waits until no saga works, no event waits for its place, and the mails have come as far as
    /// the events; `false` if that is not so when the time is over.
    ///
    /// # Errors
    /// A service cannot be read.
    pub async fn rest(&self, patience: Duration) -> anyhow::Result<bool> {
        let ends = clock::instant() + patience;
        loop {
            if self.rests().await? {
                return Ok(true);
            }
            if clock::instant() >= ends {
                return Ok(false);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn rests(&self) -> anyhow::Result<bool> {
        let mut world = World::default();
        for (service, tables) in [
            ("shipping", &["outbox", "cursor"][..]),
            ("payments", &["outbox", "cursor"]),
            (ORDERS, &[ORDERS, "saga", "outbox", "cursor"]),
            ("notifications", &["cursor"]),
        ] {
            let Some(channel) = self.find(service) else { continue };
            take(&mut world, service, self.export(&channel, tables).await?)?;
        }
        let resting = world.resting();
        let busy = world.orders.iter().any(|order| {
            order.state != "ACTION_REQUIRED" && !resting.contains_key(order.id.as_str())
        });
        let mut events = world.outboxes.values().flatten();
        let waits = events.any(|event| event.position.is_none());
        let behind = world.cursors.iter().any(|cursor| {
            let log = world.outboxes.get(&cursor.source);
            let head = log.into_iter().flatten().filter_map(|event| event.position).max();
            head.is_some_and(|head| cursor.position < head)
        });
        Ok(!busy && !waits && !behind)
    }

    fn find(&self, service: &str) -> Option<Channel> {
        self.services.iter().find(|channel| channel.name() == service).cloned()
    }

    /// The rows of a service, by table; of all tables if none is named.
    async fn export(
        &self,
        channel: &Channel,
        tables: &[&str],
    ) -> anyhow::Result<BTreeMap<String, Table>> {
        let name = channel.name().to_owned();
        let tables = tables.iter().map(|table| (*table).to_owned()).collect();
        let mut exporter = AuditExportServiceClient::new(channel.clone());
        let ask = request(ExportRequest { tables }, &self.authorization);
        let read = async {
            let mut rows = exporter.export(ask).await?.into_inner();
            let mut exported: BTreeMap<String, Table> = BTreeMap::new();
            while let Some(row) = rows.message().await? {
                let fields = row.row.map(values::object).unwrap_or_default();
                exported.entry(row.table).or_default().push(fields);
            }
            Ok::<_, tonic::Status>(exported)
        };
        let exported = Ctx::root(PATIENCE, Trace::new()).scope(read).await;
        exported.map_err(|status| {
            anyhow::anyhow!("{name} does not export its tables: {}", spoken(&status))
        })
    }

    /// Whether a service exports a table: one without rows does not show.
    async fn has(&self, channel: &Channel, table: &str) -> anyhow::Result<bool> {
        let mut exporter = AuditExportServiceClient::new(channel.clone());
        let ask = ExportRequest { tables: vec![table.to_owned()] };
        let ask = request(ask, &self.authorization);
        let read = async {
            let mut rows = exporter.export(ask).await?.into_inner();
            while rows.message().await?.is_some() {}
            Ok::<_, tonic::Status>(())
        };
        match Ctx::root(PATIENCE, Trace::new()).scope(read).await {
            Ok(()) => Ok(true),
            Err(status) if status.code() == Code::InvalidArgument => Ok(false),
            Err(status) => Err(status.into()),
        }
    }
}

fn take(world: &mut World, service: &str, exported: BTreeMap<String, Table>) -> anyhow::Result<()> {
    for (table, rows) in exported {
        world.take(service, &table, rows)?;
    }
    Ok(())
}

/// Orders that were not the same, or not at rest, when they were read first.
fn moving(before: &World, after: &World) -> BTreeSet<String> {
    let revisions: BTreeMap<&str, i64> =
        before.orders.iter().map(|order| (order.id.as_str(), order.revision)).collect();
    let rested = before.resting();
    after
        .orders
        .iter()
        .filter(|order| {
            let id = order.id.as_str();
            revisions.get(id) != Some(&order.revision) || !rested.contains_key(id)
        })
        .map(|order| order.id.clone())
        .collect()
}

#[cfg(test)]
mod tests;
