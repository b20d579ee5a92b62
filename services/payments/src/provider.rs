//! The payment provider: what it is asked, and how its answers, and their absence, are read.
//!
//! It is called outside of any transaction: nothing in here knows that there is a store.

use std::time::Duration;

use futures_util::future::BoxFuture;
use mesh::{
    Policy,
    bug::Bug,
    client::{
        breaker::Rule,
        http::{Failure, Http},
        timeout,
    },
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::domain::{Attempt, Kind, Outcome};

/// A payment provider. What it is sent under one key it does once.
pub trait Provider: Send + Sync + 'static {
    /// Sends an attempt, or sends it again under the same key. Whatever is not a clear answer is
    /// [`Outcome::Unknown`].
    fn send<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, Outcome>;

    /// Asks what became of an attempt, by our reference. `None`: the provider has never seen it.
    fn ask<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, Option<Outcome>>;
}

/// A provider that speaks JSON over HTTP/1.1, as the simulator does.
#[derive(Clone, Debug)]
pub struct HttpProvider {
    http: Http,
    timeout: Duration,
}

/// What is asked for; absent fields are left out.
#[derive(Debug, Serialize)]
struct Ask<'a> {
    reference: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    #[serde(rename = "final", skip_serializing_if = "Option::is_none")]
    last: Option<bool>,
}

/// What the provider says about one thing that it was asked.
#[derive(Debug, Deserialize)]
struct Answer {
    id: String,
    status: Status,
    amount: Option<i64>,
    decline_code: Option<String>,
    #[serde(default)]
    retriable: bool,
    action_url: Option<String>,
    expires_at: Option<i64>,
    #[serde(default)]
    fee: i64,
    released: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Authorized,
    Declined,
    ActionRequired,
    Pending,
    Captured,
    Voided,
    Refunded,
}

/// What the provider says when it refuses the request itself.
#[derive(Debug, Deserialize)]
struct Problem {
    error: ProblemCode,
}

#[derive(Debug, Deserialize)]
struct ProblemCode {
    code: String,
}

/// Everything that the provider was asked under one reference.
#[derive(Debug, Deserialize)]
struct Operations {
    operations: Vec<Operation>,
}

#[derive(Debug, Deserialize)]
struct Operation {
    status_code: u16,
    answer: serde_json::Value,
}

/// What it is called among our upstreams.
pub const NAME: &str = "payment-provider";

// === impl HttpProvider ===

impl HttpProvider {
    /// The provider at `base`, as `http://host:port`. It is tried once: only the resolver repeats.
    #[must_use]
    pub fn new(base: &str, policy: Policy) -> Self {
        let timeout = policy.timeout.unwrap_or_else(timeout::external);
        Self { http: Http::new(base).guarded(NAME, policy), timeout }
    }

    async fn post(&self, attempt: &Attempt) -> Outcome {
        let Some((path, ask)) = request(attempt) else {
            // Never sent: no authorization or capture is known that it could be about.
            return Outcome::Failed { code: "no_authorization".to_owned() };
        };
        let Ok(body) = serde_json::to_vec(&ask) else { return Outcome::Unknown };
        let mut headers = http::HeaderMap::new();
        let mut key = attempt.reference.clone();
        if Bug::NewProviderKey.is_seeded() {
            key.extend(["/", &mesh::clock::id().to_string()]);
        }
        let Ok(key) = key.parse() else { return Outcome::Unknown };
        headers.insert("idempotency-key", key);
        let method = http::Method::POST;
        match self.http.call(method, &path, headers, body.into(), self.timeout).await {
            Ok((status, body)) => read(attempt, status.as_u16(), &body),
            Err(failure) => unanswered(attempt, &failure),
        }
    }

    async fn get(&self, attempt: &Attempt) -> Option<Outcome> {
        // A reference is made of letters, digits, `/` and `-`: it stands in a query as it is.
        let path = format!("/v1/operations?reference={}", attempt.reference);
        let (method, headers) = (http::Method::GET, http::HeaderMap::new());
        let body = bytes::Bytes::new();
        match self.http.call(method, &path, headers, body, self.timeout).await {
            Ok((status, body)) if status == http::StatusCode::OK => {
                let Ok(found) = serde_json::from_slice::<Operations>(&body) else {
                    return Some(Outcome::Unknown);
                };
                let operation = found.operations.first()?;
                let answer = operation.answer.to_string();
                Some(read(attempt, operation.status_code, answer.as_bytes()))
            }
            Ok(_unexpected) => Some(Outcome::Unknown),
            Err(failure) => Some(unanswered(attempt, &failure)),
        }
    }
}

impl Provider for HttpProvider {
    fn send<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, Outcome> {
        Box::pin(self.post(attempt))
    }

    fn ask<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, Option<Outcome>> {
        Box::pin(self.get(attempt))
    }
}

