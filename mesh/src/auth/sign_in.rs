//! The token of the process itself: fetched with its secret, renewed at two thirds of its life.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use http::HeaderValue;

use crate::{
    Channel,
    app::Draining,
    ctx,
    wire::ordermesh::auth::v1::{
        ClientCredential, IssueTokenRequest, issue_token_request::Credential,
        tokens_service_client::TokensServiceClient,
    },
};

/// How long after a failure the first try comes; doubled each time, up to [`SLOWEST`].
const FIRST: Duration = Duration::from_millis(50);
const SLOWEST: Duration = Duration::from_secs(5);

/// The process's own token, once it has one. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct SignIn(Arc<ArcSwapOption<HeaderValue>>);

// === impl SignIn ===

impl SignIn {
    /// The value of `authorization` for calls in the process's own name.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        self.0.load().as_deref().cloned()
    }

    /// Whether the process has a token.
    #[must_use]
    pub fn done(&self) -> bool {
        self.0.load().is_some()
    }

    /// Signs in as `name`, and again before the token ends, until the process leaves.
    pub(crate) async fn keep(
        self,
        issuer: Channel,
        name: &'static str,
        secret: String,
        draining: Draining,
    ) -> anyhow::Result<()> {
        let mut delay = FIRST;
        loop {
            let once = once(issuer.clone(), name, secret.clone());
            let wait = match once.await {
                Ok((header, life)) => {
                    self.0.store(Some(Arc::new(header)));
                    delay = FIRST;
                    life * 2 / 3
                }
                Err(reason) => {
                    tracing::debug!(reason, "not signed in");
                    delay = (delay * 2).min(SLOWEST);
                    delay
                }
            };
            tokio::select! {
                () = draining.begun() => return Ok(()),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }
}

/// One try: the value of `authorization`, and how long it lasts.
async fn once(
    issuer: Channel,
    name: &str,
    secret: String,
) -> Result<(HeaderValue, Duration), String> {
    let credential =
        Credential::Client(ClientCredential { client_id: name.to_owned(), client_secret: secret });
    let request = IssueTokenRequest { credential: Some(credential) };
    let answer = ctx::background("sign_in", ctx::ROOT_TIMEOUT, None, async {
        TokensServiceClient::new(issuer).issue_token(request).await
    });
    let token = match answer.await {
        Ok(Ok(token)) => token.into_inner(),
        Ok(Err(status)) => return Err(status.message().to_owned()),
        Err(late) => return Err(late.to_string()),
    };
    let life = token.expires_in.and_then(|life| Duration::try_from(life).ok());
    let header = HeaderValue::try_from(format!("Bearer {}", token.access_token));
    let (Some(life), Ok(mut header)) = (life, header) else {
        return Err("the issuer's answer is malformed".to_owned());
    };
    header.set_sensitive(true);
    Ok((header, life))
}
