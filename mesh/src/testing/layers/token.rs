//! A call that brings a token: what it costs beyond the layers that every call meets.

use anyhow::Context as _;
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair as _},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue, header};
use jsonwebtoken::{Algorithm, EncodingKey, Header};

use super::{Layer, unsampled};
use crate::{
    auth::{
        Auth, Jwk, Keys, Rules,
        token::{Claims, ISSUER},
    },
    clock,
    ctx::{Ctx, ROOT_TIMEOUT},
    wire::DESCRIPTORS,
};

/// What is called, and the role of those who may.
const CALLED: (&str, &str) = ("/ordermesh.operator.v1.SagasService/GetSaga", "admin");
/// How long the token is good, in seconds: longer than a run takes.
const GOOD: i64 = 3_600;
/// The id of the key.
const KEY: &str = "k1";

/// Who calls, and may they: of a token that was verified before, as most were.
///
/// # Errors
/// No token can be made.
pub fn token() -> anyhow::Result<Layer> {
    let (key, jwk) = key()?;
    let keys = Keys::from_source(move || {
        let jwk = jwk.clone();
        Box::pin(async move { Ok(vec![jwk]) })
    });
    let auth = Auth::new(Rules::of(DESCRIPTORS)?, keys);
    let mut headers = HeaderMap::new();
    let bearer = format!("Bearer {}", signed(&key)?);
    headers.insert(header::AUTHORIZATION, HeaderValue::try_from(bearer)?);
    let ctx = Ctx::root(ROOT_TIMEOUT, unsampled());
    Ok(Layer::new("token", move || {
        auth.admit(&ctx, CALLED.0, &headers).now_or_never().is_some_and(|it| it.is_ok())
    }))
}

fn key() -> anyhow::Result<(EncodingKey, Jwk)> {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).context("no key")?;
    let pair = Ed25519KeyPair::from_pkcs8(document.as_ref())?;
    let jwk = Jwk {
        kty: "OKP".to_owned(),
        crv: "Ed25519".to_owned(),
        alg: "EdDSA".to_owned(),
        r#use: "sig".to_owned(),
        kid: KEY.to_owned(),
        x: BASE64_URL_SAFE_NO_PAD.encode(pair.public_key().as_ref()),
    };
    Ok((EncodingKey::from_ed_der(document.as_ref()), jwk))
}

fn signed(key: &EncodingKey) -> anyhow::Result<String> {
    let now = clock::now().unix_timestamp();
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some(KEY.to_owned());
    let claims = Claims {
        iss: ISSUER.to_owned(),
        aud: ISSUER.to_owned(),
        sub: "users/1".to_owned(),
        roles: vec![CALLED.1.to_owned()],
        iat: now,
        nbf: now,
        exp: now + GOOD,
        jti: "t1".to_owned(),
    };
    Ok(jsonwebtoken::encode(&header, &claims, key)?)
}
