//! `TokensService`: proofs in, signed tokens out.

use aws_lc_rs::{constant_time, digest, rand};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use mesh::clock;
use proto::auth::v1::{
    self as api, issue_token_request::Credential, tokens_service_server::TokensService,
};
use time::{Duration, OffsetDateTime};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::{
    domain::{
        session::{SERVICE_TOKEN, USER_TOKEN},
        values::{EMAIL_MAX, Email, Password, Problem, Roles},
    },
    error::TokenError,
    passwords::{PasswordError, Passwords},
    signing::{Grant, Ring},
    store::{Attempt, Exchanged, Opening, Proved, Settled, Store, Stored},
};

const CLIENT_ID_MAX: usize = 63;
const CLIENT_SECRET_MAX: usize = 256;
const REFRESH_TOKEN_MAX: usize = 512;

/// Serves tokens. Cheap to clone.
#[derive(Clone)]
pub struct Tokens {
    store: Store,
    passwords: Passwords,
    ring: Ring,
}

// === impl Tokens ===

impl Tokens {
    /// Issues tokens for the accounts and clients of `store`, signed by `ring`.
    #[must_use]
    pub fn new(store: Store, passwords: Passwords, ring: Ring) -> Self {
        Self { store, passwords, ring }
    }

    async fn issue(
        &self,
        request: api::IssueTokenRequest,
        at: OffsetDateTime,
    ) -> Result<api::Token, TokenError> {
        match request.credential {
            Some(Credential::Password(credential)) => self.sign_in(&credential, at).await,
            Some(Credential::Client(credential)) => self.admit(&credential, at).await,
            None => Err(TokenError::malformed("credential", "must be a password or a client")),
        }
    }

    /// By password. An address that is unknown costs the same work and gets the same answers as
    /// a password that is wrong, locks included.
    async fn sign_in(
        &self,
        credential: &api::PasswordCredential,
        at: OffsetDateTime,
    ) -> Result<api::Token, TokenError> {
        let given = bounded("password.email", &credential.email, EMAIL_MAX)?;
        let password = Password::offered(&credential.password)
            .map_err(|problem| TokenError::malformed("password.password", problem))?;
        let address = sha256(given.to_ascii_lowercase().as_bytes());
        if let Some(left) = self.store.locked(&address, at).await? {
            return Err(locked(left));
        }
        let found = match Email::parse(given) {
            Ok(email) => self.store.by_email(&email).await?,
            Err(_not_an_address) => None,
        };
        let kept = found.as_ref().map(|stored| stored.user.password.clone());
        let right = self.passwords.matches(password, kept).await?;
        let proved = found.map(|Stored { user, .. }| user).filter(|u| right && u.may_sign_in());
        let refresh = secret()?;
        let attempt = Attempt {
            address,
            proved: proved.as_ref().map(|user| Proved {
                user: user.id,
                password: user.password.clone(),
                opening: Opening { family: clock::id(), hash: sha256(refresh.as_bytes()) },
            }),
        };
        match (self.store.settle(attempt, at).await?, proved) {
            (Settled::SignedIn, Some(user)) => self.pair(user.id, &user.roles, refresh, at),
            (Settled::Locked(left), _) => Err(locked(left)),
            (Settled::Wrong | Settled::SignedIn, _) => Err(TokenError::Unproved),
        }
    }

    /// By client secret, for services.
    async fn admit(
        &self,
        credential: &api::ClientCredential,
        at: OffsetDateTime,
    ) -> Result<api::Token, TokenError> {
        let id = bounded("client.client_id", &credential.client_id, CLIENT_ID_MAX)?;
        let secret = bounded("client.client_secret", &credential.client_secret, CLIENT_SECRET_MAX)?;
        let kept = self.store.client_secret(id).await?;
        let known = kept.is_some();
        let hash = digest::digest(&digest::SHA256, secret.as_bytes());
        // An unknown service is compared as well, with what no secret hashes to.
        let kept = kept.unwrap_or_else(|| vec![0; digest::SHA256_OUTPUT_LEN]);
        let right = constant_time::verify_slices_are_equal(hash.as_ref(), &kept).is_ok();
        if !(known && right) {
            return Err(TokenError::Unproved);
        }
        let grant = Grant {
            subject: format!("services/{id}"),
            roles: vec![format!("service:{id}")],
            lifetime: SERVICE_TOKEN,
        };
        self.token(grant, String::new(), at)
    }

