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

/// An issuer's key, and the tokens that it signs.
pub struct Tokens {
    keys: Keys,
    key: EncodingKey,
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
            kid: "k1".to_owned(),
            x: BASE64_URL_SAFE_NO_PAD.encode(pair.public_key().as_ref()),
        };
        let keys = Keys::from_source(move || {
            let jwk = jwk.clone();
            Box::pin(async move { Ok(vec![jwk]) })
        });
        Self { keys, key: EncodingKey::from_ed_der(document.as_ref()) }
    }

    /// What verifies its tokens: for `App::keys`.
    #[must_use]
    pub fn keys(&self) -> Keys {
        self.keys.clone()
    }

    /// The value of `authorization` of a service.
    #[must_use]
    pub fn of_service(&self, name: &str) -> String {
        self.of(format!("services/{name}"), format!("service:{name}"))
    }

    /// The value of `authorization` of a customer, such as `users/1`.
    #[must_use]
    pub fn of_customer(&self, subject: &str) -> String {
        self.of(subject.to_owned(), "customer".to_owned())
    }

    fn of(&self, sub: String, role: String) -> String {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some("k1".to_owned());
        let now = clock::now().unix_timestamp();
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: ISSUER.to_owned(),
            sub,
            roles: vec![role],
            iat: now,
            nbf: now,
            exp: now + 900,
            jti: "t1".to_owned(),
        };
        let token = jsonwebtoken::encode(&header, &claims, &self.key).expect("signs");
        format!("Bearer {token}")
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
