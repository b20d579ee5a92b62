//! What may happen to an account: values in, state and events or a refusal out.

pub mod values;
pub mod session;
pub mod keys;

use mesh::money::Money;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use self::values::{DisplayName, Email, PasswordHash, Role, Roles};

/// How long a deleted account can be brought back; then its personal data is erased.
pub const KEPT_AFTER_DELETION: Duration = Duration::days(30);

/// The account of a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The part of `users/{uuid}` that is the id.
    pub id: Uuid,
    /// What the person is called.
    pub display_name: DisplayName,
    /// Where mail reaches them, and what they sign in with.
    pub email: Email,
    /// What their password is checked against.
    pub password: PasswordHash,
    /// What they may do.
    pub roles: Roles,
    /// Where the account is in its life.
    pub state: State,
    /// The most that one order may come to.
    pub order_limit: Option<Money>,
    /// When the account was opened.
    pub created_at: OffsetDateTime,
    /// When it last changed.
    pub updated_at: OffsetDateTime,
    /// When it was deleted, while it is.
    pub deleted_at: Option<OffsetDateTime>,
}

/// Where an account is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// May sign in and order.
    Active,
    /// Barred by staff.
    Disabled,
    /// Closed, and purged later.
    Deleted,
}

/// What a new account is made of.
#[derive(Clone, Debug)]
pub struct Profile {
    /// What the person is called.
    pub display_name: DisplayName,
    /// Where mail reaches them.
    pub email: Email,
    /// What their password is checked against.
    pub password: PasswordHash,
}

/// What an update changes; `None` leaves a field as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Another name.
    pub display_name: Option<DisplayName>,
    /// Another e-mail address.
    pub email: Option<Email>,
    /// Another password.
    pub password: Option<PasswordHash>,
    /// Another limit, or none.
    pub order_limit: Option<Option<Money>>,
}

/// Who changes an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// The person whose account it is.
    Owner,
    /// Someone of the staff who is not admin.
    Support,
    /// Who may do everything.
    Admin,
}

/// What happened to an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It was opened.
    Created {
        /// When.
        at: OffsetDateTime,
    },
    /// Some of its fields changed.
    Updated {
        /// Which, in the order of [`Field`].
        fields: Vec<Field>,
        /// When.
        at: OffsetDateTime,
    },
    /// It was closed.
    Deleted {
        /// When.
        at: OffsetDateTime,
        /// When it can no longer be brought back.
        purge_at: OffsetDateTime,
    },
}

/// A field that can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The name.
    DisplayName,
    /// The e-mail address.
    Email,
    /// The password.
    Password,
    /// The limit of one order.
    OrderLimit,
    /// The roles.
    Roles,
    /// The state.
    State,
}

/// Why a rule said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not possible in the state that the account is in.
    #[error("the account is {0}")]
    State(State),
    /// Only staff may change this.
    #[error("only support and admin set an order limit")]
    StaffOnly,
    /// The account is of someone of the staff.
    #[error("only admin changes the account of someone of the staff")]
    AdminOnly,
}

// === impl User ===

impl User {
    /// Opens an account.
    #[must_use]
    pub fn open(
        id: Uuid,
        profile: Profile,
        roles: Roles,
        at: OffsetDateTime,
    ) -> (Self, Vec<Event>) {
        let Profile { display_name, email, password } = profile;
        let user = Self {
            id,
            display_name,
            email,
            password,
            roles,
            state: State::Active,
            order_limit: None,
            created_at: at,
            updated_at: at,
            deleted_at: None,
        };
        (user, vec![Event::Created { at }])
    }

    /// Whether `actor` may change this account. Support may not change accounts of the staff: a
    /// new password for an admin's would make an admin of whoever set it.
    ///
    /// # Errors
    /// [`Refusal::AdminOnly`].
    pub fn open_to(&self, actor: Actor) -> Result<(), Refusal> {
        match actor {
            Actor::Owner | Actor::Admin => Ok(()),
            Actor::Support if self.roles == customer() => Ok(()),
            Actor::Support => Err(Refusal::AdminOnly),
        }
    }

    /// Takes over what differs; changes that change nothing are no event.
    ///
    /// # Errors
    /// [`Refusal::State`] if the account is deleted, [`Refusal::StaffOnly`] if an owner changes
    /// their own limit.
    pub fn update(
        &mut self,
        changes: Changes,
        actor: Actor,
        at: OffsetDateTime,
    ) -> Result<Vec<Event>, Refusal> {
        match self.state {
            State::Active | State::Disabled => {}
            State::Deleted => return Err(Refusal::State(self.state)),
        }
        let limited = changes.order_limit.is_some_and(|limit| limit != self.order_limit);
        match actor {
            Actor::Owner if limited => return Err(Refusal::StaffOnly),
            Actor::Owner | Actor::Support | Actor::Admin => {}
        }
        let Changes { display_name, email, password, order_limit } = changes;
        let mut fields = Vec::new();
        replace(&mut self.display_name, display_name, Field::DisplayName, &mut fields);
        replace(&mut self.email, email, Field::Email, &mut fields);
        replace(&mut self.password, password, Field::Password, &mut fields);
        replace(&mut self.order_limit, order_limit, Field::OrderLimit, &mut fields);
        Ok(self.updated(fields, at))
    }

