//! `GetOrder`, `ListOrders`, `BatchGetOrders` and `ListOrderEvents`.

use mesh::{
    auth::{Caller, Scope},
    page,
};
use proto::orders::v1 as api;
use uuid::Uuid;

use super::{Orders, encode, parse};
use crate::{error::Error, store::Stored};

impl Orders {
    pub(super) async fn get(&self, request: &api::GetOrderRequest) -> Result<api::Order, Error> {
        let mut wrong = parse::Violations::default();
        let id = parse::name(&request.name)?;
        let view = api::OrderView::try_from(request.view).unwrap_or_else(|_unknown| {
            wrong.add("view", "is not a known view");
            api::OrderView::Unspecified
        });
        let view = wrong.none_or(view)?;
        let order = encode::order(&self.visible(id).await?);
        match view {
            api::OrderView::Unspecified | api::OrderView::Basic => Ok(order),
            api::OrderView::Full => {
                let customer_details = Some(self.customer_details(&order.customer).await?);
                Ok(api::Order { customer_details, ..order })
            }
        }
    }

    pub(super) async fn list(
        &self,
        request: &api::ListOrdersRequest,
    ) -> Result<api::ListOrdersResponse, Error> {
        let scope = Caller::current()?.scope();
        let customer = match &scope {
            Scope::All => None,
            Scope::Own(customer) => Some(&**customer),
        };
        let size = size(request.page_size)?;
        let args = page::args(&["ListOrders", customer.unwrap_or_default()]);
        let before = match self.opened(&request.page_token, &args)? {
            Some(key) => Some(Uuid::try_parse(&key).map_err(|_other_key| page::PageTokenMismatch)?),
            None => None,
        };
        // One more than asked for says whether another page follows.
        let mut found = self.store.page(customer, before, size + 1).await?;
        let more = cut(&mut found, size);
        let last = found.last().filter(|_last| more);
        Ok(api::ListOrdersResponse {
            next_page_token: last.map_or_else(String::new, |last| {
                self.pages.seal(&last.order.id.to_string(), &args)
            }),
            orders: found.iter().map(encode::order).collect(),
        })
    }

    pub(super) async fn batch_get(
        &self,
        request: &api::BatchGetOrdersRequest,
    ) -> Result<api::BatchGetOrdersResponse, Error> {
        let caller = Caller::current()?;
        let ids = parse::names(&request.names)?;
        let found = self.store.orders(&ids).await?;
        // Permission for all of them first: what is missing shows to nobody before.
        for id in &ids {
            caller.owns(found.get(id).map_or("", |stored| stored.order.customer.as_str()))?;
        }
        let orders = ids
            .iter()
            .map(|id| found.get(id).map(encode::order).ok_or_else(|| not_found(*id)))
            .collect::<Result<_, _>>()?;
        Ok(api::BatchGetOrdersResponse { orders })
    }

    pub(super) async fn list_events(
        &self,
        request: &api::ListOrderEventsRequest,
    ) -> Result<api::ListOrderEventsResponse, Error> {
        let id = parse::name(&request.name)?;
        self.visible(id).await?;
        let size = size(request.page_size)?;
        let args = page::args(&["ListOrderEvents", &request.name]);
        let after = match self.opened(&request.page_token, &args)? {
            Some(key) => key.parse().map_err(|_other_key| page::PageTokenMismatch)?,
            None => 0,
        };
        let mut found = self.store.events(id, after, size + 1).await?;
        let more = cut(&mut found, size);
        let last = found.last().filter(|_last| more);
        Ok(api::ListOrderEventsResponse {
            next_page_token: last.map_or_else(String::new, |last| {
                self.pages.seal(&last.revision.to_string(), &args)
            }),
            order_events: found.iter().map(encode::entry).collect(),
        })
    }

    /// The order, if the caller may see it; whether it exists shows only then.
    pub(super) async fn visible(&self, id: Uuid) -> Result<Stored, Error> {
        let caller = Caller::current()?;
        let stored = self.store.order(id).await?;
        caller.owns(stored.as_ref().map_or("", |stored| stored.order.customer.as_str()))?;
        stored.ok_or_else(|| not_found(id))
    }

    fn opened(&self, token: &str, args: &[u8]) -> Result<Option<String>, page::PageTokenMismatch> {
        if token.is_empty() { Ok(None) } else { self.pages.open(token, args).map(Some) }
    }
}

fn size(page_size: i32) -> Result<u64, Error> {
    page::size(page_size).or_else(|error| {
        let mut wrong = parse::Violations::default();
        wrong.add("page_size", error.to_string());
        wrong.none_or(0)
    })
}

/// Cuts a page to its size; whether there was more.
fn cut<T>(found: &mut Vec<T>, size: u64) -> bool {
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let more = found.len() > size;
    found.truncate(size);
    more
}

fn not_found(id: Uuid) -> Error {
    Error::NotFound(format!("orders/{id}"))
}
