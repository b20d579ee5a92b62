//! An issuer of tokens that is good for one test.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};

use crate::{
    auth::{
        Jwk, Keys,
        token::{Claims, ISSUER},
    },
    clock,
};

/// How long a token is good, in seconds: longer than any test.
const GOOD: i64 = 3_600;
/// The id of the key.
const KEY: &str = "k1";

/// An issuer's key, and the tokens that it signs.
pub struct Tokens {
    key: EncodingKey,
    jwk: Jwk,
}

// === impl Tokens ===

#[expect(clippy::expect_used, reason = "a test that cannot make its tokens fails")]
impl Tokens {
    /// An issuer that nobody else knows.
    ///
    /// # Panics
    /// Where no key can be made; the others do so, too.
    #[must_use]
    pub fn new() -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new());
        let document = document.expect("a key");
        let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).expect("a key");
        let jwk = Jwk {
            kty: "OKP".to_owned(),
            crv: "Ed25519".to_owned(),
            alg: "EdDSA".to_owned(),
            r#use: "sig".to_owned(),
            kid: KEY.to_owned(),
            x: BASE64_URL_SAFE_NO_PAD.encode(pair.public_key().as_ref()),
        };
        Self { key: EncodingKey::from_ed_der(document.as_ref()), jwk }
    }

    /// The key that verifies its tokens.
    #[must_use]
    pub fn jwk(&self) -> Jwk {
        self.jwk.clone()
    }

    /// What verifies its tokens: for `App::keys`.
    #[must_use]
    pub fn keys(&self) -> Keys {
        let jwk = self.jwk();
        Keys::from_source(move || {
            let jwk = jwk.clone();
            Box::pin(async move { Ok(vec![jwk]) })
        })
    }

    /// The token of a service.
    #[must_use]
    pub fn for_service(&self, name: &str) -> String {
        self.sign(KEY, &claims(&format!("services/{name}"), &format!("service:{name}")))
    }

    /// The value of `authorization` of a service.
    #[must_use]
    pub fn of_service(&self, name: &str) -> String {
        format!("Bearer {}", self.for_service(name))
    }

    /// The value of `authorization` of a customer, such as `users/1`.
    #[must_use]
    pub fn of_customer(&self, subject: &str) -> String {
        self.of(subject, "customer")
    }

    /// The value of `authorization` of somebody with a role.
    #[must_use]
    pub fn of(&self, subject: &str, role: &str) -> String {
        format!("Bearer {}", self.sign(KEY, &claims(subject, role)))
    }

    /// A token that says this, and that it was signed by the key with this id.
    #[must_use]
    pub fn sign(&self, key: &str, claims: &Claims) -> String {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(key.to_owned());
        jsonwebtoken::encode(&header, claims, &self.key).expect("signs")
    }
}

impl Default for Tokens {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

/// What a good token says.
pub(crate) fn claims(subject: &str, role: &str) -> Claims {
    let now = clock::now().unix_timestamp();
    Claims {
        iss: ISSUER.to_owned(),
        aud: ISSUER.to_owned(),
        sub: subject.to_owned(),
        roles: vec![role.to_owned()],
        iat: now,
        nbf: now,
        exp: now + GOOD,
        jti: "t1".to_owned(),
    }
}