    async fn refresh(&self, token: &str, at: OffsetDateTime) -> Result<api::Token, TokenError> {
        let token = bounded("refresh_token", token, REFRESH_TOKEN_MAX)?;
        let new = secret()?;
        let hash = sha256(token.as_bytes());
        match self.store.exchange(hash, sha256(new.as_bytes()), at).await? {
            Exchanged::Granted { user, roles } => self.pair(user, &roles, new, at),
            Exchanged::Reused => Err(TokenError::Reused),
            Exchanged::Refused => Err(TokenError::Unproved),
        }
    }

    async fn revoke(&self, token: &str, at: OffsetDateTime) -> Result<(), TokenError> {
        let token = bounded("refresh_token", token, REFRESH_TOKEN_MAX)?;
        Ok(self.store.revoke(sha256(token.as_bytes()), at).await?)
    }

    fn jwks(&self) -> api::Jwks {
        let keys = self.ring.public().into_iter().map(|key| api::Jwk {
            kty: "OKP".to_owned(),
            alg: "EdDSA".to_owned(),
            crv: "Ed25519".to_owned(),
            r#use: "sig".to_owned(),
            kid: key.kid,
            x: key.x,
        });
        api::Jwks { keys: keys.collect() }
    }

    fn pair(
        &self,
        user: Uuid,
        roles: &Roles,
        refresh_token: String,
        at: OffsetDateTime,
    ) -> Result<api::Token, TokenError> {
        let subject = format!("users/{user}");
        let grant = Grant { subject, roles: roles.names(), lifetime: USER_TOKEN };
        self.token(grant, refresh_token, at)
    }

    fn token(
        &self,
        grant: Grant,
        refresh_token: String,
        at: OffsetDateTime,
    ) -> Result<api::Token, TokenError> {
        let access_token = self.ring.sign(&grant, clock::id(), at)?;
        let Grant { subject, roles, lifetime } = grant;
        let expires_in = prost_types::Duration { seconds: lifetime.whole_seconds(), nanos: 0 };
        Ok(api::Token { access_token, refresh_token, expires_in: Some(expires_in), subject, roles })
    }
}

/// A text that must be there and not be too long.
fn bounded<'t>(field: &'static str, text: &'t str, max: usize) -> Result<&'t str, TokenError> {
    if text.is_empty() {
        Err(TokenError::malformed(field, Problem::Missing))
    } else if text.chars().count() > max {
        Err(TokenError::malformed(field, Problem::TooLong(max)))
    } else {
        Ok(text)
    }
}

fn locked(left: Duration) -> TokenError {
    // Positive: it is what is left of a window.
    TokenError::Locked { retry_after: left.unsigned_abs() }
}

/// 256 random bits, as they are handed out.
fn secret() -> Result<String, TokenError> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).map_err(PasswordError::Salt)?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(bytes))
}

/// How secrets of 256 random bits, and addresses, are kept: nothing slower is needed for the
/// ones, and the others are only compared.
fn sha256(bytes: &[u8]) -> String {
    let hash = digest::digest(&digest::SHA256, bytes);
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tonic::async_trait]
impl TokensService for Tokens {
    async fn issue_token(
        &self,
        request: Request<api::IssueTokenRequest>,
    ) -> Result<Response<api::Token>, Status> {
        Ok(Response::new(self.issue(request.into_inner(), clock::now()).await?))
    }

    async fn refresh_token(
        &self,
        request: Request<api::RefreshTokenRequest>,
    ) -> Result<Response<api::Token>, Status> {
        Ok(Response::new(self.refresh(&request.get_ref().refresh_token, clock::now()).await?))
    }

    async fn revoke_token(
        &self,
        request: Request<api::RevokeTokenRequest>,
    ) -> Result<Response<()>, Status> {
        self.revoke(&request.get_ref().refresh_token, clock::now()).await?;
        Ok(Response::new(()))
    }

    async fn get_jwks(
        &self,
        _request: Request<api::GetJwksRequest>,
    ) -> Result<Response<api::Jwks>, Status> {
        Ok(Response::new(self.jwks()))
    }
}

#[cfg(test)]
mod tests;
