//! `DeadLettersService`: what operators see of dead letters, and do about them.

use std::{fmt, time::Duration};

use tonic::{Request, Response, Status};

use super::{Consumer, Filter, Letter, Parked, Replayed, store};
use crate::{
    clock::from_micros,
    ctx::Ctx,
    operator::{self, Error, actor, reason, timestamp},
    page::Pages,
    resource::parse_uuid,
    store::Store,
    wire::ordermesh::operator::v1::{
        DeadLetter, DiscardDeadLetterRequest, GetDeadLetterRequest, ListDeadLettersRequest,
        ListDeadLettersResponse, ReplayDeadLettersRequest, ReplayDeadLettersResponse,
        dead_letter::{Cause, State},
        dead_letters_service_server::DeadLettersService,
        replay_dead_letters_response::Result as Outcome,
    },
};

/// Serves the dead letters of every consumer of a process.
pub(crate) struct DeadLetters {
    consumers: Vec<Consumer>,
    store: Store,
    pages: Pages,
}

/// The most events that one call replays.
const MOST: usize = 1_000;

/// A replay ends this long before its call does.
const MARGIN: Duration = Duration::from_millis(500);

// === impl DeadLetters ===

impl DeadLetters {
    /// Of these consumers, whose cursors are all in `store`.
    pub(crate) fn new(consumers: Vec<Consumer>, store: Store, pages: Pages) -> Self {
        Self { consumers, store, pages }
    }

    async fn letter(&self, name: &str) -> Result<Letter, Error> {
        let id = parse_uuid("deadLetters", name).map_err(Error::name)?;
        let found = store::letter(self.store.reader(), &id.to_string()).await?;
        found.ok_or_else(|| Error::NotFound(name.to_owned()))
    }

    async fn list(
        &self,
        request: &ListDeadLettersRequest,
    ) -> Result<ListDeadLettersResponse, Error> {
        let state = match request.state() {
            State::Unspecified | State::Parked => "PARKED",
            State::Replayed => "REPLAYED",
            State::Discarded => "DISCARDED",
        };
        let parts = ["ListDeadLetters", state, &request.aggregate];
        let page = self.pages.page(request.page_size, &request.page_token, &parts)?;
        let filter = Filter {
            state: state.to_owned(),
            aggregate: request.aggregate.clone(),
            ..Filter::default()
        };
        let mut found = store::letters(&self.store, &filter, &page.after, page.size + 1).await?;
        let next_page_token = self.pages.cut(&page, &mut found, |letter| letter.id.clone());
        let dead_letters = found.iter().map(encode).collect::<Result<_, _>>()?;
        Ok(ListDeadLettersResponse { dead_letters, next_page_token })
    }

    async fn replay(
        &self,
        request: ReplayDeadLettersRequest,
    ) -> Result<ReplayDeadLettersResponse, Error> {
        let ReplayDeadLettersRequest { consumer, source, mut aggregate, name, dry_run } = request;
        let (mut consumer, mut source) = (consumer, source);
        if !name.is_empty() {
            let letter = self.letter(&name).await?;
            if letter.state != "PARKED" {
                return Err(Error::LetterState(letter.state));
            }
            (consumer, source, aggregate) = (letter.consumer, letter.source, letter.aggregate);
        }
        let filter = Filter { state: "PARKED".to_owned(), consumer, source, aggregate };
        let actor = actor()?;
        let mut results = Vec::new();
        for of in store::aggregates(&self.store, &filter, 1_000).await? {
            let Some(consumer) = self.consumer(&of) else { continue };
            if results.len() >= MOST || is_late() {
                break;
            }
            let done = if dry_run {
                consumer.rehearse(&of).await?
            } else {
                consumer.replay(&of, &actor, MOST - results.len()).await?
            };
            results.extend(done);
        }
        let replayed = results.iter().filter(|replayed| replayed.error.is_none()).count();
        let remaining = store::count(&self.store, &filter).await?;
        if !dry_run && replayed > 0 {
            tracing::info!(actor, replayed, remaining, "dead letters replayed");
        }
        Ok(ReplayDeadLettersResponse {
            results: results.into_iter().map(outcome).collect(),
            replayed_count: i32::try_from(replayed).unwrap_or(i32::MAX),
            remaining_count: i32::try_from(remaining).unwrap_or(i32::MAX),
        })
    }

