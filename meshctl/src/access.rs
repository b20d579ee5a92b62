//! Where the mesh is, and who asks.

use std::{future::Future, path::PathBuf, time::Duration};

use anyhow::Context as _;
use mesh::{
    Channel, Ctx,
    client::{Tool, Trust},
    ctx::Trace,
    wire::ordermesh::auth::v1::{
        IssueTokenRequest, PasswordCredential, issue_token_request::Credential,
        tokens_service_client::TokensServiceClient,
    },
};
use serde_json::Value;
use tonic::{Code, Request, Response, Status, metadata::AsciiMetadataValue};

use crate::error::Refused;

/// The services that may have sagas, dead letters or an outbox.
pub const SERVICES: [&str; 7] =
    ["users", "catalog", "inventory", "orders", "payments", "shipping", "notifications"];

/// How long signing in may take: a password is slow to check, on purpose.
const SIGN_IN: Duration = Duration::from_secs(9);

/// How long the registry may take to say where a service is.
const LOOK_UP: Duration = Duration::from_secs(5);

/// Settings of every command.
#[derive(Clone, Debug, clap::Args)]
#[command(mut_args = Trust::variables("MESHCTL"))]
pub struct Access {
    /// The services, as `static://?name=host:port&name=host:port`, or a registry that knows
    /// them: `consul://host:port`, `consul+tls://host:port`, `dns://?suffix=domain&port=port`.
    #[arg(long, env = "MESHCTL_REGISTRY", global = true, default_value = "static://?")]
    pub registry: String,
    /// Whom to trust.
    #[command(flatten)]
    pub trust: Trust,
    /// The e-mail address of an account with the role `admin`.
    #[arg(long, env = "MESHCTL_EMAIL", global = true)]
    pub email: Option<String>,
    /// File with its password.
    #[arg(long, env = "MESHCTL_PASSWORD_FILE", global = true)]
    pub password_file: Option<PathBuf>,
    /// File with an access token, instead of an account.
    #[arg(long, env = "MESHCTL_TOKEN_FILE", global = true, conflicts_with = "email")]
    pub token_file: Option<PathBuf>,
    /// How long one answer may take.
    #[arg(long, env = "MESHCTL_TIMEOUT", global = true, default_value = "9s",
        value_parser = mesh::config::duration)]
    pub timeout: Duration,
}

/// A mesh that can be asked.
#[derive(Clone, Debug)]
pub struct Mesh {
    /// The services that the registry knows.
    channels: Vec<Channel>,
    authorization: AsciiMetadataValue,
    timeout: Duration,
}

/// What those said who could be asked, and who could not.
#[derive(Debug)]
pub(crate) struct Heard<T> {
    /// The answers, with those who gave them.
    pub(crate) answers: Vec<(Channel, T)>,
    /// Who did not answer.
    pub(crate) silent: Vec<Refused>,
}

// === impl Access ===

impl Access {
    /// Signs in, or reads the token.
    ///
    /// # Errors
    /// The registry or a file cannot be read, nothing says who asks, or the mesh refuses it.
    pub async fn sign_in(self) -> anyhow::Result<Mesh> {
        let tool = Tool::new(self.trust)?;
        let registry = tool.registry(&self.registry)?;
        let mut channels = Vec::new();
        for name in SERVICES {
            let known = registry.find(name, LOOK_UP).await?.addresses();
            if !known.is_empty() {
                channels.push(tool.channel(name, &known)?);
            }
        }
        let token = match (&self.token_file, self.email, &self.password_file) {
            (Some(path), _, _) => secret(path)?,
            (None, Some(email), Some(path)) => {
                let password = secret(path)?;
                issue(channel(&channels, "users")?, PasswordCredential { email, password }).await?
            }
            (None, _, _) => anyhow::bail!(
                "nothing says who asks: give --email and --password-file, or --token-file"
            ),
        };
        Mesh::new(channels, &token, self.timeout)
    }
}

// === impl Mesh ===

impl Mesh {
    /// A mesh of these services, asked with this token.
    pub(crate) fn new(
        channels: Vec<Channel>,
        token: &str,
        timeout: Duration,
    ) -> anyhow::Result<Self> {
        let authorization =
            format!("Bearer {token}").parse().context("the access token is not one")?;
        Ok(Self { channels, authorization, timeout })
    }

