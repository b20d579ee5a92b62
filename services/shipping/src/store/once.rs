//! A call has its effect once: repeated, it is told what it was told first.

use mesh::{
    barrier::{self, Begun, Command},
    idempotency::{self, Answer, Claim, Key, Refused},
    status,
    store::{Failure, Txn},
};
use prost::Message;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{domain::Refusal, error::Error};

/// What makes the attempts of a call one.
#[derive(Clone, Debug)]
pub enum Once {
    /// A saga says which of its steps calls.
    Command(Command),
    /// A saga says which of its steps is undone. The state of what it is about says what is left
    /// to do; the barrier bars the step if it comes late.
    Undo(Command),
    /// The caller gave the call an id.
    Request(Key),
    /// Nothing: each attempt is a call of its own.
    Never,
}

/// What is known of a call that comes in.
pub(super) enum Begin {
    /// Nothing: this is its first attempt.
    First,
    /// It was answered.
    Answered(Answer),
    /// It was begun, and what came of it is not known: the state of what it is about says.
    HalfWay,
}

/// How the answer of a command is kept.
#[derive(Clone, PartialEq, Message)]
struct Told {
    #[prost(bytes = "vec", tag = "1")]
    response: Vec<u8>,
}

// === impl Once ===

impl Once {
    /// The first statement of a transaction. An attempt that comes while another is at work waits
    /// here.
    pub(super) async fn begin(
        &self,
        txn: &Txn,
        id: Uuid,
        at: OffsetDateTime,
    ) -> Result<Begin, Error> {
        match self {
            Self::Command(command) => match barrier::begin_do(txn, command).await? {
                Begun::First => Ok(Begin::First),
                Begun::Repeated(told) => Ok(Begin::Answered(decoded(&told)?)),
                Begun::Undone => Err(Error::refused(id)(Refusal::Undone)),
            },
            Self::Undo(command) => {
                barrier::begin_undo(txn, command).await?;
                Ok(Begin::First)
            }
            Self::Request(key) => match idempotency::claim_running(txn, key, at).await? {
                Claim::First => Ok(Begin::First),
                Claim::Repeated => match idempotency::stored(txn, key).await {
                    Ok(Some(answer)) => Ok(Begin::Answered(answer)),
                    Ok(None) | Err(Refused::InProgress) => Ok(Begin::HalfWay),
                    Err(refused) => Err(refused.into()),
                },
            },
            Self::Never => Ok(Begin::First),
        }
    }

    /// The last statement of the transaction: keeps the answer. A refusal of a request is kept as
    /// well; one of a command is passed on, and rolls the transaction back: nothing was done, so
    /// its saga may ask again. What may end otherwise next time is passed on in any case.
    pub(super) async fn end(
        &self,
        txn: &Txn,
        decided: Result<Answer, Error>,
    ) -> Result<Answer, Error> {
        match self {
            Self::Command(command) => {
                let answer = decided?;
                barrier::finish_do(txn, command, &encoded(&answer)).await?;
                Ok(answer)
            }
            Self::Undo(_) => decided,
            Self::Request(Key { principal, method, request_id, .. }) => {
                let answer = settled(decided)?;
                idempotency::finish(txn, principal, method, *request_id, &answer).await?;
                Ok(answer)
            }
            Self::Never => decided,
        }
    }
}

/// What was decided, as an answer to keep; or the error, if that is none.
fn settled(decided: Result<Answer, Error>) -> Result<Answer, Error> {
    match decided {
        Err(error) if error.is_answer() => Answer::refusal(&status::of(&error)).ok_or(error),
        decided => decided,
    }
}

fn encoded(answer: &Answer) -> Vec<u8> {
    let response = match answer {
        Answer::Success(response) => response.clone(),
        // A refusal rolls the barrier back: it is never kept.
        Answer::Refusal { .. } => Vec::new(),
    };
    Told { response }.encode_to_vec()
}

fn decoded(told: &[u8]) -> Result<Answer, Failure> {
    let told = Told::decode(told)
        .map_err(|error| Failure::new("read the answer of a command", error.to_string()))?;
    Ok(Answer::Success(told.response))
}
