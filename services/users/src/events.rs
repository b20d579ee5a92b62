//! What is published: each event of the domain as a message of the contract.

use mesh::outbox::Fact;
use prost::Name;
use prost_types::Any;
use proto::users::v1 as api;
use time::OffsetDateTime;

use crate::domain::{Event, Field, State, User};

/// The event as it leaves, with the account as it is after it.
#[must_use]
pub fn published(user: &User, event: &Event) -> Fact {
    match event {
        Event::Created { at } => fact(
            "user.created",
            &api::UserCreated {
                user: name(user),
                email: user.email.as_str().to_owned(),
                display_name: user.display_name.as_str().to_owned(),
                roles: user.roles.names(),
                create_time: Some(timestamp(*at)),
            },
        ),
        Event::Updated { fields, at } => fact(
            "user.updated",
            &api::UserUpdated {
                user: name(user),
                email: user.email.as_str().to_owned(),
                display_name: user.display_name.as_str().to_owned(),
                roles: user.roles.names(),
                state: state(user.state).into(),
                changed_fields: fields
                    .iter()
                    .copied()
                    .map(Field::as_str)
                    .map(str::to_owned)
                    .collect(),
                update_time: Some(timestamp(*at)),
            },
        ),
        Event::Deleted { at, purge_at } => fact(
            "user.deleted",
            &api::UserDeleted {
                user: name(user),
                delete_time: Some(timestamp(*at)),
                purge_time: Some(timestamp(*purge_at)),
            },
        ),
    }
}

/// The name of an account, which is also the aggregate of its events.
#[must_use]
pub fn name(user: &User) -> String {
    format!("users/{}", user.id)
}

/// A state as the contract spells it.
#[must_use]
pub fn state(state: State) -> api::user::State {
    match state {
        State::Active => api::user::State::Active,
        State::Disabled => api::user::State::Disabled,
        State::Deleted => api::user::State::Deleted,
    }
}

/// A time as the contract spells it.
#[must_use]
pub fn timestamp(at: OffsetDateTime) -> prost_types::Timestamp {
    // Below a second there are less than 10^9 nanoseconds: always fits.
    let nanos = i32::try_from(at.nanosecond()).unwrap_or_default();
    prost_types::Timestamp { seconds: at.unix_timestamp(), nanos }
}

fn fact<M: Name>(kind: &'static str, message: &M) -> Fact {
    Fact { kind, data: Any { type_url: M::type_url(), value: message.encode_to_vec() } }
}