    /// Replaces the roles.
    ///
    /// # Errors
    /// [`Refusal::State`] if the account is deleted.
    pub fn set_roles(&mut self, roles: Roles, at: OffsetDateTime) -> Result<Vec<Event>, Refusal> {
        match self.state {
            State::Active | State::Disabled => {
                let mut fields = Vec::new();
                replace(&mut self.roles, Some(roles), Field::Roles, &mut fields);
                Ok(self.updated(fields, at))
            }
            State::Deleted => Err(Refusal::State(self.state)),
        }
    }

    /// Bars an active account.
    ///
    /// # Errors
    /// [`Refusal::State`] if it is not active.
    pub fn disable(&mut self, at: OffsetDateTime) -> Result<Vec<Event>, Refusal> {
        match self.state {
            State::Active => Ok(self.enter(State::Disabled, at)),
            State::Disabled | State::Deleted => Err(Refusal::State(self.state)),
        }
    }

    /// Lets a disabled account in again.
    ///
    /// # Errors
    /// [`Refusal::State`] if it is not disabled.
    pub fn enable(&mut self, at: OffsetDateTime) -> Result<Vec<Event>, Refusal> {
        match self.state {
            State::Disabled => Ok(self.enter(State::Active, at)),
            State::Active | State::Deleted => Err(Refusal::State(self.state)),
        }
    }

    /// Closes the account.
    ///
    /// # Errors
    /// [`Refusal::State`] if it is deleted already.
    pub fn delete(&mut self, at: OffsetDateTime) -> Result<Vec<Event>, Refusal> {
        match self.state {
            State::Active | State::Disabled => {
                self.state = State::Deleted;
                self.deleted_at = Some(at);
                self.updated_at = at;
                Ok(vec![Event::Deleted { at, purge_at: at + KEPT_AFTER_DELETION }])
            }
            State::Deleted => Err(Refusal::State(self.state)),
        }
    }

    /// Brings a deleted account back.
    ///
    /// # Errors
    /// [`Refusal::State`] if it is not deleted.
    pub fn undelete(&mut self, at: OffsetDateTime) -> Result<Vec<Event>, Refusal> {
        match self.state {
            State::Deleted => {
                self.deleted_at = None;
                Ok(self.enter(State::Active, at))
            }
            State::Active | State::Disabled => Err(Refusal::State(self.state)),
        }
    }

    /// When the personal data of a deleted account is erased.
    #[must_use]
    pub fn purge_at(&self) -> Option<OffsetDateTime> {
        self.deleted_at.map(|at| at + KEPT_AFTER_DELETION)
    }

    /// Whether the person may sign in.
    #[must_use]
    pub fn may_sign_in(&self) -> bool {
        match self.state {
            State::Active => true,
            State::Disabled | State::Deleted => false,
        }
    }

    fn enter(&mut self, state: State, at: OffsetDateTime) -> Vec<Event> {
        self.state = state;
        self.updated(vec![Field::State], at)
    }

    fn updated(&mut self, fields: Vec<Field>, at: OffsetDateTime) -> Vec<Event> {
        if fields.is_empty() {
            return Vec::new();
        }
        self.updated_at = at;
        vec![Event::Updated { fields, at }]
    }
}

// === impl Event ===

impl Event {
    /// Whether everyone who is signed in to the account must sign in anew.
    #[must_use]
    pub fn ends_sessions(&self) -> bool {
        match self {
            Self::Created { .. } => false,
            Self::Updated { fields, .. } => {
                fields.contains(&Field::Password) || fields.contains(&Field::State)
            }
            Self::Deleted { .. } => true,
        }
    }
}

// === impl State ===

impl State {
    /// As it is stored and told.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Disabled => "DISABLED",
            Self::Deleted => "DELETED",
        }
    }

    /// What [`State::as_str`] wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Active, Self::Disabled, Self::Deleted].into_iter().find(|s| s.as_str() == text)
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Field ===

impl Field {
    /// As it is spelled in the contract.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DisplayName => "display_name",
            Self::Email => "email",
            Self::Password => "password",
            Self::OrderLimit => "order_limit",
            Self::Roles => "roles",
            Self::State => "state",
        }
    }
}

/// The roles of an account that anyone may open.
#[must_use]
pub fn customer() -> Roles {
    Roles::of(Role::Customer)
}

fn replace<T: PartialEq>(old: &mut T, new: Option<T>, field: Field, fields: &mut Vec<Field>) {
    if let Some(new) = new.filter(|new| new != old) {
        *old = new;
        fields.push(field);
    }
}

#[cfg(test)]
mod tests;
