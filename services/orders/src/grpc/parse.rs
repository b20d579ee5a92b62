//! From the contract to the domain: what a request says, or every field that is wrong.

use std::time::Duration;

use mesh::{
    money::{Money, MoneyError},
    resource,
};
use proto::{google::r#type as google, orders::v1 as api};
use uuid::{Uuid, Version};

use crate::{
    domain::{Address, CancelReason, StockPolicy, Wanted},
    error::{Error, Violation},
};

/// What is wrong with a request, field by field.
#[derive(Debug, Default)]
pub struct Violations(Vec<Violation>);

/// An order that is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The lines.
    pub wanted: Vec<Wanted>,
    /// Where it goes.
    pub ship_to: Option<Address>,
    /// The total that the customer saw.
    pub expected_total: Option<Money>,
    /// The provider's token.
    pub payment_method: String,
    /// Sealed; empty if there is none.
    pub quote: String,
    /// What to do when stock is short.
    pub stock_policy: StockPolicy,
}

/// Everything else that `CreateOrder` takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Create {
    /// The order.
    pub order: Asked,
    /// Its id, if the caller chose one.
    pub id: Option<Uuid>,
    /// What makes the call safe to repeat.
    pub request_id: Option<Uuid>,
    /// How long to wait for the outcome.
    pub wait: Duration,
}

const LINES_MAX: usize = 100;
const QUANTITY_MAX: i32 = 999;
const NOTE_MAX: usize = 500;
const QUOTE_MAX: usize = 65_536;
const NAMES_MAX: usize = 100;
const WAIT_MAX: Duration = Duration::from_secs(5);

// === impl Violations ===

impl Violations {
    /// Notes what is wrong with a field.
    pub fn add(&mut self, field: impl Into<String>, problem: impl Into<String>) {
        self.because(api::Reason::FieldViolation, field, problem);
    }

    /// Notes what is wrong with a field, by a rule with a reason of its own.
    pub fn because(
        &mut self,
        reason: api::Reason,
        field: impl Into<String>,
        problem: impl Into<String>,
    ) {
        self.0.push(Violation { reason, field: field.into(), problem: problem.into() });
    }

    /// Passes the value on if nothing was wrong.
    ///
    /// # Errors
    /// [`Error::Malformed`] names every field that was.
    pub fn none_or<T>(self, value: T) -> Result<T, Error> {
        if self.0.is_empty() { Ok(value) } else { Err(Error::Malformed(self.0)) }
    }
}

/// The request of `CreateOrder`; who may be its customer is asked by the caller.
///
/// # Errors
/// [`Error::Malformed`].
pub fn create(request: &api::CreateOrderRequest) -> Result<Create, Error> {
    let mut wrong = Violations::default();
    let none = api::Order::default();
    if request.order.is_none() {
        wrong.add("order", "is required");
    }
    let order = request.order.as_ref().unwrap_or(&none);
    let asked = Asked {
        wanted: lines(&order.lines, &mut wrong),
        ship_to: order.ship_to.as_ref().map(|ship_to| address(ship_to, &mut wrong)),
        expected_total: expected(order, request.accept_current_price, &mut wrong),
        payment_method: payment_method(&order.payment_method, &mut wrong),
        quote: quote(&order.quote, &mut wrong),
        stock_policy: stock_policy(order.stock_policy, &mut wrong),
    };
    let id = order_id(&request.order_id, &mut wrong);
    let request_id = request_id(&request.request_id, &mut wrong);
    let wait = wait(request.wait.as_ref(), &mut wrong);
    wrong.none_or(Create { order: asked, id, request_id, wait })
}

/// The lines of `QuoteOrder`.
///
/// # Errors
/// [`Error::Malformed`].
pub fn quoted(request: &api::QuoteOrderRequest) -> Result<Vec<Wanted>, Error> {
    let mut wrong = Violations::default();
    let wanted = match &request.order {
        Some(order) => lines(&order.lines, &mut wrong),
        None => {
            wrong.add("order", "is required");
            Vec::new()
        }
    };
    wrong.none_or(wanted)
}

/// Whose order it is: the caller's, unless they name somebody.
///
/// # Errors
/// [`Error::Malformed`] if it is no user's name, or nobody is named and the caller buys nothing.
pub fn customer(named: &str, caller: &mesh::auth::Caller) -> Result<String, Error> {
    let mut wrong = Violations::default();
    let customer = if named.is_empty() { caller.principal() } else { named };
    if named.is_empty() && !caller.has(mesh::auth::CUSTOMER) {
        wrong.add("order.customer", "is required of those who order for somebody else");
    } else if let Err(error) = resource::parse_uuid("users", customer) {
        wrong.add("order.customer", error.to_string());
    }
    wrong.none_or(customer.to_owned())
}

