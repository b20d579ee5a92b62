//! What carries an order from PENDING to its end, step by step, across the mesh.
//!
//! Stock is held before money is asked for, and money is set aside before anything is promised.
//! The pivot is a commit in our own database, so it cannot be in doubt; before it, everything
//! can be undone. A cancellation turns the same saga round: what is undone is undone under the
//! ids of what was done, so that whatever is still under way is met by its own undoing.

mod confirm;
mod deliver;
mod payment;
mod peers;
mod plan;
mod ship;
mod stock;
mod wake;

use std::time::Duration;

use mesh::{
    clock,
    money::Money,
    saga::{Effect, Outcome, Retriable, Run, Runner, Saga, Settings, Stale, TIMED_OUT, Why},
};
use proto::saga::v1::Command;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    domain::{Ask, Moved, Order, PendingAction, RejectReason, Rejection, State},
    events,
    store::{self, Change, Store, Stored, WriteError},
};

pub use peers::{Customer, Peers, Unheard, Unpriced};
pub use wake::Wake;

/// One step of one order, about to be done or undone.
#[derive(Debug)]
pub struct Fulfilment {
    peers: Peers,
    store: Store,
    patience: Patience,
    run: Run,
}

/// How long things may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// From being placed to being confirmed.
    pub confirm: Duration,
    /// From asking the customer to giving up.
    pub action: Duration,
    /// For how long a price that was read counts as what it costs.
    pub price_fresh: Duration,
    /// For users to say who orders, while an order is placed: the saga asks again.
    pub customer_advice: Duration,
    /// For inventory to say what there is, while an order is placed: the reservation decides.
    pub stock_advice: Duration,
    /// For another service to say what it knows of an order that is read: it is answered without.
    pub detail: Duration,
    /// How soon shipping is asked for parcels if no event comes; later ever more seldom.
    pub delivery_look: Duration,
}

/// What a step comes to, or why it comes to nothing now.
type Step = Result<Outcome, Outcome>;

/// The name under which sagas are kept. A change of the steps is another name.
pub const KIND: &str = "orders.fulfilment.v2";

/// The first four steps alone, up to 0.1: its sagas are taken over, and those that had ended with
/// a confirmed order commit its stock once more, are answered what they were answered, and go on
/// to the doorstep.
const OLDER: (&str, usize) = ("orders.fulfilment.v1", 4);

/// Who does what the saga does.
const ACTOR: &str = "services/orders";

/// How soon to look again at an order that moved on without its saga.
const LATER: Duration = Duration::from_secs(5);

/// The customer did not act in time.
const EXPIRED: &str = "EXPIRED";

/// The list of steps.
#[must_use]
pub fn fulfilment() -> Saga<Fulfilment, Retriable> {
    Saga::<Fulfilment>::named(KIND)
        .continues(OLDER.0, OLDER.1)
        .compensable(
            "hold_stock",
            |run| Box::pin(run.hold_stock()),
            |run| Box::pin(run.release_stock()),
        )
        .compensable(
            "authorize_payment",
            |run| Box::pin(run.authorize_payment()),
            |run| Box::pin(run.void_payment()),
        )
        .pivot("confirm", |run| Box::pin(run.confirm()))
        .retriable("commit_stock", |run| Box::pin(run.commit_stock()))
        .recallable("ship", |run| Box::pin(run.ship()), |run| Box::pin(run.call_back()))
        .retriable("deliver", |run| Box::pin(run.deliver()))
        .compensated(Fulfilment::ended)
}

/// What runs the sagas of this process.
#[must_use]
pub fn runner(store: &Store, peers: &Peers, patience: Patience, lease: Duration) -> Runner {
    let (store, peers) = (store.clone(), peers.clone());
    let mesh = store.mesh().clone();
    let settings = Settings { lease, ..Settings::default() };
    Runner::new(mesh, fulfilment(), settings, move |run| Fulfilment {
        peers: peers.clone(),
        store: store.clone(),
        patience,
        run,
    })
}

// === impl Patience ===

