//! How the tool finds the services and says who it is.

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use mesh::{
    Channel, Ctx,
    ctx::Trace,
    registry::{Options, Registry},
    wire::ordermesh::auth::v1::{
        ClientCredential, IssueTokenRequest, PasswordCredential, issue_token_request::Credential,
        tokens_service_client::TokensServiceClient,
    },
};
use tonic::{Request, metadata::AsciiMetadataValue};

/// Whom services know the checker as.
const CLIENT: &str = "proof";

/// How long signing in may take: a password is slow to check, on purpose.
const SIGN_IN: Duration = Duration::from_secs(9);

/// How long the registry may take to say where a service is.
const LOOK_UP: Duration = Duration::from_secs(5);

/// Where the mesh is.
#[derive(Clone, Debug, clap::Args)]
pub struct Place {
    /// The services, as `static://?name=host:port&name=host:port`, or a registry that knows
    /// them: `consul://host:port`.
    #[arg(long, env = "MESHPROOF_REGISTRY")]
    pub registry: String,
}

/// Who asks: a token, an account, or the client `proof`.
#[derive(Clone, Debug, clap::Args)]
pub struct Identity {
    /// File with an access token.
    #[arg(long, env = "MESHPROOF_TOKEN_FILE", conflicts_with_all = ["email", "client_secret_file"])]
    pub token_file: Option<PathBuf>,
    /// The e-mail address of an account with the role `admin`.
    #[arg(long, env = "MESHPROOF_EMAIL", requires = "password_file")]
    pub email: Option<String>,
    /// File with its password.
    #[arg(long, env = "MESHPROOF_PASSWORD_FILE")]
    pub password_file: Option<PathBuf>,
    /// File with the secret of the client `proof`.
    #[arg(long, env = "MESHPROOF_CLIENT_SECRET_FILE", conflicts_with = "email")]
    pub client_secret_file: Option<PathBuf>,
}

/// What is sent as `authorization`.
pub type Authorization = AsciiMetadataValue;

// === impl Place ===

impl Place {
    /// The service of this name, if the registry knows it.
    ///
    /// # Errors
    /// The registry cannot be read.
    pub async fn find(&self, name: &str) -> anyhow::Result<Option<Channel>> {
        let registry = Registry::open(&self.registry, &Options::from_env())?;
        let addresses = registry.find(name, LOOK_UP).await?.addresses();
        Ok((!addresses.is_empty()).then(|| Channel::to(name, &addresses)))
    }

    /// The service of this name.
    ///
    /// # Errors
    /// The registry cannot be read, or does not know it.
    pub async fn channel(&self, name: &str) -> anyhow::Result<Channel> {
        self.find(name).await?.with_context(|| {
            format!("the registry has no `{name}`: add `{name}=host:port` to --registry")
        })
    }
}

// === impl Identity ===

impl Identity {
    /// Signs in, or reads the token.
    ///
    /// # Errors
    /// A file cannot be read, nothing says who asks, or the mesh refuses it.
    pub async fn sign_in(&self, place: &Place) -> anyhow::Result<Authorization> {
        if let Some(path) = &self.token_file {
            return bearer(&secret(path)?);
        }
        let credential = match (&self.client_secret_file, &self.email, &self.password_file) {
            (Some(path), _, _) => Credential::Client(ClientCredential {
                client_id: CLIENT.to_owned(),
                client_secret: secret(path)?,
            }),
            (None, Some(email), Some(path)) => Credential::Password(PasswordCredential {
                email: email.clone(),
                password: secret(path)?,
            }),
            (None, _, _) => anyhow::bail!(
                "nothing says who asks: use --token-file, --client-secret-file, or --email with \
                 --password-file"
            ),
        };
        sign_in(place.channel("users").await?, credential).await
    }
}

/// The value of `authorization` for whom this credential names.
///
/// # Errors
/// The users service cannot be reached or refuses it.
pub async fn sign_in(users: Channel, credential: Credential) -> anyhow::Result<Authorization> {
    let request = IssueTokenRequest { credential: Some(credential) };
    let mut users = TokensServiceClient::new(users);
    let signed_in = Ctx::root(SIGN_IN, Trace::new()).scope(users.issue_token(request)).await;
    bearer(&signed_in.context("cannot sign in")?.into_inner().access_token)
}

/// A request in somebody's name.
#[must_use]
pub fn request<T>(message: T, authorization: &Authorization) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", authorization.clone());
    request
}

fn bearer(token: &str) -> anyhow::Result<Authorization> {
    format!("Bearer {token}").parse().context("the access token has characters it cannot have")
}

fn secret(path: &PathBuf) -> anyhow::Result<String> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.trim().to_owned())
}
