//! Requests become values of the domain, or the path of the field that is wrong.

use mesh::{clock, money::Money, resource};
use prost_types::{FieldMask, Timestamp};
use proto::{catalog::v1 as api, google::r#type::Money as MoneyMessage};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    domain::{Amount, Description, Sku, Title},
    error::Error,
};

pub(super) fn required<'m, T>(field: &str, message: Option<&'m T>) -> Result<&'m T, Error> {
    message.ok_or_else(|| Error::malformed(field, "is required"))
}

/// The id in a name `products/{uuid}`.
pub(super) fn product(field: &str, name: &str) -> Result<Uuid, Error> {
    resource::parse_uuid("products", name).map_err(|error| Error::malformed(field, error))
}

/// The SKU in a name `variants/{sku}`.
pub(super) fn variant(field: impl Into<String>, name: &str) -> Result<Sku, Error> {
    match name.strip_prefix("variants/").map(Sku::parse) {
        Some(Ok(sku)) => Ok(sku),
        Some(Err(_)) | None => Err(Error::malformed(field, "must have the form `variants/{sku}`")),
    }
}

/// An id that the client chose, if it did.
pub(super) fn id(field: &str, text: &str) -> Result<Option<Uuid>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    resource::parse_uuid("products", &format!("products/{text}"))
        .map(Some)
        .map_err(|_error| Error::malformed(field, "must be a UUID in lower case with hyphens"))
}

pub(super) fn sku(field: &str, text: &str) -> Result<Sku, Error> {
    Sku::parse(text).map_err(|problem| Error::malformed(field, problem))
}

pub(super) fn title(field: &str, text: &str) -> Result<Title, Error> {
    Title::parse(text).map_err(|problem| Error::malformed(field, problem))
}

pub(super) fn description(text: &str) -> Result<Description, Error> {
    Description::parse(text).map_err(|problem| Error::malformed("product.description", problem))
}

pub(super) fn amount(field: &str, money: Option<&MoneyMessage>) -> Result<Amount, Error> {
    let MoneyMessage { currency_code, units, nanos } = required(field, money)?;
    let money = Money::from_parts(currency_code, *units, *nanos)
        .map_err(|error| Error::malformed(field, error))?;
    Amount::parse(money).map_err(|problem| Error::malformed(field, problem))
}

/// A time, cut to microseconds.
pub(super) fn time(field: &str, time: Option<&Timestamp>) -> Result<Option<OffsetDateTime>, Error> {
    let Some(Timestamp { seconds, nanos }) = time else { return Ok(None) };
    let wrong = || Error::malformed(field, "must be a time between the years 1970 and 9999");
    let nanos = i64::from(*nanos);
    if !(0..1_000_000_000).contains(&nanos) || !(0..=253_402_300_799).contains(seconds) {
        return Err(wrong());
    }
    Ok(Some(clock::from_micros(seconds * 1_000_000 + nanos / 1_000)))
}

pub(super) fn request_id(text: &str) -> Result<Option<Uuid>, Error> {
    resource::parse_request_id(text).map_err(|error| Error::malformed("request_id", error))
}

/// The revision that a required etag stands for.
pub(super) fn etag(field: &str, text: &str) -> Result<i64, Error> {
    optional_etag(field, text)?
        .ok_or_else(|| Error::malformed(field, "is required: read the resource first"))
}

pub(super) fn optional_etag(field: &str, text: &str) -> Result<Option<i64>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    resource::parse_etag(text)
        .map(Some)
        .ok_or_else(|| Error::malformed(field, "must be an etag as it was read, quotes included"))
}

/// What `UpdateProduct` changes.
pub(super) fn changed_product(
    product: &api::Product,
    mask: Option<&FieldMask>,
) -> Result<(Option<Title>, Option<Description>), Error> {
    let fields =
        [("title", !product.title.is_empty()), ("description", !product.description.is_empty())];
    let passed = ["name", "state", "create_time", "update_time", "delete_time", "etag"];
    let changed = masked(mask, &fields, &passed)?;
    let named = |name| changed.contains(&name);
    Ok((
        named("title").then(|| title("product.title", &product.title)).transpose()?,
        named("description").then(|| description(&product.description)).transpose()?,
    ))
}

/// What `UpdateVariant` changes.
pub(super) fn changed_variant(
    variant: &api::Variant,
    mask: Option<&FieldMask>,
) -> Result<Option<Title>, Error> {
    let fields = [("title", !variant.title.is_empty())];
    let passed = ["name", "price_version", "state", "create_time", "update_time", "etag"];
    let changed = masked(mask, &fields, &passed)?;
    let named = changed.contains(&"title");
    named.then(|| title("variant.title", &variant.title)).transpose()
}

/// The fields that a mask selects, of those that can be changed; without a mask, those that are
/// set. Output-only fields are passed over (AIP-161): a caller may send back what it read.
fn masked(
    mask: Option<&FieldMask>,
    fields: &[(&'static str, bool)],
    passed: &[&str],
) -> Result<Vec<&'static str>, Error> {
    let paths: Vec<&str> = mask.iter().flat_map(|mask| &mask.paths).map(String::as_str).collect();
    if matches!(paths[..], [] | ["*"]) {
        let all = !paths.is_empty();
        let chosen = fields.iter().filter(|(_, set)| all || *set);
        return Ok(chosen.map(|(name, _)| *name).collect());
    }
    let mut chosen = Vec::new();
    for path in paths {
        match fields.iter().find(|(name, _)| *name == path) {
            Some((name, _)) => chosen.push(*name),
            None if passed.contains(&path) => {}
            None => {
                let path: String = path.chars().take(40).collect();
                let problem = format!("names {path:?}, which cannot be changed here");
                return Err(Error::malformed("update_mask", problem));
            }
        }
    }
    Ok(chosen)
}