    fn consumer(&self, of: &Parked) -> Option<&Consumer> {
        let is_its =
            |consumer: &&Consumer| consumer.name() == of.consumer && consumer.source() == of.source;
        self.consumers.iter().find(is_its)
    }

    async fn discard(&self, request: DiscardDeadLetterRequest) -> Result<DeadLetter, Error> {
        let reason = reason(&request.reason)?;
        let letter = self.letter(&request.name).await?;
        if letter.state == "REPLAYED" {
            return Err(Error::LetterState(letter.state));
        }
        let within = (letter.id, request.name.clone(), actor()?, reason);
        self.store
            .transaction(move |txn| {
                let (id, name, actor, reason) = within.clone();
                Box::pin(async move {
                    // Discarded already: it stays as it was said first.
                    if store::end(txn, &id, "DISCARDED", &actor, &reason).await? {
                        operator::note(txn, &actor, "DiscardDeadLetter", &name, &reason).await?;
                    }
                    Ok::<_, Error>(())
                })
            })
            .await?;
        for consumer in &self.consumers {
            consumer.measure().await;
        }
        let letter = self.letter(&request.name).await?;
        if letter.state == "REPLAYED" {
            Err(Error::LetterState(letter.state))
        } else {
            encode(&letter)
        }
    }
}

impl fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetters").field("consumers", &self.consumers).finish_non_exhaustive()
    }
}

#[tonic::async_trait]
impl DeadLettersService for DeadLetters {
    async fn list_dead_letters(
        &self,
        request: Request<ListDeadLettersRequest>,
    ) -> Result<Response<ListDeadLettersResponse>, Status> {
        Ok(Response::new(self.list(request.get_ref()).await?))
    }

    async fn get_dead_letter(
        &self,
        request: Request<GetDeadLetterRequest>,
    ) -> Result<Response<DeadLetter>, Status> {
        let letter = self.letter(&request.get_ref().name).await?;
        Ok(Response::new(encode(&letter)?))
    }

    async fn replay_dead_letters(
        &self,
        request: Request<ReplayDeadLettersRequest>,
    ) -> Result<Response<ReplayDeadLettersResponse>, Status> {
        Ok(Response::new(self.replay(request.into_inner()).await?))
    }

    async fn discard_dead_letter(
        &self,
        request: Request<DiscardDeadLetterRequest>,
    ) -> Result<Response<DeadLetter>, Status> {
        Ok(Response::new(self.discard(request.into_inner()).await?))
    }
}

/// Whether the call has hardly any time left.
fn is_late() -> bool {
    Ctx::current().is_some_and(|ctx| ctx.time_left() < MARGIN)
}

fn outcome(replayed: Replayed) -> Outcome {
    Outcome {
        dead_letter: ["deadLetters/", &replayed.id].concat(),
        r#type: replayed.kind,
        error: replayed.error.unwrap_or_default(),
    }
}

fn encode(letter: &Letter) -> Result<DeadLetter, Error> {
    let state = match &*letter.state {
        "PARKED" => State::Parked,
        "REPLAYED" => State::Replayed,
        "DISCARDED" => State::Discarded,
        _ => State::Unspecified,
    };
    let cause = match &*letter.cause {
        "PERMANENT" => Cause::Permanent,
        "BUG" => Cause::Bug,
        "BEHIND" => Cause::Behind,
        _ => Cause::Unspecified,
    };
    Ok(DeadLetter {
        name: ["deadLetters/", &letter.id].concat(),
        state: state.into(),
        consumer: letter.consumer.clone(),
        cause: cause.into(),
        error: letter.error.clone(),
        attempts: i32::try_from(letter.attempts).unwrap_or(i32::MAX),
        event: Some(letter.event()?),
        create_time: Some(timestamp(from_micros(letter.created_at))),
        update_time: Some(timestamp(from_micros(letter.updated_at))),
        actor: letter.actor.clone().unwrap_or_default(),
        reason: letter.reason.clone().unwrap_or_default(),
    })
}
