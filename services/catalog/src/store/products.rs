//! Products: read, listed, written.

use mesh::{
    clock::{from_micros, micros},
    outbox,
    store::{Failure, Txn, execute, row, rows},
};
use sea_orm::FromQueryResult;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Kept, Store, Stored, StoredProduct, WriteError, broken, claim};
use crate::{
    domain::{Description, Product, ProductEvent, Title},
    events,
};

#[derive(FromQueryResult)]
struct Row {
    id: String,
    title: String,
    description: String,
    created_at: i64,
    updated_at: i64,
    deleted_at: Option<i64>,
    revision: i64,
}

impl Store {
    /// The product of this id.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn product(&self, id: Uuid) -> Result<Option<StoredProduct>, Failure> {
        let sql = "SELECT * FROM product WHERE id = $1";
        let found: Option<Row> =
            row(self.mesh.reader(), "read a product", sql, vec![id.to_string().into()]).await?;
        found.map(read).transpose()
    }

    /// At most `limit` products in the order of their ids, those after `after`.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn products(
        &self,
        after: &str,
        with_deleted: bool,
        limit: u64,
    ) -> Result<Vec<StoredProduct>, Failure> {
        let sql = if with_deleted {
            "SELECT * FROM product WHERE id > $1 ORDER BY id LIMIT $2"
        } else {
            "SELECT * FROM product WHERE id > $1 AND deleted_at IS NULL ORDER BY id LIMIT $2"
        };
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let values = vec![after.into(), limit.into()];
        let found: Vec<Row> = rows(self.mesh.reader(), "list products", sql, values).await?;
        found.into_iter().map(read).collect()
    }

    /// Writes a new product with its event and the answer of the call.
    ///
    /// # Errors
    /// [`WriteError::Taken`] if there is one of this id, [`WriteError::Repeated`] if the call
    /// was answered already, or the database failed.
    pub async fn add_product(
        &self,
        product: Product,
        event: ProductEvent,
        kept: Option<Kept>,
    ) -> Result<(), WriteError> {
        self.mesh
            .transaction(move |txn| {
                let (product, event, kept) = (product.clone(), event.clone(), kept.clone());
                Box::pin(async move {
                    claim(txn, kept.as_ref(), product.created_at).await?;
                    insert(txn, &product).await?;
                    publish(txn, &product, &event, 1).await
                })
            })
            .await
    }

    /// Writes what happened to a product, with its event and the answer of the call.
    ///
    /// # Errors
    /// [`WriteError::Changed`] if it is no longer at `revision`, [`WriteError::Repeated`] if the
    /// call was answered already, or the database failed.
    pub async fn save_product(
        &self,
        revision: i64,
        product: Product,
        event: ProductEvent,
        kept: Option<Kept>,
    ) -> Result<(), WriteError> {
        self.mesh
            .transaction(move |txn| {
                let (product, event, kept) = (product.clone(), event.clone(), kept.clone());
                Box::pin(async move {
                    claim(txn, kept.as_ref(), product.updated_at).await?;
                    update(txn, revision, &product).await?;
                    publish(txn, &product, &event, revision + 1).await
                })
            })
            .await
    }
}

async fn insert(txn: &Txn, product: &Product) -> Result<(), WriteError> {
    let sql = "INSERT INTO product (id, title, description, created_at, updated_at, deleted_at, \
         revision) VALUES ($1, $2, $3, $4, $4, NULL, 1) ON CONFLICT DO NOTHING";
    let values = vec![
        product.id.to_string().into(),
        product.title.as_str().into(),
        product.description.as_str().into(),
        micros(product.created_at).into(),
    ];
    match execute(txn, "add a product", sql, values).await? {
        0 => Err(WriteError::Taken),
        _one => Ok(()),
    }
}

async fn update(txn: &Txn, revision: i64, product: &Product) -> Result<(), WriteError> {
    let sql = "UPDATE product SET title = $2, description = $3, updated_at = $4, deleted_at = $5, \
         revision = revision + 1 WHERE id = $1 AND revision = $6";
    let values = vec![
        product.id.to_string().into(),
        product.title.as_str().into(),
        product.description.as_str().into(),
        micros(product.updated_at).into(),
        product.deleted_at.map(micros).into(),
        revision.into(),
    ];
    match execute(txn, "change a product", sql, values).await? {
        0 => Err(WriteError::Changed),
        _one => Ok(()),
    }
}

async fn publish(
    txn: &Txn,
    product: &Product,
    event: &ProductEvent,
    seq: i64,
) -> Result<(), WriteError> {
    let fact = events::of_product(product, event);
    let at: OffsetDateTime = product.updated_at;
    Ok(outbox::append(txn, &events::product_name(product), seq, fact, at).await?)
}

fn read(row: Row) -> Result<StoredProduct, Failure> {
    let value = Product {
        id: Uuid::try_parse(&row.id).map_err(|_error| broken("id"))?,
        title: Title::parse(&row.title).map_err(|_problem| broken("title"))?,
        description: Description::parse(&row.description)
            .map_err(|_problem| broken("description"))?,
        created_at: from_micros(row.created_at),
        updated_at: from_micros(row.updated_at),
        deleted_at: row.deleted_at.map(from_micros),
    };
    Ok(Stored { value, revision: row.revision })
}
