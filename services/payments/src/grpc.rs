//! Calls: decoded, handed to store and resolver, encoded. No rule lives here.

mod refund;
mod decode;
mod encode;
#[cfg(test)]
mod tests;

use std::fmt::Display;

use mesh::{
    auth::{Caller, Scope},
    clock,
    idempotency::{self, Answer, Key},
    page::{self, Pages},
};
use proto::payments::v1::{self as api, payments_service_server::PaymentsService};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::{
    domain::{AttemptState, Kind, Overview, Payment, Refusal, Report},
    error::Error,
    resolver::Resolver,
    store::{Commanded, Page, Store},
};

/// `ordermesh.payments.v1.PaymentsService`.
#[derive(Clone)]
pub struct Payments {
    store: Store,
    resolver: Resolver,
    pages: Pages,
}

// === impl Payments ===

impl Payments {
    /// Serves the payments of `store`; `page_key` seals the tokens of lists.
    #[must_use]
    pub fn new(store: Store, resolver: Resolver, page_key: [u8; 32]) -> Self {
        Self { store, resolver, pages: Pages::new(page_key) }
    }

    async fn create(&self, request: api::CreatePaymentRequest) -> Result<Overview, Error> {
        decode::command(request.command)?;
        let payment = decode::payment(&request.payment_id, request.payment, clock::now())?;
        Ok(self.store.create(payment).await?.overview())
    }

    async fn authorize(&self, request: api::AuthorizePaymentRequest) -> Result<Overview, Error> {
        let id = decode::name(&request.name)?;
        let command = decode::command(request.command)?;
        let method = decode::method(&request.payment_method, "payment_method")?;
        let commanded = self.store.authorize(id, command, method).await?;
        let (payment, attempt) = self.carried_out(commanded).await?;
        // Repeated after it was undone: what it did, it does not do any more.
        if payment.voided_at.is_some() && payment.held() == 0 && payment.is_settled() {
            return Err(Error::refused(id)(Refusal::Undone));
        }
        answered(payment, attempt)
    }

