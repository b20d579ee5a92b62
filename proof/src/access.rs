//! How the tool finds the services and says who it is.

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use mesh::{
    Channel, Ctx,
    client::{Tool, Trust},
    ctx::Trace,
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
#[command(mut_args = Trust::variables("MESHPROOF"))]
pub struct Place {
    /// The services, as `static://?name=host:port&name=host:port`, or a registry that knows
    /// them: `consul://host:port`, `consul+tls://host:port`.
    #[arg(long, env = "MESHPROOF_REGISTRY")]
    pub registry: String,
    /// Whom to trust.
    #[command(flatten)]
    pub trust: Trust,
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
    /// The registry cannot be read, or a file of those that say whom to trust.
    pub async fn find(&self, name: &str) -> anyhow::Result<Option<Channel>> {
        let tool = Tool::new(self.trust.clone())?;
        let addresses = tool.registry(&self.registry)?.find(name, LOOK_UP).await?.addresses();
        if addresses.is_empty() {
            return Ok(None);
        }
        Ok(Some(tool.channel(name, &addresses)?))
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
    let mut client = TokensServiceClient::new(users.clone());
    let signed_in = Ctx::root(SIGN_IN, Trace::new()).scope(client.issue_token(request)).await;
    let why = || match users.trouble() {
        // What has to do with certificates says what to do by itself.
        Some(trouble) if trouble.contains("--") => format!("cannot sign in: {trouble}"),
        Some(trouble) => {
            format!("cannot sign in: {trouble}; a mesh that serves TLS is called with --ca")
        }
        None => "cannot sign in".to_owned(),
    };
    bearer(&signed_in.with_context(why)?.into_inner().access_token)
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use mesh::{
        App, Config,
        config::Bound,
        testing::Authority,
        tls::{ClientAuth, Settings},
        wire::DESCRIPTORS,
    };
    use tokio::sync::oneshot;

    use super::*;

    /// A process that serves as `users`, until the sender is dropped; and where that is.
    #[expect(clippy::disallowed_methods, reason = "a process of its own in a test")]
    fn users(tls: Settings) -> (Place, oneshot::Sender<()>) {
        let config = Config { tls, ..Config::for_tests(Bound::free().unwrap(), "static://") };
        let app = App::new("users", DESCRIPTORS, config).unwrap();
        let registry = format!("static://?users={}", app.address());
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(app.serve(async {
            let _stopped = stopped.await.is_ok();
        }));
        (Place { registry, trust: Trust::default() }, stop)
    }

    /// Whether who is refused hears these words; on a busy machine a call may end before there is
    /// anything to say, so it is made again.
    async fn hears(place: &Place, trust: Trust, words: &str) {
        let place = Place { trust, ..place.clone() };
        let mut said = String::new();
        for _ in 0..10 {
            let users = place.channel("users").await.unwrap();
            let (email, password) = ("a@example.com".to_owned(), "x".to_owned());
            let credential = Credential::Password(PasswordCredential { email, password });
            let error = sign_in(users, credential).await.expect_err("it issues no tokens");
            said = format!("{error:#}");
            if said.contains(words) {
                return;
            }
        }
        panic!("{words} was not said, but {said}");
    }

    #[tokio::test]
    async fn a_mesh_that_serves_tls_is_called_by_who_trusts_it_and_others_hear_what_to_do() {
        let authority = Authority::new();
        let (place, _stop) = users(authority.settings(&["127.0.0.1"]));
        let trust = |ca: &Authority| Trust { ca: Some(ca.ca()), ..Trust::default() };
        // It is reached, and says that it has no such rpc.
        hears(&place, trust(&authority), "not implemented").await;
        let words = "UnknownIssuer: nobody in ";
        hears(&place, trust(&Authority::new()), words).await;
        hears(&place, Trust::default(), "serves TLS is called with --ca").await;
    }

    #[test]
    fn whom_to_trust_may_be_said_in_the_environment() {
        let mut command = crate::cli::Cli::command();
        command.build();
        let mut placed = 0;
        for it in command.get_subcommands() {
            let variable = |id: &str| {
                let flag = it.get_arguments().find(|it| it.get_id() == id)?;
                Some(flag.get_env()?.to_str().unwrap().to_owned())
            };
            if variable("registry").is_some() {
                placed += 1;
                let found =
                    ["ca", "cert", "key", "allow_plaintext"].map(|id| variable(id).unwrap());
                let names = [
                    "MESHPROOF_CA",
                    "MESHPROOF_CERT",
                    "MESHPROOF_KEY",
                    "MESHPROOF_ALLOW_PLAINTEXT",
                ];
                assert_eq!(found, names);
            }
        }
        assert!(placed > 1, "each command that calls a mesh");
    }

    #[tokio::test]
    async fn a_secret_is_not_sent_in_plaintext_beyond_loopback() {
        let registry = "static://?users=192.0.2.1:50051".to_owned();
        let place = Place { registry, trust: Trust::default() };
        let error = place.channel("users").await.expect_err("it is far away");
        assert!(error.to_string().contains("--allow-plaintext allows it"), "{error}");
        let trust = Trust { allow_plaintext: true, ..Trust::default() };
        assert!(Place { trust, ..place }.channel("users").await.is_ok());
    }

    #[tokio::test]
    async fn a_certificate_is_shown_to_who_asks_for_one() {
        let authority = Authority::new();
        let tls = Settings {
            client_auth: ClientAuth::Required,
            ..authority.settings(&["127.0.0.1", "proof"])
        };
        let (place, _stop) = users(tls.clone());
        let ca = Trust { ca: tls.tls_ca.clone(), ..Trust::default() };
        let own = Trust { cert: tls.tls_cert.clone(), key: tls.tls_key.clone(), ..ca.clone() };
        hears(&place, own, "not implemented").await;
        hears(&place, ca, "--cert and --key name ours").await;
    }
}
