//! Who calls, and may they.
//!
//! A token is verified once in every process ([`token`]) against the keys of the issuer
//! ([`jwks`]); whether its bearer may call is said by the contract ([`rule`]). What is left to
//! a handler is the owner of a row: it asks [`Caller::owns`] or [`Caller::scope`], and an
//! answer given without having asked fails.

use std::sync::Arc;

use http::{HeaderMap, header};

use crate::ctx::Ctx;

pub mod jwks;
pub mod rule;
pub mod sign_in;
pub mod token;

pub use jwks::{Jwk, Keys};
pub use rule::{Rule, Rules};
pub use sign_in::SignIn;

/// The header in which a process hands on the token of the customer it works for.
pub const ON_BEHALF_OF: &str = "mesh-on-behalf-of";

/// The role of those who buy: they reach what is theirs.
pub const CUSTOMER: &str = "customer";

/// Who calls. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// `users/{uuid}` or `services/{name}`.
    pub subject: Arc<str>,
    /// What the subject is, such as `customer` or `service:orders`.
    pub roles: Arc<[String]>,
    /// The user for whom a service calls.
    pub on_behalf_of: Option<Arc<str>>,
    /// The user's own token, to be handed on.
    pub(crate) token: Option<Arc<str>>,
    /// Whether the rule of this call lets the caller reach what others own.
    pub(crate) sees_all: bool,
}

/// What a list may show to its caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every row.
    All,
    /// The rows of this owner.
    Own(Arc<str>),
}

/// The caller may not do this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// What is asked for belongs to someone else, or may not be known to exist.
    #[error("this is not yours, or does not exist")]
    NotYours,
    /// The rule of the rpc names other roles or services.
    #[error("{0} may not call this")]
    Role(Arc<str>),
    /// The rpc has no rule: nobody may call it.
    #[error("nobody may call this")]
    NoRule,
    /// There is no such rpc.
    #[error("there is no such rpc here")]
    NoMethod,
    /// Nobody said who calls.
    #[error("it is not known who calls")]
    Nobody,
}

/// Why a token does not say who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenProblem {
    /// There is none.
    #[error("a token is needed: `authorization: Bearer …`")]
    Missing,
    /// It is not a JWT of ours.
    #[error("the token is malformed")]
    Malformed,
    /// It was one.
    #[error("the token has expired")]
    Expired,
    /// Its signature, issuer, audience or times are wrong.
    #[error("the token is not valid")]
    Invalid,
    /// It cannot be checked now: the issuer's keys cannot be had.
    #[error("tokens cannot be checked now")]
    KeysUnavailable,
}

/// Verifies tokens and applies the rules of the contract. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Auth {
    rules: Arc<Rules>,
    verifier: token::Verifier,
}

// === impl Auth ===

impl Auth {
    pub(crate) fn new(rules: Rules, keys: Keys) -> Self {
        Self { rules: Arc::new(rules), verifier: token::Verifier::new(keys) }
    }

    /// Says who a token was issued to.
    ///
    /// # Errors
    /// Why it does not say so; only [`TokenProblem::KeysUnavailable`] may pass by waiting.
    pub async fn verify(&self, token: &str) -> Result<Caller, TokenProblem> {
        self.verifier.verify(token).await
    }

    /// Whether a call is a service's, as far as is known already: its token was verified before.
    /// Where nobody can be verified everybody may be one.
    pub(crate) fn is_known_service(&self, headers: &HeaderMap) -> bool {
        let known = |token| self.verifier.is_known_service(token);
        self.verifier.knows_nobody() || bearer(headers).and_then(Result::ok).is_some_and(known)
    }

    /// The rule of the method at `path`, as `/package.Service/Method`.
    #[must_use]
    pub fn rule(&self, path: &str) -> Option<&Rule> {
        self.rules.rule(path)
    }

