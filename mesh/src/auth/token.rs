//! Verifying a token: a JWT (RFC 7519) signed with Ed25519 (RFC 8037).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use jsonwebtoken::{Algorithm, Validation, errors::ErrorKind};
use serde::{Deserialize, Serialize};

use super::{Caller, Keys, TokenProblem};
use crate::clock;

/// Issuer and audience of every token.
pub const ISSUER: &str = "ordermesh";
/// How far the clocks of issuer and verifier may be apart, in seconds.
const LEEWAY: u64 = 30;
/// The longest token that is looked at, in bytes.
const LONGEST: usize = 8 * 1_024;
/// How many verified tokens are remembered.
const REMEMBERED: usize = 8_192;

/// The claims of a token.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Claims {
    /// Issuer: [`ISSUER`].
    pub iss: String,
    /// Audience: [`ISSUER`].
    pub aud: String,
    /// `users/{uuid}` or `services/{name}`.
    pub sub: String,
    /// What the subject is.
    pub roles: Vec<String>,
    /// Issued at, in seconds since 1970.
    pub iat: i64,
    /// Not valid before, in seconds since 1970.
    pub nbf: i64,
    /// Expires, in seconds since 1970.
    pub exp: i64,
    /// The id of this token.
    pub jti: String,
}

/// Verifies tokens, and remembers those it has verified until they expire.
#[derive(Clone, Debug)]
pub(super) struct Verifier(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    keys: Keys,
    verified: Mutex<HashMap<Box<str>, (Caller, i64)>>,
}

// === impl Verifier ===

impl Verifier {
    pub(super) fn new(keys: Keys) -> Self {
        Self(Arc::new(Inner { keys, verified: Mutex::default() }))
    }

    pub(super) async fn verify(&self, token: &str) -> Result<Caller, TokenProblem> {
        if token.len() > LONGEST {
            return Err(TokenProblem::Malformed);
        }
        let now = clock::now().unix_timestamp();
        if let Some(caller) = self.remembered(token, now) {
            return Ok(caller);
        }
        let header =
            jsonwebtoken::decode_header(token).map_err(|_error| TokenProblem::Malformed)?;
        // `none`, HMAC and every other algorithm end here, whatever the key would say.
        if header.alg != Algorithm::EdDSA {
            return Err(TokenProblem::Invalid);
        }
        let kid = header.kid.ok_or(TokenProblem::Malformed)?;
        let key = self.0.keys.key(&kid).await?;
        let claims = jsonwebtoken::decode::<Claims>(token, &key, &validation())
            .map_err(|error| problem(error.kind()))?
            .claims;
        let mut caller = Caller::with_roles(
            &claims.sub,
            &claims.roles.iter().map(String::as_str).collect::<Vec<_>>(),
        );
        caller.token = caller.service().is_none().then(|| token.into());
        self.remember(token, &caller, claims.exp, now);
        Ok(caller)
    }

    fn remembered(&self, token: &str, now: i64) -> Option<Caller> {
        let verified = self.0.verified.lock().unwrap_or_else(PoisonError::into_inner);
        verified.get(token).filter(|(_, exp)| *exp > now).map(|(caller, _)| caller.clone())
    }

    fn remember(&self, token: &str, caller: &Caller, exp: i64, now: i64) {
        let mut verified = self.0.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if verified.len() >= REMEMBERED {
            verified.retain(|_, (_, exp)| *exp > now);
        }
        // All of them live: forgetting them costs one verification each.
        if verified.len() >= REMEMBERED {
            verified.clear();
        }
        verified.insert(token.into(), (caller.clone(), exp));
    }
}

fn validation() -> Validation {
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.leeway = LEEWAY;
    validation.validate_nbf = true;
    validation.set_issuer(&[ISSUER]);
    validation.set_audience(&[ISSUER]);
    validation.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
    validation
}

#[expect(clippy::wildcard_enum_match_arm, reason = "a foreign enum that may grow")]
fn problem(kind: &ErrorKind) -> TokenProblem {
    match kind {
        ErrorKind::ExpiredSignature => TokenProblem::Expired,
        ErrorKind::Json(_) | ErrorKind::Base64(_) | ErrorKind::Utf8(_) => TokenProblem::Malformed,
        _ => TokenProblem::Invalid,
    }
}
