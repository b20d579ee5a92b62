//! `QuoteOrder` and `CreateOrder`: what lines cost, and taking them at that.

use std::sync::Arc;

use mesh::{
    Ctx,
    auth::Caller,
    busy, clock,
    idempotency::{Answer, Key},
    page,
    saga::{Created, New},
};
use proto::orders::v1 as api;
use time::OffsetDateTime;

use super::{Orders, Told, encode, finished, key, parse};
use crate::{
    domain::{
        self, Agreement, Draft, Event, Line, Order, Price, Quote, Refusal, StockPolicy, Totals,
        Wanted, price,
    },
    error::{Error, Violation},
    events,
    saga::{Customer, Unpriced},
    store::{Also, Change, Kept, Stored, WriteError},
};

/// What the stored answers of `CreateOrder` are filed under.
const METHOD: &str = "CreateOrder";

/// How much of the caller's time is kept back from waiting, to answer.
const RESERVE: std::time::Duration = std::time::Duration::from_millis(50);

impl Orders {
    pub(super) async fn quote(
        &self,
        request: &api::QuoteOrderRequest,
        at: OffsetDateTime,
    ) -> Result<api::QuoteOrderResponse, Error> {
        let caller = Caller::current()?;
        let named = request.order.as_ref().map_or("", |order| order.customer.as_str());
        let customer = owned(&caller, named)?;
        let wanted = parse::quoted(request)?;
        let prices = self.prices(&wanted).await?;
        let lines = price::price(&wanted, &prices)?;
        let totals = Totals::of(&lines)?;
        let expires_at = at + self.quote_age_max;
        let quote = serde_json::to_string(&Quote::of(&lines, expires_at)?)
            .map_err(|error| Error::Nonsense { service: "orders", problem: error.to_string() })?;
        Ok(api::QuoteOrderResponse {
            quote: self.pages.seal(&quote, &sealed_for(&customer)),
            lines: lines.iter().map(encode::line).collect(),
            totals: Some(encode::totals(&totals)),
            expire_time: Some(encode::timestamp(expires_at)),
        })
    }

    pub(super) async fn create(
        &self,
        mut request: api::CreateOrderRequest,
        at: OffsetDateTime,
    ) -> Result<Told<api::Order>, Error> {
        let caller = Caller::current()?;
        let named = request.order.as_ref().map_or("", |order| order.customer.as_str());
        let customer = owned(&caller, named)?;
        let create = parse::create(&request)?;
        request.request_id.clear();
        let key =
            key(&caller, METHOD, create.request_id, &request).filter(|_key| !request.validate_only);
        if let Some(told) = self.answered(key.as_ref()).await? {
            return Ok(told);
        }
        let order = match self.decided(&create, customer, request.accept_current_price, at).await {
            Ok(order) => order,
            Err(error) => return self.refused(key, error, at).await,
        };
        let stored = Stored { order, revision: 1 };
        if request.validate_only {
            let order = api::Order { name: String::new(), ..encode::order(&stored) };
            return Ok(Told::first(order));
        }
        let id = stored.order.id;
        let answer = encode::order(&stored);
        Ctx::current().inspect(|ctx| ctx.about(&answer.name));
        if let Some(told) = self.placed(stored, &caller, key, &answer, at).await? {
            return Ok(told);
        }
        let answer = if create.wait.is_zero() {
            answer
        } else {
            let left = Ctx::current().map_or(create.wait, |ctx| ctx.time_left());
            let until = clock::instant() + create.wait.min(left.saturating_sub(RESERVE));
            let settled = busy::resting(self.store.settled(id, until)).await;
            // The order stands, whatever came of waiting for it.
            settled.ok().flatten().map_or(answer, |stored| encode::order(&stored))
        };
        Ok(Told::first(answer))
    }

    /// The order as it would be placed: prices, customer and stock are read side by side.
    async fn decided(
        &self,
        create: &parse::Create,
        customer: String,
        accept_current_price: bool,
        at: OffsetDateTime,
    ) -> Result<Order, Error> {
        let asked = &create.order;
        let (prices, known, stock) = tokio::join!(
            self.prices_or_quote(asked, &customer, at),
            self.peers.customer_within(&customer, self.patience.customer_advice),
            self.peers.stock(asked.wanted.iter().map(Wanted::sku), self.patience.stock_advice),
        );
        let lines = price::price(&asked.wanted, &prices?)?;
        let agreement = match asked.expected_total {
            Some(seen) => Agreement::Seen(seen),
            None if !asked.quote.is_empty() => Agreement::Quoted,
            None if accept_current_price => Agreement::Current,
            // Parsing asks for one of the three.
            None => return Err(missing_total()),
        };
        let customer_email = match known {
            Some(found) => checked(found, &lines)?,
            None => String::new(),
        };
        // What inventory does not say is left to the reservation, which decides in any case:
        // this only spares a hopeless order its way through the saga.
        // Who takes less is asked by the saga.
        if asked.stock_policy == StockPolicy::AllOrNothing {
            domain::in_stock(&asked.wanted, &stock.unwrap_or_default())?;
        }
        let draft = Draft {
            customer,
            customer_email,
            ship_to: asked.ship_to.clone(),
            payment_method: asked.payment_method.clone(),
            stock_policy: asked.stock_policy,
            quoted: !asked.quote.is_empty(),
            patience: self.patience.to_confirm(),
        };
        let id = create.id.unwrap_or_else(clock::id);
        let (order, _created) = Order::place(id, draft, lines, &agreement, at)?;
        Ok(order)
    }

