//! Reading the log of a source: subscribe, take in what comes, and again when it breaks.

use std::time::Duration;

use tonic::{Code, Request, Status};
use uuid::Uuid;

use super::{Consumer, store, take::Lost};
use crate::{
    app::Draining,
    client::Long,
    clock,
    ctx::{Ctx, Trace},
    lease,
    log::{Event, Position, service::LONGEST},
    status,
    store::Failure,
    telemetry::{self, Source},
    wire::ordermesh::events::v1::{
        SubscribeRequest, SubscribeResponse, event_log_service_client::EventLogServiceClient,
    },
};

/// Why following ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    /// Another replica reads.
    #[error("another replica reads it")]
    Standby,
    /// The cursor is to be read anew.
    #[error("the cursor was moved")]
    Lost,
    /// The source ended the stream, as it does now and then.
    #[error("the stream ended")]
    Stream,
    /// Nothing came for too long.
    #[error("nothing came for {0:?}")]
    Silent(Duration),
    /// The source said no, or is away.
    #[error("{}: {}", .0.code(), .0.message())]
    Source(Box<Status>),
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Between two attempts to reach a source.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// A source shows a sign of life every 15 s.
const SILENCE: Duration = Duration::from_secs(40);

/// How long the cursor may lag behind what was passed over.
const PASS: Duration = Duration::from_secs(10);

// === impl Consumer ===

impl Consumer {
    /// Works until the process leaves.
    pub(crate) async fn run(self, draining: Draining) -> anyhow::Result<()> {
        let owner = Uuid::new_v4().to_string();
        self.measure().await;
        let mut pause = PAUSE.0;
        while !draining.is_draining() {
            let began = clock::instant();
            let ended = self.follow(&owner, &draining).await;
            let lasted = clock::instant().saturating_duration_since(began);
            pause = if lasted > PAUSE.1 { PAUSE.0 } else { (pause * 2).min(PAUSE.1) };
            let (name, source) = (self.name(), self.source());
            let wait = match ended {
                Ended::Standby => self.0.settings.lease / 10,
                Ended::Lost | Ended::Stream => PAUSE.0,
                Ended::Source(ref told) if is_lasting(told) => {
                    // Truncated: to go on from the oldest would be to lose events without a word.
                    tracing::error!(error = %ended, "{name} cannot follow {source}");
                    PAUSE.1
                }
                Ended::Source(_) | Ended::Silent(_) | Ended::Failed(_) => {
                    let error = status::with_causes(&ended);
                    tracing::debug!(error, "{name} cannot follow {source} now");
                    pause.mul_f64(0.5 + fastrand::f64() / 2.0)
                }
            };
            tokio::select! {
                () = draining.begun() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        Ok(())
    }

    /// Follows the source for as long as it can be had and the lease is ours.
    async fn follow(&self, owner: &str, draining: &Draining) -> Ended {
        let fence = match self.lease(owner).await {
            Ok(Some(fence)) => fence,
            Ok(None) => return Ended::Standby,
            Err(failure) => return failure.into(),
        };
        let ctx = Ctx::root(LONGEST, Trace::new());
        let ended = tokio::select! {
            biased;
            () = draining.begun() => Ended::Stream,
            () = self.lose(fence) => Ended::Standby,
            ended = ctx.scope(self.read(draining)) => ended,
        };
        let name = self.lease_name();
        let given = self.store().transaction(move |txn| {
            let name = name.clone();
            Box::pin(async move { lease::give_back(txn, &name, fence).await })
        });
        if let Err(failure) = given.await {
            let failure: Failure = failure;
            tracing::debug!(%failure, "a lease was not given back");
        }
        ended
    }

    async fn read(&self, draining: &Draining) -> Ended {
        let mut cursor = match store::position(self).await {
            Ok(position) => position,
            Err(failure) => return failure.into(),
        };
        let types = self.0.handler.types().iter().map(|&kind| kind.to_owned()).collect();
        let mut client = EventLogServiceClient::new(self.0.channel.clone());
        let mut request = Request::new(SubscribeRequest { after: cursor, types });
        request.extensions_mut().insert(Long);
        let mut stream = match client.subscribe(request).await {
            Ok(response) => response.into_inner(),
            Err(status) => return Ended::Source(Box::new(status)),
        };
        tracing::debug!(after = cursor, "{} follows {}", self.name(), self.source());
        let mut moved = clock::instant();
        loop {
            let message = match tokio::time::timeout(SILENCE, stream.message()).await {
                Err(_elapsed) => return Ended::Silent(SILENCE),
                Ok(Err(status)) => return Ended::Source(Box::new(status)),
                Ok(Ok(None)) => return Ended::Stream,
                Ok(Ok(Some(message))) => message,
            };
            let passes = message.events.is_empty() && moved.elapsed() >= PASS;
            match self.took(message, cursor, passes, draining).await {
                Ok(at) if at == cursor => {}
                Ok(at) => (cursor, moved) = (at, clock::instant()),
                Err(Lost) => return Ended::Lost,
            }
        }
    }

    /// Takes in what a message brought, and answers where the cursor is then.
    async fn took(
        &self,
        message: SubscribeResponse,
        cursor: Position,
        passes: bool,
        draining: &Draining,
    ) -> Result<Position, Lost> {
        let SubscribeResponse { events, head, position } = message;
        let events: Vec<_> = events.into_iter().map(Event::from_wire).collect();
        let mut at = self.take_in(&events, cursor, draining).await?;
        if passes && position > at {
            self.pass(at, position).await?;
            at = position;
        }
        let labels = Source { source: self.source().to_owned() };
        let lag = head.saturating_sub(position.max(at)).max(0);
        telemetry::metrics().consumer_lag.get_or_create(&labels).set(lag);
        Ok(at)
    }

    fn lease_name(&self) -> String {
        ["consumer/", self.name(), "/", self.source()].concat()
    }

    async fn lease(&self, owner: &str) -> Result<Option<i64>, Failure> {
        let (consumer, owner, lease) = (self.clone(), owner.to_owned(), self.lease_micros());
        let taken = self.store().transaction(move |txn| {
            let (consumer, owner) = (consumer.clone(), owner.clone());
            Box::pin(async move {
                let name = consumer.lease_name();
                lease::take(consumer.store(), txn, &name, &owner, lease).await
            })
        });
        taken.await
    }

    /// Resolves when the lease is another's; renews it until then.
    async fn lose(&self, fence: i64) {
        if !self.store().is_postgres() {
            // The file is ours alone.
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(self.0.settings.lease / 3).await;
            let (consumer, lease) = (self.clone(), self.lease_micros());
            let renewed = self.store().transaction(move |txn| {
                let consumer = consumer.clone();
                Box::pin(async move {
                    let name = consumer.lease_name();
                    lease::renew(consumer.store(), txn, &name, fence, lease).await
                })
            });
            match renewed.await {
                Ok(true) => {}
                Ok(false) => return,
                // What another replica does meanwhile, the cursor sees.
                Err(failure) => {
                    let failure: Failure = failure;
                    tracing::debug!(%failure, "a lease was not renewed");
                }
            }
        }
    }

    fn lease_micros(&self) -> i64 {
        i64::try_from(self.0.settings.lease.as_micros()).unwrap_or(i64::MAX)
    }
}

/// Whether a person has to look: what is asked for is not there, or may not be had.
fn is_lasting(status: &Status) -> bool {
    [Code::OutOfRange, Code::InvalidArgument, Code::PermissionDenied, Code::Unimplemented]
        .contains(&status.code())
}