impl Patience {
    /// From being placed, or sent on by the customer, to being confirmed.
    #[must_use]
    pub fn to_confirm(&self) -> time::Duration {
        time::Duration::try_from(self.confirm).unwrap_or(time::Duration::MAX)
    }

    /// When the engine gives up, whatever the steps say: they know when a customer was asked.
    #[must_use]
    pub fn ends(&self, at: OffsetDateTime) -> OffsetDateTime {
        at + self.confirm * 2 + self.action
    }
}

// === impl Fulfilment ===

impl Fulfilment {
    /// The last effect of a compensation: the order ends, by the state it was undone from.
    fn ended(&self, why: &Why) -> Effect {
        let (store, key) = (self.store.clone(), self.run.key.clone());
        let (rejection, email) = (rejection(why), self.found_email());
        Effect::new(move |txn| {
            let (store, key, rejection) = (store.clone(), key.clone(), rejection.clone());
            let email = email.clone();
            Box::pin(async move {
                let Some(stored) = store::load(txn, id(&key)).await? else { return Ok(()) };
                let Stored { mut order, revision } = stored;
                if order.customer_email.is_empty() {
                    order.customer_email.clone_from(&email);
                }
                let at = clock::now();
                let Ok(happened) = order.end(rejection, at) else {
                    tracing::error!(order.id = %order.id, state = %order.state, "{key} cannot end");
                    return Ok(());
                };
                let actor = ACTOR.to_owned();
                let change = Change { order, read: revision, events: happened, actor, at };
                write(&store, txn, &change).await
            })
        })
    }

    /// The order as it is, if this step may go on with it.
    async fn going_on(&self) -> Result<Stored, Outcome> {
        let stored = self.stored().await?;
        let (order, at) = (&stored.order, clock::now());
        match (order.state, &order.pending) {
            (State::Pending, _) if at >= order.confirm_by => {
                Err(Outcome::no(TIMED_OUT, "not confirmed in time"))
            }
            (State::Pending, _) => Ok(stored),
            (State::ActionRequired, Some(pending)) if at >= pending.expires_at => {
                Err(Outcome::no(EXPIRED, "its customer did not act in time"))
            }
            (State::ActionRequired, Some(PendingAction { ask: Ask::Payment(_), .. })) => Ok(stored),
            (State::ActionRequired, Some(pending)) => {
                Err(Outcome::wait(pending.expires_at, "its customer has to agree"))
            }
            // The saga was turned round meanwhile: what this step comes to is not recorded.
            (
                State::ActionRequired
                | State::Confirmed
                | State::Cancelling
                | State::Rejected
                | State::Cancelled
                | State::Expired
                | State::Completed,
                _,
            ) => Err(Outcome::wait(at + LATER, "the order moved on")),
        }
    }

    async fn stored(&self) -> Result<Stored, Outcome> {
        let id = id(&self.run.key);
        match self.store.order(id).await {
            Ok(Some(mut stored)) => {
                self.identify(&mut stored.order);
                Ok(stored)
            }
            Ok(None) => Err(unsure("the order is not there")),
            Err(failure) => Err(unsure(&mesh::status::with_causes(&failure))),
        }
    }

    /// Where mails go, if the first step had to find it out: kept with that step, and written
    /// with the next change of the order.
    fn identify(&self, order: &mut Order) {
        if order.customer_email.is_empty() {
            order.customer_email = self.found_email();
        }
    }

    fn found_email(&self) -> String {
        let kept = self.run.reply("hold_stock").unwrap_or_default();
        String::from_utf8_lossy(kept).into_owned()
    }

    /// Stops the order and asks its customer.
    fn ask(&self, stored: &Stored, ask: Ask, why: &str) -> Outcome {
        let at = clock::now();
        let expires_at = (at + self.patience.action).min(self.run.deadline);
        let moved = self.moved(stored, at, |order| order.ask(ask.clone(), expires_at, at));
        match moved {
            Ok(effect) => Outcome::Wait { until: expires_at, why: why.to_owned(), effect },
            Err(outcome) => outcome,
        }
    }

