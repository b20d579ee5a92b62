//! The same request id gives the same answer.
//!
//! The first statement of the transaction that does the work inserts the key together with the
//! answer, success or refusal. So the first outcome that commits is the only one: there is no
//! moment between looking and acting, and no second commit.

use aws_lc_rs::digest::{SHA256, digest};
use prost::Message;
use sea_orm::{ConnectionTrait, FromQueryResult};
use time::OffsetDateTime;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::{
    bug::Bug,
    clock,
    store::{Failure, Txn, execute, row},
};

/// Whose attempt it is at what: two calls of one key are one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The customer on whose behalf, or who else calls.
    pub principal: String,
    /// The rpc's name.
    pub method: &'static str,
    /// Made by the caller and kept with its attempt.
    pub request_id: Uuid,
    fingerprint: [u8; 32],
}

/// What a call was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The encoded response.
    Success(Vec<u8>),
    /// A rule said no: it says so again, whatever has changed since.
    Refusal {
        /// The gRPC code.
        code: i32,
        /// For people.
        message: String,
        /// The encoded `google.rpc.Status`.
        details: Vec<u8>,
    },
}

/// Whether a key was inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// This is the first attempt: go on.
    First,
    /// Another one committed first: roll back by answering an error, then look at [`stored`].
    Repeated,
}

/// Why there is no stored answer to give.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refused {
    /// The id was used for another request: the caller needs a new one for what changed.
    #[error("the request id was used for another request")]
    Reused,
    /// The first attempt is still at work; try again in a moment.
    #[error("the first attempt of this request is still at work")]
    InProgress,
    /// The database could not be asked.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// How a refusal is kept.
#[derive(Clone, PartialEq, Message)]
struct StoredRefusal {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(bytes = "vec", tag = "3")]
    details: Vec<u8>,
}

#[derive(FromQueryResult)]
struct Row {
    fingerprint: Vec<u8>,
    state: String,
    response: Option<Vec<u8>>,
}

const RUNNING: &str = "RUNNING";
const DONE: &str = "DONE";
const REFUSED: &str = "REFUSED";

// === impl Key ===

impl Key {
    /// The key of a call. `request` is the request **without its request id**: its encoding, in
    /// order of field numbers, is what two attempts are compared by.
    pub fn new(
        principal: impl Into<String>,
        method: &'static str,
        request_id: Uuid,
        request: &impl Message,
    ) -> Self {
        let mut fingerprint = [0; 32];
        let hash = digest(&SHA256, &request.encode_to_vec());
        for (byte, hashed) in fingerprint.iter_mut().zip(hash.as_ref()) {
            *byte = *hashed;
        }
        Self { principal: principal.into(), method, request_id, fingerprint }
    }
}

// === impl Answer ===

impl Answer {
    /// The call succeeded with this response.
    pub fn success(response: &impl Message) -> Self {
        Self::Success(response.encode_to_vec())
    }

    /// A rule refused the call with this status; `None` if it is no answer to keep, because the
    /// same call may succeed later: what is `UNAVAILABLE`, `INTERNAL`, `DEADLINE_EXCEEDED`,
    /// `RESOURCE_EXHAUSTED`, `CANCELLED`, `UNKNOWN`, or `ABORTED` before the commit.
    #[must_use]
    pub fn refusal(status: &Status) -> Option<Self> {
        let passing = [
            Code::Ok,
            Code::Unavailable,
            Code::Internal,
            Code::DeadlineExceeded,
            Code::ResourceExhausted,
            Code::Cancelled,
            Code::Unknown,
            Code::Unauthenticated,
            Code::DataLoss,
        ];
        // `PRICE_CHANGED` and `ETAG_MISMATCH` are ABORTED too, and are answers; two writers who
        // met are not.
        let conflict = status.code() == Code::Aborted && {
            let info = crate::status::reason(status);
            info.is_none_or(|info| matches!(&*info.reason, "CONFLICT" | "REQUEST_IN_PROGRESS"))
        };
        if conflict || passing.contains(&status.code()) {
            return None;
        }
        Some(Self::Refusal {
            code: i32::from(status.code()),
            message: status.message().to_owned(),
            details: status.details().to_vec(),
        })
    }

    /// The answer as it was given the first time.
    ///
    /// # Errors
    /// The stored refusal; pass it on. `INTERNAL` if the stored response does not decode.
    pub fn replay<M: Message + Default>(&self) -> Result<M, Status> {
        match self {
            Self::Success(bytes) => M::decode(bytes.as_slice()).map_err(|error| {
                tracing::error!(%error, "a stored answer does not decode");
                Status::new(Code::Internal, "internal error")
            }),
            Self::Refusal { code, message, details } => Err(Status::with_details(
                Code::from(*code),
                message.clone(),
                details.clone().into(),
            )),
        }
    }

