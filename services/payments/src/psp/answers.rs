//! What the provider says, as JSON.

use serde_json::{Value, json};

use super::domain::{Capture, Entry, Hold, Movement, Refused, Status, is_retriable};

/// An authorization, with where its customer goes below `base`.
#[must_use]
pub fn authorization(hold: &Hold, base: &str) -> Value {
    let status = hold.outcome();
    let action = hold.action.as_ref().filter(|_| status == Status::ActionRequired);
    let code = hold.decline_code.as_deref();
    json!({
        "id": hold.id,
        "reference": hold.reference,
        "status": name(status),
        "amount": hold.amount.minor,
        "currency": hold.amount.currency.code(),
        "decline_code": code,
        "retriable": code.is_some_and(is_retriable),
        "action_url": action.map(|action| format!("{base}/v1/actions/{action}")),
        "expires_at": hold.expires_at.unix_timestamp(),
    })
}

/// An authorization as it is now, with what was done with it.
#[must_use]
pub fn current(hold: &Hold, base: &str) -> Value {
    let mut answer = authorization(hold, base);
    if let Some(fields) = answer.as_object_mut() {
        fields.insert("status".to_owned(), name(hold.status).into());
        fields.insert("authorized".to_owned(), hold.authorized.into());
        fields.insert("captured".to_owned(), hold.captured.into());
    }
    answer
}

/// A capture.
#[must_use]
pub fn capture(id: &str, reference: &str, hold: &Hold, taken: &Entry, last: bool) -> Value {
    json!({
        "id": id,
        "authorization": hold.id,
        "reference": reference,
        "status": "captured",
        "amount": taken.amount.minor,
        "currency": taken.amount.currency.code(),
        "fee": taken.fee,
        "final": last,
    })
}

/// A void.
#[must_use]
pub fn void(reference: &str, hold: &Hold, released: i64) -> Value {
    json!({
        "id": hold.id,
        "reference": reference,
        "status": "voided",
        "released": released,
        "currency": hold.amount.currency.code(),
    })
}

/// A refund, or that there is none.
#[must_use]
pub fn refund(
    id: &str,
    reference: &str,
    capture: &Capture,
    minor: i64,
    decline_code: Option<&str>,
) -> Value {
    json!({
        "id": id,
        "capture": capture.id,
        "authorization": capture.hold,
        "reference": reference,
        "status": if decline_code.is_some() { "declined" } else { "refunded" },
        "amount": minor,
        "currency": capture.amount.currency.code(),
        "decline_code": decline_code,
        "retriable": decline_code.is_some_and(is_retriable),
    })
}

/// Why a request was not carried out.
#[must_use]
pub fn problem(code: &str, message: &str) -> Value {
    json!({"error": {"code": code, "message": message}})
}

/// The status code and body of what cannot be done.
#[must_use]
pub fn refused(refused: Refused) -> (u16, Value) {
    let (status, message) = match refused {
        Refused::NotFound => (404, "there is no such authorization or capture"),
        Refused::NotAuthorized => (409, "the authorization is not, or no longer, authorized"),
        Refused::Exceeds => (422, "no more can be taken than is left"),
        Refused::ExceedsCapture => {
            (422, "no more can be given back than is left of what was taken")
        }
        Refused::Expired => (409, "the authorization has expired"),
    };
    (status, problem(&refused.to_string(), message))
}

/// How a movement of money is called.
#[must_use]
pub fn movement(movement: Movement) -> &'static str {
    match movement {
        Movement::Authorized => "authorized",
        Movement::Captured => "captured",
        Movement::Released => "released",
        Movement::Refunded => "refunded",
    }
}

/// How a status is called, in answers and in rows.
#[must_use]
pub fn name(status: Status) -> &'static str {
    match status {
        Status::Pending => "pending",
        Status::ActionRequired => "action_required",
        Status::Authorized => "authorized",
        Status::Declined => "declined",
        Status::Voided => "voided",
        Status::Captured => "captured",
    }
}
