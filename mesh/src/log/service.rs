//! The log as others follow it: `EventLogService`.

use std::{collections::HashSet, pin::Pin, sync::Arc, time::Duration};

use futures_util::Stream;
use prost::Message as _;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::{Event, Position, Tail, Unread, store};
use crate::{
    app::Draining,
    clock,
    wire::ordermesh::events::v1::{
        GetHeadRequest, GetHeadResponse, SubscribeRequest, SubscribeResponse,
        event_log_service_server::EventLogService,
    },
};

/// The path of the one call here that lasts.
pub(crate) const SUBSCRIBE: &str = "/ordermesh.events.v1.EventLogService/Subscribe";

/// How long a subscription lasts at most.
pub(crate) const LONGEST: Duration = Duration::from_secs(3_600);

/// Serves the log of one database.
#[derive(Debug)]
pub(crate) struct EventLog {
    tail: Arc<Tail>,
    draining: Draining,
}

/// Where one subscriber has come to.
struct Subscriber {
    tail: Arc<Tail>,
    draining: Draining,
    types: HashSet<String>,
    after: Position,
    /// What the last message said, and when it was sent.
    told: Position,
    told_at: Instant,
}

/// Without an event, a message comes this often.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Events of other types were passed over: the subscriber hears of it this soon.
const PASSED: Duration = Duration::from_secs(1);

/// A message does not grow much beyond this, in bytes.
const SIZE: usize = 1 << 20;

// === impl EventLog ===

impl EventLog {
    pub(crate) fn new(tail: Arc<Tail>, draining: Draining) -> Self {
        Self { tail, draining }
    }

    async fn subscriber(&self, request: SubscribeRequest) -> Result<Subscriber, Unread> {
        let SubscribeRequest { after, types } = request;
        if after < 0 {
            return Err(Unread::Malformed { field: "after", problem: "must not be negative" });
        }
        let oldest = store::oldest(self.tail.store().reader()).await?;
        if after + 1 < oldest {
            return Err(Unread::Truncated { oldest });
        }
        if after > self.tail.look().await? {
            // Another log: to wait for it to come this far would be to miss what comes first.
            return Err(Unread::Malformed { field: "after", problem: "is beyond the head" });
        }
        Ok(Subscriber {
            tail: Arc::clone(&self.tail),
            draining: self.draining.clone(),
            types: types.into_iter().collect(),
            after,
            told: after,
            told_at: clock::instant(),
        })
    }
}

#[tonic::async_trait]
impl EventLogService for EventLog {
    type SubscribeStream =
        Pin<Box<dyn Stream<Item = Result<SubscribeResponse, Status>> + Send + 'static>>;

    async fn subscribe(
        &self,
        request: Request<SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let subscriber = self.subscriber(request.into_inner()).await?;
        let stream = futures_util::stream::unfold(Some(subscriber), async |state| {
            let mut subscriber = state?;
            match subscriber.next().await {
                Ok(None) => None,
                Ok(Some(message)) => Some((Ok(message), Some(subscriber))),
                Err(unread) => Some((Err(Status::from(unread)), None)),
            }
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn get_head(
        &self,
        _: Request<GetHeadRequest>,
    ) -> Result<Response<GetHeadResponse>, Status> {
        let read = async {
            let oldest = store::oldest(self.tail.store().reader()).await?;
            let newest = store::head(self.tail.store().reader()).await?;
            Ok::<_, Unread>(GetHeadResponse { oldest, newest })
        };
        Ok(Response::new(read.await?))
    }
}

// === impl Subscriber ===

impl Subscriber {
    /// The next message; `None` when the process leaves.
    async fn next(&mut self) -> Result<Option<SubscribeResponse>, Unread> {
        loop {
            let due = self.told_at + if self.told < self.after { PASSED } else { HEARTBEAT };
            let found = tokio::select! {
                biased;
                () = self.draining.begun() => return Ok(None),
                found = self.tail.next(self.after) => found?,
                () = tokio::time::sleep_until(due) => {
                    return Ok(Some(self.message(Vec::new())));
                }
            };
            let events = self.choose(found);
            // A log that is busy with other types leaves no silence to be told in.
            if !events.is_empty() || clock::instant() >= due {
                return Ok(Some(self.message(events)));
            }
        }
    }

    /// Those that were asked for, as many as one message holds; goes on behind them.
    fn choose(&mut self, found: Vec<Event>) -> Vec<crate::wire::ordermesh::events::v1::Event> {
        let mut chosen = Vec::new();
        let mut size = 0;
        for event in found {
            if size > SIZE {
                break;
            }
            self.after = event.position;
            if self.types.is_empty() || self.types.contains(&event.kind) {
                let event = event.to_wire();
                size += event.encoded_len();
                chosen.push(event);
            }
        }
        chosen
    }

    fn message(
        &mut self,
        events: Vec<crate::wire::ordermesh::events::v1::Event>,
    ) -> SubscribeResponse {
        (self.told, self.told_at) = (self.after, clock::instant());
        SubscribeResponse { events, head: self.tail.seen().max(self.after), position: self.after }
    }
}
