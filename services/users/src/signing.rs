//! Signing tokens: the ring of Ed25519 keys, and compact JWS (RFC 7515, RFC 8037).

use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::{
    digest,
    signature::{Ed25519KeyPair, KeyPair as _},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use mesh::auth::token::{Claims, ISSUER};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::domain::keys::{self, Key};

/// The keys that tokens are signed and checked with. Cheap to clone; the keys are shared.
#[derive(Clone, Debug, Default)]
pub struct Ring(Arc<ArcSwap<Vec<SigningKey>>>);

/// One key of the ring.
#[derive(Debug)]
pub struct SigningKey {
    key: Key,
    kid: String,
    public: String,
    pair: Ed25519KeyPair,
}

/// The public half of a key, as it is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// Its name: its thumbprint (RFC 7638).
    pub kid: String,
    /// Its 32 bytes in base64url.
    pub x: String,
}

/// For whom a token speaks, and for how long.
#[derive(Clone, Debug)]
pub struct Grant {
    /// `users/{uuid}` or `services/{name}`.
    pub subject: String,
    /// What the subject may do.
    pub roles: Vec<String>,
    /// How long.
    pub lifetime: Duration,
}

/// A token was not signed, or a key not made.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// No key of the ring signs now.
    #[error("there is no key to sign with")]
    NoKey,
    /// The claims could not be written.
    #[error("cannot write the claims of a token")]
    Claims(#[source] serde_json::Error),
    /// A key could not be made.
    #[error("cannot make a signing key")]
    Make(#[source] aws_lc_rs::error::Unspecified),
    /// A kept key cannot be used.
    #[error("cannot use a signing key")]
    Kept(#[source] aws_lc_rs::error::KeyRejected),
}

// === impl Ring ===

impl Ring {
    /// Replaces the keys; in the order of their generations.
    pub fn replace(&self, keys: Vec<SigningKey>) {
        self.0.store(Arc::new(keys));
    }

    /// Every public key that a valid token may be signed with.
    #[must_use]
    pub fn public(&self) -> Vec<PublicKey> {
        self.0.load().iter().map(SigningKey::public).collect()
    }

    /// Signs a token.
    ///
    /// # Errors
    /// [`SigningError::NoKey`] before the first key was made, or a failure.
    pub fn sign(
        &self,
        grant: &Grant,
        id: Uuid,
        at: OffsetDateTime,
    ) -> Result<String, SigningError> {
        let ring = self.0.load();
        let keys: Vec<Key> = ring.iter().map(|key| key.key).collect();
        let signing = keys::signing(&keys, at)
            .and_then(|signing| ring.iter().find(|key| key.key == signing))
            .ok_or(SigningError::NoKey)?;
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: ISSUER.to_owned(),
            sub: grant.subject.clone(),
            roles: grant.roles.clone(),
            iat: at.unix_timestamp(),
            nbf: at.unix_timestamp(),
            exp: (at + grant.lifetime).unix_timestamp(),
            jti: id.to_string(),
        };
        signing.sign(&claims)
    }
}

// === impl SigningKey ===

impl SigningKey {
    /// Makes the private half of a new key, as PKCS#8.
    ///
    /// # Errors
    /// [`SigningError::Make`].
    pub fn make() -> Result<Vec<u8>, SigningError> {
        let pair = Ed25519KeyPair::generate().map_err(SigningError::Make)?;
        let document = pair.to_pkcs8().map_err(SigningError::Make)?;
        Ok(document.as_ref().to_vec())
    }

    /// Takes over a key that [`SigningKey::make`] made.
    ///
    /// # Errors
    /// [`SigningError::Kept`].
    pub fn open(key: Key, pkcs8: &[u8]) -> Result<Self, SigningError> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).map_err(SigningError::Kept)?;
        let public = BASE64_URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        // RFC 7638: the required members in the order of their names, without white space.
        let jwk = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{public}"}}"#);
        let kid = BASE64_URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, jwk.as_bytes()));
        Ok(Self { key, kid, public, pair })
    }

    fn public(&self) -> PublicKey {
        PublicKey { kid: self.kid.clone(), x: self.public.clone() }
    }

    fn sign(&self, claims: &Claims) -> Result<String, SigningError> {
        let header = format!(r#"{{"alg":"EdDSA","typ":"JWT","kid":"{}"}}"#, self.kid);
        let claims = serde_json::to_vec(claims).map_err(SigningError::Claims)?;
        let mut token = BASE64_URL_SAFE_NO_PAD.encode(header);
        token.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature = self.pair.sign(token.as_bytes());
        token.push('.');
        BASE64_URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Algorithm, DecodingKey, Validation};
    use mesh::clock;

    use super::*;

    fn ring(keys: &[Key]) -> Ring {
        let ring = Ring::default();
        let open = |key: &Key| {
            SigningKey::open(*key, &SigningKey::make().expect("a key")).expect("the same key")
        };
        ring.replace(keys.iter().map(open).collect());
        ring
    }

    fn grant() -> Grant {
        let roles = vec!["customer".to_owned()];
        Grant { subject: "users/1".to_owned(), roles, lifetime: Duration::minutes(15) }
    }

    #[test]
    fn a_token_is_a_jwt_that_others_verify_with_the_published_key() {
        let at = clock::now();
        let ring = ring(&[Key { generation: 1, active_at: at }]);
        let token = ring.sign(&grant(), Uuid::from_u128(7), at).expect("a token");
        let header = jsonwebtoken::decode_header(&token).expect("a header");
        let [public] = &ring.public()[..] else { panic!("one key") };
        assert_eq!(header.alg, Algorithm::EdDSA);
        assert_eq!(header.typ.as_deref(), Some("JWT"));
        assert_eq!(header.kid.as_ref(), Some(&public.kid));
        let key = DecodingKey::from_ed_components(&public.x).expect("a key");
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_audience(&["ordermesh"]);
        validation.set_issuer(&["ordermesh"]);
        let claims =
            jsonwebtoken::decode::<Claims>(&token, &key, &validation).expect("valid").claims;
        assert_eq!((claims.sub.as_str(), claims.roles.as_slice()), ("users/1", &grant().roles[..]));
        assert_eq!(claims.exp - claims.iat, 15 * 60);
        assert_eq!((claims.iat, claims.nbf), (at.unix_timestamp(), at.unix_timestamp()));
        assert_eq!(claims.jti, Uuid::from_u128(7).to_string());
    }

    #[test]
    fn a_key_that_is_published_ahead_does_not_sign_yet() {
        let at = clock::now();
        let next = at + keys::PUBLISHED_AHEAD;
        let ring =
            ring(&[Key { generation: 1, active_at: at }, Key { generation: 2, active_at: next }]);
        let kid = |at| {
            let token = ring.sign(&grant(), Uuid::nil(), at).expect("a token");
            jsonwebtoken::decode_header(&token).expect("a header").kid.expect("a kid")
        };
        let kids: Vec<String> = ring.public().into_iter().map(|key| key.kid).collect();
        assert_eq!([kid(at), kid(next)], kids[..]);
    }

    #[test]
    fn nothing_is_signed_without_a_key() {
        let signed = Ring::default().sign(&grant(), Uuid::nil(), clock::now());
        assert!(matches!(signed, Err(SigningError::NoKey)));
    }
}
