//! Signing in and staying signed in: failures, families and refresh tokens.

use mesh::{
    clock::{from_micros, micros},
    store::{Failure, Txn, execute, row},
};
use sea_orm::FromQueryResult;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::Store;
use crate::domain::{
    State,
    session::{Exchange, FAILURE_WINDOW, Failures, REFRESH_TOKEN, Refresh, Verdict, verdict},
    values::{PasswordHash, Roles},
};

/// A try to sign in, after the password was checked.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The SHA-256 of the address that was given, in hexadecimal.
    pub address: String,
    /// Whose password it was, if it was the right one.
    pub proved: Option<Proved>,
}

/// Somebody knows the password of an account that may sign in.
#[derive(Clone, Debug)]
pub struct Proved {
    /// Whose.
    pub user: Uuid,
    /// What it was checked against: the session is not opened if that has changed since.
    pub password: PasswordHash,
    /// What is opened for them.
    pub opening: Opening,
}

/// A new refresh token.
#[derive(Clone, Debug)]
pub struct Opening {
    /// The sign-in that it descends from.
    pub family: Uuid,
    /// Its SHA-256, in hexadecimal.
    pub hash: String,
}

/// What a try to sign in came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// A family was opened.
    SignedIn,
    /// Wrong password, unknown address, or an account that may not sign in.
    Wrong,
    /// Too many failures: come again later.
    Locked(Duration),
}

/// What became of a refresh token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exchanged {
    /// The new one took its place.
    Granted {
        /// Whose it is.
        user: Uuid,
        /// What they may do now.
        roles: Roles,
    },
    /// It was used before; its family is revoked.
    Reused,
    /// It is good for nothing.
    Refused,
}

#[derive(FromQueryResult)]
struct FailureRow {
    failures: i64,
    since: i64,
}

#[derive(FromQueryResult)]
struct Session {
    family: String,
    account: String,
    roles: String,
    state: String,
    expires_at: i64,
    used_at: Option<i64>,
    revoked_at: Option<i64>,
}

#[derive(FromQueryResult)]
struct AccountState {
    state: String,
}

impl Store {
    /// How long an address stays locked, if it is. A look before the password is checked, to
    /// spare the work; [`Store::settle`] decides.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn locked(
        &self,
        address: &str,
        at: OffsetDateTime,
    ) -> Result<Option<Duration>, Failure> {
        let sql = "SELECT failures, since FROM sign_in_failure WHERE address = $1";
        let found: Option<FailureRow> =
            row(self.mesh.reader(), "read failures to sign in", sql, vec![address.into()]).await?;
        Ok(found.map(failures).and_then(|failures| failures.locked(at)))
    }

    /// Counts a failure, or opens a family of refresh tokens.
    ///
    /// # Errors
    /// The database failed.
    pub async fn settle(&self, attempt: Attempt, at: OffsetDateTime) -> Result<Settled, Failure> {
        let postgres = self.mesh.is_postgres();
        self.mesh
            .transaction(move |txn| {
                let attempt = attempt.clone();
                Box::pin(async move { settle(txn, postgres, &attempt, at).await })
            })
            .await
    }

    /// Exchanges the refresh token of this hash for a new one.
    ///
    /// # Errors
    /// The database failed.
    pub async fn exchange(
        &self,
        hash: String,
        new: String,
        at: OffsetDateTime,
    ) -> Result<Exchanged, Failure> {
        self.mesh
            .transaction(move |txn| {
                let (hash, new) = (hash.clone(), new.clone());
                Box::pin(async move { exchange(txn, &hash, &new, at).await })
            })
            .await
    }

    /// Revokes the family of the refresh token of this hash, if there is one.
    ///
    /// # Errors
    /// The database failed.
    pub async fn revoke(&self, hash: String, at: OffsetDateTime) -> Result<(), Failure> {
        let sql = "UPDATE refresh_family SET revoked_at = $1 WHERE revoked_at IS NULL \
             AND id = (SELECT family FROM refresh_token WHERE hash = $2)";
        self.mesh
            .transaction(move |txn| {
                let values = vec![micros(at).into(), hash.clone().into()];
                Box::pin(async move {
                    execute(txn, "revoke a refresh token", sql, values).await.map(|_ended| ())
                })
            })
            .await
    }

    /// Deletes sessions that ended and failures that no longer count.
    ///
    /// # Errors
    /// The database failed.
    pub async fn forget_sessions(&self, at: OffsetDateTime) -> Result<u64, Failure> {
        let families = "DELETE FROM refresh_family WHERE id IN \
             (SELECT id FROM refresh_family WHERE expires_at <= $1 ORDER BY expires_at LIMIT 1000)";
        // Before their families, which so need no cascade of thousands of rows.
        let tokens = "DELETE FROM refresh_token WHERE family IN \
             (SELECT id FROM refresh_family WHERE expires_at <= $1 ORDER BY expires_at LIMIT 1000)";
        let failures = "DELETE FROM sign_in_failure WHERE since <= $1";
        let doing = "forget ended sessions";
        self.mesh
            .transaction(move |txn| {
                Box::pin(async move {
                    let over = micros(at - FAILURE_WINDOW);
                    execute(txn, doing, failures, vec![over.into()]).await?;
                    execute(txn, doing, tokens, vec![micros(at).into()]).await?;
                    execute(txn, doing, families, vec![micros(at).into()]).await
                })
            })
            .await
    }
}

