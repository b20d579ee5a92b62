//! The life of a hold: taken, extended, committed, given back.

use mesh::{
    barrier::{self, Command, Undo},
    idempotency::Answer,
    outbox,
    store::Txn,
};
use proto::inventory::v1 as api;
use time::Duration;
use uuid::Uuid;

use super::{
    Call, Store,
    once::{Once, decoded, encoded},
    reservations::{insert, replace_parts, save, save_parts},
    shelves::{Because, apply},
};
use crate::{
    domain::{
        Refusal,
        allocation::{Wanted, allocate},
        reservation::{Change, Commit, Event, Part, Reservation, State, Terms},
    },
    error::Error,
    events,
};

/// What is to be held.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The id that the reservation gets.
    pub id: Uuid,
    /// The order it is for.
    pub order: Option<Uuid>,
    /// How much of what.
    pub lines: Vec<Wanted>,
}

/// Which way goods go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To a customer.
    Out,
    /// Back from one.
    Back,
}

impl Store {
    /// Holds stock: every line in full, or nothing.
    ///
    /// # Errors
    /// The command was undone, or a rule refused it: it leaves no trace then and may come again.
    /// The `request_id` was used otherwise, whose refusal is an answer; or the database failed.
    pub async fn hold(&self, call: Call<Reservation>, ask: Ask) -> Result<Answer, Error> {
        let store = self.clone();
        self.mesh
            .transaction(move |txn| {
                let (store, call, ask) = (store.clone(), call.clone(), ask.clone());
                Box::pin(async move {
                    let name = events::reservation_name(ask.id);
                    if let Some(answer) = call.once.begin(txn, &name, call.at).await? {
                        return Ok(answer);
                    }
                    let held = store.held(txn, &call, &ask, &name).await;
                    call.once.end(txn, held.map(|held| (call.tell)(&held))).await
                })
            })
            .await
    }

    /// Lets a hold last for `ttl` from now.
    ///
    /// # Errors
    /// The `request_id` was used otherwise, or the database failed. A refusal is an answer.
    pub async fn extend(
        &self,
        call: Call<Reservation>,
        id: Uuid,
        ttl: Duration,
    ) -> Result<Answer, Error> {
        let store = self.clone();
        self.mesh
            .transaction(move |txn| {
                let (store, call) = (store.clone(), call.clone());
                Box::pin(async move {
                    let name = events::reservation_name(id);
                    if let Some(answer) = call.once.begin(txn, &name, call.at).await? {
                        return Ok(answer);
                    }
                    let extended = store.extended(txn, &call, id, ttl, &name).await;
                    call.once.end(txn, extended.map(|held| (call.tell)(&held))).await
                })
            })
            .await
    }

    /// Turns a hold into an allocation; one that has expired takes stock again.
    ///
    /// # Errors
    /// As [`Store::hold`].
    pub async fn commit(&self, call: Call<Reservation>, id: Uuid) -> Result<Answer, Error> {
        let store = self.clone();
        self.mesh
            .transaction(move |txn| {
                let (store, call) = (store.clone(), call.clone());
                Box::pin(async move {
                    let name = events::reservation_name(id);
                    if let Some(answer) = call.once.begin(txn, &name, call.at).await? {
                        return Ok(answer);
                    }
                    let committed = store.committed(txn, &call, id, &name).await;
                    call.once.end(txn, committed.map(|it| (call.tell)(&it))).await
                })
            })
            .await
    }

    /// Goods of a committed reservation leave, or come back.
    ///
    /// # Errors
    /// As [`Store::hold`].
    pub async fn deliver(
        &self,
        call: Call<Reservation>,
        id: Uuid,
        way: Way,
        parts: Vec<Part>,
    ) -> Result<Answer, Error> {
        let store = self.clone();
        self.mesh
            .transaction(move |txn| {
                let (store, call, parts) = (store.clone(), call.clone(), parts.clone());
                Box::pin(async move {
                    let name = events::reservation_name(id);
                    if let Some(answer) = call.once.begin(txn, &name, call.at).await? {
                        return Ok(answer);
                    }
                    let moved = store.delivered(txn, &call, id, way, &parts).await;
                    call.once.end(txn, moved.map(|it| (call.tell)(&it))).await
                })
            })
            .await
    }

