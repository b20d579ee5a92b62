//! Following one order through connections that are cut.

use std::time::Duration;

use mesh::{Channel, Ctx, clock, ctx::Trace};
use proto::orders::v1::{
    WatchOrderRequest, orders_service_client::OrdersServiceClient, watch_order_response::Update,
};
use tonic::{Code, Status};

use super::crowd::spoken;
use crate::{
    access::{Authorization, request},
    history::{Asked, Outcome, Seen},
};

/// How long to wait before a connection is opened again that was not cut on purpose.
const PAUSE: Duration = Duration::from_millis(200);

/// How long before its deadline a service may end a watch well.
const MARGIN: Duration = Duration::from_secs(5);

/// A watch, and what came of it so far.
#[derive(Clone, Debug)]
pub(super) struct Watched<'a> {
    orders: &'a Channel,
    authorization: &'a Authorization,
    resume_token: String,
    seen: Vec<Seen>,
    /// Whether the service ended it.
    ended: bool,
    refused: Option<String>,
    lost: Option<String>,
}

// === impl Watched ===

impl<'a> Watched<'a> {
    pub(super) fn new(orders: &'a Channel, authorization: &'a Authorization) -> Self {
        Self {
            orders,
            authorization,
            resume_token: String::new(),
            seen: Vec::new(),
            ended: false,
            refused: None,
            lost: None,
        }
    }

    /// Watches, cut off after each of `cuts` updates, then until the order has ended or patience.
    pub(super) async fn follow(mut self, name: &str, cuts: &[usize], patience: Duration) -> Self {
        let ends = clock::instant() + patience;
        let mut cuts = cuts.iter().copied();
        loop {
            let left = ends.saturating_duration_since(clock::instant());
            if left.is_zero() {
                return self;
            }
            let at_most = cuts.next();
            let connection = self.connection(name, at_most, left);
            match Ctx::root(left, Trace::new()).scope(connection).await {
                // The stream's end is the service's word that the order has ended, unless it
                // comes shortly before the deadline that was asked for.
                Ok(true) => {}
                Ok(false) => {
                    self.ended = clock::instant() + MARGIN < ends;
                    return self;
                }
                Err(status) => match status.code() {
                    Code::OutOfRange => self.resume_token.clear(),
                    Code::DeadlineExceeded if clock::instant() >= ends => return self,
                    Code::PermissionDenied | Code::NotFound | Code::InvalidArgument => {
                        self.refused = Some(spoken(&status));
                        return self;
                    }
                    Code::Ok
                    | Code::Cancelled
                    | Code::Unknown
                    | Code::DeadlineExceeded
                    | Code::AlreadyExists
                    | Code::ResourceExhausted
                    | Code::FailedPrecondition
                    | Code::Aborted
                    | Code::Unimplemented
                    | Code::Internal
                    | Code::Unavailable
                    | Code::DataLoss
                    | Code::Unauthenticated => {
                        self.lost = Some(spoken(&status));
                        tokio::time::sleep(PAUSE).await;
                    }
                },
            }
        }
    }

    /// Reads one connection to its end; `true` if it was cut after so many updates.
    async fn connection(
        &mut self,
        name: &str,
        at_most: Option<usize>,
        patience: Duration,
    ) -> Result<bool, Status> {
        let ask =
            WatchOrderRequest { name: name.to_owned(), resume_token: self.resume_token.clone() };
        let mut ask = request(ask, self.authorization);
        ask.extensions_mut().insert(mesh::client::Long);
        ask.set_timeout(patience);
        let mut client = OrdersServiceClient::new(self.orders.clone());
        let mut updates = client.watch_order(ask).await?.into_inner();
        let mut read = 0;
        while let Some(update) = updates.message().await? {
            let event = match update.update {
                Some(Update::Order(_)) => String::new(),
                Some(Update::OrderEvent(event)) => event.r#type,
                Some(Update::Heartbeat(_)) | None => continue,
            };
            let first = read == 0;
            self.seen.push(Seen { revision: update.revision, event, first });
            self.resume_token = update.resume_token;
            read += 1;
            if at_most == Some(read) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What is recorded of it.
    pub(super) fn told(self, order: String) -> (Asked, Outcome, String) {
        let outcome = match (&self.refused, self.ended) {
            (Some(_), _) => Outcome::Refused,
            (None, true) => Outcome::Ok,
            (None, false) => Outcome::Unknown,
        };
        let why = self.refused.or(self.lost).filter(|_| outcome != Outcome::Ok).unwrap_or_default();
        (Asked::Watch { order, seen: self.seen, ended: self.ended }, outcome, why)
    }
}