/// The id in `orders/{uuid}`.
///
/// # Errors
/// [`Error::Malformed`].
pub fn name(name: &str) -> Result<Uuid, Error> {
    let mut wrong = Violations::default();
    let id = order_name("name", name, &mut wrong);
    wrong.none_or(id.unwrap_or_default())
}

/// The ids of several names.
///
/// # Errors
/// [`Error::Malformed`].
pub fn names(names: &[String]) -> Result<Vec<Uuid>, Error> {
    let mut wrong = Violations::default();
    if names.is_empty() || names.len() > NAMES_MAX {
        wrong.add("names", "must be 1 to 100");
        return wrong.none_or(Vec::new());
    }
    let ids = (0..)
        .zip(names)
        .filter_map(|(at, name): (u32, _)| order_name(&format!("names[{at}]"), name, &mut wrong))
        .collect();
    wrong.none_or(ids)
}

/// Which order, in which revision, by which attempt: what a change of an order begins with.
///
/// # Errors
/// [`Error::Malformed`].
pub fn target(
    name: &str,
    etag: &str,
    id: &str,
    mut wrong: Violations,
) -> Result<(Uuid, Option<i64>, Option<Uuid>), Error> {
    let order = order_name("name", name, &mut wrong);
    let revision = match resource::parse_etag(etag) {
        None if !etag.is_empty() => {
            wrong.add("etag", "must be an etag of the order, such as `\"v3\"` with its quotes");
            None
        }
        revision => revision,
    };
    let id = request_id(id, &mut wrong);
    wrong.none_or((order.unwrap_or_default(), revision, id))
}

/// Why an order is called off.
pub fn cancel_reason(reason: i32, wrong: &mut Violations) -> CancelReason {
    match api::CancelReason::try_from(reason) {
        Ok(api::CancelReason::Unspecified | api::CancelReason::CustomerRequest) => {
            CancelReason::CustomerRequest
        }
        Ok(api::CancelReason::Duplicate) => CancelReason::Duplicate,
        Ok(api::CancelReason::Fraud) => CancelReason::Fraud,
        Ok(api::CancelReason::NotShippable) => {
            wrong.add("reason", "is said by the mesh itself");
            CancelReason::NotShippable
        }
        Err(_unknown) => {
            wrong.add("reason", "is not a known reason");
            CancelReason::CustomerRequest
        }
    }
}

/// What somebody has to say about it.
pub fn note(note: &str, wrong: &mut Violations) -> String {
    if note.chars().count() > NOTE_MAX {
        wrong.add("note", "must have at most 500 characters");
    }
    if note.contains('\0') {
        wrong.add("note", "must not contain a zero character");
    }
    note.to_owned()
}

/// An amount that must be given.
pub fn money(field: &str, amount: Option<&google::Money>, wrong: &mut Violations) -> Option<Money> {
    let Some(amount) = amount else {
        wrong.add(field, "is required");
        return None;
    };
    match Money::from_parts(&amount.currency_code, amount.units, amount.nanos) {
        Ok(money) if money.minor < 0 => {
            wrong.add(field, "must not be negative");
            None
        }
        Ok(money) => Some(money),
        Err(error) => {
            let part = match error {
                MoneyError::UnknownCurrency(_) => "currency_code",
                MoneyError::NanosOutOfRange
                | MoneyError::MixedSigns
                | MoneyError::TooPrecise { .. } => "nanos",
                MoneyError::CurrencyMismatch(..)
                | MoneyError::OutOfRange
                | MoneyError::NoWeights => "units",
            };
            wrong.add(format!("{field}.{part}"), error.to_string());
            None
        }
    }
}

fn lines(lines: &[api::OrderLine], wrong: &mut Violations) -> Vec<Wanted> {
    if lines.is_empty() {
        wrong.because(api::Reason::OrderEmpty, "order.lines", "must have at least one line");
    }
    if lines.len() > LINES_MAX {
        wrong.add("order.lines", "must have at most 100 lines");
        return Vec::new();
    }
    let mut wanted = Vec::with_capacity(lines.len());
    for (at, line) in (0_u32..).zip(lines) {
        if let Err(error) = resource::parse_id("variants", &line.variant) {
            wrong.add(format!("order.lines[{at}].variant"), error.to_string());
        }
        if !(1..=QUANTITY_MAX).contains(&line.quantity) {
            wrong.because(
                api::Reason::LineQuantityOutOfRange,
                format!("order.lines[{at}].quantity"),
                "must be 1 to 999",
            );
        }
        wanted.push(Wanted { variant: line.variant.clone(), quantity: line.quantity.into() });
    }
    wanted
}

