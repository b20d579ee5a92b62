//! What is published: each event of the domain as a message of the contract.

use mesh::{clock::timestamp, money::Money, outbox::Fact};
use proto::{catalog::v1 as api, google::r#type::Money as MoneyMessage};

use crate::domain::{Price, Product, ProductEvent, Variant, VariantEvent};

/// The event as it leaves, with the product as it is after it.
#[must_use]
pub fn of_product(product: &Product, event: &ProductEvent) -> Fact {
    let (name, title) = (product_name(product), product.title.as_str().to_owned());
    let time = Some(timestamp(product.updated_at));
    match event {
        ProductEvent::Created => Fact::of(
            "product.created",
            &api::ProductCreated { product: name, title, create_time: time },
        ),
        ProductEvent::Updated => Fact::of(
            "product.updated",
            &api::ProductUpdated { product: name, title, update_time: time },
        ),
        ProductEvent::Deleted => {
            Fact::of("product.deleted", &api::ProductDeleted { product: name, delete_time: time })
        }
    }
}

/// The event as it leaves, with the variant as it is after it.
#[must_use]
pub fn of_variant(variant: &Variant, active: bool, event: &VariantEvent) -> Fact {
    let (name, title) = (variant_name(variant), variant.title.as_str().to_owned());
    let time = Some(timestamp(variant.updated_at));
    match event {
        VariantEvent::Created(Price { amount, .. }) => Fact::of(
            "product.variant_created",
            &api::VariantCreated {
                variant: name,
                product: format!("products/{}", variant.product),
                title,
                price: Some(money((*amount).into())),
                create_time: time,
            },
        ),
        VariantEvent::Updated => Fact::of(
            "product.variant_updated",
            &api::VariantUpdated { variant: name, title, active, update_time: time },
        ),
        VariantEvent::Priced(Price { id, amount, effective_at, .. }) => Fact::of(
            "product.price_changed",
            &api::PriceChanged {
                variant: name,
                price_version: id.to_string(),
                price: Some(money((*amount).into())),
                effective_time: Some(timestamp(*effective_at)),
                update_time: time,
            },
        ),
    }
}

/// The name of a product, which is also the aggregate of its events.
#[must_use]
pub fn product_name(product: &Product) -> String {
    format!("products/{}", product.id)
}

/// The name of a variant, which is also the aggregate of its events.
#[must_use]
pub fn variant_name(variant: &Variant) -> String {
    format!("variants/{}", variant.sku.as_str())
}

/// An amount as the contract spells it.
#[must_use]
pub fn money(money: Money) -> MoneyMessage {
    let (units, nanos) = money.parts();
    MoneyMessage { currency_code: money.currency.code().to_owned(), units, nanos }
}