async fn settle(
    txn: &Txn,
    postgres: bool,
    attempt: &Attempt,
    at: OffsetDateTime,
) -> Result<Settled, Failure> {
    // An account that changed while its password was checked is signed in to anew.
    let proved = match &attempt.proved {
        Some(proved) if unchanged(txn, postgres, proved).await? => Some(proved),
        Some(_) | None => None,
    };
    let counted = counted(txn, &attempt.address, proved.is_none(), at).await?;
    match (verdict(counted, proved.is_some(), at), proved) {
        (Verdict::Locked { retry_after }, _) => Ok(Settled::Locked(retry_after)),
        (Verdict::Wrong(failures), _) => {
            let sql = "UPDATE sign_in_failure SET failures = $1, since = $2 WHERE address = $3";
            let values = vec![
                failures.count.into(),
                micros(failures.since).into(),
                attempt.address.as_str().into(),
            ];
            execute(txn, "count a failure to sign in", sql, values).await?;
            Ok(Settled::Wrong)
        }
        (Verdict::Right, Some(proved)) => {
            if counted.is_some() {
                let sql = "DELETE FROM sign_in_failure WHERE address = $1";
                let values = vec![attempt.address.as_str().into()];
                execute(txn, "forget failures to sign in", sql, values).await?;
            }
            open(txn, proved, at).await?;
            Ok(Settled::SignedIn)
        }
        (Verdict::Right, None) => Ok(Settled::Wrong),
    }
}

/// The failures of an address, its row locked against tries that run side by side. Nothing is
/// written for an address without failures, unless this try is one.
async fn counted(
    txn: &Txn,
    address: &str,
    failed: bool,
    at: OffsetDateTime,
) -> Result<Option<Failures>, Failure> {
    const DOING: &str = "count failures to sign in";
    let locked = if failed {
        // A row of no failures is there to be locked. The update changes nothing but locks it.
        let sql = "INSERT INTO sign_in_failure (address, failures, since) VALUES ($1, 0, $2) \
             ON CONFLICT (address) DO UPDATE SET failures = sign_in_failure.failures";
        execute(txn, DOING, sql, vec![address.into(), micros(at).into()]).await?
    } else {
        let sql = "UPDATE sign_in_failure SET failures = failures WHERE address = $1";
        execute(txn, DOING, sql, vec![address.into()]).await?
    };
    if locked == 0 {
        return Ok(None);
    }
    let sql = "SELECT failures, since FROM sign_in_failure WHERE address = $1";
    let found: Option<FailureRow> = row(txn, DOING, sql, vec![address.into()]).await?;
    Ok(found.map(failures).filter(|failures| failures.count > 0))
}

