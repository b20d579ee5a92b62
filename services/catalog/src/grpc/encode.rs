//! Values of the domain become messages.

use mesh::{clock::timestamp, resource};
use proto::catalog::v1 as api;

use crate::{
    domain::{Price, Product, State, Variant},
    events::{money, product_name, variant_name},
};

pub(super) fn product(product: &Product, revision: i64) -> api::Product {
    let state = match product.state() {
        State::Active => api::product::State::Active,
        State::Deleted => api::product::State::Deleted,
    };
    api::Product {
        name: product_name(product),
        title: product.title.as_str().to_owned(),
        description: product.description.as_str().to_owned(),
        state: state.into(),
        create_time: Some(timestamp(product.created_at)),
        update_time: Some(timestamp(product.updated_at)),
        delete_time: product.deleted_at.map(timestamp),
        etag: resource::etag(revision),
    }
}

pub(super) fn variant(variant: &Variant, active: bool, revision: i64) -> api::Variant {
    let state =
        if active { api::variant::State::Active } else { api::variant::State::Discontinued };
    api::Variant {
        name: variant_name(variant),
        product: format!("products/{}", variant.product),
        title: variant.title.as_str().to_owned(),
        price: Some(money(variant.price.into())),
        price_version: variant.price_version.to_string(),
        state: state.into(),
        create_time: Some(timestamp(variant.created_at)),
        update_time: Some(timestamp(variant.updated_at)),
        etag: resource::etag(revision),
    }
}

pub(super) fn price(price: &Price) -> api::Price {
    api::Price {
        name: format!("prices/{}", price.id),
        variant: format!("variants/{}", price.sku.as_str()),
        amount: Some(money(price.amount.into())),
        effective_time: Some(timestamp(price.effective_at)),
        create_time: Some(timestamp(price.created_at)),
    }
}