    /// The service of this name.
    ///
    /// # Errors
    /// The registry does not know it.
    pub fn channel(&self, name: &str) -> anyhow::Result<Channel> {
        channel(&self.channels, name)
    }

    /// Every service that the registry knows.
    #[must_use]
    pub fn all(&self) -> Vec<Channel> {
        self.channels.clone()
    }

    /// A request in the operator's name.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.authorization.clone());
        request
    }

    /// The answer of one call to `service`.
    ///
    /// # Errors
    /// [`Refused`], with the service's name.
    pub async fn ask<T>(
        &self,
        service: &str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Refused> {
        let answer = Ctx::root(self.timeout, Trace::new()).scope(Box::pin(call)).await;
        let refused = |status| {
            let trouble = self.channel(service).ok().and_then(|it| it.trouble());
            Refused { service: service.to_owned(), status, trouble }
        };
        answer.map(Response::into_inner).map_err(refused)
    }

    /// The same; `None` from a process that does not serve this at all.
    ///
    /// # Errors
    /// [`Refused`], with the service's name.
    pub async fn ask_if_served<T>(
        &self,
        service: &str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<Option<T>, Refused> {
        match self.ask(service, call).await {
            Ok(answer) => Ok(Some(answer)),
            Err(refused) if refused.status.code() == Code::Unimplemented => Ok(None),
            Err(refused) => Err(refused),
        }
    }
}

// === impl Mesh, everybody at once ===

impl Mesh {
    /// Asks every service in turn. `None` is no answer of its own; one that is down hides no
    /// other.
    ///
    /// # Errors
    /// [`Refused`] if a service answered with anything but silence.
    pub(crate) async fn each<T>(
        &self,
        ask: impl AsyncFn(&str, Channel) -> Result<Option<T>, Refused>,
    ) -> Result<Heard<T>, Refused> {
        let mut heard = Heard { answers: Vec::new(), silent: Vec::new() };
        for channel in &self.channels {
            match ask(channel.name(), channel.clone()).await {
                Ok(Some(answer)) => heard.answers.push((channel.clone(), answer)),
                Ok(None) => {}
                Err(refused) if refused.is_silence() => heard.silent.push(refused),
                Err(refused) => return Err(refused),
            }
        }
        Ok(heard)
    }
}

// === impl Heard ===

impl<T> Heard<T> {
    /// A line for each service that could not be asked, for people.
    pub(crate) fn notes(&self) -> String {
        self.silent.iter().map(|refused| format!("\nnot asked: {refused}")).collect()
    }

    /// Those that could not be asked, for programs.
    pub(crate) fn not_asked(&self) -> Value {
        let of = |refused: &Refused| (refused.service.clone(), refused.to_string().into());
        Value::Object(self.silent.iter().map(of).collect())
    }

    /// The one answer that was looked for.
    pub(crate) fn only(self, name: &str, list: &str) -> anyhow::Result<(Channel, T)> {
        let notes = self.notes();
        let first = self.answers.into_iter().next();
        first.with_context(|| {
            format!("no service has {name}: `meshctl {list}` prints whole names{notes}")
        })
    }
}

async fn issue(users: Channel, credential: PasswordCredential) -> anyhow::Result<String> {
    let request = IssueTokenRequest { credential: Some(Credential::Password(credential)) };
    let mut client = TokensServiceClient::new(users.clone());
    let answer = Ctx::root(SIGN_IN, Trace::new()).scope(client.issue_token(request)).await;
    let refused =
        |status| Refused { service: "users".to_owned(), status, trouble: users.trouble() };
    Ok(answer.map_err(refused).context("cannot sign in")?.into_inner().access_token)
}

fn channel(channels: &[Channel], name: &str) -> anyhow::Result<Channel> {
    let found = channels.iter().find(|channel| channel.name() == name).cloned();
    found.with_context(|| {
        format!("the registry has no `{name}`: add `{name}=host:port` to --registry")
    })
}

fn secret(path: &PathBuf) -> anyhow::Result<String> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::{CommandFactory as _, Parser as _};
    use mesh::{
        App, Config,
        config::Bound,
        testing::Authority,
        tls::{ClientAuth, Settings},
        wire::DESCRIPTORS,
    };
    use tokio::sync::oneshot;

    use crate::{cli, error::advice};

    /// A process that serves as `users`, until the sender is dropped; and where that is.
    #[expect(clippy::disallowed_methods, reason = "a process of its own in a test")]
    fn users(tls: Settings) -> (String, oneshot::Sender<()>) {
        let config = Config { tls, ..Config::for_tests(Bound::free().unwrap(), "static://") };
        let app = App::new("users", DESCRIPTORS, config).unwrap();
        let registry = format!("static://?users={}", app.address());
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(app.serve(async {
            let _stopped = stopped.await.is_ok();
        }));
        (registry, stop)
    }

    /// Whether the program, which signs in at a process that issues no tokens, says these words; on
    /// a busy machine a call may end before there is anything to say, so it is made again.
    async fn hears(registry: &str, trust: &[(&str, &Path)], words: &str) {
        let password = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(password.path(), "x").unwrap();
        let password = password.path().display().to_string();
        let mut flags = vec!["meshctl", "--registry", registry, "--email", "a@example.com"];
        flags.extend(["--password-file", password.as_str(), "sagas", "list"]);
        for (flag, path) in trust {
            flags.extend([*flag, path.to_str().unwrap()]);
        }
        let mut said = String::new();
        for _ in 0..10 {
            let cli = cli::Cli::try_parse_from(&flags).unwrap();
            let error = cli::run(cli).await.expect_err("it issues no tokens");
            said = format!("{error:#}; try: {}", advice(&error).unwrap_or_default());
            if said.contains(words) {
                return;
            }
        }
        panic!("{words} was not said, but {said}");
    }

    #[tokio::test]
    async fn a_mesh_that_serves_tls_is_called_by_who_trusts_it_and_others_hear_what_to_do() {
        let (authority, stranger) = (Authority::new(), Authority::new());
        let (registry, _stop) = users(authority.settings(&["127.0.0.1"]));
        // It is reached, and says that it has no such rpc.
        hears(&registry, &[("--ca", &authority.ca())], "Unimplemented").await;
        let words = "--ca names the file with who has";
        hears(&registry, &[("--ca", &stranger.ca())], words).await;
        hears(&registry, &[], "if it serves TLS, call it with --ca").await;
    }

    #[test]
    fn whom_to_trust_may_be_said_in_the_environment() {
        let command = cli::Cli::command();
        for (id, variable) in [
            ("ca", "MESHCTL_CA"),
            ("cert", "MESHCTL_CERT"),
            ("key", "MESHCTL_KEY"),
            ("allow_plaintext", "MESHCTL_ALLOW_PLAINTEXT"),
            ("registry", "MESHCTL_REGISTRY"),
        ] {
            let flag = command.get_arguments().find(|it| it.get_id() == id).unwrap();
            assert_eq!(flag.get_env().unwrap(), variable);
        }
        let flags = ["meshctl", "sagas", "list", "--ca", "x", "--allow-plaintext"];
        let trust = cli::Cli::try_parse_from(flags).unwrap().access.trust;
        assert!(trust.ca.is_some() && trust.allow_plaintext, "before and after the command");
    }

    #[tokio::test]
    async fn a_password_is_not_sent_in_plaintext_beyond_loopback() {
        let words = "--ca FILE calls it over TLS, --allow-plaintext allows it";
        hears("static://?users=192.0.2.1:50051", &[], words).await;
    }

    #[tokio::test]
    async fn a_certificate_is_shown_to_who_asks_for_one() {
        let authority = Authority::new();
        let own = Settings {
            client_auth: ClientAuth::Required,
            ..authority.settings(&["127.0.0.1", "operator"])
        };
        let (registry, _stop) = users(own.clone());
        let (ca, cert, key) = (own.tls_ca.unwrap(), own.tls_cert.unwrap(), own.tls_key.unwrap());
        let all: [(&str, &Path); 3] = [("--ca", &ca), ("--cert", &cert), ("--key", &key)];
        hears(&registry, &all, "Unimplemented").await;
        hears(&registry, &all[..1], "--cert and --key name ours").await;
    }
}
