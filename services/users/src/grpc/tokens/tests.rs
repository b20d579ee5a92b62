use jsonwebtoken::{DecodingKey, Validation};
use mesh::{auth::token::Claims, testing};
use proto::auth::v1::{ClientCredential, PasswordCredential};
use tonic::Code;
use tonic_types::StatusExt as _;

use super::*;
use crate::{
    domain::{Profile, User, customer, session::FAILURES_MAX, values::DisplayName},
    jobs,
    passwords::Salt,
};

const PASSWORD: &str = "correct horse battery";
const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789a";

/// The service on a database of its own, with one customer and one client.
struct Issuer {
    tokens: Tokens,
    store: Store,
    user: User,
    _db: testing::TestDb,
}

async fn issuer() -> Issuer {
    let db = testing::sqlite(Store::migrations()).await;
    let store = Store::on(db.store.clone());
    let passwords = Passwords::new().await.expect("ready");
    let (ring, at) = (Ring::default(), clock::now());
    let age_max = std::time::Duration::from_secs(3_600);
    jobs::rotate_keys(&store, &ring, age_max, at).await.expect("a key");
    let password = Password::parse(PASSWORD).expect("a password");
    let profile = Profile {
        display_name: DisplayName::parse("Ada").expect("a name"),
        email: Email::parse("ada@example.com").expect("an address"),
        password: passwords.hash(password, Salt::random().expect("a salt")).await.expect("a hash"),
    };
    let (user, happened) = User::open(clock::id(), profile, customer(), at);
    store.open(user.clone(), happened, None, at).await.expect("opened");
    let hash = digest::digest(&digest::SHA256, SECRET.as_bytes()).as_ref().to_vec();
    store.set_client_secret("orders".to_owned(), hash, at).await.expect("kept");
    Issuer { tokens: Tokens::new(store.clone(), passwords, ring), store, user, _db: db }
}

impl Issuer {
    async fn issue(&self, credential: Option<Credential>) -> Result<api::Token, Status> {
        let request = Request::new(api::IssueTokenRequest { credential });
        self.tokens.issue_token(request).await.map(Response::into_inner)
    }

    async fn sign_in(&self, email: &str, password: &str) -> Result<api::Token, Status> {
        self.issue(Some(by_password(email, password))).await
    }

    async fn refresh(&self, token: &str) -> Result<api::Token, Status> {
        let request = api::RefreshTokenRequest { refresh_token: token.to_owned() };
        self.tokens.refresh_token(Request::new(request)).await.map(Response::into_inner)
    }

    async fn revoke(&self, token: &str) -> Result<(), Status> {
        let request = api::RevokeTokenRequest { refresh_token: token.to_owned() };
        self.tokens.revoke_token(Request::new(request)).await.map(Response::into_inner)
    }

    /// What a verifier reads in the token, with the keys that are published.
    async fn claims(&self, token: &str) -> Claims {
        let jwks = self.tokens.get_jwks(Request::new(api::GetJwksRequest {})).await;
        let keys = jwks.expect("keys").into_inner().keys;
        let kid = jsonwebtoken::decode_header(token).expect("a header").kid.expect("a kid");
        let jwk = keys.iter().find(|key| key.kid == kid).expect("the key is published");
        assert_eq!(
            (&*jwk.kty, &*jwk.crv, &*jwk.alg, &*jwk.r#use),
            ("OKP", "Ed25519", "EdDSA", "sig")
        );
        let key = DecodingKey::from_ed_components(&jwk.x).expect("a key");
        let mut validation = Validation::new(jsonwebtoken::Algorithm::EdDSA);
        validation.set_audience(&["ordermesh"]);
        validation.set_issuer(&["ordermesh"]);
        jsonwebtoken::decode(token, &key, &validation).expect("valid").claims
    }
}

fn by_password(email: &str, password: &str) -> Credential {
    let (email, password) = (email.to_owned(), password.to_owned());
    Credential::Password(PasswordCredential { email, password })
}

fn by_secret(client_id: &str, client_secret: &str) -> Credential {
    let (client_id, client_secret) = (client_id.to_owned(), client_secret.to_owned());
    Credential::Client(ClientCredential { client_id, client_secret })
}

fn told<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, String) {
    let status = answer.expect_err("a refusal");
    (status.code(), status.get_details_error_info().expect("a reason").reason)
}