/// How a provider is called that gets `timeout` to answer.
#[must_use]
pub fn policy(timeout: Duration) -> Policy {
    // Few customers pay at a time, and three whose cards it cannot handle are no reason to leave it
    // alone for half a minute, as the preset would: what hangs for all is found out by this as well.
    let breaker = Rule::default();
    Policy { timeout: Some(timeout), breaker, ..Policy::external() }
}

/// Where an attempt is sent to, and what it says.
fn request(attempt: &Attempt) -> Option<(String, Ask<'_>)> {
    let reference = attempt.reference.as_str();
    let amount = Some(attempt.amount.minor);
    let nothing = Ask { reference, amount: None, currency: None, token: None, last: None };
    Some(match attempt.kind {
        Kind::Authorize => {
            let currency = Some(attempt.amount.currency.code());
            let token = Some(attempt.method.as_str());
            ("/v1/authorizations".to_owned(), Ask { amount, currency, token, ..nothing })
        }
        Kind::Capture => {
            let path = format!("/v1/authorizations/{}/captures", attempt.target.as_deref()?);
            (path, Ask { amount, last: Some(attempt.last), ..nothing })
        }
        Kind::Void => (format!("/v1/authorizations/{}/void", attempt.target.as_deref()?), nothing),
        Kind::Refund => {
            let path = format!("/v1/captures/{}/refunds", attempt.target.as_deref()?);
            (path, Ask { amount, ..nothing })
        }
    })
}

/// What an answer means for an attempt. Unclear is unknown: the money may have moved.
fn read(attempt: &Attempt, status: u16, body: &[u8]) -> Outcome {
    let code = || {
        let problem = serde_json::from_slice::<Problem>(body).ok();
        problem.map_or_else(|| format!("http_{status}"), |problem| problem.error.code)
    };
    match status {
        200..=299 => match serde_json::from_slice::<Answer>(body) {
            Ok(answer) => outcome(attempt, answer),
            Err(error) => {
                tracing::warn!(%error, "an answer to {} cannot be read", attempt.reference);
                Outcome::Unknown
            }
        },
        402 => Outcome::Declined { code: code(), retriable: false },
        // The first of two equal requests is still being worked on.
        409 if code() == "request_in_progress" => Outcome::Unknown,
        422 if code() == "idempotency_key_reused" => {
            let reference = &attempt.reference;
            tracing::error!(reference, "the provider has another request under {reference}");
            Outcome::Unknown
        }
        400 | 404 | 405 | 409 | 410 | 413 | 415 | 422 => Outcome::Failed { code: code() },
        // Not understood, not allowed now, overloaded or broken: it says nothing about the effect.
        _ => {
            tracing::warn!(status, "the provider answered {status} to {}", attempt.reference);
            Outcome::Unknown
        }
    }
}

fn outcome(attempt: &Attempt, answer: Answer) -> Outcome {
    let is_name = |id: &str| {
        let known = |letter: char| letter.is_ascii_alphanumeric() || "_-.".contains(letter);
        !id.is_empty() && id.len() <= 128 && id.chars().all(known)
    };
    let differs = answer.amount.is_some_and(|amount| amount != attempt.amount.minor);
    if !is_name(&answer.id) || (differs && attempt.kind != Kind::Void) {
        tracing::error!("the provider answers {} with another amount or name", attempt.reference);
        return Outcome::Unknown;
    }
    match (attempt.kind, answer.status) {
        (Kind::Authorize, Status::Authorized) => Outcome::Succeeded {
            provider_id: Some(answer.id),
            expires_at: answer.expires_at.and_then(instant),
            fee: 0,
            released: None,
        },
        (Kind::Authorize, Status::ActionRequired) => Outcome::ActionRequired {
            provider_id: answer.id,
            url: answer.action_url.unwrap_or_default(),
        },
        (Kind::Authorize, Status::Pending) => Outcome::Pending { provider_id: answer.id },
        // It was given back before it was decided.
        (Kind::Authorize, Status::Voided) => {
            Outcome::Failed { code: crate::domain::VOIDED.to_owned() }
        }
        (_, Status::Declined) => Outcome::Declined {
            code: answer.decline_code.unwrap_or_else(|| "declined".to_owned()),
            retriable: answer.retriable,
        },
        (Kind::Capture, Status::Captured) => Outcome::Succeeded {
            provider_id: Some(answer.id),
            expires_at: None,
            fee: answer.fee,
            released: None,
        },
        (Kind::Void, Status::Voided) => Outcome::Succeeded {
            provider_id: None,
            expires_at: None,
            fee: 0,
            released: answer.released,
        },
        (Kind::Refund, Status::Refunded) => Outcome::done(None),
        (Kind::Authorize, Status::Captured | Status::Refunded)
        | (Kind::Capture, Status::Authorized | Status::Voided | Status::Refunded)
        | (Kind::Void, Status::Authorized | Status::Captured | Status::Refunded)
        | (Kind::Refund, Status::Authorized | Status::Captured | Status::Voided)
        | (Kind::Capture | Kind::Void | Kind::Refund, Status::ActionRequired | Status::Pending) => {
            Outcome::Unknown
        }
    }
}

