//! Locations: added, read, listed.

use mesh::{
    clock::{from_micros, micros},
    idempotency::Answer,
    store::{Failure, Txn, execute, row, rows},
};
use sea_orm::{ConnectionTrait, FromQueryResult};

use super::{Call, Location, Store, broken};
use crate::{domain::Place, error::Error, events};

#[derive(FromQueryResult)]
struct Row {
    id: String,
    display_name: String,
    created_at: i64,
}

impl Store {
    /// Adds a location.
    ///
    /// # Errors
    /// The `request_id` was used otherwise, or the database failed. A refusal is an answer.
    pub async fn add_location(
        &self,
        call: Call<Location>,
        location: Location,
    ) -> Result<Answer, Error> {
        self.mesh
            .transaction(move |txn| {
                let (call, location) = (call.clone(), location.clone());
                Box::pin(async move {
                    let name = events::location_name(&location.place);
                    if let Some(answer) = call.once.begin(txn, &name, call.at).await? {
                        return Ok(answer);
                    }
                    let decided = match insert(txn, &location).await? {
                        0 => Err(Error::Taken(name)),
                        _one => Ok((call.tell)(&location)),
                    };
                    call.once.end(txn, decided).await
                })
            })
            .await
    }

    /// The location of this id.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn location(&self, place: &Place) -> Result<Option<Location>, Failure> {
        location(self.mesh.reader(), place).await
    }

    /// At most `limit` locations in the order of their ids, those after `after`.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn locations(&self, after: &str, limit: u64) -> Result<Vec<Location>, Failure> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let sql = "SELECT * FROM location WHERE id > $1 ORDER BY id LIMIT $2";
        let values = vec![after.into(), limit.into()];
        let found: Vec<Row> = rows(self.mesh.reader(), "list locations", sql, values).await?;
        found.into_iter().map(read).collect()
    }
}

pub(super) async fn location<C: ConnectionTrait>(
    conn: &C,
    place: &Place,
) -> Result<Option<Location>, Failure> {
    let sql = "SELECT * FROM location WHERE id = $1";
    let found: Option<Row> = row(conn, "read a location", sql, vec![place.as_str().into()]).await?;
    found.map(read).transpose()
}

async fn insert(txn: &Txn, location: &Location) -> Result<u64, Failure> {
    let sql = "INSERT INTO location (id, display_name, created_at) VALUES ($1, $2, $3) \
         ON CONFLICT DO NOTHING";
    let values = vec![
        location.place.as_str().into(),
        location.display_name.as_str().into(),
        micros(location.created_at).into(),
    ];
    execute(txn, "add a location", sql, values).await
}

fn read(row: Row) -> Result<Location, Failure> {
    Ok(Location {
        place: Place::parse(&row.id).map_err(|_bad| broken("location"))?,
        display_name: row.display_name,
        created_at: from_micros(row.created_at),
    })
}