fn unproved() -> (Code, String) {
    (Code::Unauthenticated, "UNAUTHENTICATED".to_owned())
}

#[tokio::test]
async fn a_password_gives_a_token_of_fifteen_minutes_that_others_verify() {
    let issuer = issuer().await;
    let token = issuer.sign_in("ADA@example.com", PASSWORD).await.expect("signed in");
    let name = format!("users/{}", issuer.user.id);
    assert_eq!((&*token.subject, &token.roles[..]), (&*name, &["customer".to_owned()][..]));
    assert_eq!(token.expires_in.map(|left| left.seconds), Some(15 * 60));
    let claims = issuer.claims(&token.access_token).await;
    assert_eq!((claims.sub, claims.roles), (name, token.roles));
    assert_eq!(claims.exp - claims.iat, 15 * 60);
    assert!(!token.refresh_token.is_empty());
}

#[tokio::test]
async fn a_client_secret_gives_a_token_of_an_hour_without_refresh() {
    let issuer = issuer().await;
    let token = issuer.issue(Some(by_secret("orders", SECRET))).await.expect("signed in");
    assert_eq!((&*token.subject, &*token.refresh_token), ("services/orders", ""));
    assert_eq!(token.expires_in.map(|left| left.seconds), Some(3_600));
    let claims = issuer.claims(&token.access_token).await;
    assert_eq!(
        (&*claims.sub, &claims.roles[..]),
        ("services/orders", &["service:orders".to_owned()][..])
    );
    for (id, secret) in [("orders", "wrong"), ("payments", SECRET), ("payments", "wrong")] {
        assert_eq!(told(issuer.issue(Some(by_secret(id, secret))).await), unproved(), "{id}");
    }
}

#[tokio::test]
async fn unknown_wrong_and_barred_get_the_same_answer() {
    let issuer = issuer().await;
    let wrong = issuer.sign_in("ada@example.com", "wrong horse battery").await.expect_err("wrong");
    let unknown = issuer.sign_in("eve@example.com", PASSWORD).await.expect_err("unknown");
    let no_address = issuer.sign_in("not an address", PASSWORD).await.expect_err("no address");
    let stored = issuer.store.user(issuer.user.id).await.expect("read").expect("there");
    let mut user = stored.user.clone();
    let happened = user.disable(clock::now()).expect("was active");
    issuer.store.save(&stored, user, happened, None, clock::now()).await.expect("saved");
    let barred = issuer.sign_in("ada@example.com", PASSWORD).await.expect_err("barred");
    assert_eq!(wrong.code(), Code::Unauthenticated);
    for other in [unknown, no_address, barred] {
        assert_eq!((other.code(), other.message()), (wrong.code(), wrong.message()));
        assert_eq!(other.details(), wrong.details());
    }
}

#[tokio::test]
async fn an_unknown_address_is_locked_like_a_known_one() {
    let issuer = issuer().await;
    let at = clock::now();
    for address in ["ada@example.com", "eve@example.com"] {
        for _ in 0..FAILURES_MAX {
            let attempt = Attempt { address: sha256(address.as_bytes()), proved: None };
            issuer.store.settle(attempt, at).await.expect("settled");
        }
    }
    let known = issuer.sign_in("Ada@example.com", PASSWORD).await.expect_err("locked");
    let unknown = issuer.sign_in("Eve@example.com", PASSWORD).await.expect_err("locked");
    assert_eq!(
        told::<()>(Err(known.clone())),
        (Code::ResourceExhausted, "RATE_LIMITED".to_owned())
    );
    assert_eq!((unknown.code(), unknown.message()), (known.code(), known.message()));
    let retry = known.get_details_retry_info().and_then(|info| info.retry_delay).expect("when");
    assert!(retry.as_secs() > 14 * 60, "{retry:?}");
}

