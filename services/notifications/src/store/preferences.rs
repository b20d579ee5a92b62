//! What people want to be told.

use mesh::{
    clock::{from_micros, micros},
    idempotency::{self, Claim},
    store::{Failure, Txn, execute, rows},
};
use sea_orm::FromQueryResult;
use uuid::Uuid;

use super::{Kept, Store, WriteError, rows::kind};
use crate::domain::Preferences;

/// Preferences as they are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// What is in them.
    pub preferences: Preferences,
    /// How often they were written.
    pub revision: i64,
}

impl Store {
    /// What a person wants to be told: everything, if they never said.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn preferences(&self, user: Uuid) -> Result<Stored, Failure> {
        #[derive(FromQueryResult)]
        struct Row {
            revision: i64,
            updated_at: i64,
            kind: Option<String>,
        }
        // In one statement: the kinds are those of this revision.
        let sql = "SELECT preferences.revision, preferences.updated_at, muted.kind \
             FROM preferences LEFT JOIN muted ON muted.recipient = $2 \
             WHERE preferences.user_id = $1";
        let values = vec![user.to_string().into(), recipient(user).into()];
        let found: Vec<Row> = rows(self.mesh.reader(), "read preferences", sql, values).await?;
        let mut stored = Stored { preferences: Preferences::of(user), revision: 0 };
        for row in found {
            stored.revision = row.revision;
            stored.preferences.updated_at = Some(from_micros(row.updated_at));
            if let Some(name) = row.kind {
                stored.preferences.muted.insert(kind(&name)?);
            }
        }
        Ok(stored)
    }

    /// Writes what a person wants to be told, with the answer of the call.
    ///
    /// # Errors
    /// [`WriteError::Changed`] if it is no longer at the revision that was read,
    /// [`WriteError::Repeated`] if the call was answered already, or the database failed.
    pub async fn save_preferences(
        &self,
        stored: Stored,
        kept: Option<Kept>,
    ) -> Result<(), WriteError> {
        self.mesh
            .transaction(move |txn| {
                let (stored, kept) = (stored.clone(), kept.clone());
                Box::pin(async move {
                    let Stored { preferences, revision: read } = stored;
                    let at = preferences.updated_at.map_or(0, micros);
                    if let Some(Kept { key, answer }) = kept {
                        match idempotency::claim(txn, &key, &answer, from_micros(at)).await? {
                            Claim::First => {}
                            Claim::Repeated => return Err(WriteError::Repeated),
                        }
                    }
                    advance(txn, preferences.user, read, at).await?;
                    let who = recipient(preferences.user);
                    let sql = "DELETE FROM muted WHERE recipient = $1";
                    execute(txn, "change preferences", sql, vec![who.as_str().into()]).await?;
                    for kind in preferences.muted {
                        let sql = "INSERT INTO muted (recipient, kind) VALUES ($1, $2)";
                        let values = vec![who.as_str().into(), kind.as_str().into()];
                        execute(txn, "change preferences", sql, values).await?;
                    }
                    Ok(())
                })
            })
            .await
    }
}

/// Moves the row on from the revision that was read.
async fn advance(txn: &Txn, user: Uuid, read: i64, at: i64) -> Result<(), WriteError> {
    let (sql, mut values) = if read == 0 {
        let sql = "INSERT INTO preferences (user_id, revision, updated_at) VALUES ($1, 1, $2) \
             ON CONFLICT DO NOTHING";
        (sql, Vec::new())
    } else {
        let sql = "UPDATE preferences SET revision = revision + 1, updated_at = $2 \
             WHERE user_id = $1 AND revision = $3";
        (sql, vec![read.into()])
    };
    values.splice(0..0, [user.to_string().into(), at.into()]);
    match execute(txn, "change preferences", sql, values).await? {
        0 => Err(WriteError::Changed),
        _one => Ok(()),
    }
}

/// Whose preferences, as notifications name them.
fn recipient(user: Uuid) -> String {
    format!("users/{user}")
}
