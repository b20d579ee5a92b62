//! The bearer token of a request, and who checks it.

use std::{future::Future, pin::Pin, sync::Arc};

use http::{HeaderMap, header};
use mesh::auth::{Auth, Caller, TokenProblem};

use crate::error::Error;

/// Says who a token was issued to.
pub type Verify = Arc<
    dyn Fn(String) -> Pin<Box<dyn Future<Output = Result<Caller, TokenProblem>> + Send>>
        + Send
        + Sync,
>;

/// Checks tokens by the mesh's own layer.
#[must_use]
pub fn by_mesh(auth: Auth) -> Verify {
    Arc::new(move |token| {
        let auth = auth.clone();
        Box::pin(async move { auth.verify(&token).await })
    })
}

/// The token of a request; `None` if it brings none.
///
/// # Errors
/// [`Error::TokenInvalid`] if `Authorization` is there and holds no bearer token, or twice.
pub fn bearer(headers: &HeaderMap) -> Result<Option<String>, Error> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let token = value.to_str().ok().and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        let token = token.trim();
        (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
    });
    match (token, values.next()) {
        (Some(token), None) => Ok(Some(token.to_owned())),
        (Some(_), Some(_)) | (None, _) => Err(Error::TokenInvalid),
    }
}

/// What a client is told of a token that does not say who it is.
#[must_use]
pub fn refusal(problem: TokenProblem) -> Error {
    match problem {
        TokenProblem::Missing => Error::TokenMissing,
        TokenProblem::Malformed | TokenProblem::Invalid => Error::TokenInvalid,
        TokenProblem::Expired => Error::TokenExpired,
        TokenProblem::KeysUnavailable => Error::KeysUnavailable,
    }
}
