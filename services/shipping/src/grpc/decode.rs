//! Messages become values, or say which field is wrong.

use std::{collections::HashSet, fmt::Display};

use mesh::{barrier, resource};
use proto::{google::r#type::PostalAddress, saga::v1 as saga, shipping::v1 as api};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    domain::{Address, CancelReason, Line, Plan, Sign},
    error::Error,
    store::Noted,
};

const LINES_MAX: usize = 100;
const LINE_ID_MAX: usize = 64;
const QUANTITY_MAX: i32 = 1_000_000;
const STEP_KEY_MAX: usize = 64;
const TEXT_MAX: usize = 200;
const TEXTS_MAX: usize = 10;

/// A `shipments/{uuid}`.
pub(super) fn name(name: &str) -> Result<Uuid, Error> {
    resource::parse_uuid("shipments", name).map_err(in_field("name"))
}

/// The last part of a name.
pub(super) fn id(field: &'static str, id: &str) -> Result<Uuid, Error> {
    resource::parse_uuid("shipments", &format!("shipments/{id}"))
        .map_err(|_malformed| Error::malformed(field, "must be a UUID in lower case with hyphens"))
}

/// The order that a list is restricted to.
pub(super) fn optional_order(name: &str) -> Result<Option<String>, Error> {
    if name.is_empty() {
        return Ok(None);
    }
    resource::parse_uuid("orders", name).map_err(in_field("order"))?;
    Ok(Some(name.to_owned()))
}

/// What is to be sent.
pub(super) fn plan(shipment: Option<&api::Shipment>) -> Result<Plan, Error> {
    let shipment = shipment.ok_or_else(|| Error::malformed("shipment", "must be given"))?;
    resource::parse_uuid("orders", &shipment.order).map_err(in_field("shipment.order"))?;
    resource::parse_uuid("users", &shipment.customer).map_err(in_field("shipment.customer"))?;
    resource::parse_id("locations", &shipment.location).map_err(in_field("shipment.location"))?;
    Ok(Plan {
        order: shipment.order.clone(),
        customer: shipment.customer.clone(),
        location: shipment.location.clone(),
        lines: lines(&shipment.lines)?,
        ship_to: shipment.ship_to.as_ref().map(address).transpose()?,
    })
}

fn lines(lines: &[api::shipment::Line]) -> Result<Vec<Line>, Error> {
    let field = "shipment.lines";
    if !(1..=LINES_MAX).contains(&lines.len()) {
        return Err(Error::malformed(field, format!("must be 1 to {LINES_MAX} lines")));
    }
    let mut ids = HashSet::new();
    let line = |(index, line): (usize, &api::shipment::Line)| {
        let wrong = |part: &str, problem: String| {
            Err(Error::malformed(format!("{field}[{index}].{part}"), problem))
        };
        if !is_key(&line.line_id, LINE_ID_MAX) {
            return wrong("line_id", key_problem(LINE_ID_MAX));
        }
        if !ids.insert(line.line_id.clone()) {
            return wrong("line_id", "is the id of another line".to_owned());
        }
        if let Err(malformed) = resource::parse_id("variants", &line.variant) {
            return wrong("variant", malformed.to_string());
        }
        if !(1..=QUANTITY_MAX).contains(&line.quantity) {
            return wrong("quantity", format!("must be 1 to {QUANTITY_MAX}"));
        }
        let (id, variant) = (line.line_id.clone(), line.variant.clone());
        Ok(Line { id, variant, quantity: line.quantity })
    };
    lines.iter().enumerate().map(line).collect()
}

