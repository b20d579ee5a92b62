//! Values of the domain as messages of the contract.

use mesh::{clock::timestamp, money::Money, resource};
use proto::{google::r#type::Money as MoneyMessage, users::v1 as api};

use crate::{
    domain::User,
    events::{name, state},
};

/// An account without its password.
pub(super) fn encode(user: &User, revision: i64) -> api::User {
    api::User {
        name: name(user),
        display_name: user.display_name.as_str().to_owned(),
        email: user.email.as_str().to_owned(),
        password: String::new(),
        roles: user.roles.names(),
        state: state(user.state).into(),
        order_limit: user.order_limit.map(money),
        create_time: Some(timestamp(user.created_at)),
        update_time: Some(timestamp(user.updated_at)),
        delete_time: user.deleted_at.map(timestamp),
        purge_time: user.purge_at().map(timestamp),
        etag: resource::etag(revision),
    }
}

/// What an order needs to know of its customer.
pub(super) fn customer(user: &User, active: bool) -> api::CheckCustomerResponse {
    api::CheckCustomerResponse {
        name: name(user),
        email: user.email.as_str().to_owned(),
        display_name: user.display_name.as_str().to_owned(),
        active,
        order_limit: user.order_limit.map(money),
    }
}

fn money(amount: Money) -> MoneyMessage {
    let (units, nanos) = amount.parts();
    MoneyMessage { currency_code: amount.currency.code().to_owned(), units, nanos }
}