    /// A move of the order as what is recorded with this step.
    fn moved(
        &self,
        stored: &Stored,
        at: OffsetDateTime,
        moves: impl Fn(&mut Order) -> Moved,
    ) -> Result<Option<Effect>, Outcome> {
        let Stored { mut order, revision } = stored.clone();
        let happened = moves(&mut order)
            .map_err(|refusal| Outcome::no("NOT_FULFILLABLE", refusal.to_string()))?;
        if happened.is_empty() {
            return Ok(None);
        }
        let actor = ACTOR.to_owned();
        let change = Change { order, read: revision, events: happened, actor, at };
        let store = self.store.clone();
        Ok(Some(Effect::new(move |txn| {
            let (store, change) = (store.clone(), change.clone());
            Box::pin(async move { write(&store, txn, &change).await })
        })))
    }

    /// What participants know this step by.
    fn command(&self) -> Option<Command> {
        let command = &self.run.command;
        Some(Command {
            saga: command.saga.clone(),
            step_key: command.step_key.clone(),
            command_id: command.command_id.to_string(),
            fence: command.fence,
        })
    }

    fn order_id(&self) -> Uuid {
        id(&self.run.key)
    }
}

/// Writes a change in the transaction that records a step.
async fn write(store: &Store, txn: &mesh::store::Txn, change: &Change) -> Result<(), Stale> {
    match store::save(txn, change).await {
        Ok(()) => {
            let Order { id, state, .. } = &change.order;
            tracing::info!(order.id = %id, %state, "order {id} is {state}");
            store.tell(*id, change.revision());
            Ok(())
        }
        Err(WriteError::Failed(failure)) => Err(Stale::Failed(failure)),
        Err(
            WriteError::Changed
            | WriteError::Repeated
            | WriteError::Exists
            | WriteError::Reused
            | WriteError::TooLate
            | WriteError::Saga(_),
        ) => Err(Stale::Changed),
    }
}

/// A step comes to one thing, whichever way.
fn merged(step: Step) -> Outcome {
    match step {
        Ok(outcome) | Err(outcome) => outcome,
    }
}

fn unsure(why: &str) -> Outcome {
    Outcome::Unsure { why: why.to_owned() }
}

/// A refusal with its facts, which the order keeps if it is rejected for it.
fn no(reason: RejectReason, facts: &[(&str, String)]) -> Outcome {
    let facts: std::collections::BTreeMap<&str, &str> =
        facts.iter().map(|(key, value)| (*key, value.as_str())).collect();
    // A map of strings always has a JSON form.
    let message = serde_json::to_string(&facts).unwrap_or_default();
    Outcome::no(crate::grpc::encode::reject_reason(reason).as_str_name(), &message)
}

/// Why the order is rejected, if that is how it ends.
fn rejection(why: &Why) -> Rejection {
    let reasons = [
        RejectReason::OutOfStock,
        RejectReason::PaymentDeclined,
        RejectReason::LimitExceeded,
        RejectReason::CustomerInactive,
        RejectReason::TimedOut,
        RejectReason::PriceChanged,
    ];
    let known = reasons
        .into_iter()
        .find(|reason| crate::grpc::encode::reject_reason(*reason).as_str_name() == why.reason);
    let reason = known.unwrap_or(RejectReason::NotFulfillable);
    Rejection { reason, metadata: serde_json::from_str(&why.message).unwrap_or_default() }
}

/// The order's id in the key of its saga, which is its name.
fn id(key: &str) -> Uuid {
    mesh::resource::parse_uuid("orders", key).unwrap_or_default()
}

/// How long to leave something alone that was last seen to move then: as long again, within
/// bounds.
fn growing(since: OffsetDateTime, at: OffsetDateTime, longest: Duration) -> OffsetDateTime {
    let waited = Duration::try_from(at - since).unwrap_or_default();
    at + waited.clamp(Duration::from_secs(1), longest)
}

pub(crate) fn name(collection: &str, id: Uuid) -> String {
    format!("{collection}/{id}")
}

/// An amount for another service.
fn amount(money: Money) -> Option<proto::google::r#type::Money> {
    Some(crate::grpc::encode::money(money))
}

/// The order's name.
fn order_name(order: &Order) -> String {
    events::name(order)
}