fn address(address: &PostalAddress) -> Result<Address, Error> {
    let code = &address.region_code;
    if code.len() != 2 || !code.bytes().all(|b| b.is_ascii_uppercase()) {
        let problem = "must be two letters, such as `DE`";
        return Err(Error::malformed("shipment.ship_to.region_code", problem));
    }
    let wrong =
        |field: &str, problem| Error::malformed(format!("shipment.ship_to.{field}"), problem);
    let text = |field: &str, text: &str| {
        // PostgreSQL keeps no NUL in a text.
        if text.chars().count() <= TEXT_MAX && !text.contains('\0') {
            return Ok(text.to_owned());
        }
        Err(wrong(field, format!("must have at most {TEXT_MAX} characters, none of them zero")))
    };
    let texts = |field: &str, texts: &[String]| {
        if texts.len() > TEXTS_MAX {
            return Err(wrong(field, format!("must have at most {TEXTS_MAX} entries")));
        }
        texts.iter().map(|entry| text(field, entry)).collect::<Result<Vec<_>, _>>()
    };
    Ok(Address {
        region_code: code.clone(),
        language_code: text("language_code", &address.language_code)?,
        postal_code: text("postal_code", &address.postal_code)?,
        sorting_code: text("sorting_code", &address.sorting_code)?,
        administrative_area: text("administrative_area", &address.administrative_area)?,
        locality: text("locality", &address.locality)?,
        sublocality: text("sublocality", &address.sublocality)?,
        address_lines: texts("address_lines", &address.address_lines)?,
        recipients: texts("recipients", &address.recipients)?,
        organization: text("organization", &address.organization)?,
    })
}

/// Why a shipment is to be cancelled.
pub(super) fn reason(reason: i32) -> Result<CancelReason, Error> {
    match api::CancelReason::try_from(reason) {
        Ok(api::CancelReason::Unspecified | api::CancelReason::OrderCancelled) => {
            Ok(CancelReason::OrderCancelled)
        }
        Ok(api::CancelReason::GoodsUnavailable) => Ok(CancelReason::GoodsUnavailable),
        Ok(api::CancelReason::CarrierRefused) => {
            Err(Error::malformed("reason", "must be one that a caller can know"))
        }
        Err(_unknown) => Err(Error::malformed("reason", "must be one of the reasons")),
    }
}

/// What somebody says that a carrier did.
pub(super) fn noted(
    request: &api::RecordCarrierEventRequest,
    at: OffsetDateTime,
) -> Result<Noted, Error> {
    use api::record_carrier_event_request::Kind;
    resource::parse_id("", &format!("/{}", request.event_id)).map_err(|_malformed| {
        Error::malformed("event_id", "must be 1 to 128 letters, digits and `-._~`")
    })?;
    let sign = match Kind::try_from(request.kind) {
        Ok(Kind::PickedUp) => Sign::PickedUp,
        Ok(Kind::InTransit) => Sign::InTransit,
        Ok(Kind::Delivered) => Sign::Delivered,
        Ok(Kind::Lost) => Sign::Lost,
        Ok(Kind::Returned) => Sign::Returned,
        Ok(Kind::Unspecified) | Err(_) => {
            return Err(Error::malformed("kind", "must be one of the kinds"));
        }
    };
    let occurred_at = match &request.occur_time {
        None => at,
        Some(told) => {
            let nanos = i128::from(told.seconds) * 1_000_000_000 + i128::from(told.nanos);
            OffsetDateTime::from_unix_timestamp_nanos(nanos).map_err(in_field("occur_time"))?
        }
    };
    Ok(Noted { event_id: request.event_id.clone(), sign, occurred_at })
}

/// Which step of a saga calls.
pub(super) fn command(command: &saga::Command) -> Result<barrier::Command, Error> {
    let uuid = |field: &'static str, text: &str| {
        Uuid::try_parse(text).map_err(|_error| Error::malformed(field, "must be a UUID"))
    };
    if !is_key(&command.step_key, STEP_KEY_MAX) {
        return Err(Error::malformed("command.step_key", key_problem(STEP_KEY_MAX)));
    }
    Ok(barrier::Command {
        saga: uuid("command.saga", &command.saga)?.to_string(),
        step_key: command.step_key.clone(),
        command_id: uuid("command.command_id", &command.command_id)?,
        fence: command.fence,
    })
}

/// The id of a request that may be repeated.
pub(super) fn request_id(text: &str) -> Result<Option<Uuid>, Error> {
    resource::parse_request_id(text).map_err(in_field("request_id"))
}

/// The revision that an etag stands for, if one is given.
pub(super) fn optional_etag(text: &str) -> Result<Option<i64>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    let revision = resource::parse_etag(text);
    let problem = "must be an etag as it was read, quotes included";
    revision.map(Some).ok_or_else(|| Error::malformed("etag", problem))
}

fn in_field<E: Display>(field: &'static str) -> impl Fn(E) -> Error {
    move |problem| Error::malformed(field, problem)
}

/// Whether a text can be the key of something that the caller numbers or names.
fn is_key(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

fn key_problem(max: usize) -> String {
    format!("must have 1 to {max} characters, no control characters")
}
