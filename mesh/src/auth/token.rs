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
        // Boxed, since it is seldom, and its future large.
        Box::pin(self.look_into(token, now)).await
    }

    async fn look_into(&self, token: &str, now: i64) -> Result<Caller, TokenProblem> {
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

    /// Whether this was verified, and is a service's.
    pub(super) fn is_known_service(&self, token: &str) -> bool {
        let now = clock::now().unix_timestamp();
        let verified = self.0.verified.lock().unwrap_or_else(PoisonError::into_inner);
        verified.get(token).is_some_and(|(caller, exp)| *exp > now && caller.service().is_some())
    }

    /// Whether there is no issuer whose tokens it could verify.
    pub(super) fn knows_nobody(&self) -> bool {
        self.0.keys.are_none()
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

#[cfg(test)]
mod tests {
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};

    use super::*;
    use crate::testing::{self, Tokens};

    struct Issuer {
        tokens: Tokens,
        verifier: Verifier,
    }

    impl Issuer {
        fn new() -> Self {
            let tokens = Tokens::new();
            Self { verifier: Verifier::new(tokens.keys()), tokens }
        }

        fn sign(&self, kid: &str, claims: &Claims) -> String {
            self.tokens.sign(kid, claims)
        }
    }

    fn claims() -> Claims {
        testing::claims("users/1", "customer")
    }

    #[tokio::test]
    async fn a_good_token_says_who_calls_and_is_handed_on_for_users_only() {
        let issuer = Issuer::new();
        let token = issuer.sign("k1", &claims());
        let caller = issuer.verifier.verify(&token).await.expect("verifies");
        assert_eq!((&*caller.subject, caller.has("customer")), ("users/1", true));
        assert_eq!(caller.token.as_deref(), Some(token.as_str()));
        let service = Claims { roles: vec!["service:orders".to_owned()], ..claims() };
        let caller = issuer.verifier.verify(&issuer.sign("k1", &service)).await.expect("verifies");
        assert_eq!((caller.service(), &caller.token), (Some("orders"), &None));
    }

    #[tokio::test]
    async fn a_token_that_is_wrong_in_any_part_is_refused() {
        let issuer = Issuer::new();
        let now = clock::now().unix_timestamp();
        for (what, claims, expected) in [
            ("expired", Claims { exp: now - 31, ..claims() }, TokenProblem::Expired),
            ("early", Claims { nbf: now + 60, ..claims() }, TokenProblem::Invalid),
            ("issuer", Claims { iss: "else".to_owned(), ..claims() }, TokenProblem::Invalid),
            ("audience", Claims { aud: "else".to_owned(), ..claims() }, TokenProblem::Invalid),
        ] {
            let token = issuer.sign("k1", &claims);
            assert_eq!(issuer.verifier.verify(&token).await, Err(expected), "{what}");
        }
        let other = Issuer::new().sign("k1", &claims());
        assert_eq!(issuer.verifier.verify(&other).await, Err(TokenProblem::Invalid), "signature");
        let unknown = issuer.sign("k2", &claims());
        assert_eq!(issuer.verifier.verify(&unknown).await, Err(TokenProblem::Invalid), "kid");
    }

    #[tokio::test]
    async fn an_algorithm_that_needs_no_key_of_ours_is_refused() {
        let issuer = Issuer::new();
        let good = issuer.sign("k1", &claims());
        let body = good.split('.').nth(1).expect("claims");
        for header in [r#"{"alg":"none","kid":"k1"}"#, r#"{"alg":"HS256","kid":"k1"}"#] {
            let token = format!("{}.{body}.AAAA", BASE64_URL_SAFE_NO_PAD.encode(header));
            let refused = issuer.verifier.verify(&token).await;
            assert!(refused.is_err(), "{header}");
        }
        for token in ["", ".", "..", "a.b.c", &"a".repeat(LONGEST + 1)] {
            assert_eq!(issuer.verifier.verify(token).await, Err(TokenProblem::Malformed));
        }
    }

    #[tokio::test]
    async fn without_keys_a_token_is_not_called_wrong() {
        let verifier = Verifier::new(Keys::none());
        let token = Issuer::new().sign("k1", &claims());
        assert_eq!(verifier.verify(&token).await, Err(TokenProblem::KeysUnavailable));
    }
}
