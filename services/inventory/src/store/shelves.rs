//! The counters while they change: locked, moved, explained.

use mesh::{
    clock::{self, micros},
    store::{Failure, Txn, execute, rows},
};
use sea_orm::{FromQueryResult, Value};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Store, broken, movements};
use crate::{
    domain::{
        Movement, Place, Sku,
        allocation::{Shelf, Wanted},
        reservation::Move,
    },
    error::Error,
    events,
};

/// Why, by whom and when counters move.
pub(super) struct Because<'a> {
    /// The reservation that each movement is for.
    pub causes: &'a [(Uuid, Vec<Move>)],
    /// Who does it.
    pub actor: &'a str,
    /// When.
    pub at: OffsetDateTime,
}

#[derive(FromQueryResult)]
struct Row {
    sku: String,
    location: String,
    available: i64,
}

impl Store {
    /// What each place can give of what is wanted, locked until the transaction ends. Rows are
    /// locked in the order of their bytes, as everything here does: so nobody waits in a circle.
    pub(super) async fn shelves(
        &self,
        txn: &Txn,
        wanted: &[Wanted],
    ) -> Result<Vec<Shelf>, Failure> {
        let mut skus: Vec<&str> = wanted.iter().map(|line| line.sku.as_str()).collect();
        skus.sort_unstable();
        skus.dedup();
        let marks: Vec<String> = (1..=skus.len()).map(|n| format!("${n}")).collect();
        let order = if self.mesh.is_postgres() {
            r#" ORDER BY sku COLLATE "C", location COLLATE "C""#
        } else {
            " ORDER BY sku, location"
        };
        let sql = [
            "SELECT sku, location, on_hand - held - allocated AS available \
             FROM stock WHERE sku IN (",
            &marks.join(", "),
            ")",
            order,
            self.for_update(),
        ]
        .concat();
        let values = skus.into_iter().map(Value::from).collect();
        let found: Vec<Row> = rows(txn, "lock stock", &sql, values).await?;
        let shelf = |row: Row| {
            Ok(Shelf {
                sku: Sku::parse(&row.sku).map_err(|_bad| broken("sku"))?,
                place: Place::parse(&row.location).map_err(|_bad| broken("location"))?,
                available: row.available,
            })
        };
        found.into_iter().map(shelf).collect()
    }
}

/// Moves the counters of each row by its sum, rows in the order of their bytes, and appends a
/// movement for each cause.
pub(super) async fn apply(txn: &Txn, because: &Because<'_>) -> Result<(), Error> {
    let mut all: Vec<(&Move, Uuid)> = Vec::new();
    for (cause, moves) in because.causes {
        all.extend(moves.iter().map(|it| (it, *cause)));
    }
    // Stable: what is held and then allocated at once happens in this order.
    all.sort_by(|(a, _), (b, _)| (&a.sku, &a.place).cmp(&(&b.sku, &b.place)));
    let mut sums: Vec<Move> = Vec::new();
    for (it, _) in &all {
        match sums.last_mut() {
            Some(sum)
                if (&sum.sku, &sum.place, sum.movement) == (&it.sku, &it.place, it.movement) =>
            {
                sum.quantity += it.quantity;
            }
            Some(_) | None => sums.push((*it).clone()),
        }
    }
    for sum in &sums {
        apply_one(txn, sum, because.at).await?;
    }
    let moved: Vec<super::Moved> = all
        .into_iter()
        .map(|(it, cause)| super::Moved {
            id: clock::id(),
            sku: it.sku.clone(),
            place: it.place.clone(),
            movement: it.movement,
            quantity: it.quantity,
            reason: None,
            note: String::new(),
            cause: Some(cause),
            actor: because.actor.to_owned(),
            at: because.at,
        })
        .collect();
    Ok(movements::append(txn, &moved).await?)
}

/// The condition, not the look at the shelf before it, is what prevents that more is sold than
/// there is.
async fn apply_one(txn: &Txn, sum: &Move, at: OffsetDateTime) -> Result<(), Error> {
    let change = match sum.movement {
        Movement::Held => {
            "held = held + $1, revision = revision + 1, updated_at = $2 \
             WHERE sku = $3 AND location = $4 AND on_hand - held - allocated >= $1"
        }
        Movement::HoldReleased | Movement::HoldExpired => {
            "held = held - $1, revision = revision + 1, updated_at = $2 \
             WHERE sku = $3 AND location = $4 AND held >= $1"
        }
        Movement::Allocated => {
            "held = held - $1, allocated = allocated + $1, revision = revision + 1, \
             updated_at = $2 WHERE sku = $3 AND location = $4 AND held >= $1"
        }
        Movement::Deallocated => {
            "allocated = allocated - $1, revision = revision + 1, updated_at = $2 \
             WHERE sku = $3 AND location = $4 AND allocated >= $1"
        }
        Movement::Shipped => {
            "on_hand = on_hand - $1, allocated = allocated - $1, revision = revision + 1, \
             updated_at = $2 WHERE sku = $3 AND location = $4 AND allocated >= $1"
        }
        Movement::Returned => {
            "on_hand = on_hand + $1, revision = revision + 1, updated_at = $2 \
             WHERE sku = $3 AND location = $4"
        }
        Movement::Received | Movement::Adjusted => {
            return Err(broken("movement").into());
        }
    };
    let sql = ["UPDATE stock SET ", change].concat();
    let values = vec![
        sum.quantity.into(),
        micros(at).into(),
        sum.sku.as_str().into(),
        sum.place.as_str().into(),
    ];
    match execute(txn, "move stock", &sql, values).await? {
        0 => Err(Error::Changed(events::stock_name(&sum.place, &sum.sku))),
        _one => Ok(()),
    }
}