#[tokio::test]
async fn a_refresh_token_used_twice_ends_its_session_and_no_other() {
    let issuer = issuer().await;
    let first = issuer.sign_in("ada@example.com", PASSWORD).await.expect("signed in");
    let other = issuer.sign_in("ada@example.com", PASSWORD).await.expect("signed in");
    let second = issuer.refresh(&first.refresh_token).await.expect("refreshed");
    assert_ne!(second.refresh_token, first.refresh_token);
    assert_eq!(issuer.claims(&second.access_token).await.sub, first.subject);
    let reused = (Code::Unauthenticated, "REFRESH_TOKEN_REUSED".to_owned());
    assert_eq!(told(issuer.refresh(&first.refresh_token).await), reused);
    assert_eq!(told(issuer.refresh(&second.refresh_token).await), unproved());
    issuer.refresh(&other.refresh_token).await.expect("another session goes on");
}

#[tokio::test]
async fn refreshing_tells_the_roles_of_today() {
    let issuer = issuer().await;
    let token = issuer.sign_in("ada@example.com", PASSWORD).await.expect("signed in");
    let stored = issuer.store.user(issuer.user.id).await.expect("read").expect("there");
    let mut user = stored.user.clone();
    let roles = Roles::parse(["customer", "support"]).expect("roles");
    let happened = user.set_roles(roles, clock::now()).expect("no refusal");
    issuer.store.save(&stored, user, happened, None, clock::now()).await.expect("saved");
    let token = issuer.refresh(&token.refresh_token).await.expect("refreshed");
    assert_eq!(token.roles, ["customer", "support"]);
}

#[tokio::test]
async fn a_revoked_session_is_over_and_revoking_tells_nothing() {
    let issuer = issuer().await;
    let first = issuer.sign_in("ada@example.com", PASSWORD).await.expect("signed in");
    let second = issuer.refresh(&first.refresh_token).await.expect("refreshed");
    issuer.revoke(&first.refresh_token).await.expect("a used one ends the session too");
    assert_eq!(told(issuer.refresh(&second.refresh_token).await), unproved());
    issuer.revoke("unknown").await.expect("the same answer");
}

#[tokio::test]
async fn every_bad_field_is_named() {
    let issuer = issuer().await;
    let long = "x".repeat(513);
    for (credential, field) in [
        (None, "credential"),
        (Some(by_password("", PASSWORD)), "password.email"),
        (Some(by_password(&long, PASSWORD)), "password.email"),
        (Some(by_password("ada@example.com", "")), "password.password"),
        (Some(by_password("ada@example.com", &long)), "password.password"),
        (Some(by_secret("", SECRET)), "client.client_id"),
        (Some(by_secret(&long, SECRET)), "client.client_id"),
        (Some(by_secret("orders", "")), "client.client_secret"),
        (Some(by_secret("orders", &long)), "client.client_secret"),
    ] {
        let status = issuer.issue(credential).await.expect_err(field);
        assert_eq!(violated(&status), field);
    }
    for token in ["", &long] {
        assert_eq!(violated(&issuer.refresh(token).await.expect_err("bad")), "refresh_token");
        assert_eq!(violated(&issuer.revoke(token).await.expect_err("bad")), "refresh_token");
    }
}

fn violated(status: &Status) -> String {
    assert_eq!(status.code(), Code::InvalidArgument);
    let bad = status.get_details_bad_request().expect("a field");
    bad.field_violations.first().expect("one").field.clone()
}

#[tokio::test]
async fn a_key_that_is_rotated_away_still_verifies_what_it_signed() {
    let issuer = issuer().await;
    let old = issuer.sign_in("ada@example.com", PASSWORD).await.expect("signed in");
    let hour = std::time::Duration::from_secs(3_600);
    let at = clock::now() + hour;
    jobs::rotate_keys(&issuer.store, &issuer.tokens.ring, hour, at).await.expect("rotated");
    assert_eq!(issuer.tokens.jwks().keys.len(), 2);
    issuer.claims(&old.access_token).await;
}