    async fn capture(&self, request: api::CapturePaymentRequest) -> Result<Overview, Error> {
        let id = decode::name(&request.name)?;
        let command = decode::command(request.command)?;
        let amount = request.amount.map(|money| decode::amount(&money, "amount")).transpose()?;
        let commanded = self.store.capture(id, command, amount, request.r#final).await?;
        let (payment, attempt) = self.carried_out(commanded).await?;
        answered(payment, attempt)
    }

    async fn void(&self, request: api::VoidPaymentRequest) -> Result<Overview, Error> {
        let id = decode::name(&request.name)?;
        let command = decode::command(request.command)?;
        let commanded = self.store.void(id, command).await?;
        let (payment, _attempt) = self.carried_out(commanded).await?;
        if !payment.is_settled() {
            return Err(Error::refused(id)(Refusal::InProgress));
        }
        if payment.held() > 0 {
            // The provider said that it does not give it back.
            return Err(Error::refused(id)(Refusal::State(payment.state())));
        }
        Ok(payment.overview())
    }

    async fn get(&self, request: api::GetPaymentRequest) -> Result<Overview, Error> {
        let id = decode::name(&request.name)?;
        let found = self.store.overview(id).await?;
        // Permission before existence: nobody owns what is not there.
        Caller::current()?.owns(found.as_ref().map_or("", |payment| &payment.customer))?;
        found.ok_or(Error::NotFound(id))
    }

    async fn list(
        &self,
        request: api::ListPaymentsRequest,
    ) -> Result<api::ListPaymentsResponse, Error> {
        let customer = match Caller::current()?.scope() {
            Scope::All => None,
            Scope::Own(customer) => Some(customer),
        };
        let customer = customer.as_deref();
        let args = page::args(&["payments", customer.unwrap_or_default()]);
        let page = self.page(request.page_size, &request.page_token, &args)?;
        let rows = self.store.payments(customer, &page).await?;
        let next_page_token = self.next(&page, &args, rows.last().map(|row| row.id), rows.len());
        let payments = rows.iter().map(encode::payment).collect();
        Ok(api::ListPaymentsResponse { payments, next_page_token })
    }

    async fn attempts(
        &self,
        request: api::ListAttemptsRequest,
    ) -> Result<api::ListAttemptsResponse, Error> {
        let payment = decode::only(&request.payment)?;
        let args = page::args(&["attempts", payment.as_deref().unwrap_or_default()]);
        let page = self.page(request.page_size, &request.page_token, &args)?;
        let rows = self.store.attempts(payment.as_deref(), &page).await?;
        let last = rows.last().map(|(_, row)| row.id);
        let next_page_token = self.next(&page, &args, last, rows.len());
        let attempts = rows.iter().map(|(payment, row)| encode::attempt(*payment, row)).collect();
        Ok(api::ListAttemptsResponse { attempts, next_page_token })
    }

    async fn entries(
        &self,
        request: api::ListLedgerEntriesRequest,
    ) -> Result<api::ListLedgerEntriesResponse, Error> {
        let payment = decode::only(&request.payment)?;
        let args = page::args(&["ledgerEntries", payment.as_deref().unwrap_or_default()]);
        let page = self.page(request.page_size, &request.page_token, &args)?;
        let rows = self.store.entries(payment.as_deref(), &page).await?;
        let next_page_token = self.next(&page, &args, rows.last().map(|row| row.id), rows.len());
        let ledger_entries = rows.iter().map(encode::entry).collect();
        Ok(api::ListLedgerEntriesResponse { ledger_entries, next_page_token })
    }

    async fn resolve(&self, request: api::ResolvePaymentRequest) -> Result<api::Payment, Error> {
        let id = decode::name(&request.name)?;
        let caller = Caller::current()?;
        let request_id = decode::request_id(&request.request_id)?;
        let asked = api::ResolvePaymentRequest { request_id: String::new(), ..request.clone() };
        let key = request_id.map(|id| Key::new(caller.principal(), "ResolvePayment", id, &asked));
        if let Some(answer) = self.stored(key.as_ref()).await? {
            return Ok(answer);
        }
        let (outcome, source) = decode::outcome(&request, &caller)?;
        let expected = decode::etag(&request.etag)?;
        let payment = self.store.payment(id).await?.ok_or(Error::NotFound(id))?;
        if payment.revision != expected {
            return Err(Error::EtagMismatch { payment: id, revision: payment.revision });
        }
        let state = payment.state();
        let mut attempts = payment.attempts.iter();
        let attempt = attempts.find(|attempt| attempt.state == AttemptState::NeedsReview);
        let attempt = attempt.ok_or_else(|| Error::refused(id)(Refusal::State(state)))?.id;
        let (at, spare) = (clock::now(), clock::id());
        let report = Report { attempt, outcome, source, at, spare };
        // The answer is kept before the work is done, so it is worked out on a copy first.
        let mut resolved = payment.clone();
        let change = resolved.apply(report.clone(), self.store.pace());
        let events = change.map_err(Error::refused(id))?.events.len();
        resolved.revision += i64::try_from(events).unwrap_or(0);
        let answer = encode::payment(&resolved.overview());
        let kept = key.clone().map(|key| (key, Answer::success(&answer)));
        match self.store.review(&payment, report, kept).await {
            Ok((payment, change)) => {
                if let Some(next) = change.send {
                    self.resolver.carry_out(&payment, next).await?;
                }
                Ok(answer)
            }
            Err(Error::Repeated) => self.stored(key.as_ref()).await?.ok_or(Error::Repeated),
            Err(error) => Err(error),
        }
    }

    /// What an earlier call of the same `request_id` was answered.
    async fn stored(&self, key: Option<&Key>) -> Result<Option<api::Payment>, Error> {
        let Some(key) = key else { return Ok(None) };
        let answer = idempotency::stored(self.store.mesh().reader(), key).await?;
        let replayed = answer.map(|answer| answer.replay());
        replayed.transpose().map_err(|status| Error::Again(Box::new(status)))
    }

    /// Sends the attempt that a command began, unless it did so before.
    async fn carried_out(&self, commanded: Commanded) -> Result<(Payment, Option<Uuid>), Error> {
        let Commanded { payment, attempt, send } = commanded;
        match attempt.filter(|_| send) {
            Some(id) => Ok((self.resolver.carry_out(&payment, id).await?, attempt)),
            None => Ok((payment, attempt)),
        }
    }

    fn page(&self, size: i32, token: &str, args: &[u8]) -> Result<Page, Error> {
        let size = page::size(size).map_err(|error| Error::malformed("page_size", error))?;
        let before = if token.is_empty() { None } else { Some(self.pages.open(token, args)?) };
        Ok(Page { size, before })
    }

    /// The token of the next page: none, if this one was not full.
    fn next(&self, page: &Page, args: &[u8], last: Option<impl Display>, count: usize) -> String {
        let is_full = u64::try_from(count).is_ok_and(|count| count >= page.size);
        let last = last.filter(|_| is_full);
        last.map_or_else(String::new, |id| self.pages.seal(&id.to_string(), args))
    }
}

/// The payment as an attempt left it, or the refusal that it got: the same at each repeat.
fn answered(payment: Payment, attempt: Option<Uuid>) -> Result<Overview, Error> {
    let attempt = attempt.and_then(|id| payment.attempt(id));
    if let Some(attempt) = attempt
        && attempt.kind != Kind::Void
        && matches!(attempt.state, AttemptState::Declined | AttemptState::Failed)
    {
        let code = attempt.decline_code.clone().unwrap_or_default();
        return Err(Error::Declined { code, retriable: attempt.retriable });
    }
    Ok(payment.overview())
}

#[tonic::async_trait]
impl PaymentsService for Payments {
    async fn create_payment(
        &self,
        request: Request<api::CreatePaymentRequest>,
    ) -> Result<Response<api::Payment>, Status> {
        let payment = self.create(request.into_inner()).await?;
        Ok(Response::new(encode::payment(&payment)))
    }

