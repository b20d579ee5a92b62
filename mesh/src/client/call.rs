//! One call, from the request that a generated client made to the head of the answer.

use http::{HeaderMap, HeaderValue, Request, Response, header};
use tonic::body::Body;

use super::{Callee, Limit, Long, reply};
use crate::{
    auth::ON_BEHALF_OF,
    clock,
    ctx::Ctx,
    deadline,
    status::{self, Failure},
};

/// Never fails: what goes wrong is a failing status, as if the callee had answered it.
pub(super) async fn call(callee: &Callee, mut request: Request<Body>) -> Response<Body> {
    let started = clock::instant();
    let method = request.uri().path().trim_start_matches('/').to_owned();
    let ctx = request.extensions_mut().remove::<Ctx>().unwrap_or_else(Ctx::current_or_root);
    let limit = request.extensions_mut().remove::<Limit>();

    let left = deadline::for_child(ctx.time_left());
    let left = limit.map_or(left, |limit| limit.0.min(left));
    let ends = started + left;
    let watch = reply::Watch { method, started, ends, callee: callee.name.clone() };

    let Some(timeout) = deadline::encode(left) else {
        return watch.refused(&Failure::Deadline);
    };
    identify(request.headers_mut(), &ctx, callee, &timeout);

    let long = request.extensions_mut().remove::<Long>().is_some();
    let sent = async {
        if long {
            let (response, lane) = callee.endpoints.stream(request).await?;
            return Ok((response, Some(lane)));
        }
        Ok((callee.endpoints.send(request).await?, None))
    };
    match deadline::within(ends, sent).await {
        Ok(Ok((response, lane))) => watch.response(response, lane),
        Ok(Err(failure)) if matches!(failure, Failure::Down(_)) => watch.refused(&failure),
        Ok(Err(failure)) => watch.failed(&failure),
        Err(deadline::Late) => watch.failed(&Failure::Deadline),
    }
}

/// Says how long we wait, in which trace, who we are and for whom we ask.
fn identify(headers: &mut HeaderMap, ctx: &Ctx, callee: &Callee, timeout: &str) {
    let text = |text: &str| HeaderValue::try_from(text).ok();
    if let Some(timeout) = text(timeout) {
        headers.insert("grpc-timeout", timeout);
    }
    if let Some(trace) = text(&ctx.trace().child().to_string()) {
        headers.insert("traceparent", trace);
    }
    // Whoever brings an `authorization` (the gateway does) speaks in that name alone.
    if headers.contains_key(header::AUTHORIZATION) {
        return;
    }
    let Some(own) = callee.sign_in.header() else { return };
    headers.insert(header::AUTHORIZATION, own);
    let user = ctx.caller().and_then(|caller| caller.token.as_deref());
    if let Some(mut user) = user.and_then(text) {
        user.set_sensitive(true);
        headers.insert(ON_BEHALF_OF, user);
    }
}

impl reply::Watch {
    /// The answer to a call that was not sent.
    fn refused(self, failure: &Failure) -> Response<Body> {
        let status = status::local(failure);
        self.record(status.code());
        status.into_http()
    }

    /// The answer to a call of which we know only that it was sent.
    fn failed(self, failure: &Failure) -> Response<Body> {
        let status = status::of(failure);
        self.record(status.code());
        status.into_http()
    }
}
