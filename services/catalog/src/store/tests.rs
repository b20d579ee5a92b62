//! What is kept, on both databases.

use mesh::{
    clock,
    money::{Currency, Money},
    store,
    testing::TestDb,
};
use sea_orm::FromQueryResult;
use time::Duration;

use super::*;
use crate::domain::{Amount, Description, ProductEvent, Sku, Title, VariantEvent};

mesh::on_both_databases! {
    Store;
    a_variant_is_read_with_the_price_that_holds
    the_slower_of_two_writers_is_refused_and_publishes_nothing
    an_id_belongs_to_one_row
}

#[derive(FromQueryResult)]
struct Published {
    aggregate: String,
    seq: i64,
}

fn amount(minor: i64) -> Amount {
    let currency = Currency::parse("EUR").expect("a currency");
    Amount::parse(Money::new(minor, currency)).expect("a price")
}

fn mug() -> (Product, ProductEvent) {
    let title = Title::parse("Mug").expect("a title");
    Product::create(clock::id(), title, Description::default(), clock::now())
}

async fn with_variant(store: &Store) -> Variant {
    let (product, event) = mug();
    store.add_product(product.clone(), event, None).await.expect("added");
    let (sku, title) = (Sku::parse("MUG").expect("a SKU"), Title::parse("Mug").expect("a title"));
    let (variant, event) =
        product.variant(sku, title, amount(999), clock::id(), clock::now()).expect("on sale");
    store.add_variant(variant.clone(), event, None).await.expect("added");
    variant
}

async fn a_variant_is_read_with_the_price_that_holds(db: TestDb) {
    let store = Store::on(db.store.clone());
    let mut variant = with_variant(&store).await;
    let now = variant.created_at;
    let stored = store.variant(&variant.sku, now).await.expect("reads").expect("exists");
    assert_eq!(stored.value, OnSale { variant: variant.clone(), active: true });

    let later = now + Duration::hours(1);
    let event = variant.set_price(clock::id(), amount(1_099), Some(later), now).expect("a price");
    store.save_variant(&stored, variant.clone(), event, None).await.expect("saved");
    for (at, expected) in [(now, 999), (later - Duration::seconds(1), 999), (later, 1_099)] {
        let found = store.variant(&variant.sku, at).await.expect("reads").expect("exists");
        assert_eq!(found.value.variant.price, amount(expected), "{at}");
    }
    let prices = store.prices("", Some(&variant.sku), 10).await.expect("reads");
    assert_eq!(prices.len(), 2);
    let unknown = Sku::parse("NONE").expect("a SKU");
    let found = store.variants_of(&[variant.sku.clone(), unknown], now).await.expect("reads");
    assert_eq!(found.len(), 1);
}

async fn the_slower_of_two_writers_is_refused_and_publishes_nothing(db: TestDb) {
    let store = Store::on(db.store.clone());
    let mut variant = with_variant(&store).await;
    let at = clock::now();
    let read = store.variant(&variant.sku, at).await.expect("reads").expect("exists");
    let event = variant.update(None, at);
    store.save_variant(&read, variant.clone(), event.clone(), None).await.expect("the faster");
    let slower = store.save_variant(&read, variant.clone(), event, None).await;
    assert!(matches!(slower, Err(WriteError::Changed)), "{slower:?}");

    let sql = "SELECT aggregate, seq FROM outbox WHERE aggregate = $1 ORDER BY seq";
    let published: Vec<Published> =
        store::rows(db.store.reader(), "read the outbox", sql, vec!["variants/MUG".into()])
            .await
            .expect("reads");
    let seqs: Vec<i64> = published.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, [1, 2], "{}", published.len());
    assert!(published.iter().all(|event| event.aggregate == "variants/MUG"));
}

async fn an_id_belongs_to_one_row(db: TestDb) {
    let store = Store::on(db.store.clone());
    let variant = with_variant(&store).await;
    let again = store.add_variant(variant, VariantEvent::Updated, None).await;
    assert!(matches!(again, Err(WriteError::Taken)), "{again:?}");
    let (product, event) = mug();
    store.add_product(product.clone(), event.clone(), None).await.expect("added");
    let again = store.add_product(product, event, None).await;
    assert!(matches!(again, Err(WriteError::Taken)), "{again:?}");
}
