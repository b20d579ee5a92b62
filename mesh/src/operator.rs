//! What operators see of a process and do about it: the services of `ordermesh.operator.v1`.
//!
//! Each process answers for itself. Dead letters are served beside what parks them, in `consume`.

pub(crate) mod audit;
mod error;
pub(crate) mod outbox;
pub(crate) mod sagas;
mod store;

use time::OffsetDateTime;

use crate::auth::Caller;

pub use audit::Table;
pub(crate) use error::Error;
pub(crate) use store::note;

/// How long a reason may be.
const REASON_MAX: usize = 1_000;

/// Who acts.
pub(crate) fn actor() -> Result<String, Error> {
    Ok(Caller::current()?.subject.to_string())
}

/// Why they do: something must be said.
pub(crate) fn reason(text: &str) -> Result<String, Error> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > REASON_MAX {
        let problem = "must have 1 to 1,000 characters".to_owned();
        return Err(Error::Malformed { field: "reason", problem });
    }
    Ok(text.to_owned())
}

pub(crate) fn timestamp(at: OffsetDateTime) -> prost_types::Timestamp {
    let nanos = i32::try_from(at.nanosecond()).unwrap_or_default();
    prost_types::Timestamp { seconds: at.unix_timestamp(), nanos }
}

#[cfg(test)]
mod tests;
