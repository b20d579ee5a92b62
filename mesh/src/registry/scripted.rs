//! A registry that a test plays: who is there, and whether it answers. What it says goes through
//! the same cache as what Consul says.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use hickory_resolver::{
    net::{DnsError, NetError, NoRecords},
    proto::{
        op::{Query, ResponseCode},
        rr::{Name, RData, Record, RecordType, rdata::A},
    },
};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::{
    Address, Answer, Backend, Failure, Found, Instance, Registration, Registry, Source,
    cache::{self, FRESH},
    dns::Dns,
    lease,
};
use crate::sim::Told;

/// How long a question may wait for something new; as Consul is asked.
const WAIT: Duration = Duration::from_secs(55);
/// For how long a record of DNS counts, in seconds.
const TTL: u32 = 5;

/// Cheap to clone: all clones are one registry.
#[derive(Clone, Debug)]
pub(crate) struct Scripted {
    known: Arc<Told<Known>>,
    /// How long an answer takes at most.
    lag: Duration,
}

#[derive(Clone, Debug, Default)]
struct Known {
    index: u64,
    mood: Mood,
    services: BTreeMap<String, Vec<Instance>>,
}

/// How a registry feels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    #[default]
    Well,
    /// Nobody can reach it.
    Away,
    /// It has lost its memory, and answers that there is nobody.
    Empty,
}

/// Asks for one service, again and again.
struct Asks {
    registry: Scripted,
    service: String,
    seen: Option<u64>,
}

// === impl Scripted ===

impl Scripted {
    pub(crate) fn new(lag: Duration) -> Self {
        Self { known: Arc::default(), lag }
    }

    /// A process's own view of it.
    pub(crate) fn open(&self) -> Registry {
        Registry::of(Arc::new(self.clone()))
    }

    /// The same as a server of DNS tells it: addresses, each for a while.
    pub(crate) fn dns(&self) -> Registry {
        Registry::of(Arc::new(Dns::scripted(self.clone())))
    }

    /// What that server answers. Where it is away it says SERVFAIL.
    pub(super) async fn lookup(
        &self,
        name: &str,
        kind: RecordType,
    ) -> Result<Vec<Record>, NetError> {
        sleep(cache::jitter(self.lag)).await;
        let asked: Name = name.parse().expect("a name");
        let known = self.known.look(Clone::clone);
        let code = match known.mood {
            Mood::Away => return Err(DnsError::ResponseCode(ResponseCode::ServFail).into()),
            Mood::Empty => ResponseCode::NXDomain,
            Mood::Well => ResponseCode::NoError,
        };
        let hosts = known
            .services
            .get(name.trim_end_matches('.'))
            .filter(|_| known.mood == Mood::Well && kind == RecordType::A);
        let record = |one: &Instance| {
            let address: A = one.address.host.parse().expect("an address");
            Record::from_rdata(asked.clone(), TTL, RData::A(address))
        };
        let records: Vec<_> = hosts.into_iter().flatten().map(record).collect();
        if records.is_empty() {
            let none = NoRecords::new(Query::query(asked, kind), code);
            return Err(DnsError::NoRecordsFound(none).into());
        }
        Ok(records)
    }

    pub(crate) fn feel(&self, mood: Mood) {
        self.change(|known| known.mood = mood);
    }

    pub(crate) fn enter(&self, service: &str, host: &str) {
        let instance = Instance {
            id: host.to_owned(),
            address: Address { host: host.to_owned(), port: 1 },
            weight: 1,
            meta: BTreeMap::new(),
        };
        self.change(|known| known.services.entry(service.to_owned()).or_default().push(instance));
    }

    pub(crate) fn leave(&self, service: &str, host: &str) {
        self.change(|known| {
            known.services.entry(service.to_owned()).or_default().retain(|one| one.id != host);
        });
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        self.known.change(|known| {
            known.index += 1;
            change(known);
        });
    }
}

impl Backend for Scripted {
    fn source(&self, service: &str, _hurry: Arc<Notify>) -> Found {
        let (registry, service) = (self.clone(), service.to_owned());
        Found::Asked(Box::new(Asks { registry, service, seen: None }))
    }

    fn keeper(&self, _: Registration) -> Option<Box<dyn lease::Keeper>> {
        None
    }
}

// === impl Asks ===

impl Source for Asks {
    fn next(&mut self) -> BoxFuture<'_, Result<Answer, Failure>> {
        Box::pin(async move {
            let (told, seen) = (&self.registry.known, self.seen);
            let news = told.until(|it| it.mood != Mood::Well || Some(it.index) != seen);
            // Without news the answer is what it was.
            let _news = timeout(WAIT, news).await.is_ok();
            sleep(cache::jitter(self.registry.lag)).await;
            let known = told.look(Clone::clone);
            let instances = match known.mood {
                Mood::Away => return Err(Failure::Unreachable("it is away".to_owned())),
                Mood::Empty => {
                    // Its answers come one after the other, not all at once.
                    if self.seen == Some(known.index) {
                        sleep(Duration::from_secs(1)).await;
                    }
                    Vec::new()
                }
                Mood::Well => known.services.get(&self.service).cloned().unwrap_or_default(),
            };
            self.seen = Some(known.index);
            Ok(Answer { instances, fresh: FRESH })
        })
    }
}
