//! What tokens are signed with, and what services sign in with.

use mesh::{
    clock::{from_micros, micros},
    store::{Failure, execute, row, rows},
};
use sea_orm::FromQueryResult;
use time::OffsetDateTime;

use super::Store;
use crate::domain::keys::Key;

#[derive(FromQueryResult)]
struct SigningKey {
    generation: i64,
    pkcs8: Vec<u8>,
    active_at: i64,
}

#[derive(FromQueryResult)]
struct Client {
    secret_hash: Vec<u8>,
}

impl Store {
    /// The keys in the order of their generations, with their private halves.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn signing_keys(&self) -> Result<Vec<(Key, Vec<u8>)>, Failure> {
        let sql = "SELECT generation, pkcs8, active_at FROM signing_key ORDER BY generation";
        let found: Vec<SigningKey> =
            rows(self.mesh.reader(), "read the signing keys", sql, vec![]).await?;
        let key = |row: SigningKey| {
            let active_at = from_micros(row.active_at);
            (Key { generation: row.generation, active_at }, row.pkcs8)
        };
        Ok(found.into_iter().map(key).collect())
    }

    /// Keeps a new key, unless another replica was first with its generation.
    ///
    /// # Errors
    /// The database failed.
    pub async fn add_signing_key(
        &self,
        key: Key,
        pkcs8: Vec<u8>,
        at: OffsetDateTime,
    ) -> Result<(), Failure> {
        let sql = "INSERT INTO signing_key (generation, pkcs8, active_at, created_at) \
             VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";
        self.mesh
            .transaction(move |txn| {
                let active_at = micros(key.active_at);
                let values = vec![
                    key.generation.into(),
                    pkcs8.clone().into(),
                    active_at.into(),
                    micros(at).into(),
                ];
                Box::pin(async move {
                    execute(txn, "keep a signing key", sql, values).await.map(|_first| ())
                })
            })
            .await
    }

    /// Forgets a key that no valid token was signed with.
    ///
    /// # Errors
    /// The database failed.
    pub async fn forget_signing_key(&self, generation: i64) -> Result<(), Failure> {
        let sql = "DELETE FROM signing_key WHERE generation = $1";
        self.mesh
            .transaction(move |txn| {
                let values = vec![generation.into()];
                Box::pin(async move {
                    execute(txn, "forget a signing key", sql, values).await.map(|_gone| ())
                })
            })
            .await
    }

    /// The SHA-256 of the secret of a service.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn client_secret(&self, name: &str) -> Result<Option<Vec<u8>>, Failure> {
        let sql = "SELECT secret_hash FROM client WHERE name = $1";
        let found: Option<Client> =
            row(self.mesh.reader(), "read a client", sql, vec![name.into()]).await?;
        Ok(found.map(|client| client.secret_hash))
    }

    /// Sets the secret of a service; says whether it is another than before.
    ///
    /// # Errors
    /// The database failed.
    pub async fn set_client_secret(
        &self,
        name: String,
        hash: Vec<u8>,
        at: OffsetDateTime,
    ) -> Result<bool, Failure> {
        let sql = "INSERT INTO client (name, secret_hash, updated_at) VALUES ($1, $2, $3) \
             ON CONFLICT (name) DO UPDATE SET secret_hash = excluded.secret_hash, \
             updated_at = excluded.updated_at WHERE client.secret_hash <> excluded.secret_hash";
        self.mesh
            .transaction(move |txn| {
                let values = vec![name.clone().into(), hash.clone().into(), micros(at).into()];
                Box::pin(async move {
                    execute(txn, "keep a client", sql, values).await.map(|rows| rows == 1)
                })
            })
            .await
    }
}
