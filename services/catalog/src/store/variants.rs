//! Variants with the price that holds at a time: read, listed, written.

use mesh::{
    clock::{from_micros, micros},
    money::{Currency, Money},
    outbox,
    store::{Failure, Txn, execute, row, rows},
};
use sea_orm::{FromQueryResult, Value};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Kept, OnSale, Store, Stored, StoredVariant, WriteError, broken, claim, prices};
use crate::{
    domain::{Amount, Sku, Title, Variant, VariantEvent},
    events,
};

/// A variant with its price at `$1`: one look into the index of prices for each.
const SELECT: &str = "SELECT v.sku, v.product, v.title, v.created_at, v.updated_at, v.revision, \
     p.id AS price, p.minor, p.currency, o.deleted_at \
     FROM variant v JOIN product o ON o.id = v.product \
     JOIN price p ON p.id = (SELECT q.id FROM price q WHERE q.sku = v.sku AND q.effective_at <= $1 \
     ORDER BY q.effective_at DESC, q.id DESC LIMIT 1)";

#[derive(FromQueryResult)]
struct Row {
    sku: String,
    product: String,
    title: String,
    created_at: i64,
    updated_at: i64,
    revision: i64,
    price: String,
    minor: i64,
    currency: String,
    deleted_at: Option<i64>,
}

impl Store {
    /// The variant of this SKU, with the price that holds at `at`.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn variant(
        &self,
        sku: &Sku,
        at: OffsetDateTime,
    ) -> Result<Option<StoredVariant>, Failure> {
        let sql = [SELECT, " WHERE v.sku = $2"].concat();
        let values = vec![micros(at).into(), sku.as_str().into()];
        let found: Option<Row> = row(self.mesh.reader(), "read a variant", &sql, values).await?;
        found.map(read).transpose()
    }

    /// The variants of these SKUs, in any order, those that exist.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn variants_of(
        &self,
        skus: &[Sku],
        at: OffsetDateTime,
    ) -> Result<Vec<StoredVariant>, Failure> {
        let marks: Vec<String> = (2..).take(skus.len()).map(|n: usize| format!("${n}")).collect();
        let sql = [SELECT, " WHERE v.sku IN (", &marks.join(", "), ")"].concat();
        let mut values: Vec<Value> = vec![micros(at).into()];
        values.extend(skus.iter().map(|sku| Value::from(sku.as_str())));
        let found: Vec<Row> = rows(self.mesh.reader(), "read variants", &sql, values).await?;
        found.into_iter().map(read).collect()
    }

    /// At most `limit` variants in the order of their SKUs, those after `after`; of one product
    /// alone, if it is given.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn variants(
        &self,
        after: &str,
        product: Option<Uuid>,
        limit: u64,
        at: OffsetDateTime,
    ) -> Result<Vec<StoredVariant>, Failure> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut values: Vec<Value> = vec![micros(at).into(), after.into(), limit.into()];
        let of_one = match product {
            Some(product) => {
                values.push(product.to_string().into());
                " AND v.product = $4"
            }
            None => "",
        };
        let sql = [SELECT, " WHERE v.sku > $2", of_one, " ORDER BY v.sku LIMIT $3"].concat();
        let found: Vec<Row> = rows(self.mesh.reader(), "list variants", &sql, values).await?;
        found.into_iter().map(read).collect()
    }

    /// Writes a new variant with its first price, its event and the answer of the call.
    ///
    /// # Errors
    /// [`WriteError::Taken`] if there is one of this SKU, [`WriteError::Repeated`] if the call
    /// was answered already, or the database failed.
    pub async fn add_variant(
        &self,
        variant: Variant,
        event: VariantEvent,
        kept: Option<Kept>,
    ) -> Result<(), WriteError> {
        self.mesh
            .transaction(move |txn| {
                let (variant, event, kept) = (variant.clone(), event.clone(), kept.clone());
                Box::pin(async move {
                    claim(txn, kept.as_ref(), variant.created_at).await?;
                    insert(txn, &variant).await?;
                    publish(txn, &variant, true, &event, 1).await
                })
            })
            .await
    }

    /// Writes what happened to a variant, with its event and the answer of the call.
    ///
    /// # Errors
    /// [`WriteError::Changed`] if it is no longer as it was read, [`WriteError::Repeated`] if the
    /// call was answered already, or the database failed.
    pub async fn save_variant(
        &self,
        read: &StoredVariant,
        variant: Variant,
        event: VariantEvent,
        kept: Option<Kept>,
    ) -> Result<(), WriteError> {
        let (revision, active) = (read.revision, read.value.active);
        self.mesh
            .transaction(move |txn| {
                let (variant, event, kept) = (variant.clone(), event.clone(), kept.clone());
                Box::pin(async move {
                    claim(txn, kept.as_ref(), variant.updated_at).await?;
                    update(txn, revision, &variant).await?;
                    publish(txn, &variant, active, &event, revision + 1).await
                })
            })
            .await
    }
}

async fn insert(txn: &Txn, variant: &Variant) -> Result<(), WriteError> {
    let sql = "INSERT INTO variant (sku, product, title, created_at, updated_at, revision) \
         VALUES ($1, $2, $3, $4, $4, 1) ON CONFLICT DO NOTHING";
    let values = vec![
        variant.sku.as_str().into(),
        variant.product.to_string().into(),
        variant.title.as_str().into(),
        micros(variant.created_at).into(),
    ];
    match execute(txn, "add a variant", sql, values).await? {
        0 => Err(WriteError::Taken),
        _one => Ok(()),
    }
}

async fn update(txn: &Txn, revision: i64, variant: &Variant) -> Result<(), WriteError> {
    let sql = "UPDATE variant SET title = $2, updated_at = $3, revision = revision + 1 \
         WHERE sku = $1 AND revision = $4";
    let values = vec![
        variant.sku.as_str().into(),
        variant.title.as_str().into(),
        micros(variant.updated_at).into(),
        revision.into(),
    ];
    match execute(txn, "change a variant", sql, values).await? {
        0 => Err(WriteError::Changed),
        _one => Ok(()),
    }
}

/// The event, and the price that it brings.
async fn publish(
    txn: &Txn,
    variant: &Variant,
    active: bool,
    event: &VariantEvent,
    seq: i64,
) -> Result<(), WriteError> {
    match event {
        VariantEvent::Created(price) | VariantEvent::Priced(price) => {
            prices::append(txn, price).await?;
        }
        VariantEvent::Updated => {}
    }
    let fact = events::of_variant(variant, active, event);
    let name = events::variant_name(variant);
    Ok(outbox::append(txn, &name, seq, fact, variant.updated_at).await?)
}

fn read(row: Row) -> Result<StoredVariant, Failure> {
    let currency = Currency::parse(&row.currency).map_err(|_unknown| broken("currency"))?;
    let variant = Variant {
        sku: Sku::parse(&row.sku).map_err(|_problem| broken("sku"))?,
        product: Uuid::try_parse(&row.product).map_err(|_error| broken("product"))?,
        title: Title::parse(&row.title).map_err(|_problem| broken("title"))?,
        price: Amount::parse(Money::new(row.minor, currency))
            .map_err(|_problem| broken("price"))?,
        price_version: Uuid::try_parse(&row.price).map_err(|_error| broken("price"))?,
        created_at: from_micros(row.created_at),
        updated_at: from_micros(row.updated_at),
    };
    let value = OnSale { variant, active: row.deleted_at.is_none() };
    Ok(Stored { value, revision: row.revision })
}
