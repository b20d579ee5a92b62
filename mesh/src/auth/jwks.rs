//! The public keys of the issuer (JWKS, RFC 7517), kept fresh.
//!
//! They are fetched at start, every five minutes and when a token names a key that is not
//! known; many tokens at once cause one fetch, and one fetch in ten seconds. If the issuer is
//! away the last good set serves on.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex as StdMutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use jsonwebtoken::DecodingKey;
use tokio::{sync::Mutex, time::Instant};

use super::TokenProblem;
use crate::{
    Channel, clock,
    wire::ordermesh::auth::v1::{GetJwksRequest, tokens_service_client::TokensServiceClient},
};

pub use crate::wire::ordermesh::auth::v1::Jwk;

/// How old the keys may become.
const FRESH: Duration = Duration::from_secs(300);
/// How often an unknown key may cause a fetch.
const AGAIN: Duration = Duration::from_secs(10);

type Fetch = dyn Fn() -> BoxFuture<'static, Result<Vec<Jwk>, String>> + Send + Sync;

/// The keys that tokens are checked with. Cheap to clone.
#[derive(Clone)]
pub struct Keys(Arc<Inner>);

struct Inner {
    known: ArcSwap<HashMap<String, DecodingKey>>,
    fetch: Option<Box<Fetch>>,
    fetching: Mutex<()>,
    fetched: StdMutex<Option<Instant>>,
}

// === impl Keys ===

impl Keys {
    /// Keys that `fetch` gives: how the issuer itself reads its own.
    pub fn from_source<F>(fetch: F) -> Self
    where
        F: Fn() -> BoxFuture<'static, Result<Vec<Jwk>, String>> + Send + Sync + 'static,
    {
        Self::new(Some(Box::new(fetch)))
    }

    /// Keys that the issuer behind `channel` publishes.
    pub(crate) fn of_issuer(channel: Channel) -> Self {
        Self::from_source(move || {
            let mut issuer = TokensServiceClient::new(channel.clone());
            Box::pin(async move {
                let answer = issuer.get_jwks(GetJwksRequest {}).await;
                answer.map(|answer| answer.into_inner().keys).map_err(|status| status.to_string())
            })
        })
    }

    /// No keys: no token can be checked.
    pub(crate) fn none() -> Self {
        Self::new(None)
    }

    fn new(fetch: Option<Box<Fetch>>) -> Self {
        Self(Arc::new(Inner {
            known: ArcSwap::default(),
            fetch,
            fetching: Mutex::new(()),
            fetched: StdMutex::new(None),
        }))
    }

    /// The key of this id.
    pub(super) async fn key(&self, kid: &str) -> Result<DecodingKey, TokenProblem> {
        let known = self.0.known.load();
        let age = self.age();
        if let Some(key) = known.get(kid) {
            if age.is_none_or(|age| age > FRESH) {
                // Late by one token is early enough: nobody waits for a refresh.
                let keys = self.clone();
                crate::detach("refresh_keys", Duration::from_secs(5), async move {
                    keys.refresh(FRESH).await;
                });
            }
            return Ok(key.clone());
        }
        self.refresh(AGAIN).await;
        match self.0.known.load().get(kid) {
            Some(key) => Ok(key.clone()),
            None if self.0.known.load().is_empty() => Err(TokenProblem::KeysUnavailable),
            None => Err(TokenProblem::Invalid),
        }
    }

    /// Whether there are keys; asks for them while there are none.
    pub(crate) async fn are_known(&self) -> bool {
        !self.0.known.load().is_empty() || self.refresh(FRESH).await
    }

    /// Fetches the keys unless somebody did within `age`. Says whether any are known.
    pub(crate) async fn refresh(&self, age: Duration) -> bool {
        let Some(fetch) = &self.0.fetch else { return false };
        let _one_at_a_time = self.0.fetching.lock().await;
        let any = !self.0.known.load().is_empty();
        if any && self.age().is_some_and(|since| since <= age) {
            return any;
        }
        match fetch().await {
            Ok(keys) => {
                let known = keys.iter().filter_map(usable).collect::<HashMap<_, _>>();
                if known.is_empty() {
                    tracing::warn!("the issuer publishes no key that can be used");
                    return any;
                }
                self.0.known.store(Arc::new(known));
                *self.0.fetched.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some(clock::instant());
                true
            }
            Err(error) => {
                tracing::debug!(error, "the keys of the issuer cannot be had");
                any
            }
        }
    }

    fn age(&self) -> Option<Duration> {
        let fetched = *self.0.fetched.lock().unwrap_or_else(PoisonError::into_inner);
        fetched.map(|at| clock::instant().saturating_duration_since(at))
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.known.load().keys()).finish()
    }
}

/// A key as it is checked with; what is not Ed25519 is left out.
fn usable(jwk: &Jwk) -> Option<(String, DecodingKey)> {
    if jwk.kty != "OKP" || jwk.crv != "Ed25519" || jwk.kid.is_empty() {
        return None;
    }
    let key = DecodingKey::from_ed_components(&jwk.x).ok()?;
    Some((jwk.kid.clone(), key))
}