/// Whether the account may still sign in with the password that was checked. Holds it as it is
/// until the session is written: a new password ends sessions, and must not miss this one.
async fn unchanged(txn: &Txn, postgres: bool, proved: &Proved) -> Result<bool, Failure> {
    let lock = if postgres { " FOR SHARE" } else { "" };
    let sql = format!("SELECT state FROM account WHERE id = $1 AND password_hash = $2{lock}");
    let values = vec![proved.user.to_string().into(), proved.password.as_str().into()];
    let found: Option<AccountState> = row(txn, "read a user", &sql, values).await?;
    Ok(found.is_some_and(|account| account.state == State::Active.as_str()))
}

async fn open(txn: &Txn, proved: &Proved, at: OffsetDateTime) -> Result<(), Failure> {
    const DOING: &str = "open a session";
    let Proved { user, opening: Opening { family, hash }, .. } = proved;
    let sql = "INSERT INTO refresh_family (id, account, created_at, expires_at) \
         VALUES ($1, $2, $3, $4)";
    let expires = micros(at + REFRESH_TOKEN);
    let values =
        vec![family.to_string().into(), user.to_string().into(), micros(at).into(), expires.into()];
    execute(txn, DOING, sql, values).await?;
    add_token(txn, hash, &family.to_string(), expires).await
}

async fn add_token(txn: &Txn, hash: &str, family: &str, expires: i64) -> Result<(), Failure> {
    let sql = "INSERT INTO refresh_token (hash, family, expires_at) VALUES ($1, $2, $3)";
    let values = vec![hash.into(), family.into(), expires.into()];
    execute(txn, "keep a refresh token", sql, values).await.map(|_one| ())
}

async fn exchange(
    txn: &Txn,
    hash: &str,
    new: &str,
    at: OffsetDateTime,
) -> Result<Exchanged, Failure> {
    // Used up first: of two that come with the same token, the second waits here for the first.
    let sql = "UPDATE refresh_token SET used_at = $1 WHERE hash = $2 AND used_at IS NULL";
    let fresh = execute(txn, DOING, sql, vec![micros(at).into(), hash.into()]).await? == 1;
    let sql = "SELECT family, account, roles, state, token.expires_at, used_at, revoked_at \
         FROM refresh_token token JOIN refresh_family ON refresh_family.id = token.family \
         JOIN account ON account.id = refresh_family.account WHERE token.hash = $1";
    let found: Option<Session> = row(txn, DOING, sql, vec![hash.into()]).await?;
    let Some(session) = found else { return Ok(Exchanged::Refused) };
    let refresh = refresh(&session, fresh)?;
    let may_sign_in = session.state == State::Active.as_str();
    match refresh.exchange(at) {
        Exchange::Granted if may_sign_in => {
            let expires = micros(at + REFRESH_TOKEN);
            add_token(txn, new, &session.family, expires).await?;
            let sql = "UPDATE refresh_family SET expires_at = $1 WHERE id = $2";
            execute(txn, DOING, sql, vec![expires.into(), session.family.as_str().into()]).await?;
            let roles = Roles::parse(session.roles.split(','))
                .map_err(|_problem| Failure::new(DOING, "roles are malformed"))?;
            Ok(Exchanged::Granted { user: refresh.user, roles })
        }
        Exchange::Granted | Exchange::Refused => Ok(Exchanged::Refused),
        Exchange::Reused => {
            let sql = "UPDATE refresh_family SET revoked_at = $1 WHERE id = $2";
            execute(txn, DOING, sql, vec![micros(at).into(), session.family.into()]).await?;
            Ok(Exchanged::Reused)
        }
    }
}

const DOING: &str = "exchange a refresh token";

fn refresh(session: &Session, fresh: bool) -> Result<Refresh, Failure> {
    let id = |text: &str| {
        Uuid::try_parse(text).map_err(|_error| Failure::new(DOING, "an id is malformed"))
    };
    Ok(Refresh {
        family: id(&session.family)?,
        user: id(&session.account)?,
        expires_at: from_micros(session.expires_at),
        used: session.used_at.is_some() && !fresh,
        revoked: session.revoked_at.is_some(),
    })
}

fn failures(row: FailureRow) -> Failures {
    Failures { count: row.failures, since: from_micros(row.since) }
}
