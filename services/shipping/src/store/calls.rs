//! What callers ask for: each call in one transaction, or two with the carrier in between.

use mesh::{
    clock::{self, micros},
    idempotency::Answer,
    store::{Failure, Txn, execute, row},
};
use sea_orm::FromQueryResult;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Call, Once, Store,
    once::Begin,
    rows::{SIGNS, text},
    write::{insert, publish, save},
};
use crate::{
    domain::{CancelReason, Change, Pace, Plan, Refusal, Shipment, Sign, Started, State},
    error::Error,
};

/// What came of the first half of a call.
#[derive(Clone, Debug)]
pub enum Begun {
    /// It is answered: there is no second half.
    Answered(Answer),
    /// The carrier decides: send this attempt, if there is one, then [`Store::settle`].
    Open(Box<Shipment>, Option<Uuid>),
}

/// What somebody says that a carrier did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// What the carrier calls the event.
    pub event_id: String,
    /// What happened.
    pub sign: Sign,
    /// When.
    pub occurred_at: OffsetDateTime,
}

/// Whether a call has reached what it is for.
pub type CameOf = fn(&Shipment) -> Result<(), Refusal>;

// === impl Store ===

impl Store {
    /// Notes a shipment and that it is to be booked. The one that is there already is answered as
    /// it stands, if it is the same.
    ///
    /// # Errors
    /// [`Error::Taken`] if the id has another shipment, [`Refusal::Undone`] if it was cancelled
    /// before it came to be.
    pub async fn create(&self, call: Call, id: Uuid, plan: Plan) -> Result<Answer, Error> {
        let store = self.clone();
        self.db
            .transaction(move |txn| {
                let (store, call, plan) = (store.clone(), call.clone(), plan.clone());
                Box::pin(async move {
                    let at = store.now(txn).await?;
                    match call.once.begin(txn, id, at).await? {
                        Begin::First => {}
                        Begin::Answered(answer) => return Ok(answer),
                        Begin::HalfWay => return Err(Error::refused(id)(Refusal::InProgress)),
                    }
                    let created = store.created(txn, id, plan, at).await;
                    call.once.end(txn, created.map(|it| (call.tell)(&it))).await
                })
            })
            .await
    }

    async fn created(
        &self,
        txn: &Txn,
        id: Uuid,
        plan: Plan,
        at: OffsetDateTime,
    ) -> Result<Shipment, Error> {
        let (mut shipment, change) = Shipment::create(id, plan, Started { id: clock::id(), at });
        shipment.revision = i64::try_from(change.events.len()).unwrap_or(0);
        if insert(txn, &shipment).await? {
            publish(txn, &shipment, 0, &change.events, at).await?;
            return Ok(shipment);
        }
        let found = self.found(txn, id).await?;
        if found.is_tombstone() {
            return Err(Error::refused(id)(Refusal::Undone));
        }
        if found.plan == shipment.plan { Ok(found) } else { Err(Error::Taken(id)) }
    }

    /// Commits that a shipment is going to be cancelled. Of one that does not exist, an undoing
    /// leaves a tombstone.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::EtagMismatch`], or [`Error::Refused`] as
    /// [`Shipment::cancel`] says; of a request that has an id, these are answers.
    pub async fn cancel(
        &self,
        call: Call,
        id: Uuid,
        reason: CancelReason,
        revision: Option<i64>,
    ) -> Result<Begun, Error> {
        let undoes = matches!(call.once, Once::Undo(_));
        let tombstone = undoes.then_some(reason);
        let decide = move |shipment: &mut Shipment, started, pace: &Pace| {
            if undoes && shipment.state == State::Cancelled {
                return Ok(Change::default());
            }
            shipment.cancel(started, reason, pace)
        };
        self.begun(call, id, (revision, tombstone), decide, Shipment::is_cancelled).await
    }

    /// Commits that a shipment is going to be handed over.
    ///
    /// # Errors
    /// As [`Store::cancel`], by [`Shipment::dispatch`].
    pub async fn dispatch(
        &self,
        call: Call,
        id: Uuid,
        revision: Option<i64>,
    ) -> Result<Begun, Error> {
        let decide =
            |shipment: &mut Shipment, started, pace: &Pace| shipment.dispatch(started, pace);
        self.begun(call, id, (revision, None), decide, Shipment::is_dispatched).await
    }

    /// Answers the second half of a call by what the carrier did.
    ///
    /// # Errors
    /// [`Refusal::InProgress`] while that is not known, else as the first half.
    pub async fn settle(&self, call: Call, id: Uuid, came_of: CameOf) -> Result<Answer, Error> {
        let store = self.clone();
        self.db
            .transaction(move |txn| {
                let (store, call) = (store.clone(), call.clone());
                Box::pin(async move {
                    let shipment = store.found(txn, id).await?;
                    let answer = answer(&call, &shipment, came_of);
                    call.once.end(txn, answer).await
                })
            })
            .await
    }

