//! Requests become values of the domain, or the path of the field that is wrong.

use std::collections::HashSet;

use mesh::{barrier, resource};
use prost_types::Duration as DurationMessage;
use proto::{inventory::v1 as api, saga::v1 as saga};
use time::Duration;
use uuid::Uuid;

use crate::{
    domain::{Adjustment, BadDelta, Place, Reason, Sku, allocation::Wanted, reservation::Part},
    error::Error,
};

const LINES_MAX: usize = 100;
const PARTS_MAX: usize = 1_000;
const LINE_ID_MAX: usize = 64;
const QUANTITY_MAX: i32 = 1_000_000;
const STEP_KEY_MAX: usize = 64;
const DISPLAY_NAME_MAX: usize = 200;
const NOTE_MAX: usize = 500;
const TTL_MAX: Duration = Duration::hours(24);

/// The stock that a name asks for: at one place, or everywhere.
pub(super) struct StockName {
    pub(super) sku: Sku,
    /// `None` for `-`.
    pub(super) place: Option<Place>,
}

pub(super) fn required<'m, T>(field: &str, message: Option<&'m T>) -> Result<&'m T, Error> {
    message.ok_or_else(|| Error::malformed(field, "is required"))
}

/// The id in a name such as `reservations/{uuid}`.
pub(super) fn uuid(field: &str, collection: &'static str, name: &str) -> Result<Uuid, Error> {
    resource::parse_uuid(collection, name).map_err(|error| Error::malformed(field, error))
}

/// The same where the field may be left out.
pub(super) fn optional_uuid(
    field: &str,
    collection: &'static str,
    name: &str,
) -> Result<Option<Uuid>, Error> {
    if name.is_empty() { Ok(None) } else { uuid(field, collection, name).map(Some) }
}

/// An id that the client chose, if it did.
pub(super) fn id(field: &str, text: &str) -> Result<Option<Uuid>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    resource::parse_uuid("reservations", &format!("reservations/{text}"))
        .map(Some)
        .map_err(|_error| Error::malformed(field, "must be a UUID in lower case with hyphens"))
}

/// The SKU in a name `variants/{sku}`.
pub(super) fn variant(field: impl Into<String>, name: &str) -> Result<Sku, Error> {
    match name.strip_prefix("variants/").map(Sku::parse) {
        Some(Ok(sku)) => Ok(sku),
        Some(Err(_)) | None => Err(Error::malformed(field, "must have the form `variants/{sku}`")),
    }
}

/// The place in a name `locations/{location}`.
pub(super) fn location(field: &str, name: &str) -> Result<Place, Error> {
    match name.strip_prefix("locations/").map(Place::parse) {
        Some(Ok(place)) => Ok(place),
        Some(Err(_)) | None => {
            Err(Error::malformed(field, "must have the form `locations/{location}`"))
        }
    }
}

pub(super) fn place(field: &str, text: &str) -> Result<Place, Error> {
    Place::parse(text).map_err(|bad| Error::malformed(field, bad))
}

/// A name `stocks/{location}~{sku}`; the location may be `-`.
pub(super) fn stock(field: impl Into<String>, name: &str) -> Result<StockName, Error> {
    let parsed =
        name.strip_prefix("stocks/").and_then(|id| id.split_once('~')).and_then(|(place, sku)| {
            let sku = Sku::parse(sku).ok()?;
            let place = if place == "-" { None } else { Some(Place::parse(place).ok()?) };
            Some(StockName { sku, place })
        });
    parsed.ok_or_else(|| Error::malformed(field, "must have the form `stocks/{location}~{sku}`"))
}

/// The same where the location must be one.
pub(super) fn stock_at(field: &str, name: &str) -> Result<(Place, Sku), Error> {
    match stock(field, name)? {
        StockName { sku, place: Some(place) } => Ok((place, sku)),
        StockName { place: None, .. } => Err(Error::malformed(field, "must name one location")),
    }
}

pub(super) fn display_name(text: &str) -> Result<String, Error> {
    let text = text.trim();
    let length = text.chars().count();
    if (1..=DISPLAY_NAME_MAX).contains(&length) && !text.chars().any(char::is_control) {
        return Ok(text.to_owned());
    }
    let problem = format!("must have 1 to {DISPLAY_NAME_MAX} characters");
    Err(Error::malformed("location.display_name", problem))
}

pub(super) fn note(text: &str) -> Result<String, Error> {
    // PostgreSQL keeps no NUL in a text.
    if text.chars().count() <= NOTE_MAX && !text.contains('\0') {
        return Ok(text.to_owned());
    }
    Err(Error::malformed("note", format!("must have at most {NOTE_MAX} characters, none NUL")))
}

