//! Accounts: read, listed, opened, changed, erased.

use mesh::{
    clock::{from_micros, micros},
    money::{Currency, Money},
    outbox,
    store::{Failure, Txn, execute, row, rows},
};
use sea_orm::{FromQueryResult, Value};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Kept, Store, Stored, WriteError, claim};
use crate::{
    domain::{
        Event, State, User,
        values::{DisplayName, Email, PasswordHash, Roles},
    },
    events,
};

/// How many deleted accounts are erased in one transaction.
const ERASED_AT_ONCE: i64 = 500;

const COLUMNS: &str = "id, display_name, email, password_hash, roles, state, order_limit_minor, \
     order_limit_currency, created_at, updated_at, deleted_at, revision";

#[derive(FromQueryResult)]
struct Account {
    id: String,
    display_name: String,
    email: String,
    password_hash: String,
    roles: String,
    state: String,
    order_limit_minor: Option<i64>,
    order_limit_currency: Option<String>,
    created_at: i64,
    updated_at: i64,
    deleted_at: Option<i64>,
    revision: i64,
}

impl Store {
    /// The account of this id; `None` also after its personal data was erased.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn user(&self, id: Uuid) -> Result<Option<Stored>, Failure> {
        let sql = format!("SELECT {COLUMNS} FROM account WHERE id = $1 AND erased_at IS NULL");
        self.one(&sql, id.to_string()).await
    }

    /// The account that signs in with this address.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn by_email(&self, email: &Email) -> Result<Option<Stored>, Failure> {
        let sql = format!("SELECT {COLUMNS} FROM account WHERE email_key = $1");
        self.one(&sql, email.key()).await
    }

    /// At most `limit` accounts in the order of their ids, those after `after`.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn list(
        &self,
        after: &str,
        with_deleted: bool,
        limit: u64,
    ) -> Result<Vec<Stored>, Failure> {
        let shown = if with_deleted { "erased_at IS NULL" } else { "deleted_at IS NULL" };
        let sql =
            format!("SELECT {COLUMNS} FROM account WHERE id > $1 AND {shown} ORDER BY id LIMIT $2");
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let found: Vec<Account> =
            rows(self.mesh.reader(), "list users", &sql, vec![after.into(), limit.into()]).await?;
        found.into_iter().map(read).collect()
    }

    /// Writes a new account with its events and the answer of the call.
    ///
    /// # Errors
    /// [`WriteError::Taken`] if the address or the id is another account's,
    /// [`WriteError::Repeated`] if the call was answered already, or the database failed.
    pub async fn open(
        &self,
        user: User,
        happened: Vec<Event>,
        kept: Option<Kept>,
        at: OffsetDateTime,
    ) -> Result<(), WriteError> {
        self.mesh
            .transaction(move |txn| {
                let (user, happened, kept) = (user.clone(), happened.clone(), kept.clone());
                Box::pin(async move {
                    claim(txn, kept.as_ref(), at).await?;
                    insert(txn, &user).await?;
                    publish(txn, &user, &happened, 1, at).await
                })
            })
            .await
    }

    /// Writes what happened to an account with its events and the answer of the call.
    ///
    /// # Errors
    /// [`WriteError::Changed`] if the account is no longer as it was read,
    /// [`WriteError::Taken`] if the new address is another account's, [`WriteError::Repeated`]
    /// if the call was answered already, or the database failed.
    pub async fn save(
        &self,
        read: &Stored,
        user: User,
        happened: Vec<Event>,
        kept: Option<Kept>,
        at: OffsetDateTime,
    ) -> Result<(), WriteError> {
        let revision = read.revision;
        self.mesh
            .transaction(move |txn| {
                let (user, happened, kept) = (user.clone(), happened.clone(), kept.clone());
                Box::pin(async move {
                    claim(txn, kept.as_ref(), at).await?;
                    if happened.is_empty() {
                        return Ok(());
                    }
                    update(txn, &user, revision, revision + events(&happened)).await?;
                    if happened.iter().any(Event::ends_sessions) {
                        end_sessions(txn, user.id, at).await?;
                    }
                    publish(txn, &user, &happened, revision + 1, at).await
                })
            })
            .await
    }

    /// Erases the personal data of accounts that were deleted before `before`; says of how many,
    /// and is to be called again while it is not zero.
    ///
    /// # Errors
    /// The database failed.
    pub async fn erase(&self, before: OffsetDateTime, at: OffsetDateTime) -> Result<u64, Failure> {
        let sql = "UPDATE account SET display_name = '', email = '', email_key = NULL, \
             password_hash = '', order_limit_minor = NULL, order_limit_currency = NULL, \
             erased_at = $1 \
             WHERE id IN (SELECT id FROM account WHERE deleted_at <= $2 AND erased_at IS NULL \
             ORDER BY deleted_at LIMIT $3) AND erased_at IS NULL";
        self.mesh
            .transaction(move |txn| {
                let values = vec![micros(at).into(), micros(before).into(), ERASED_AT_ONCE.into()];
                Box::pin(execute(txn, "erase deleted users", sql, values))
            })
            .await
    }

    async fn one(&self, sql: &str, key: String) -> Result<Option<Stored>, Failure> {
        let found: Option<Account> =
            row(self.mesh.reader(), "read a user", sql, vec![key.into()]).await?;
        found.map(read).transpose()
    }
}