    /// Takes in what a person says that the carrier did, once by event.
    ///
    /// # Errors
    /// [`Error::NotFound`], or [`Error::Refused`] as [`Shipment::noted`] says; of a request that
    /// has an id, these are answers.
    pub async fn note(&self, call: Call, id: Uuid, noted: Noted) -> Result<Answer, Error> {
        let store = self.clone();
        self.db
            .transaction(move |txn| {
                let (store, call, noted) = (store.clone(), call.clone(), noted.clone());
                Box::pin(async move {
                    let at = store.now(txn).await?;
                    match call.once.begin(txn, id, at).await? {
                        Begin::First => {}
                        Begin::Answered(answer) => return Ok(answer),
                        Begin::HalfWay => return Err(Error::refused(id)(Refusal::InProgress)),
                    }
                    let shipment = store.noted(txn, &call, id, &noted, at).await;
                    call.once.end(txn, shipment.map(|it| (call.tell)(&it))).await
                })
            })
            .await
    }

    async fn noted(
        &self,
        txn: &Txn,
        call: &Call,
        id: Uuid,
        noted: &Noted,
        at: OffsetDateTime,
    ) -> Result<Shipment, Error> {
        let before = self.found(txn, id).await?;
        // Nobody else notes it now: the shipment is locked.
        if is_noted(txn, id, &noted.event_id).await? {
            return Ok(before);
        }
        let mut shipment = before.clone();
        let change = shipment.noted(noted.sign).map_err(Error::refused(id))?;
        note(txn, id, noted, &call.actor, at).await?;
        save(txn, &before, &mut shipment, &change, at).await?;
        Ok(shipment)
    }

    /// The first half of a call that the carrier may have to decide.
    async fn begun<F>(
        &self,
        call: Call,
        id: Uuid,
        (revision, tombstone): (Option<i64>, Option<CancelReason>),
        decide: F,
        came_of: CameOf,
    ) -> Result<Begun, Error>
    where
        F: Fn(&mut Shipment, Started, &Pace) -> Result<Change, Refusal>,
        F: Clone + Send + Sync + 'static,
    {
        let store = self.clone();
        self.db
            .transaction(move |txn| {
                let (store, call, decide) = (store.clone(), call.clone(), decide.clone());
                Box::pin(async move {
                    let at = store.now(txn).await?;
                    let begin = call.once.begin(txn, id, at).await?;
                    let decide = match begin {
                        Begin::Answered(answer) => return Ok(Begun::Answered(answer)),
                        Begin::HalfWay => None,
                        Begin::First => Some(&decide),
                    };
                    if let Some(reason) = tombstone {
                        insert(txn, &Shipment::tombstone(id, reason, at)).await?;
                    }
                    let decided = store.decided(txn, id, revision, decide, at).await;
                    let (shipment, send) = match decided {
                        Ok(decided) => decided,
                        Err(error) => {
                            return call.once.end(txn, Err(error)).await.map(Begun::Answered);
                        }
                    };
                    if came_of(&shipment) == Err(Refusal::InProgress) {
                        return Ok(Begun::Open(Box::new(shipment), send));
                    }
                    let answer = answer(&call, &shipment, came_of);
                    call.once.end(txn, answer).await.map(Begun::Answered)
                })
            })
            .await
    }

    async fn decided<F>(
        &self,
        txn: &Txn,
        id: Uuid,
        revision: Option<i64>,
        decide: Option<&F>,
        at: OffsetDateTime,
    ) -> Result<(Shipment, Option<Uuid>), Error>
    where
        F: Fn(&mut Shipment, Started, &Pace) -> Result<Change, Refusal>,
    {
        let before = self.found(txn, id).await?;
        let Some(decide) = decide else { return Ok((before, None)) };
        if revision.is_some_and(|revision| revision != before.revision) {
            return Err(Error::EtagMismatch { shipment: id, revision: before.revision });
        }
        let mut shipment = before.clone();
        let started = Started { id: clock::id(), at };
        let change = decide(&mut shipment, started, self.pace()).map_err(Error::refused(id))?;
        save(txn, &before, &mut shipment, &change, at).await?;
        Ok((shipment, change.send))
    }
}

fn answer(call: &Call, shipment: &Shipment, came_of: CameOf) -> Result<Answer, Error> {
    came_of(shipment).map_err(Error::refused(shipment.id))?;
    Ok((call.tell)(shipment))
}

/// Whether the event is new.
pub(super) async fn note(
    txn: &Txn,
    id: Uuid,
    noted: &Noted,
    actor: &str,
    at: OffsetDateTime,
) -> Result<bool, Failure> {
    let sql = "INSERT INTO shipment_sign (shipment, event_id, kind, occurred_at, actor, at) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
    let values = vec![
        id.to_string().into(),
        noted.event_id.as_str().into(),
        text(&SIGNS, noted.sign).into(),
        micros(noted.occurred_at).into(),
        actor.into(),
        micros(at).into(),
    ];
    Ok(execute(txn, "note a carrier's event", sql, values).await? == 1)
}

async fn is_noted(txn: &Txn, id: Uuid, event_id: &str) -> Result<bool, Failure> {
    #[derive(FromQueryResult)]
    #[expect(dead_code, reason = "that there is a row is all there is to know")]
    struct Found {
        at: i64,
    }
    let sql = "SELECT at FROM shipment_sign WHERE shipment = $1 AND event_id = $2";
    let values = vec![id.to_string().into(), event_id.into()];
    Ok(row::<Found, _>(txn, "look for a carrier's event", sql, values).await?.is_some())
}
