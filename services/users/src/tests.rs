//! The process as others meet it: over its socket, with tokens and rules.

use std::{fs, future::Future};

use clap::Parser as _;
use mesh::{Channel, app::Ended, config::Bound, testing};
use proto::{
    auth::v1::{
        ClientCredential, IssueTokenRequest, PasswordCredential, RevokeTokenRequest,
        issue_token_request::Credential, tokens_service_client::TokensServiceClient,
    },
    users::v1::{
        CheckCustomerRequest, CreateUserRequest, GetUserRequest, ListUsersRequest, User,
        users_service_client::UsersServiceClient,
    },
};
use tonic::{Code, Request, Response, Status};

use super::*;

const PASSWORD: &str = "correct horse battery";
const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789a";

/// Runs the process as `up` does, with `calls` on a channel to it.
async fn served<F: Future<Output = ()>>(calls: impl FnOnce(Channel) -> F) {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("clients")).expect("a folder");
    fs::write(folder.path().join("admin-password"), PASSWORD).expect("written");
    fs::write(folder.path().join("clients/orders"), SECRET).expect("written");
    let bound = Bound::free().expect("ports");
    let port = bound.listen.local_addr().expect("a port").port();
    let mut mesh = mesh::Config::for_tests(bound, &format!("static://?users=127.0.0.1:{port}"));
    mesh.issuer = Some("users".to_owned());
    let config = Config {
        mesh,
        database_url: format!("sqlite://{}", folder.path().join("users.db").display()),
        secrets_dir: Some(folder.path().to_owned()),
        ..Config::try_parse_from(["users"]).expect("defaults suffice")
    };
    let app = app(config).await.expect("starts");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = app.serve(async move { assert!(stopped.await.is_ok()) });
    let calling = async {
        testing::as_nobody(calls(testing::channel_to("users", port))).await;
        assert!(stop.send(()).is_ok(), "still serving");
    };
    let (ended, ()) = tokio::join!(serving, calling);
    assert_eq!(ended.expect("served"), Ended::Drained);
}

async fn token(channel: &Channel, credential: Credential) -> String {
    let request = IssueTokenRequest { credential: Some(credential) };
    let answer = TokensServiceClient::new(channel.clone()).issue_token(request).await;
    answer.expect("signed in").into_inner().access_token
}

fn by_password(email: &str) -> Credential {
    let (email, password) = (email.to_owned(), PASSWORD.to_owned());
    Credential::Password(PasswordCredential { email, password })
}

fn with<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let bearer = format!("Bearer {token}").parse().expect("a header");
    request.metadata_mut().insert("authorization", bearer);
    request
}

fn code<T>(answer: Result<Response<T>, Status>) -> Code {
    answer.map_or_else(|status| status.code(), |_answer| Code::Ok)
}

#[tokio::test]
async fn the_issuer_serves_and_checks_its_own_tokens_from_the_start() {
    served(async |channel| {
        let mut users = UsersServiceClient::new(channel.clone());
        let ada = User {
            display_name: "Ada".to_owned(),
            email: "ada@example.com".to_owned(),
            password: PASSWORD.to_owned(),
            ..User::default()
        };
        let request = CreateUserRequest { user: Some(ada), ..CreateUserRequest::default() };
        let ada = users.create_user(request).await.expect("anyone may").into_inner();
        let customer = token(&channel, by_password("ada@example.com")).await;
        let admin = token(&channel, by_password(bootstrap::ADMIN)).await;
        let client =
            ClientCredential { client_id: "orders".to_owned(), client_secret: SECRET.to_owned() };
        let orders = token(&channel, Credential::Client(client)).await;
        let get = || GetUserRequest { name: ada.name.clone() };
        let check = || CheckCustomerRequest { name: ada.name.clone() };
        for (who, bearer, expected) in [
            ("customer", &customer, [Code::Ok, Code::PermissionDenied, Code::PermissionDenied]),
            ("admin", &admin, [Code::Ok, Code::Ok, Code::PermissionDenied]),
            ("orders", &orders, [Code::PermissionDenied, Code::PermissionDenied, Code::Ok]),
        ] {
            let told = [
                code(users.get_user(with(bearer, get())).await),
                code(users.list_users(with(bearer, ListUsersRequest::default())).await),
                code(users.check_customer(with(bearer, check())).await),
            ];
            assert_eq!(told, expected, "{who}");
        }
        assert_eq!(code(users.get_user(get()).await), Code::Unauthenticated);
        assert_eq!(code(users.get_user(with("made.up.token", get())).await), Code::Unauthenticated);
        let mut tokens = TokensServiceClient::new(channel);
        let revoke = RevokeTokenRequest { refresh_token: "unknown".to_owned() };
        assert_eq!(code(tokens.revoke_token(revoke).await), Code::Ok);
    })
    .await;
}
