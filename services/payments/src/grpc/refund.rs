//! What is given back of what was taken: for a saga or for a person.

#[cfg(test)]
mod tests;

use mesh::{
    auth::Caller,
    clock,
    idempotency::{self, Answer, Key},
    page,
};
use proto::payments::v1 as api;
use uuid::Uuid;

use super::{Payments, decode, encode};
use crate::{
    domain::{Refund, RefundOverview, RefundState},
    error::Error,
};

// === impl Payments ===

impl Payments {
    pub(super) async fn refund(
        &self,
        mut request: api::CreateRefundRequest,
    ) -> Result<RefundOverview, Error> {
        let caller = Caller::current()?;
        let (id, at) = (clock::id(), clock::now());
        if caller.service().is_none() {
            if request.command.is_some() {
                return Err(Error::malformed("command", "is for sagas"));
            }
            return self.granted(&caller, request, id).await;
        }
        let command = decode::command(request.command.take())?;
        let (payment, refund) = decode::refund(&request, command.saga.clone(), id, at)?;
        let commanded = self.store.refund_by(payment, command, refund).await?;
        let (payment, attempt) = self.carried_out(commanded).await?;
        let attempt = attempt.and_then(|id| payment.attempt(id));
        let refund = attempt.and_then(|attempt| attempt.refund).unwrap_or_default();
        payment.refund_overview(refund).ok_or(Error::NoRefund(refund))
    }

    pub(super) async fn known_refund(&self, id: Uuid) -> Result<RefundOverview, Error> {
        self.store.refund(id).await?.ok_or(Error::NoRefund(id))
    }

    pub(super) async fn refunds(
        &self,
        request: api::ListRefundsRequest,
    ) -> Result<api::ListRefundsResponse, Error> {
        let payment = decode::only(&request.payment)?;
        let args = page::args(&["refunds", payment.as_deref().unwrap_or_default()]);
        let page = self.page(request.page_size, &request.page_token, &args)?;
        let rows = self.store.refunds(payment.as_deref(), &page).await?;
        let place = |row: &RefundOverview| {
            format!("{} {}", clock::micros(row.refund.created_at), row.refund.id)
        };
        let next_page_token = self.next(&page, &args, rows.last().map(place), rows.len());
        let refunds = rows.iter().map(encode::refund).collect();
        Ok(api::ListRefundsResponse { refunds, next_page_token })
    }

    /// Grants a person's refund; a repeat of the request answers it as it stands.
    async fn granted(
        &self,
        caller: &Caller,
        request: api::CreateRefundRequest,
        id: Uuid,
    ) -> Result<RefundOverview, Error> {
        let request_id = decode::request_id(&request.request_id)?;
        let asked = api::CreateRefundRequest { request_id: String::new(), ..request };
        let key = request_id.map(|id| Key::new(caller.principal(), "CreateRefund", id, &asked));
        if let Some(refund) = self.granted_before(key.as_ref()).await? {
            return Ok(refund);
        }
        let (payment, refund) = decode::refund(&asked, String::new(), id, clock::now())?;
        let id = refund.id;
        let kept = key.clone().map(|key| (key, Answer::success(&named(payment, &refund))));
        match self.store.grant(payment, refund, kept).await {
            Ok(commanded) => {
                let (payment, _attempt) = self.carried_out(commanded).await?;
                payment.refund_overview(id).ok_or(Error::NoRefund(id))
            }
            Err(Error::Repeated) => self.granted_before(key.as_ref()).await?.ok_or(Error::Repeated),
            Err(error) => Err(error),
        }
    }

    /// What an earlier call of the same `request_id` granted, as it stands.
    async fn granted_before(&self, key: Option<&Key>) -> Result<Option<RefundOverview>, Error> {
        let Some(key) = key else { return Ok(None) };
        let answer = idempotency::stored(self.store.mesh().reader(), key).await?;
        let Some(answer) = answer else { return Ok(None) };
        let granted: api::Refund =
            answer.replay().map_err(|status| Error::Again(Box::new(status)))?;
        let refund = self.known_refund(decode::refund_name(&granted.name)?).await?;
        Ok(Some(refund))
    }
}

/// What is kept of a refund for the request that asked for it: its name counts.
fn named(payment: Uuid, refund: &Refund) -> api::Refund {
    encode::refund(&RefundOverview {
        refund: refund.clone(),
        payment,
        order: String::new(),
        state: RefundState::Pending,
        refunded: 0,
        decline_code: None,
    })
}
