//! Requests become values of the domain, or the path of the field that is wrong.

use mesh::{money::Money, resource};
use prost_types::FieldMask;
use proto::{google::r#type::Money as MoneyMessage, users::v1 as api};
use uuid::Uuid;

use crate::{
    domain::values::{DisplayName, Email, Password, Roles},
    error::Error,
};

/// The account that `CreateUser` opens.
pub(super) struct NewUser {
    pub(super) id: Option<Uuid>,
    pub(super) display_name: DisplayName,
    pub(super) email: Email,
    pub(super) password: Password,
}

/// What `UpdateUser` changes, before the password is hashed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Draft {
    pub(super) display_name: Option<DisplayName>,
    pub(super) email: Option<Email>,
    pub(super) password: Option<Password>,
    pub(super) order_limit: Option<Option<Money>>,
}

/// A field that a mask can name, and this rpc changes.
#[derive(Clone, Copy)]
enum Path {
    DisplayName,
    Email,
    Password,
    OrderLimit,
}

pub(super) fn new_user(request: &api::CreateUserRequest) -> Result<NewUser, Error> {
    let user = request.user.as_ref().ok_or_else(|| Error::malformed("user", "is required"))?;
    let id = match request.user_id.as_str() {
        "" => None,
        id => Some(name("user_id", &format!("users/{id}")).map_err(|_malformed| {
            Error::malformed("user_id", "must be a UUID in lower case with hyphens")
        })?),
    };
    if user.order_limit.is_some() {
        let problem = "is set by support and admin once the account exists";
        return Err(Error::malformed("user.order_limit", problem));
    }
    Ok(NewUser {
        id,
        display_name: display_name(user)?,
        email: email(user)?,
        password: password(user)?,
    })
}

pub(super) fn draft(user: &api::User, mask: Option<&FieldMask>) -> Result<Draft, Error> {
    let mut draft = Draft::default();
    for path in paths(user, mask)? {
        match path {
            Path::DisplayName => draft.display_name = Some(display_name(user)?),
            Path::Email => draft.email = Some(email(user)?),
            Path::Password => draft.password = Some(password(user)?),
            Path::OrderLimit => draft.order_limit = Some(order_limit(user)?),
        }
    }
    Ok(draft)
}

/// The id in a name `users/{uuid}`.
pub(super) fn name(field: &'static str, name: &str) -> Result<Uuid, Error> {
    resource::parse_uuid("users", name).map_err(|error| Error::malformed(field, error))
}

pub(super) fn roles(names: &[String]) -> Result<Roles, Error> {
    Roles::parse(names.iter().map(String::as_str))
        .map_err(|problem| Error::malformed("roles", problem))
}

/// The revision that an etag stands for, if there is one.
pub(super) fn etag(field: &'static str, etag: &str, needed: bool) -> Result<Option<i64>, Error> {
    match etag {
        "" if needed => Err(Error::malformed(field, "is required: read the user first")),
        "" => Ok(None),
        etag => resource::parse_etag(etag).map(Some).ok_or_else(|| {
            Error::malformed(field, "must be an etag as it was read, quotes included")
        }),
    }
}

pub(super) fn request_id(text: &str) -> Result<Option<Uuid>, Error> {
    resource::parse_request_id(text).map_err(|error| Error::malformed("request_id", error))
}

/// What a mask selects. Output-only fields are passed over (AIP-161): a caller may send back
/// what it read.
fn paths(user: &api::User, mask: Option<&FieldMask>) -> Result<Vec<Path>, Error> {
    let named: Vec<&str> = mask.iter().flat_map(|mask| &mask.paths).map(String::as_str).collect();
    let all = [
        (Path::DisplayName, !user.display_name.is_empty()),
        (Path::Email, !user.email.is_empty()),
        (Path::Password, !user.password.is_empty()),
        (Path::OrderLimit, user.order_limit.is_some()),
    ];
    match named[..] {
        [] => Ok(all.into_iter().filter_map(|(path, set)| set.then_some(path)).collect()),
        ["*"] => {
            let chosen = |(path, set)| (set || !matches!(path, Path::Password)).then_some(path);
            Ok(all.into_iter().filter_map(chosen).collect())
        }
        _ => named.into_iter().filter_map(|name| path(name).transpose()).collect(),
    }
}

fn path(name: &str) -> Result<Option<Path>, Error> {
    match name {
        "display_name" => Ok(Some(Path::DisplayName)),
        "email" => Ok(Some(Path::Email)),
        "password" => Ok(Some(Path::Password)),
        "order_limit" => Ok(Some(Path::OrderLimit)),
        "name" | "roles" | "state" | "create_time" | "update_time" | "delete_time"
        | "purge_time" | "etag" => Ok(None),
        other => {
            let other: String = other.chars().take(40).collect();
            let problem = format!("names {other:?}, which is not a field of a user");
            Err(Error::malformed("update_mask", problem))
        }
    }
}

fn display_name(user: &api::User) -> Result<DisplayName, Error> {
    DisplayName::parse(&user.display_name)
        .map_err(|problem| Error::malformed("user.display_name", problem))
}

fn email(user: &api::User) -> Result<Email, Error> {
    Email::parse(&user.email).map_err(|problem| Error::malformed("user.email", problem))
}

fn password(user: &api::User) -> Result<Password, Error> {
    Password::parse(&user.password).map_err(|problem| Error::malformed("user.password", problem))
}

fn order_limit(user: &api::User) -> Result<Option<Money>, Error> {
    let Some(MoneyMessage { currency_code, units, nanos }) = &user.order_limit else {
        return Ok(None);
    };
    let limit = Money::from_parts(currency_code, *units, *nanos)
        .map_err(|error| Error::malformed("user.order_limit", error))?;
    if limit.minor < 0 {
        return Err(Error::malformed("user.order_limit", "must not be negative"));
    }
    Ok(Some(limit))
}
