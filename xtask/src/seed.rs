//! The demo data: what `up` puts into the mesh through the gateway, as any client would.
//!
//! Every step looks first and acts only if something is missing, so it may run at each start.

use std::fs;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::api::Api;
use crate::site::Site;
use crate::{clock, say};

/// Somebody of the demo. The passwords are no secret: the mesh of `up` listens on the loopback alone.
#[derive(Debug)]
pub(crate) struct Person {
    pub(crate) email: &'static str,
    pub(crate) password: &'static str,
    name: &'static str,
    roles: &'static [&'static str],
}

/// The customer.
pub(crate) const ADA: Person = Person {
    email: "ada@example.com",
    password: "ada loves the engine",
    name: "Ada Lovelace",
    roles: &["customer"],
};

/// The operator: answers customers, keeps the warehouse.
pub(crate) const GRACE: Person = Person {
    email: "grace@example.com",
    password: "a nanosecond of wire",
    name: "Grace Hopper",
    roles: &["support", "warehouse"],
};

/// The bootstrap admin; the password is in the secrets.
pub(crate) const ADMIN: &str = "admin@ordermesh.example";

/// Something to buy.
struct Ware {
    /// Chosen here, so that the product is found again.
    product: &'static str,
    sku: &'static str,
    title: &'static str,
    cents: u32,
}

const WARES: &[Ware] = &[
    Ware {
        product: "01900000-0000-7000-8000-000000000001",
        sku: "TEAPOT-BRASS",
        title: "Brass teapot",
        cents: 3_900,
    },
    Ware {
        product: "01900000-0000-7000-8000-000000000002",
        sku: "MUG-BLUE",
        title: "Blue mug",
        cents: 1_250,
    },
    Ware {
        product: "01900000-0000-7000-8000-000000000003",
        sku: "NOTEBOOK-A5",
        title: "Dotted notebook, A5",
        cents: 795,
    },
];

/// Where the demo's stock lies.
const LOCATION: &str = "main";

/// Stock is filled up below this.
const STOCK_MIN: i64 = 500;

/// How much comes then.
const DELIVERY: i64 = 5_000;

/// Puts in what is missing.
pub(crate) fn run(site: &Site) -> Result<()> {
    let begun = clock::now();
    let gateway = Api::new(&site.gateway());
    let admin_password = fs::read_to_string(site.secrets().join("admin-password"))
        .context("the admin's password is gone")?;
    let mut news = Vec::new();
    let admin = gateway.sign_in(ADMIN, admin_password.trim())?;
    let mut known = |person: &Person| match gateway.sign_in(person.email, person.password) {
        Ok(signed_in) => Ok(signed_in),
        Err(_not_yet) => {
            register(&gateway, &admin, person)?;
            news.push(person.email.to_owned());
            gateway.sign_in(person.email, person.password)
        }
    };
    known(&ADA)?;
    let operator = known(&GRACE)?;
    if operator.get(&format!("/v1/locations/{LOCATION}"))?.status == 404 {
        let body = json!({ "displayName": "Main warehouse" });
        operator
            .post(&format!("/v1/locations?locationId={LOCATION}"), &body)?
            .ok("add the demo's location")?;
    }
    for ware in WARES {
        if offer(&admin, ware)? | stock(&operator, ware)? {
            news.push(ware.sku.to_owned());
        }
    }
    let news = if news.is_empty() { "nothing was missing".to_owned() } else { news.join(", ") };
    say::note(&format!("demo data is in place after {}: {news}", clock::spoken(begun.elapsed())));
    Ok(())
}

fn register(gateway: &Api, admin: &Api, person: &Person) -> Result<()> {
    let body =
        json!({ "displayName": person.name, "email": person.email, "password": person.password });
    let made = gateway.post("/v1/users", &body)?.ok(&format!("register {}", person.email))?;
    if person.roles == ["customer"] {
        return Ok(());
    }
    let name = made.body["name"].as_str().context("the new user has no name")?;
    let roles = json!({ "roles": person.roles, "etag": made.body["etag"] });
    admin
        .post(&format!("/v1/{name}:setRoles"), &roles)?
        .ok(&format!("give {} roles", person.email))?;
    Ok(())
}

/// Fills up the stock of everything on offer, for a run that orders without end.
pub(crate) fn fill(site: &Site, delta: i64) -> Result<()> {
    let operator = Api::new(&site.gateway()).sign_in(GRACE.email, GRACE.password)?;
    WARES.iter().try_for_each(|ware| deliver(&operator, ware, delta))
}

/// Whether something had to be offered.
fn offer(admin: &Api, ware: &Ware) -> Result<bool> {
    if admin.get(&format!("/v1/products/{}", ware.product))?.status == 404 {
        let body = json!({ "title": ware.title, "description": "From the demo." });
        admin
            .post(&format!("/v1/products?productId={}", ware.product), &body)?
            .ok("add a product")?;
    }
    let found = admin.get(&format!("/v1/variants/{}", ware.sku))?;
    match found.status {
        200 => return Ok(false),
        404 => {}
        _ => bail!("cannot read variants/{}: {}", ware.sku, found.body),
    }
    let body = json!({ "product": format!("products/{}", ware.product), "title": ware.title, "price": price(ware) });
    admin.post(&format!("/v1/variants?variantId={}", ware.sku), &body)?.ok("add a variant")?;
    Ok(true)
}

/// Whether stock had to be filled up.
fn stock(operator: &Api, ware: &Ware) -> Result<bool> {
    let name = format!("stocks/{LOCATION}~{}", ware.sku);
    let found = operator.get(&format!("/v1/{name}"))?;
    // 64-bit numbers are text in JSON.
    let available =
        found.body["available"].as_str().and_then(|it| it.parse::<i64>().ok()).unwrap_or(0);
    if found.status == 200 && available >= STOCK_MIN {
        return Ok(false);
    }
    deliver(operator, ware, DELIVERY)?;
    Ok(true)
}

fn deliver(operator: &Api, ware: &Ware, delta: i64) -> Result<()> {
    let body = json!({ "delta": delta.to_string(), "reason": "ADJUSTMENT_REASON_RECEIVED" });
    let path = format!("/v1/stocks/{LOCATION}~{}:adjust", ware.sku);
    operator.post(&path, &body)?.ok("fill up the stock").map(drop)
}

fn price(ware: &Ware) -> Value {
    let nanos = ware.cents % 100 * 10_000_000;
    json!({ "currencyCode": "EUR", "units": (ware.cents / 100).to_string(), "nanos": nanos })
}

/// What the demo buys: SKU and quantity.
pub(crate) const BASKET: &[(&str, u32)] = &[("MUG-BLUE", 2), ("NOTEBOOK-A5", 1)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_basket_holds_what_is_on_offer() {
        assert!(BASKET.iter().all(|(sku, _)| WARES.iter().any(|ware| ware.sku == *sku)));
    }

    #[test]
    fn cents_become_units_and_nanos() {
        let notebook = WARES.iter().find(|it| it.sku == "NOTEBOOK-A5").unwrap();
        assert_eq!(
            price(notebook),
            json!({ "currencyCode": "EUR", "units": "7", "nanos": 950_000_000 })
        );
    }
}
