//! A call that brings a token: what it costs beyond the layers that every call meets.

use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue, header};

use super::{Layer, unsampled};
use crate::{
    auth::{Auth, Rules},
    ctx::{Ctx, ROOT_TIMEOUT},
    testing::Tokens,
    wire::DESCRIPTORS,
};

/// What is called, and the role of those who may.
const CALLED: (&str, &str) = ("/ordermesh.operator.v1.SagasService/GetSaga", "admin");
/// Who calls, and may they: of a token that was verified before, as most were.
///
/// # Errors
/// The contract has no rules.
pub fn token() -> anyhow::Result<Layer> {
    let tokens = Tokens::new();
    let auth = Auth::new(Rules::of(DESCRIPTORS)?, tokens.keys());
    let mut headers = HeaderMap::new();
    let bearer = tokens.of("users/1", CALLED.1);
    headers.insert(header::AUTHORIZATION, HeaderValue::try_from(bearer)?);
    let ctx = Ctx::root(ROOT_TIMEOUT, unsampled());
    Ok(Layer::new("token", move || {
        auth.admit(&ctx, CALLED.0, &headers).now_or_never().is_some_and(|it| it.is_ok())
    }))
}