    fn columns(&self) -> (&'static str, Vec<u8>) {
        match self {
            Self::Success(bytes) => (DONE, bytes.clone()),
            Self::Refusal { code, message, details } => {
                let (message, details) = (message.clone(), details.clone());
                (REFUSED, StoredRefusal { code: *code, message, details }.encode_to_vec())
            }
        }
    }

    fn from_columns(state: &str, response: Vec<u8>) -> Result<Self, Failure> {
        if state == DONE {
            return Ok(Self::Success(response));
        }
        let stored = StoredRefusal::decode(response.as_slice())
            .map_err(|error| Failure::new(READ, format!("a refusal does not decode: {error}")))?;
        let StoredRefusal { code, message, details } = stored;
        Ok(Self::Refusal { code, message, details })
    }
}

const READ: &str = "read the answer of a request id";
const WRITE: &str = "keep the answer of a request id";

/// The answer of an earlier attempt, if there was one. Ask **before any look at live state**.
///
/// # Errors
/// [`Refused::Reused`]: INVALID_ARGUMENT `REQUEST_ID_REUSED`. [`Refused::InProgress`]: ABORTED
/// `REQUEST_IN_PROGRESS` with RetryInfo.
pub async fn stored<C: ConnectionTrait>(conn: &C, key: &Key) -> Result<Option<Answer>, Refused> {
    if Bug::SkipRequestKey.is_seeded() {
        return Ok(None);
    }
    let sql = "SELECT fingerprint, state, response FROM request_key \
               WHERE principal = $1 AND method = $2 AND request_id = $3";
    let values =
        vec![key.principal.as_str().into(), key.method.into(), key.request_id.to_string().into()];
    let Some(found) = row::<Row, _>(conn, READ, sql, values).await? else { return Ok(None) };
    if found.fingerprint != key.fingerprint {
        return Err(Refused::Reused);
    }
    match found.response {
        Some(response) if found.state != RUNNING => {
            Ok(Some(Answer::from_columns(&found.state, response)?))
        }
        Some(_) | None => Err(Refused::InProgress),
    }
}

/// Takes the key for this answer. The **first statement** of the transaction: what conflicts
/// waits here for the other one's outcome, before it has done anything.
///
/// # Errors
/// [`Failure`] of the database.
pub async fn claim(
    txn: &Txn,
    key: &Key,
    answer: &Answer,
    at: OffsetDateTime,
) -> Result<Claim, Failure> {
    let (state, response) = answer.columns();
    insert(txn, key, state, Some(response), at).await
}

/// Takes the key for work that goes on outside after this commit; [`finish`] gives its answer.
///
/// # Errors
/// [`Failure`] of the database.
pub async fn claim_running(txn: &Txn, key: &Key, at: OffsetDateTime) -> Result<Claim, Failure> {
    insert(txn, key, RUNNING, None, at).await
}

/// Gives the answer of a key that [`claim_running`] took; `false` if it has one already, which
/// then stands. The resolver knows the key without its request.
///
/// # Errors
/// [`Failure`] of the database.
pub async fn finish(
    txn: &Txn,
    principal: &str,
    method: &str,
    request_id: Uuid,
    answer: &Answer,
) -> Result<bool, Failure> {
    let (state, response) = answer.columns();
    let sql = "UPDATE request_key SET state = $1, response = $2 \
               WHERE principal = $3 AND method = $4 AND request_id = $5 AND state = 'RUNNING'";
    let values = vec![
        state.into(),
        response.into(),
        principal.into(),
        method.into(),
        request_id.to_string().into(),
    ];
    Ok(execute(txn, WRITE, sql, values).await? == 1)
}

async fn insert(
    txn: &Txn,
    key: &Key,
    state: &str,
    response: Option<Vec<u8>>,
    at: OffsetDateTime,
) -> Result<Claim, Failure> {
    let sql = "INSERT INTO request_key \
               (principal, method, request_id, fingerprint, state, response, at) \
               VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING";
    let values = vec![
        key.principal.as_str().into(),
        key.method.into(),
        key.request_id.to_string().into(),
        key.fingerprint.to_vec().into(),
        state.into(),
        response.into(),
        clock::micros(at).into(),
    ];
    let inserted = execute(txn, WRITE, sql, values).await?;
    Ok(if inserted == 1 || Bug::SkipRequestKey.is_seeded() {
        Claim::First
    } else {
        Claim::Repeated
    })
}

#[cfg(test)]
mod tests;