fn instant(seconds: i64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(seconds).ok()
}

fn unanswered(attempt: &Attempt, failure: &Failure) -> Outcome {
    tracing::warn!(%failure, "no answer to {}", attempt.reference);
    if Bug::UnknownMeansFailed.is_seeded() {
        return Outcome::Failed { code: "no_answer".to_owned() };
    }
    Outcome::Unknown
}

#[cfg(test)]
mod tests {
    use mesh::money::{Currency, Money};
    use uuid::Uuid;

    use super::*;
    use crate::domain::Started;

    fn attempt(kind: Kind) -> Attempt {
        let started = Started { id: Uuid::nil(), at: OffsetDateTime::UNIX_EPOCH };
        let amount = Money::new(1_250, Currency::parse("EUR").unwrap());
        Attempt::new(started, Uuid::nil(), kind, 1, amount)
    }

    #[test]
    fn what_is_not_a_clear_answer_is_unknown() {
        for (status, body) in [
            (200, "{}"),
            (200, "not json"),
            (200, r#"{"id":"a","status":"odd"}"#),
            (200, r#"{"id":"a","status":"captured"}"#),
            (200, r#"{"id":"../void","status":"authorized"}"#),
            (200, r#"{"id":"a","status":"authorized","amount":1}"#),
            (401, ""),
            (408, ""),
            (409, r#"{"error":{"code":"request_in_progress"}}"#),
            (422, r#"{"error":{"code":"idempotency_key_reused"}}"#),
            (429, ""),
            (500, r#"{"id":"a","status":"authorized"}"#),
            (503, ""),
            (302, ""),
        ] {
            let read = read(&attempt(Kind::Authorize), status, body.as_bytes());
            assert_eq!(read, Outcome::Unknown, "{status} {body}");
        }
    }

    #[test]
    fn a_clear_answer_is_read_for_what_was_asked() {
        let failed = |code: &str| Outcome::Failed { code: code.to_owned() };
        let declined =
            |code: &str, retriable| Outcome::Declined { code: code.to_owned(), retriable };
        for (kind, status, body, outcome) in [
            (
                Kind::Authorize,
                201,
                r#"{"id":"a","status":"authorized","amount":1250}"#,
                Outcome::done(Some("a".to_owned())),
            ),
            (
                Kind::Authorize,
                201,
                r#"{"id":"a","status":"declined","decline_code":"fraud"}"#,
                declined("fraud", false),
            ),
            (
                Kind::Authorize,
                201,
                r#"{"id":"a","status":"pending"}"#,
                Outcome::Pending { provider_id: "a".to_owned() },
            ),
            (Kind::Authorize, 402, r#"{"error":{"code":"no"}}"#, declined("no", false)),
            (Kind::Authorize, 400, "", failed("http_400")),
            (Kind::Void, 404, r#"{"error":{"code":"not_found"}}"#, failed("not_found")),
            (
                Kind::Capture,
                201,
                r#"{"id":"c","status":"captured","amount":1250,"fee":19}"#,
                Outcome::Succeeded {
                    provider_id: Some("c".to_owned()),
                    expires_at: None,
                    fee: 19,
                    released: None,
                },
            ),
            (
                Kind::Refund,
                201,
                r#"{"id":"r","status":"refunded","amount":1250}"#,
                Outcome::done(None),
            ),
            (
                Kind::Refund,
                201,
                r#"{"id":"r","status":"declined","decline_code":"expired_card"}"#,
                declined("expired_card", false),
            ),
            (Kind::Refund, 201, r#"{"id":"r","status":"captured"}"#, Outcome::Unknown),
            (
                Kind::Void,
                200,
                r#"{"id":"a","status":"voided","amount":0,"released":1250}"#,
                Outcome::Succeeded {
                    provider_id: None,
                    expires_at: None,
                    fee: 0,
                    released: Some(1_250),
                },
            ),
        ] {
            assert_eq!(read(&attempt(kind), status, body.as_bytes()), outcome, "{status} {body}");
        }
    }

    #[test]
    fn only_an_authorization_can_be_sent_without_one() {
        assert!(request(&attempt(Kind::Authorize)).is_some());
        assert!(request(&attempt(Kind::Capture)).is_none());
        assert!(request(&attempt(Kind::Void)).is_none());
        assert!(request(&attempt(Kind::Refund)).is_none());
    }
}