async fn insert(txn: &Txn, user: &User) -> Result<(), WriteError> {
    #[derive(FromQueryResult)]
    struct Others {
        same_email: i64,
    }
    let sql = "INSERT INTO account (id, display_name, email, email_key, password_hash, roles, \
         state, order_limit_minor, order_limit_currency, updated_at, deleted_at, created_at, \
         revision) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 1) \
         ON CONFLICT DO NOTHING";
    let mut values = columns(user);
    values.push(micros(user.created_at).into());
    if execute(txn, "open a user", sql, values).await? == 1 {
        return Ok(());
    }
    let sql = "SELECT COUNT(*) AS same_email FROM account WHERE email_key = $1";
    let others: Option<Others> =
        row(txn, "open a user", sql, vec![user.email.key().into()]).await?;
    let same_email = others.is_some_and(|others| others.same_email > 0);
    Err(WriteError::Taken(if same_email { "user.email" } else { "user_id" }))
}

async fn update(txn: &Txn, user: &User, read: i64, revision: i64) -> Result<(), WriteError> {
    let sql = "UPDATE account SET display_name = $2, email = $3, email_key = $4, \
         password_hash = $5, roles = $6, state = $7, order_limit_minor = $8, \
         order_limit_currency = $9, updated_at = $10, deleted_at = $11, revision = $12 \
         WHERE id = $1 AND revision = $13 AND erased_at IS NULL";
    let mut values = columns(user);
    values.extend([revision.into(), read.into()]);
    match execute(txn, "change a user", sql, values).await {
        Ok(0) => Err(WriteError::Changed),
        Ok(_one) => Ok(()),
        // The id never changes, so it is the address.
        Err(failure) if failure.is_duplicate() => Err(WriteError::Taken("user.email")),
        Err(failure) => Err(failure.into()),
    }
}

/// Every event takes one revision, from `first` on; the account's row was written before.
async fn publish(
    txn: &Txn,
    user: &User,
    happened: &[Event],
    first: i64,
    at: OffsetDateTime,
) -> Result<(), WriteError> {
    let aggregate = events::name(user);
    for (event, revision) in happened.iter().zip(first..) {
        outbox::append(txn, &aggregate, revision, events::published(user, event), at).await?;
    }
    Ok(())
}

async fn end_sessions(txn: &Txn, id: Uuid, at: OffsetDateTime) -> Result<(), Failure> {
    let sql = "UPDATE refresh_family SET revoked_at = $1 WHERE account = $2 AND revoked_at IS NULL";
    let values = vec![micros(at).into(), id.to_string().into()];
    execute(txn, "end the sessions of a user", sql, values).await.map(|_ended| ())
}

/// How many revisions the events take.
fn events(happened: &[Event]) -> i64 {
    i64::try_from(happened.len()).unwrap_or(i64::MAX)
}

/// The values of `$1` to `$11`.
fn columns(user: &User) -> Vec<Value> {
    vec![
        user.id.to_string().into(),
        user.display_name.as_str().into(),
        user.email.as_str().into(),
        user.email.key().into(),
        user.password.as_str().into(),
        user.roles.names().join(",").into(),
        user.state.as_str().into(),
        user.order_limit.map(|limit| limit.minor).into(),
        user.order_limit.map(|limit| limit.currency.to_string()).into(),
        micros(user.updated_at).into(),
        user.deleted_at.map(micros).into(),
    ]
}

/// The account of a row. What does not read is a failure: it was written by this module.
fn read(account: Account) -> Result<Stored, Failure> {
    let broken = |what: &'static str| Failure::new("read a user", format!("{what} is malformed"));
    let order_limit = match (account.order_limit_minor, account.order_limit_currency) {
        (Some(minor), Some(code)) => {
            let currency = Currency::parse(&code).map_err(|_unknown| broken("currency"))?;
            Some(Money { minor, currency })
        }
        _ => None,
    };
    let user = User {
        id: Uuid::try_parse(&account.id).map_err(|_error| broken("id"))?,
        display_name: DisplayName::parse(&account.display_name)
            .map_err(|_problem| broken("display_name"))?,
        email: Email::parse(&account.email).map_err(|_problem| broken("email"))?,
        password: PasswordHash::new(account.password_hash),
        roles: Roles::parse(account.roles.split(',')).map_err(|_problem| broken("roles"))?,
        state: State::parse(&account.state).ok_or_else(|| broken("state"))?,
        order_limit,
        created_at: from_micros(account.created_at),
        updated_at: from_micros(account.updated_at),
        deleted_at: account.deleted_at.map(from_micros),
    };
    Ok(Stored { user, revision: account.revision })
}
