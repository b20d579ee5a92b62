//! Messages become values, or say which field is wrong.

use std::collections::BTreeSet;

use mesh::resource;
use prost_types::FieldMask;
use proto::notifications::v1::{self as api, notification as told};
use uuid::Uuid;

use crate::{domain::Kind, error::Error};

/// The id in a name `notifications/{uuid}`.
pub(super) fn notification(name: &str) -> Result<Uuid, Error> {
    resource::parse_uuid("notifications", name).map_err(|error| Error::malformed("name", error))
}

/// The order that a list is restricted to, if it is.
pub(super) fn order(name: &str) -> Result<Option<Uuid>, Error> {
    if name.is_empty() {
        return Ok(None);
    }
    let order = resource::parse_uuid("orders", name);
    order.map(Some).map_err(|error| Error::malformed("order", error))
}

/// The user in a name `preferences/{uuid}`.
pub(super) fn preferences(field: &str, name: &str) -> Result<Uuid, Error> {
    resource::parse_uuid("preferences", name).map_err(|error| Error::malformed(field, error))
}

pub(super) fn request_id(text: &str) -> Result<Option<Uuid>, Error> {
    resource::parse_request_id(text).map_err(|error| Error::malformed("request_id", error))
}

/// The revision that an etag stands for, if there is one.
pub(super) fn etag(text: &str) -> Result<Option<i64>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    let problem = "must be an etag as it was read, quotes included";
    let revision = resource::parse_etag(text);
    revision.map(Some).ok_or_else(|| Error::malformed("preferences.etag", problem))
}

/// What is to be muted from now on; `None` if the mask leaves that alone.
pub(super) fn muted(
    preferences: &api::Preferences,
    mask: Option<&FieldMask>,
) -> Result<Option<BTreeSet<Kind>>, Error> {
    let paths: Vec<&str> = mask.iter().flat_map(|mask| &mask.paths).map(String::as_str).collect();
    let mut named = paths.is_empty() && !preferences.muted_kinds.is_empty();
    for path in paths {
        match path {
            "*" | "muted_kinds" => named = true,
            // A caller may send back what it read (AIP-161).
            "name" | "update_time" | "etag" => {}
            path => {
                let path: String = path.chars().take(40).collect();
                let problem = format!("names {path:?}, which cannot be changed here");
                return Err(Error::malformed("update_mask", problem));
            }
        }
    }
    if !named {
        return Ok(None);
    }
    let kinds = preferences.muted_kinds.iter().enumerate().map(|(index, value)| {
        let kind = told::Kind::try_from(*value).ok().and_then(kind);
        let field = || format!("preferences.muted_kinds[{index}]");
        kind.ok_or_else(|| Error::malformed(field(), "is not a kind of notification"))
    });
    kinds.collect::<Result<_, _>>().map(Some)
}

fn kind(kind: told::Kind) -> Option<Kind> {
    match kind {
        told::Kind::Unspecified => None,
        told::Kind::OrderReceived => Some(Kind::OrderReceived),
        told::Kind::OrderConfirmed => Some(Kind::OrderConfirmed),
        told::Kind::OrderRejected => Some(Kind::OrderRejected),
        told::Kind::OrderCancelled => Some(Kind::OrderCancelled),
        told::Kind::OrderExpired => Some(Kind::OrderExpired),
        told::Kind::ShipmentDispatched => Some(Kind::ShipmentDispatched),
        told::Kind::ShipmentDelivered => Some(Kind::ShipmentDelivered),
    }
}
