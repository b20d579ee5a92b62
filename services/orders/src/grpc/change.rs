//! `CancelOrder` and `AcceptOrderChanges`: what people do to an order that exists.

use std::sync::Arc;

use mesh::{
    auth::Caller,
    idempotency::{Answer, Key},
    saga::{Created, Reach, Turned, Why},
};
use proto::orders::v1::{self as api, Reason};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Orders, Told, encode, finished, key, parse};
use crate::{
    domain::{Cancellation, Moved, Order, Refusal},
    error::Error,
    events,
    store::{Also, Change, Kept, Stored, WriteError},
};

/// Somebody's change of an order, parsed.
struct Asked {
    id: Uuid,
    caller: Caller,
    /// The revision that the caller read.
    revision: Option<i64>,
    key: Option<Key>,
    at: OffsetDateTime,
}

/// How often a change is decided anew because the order's saga moved it at the same moment.
const TRIES: u32 = 5;

impl Orders {
    pub(super) async fn cancel(
        &self,
        mut request: api::CancelOrderRequest,
        at: OffsetDateTime,
    ) -> Result<Told<api::Order>, Error> {
        let (caller, order) = self.changeable(&request.name).await?;
        let mut wrong = parse::Violations::default();
        read_by_staff(&request.etag, &order, &caller, &mut wrong);
        let reason = parse::cancel_reason(request.reason, &mut wrong);
        let note = parse::note(&request.note, &mut wrong);
        let (id, revision, request_id) =
            parse::target(&request.name, &request.etag, &request.request_id, wrong)?;
        request.request_id.clear();
        let key = key(&caller, "CancelOrder", request_id, &request);
        let cancellation = Cancellation { reason, actor: caller.principal().to_owned(), note };
        let (runner, name) = (self.runner.clone(), request.name);
        let turn: Also<Option<Created>> = Arc::new(move |txn| {
            let (runner, name) = (runner.clone(), name.clone());
            Box::pin(async move {
                let why = Why::new("CANCELLED", "called off");
                match runner.turn_round(txn, &name, &why, Reach::PastPivot).await? {
                    Turned::Round(created) => Ok(Some(created)),
                    // It is being undone for another reason, and ends as cancelled now.
                    Turned::Already => Ok(None),
                    Turned::TooLate => Err(WriteError::Saga("cannot be turned round")),
                    Turned::Unknown => Err(WriteError::Saga("is not there")),
                }
            })
        });
        let asked = Asked { id, caller, revision, key, at };
        self.changed(asked, move |order| order.cancel(cancellation.clone(), at), turn).await
    }

    pub(super) async fn accept(
        &self,
        mut request: api::AcceptOrderChangesRequest,
        at: OffsetDateTime,
    ) -> Result<Told<api::Order>, Error> {
        let (caller, order) = self.changeable(&request.name).await?;
        let mut wrong = parse::Violations::default();
        read_by_staff(&request.etag, &order, &caller, &mut wrong);
        let total = parse::money("expected_total", request.expected_total.as_ref(), &mut wrong);
        if total.is_some_and(|total| total.currency != order.totals.total.currency) {
            let problem = format!("the order is in {}", order.totals.total.currency);
            wrong.because(Reason::CurrencyMismatch, "expected_total.currency_code", problem);
        }
        let (id, revision, request_id) =
            parse::target(&request.name, &request.etag, &request.request_id, wrong)?;
        let Some(total) = total else { return Err(Error::Malformed(Vec::new())) };
        request.request_id.clear();
        let key = key(&caller, "AcceptOrderChanges", request_id, &request);
        let patience = self.patience.to_confirm();
        let (runner, name) = (self.runner.clone(), request.name);
        let wake: Also<Option<Created>> = Arc::new(move |txn| {
            let (runner, name) = (runner.clone(), name.clone());
            Box::pin(async move {
                // Its saga found the time over just before: it is being undone, and expires.
                if runner.wake_forward(txn, &name).await? {
                    Ok(None)
                } else {
                    Err(WriteError::TooLate)
                }
            })
        });
        let asked = Asked { id, caller, revision, key, at };
        self.changed(asked, move |order| order.accept(total, patience, at), wake).await
    }

    /// The order, once it is known that the caller may change it.
    async fn changeable(&self, name: &str) -> Result<(Caller, Order), Error> {
        let id = parse::name(name)?;
        let stored = self.visible(id).await?;
        Ok((Caller::current()?, stored.order))
    }

    /// Decides on the order as it is and commits answer, order, events and saga as one.
    async fn changed(
        &self,
        asked: Asked,
        moves: impl Fn(&mut Order) -> Moved,
        also: Also<Option<Created>>,
    ) -> Result<Told<api::Order>, Error> {
        let Asked { id, caller, revision, key, at } = asked;
        if let Some(told) = self.answered(key.as_ref()).await? {
            return Ok(told);
        }
        for _try in 0..TRIES {
            let stored = self.store.order(id).await?;
            let stored = stored.ok_or_else(|| Error::NotFound(format!("orders/{id}")))?;
            let change = match decide(&stored, caller.principal(), revision, &moves, at) {
                Ok(change) => change,
                Err(error) => return self.refused(key, error, at).await,
            };
            let after = Stored { order: change.order.clone(), revision: change.revision() };
            let answer = encode::order(&after);
            let kept = key.clone().map(|key| Kept { key, answer: Answer::success(&answer) });
            let (store, runner, also) = (self.store.clone(), self.runner.clone(), also.clone());
            let changed = finished("change an order", async move {
                match store.change(change, kept, also).await? {
                    Some(created) => runner.start(created),
                    None => runner.nudge(),
                }
                Ok(())
            });
            match changed.await {
                Ok(()) => return Ok(Told::first(answer)),
                Err(WriteError::Repeated) => {
                    if let Some(told) = self.answered(key.as_ref()).await? {
                        return Ok(told);
                    }
                }
                Err(WriteError::Changed) => {}
                Err(WriteError::TooLate) => {
                    let over =
                        stored.order.pending.as_ref().map_or(at, |pending| pending.expires_at);
                    return self.refused(key, Error::Refused(Refusal::TooLate(over)), at).await;
                }
                Err(error) => return Err(error.into()),
            }
            tracing::debug!(order.id = %id, "{} moved meanwhile", events::name(&after.order));
        }
        Err(Error::Changed)
    }
}

fn decide(
    stored: &Stored,
    actor: &str,
    revision: Option<i64>,
    moves: impl Fn(&mut Order) -> Moved,
    at: OffsetDateTime,
) -> Result<Change, Error> {
    let Stored { mut order, revision: current } = stored.clone();
    if revision.is_some_and(|read| read != current) {
        return Err(Error::Etag { current });
    }
    let events = moves(&mut order)?;
    Ok(Change { order, read: current, events, actor: actor.to_owned(), at })
}

/// Staff change what is not theirs: they say what they saw.
fn read_by_staff(etag: &str, order: &Order, caller: &Caller, wrong: &mut parse::Violations) {
    if etag.is_empty() && *order.customer != *caller.subject {
        wrong.add("etag", "is required of staff");
    }
}
