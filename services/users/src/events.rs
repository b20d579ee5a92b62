//! What is published: each event of the domain as a message of the contract.

use mesh::{clock::timestamp, outbox::Fact};
use proto::users::v1 as api;

use crate::domain::{Event, Field, State, User};

/// The event as it leaves, with the account as it is after it.
#[must_use]
pub fn published(user: &User, event: &Event) -> Fact {
    match event {
        Event::Created { at } => Fact::of(
            "user.created",
            &api::UserCreated {
                user: name(user),
                email: user.email.as_str().to_owned(),
                display_name: user.display_name.as_str().to_owned(),
                roles: user.roles.names(),
                create_time: Some(timestamp(*at)),
            },
        ),
        Event::Updated { fields, at } => Fact::of(
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
        Event::Deleted { at, purge_at } => Fact::of(
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