fn expected(
    order: &api::Order,
    accept_current_price: bool,
    wrong: &mut Violations,
) -> Option<Money> {
    let needless = accept_current_price || !order.quote.is_empty();
    if order.expected_total.is_none() && needless {
        return None;
    }
    money("order.expected_total", order.expected_total.as_ref(), wrong)
}

fn payment_method(token: &str, wrong: &mut Violations) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if token.is_empty() {
        wrong.add("order.payment_method", "is required");
    } else if token.len() > 128 || !token.bytes().all(plain) {
        wrong.add("order.payment_method", "must be 1 to 128 letters, digits, `_`, `-` and `.`");
    } else if token.len() >= 12 && token.bytes().all(|b| b.is_ascii_digit()) {
        wrong.add("order.payment_method", "must be the provider's token, never a card number");
    }
    token.to_owned()
}

fn quote(quote: &str, wrong: &mut Violations) -> String {
    if quote.len() > QUOTE_MAX {
        wrong.add("order.quote", "must have at most 65,536 characters");
    }
    quote.to_owned()
}

fn stock_policy(policy: i32, wrong: &mut Violations) -> StockPolicy {
    match api::StockPolicy::try_from(policy) {
        Ok(api::StockPolicy::Unspecified | api::StockPolicy::AllOrNothing) => {
            StockPolicy::AllOrNothing
        }
        Ok(api::StockPolicy::PartialWithConsent) => StockPolicy::PartialWithConsent,
        Err(_unknown) => {
            wrong.add("order.stock_policy", "is not a known policy");
            StockPolicy::AllOrNothing
        }
    }
}

fn address(address: &google::PostalAddress, wrong: &mut Violations) -> Address {
    let code = &address.region_code;
    if code.len() != 2 || !code.bytes().all(|b| b.is_ascii_uppercase()) {
        wrong.add("order.ship_to.region_code", "must be two letters, such as `DE`");
    }
    let mut text = |field: &str, text: &str| {
        if text.chars().count() > 200 || text.contains('\0') {
            let problem = "must have at most 200 characters, none of them zero";
            wrong.add(format!("order.ship_to.{field}"), problem);
        }
        text.to_owned()
    };
    let read = Address {
        region_code: code.clone(),
        language_code: text("language_code", &address.language_code),
        postal_code: text("postal_code", &address.postal_code),
        sorting_code: text("sorting_code", &address.sorting_code),
        administrative_area: text("administrative_area", &address.administrative_area),
        locality: text("locality", &address.locality),
        sublocality: text("sublocality", &address.sublocality),
        organization: text("organization", &address.organization),
        address_lines: address.address_lines.iter().map(|l| text("address_lines", l)).collect(),
        recipients: address.recipients.iter().map(|name| text("recipients", name)).collect(),
    };
    for (field, list) in [("address_lines", &read.address_lines), ("recipients", &read.recipients)]
    {
        if list.len() > 10 {
            wrong.add(format!("order.ship_to.{field}"), "must have at most 10 entries");
        }
    }
    read
}

fn order_id(id: &str, wrong: &mut Violations) -> Option<Uuid> {
    if id.is_empty() {
        return None;
    }
    let parsed = resource::parse_uuid("orders", &format!("orders/{id}")).ok();
    let v7 = parsed.filter(|id| id.get_version() == Some(Version::SortRand));
    if v7.is_none() {
        wrong.add("order_id", "must be a UUIDv7 in lower case");
    }
    v7
}

fn order_name(field: &str, name: &str, wrong: &mut Violations) -> Option<Uuid> {
    match resource::parse_uuid("orders", name) {
        Ok(id) => Some(id),
        Err(error) => {
            wrong.add(field, error.to_string());
            None
        }
    }
}

fn request_id(id: &str, wrong: &mut Violations) -> Option<Uuid> {
    resource::parse_request_id(id).unwrap_or_else(|error| {
        wrong.add("request_id", error.to_string());
        None
    })
}

fn wait(wait: Option<&prost_types::Duration>, wrong: &mut Violations) -> Duration {
    let Some(wait) = wait else { return Duration::ZERO };
    match Duration::try_from(*wait) {
        Ok(wait) if wait <= WAIT_MAX => wait,
        Ok(_) | Err(_) => {
            wrong.add("wait", "must be 0 to 5 s");
            Duration::ZERO
        }
    }
}

#[cfg(test)]
mod tests;
