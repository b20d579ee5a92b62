//! Messages become values, or say which field is wrong.

use std::fmt::Display;

use mesh::{auth::Caller, barrier, money::Money, resource};
use proto::{google::r#type, payments::v1 as api, saga::v1 as saga};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    domain::{Method, Outcome, Payment, Refund, Source},
    error::Error,
};

/// The longest step key, evidence and reason, in characters.
const STEP_KEY_MAX: usize = 64;
const EVIDENCE_MAX: usize = 500;
const REASON_MAX: usize = 500;

/// A `payments/{uuid}`.
pub(super) fn name(name: &str) -> Result<Uuid, Error> {
    resource::parse_uuid("payments", name).map_err(in_field("name"))
}

/// The payment that a list is restricted to, as it is kept in rows.
pub(super) fn only(name: &str) -> Result<Option<String>, Error> {
    if name.is_empty() {
        return Ok(None);
    }
    let id = resource::parse_uuid("payments", name).map_err(in_field("payment"))?;
    Ok(Some(id.to_string()))
}

/// The step of a saga that calls.
pub(super) fn command(command: Option<saga::Command>) -> Result<barrier::Command, Error> {
    let command = command.ok_or_else(|| Error::malformed("command", "must be given"))?;
    let saga = Uuid::parse_str(&command.saga).map_err(in_field("command.saga"))?;
    said(&command.step_key, STEP_KEY_MAX, "command.step_key")?;
    Ok(barrier::Command {
        saga: saga.to_string(),
        step_key: command.step_key,
        command_id: Uuid::parse_str(&command.command_id).map_err(in_field("command.command_id"))?,
        fence: command.fence,
    })
}

/// A payment to be.
pub(super) fn payment(
    id: &str,
    payment: Option<api::Payment>,
    at: OffsetDateTime,
) -> Result<Payment, Error> {
    let id = Uuid::parse_str(id).map_err(in_field("payment_id"))?;
    let payment = payment.ok_or_else(|| Error::malformed("payment", "must be given"))?;
    resource::parse_uuid("orders", &payment.order).map_err(in_field("payment.order"))?;
    resource::parse_uuid("users", &payment.customer).map_err(in_field("payment.customer"))?;
    let field = "payment.amount";
    let amount = payment.amount.ok_or_else(|| Error::malformed(field, "must be given"))?;
    let amount = self::amount(&amount, field)?;
    let method = Method::parse(&payment.payment_method);
    let method = method.map_err(in_field("payment.payment_method"))?;
    Ok(Payment::new(id, payment.order, payment.customer, amount, method, at))
}

/// The name of a refund.
pub(super) fn refund_name(name: &str) -> Result<Uuid, Error> {
    resource::parse_uuid("refunds", name).map_err(in_field("name"))
}

/// A refund to be, with the payment that it is of; `id` names it if the request does not.
pub(super) fn refund(
    request: &api::CreateRefundRequest,
    saga: String,
    id: Uuid,
    at: OffsetDateTime,
) -> Result<(Uuid, Refund), Error> {
    let id = match request.refund_id.as_str() {
        "" => id,
        given => Uuid::parse_str(given).map_err(in_field("refund_id"))?,
    };
    let refund = request.refund.as_ref();
    let refund = refund.ok_or_else(|| Error::malformed("refund", "must be given"))?;
    let payment = resource::parse_uuid("payments", &refund.payment);
    let payment = payment.map_err(in_field("refund.payment"))?;
    let field = "refund.amount";
    let amount = refund.amount.as_ref();
    let amount =
        self::amount(amount.ok_or_else(|| Error::malformed(field, "must be given"))?, field)?;
    let reason = refund.reason.trim().to_owned();
    said(&reason, REASON_MAX, "refund.reason")?;
    Ok((payment, Refund { id, amount, reason, saga, created_at: at }))
}

/// More than nothing.
pub(super) fn amount(money: &r#type::Money, field: &'static str) -> Result<Money, Error> {
    let amount = Money::from_parts(&money.currency_code, money.units, money.nanos);
    let amount = amount.map_err(in_field(field))?;
    if amount.minor > 0 { Ok(amount) } else { Err(Error::malformed(field, "must be positive")) }
}

/// A token, if one is given.
pub(super) fn method(token: &str, field: &'static str) -> Result<Option<Method>, Error> {
    if token.is_empty() {
        return Ok(None);
    }
    Method::parse(token).map(Some).map_err(in_field(field))
}

/// The id of a request that may be repeated.
pub(super) fn request_id(text: &str) -> Result<Option<Uuid>, Error> {
    resource::parse_request_id(text).map_err(in_field("request_id"))
}

/// The revision that an etag stands for.
pub(super) fn etag(etag: &str) -> Result<i64, Error> {
    let revision = resource::parse_etag(etag);
    revision.ok_or_else(|| Error::malformed("etag", "must be the etag of the payment"))
}

/// What a person found out, and how.
pub(super) fn outcome(
    request: &api::ResolvePaymentRequest,
    caller: &Caller,
) -> Result<(Outcome, Source), Error> {
    use api::resolve_payment_request::Outcome as Told;
    let evidence = request.evidence.trim();
    said(evidence, EVIDENCE_MAX, "evidence")?;
    // The form that tokens have; it becomes part of a path at the provider.
    let provider_id = method(&request.provider_id, "provider_id")?;
    let provider_id = provider_id.map(|id| id.as_str().to_owned());
    let told = Told::try_from(request.outcome).map_err(in_field("outcome"))?;
    let code = "resolved_by_a_person".to_owned();
    let outcome = match told {
        Told::Unspecified => return Err(Error::malformed("outcome", "must be given")),
        Told::Succeeded => Outcome::done(provider_id),
        Told::Declined => Outcome::Declined { code, retriable: false },
        Told::Failed => Outcome::Failed { code },
    };
    Ok((outcome, Source::Review(format!("{}: {evidence}", caller.subject))))
}

/// Something in words, at most so many characters.
fn said(text: &str, max: usize, field: &'static str) -> Result<(), Error> {
    // PostgreSQL keeps no NUL in a text.
    if (1..=max).contains(&text.chars().count()) && !text.contains('\0') {
        return Ok(());
    }
    Err(Error::malformed(field, format!("must be 1 to {max} characters, none NUL")))
}

fn in_field<E: Display>(field: &'static str) -> impl Fn(E) -> Error {
    move |problem| Error::malformed(field, problem)
}