    /// Gives back what is held or allocated. A command undoes its hold, and bars one that has not
    /// come.
    ///
    /// # Errors
    /// As [`Store::hold`].
    pub async fn release(&self, call: Call<Reservation>, id: Uuid) -> Result<Answer, Error> {
        let store = self.clone();
        self.mesh
            .transaction(move |txn| {
                let (store, call) = (store.clone(), call.clone());
                Box::pin(async move {
                    let name = events::reservation_name(id);
                    if let Once::Command(command) = &call.once {
                        return store.undone(txn, &call, command, id).await;
                    }
                    if let Some(answer) = call.once.begin(txn, &name, call.at).await? {
                        return Ok(answer);
                    }
                    let released = store.released(txn, &call, id, &name).await;
                    call.once.end(txn, released.map(|it| (call.tell)(&it))).await
                })
            })
            .await
    }

    async fn held(
        &self,
        txn: &Txn,
        call: &Call<Reservation>,
        ask: &Ask,
        name: &str,
    ) -> Result<Reservation, Error> {
        let shelves = self.shelves(txn, &ask.lines).await?;
        let parts = allocate(&ask.lines, &shelves)
            .map_err(|short| Error::refused(name)(Refusal::OutOfStock(short)))?;
        let (held, change) = Reservation::hold(
            ask.id,
            ask.order,
            call.once.authority(),
            parts,
            Terms::STANDARD,
            call.at,
        );
        if !insert(txn, &held).await? {
            // Another step of the same saga was undone before this one came.
            let barred = self.locked(txn, ask.id).await?.is_some_and(|it| {
                it.state == State::Released && it.parts.is_empty() && it.saga == held.saga
            });
            let name = name.to_owned();
            return Err(if barred { Error::Undone(name) } else { Error::Taken(name) });
        }
        tell(txn, call, &held, change).await?;
        Ok(held)
    }

    async fn extended(
        &self,
        txn: &Txn,
        call: &Call<Reservation>,
        id: Uuid,
        ttl: Duration,
        name: &str,
    ) -> Result<Reservation, Error> {
        let mut reservation = self.found(txn, id, name).await?;
        let change = reservation.extend(ttl, call.at).map_err(Error::refused(name))?;
        save(txn, &reservation).await?;
        tell(txn, call, &reservation, change).await?;
        Ok(reservation)
    }

    async fn committed(
        &self,
        txn: &Txn,
        call: &Call<Reservation>,
        id: Uuid,
        name: &str,
    ) -> Result<Reservation, Error> {
        let mut reservation = self.found(txn, id, name).await?;
        let by = call.once.authority();
        let change = match reservation.commit(by, call.at).map_err(Error::refused(name))? {
            Commit::Already => return Ok(reservation),
            Commit::Promised(change) => {
                save(txn, &reservation).await?;
                change
            }
            Commit::Expired(lines) => {
                let shelves = self.shelves(txn, &lines).await?;
                let parts = allocate(&lines, &shelves).map_err(|short| {
                    Error::refused(name)(match short.into_iter().next() {
                        Some(first) => Refusal::Expired { sku: first.sku },
                        None => Refusal::State(State::Expired),
                    })
                })?;
                let change = reservation.retake(parts, call.at);
                save(txn, &reservation).await?;
                replace_parts(txn, &reservation).await?;
                change
            }
        };
        tell(txn, call, &reservation, change).await?;
        Ok(reservation)
    }