    /// Commits answer, order, event and saga as one, and starts the saga. Answers what another
    /// attempt of the same request was told, if that was faster.
    async fn placed(
        &self,
        stored: Stored,
        caller: &Caller,
        key: Option<Key>,
        answer: &api::Order,
        at: OffsetDateTime,
    ) -> Result<Option<Told<api::Order>>, Error> {
        let new = New {
            key: events::name(&stored.order),
            data: Vec::new(),
            deadline: self.patience.ends(at),
        };
        let change = Change {
            order: stored.order,
            read: 0,
            events: vec![Event::Created],
            actor: caller.principal().to_owned(),
            at,
        };
        let kept = key.clone().map(|key| Kept { key, answer: Answer::success(answer) });
        let runner = self.runner.clone();
        let also: Also<Created> = Arc::new(move |txn| {
            let (runner, new) = (runner.clone(), new.clone());
            Box::pin(async move { Ok(runner.create(txn, &new).await?) })
        });
        let (store, runner) = (self.store.clone(), self.runner.clone());
        let placed = finished("place an order", async move {
            let created = store.place(change, kept, also).await?;
            runner.start(created);
            Ok(())
        });
        match placed.await {
            Ok(()) => {
                tracing::info!(order = %answer.name, "{} placed", answer.name);
                Ok(None)
            }
            Err(WriteError::Repeated) => {
                let told = self.answered(key.as_ref()).await?;
                told.map_or(Err(Error::InProgress), |told| Ok(Some(told)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps a refusal as the answer of its request, if it is one to keep.
    pub(super) async fn refused(
        &self,
        key: Option<Key>,
        error: Error,
        at: OffsetDateTime,
    ) -> Result<Told<api::Order>, Error> {
        let Some(key) = key else { return Err(error) };
        let status = tonic::Status::from(error);
        let Some(answer) = Answer::refusal(&status) else {
            return Err(Error::Answered(Box::new(status)));
        };
        match self.store.refuse(Kept { key: key.clone(), answer }, at).await {
            Err(WriteError::Repeated) => {
                let told = self.answered(Some(&key)).await?;
                told.ok_or_else(|| Error::Answered(Box::new(status)))
            }
            Ok(()) => Err(Error::Answered(Box::new(status))),
            Err(error) => Err(error.into()),
        }
    }

    async fn prices_or_quote(
        &self,
        asked: &parse::Asked,
        customer: &str,
        at: OffsetDateTime,
    ) -> Result<Vec<Price>, Error> {
        if asked.quote.is_empty() {
            return self.prices(&asked.wanted).await;
        }
        let opened = self.pages.open(&asked.quote, &sealed_for(customer)).ok();
        let quote = opened.and_then(|quote| serde_json::from_str::<Quote>(&quote).ok());
        // Sealed for somebody else, or by a process that is gone with its key.
        let quote = quote.ok_or(Refusal::QuoteDiffers)?;
        Ok(quote.prices(&asked.wanted, at)?)
    }

    async fn prices(&self, wanted: &[Wanted]) -> Result<Vec<Price>, Error> {
        let variants: Vec<&str> = wanted.iter().map(|line| line.variant.as_str()).collect();
        self.peers.prices(&variants).await.map_err(|unpriced| match unpriced {
            Unpriced::NotForSale(name) => {
                let at = variants.iter().position(|&variant| variant == name).unwrap_or_default();
                Error::Malformed(vec![Violation {
                    reason: api::Reason::FieldViolation,
                    field: format!("order.lines[{at}].variant"),
                    problem: "is not for sale".to_owned(),
                }])
            }
            Unpriced::Down(source) => Error::Down { service: "catalog", source },
            Unpriced::Nonsense(problem) => Error::Nonsense { service: "catalog", problem },
        })
    }
}

/// Whose order it is, once it is known that the caller may place it.
fn owned(caller: &Caller, named: &str) -> Result<String, Error> {
    let customer = parse::customer(named, caller)?;
    caller.owns(&customer)?;
    Ok(customer)
}

/// The customer's e-mail, if they may order these lines.
fn checked(found: Option<Customer>, lines: &[Line]) -> Result<String, Error> {
    let customer = found.ok_or(Refusal::CustomerInactive)?;
    domain::may_order(customer.active, customer.limit, Totals::of(lines)?.total)?;
    Ok(customer.email)
}

/// What a quote is bound to.
fn sealed_for(customer: &str) -> [u8; 32] {
    page::args(&["QuoteOrder", customer])
}

fn missing_total() -> Error {
    Error::Malformed(vec![Violation {
        reason: api::Reason::FieldViolation,
        field: "order.expected_total".to_owned(),
        problem: "is required".to_owned(),
    }])
}
