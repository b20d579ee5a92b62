//! What an attempt says beside its request: where it stands in the trace, which one it is, and who
//! asks for whom.

use http::{HeaderMap, HeaderValue, header};

use super::call::Call;
use crate::{
    auth::ON_BEHALF_OF,
    ctx::{Criticality, TRACEPARENT},
    marks,
    telemetry::Span,
};

impl Call {
    /// Says where this attempt stands in the trace, and which one it is.
    pub(super) fn say(&self, headers: &mut HeaderMap, number: u32, span: &Span) {
        let trace = span.trace().unwrap_or_else(|| self.ctx.trace().child());
        if let Some(trace) = trace.header() {
            headers.insert(&TRACEPARENT, trace);
        }
        if span.is_recorded()
            && let Some(about) = self.ctx.subject().and_then(marks::baggage)
        {
            headers.insert(marks::BAGGAGE, about);
        }
        let mut text = |name: &'static str, text: &str| {
            if let Ok(value) = HeaderValue::from_str(text) {
                headers.insert(name, value);
            }
        };
        if self.ctx.criticality() != Criticality::Normal {
            text(Criticality::HEADER, self.ctx.criticality().as_str());
        }
        // Below a retry nothing is tried again, however far below.
        let before = number.saturating_add(self.ctx.attempt()).saturating_sub(2);
        if before > 0 {
            text(marks::ATTEMPTS, &before.to_string());
        }
    }

    /// Says who we are and for whom we ask.
    pub(super) fn identify(&self, headers: &mut HeaderMap) {
        // Whoever brings an `authorization` (the gateway does) speaks in that name alone.
        if headers.contains_key(header::AUTHORIZATION) {
            return;
        }
        let Some(own) = self.callee.sign_in.header() else { return };
        headers.insert(header::AUTHORIZATION, own);
        let user = self.ctx.caller().and_then(|caller| caller.token.as_deref());
        if let Some(mut user) = user.and_then(|token| HeaderValue::try_from(token).ok()) {
            user.set_sensitive(true);
            headers.insert(ON_BEHALF_OF, user);
        }
    }
}
