//! A call has its effect once: repeated, it is told what it was told first.

use mesh::{
    barrier::{self, Begun, Command},
    idempotency::{self, Answer, Claim, Key},
    status,
    store::{Failure, Txn},
};
use prost::Message;
use time::OffsetDateTime;

use super::broken;
use crate::{domain::reservation::Authority, error::Error};

/// What makes the attempts of a call one.
#[derive(Clone, Debug)]
pub enum Once {
    /// A saga says which of its steps calls.
    Command(Command),
    /// The caller gave the call an id.
    Request(Key),
    /// Nothing: each attempt is a call of its own.
    Never,
}

/// How the answer of a command is kept.
#[derive(Clone, PartialEq, Message)]
struct Told {
    /// 0 for a success, which is then in `response`.
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(bytes = "vec", tag = "3")]
    details: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    response: Vec<u8>,
}

// === impl Once ===

impl Once {
    /// On whose authority the call changes a reservation.
    pub(super) fn authority(&self) -> Authority<'_> {
        match self {
            Self::Command(command) => Authority::Saga(&command.saga),
            Self::Request(_) | Self::Never => Authority::Person,
        }
    }

    /// The first statement of a transaction: the answer that the call was given before, if this
    /// is not its first attempt. An attempt that comes while another is at work waits here.
    pub(super) async fn begin(
        &self,
        txn: &Txn,
        name: &str,
        at: OffsetDateTime,
    ) -> Result<Option<Answer>, Error> {
        match self {
            Self::Command(command) => match barrier::begin_do(txn, command).await? {
                Begun::First => Ok(None),
                Begun::Repeated(told) => Ok(Some(decoded(&told)?)),
                Begun::Undone => Err(Error::Undone(name.to_owned())),
            },
            Self::Request(key) => match idempotency::claim_running(txn, key, at).await? {
                Claim::First => Ok(None),
                Claim::Repeated => match idempotency::stored(txn, key).await? {
                    Some(answer) => Ok(Some(answer)),
                    None => Err(Error::RequestId(idempotency::Refused::InProgress)),
                },
            },
            Self::Never => Ok(None),
        }
    }

    /// The last statement of the transaction: keeps the answer. A refusal of a request is kept as
    /// well; one of a command is passed on, and rolls the transaction back: nothing was done, so
    /// its saga may ask again, for less, and an undo leaves a tombstone. What may end otherwise
    /// next time is passed on in any case.
    pub(super) async fn end(
        &self,
        txn: &Txn,
        decided: Result<Answer, Error>,
    ) -> Result<Answer, Error> {
        let answer = match self {
            Self::Command(_) => decided?,
            Self::Request(_) | Self::Never => settled(decided)?,
        };
        match self {
            Self::Command(command) => barrier::finish_do(txn, command, &encoded(&answer)).await?,
            Self::Request(Key { principal, method, request_id, .. }) => {
                idempotency::finish(txn, principal, method, *request_id, &answer).await?;
            }
            Self::Never => {}
        }
        Ok(answer)
    }
}

/// What was decided, as an answer to keep; or the error, if that is none.
fn settled(decided: Result<Answer, Error>) -> Result<Answer, Error> {
    match decided {
        Err(error) if error.is_answer() => Answer::refusal(&status::of(&error)).ok_or(error),
        decided => decided,
    }
}

pub(super) fn encoded(answer: &Answer) -> Vec<u8> {
    let told = match answer.clone() {
        Answer::Success(response) => Told { response, ..Told::default() },
        Answer::Refusal { code, message, details } => {
            Told { code, message, details, response: Vec::new() }
        }
    };
    told.encode_to_vec()
}

pub(super) fn decoded(told: &[u8]) -> Result<Answer, Failure> {
    let told = Told::decode(told).map_err(|error| {
        tracing::error!(%error, "the answer of a command does not decode");
        broken("answer")
    })?;
    let Told { code, message, details, response } = told;
    Ok(match code {
        0 => Answer::Success(response),
        code => Answer::Refusal { code, message, details },
    })
}
