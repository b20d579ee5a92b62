//! The other services, as an order meets them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mesh::{
    Channel, Within as _,
    client::{Verdict, judge},
    money::Money,
    status,
};
use proto::{
    catalog::v1::{BatchGetVariantsRequest, Variant, catalog_service_client::CatalogServiceClient},
    inventory::v1::{BatchGetStocksRequest, inventory_service_client::InventoryServiceClient},
    payments::v1::payments_service_client::PaymentsServiceClient,
    shipping::v1::shipping_service_client::ShippingServiceClient,
    users::v1::{CheckCustomerRequest, users_service_client::UsersServiceClient},
};
use tonic::{Code, Status};

use crate::domain::Price;

/// Clients of the services that an order needs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Peers {
    pub(crate) catalog: CatalogServiceClient<Channel>,
    pub(crate) users: UsersServiceClient<Channel>,
    pub(crate) inventory: InventoryServiceClient<Channel>,
    pub(crate) payments: PaymentsServiceClient<Channel>,
    pub(crate) shipping: ShippingServiceClient<Channel>,
}

/// What users says of a customer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Customer {
    /// Where mails go.
    pub email: String,
    /// Whether they may order.
    pub active: bool,
    /// Up to which total.
    pub limit: Option<Money>,
}

/// Why users said nothing of a customer that can be gone by.
#[derive(Debug)]
pub enum Unheard {
    /// It did not answer.
    Failed(Box<Status>),
    /// It answered what it must not.
    Nonsense(String),
}

/// Why there are no prices.
#[derive(Debug)]
pub enum Unpriced {
    /// The catalog does not have this variant, or does not sell it.
    NotForSale(String),
    /// The catalog did not answer.
    Down(Box<Status>),
    /// It answered what it must not.
    Nonsense(String),
}

const READ: Duration = Duration::from_secs(2);

// === impl Peers ===

impl Peers {
    /// Clients of the services by their names in the registry.
    pub fn of(channel: impl Fn(&str) -> Channel) -> Self {
        Self {
            catalog: CatalogServiceClient::new(channel("catalog")),
            users: UsersServiceClient::new(channel("users")),
            inventory: InventoryServiceClient::new(channel("inventory")),
            payments: PaymentsServiceClient::new(channel("payments")),
            shipping: ShippingServiceClient::new(channel("shipping")),
        }
    }

    /// What these variants cost now, one price for each of them.
    ///
    /// # Errors
    /// [`Unpriced`].
    pub async fn prices(&self, variants: &[&str]) -> Result<Vec<Price>, Unpriced> {
        // The catalog answers in the order of the names; a variant may stand in several lines.
        let names: BTreeSet<&str> = variants.iter().copied().collect();
        let request =
            BatchGetVariantsRequest { names: names.iter().map(|&name| name.to_owned()).collect() };
        let answer = self.catalog.clone().batch_get_variants(request.within(READ)).await;
        let found = answer.map_err(unpriced)?.into_inner().variants;
        let found: BTreeMap<&str, &Variant> =
            found.iter().map(|variant| (variant.name.as_str(), variant)).collect();
        variants.iter().map(|&name| price(name, found.get(name).copied())).collect()
    }

    /// What users says of a customer; `None` if there is no such user.
    ///
    /// # Errors
    /// [`Unheard`].
    pub async fn customer(&self, name: &str) -> Result<Option<Customer>, Unheard> {
        let request = CheckCustomerRequest { name: name.to_owned() };
        let answer = self.users.clone().check_customer(request.within(READ)).await;
        let found = match answer {
            Ok(found) => found.into_inner(),
            Err(status) if status.code() == Code::NotFound => return Ok(None),
            Err(status) => return Err(Unheard::Failed(Box::new(status))),
        };
        // A limit that cannot be read is still one: nobody orders past it.
        let limit = found
            .order_limit
            .map(|limit| Money::from_parts(&limit.currency_code, limit.units, limit.nanos));
        let limit = limit
            .transpose()
            .map_err(|error| Unheard::Nonsense(format!("the limit of {name}: {error}")))?;
        Ok(Some(Customer { email: found.email, active: found.active, limit }))
    }

    /// The same, if users says it in this time.
    pub(crate) async fn customer_within(
        &self,
        name: &str,
        timeout: Duration,
    ) -> Option<Option<Customer>> {
        match tokio::time::timeout(timeout, self.customer(name)).await {
            Ok(Ok(found)) => Some(found),
            Ok(Err(unheard)) => {
                tracing::info!(?unheard, "users did not say: the saga will ask");
                None
            }
            Err(_late) => None,
        }
    }

    /// How many units of these SKUs can be promised, over all locations.
    ///
    /// # Errors
    /// The call failed.
    pub async fn stock<'s>(
        &self,
        skus: impl IntoIterator<Item = &'s str>,
        timeout: Duration,
    ) -> Result<BTreeMap<String, i64>, Status> {
        let skus: BTreeSet<&str> = skus.into_iter().collect();
        let names = skus.iter().map(|sku| format!("stocks/-~{sku}")).collect();
        let request = BatchGetStocksRequest { names };
        let answer = self.inventory.clone().batch_get_stocks(request.within(timeout)).await?;
        let stocks = answer.into_inner().stocks;
        Ok(stocks
            .into_iter()
            .filter_map(|stock| {
                let (_, sku) = stock.name.split_once('~')?;
                Some((sku.to_owned(), stock.available))
            })
            .collect())
    }
}

fn price(name: &str, found: Option<&Variant>) -> Result<Price, Unpriced> {
    use proto::catalog::v1::variant::State;
    let Some(variant) = found else {
        return Err(Unpriced::Nonsense(format!("no {name}")));
    };
    if variant.state() != State::Active {
        return Err(Unpriced::NotForSale(name.to_owned()));
    }
    let unit = variant.price.as_ref().ok_or_else(|| Unpriced::NotForSale(name.to_owned()))?;
    let unit = Money::from_parts(&unit.currency_code, unit.units, unit.nanos)
        .map_err(|error| Unpriced::Nonsense(format!("the price of {name}: {error}")))?;
    if unit.minor < 0 {
        return Err(Unpriced::Nonsense(format!("the price of {name} is negative")));
    }
    Ok(Price {
        variant: name.to_owned(),
        title: variant.title.clone(),
        unit,
        version: variant.price_version.clone(),
    })
}

fn unpriced(status: Status) -> Unpriced {
    if status.code() == Code::NotFound {
        let name = status::reason(&status).and_then(|info| info.metadata.get("name").cloned());
        return Unpriced::NotForSale(name.unwrap_or_default());
    }
    match judge(&status) {
        Verdict::No => Unpriced::Nonsense(status.to_string()),
        Verdict::NotSent | Verdict::Unsure => Unpriced::Down(Box::new(status)),
    }
}