    /// Decides about a call before its message is read. Leaves the caller in `ctx`, and a duty
    /// where the rule has an owner.
    pub(crate) async fn admit(
        &self,
        ctx: &Ctx,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<(), crate::status::Failure> {
        if rule::is_open(path) {
            return Ok(());
        }
        let rule = self.rules.find(path)?;
        let mut caller = match bearer(headers) {
            None if rule.anonymous => return Ok(()),
            None => return Err(TokenProblem::Missing.into()),
            Some(token) => self.verify(token?).await?,
        };
        if caller.service().is_some()
            && let Some(token) = headers.get(ON_BEHALF_OF)
        {
            let token = token.to_str().map_err(|_error| TokenProblem::Malformed)?;
            let user = self.verify(token).await?;
            caller.on_behalf_of = Some(user.subject);
            caller.token = user.token;
        }
        if !rule.anonymous && !rule.admits(&caller) {
            return Err(Denied::Role(caller.subject).into());
        }
        caller.sees_all = rule.sees_all(&caller);
        if rule.owner.is_some() {
            ctx.open_duty();
        }
        ctx.set_caller(caller);
        Ok(())
    }
}

// === impl Caller ===

impl Caller {
    /// Who calls.
    ///
    /// # Errors
    /// [`Denied::Nobody`] outside of a call, or in one that needs no token and brought none.
    pub fn current() -> Result<Self, Denied> {
        Ctx::current().and_then(|ctx| ctx.caller().cloned()).ok_or(Denied::Nobody)
    }

    /// A customer, as a token would say it.
    #[must_use]
    pub fn customer(subject: &str) -> Self {
        Self::with_roles(subject, &[CUSTOMER])
    }

    /// A service, as its token would say it.
    #[must_use]
    pub fn of_service(name: &str) -> Self {
        Self::with_roles(&format!("services/{name}"), &[&format!("service:{name}")])
    }

    /// A user with these roles, as a token would say it.
    #[must_use]
    pub fn with_roles(subject: &str, roles: &[&str]) -> Self {
        let roles: Vec<String> = roles.iter().map(|&role| role.to_owned()).collect();
        let sees_all = roles.iter().any(|role| role != CUSTOMER);
        Self {
            subject: subject.into(),
            roles: roles.into(),
            on_behalf_of: None,
            token: None,
            sees_all,
        }
    }

    /// Whether the caller has this role.
    #[must_use]
    pub fn has(&self, role: &str) -> bool {
        self.roles.iter().any(|has| has == role)
    }

    /// The name of the service that calls, if it is one.
    #[must_use]
    pub fn service(&self) -> Option<&str> {
        self.roles.iter().find_map(|role| role.strip_prefix("service:"))
    }

    /// In whose name things are done: the user, also when a service calls for them.
    #[must_use]
    pub fn principal(&self) -> &str {
        self.on_behalf_of.as_deref().unwrap_or(&self.subject)
    }

    /// Asks whether the caller may reach what `owner` owns. Ask before it shows whether the
    /// thing exists; for a thing that does not exist, `owner` is the empty string.
    ///
    /// # Errors
    /// [`Denied::NotYours`] for a customer who is not `owner`.
    pub fn owns(&self, owner: &str) -> Result<(), Denied> {
        if let Some(ctx) = Ctx::current() {
            ctx.settle_duty();
        }
        if self.sees_all || *self.subject == *owner { Ok(()) } else { Err(Denied::NotYours) }
    }

    /// What a list may show to the caller.
    #[must_use]
    pub fn scope(&self) -> Scope {
        if let Some(ctx) = Ctx::current() {
            ctx.settle_duty();
        }
        if self.sees_all { Scope::All } else { Scope::Own(Arc::clone(&self.subject)) }
    }
}

/// The bearer token of a call, if it brought an `authorization`.
fn bearer(headers: &HeaderMap) -> Option<Result<&str, TokenProblem>> {
    let value = headers.get(header::AUTHORIZATION)?;
    let token = value.to_str().ok().and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
    });
    Some(token.ok_or(TokenProblem::Malformed))
}
