//! Rows: how payments, attempts and postings are kept, and read back.

mod refund;

use mesh::{
    clock::{from_micros, micros},
    money::{Currency, Money},
    store::Failure,
};
use sea_orm::{FromQueryResult, Value};
use uuid::Uuid;

use crate::domain::{
    Account, Attempt, AttemptState, Kind, Method, Movement, Overview, Payment, Posting, Refund,
    State,
};

pub(super) use refund::{REFUND, RefundRow, of_refund};

/// A row of `payment`.
#[derive(FromQueryResult)]
pub(super) struct PaymentRow {
    id: String,
    order_name: String,
    customer: String,
    state: String,
    amount_minor: i64,
    currency: String,
    method: String,
    authorized_minor: i64,
    captured_minor: i64,
    refunded_minor: i64,
    voided_at: Option<i64>,
    authorization_expires_at: Option<i64>,
    action_url: Option<String>,
    decline_code: Option<String>,
    revision: i64,
    created_at: i64,
    updated_at: i64,
}

/// A row of `attempt`, less its lease.
#[derive(FromQueryResult)]
pub(super) struct AttemptRow {
    id: String,
    payment: String,
    kind: String,
    n: i64,
    reference: String,
    state: String,
    amount_minor: i64,
    currency: String,
    last: bool,
    method: String,
    target: Option<String>,
    provider_id: Option<String>,
    decline_code: Option<String>,
    retriable: bool,
    action_url: Option<String>,
    tries: i64,
    next_try_at: Option<i64>,
    evidence: Option<String>,
    created_at: i64,
    refund: Option<String>,
}

/// A row of `ledger_entry`.
#[derive(FromQueryResult)]
pub(super) struct EntryRow {
    id: String,
    payment: String,
    reference: String,
    movement: String,
    account: String,
    amount_minor: i64,
    currency: String,
    at: i64,
}

/// A posting as the ledger holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: Uuid,
    /// Of which payment.
    pub payment: Uuid,
    /// What was posted.
    pub posting: Posting,
    /// When.
    pub at: time::OffsetDateTime,
}

/// The columns of [`PaymentRow`].
pub(super) const PAYMENT: &str = "id, order_name, customer, state, amount_minor, currency, method, \
     authorized_minor, captured_minor, refunded_minor, voided_at, authorization_expires_at, \
     action_url, decline_code, revision, created_at, updated_at";

/// The columns of [`AttemptRow`].
pub(super) const ATTEMPT: &str = "id, payment, kind, n, reference, state, amount_minor, currency, \
     last, method, target, provider_id, decline_code, retriable, action_url, tries, next_try_at, \
     evidence, created_at, refund";

/// The columns of [`EntryRow`].
pub(super) const ENTRY: &str =
    "id, payment, reference, movement, account, amount_minor, currency, at";

// === impl PaymentRow ===

impl PaymentRow {
    pub(super) fn overview(self) -> Result<Overview, Failure> {
        Ok(Overview {
            id: uuid(&self.id)?,
            order: self.order_name,
            customer: self.customer,
            state: known(&STATES, &self.state)?,
            amount: money(self.amount_minor, &self.currency)?,
            authorized: self.authorized_minor,
            captured: self.captured_minor,
            refunded: self.refunded_minor,
            method: Method::kept(self.method),
            authorization_expires_at: self.authorization_expires_at.map(from_micros),
            action_url: self.action_url,
            decline_code: self.decline_code,
            revision: self.revision,
            created_at: from_micros(self.created_at),
            updated_at: from_micros(self.updated_at),
        })
    }

    /// Whether it may have refunds: they are of what was taken.
    pub(super) fn is_taken(&self) -> bool {
        self.captured_minor > 0
    }