pub(super) fn adjustment(delta: i64, reason: i32) -> Result<Adjustment, Error> {
    let reason = match api::AdjustmentReason::try_from(reason) {
        Ok(api::AdjustmentReason::Received) => Reason::Received,
        Ok(api::AdjustmentReason::Counted) => Reason::Counted,
        Ok(api::AdjustmentReason::Damaged) => Reason::Damaged,
        Ok(api::AdjustmentReason::Lost) => Reason::Lost,
        Ok(api::AdjustmentReason::Unspecified) | Err(_) => {
            return Err(Error::malformed("reason", "must be one of the reasons"));
        }
    };
    Adjustment::new(delta, reason).map_err(|bad: BadDelta| Error::malformed("delta", bad))
}

/// What is to be held.
pub(super) fn lines(lines: &[api::reservation::Line]) -> Result<Vec<Wanted>, Error> {
    let field = "reservation.lines";
    if !(1..=LINES_MAX).contains(&lines.len()) {
        return Err(Error::malformed(field, format!("must be 1 to {LINES_MAX} lines")));
    }
    let mut ids = HashSet::new();
    let line = |(index, line): (usize, &api::reservation::Line)| {
        let wrong = |part: &str, problem: String| {
            Err(Error::malformed(format!("{field}[{index}].{part}"), problem))
        };
        let id = line.line_id.clone();
        if !is_key(&id, LINE_ID_MAX) {
            return wrong("line_id", key_problem(LINE_ID_MAX));
        }
        if !ids.insert(id.clone()) {
            return wrong("line_id", "is the id of another line".to_owned());
        }
        let sku = variant(format!("{field}[{index}].variant"), &line.variant)?;
        if !(1..=QUANTITY_MAX).contains(&line.quantity) {
            return wrong("quantity", format!("must be 1 to {QUANTITY_MAX}"));
        }
        Ok(Wanted { line: id, sku, quantity: i64::from(line.quantity) })
    };
    lines.iter().enumerate().map(line).collect()
}

/// What has left, or come back: line, location and quantity of each.
pub(super) fn parts<'r>(
    lines: impl ExactSizeIterator<Item = (&'r String, &'r String, i32)>,
) -> Result<Vec<Part>, Error> {
    if !(1..=PARTS_MAX).contains(&lines.len()) {
        return Err(Error::malformed("lines", format!("must be 1 to {PARTS_MAX} lines")));
    }
    let part = |(index, (line, at, quantity)): (usize, (&String, &String, i32))| {
        let field = |name: &str| format!("lines[{index}].{name}");
        if !is_key(line, LINE_ID_MAX) {
            return Err(Error::malformed(field("line_id"), key_problem(LINE_ID_MAX)));
        }
        if !(1..=QUANTITY_MAX).contains(&quantity) {
            let problem = format!("must be 1 to {QUANTITY_MAX}");
            return Err(Error::malformed(field("quantity"), problem));
        }
        let place = location(&field("location"), at)?;
        Ok(Part { line: line.clone(), place, quantity: i64::from(quantity) })
    };
    lines.enumerate().map(part).collect()
}

/// Which step of a saga calls.
pub(super) fn command(command: &saga::Command) -> Result<barrier::Command, Error> {
    let uuid = |field: &str, text: &str| {
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

/// How long a hold is to last.
pub(super) fn ttl(ttl: Option<&DurationMessage>) -> Result<Duration, Error> {
    let DurationMessage { seconds, nanos } = *required("ttl", ttl)?;
    let fits =
        (0..1_000_000_000).contains(&nanos) && (1..=TTL_MAX.whole_seconds()).contains(&seconds);
    let ttl = Duration::new(seconds.clamp(0, TTL_MAX.whole_seconds()), nanos.max(0));
    if fits && ttl <= TTL_MAX {
        return Ok(ttl);
    }
    Err(Error::malformed("ttl", "must be 1 second to 24 hours"))
}

pub(super) fn request_id(text: &str) -> Result<Option<Uuid>, Error> {
    resource::parse_request_id(text).map_err(|error| Error::malformed("request_id", error))
}

pub(super) fn optional_etag(field: &str, text: &str) -> Result<Option<i64>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    resource::parse_etag(text)
        .map(Some)
        .ok_or_else(|| Error::malformed(field, "must be an etag as it was read, quotes included"))
}

/// Whether a text can be the key of something that the caller numbers or names.
fn is_key(text: &str, max: usize) -> bool {
    (1..=max).contains(&text.chars().count()) && !text.chars().any(char::is_control)
}

fn key_problem(max: usize) -> String {
    format!("must have 1 to {max} characters, no control characters")
}
