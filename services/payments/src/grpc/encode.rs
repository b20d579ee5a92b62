//! Values become messages.

use mesh::{money::Money, resource};
use proto::payments::v1 as api;
use uuid::Uuid;

use crate::{
    domain::{
        Account, Attempt, AttemptState, Kind, Movement, Overview, RefundOverview, RefundState,
        State,
    },
    events::{money, timestamp},
    store::Entry,
};

/// A payment.
pub(super) fn payment(payment: &Overview) -> api::Payment {
    let known = !payment.order.is_empty();
    let amount = |minor| known.then(|| money(Money::new(minor, payment.amount.currency)));
    api::Payment {
        name: format!("payments/{}", payment.id),
        order: payment.order.clone(),
        customer: payment.customer.clone(),
        state: state(payment.state).into(),
        amount: amount(payment.amount.minor),
        authorized: amount(payment.authorized),
        captured: amount(payment.captured),
        refunded: amount(payment.refunded),
        payment_method: payment.method.as_str().to_owned(),
        authorization_expire_time: payment.authorization_expires_at.map(timestamp),
        action_url: payment.action_url.clone().unwrap_or_default(),
        decline_code: payment.decline_code.clone().unwrap_or_default(),
        revision: payment.revision,
        create_time: Some(timestamp(payment.created_at)),
        update_time: Some(timestamp(payment.updated_at)),
        etag: resource::etag(payment.revision),
    }
}

/// An attempt.
pub(super) fn attempt(payment: Uuid, attempt: &Attempt) -> api::Attempt {
    use api::attempt::State as Told;
    let state = match attempt.state {
        AttemptState::Created => Told::Created,
        AttemptState::Sent => Told::Sent,
        AttemptState::Succeeded => Told::Succeeded,
        AttemptState::Declined => Told::Declined,
        AttemptState::Failed => Told::Failed,
        AttemptState::Unknown => Told::Unknown,
        AttemptState::ActionRequired => Told::ActionRequired,
        AttemptState::NeedsReview => Told::NeedsReview,
    };
    let kind = match attempt.kind {
        Kind::Authorize => api::attempt::Kind::Authorize,
        Kind::Capture => api::attempt::Kind::Capture,
        Kind::Void => api::attempt::Kind::Void,
        Kind::Refund => api::attempt::Kind::Refund,
    };
    api::Attempt {
        name: format!("attempts/{}", attempt.id),
        payment: format!("payments/{payment}"),
        kind: kind.into(),
        state: state.into(),
        amount: Some(money(attempt.amount)),
        reference: attempt.reference.clone(),
        provider_id: attempt.provider_id.clone().or(attempt.target.clone()).unwrap_or_default(),
        decline_code: attempt.decline_code.clone().unwrap_or_default(),
        retry_count: i32::try_from(attempt.tries).unwrap_or(i32::MAX),
        retry_time: attempt.next_try_at.map(timestamp),
        evidence: attempt.evidence.clone().unwrap_or_default(),
        create_time: Some(timestamp(attempt.created_at)),
        refund: attempt.refund.map(|id| format!("refunds/{id}")).unwrap_or_default(),
    }
}

/// A refund.
pub(super) fn refund(shown: &RefundOverview) -> api::Refund {
    use api::refund::State as Told;
    let state = match shown.state {
        RefundState::Pending => Told::Pending,
        RefundState::Succeeded => Told::Succeeded,
        RefundState::Failed => Told::Failed,
    };
    api::Refund {
        name: format!("refunds/{}", shown.refund.id),
        payment: format!("payments/{}", shown.payment),
        order: shown.order.clone(),
        amount: Some(money(shown.refund.amount)),
        reason: shown.refund.reason.clone(),
        state: state.into(),
        refunded: Some(money(Money::new(shown.refunded, shown.refund.amount.currency))),
        decline_code: shown.decline_code.clone().unwrap_or_default(),
        create_time: Some(timestamp(shown.refund.created_at)),
    }
}

/// A posting.
pub(super) fn entry(entry: &Entry) -> api::LedgerEntry {
    let movement = match entry.posting.movement {
        Movement::Authorized => api::ledger_entry::Movement::Authorized,
        Movement::Released => api::ledger_entry::Movement::Released,
        Movement::Captured => api::ledger_entry::Movement::Captured,
        Movement::RefundGranted => api::ledger_entry::Movement::RefundGranted,
        Movement::RefundGrantRevoked => api::ledger_entry::Movement::RefundGrantRevoked,
        Movement::Refunded => api::ledger_entry::Movement::Refunded,
    };
    let account = match entry.posting.account {
        Account::Customer => api::ledger_entry::Account::Customer,
        Account::Hold => api::ledger_entry::Account::Hold,
        Account::Receivable => api::ledger_entry::Account::Receivable,
        Account::Fees => api::ledger_entry::Account::Fees,
        Account::Payable => api::ledger_entry::Account::Payable,
    };
    api::LedgerEntry {
        name: format!("ledgerEntries/{}", entry.id),
        payment: format!("payments/{}", entry.payment),
        reference: entry.posting.reference.clone(),
        movement: movement.into(),
        account: account.into(),
        amount: Some(money(entry.posting.amount)),
        create_time: Some(timestamp(entry.at)),
    }
}

fn state(state: State) -> api::payment::State {
    use api::payment::State as Told;
    match state {
        State::Created => Told::Created,
        State::Authorizing => Told::Authorizing,
        State::ActionRequired => Told::ActionRequired,
        State::Authorized => Told::Authorized,
        State::InDoubt => Told::InDoubt,
        State::Failed => Told::Failed,
        State::Voided => Told::Voided,
        State::PartiallyCaptured => Told::PartiallyCaptured,
        State::Captured => Told::Captured,
        State::PartiallyRefunded => Told::PartiallyRefunded,
        State::Refunded => Told::Refunded,
    }
}