    pub(super) fn payment(
        self,
        attempts: Vec<Attempt>,
        refunds: Vec<Refund>,
    ) -> Result<Payment, Failure> {
        let voided_at = self.voided_at.map(from_micros);
        let row = self.overview()?;
        Ok(Payment {
            id: row.id,
            order: row.order,
            customer: row.customer,
            amount: row.amount,
            method: row.method,
            authorized: row.authorized,
            captured: row.captured,
            refunded: row.refunded,
            voided_at,
            authorization_expires_at: row.authorization_expires_at,
            attempts,
            refunds,
            revision: row.revision,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// The values of a payment, in the order of [`PAYMENT`].
pub(super) fn of_payment(payment: &Payment) -> Vec<Value> {
    let shown = payment.overview();
    vec![
        shown.id.to_string().into(),
        shown.order.into(),
        shown.customer.into(),
        text(&STATES, shown.state).into(),
        shown.amount.minor.into(),
        shown.amount.currency.code().into(),
        shown.method.as_str().into(),
        shown.authorized.into(),
        shown.captured.into(),
        shown.refunded.into(),
        payment.voided_at.map(micros).into(),
        shown.authorization_expires_at.map(micros).into(),
        shown.action_url.into(),
        shown.decline_code.into(),
        shown.revision.into(),
        micros(shown.created_at).into(),
        micros(shown.updated_at).into(),
    ]
}

// === impl AttemptRow ===

impl AttemptRow {
    pub(super) fn payment(&self) -> Result<Uuid, Failure> {
        uuid(&self.payment)
    }

    pub(super) fn attempt(self) -> Result<Attempt, Failure> {
        Ok(Attempt {
            id: uuid(&self.id)?,
            kind: known(&KINDS, &self.kind)?,
            n: count(self.n)?,
            reference: self.reference,
            state: known(&ATTEMPT_STATES, &self.state)?,
            amount: money(self.amount_minor, &self.currency)?,
            last: self.last,
            method: Method::kept(self.method),
            target: self.target,
            provider_id: self.provider_id,
            decline_code: self.decline_code,
            retriable: self.retriable,
            action_url: self.action_url,
            tries: count(self.tries)?,
            next_try_at: self.next_try_at.map(from_micros),
            evidence: self.evidence,
            created_at: from_micros(self.created_at),
            refund: self.refund.as_deref().map(uuid).transpose()?,
        })
    }
}

/// The values of an attempt, in the order of [`ATTEMPT`].
pub(super) fn of_attempt(payment: Uuid, attempt: &Attempt) -> Vec<Value> {
    let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    vec![
        attempt.id.to_string().into(),
        payment.to_string().into(),
        text(&KINDS, attempt.kind).into(),
        number(attempt.n).into(),
        attempt.reference.as_str().into(),
        text(&ATTEMPT_STATES, attempt.state).into(),
        attempt.amount.minor.into(),
        attempt.amount.currency.code().into(),
        attempt.last.into(),
        attempt.method.as_str().into(),
        attempt.target.clone().into(),
        attempt.provider_id.clone().into(),
        attempt.decline_code.clone().into(),
        attempt.retriable.into(),
        attempt.action_url.clone().into(),
        number(attempt.tries).into(),
        attempt.next_try_at.map(micros).into(),
        attempt.evidence.clone().into(),
        micros(attempt.created_at).into(),
        attempt.refund.map(|id| id.to_string()).into(),
    ]
}

// === impl EntryRow ===

impl EntryRow {
    pub(super) fn entry(self) -> Result<Entry, Failure> {
        Ok(Entry {
            id: uuid(&self.id)?,
            payment: uuid(&self.payment)?,
            posting: Posting {
                reference: self.reference,
                movement: known(&MOVEMENTS, &self.movement)?,
                account: known(&ACCOUNTS, &self.account)?,
                amount: money(self.amount_minor, &self.currency)?,
            },
            at: from_micros(self.at),
        })
    }
}

/// The values of a posting, in the order of [`ENTRY`].
pub(super) fn of_posting(id: Uuid, payment: Uuid, posting: &Posting, at: i64) -> Vec<Value> {
    vec![
        id.to_string().into(),
        payment.to_string().into(),
        posting.reference.as_str().into(),
        text(&MOVEMENTS, posting.movement).into(),
        text(&ACCOUNTS, posting.account).into(),
        posting.amount.minor.into(),
        posting.amount.currency.code().into(),
        at.into(),
    ]
}

const STATES: [(State, &str); 11] = [
    (State::Created, "CREATED"),
    (State::Authorizing, "AUTHORIZING"),
    (State::ActionRequired, "ACTION_REQUIRED"),
    (State::Authorized, "AUTHORIZED"),
    (State::InDoubt, "IN_DOUBT"),
    (State::Failed, "FAILED"),
    (State::Voided, "VOIDED"),
    (State::PartiallyCaptured, "PARTIALLY_CAPTURED"),
    (State::Captured, "CAPTURED"),
    (State::PartiallyRefunded, "PARTIALLY_REFUNDED"),
    (State::Refunded, "REFUNDED"),
];

const KINDS: [(Kind, &str); 4] = [
    (Kind::Authorize, "AUTHORIZE"),
    (Kind::Capture, "CAPTURE"),
    (Kind::Void, "VOID"),
    (Kind::Refund, "REFUND"),
];

const ATTEMPT_STATES: [(AttemptState, &str); 8] = [
    (AttemptState::Created, "CREATED"),
    (AttemptState::Sent, "SENT"),
    (AttemptState::Succeeded, "SUCCEEDED"),
    (AttemptState::Declined, "DECLINED"),
    (AttemptState::Failed, "FAILED"),
    (AttemptState::Unknown, "UNKNOWN"),
    (AttemptState::ActionRequired, "ACTION_REQUIRED"),
    (AttemptState::NeedsReview, "NEEDS_REVIEW"),
];

const MOVEMENTS: [(Movement, &str); 6] = [
    (Movement::Authorized, "AUTHORIZED"),
    (Movement::Released, "RELEASED"),
    (Movement::Captured, "CAPTURED"),
    (Movement::RefundGranted, "REFUND_GRANTED"),
    (Movement::RefundGrantRevoked, "REFUND_GRANT_REVOKED"),
    (Movement::Refunded, "REFUNDED"),
];

const ACCOUNTS: [(Account, &str); 5] = [
    (Account::Customer, "CUSTOMER"),
    (Account::Hold, "HOLD"),
    (Account::Receivable, "RECEIVABLE"),
    (Account::Fees, "FEES"),
    (Account::Payable, "PAYABLE"),
];

fn text<T: PartialEq>(names: &[(T, &'static str)], value: T) -> &'static str {
    names.iter().find(|(known, _)| *known == value).map_or("", |(_, name)| name)
}

fn known<T: Copy>(names: &[(T, &'static str)], text: &str) -> Result<T, Failure> {
    let found = names.iter().find(|(_, name)| *name == text).map(|(value, _)| *value);
    found.ok_or_else(|| unreadable(format!("`{text}` is not known")))
}

fn uuid(text: &str) -> Result<Uuid, Failure> {
    Uuid::parse_str(text).map_err(|error| unreadable(format!("`{text}`: {error}")))
}

fn money(minor: i64, currency: &str) -> Result<Money, Failure> {
    let currency = Currency::parse(currency).map_err(|error| unreadable(error.to_string()))?;
    Ok(Money::new(minor, currency))
}

fn count(number: i64) -> Result<usize, Failure> {
    usize::try_from(number).map_err(|error| unreadable(error.to_string()))
}

fn unreadable(problem: String) -> Failure {
    Failure::new("read a row", problem)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_state_has_a_name_of_its_own() {
        let names: BTreeSet<_> = STATES.iter().map(|(_, name)| name).collect();
        assert_eq!(names.len(), STATES.len());
        for (state, name) in STATES {
            assert_eq!((state.to_string().as_str(), text(&STATES, state)), (name, name));
        }
        let names: BTreeSet<_> = ATTEMPT_STATES.iter().map(|(_, name)| name).collect();
        assert_eq!(names.len(), ATTEMPT_STATES.len());
    }
}