    async fn authorize_payment(
        &self,
        request: Request<api::AuthorizePaymentRequest>,
    ) -> Result<Response<api::Payment>, Status> {
        let payment = self.authorize(request.into_inner()).await?;
        Ok(Response::new(encode::payment(&payment)))
    }

    async fn capture_payment(
        &self,
        request: Request<api::CapturePaymentRequest>,
    ) -> Result<Response<api::Payment>, Status> {
        let payment = self.capture(request.into_inner()).await?;
        Ok(Response::new(encode::payment(&payment)))
    }

    async fn void_payment(
        &self,
        request: Request<api::VoidPaymentRequest>,
    ) -> Result<Response<api::Payment>, Status> {
        let payment = self.void(request.into_inner()).await?;
        Ok(Response::new(encode::payment(&payment)))
    }

    async fn get_payment(
        &self,
        request: Request<api::GetPaymentRequest>,
    ) -> Result<Response<api::Payment>, Status> {
        let payment = self.get(request.into_inner()).await?;
        Ok(Response::new(encode::payment(&payment)))
    }

    async fn list_payments(
        &self,
        request: Request<api::ListPaymentsRequest>,
    ) -> Result<Response<api::ListPaymentsResponse>, Status> {
        Ok(Response::new(self.list(request.into_inner()).await?))
    }

    async fn list_attempts(
        &self,
        request: Request<api::ListAttemptsRequest>,
    ) -> Result<Response<api::ListAttemptsResponse>, Status> {
        Ok(Response::new(self.attempts(request.into_inner()).await?))
    }

    async fn list_ledger_entries(
        &self,
        request: Request<api::ListLedgerEntriesRequest>,
    ) -> Result<Response<api::ListLedgerEntriesResponse>, Status> {
        Ok(Response::new(self.entries(request.into_inner()).await?))
    }

    async fn create_refund(
        &self,
        request: Request<api::CreateRefundRequest>,
    ) -> Result<Response<api::Refund>, Status> {
        let refund = self.refund(request.into_inner()).await?;
        Ok(Response::new(encode::refund(&refund)))
    }

    async fn get_refund(
        &self,
        request: Request<api::GetRefundRequest>,
    ) -> Result<Response<api::Refund>, Status> {
        let id = decode::refund_name(&request.into_inner().name)?;
        let refund = self.known_refund(id).await?;
        Ok(Response::new(encode::refund(&refund)))
    }

    async fn list_refunds(
        &self,
        request: Request<api::ListRefundsRequest>,
    ) -> Result<Response<api::ListRefundsResponse>, Status> {
        Ok(Response::new(self.refunds(request.into_inner()).await?))
    }

    async fn resolve_payment(
        &self,
        request: Request<api::ResolvePaymentRequest>,
    ) -> Result<Response<api::Payment>, Status> {
        Ok(Response::new(self.resolve(request.into_inner()).await?))
    }
}