    async fn delivered(
        &self,
        txn: &Txn,
        call: &Call<Reservation>,
        id: Uuid,
        way: Way,
        parts: &[Part],
    ) -> Result<Reservation, Error> {
        let name = events::reservation_name(id);
        let mut reservation = self.found(txn, id, &name).await?;
        let by = call.once.authority();
        let change = match way {
            Way::Out => reservation.fulfill(by, parts, call.at),
            Way::Back => reservation.restock(by, parts, call.at),
        };
        let change = change.map_err(Error::refused(&name))?;
        save(txn, &reservation).await?;
        save_parts(txn, &reservation).await?;
        tell(txn, call, &reservation, change).await?;
        Ok(reservation)
    }

    async fn released(
        &self,
        txn: &Txn,
        call: &Call<Reservation>,
        id: Uuid,
        name: &str,
    ) -> Result<Reservation, Error> {
        let mut reservation = self.found(txn, id, name).await?;
        let by = call.once.authority();
        if let Some(change) = reservation.release(by, call.at).map_err(Error::refused(name))? {
            save(txn, &reservation).await?;
            tell(txn, call, &reservation, change).await?;
        }
        Ok(reservation)
    }

    async fn undone(
        &self,
        txn: &Txn,
        call: &Call<Reservation>,
        command: &Command,
        id: Uuid,
    ) -> Result<Answer, Error> {
        let done = match barrier::begin_undo(txn, command).await? {
            Undo::Repeated(told) => return Ok(decoded(&told)?),
            Undo::NothingDone => {
                let barred = self.barred(txn, call, &command.saga, id).await?;
                return Ok((call.tell)(&barred));
            }
            Undo::First(done) => decoded(&done)?,
        };
        let name = events::reservation_name(id);
        let undone = match done {
            // What is reversed is what the command did: a request that names another reservation
            // would leave it held.
            Answer::Success(_) if reserved(&done)? != name => {
                return Err(Error::malformed("name", "is not what this step reserved"));
            }
            Answer::Success(_) => self.released(txn, call, id, &name).await,
            // What was refused left nothing to reverse.
            Answer::Refusal { .. } => self.barred(txn, call, &command.saga, id).await,
        };
        // A refusal had no effect either: the next attempt is looked at anew.
        let answer = (call.tell)(&undone?);
        barrier::finish_undo(txn, command, &encoded(&answer)).await?;
        Ok(answer)
    }

    /// What the id stands for where there is nothing to give back: from now on nothing, unless
    /// somebody else took it.
    async fn barred(
        &self,
        txn: &Txn,
        call: &Call<Reservation>,
        saga: &str,
        id: Uuid,
    ) -> Result<Reservation, Error> {
        let tombstone = Reservation::tombstone(id, saga, call.at);
        if insert(txn, &tombstone).await? {
            let event = Event::Released { parts: Vec::new() };
            tell(txn, call, &tombstone, Change { event, moves: Vec::new() }).await?;
            return Ok(tombstone);
        }
        self.found(txn, id, &events::reservation_name(id)).await
    }

    async fn found(&self, txn: &Txn, id: Uuid, name: &str) -> Result<Reservation, Error> {
        self.locked(txn, id).await?.ok_or_else(|| Error::NotFound(name.to_owned()))
    }
}

/// The reservation that a command was told of.
fn reserved(told: &Answer) -> Result<String, Error> {
    let told: Result<api::Reservation, _> = told.replay();
    Ok(told.map_err(|status| Error::Again(Box::new(status)))?.name)
}

/// Moves the stock and publishes the event. The reservation's row took its revision before.
async fn tell(
    txn: &Txn,
    call: &Call<Reservation>,
    reservation: &Reservation,
    change: Change,
) -> Result<(), Error> {
    let Change { event, moves } = change;
    if !moves.is_empty() {
        let causes = [(reservation.id, moves)];
        apply(txn, &Because { causes: &causes, actor: &call.actor, at: call.at }).await?;
    }
    let fact = events::of_reservation(reservation, &event);
    let name = events::reservation_name(reservation.id);
    Ok(outbox::append(txn, &name, reservation.revision, fact, call.at).await?)
}
