//! The public keys of the issuer (JWKS, RFC 7517), kept fresh.
//!
//! They are fetched at start, every five minutes and when a token names a key that is not
//! known; many tokens at once cause one fetch, and one fetch in ten seconds, whatever came of it.
//! If the issuer is away the last good set serves on.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError},
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
/// How often the issuer is asked: an unknown key, or an issuer that is away, causes no more.
const AGAIN: Duration = Duration::from_secs(10);
/// The same while no key is known, and so nobody can be let in.
const SOON: Duration = Duration::from_millis(250);

type Fetch = dyn Fn() -> BoxFuture<'static, Result<Vec<Jwk>, String>> + Send + Sync;

/// The keys that tokens are checked with. Cheap to clone.
#[derive(Clone)]
pub struct Keys(Arc<Inner>);

struct Inner {
    known: ArcSwap<HashMap<String, DecodingKey>>,
    fetch: Option<Box<Fetch>>,
    fetching: Mutex<()>,
    asked: StdMutex<Asked>,
}

/// When the issuer was asked for keys.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    /// The last time that it gave some.
    fetched: Option<Instant>,
    /// The last time at all: when that began, and then when it was over.
    tried: Option<Instant>,
}

/// One try to fetch the keys. It is over when it is dropped, also by whoever no longer waits.
struct Try<'k>(&'k Inner);

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
            asked: StdMutex::default(),
        }))
    }

    /// The key of this id.
    pub(super) async fn key(&self, kid: &str) -> Result<DecodingKey, TokenProblem> {
        let known = self.0.known.load();
        if let Some(key) = known.get(kid) {
            if self.0.wanted(FRESH, true) {
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

    /// Whether there will never be any.
    pub(super) fn are_none(&self) -> bool {
        self.0.fetch.is_none()
    }

    /// Whether there are keys; asks for them while there are none.
    pub(crate) async fn are_known(&self) -> bool {
        !self.0.known.load().is_empty() || self.refresh(FRESH).await
    }

    /// Fetches the keys unless somebody did within `age`, or tried to a moment ago. Says whether
    /// any are known.
    pub(crate) async fn refresh(&self, age: Duration) -> bool {
        let Some(fetch) = &self.0.fetch else { return false };
        let _one_at_a_time = self.0.fetching.lock().await;
        let any = !self.0.known.load().is_empty();
        if !self.0.wanted(age, any) {
            return any;
        }
        let _try = Try::begin(&self.0);
        match fetch().await {
            Ok(keys) => {
                let known = keys.iter().filter_map(usable).collect::<HashMap<_, _>>();
                if known.is_empty() {
                    tracing::warn!("the issuer publishes no key that can be used");
                    return any;
                }
                self.0.known.store(Arc::new(known));
                self.0.asked().fetched = Some(clock::instant());
                true
            }
            Err(error) => {
                tracing::debug!(error, "the keys of the issuer cannot be had");
                any
            }
        }
    }
}

// === impl Inner ===

impl Inner {
    /// Whether the issuer is to be asked for keys that may be as old as `age`, where there are
    /// `any`. One that was asked in vain is left alone for a while.
    fn wanted(&self, age: Duration, any: bool) -> bool {
        let Asked { fetched, tried } = *self.asked();
        let within = |at: Option<Instant>, time| {
            at.is_some_and(|at| clock::instant().saturating_duration_since(at) <= time)
        };
        let pause = if any { AGAIN } else { SOON };
        let fresh = any && within(fetched, age);
        !fresh && !within(tried, pause)
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Try ===

impl<'k> Try<'k> {
    fn begin(keys: &'k Inner) -> Self {
        keys.asked().tried = Some(clock::instant());
        Self(keys)
    }
}

impl Drop for Try<'_> {
    fn drop(&mut self) {
        self.0.asked().tried = Some(clock::instant());
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

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        sync::atomic::{AtomicU8, AtomicU32, Ordering},
    };

    use super::*;
    use crate::testing::Tokens;

    const SECOND: Duration = Duration::from_secs(1);

    /// An issuer that answers, is away, or says nothing; and how often it was asked.
    struct Issuer {
        mood: AtomicU8,
        asked: AtomicU32,
    }

    const WELL: u8 = 0;
    const AWAY: u8 = 1;
    const MUTE: u8 = 2;

    fn issuer(mood: u8) -> (Arc<Issuer>, Keys) {
        let issuer = Arc::new(Issuer { mood: AtomicU8::new(mood), asked: AtomicU32::new(0) });
        let (asked, jwk) = (Arc::clone(&issuer), Tokens::new().jwk());
        let keys = Keys::from_source(move || {
            let (asked, jwk) = (Arc::clone(&asked), jwk.clone());
            Box::pin(async move {
                asked.asked.fetch_add(1, Ordering::SeqCst);
                match asked.mood.load(Ordering::SeqCst) {
                    WELL => Ok(vec![jwk]),
                    AWAY => Err("nobody is there".to_owned()),
                    _ => pending().await,
                }
            })
        });
        (issuer, keys)
    }

    impl Issuer {
        fn feels(&self, mood: u8) {
            self.mood.store(mood, Ordering::SeqCst);
        }

        /// How often it was asked since this was last wanted to be known.
        fn asked(&self) -> u32 {
            self.asked.swap(0, Ordering::SeqCst)
        }
    }

    /// So many tokens at once, by a key that nobody knows; their callers wait for a second.
    async fn unknown(keys: &Keys, tokens: usize) {
        let token = async || {
            let key = tokio::time::timeout(SECOND, keys.key("made up")).await;
            assert!(!matches!(key, Ok(Ok(_))), "there is no such key");
        };
        futures_util::future::join_all((0..tokens).map(|_| token())).await;
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_keys_cause_one_question_in_ten_seconds_also_while_the_issuer_is_away() {
        for mood in [WELL, AWAY, MUTE] {
            let (issuer, keys) = issuer(WELL);
            assert!(keys.are_known().await);
            assert_eq!(issuer.asked(), 1);
            issuer.feels(mood);
            tokio::time::advance(AGAIN + SECOND).await;
            for round in 0..3 {
                unknown(&keys, 50).await;
                unknown(&keys, 50).await;
                assert_eq!(issuer.asked(), 1, "mood {mood}, round {round}");
                tokio::time::advance(AGAIN + SECOND).await;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn keys_that_are_old_cause_one_question_in_ten_seconds_and_serve_on() {
        let (issuer, keys) = issuer(WELL);
        assert!(keys.are_known().await);
        issuer.feels(AWAY);
        tokio::time::advance(FRESH + SECOND).await;
        issuer.asked();
        for _ in 0..50 {
            assert!(keys.key("k1").await.is_ok());
            // The question is asked in the background.
            tokio::task::yield_now().await;
        }
        assert_eq!(issuer.asked(), 1);
        issuer.feels(WELL);
        tokio::time::advance(AGAIN + SECOND).await;
        assert!(keys.key("k1").await.is_ok());
        tokio::time::advance(SECOND).await;
        assert_eq!(issuer.asked(), 1);
        assert!(keys.key("k1").await.is_ok());
        tokio::time::advance(SECOND).await;
        assert_eq!(issuer.asked(), 0, "they are new again");
    }

    #[tokio::test(start_paused = true)]
    async fn while_no_key_is_known_the_issuer_is_asked_again_soon() {
        let (issuer, keys) = issuer(AWAY);
        unknown(&keys, 50).await;
        assert_eq!(issuer.asked(), 1);
        issuer.feels(WELL);
        assert!(!keys.are_known().await, "it was asked a moment ago");
        tokio::time::advance(2 * SOON).await;
        assert!(keys.are_known().await);
        assert_eq!(issuer.asked(), 1);
    }
}
