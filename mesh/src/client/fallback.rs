//! An answer in place of one that did not come: marked, so that nobody takes it for the other.

use std::future::Future;

use tonic::{Response, Status};

use super::{callee, classify};
use crate::{
    clock,
    ctx::Ctx,
    deadline::{self, Late},
    marks,
    status::{self, Failure},
    telemetry,
};

/// Of the time that is left, one part in so many is kept for the fallback.
const RESERVE: u32 = 10;

/// What `call` answers, or else what `otherwise` says.
///
/// `call` gets nine tenths of the time that is left, so that there is some to fall back in. A
/// refusal by a rule (`NOT_FOUND`, `FAILED_PRECONDITION`) is an answer and stays one. Where the
/// fallback speaks, the answer of the call that we work for is marked `mesh-degraded`, with the
/// name of the dependency.
///
/// # Errors
/// What `call` says, where that is an answer or no time is left; what `otherwise` says.
pub async fn fallback<T>(
    call: impl Future<Output = Result<Response<T>, Status>>,
    otherwise: impl AsyncFnOnce(Status) -> Result<T, Status>,
) -> Result<T, Status> {
    let ctx = Ctx::current_or_root();
    let left = ctx.time_left();
    let part = ctx.until(clock::instant() + (left - left / RESERVE));
    let why = match part.scope(deadline::within(part.deadline(), call)).await {
        Ok(Ok(response)) => return Ok(response.into_inner()),
        Ok(Err(status)) => status,
        Err(Late) => status::of(&Failure::Deadline),
    };
    let local = why.metadata().contains_key(marks::LOCAL);
    if !classify::may_fall_back(why.code(), local) || ctx.time_left().is_zero() {
        return Err(why);
    }
    let dependency = why.metadata().get(marks::DEPENDENCY).and_then(|name| name.to_str().ok());
    let dependency = dependency.unwrap_or("unknown").to_owned();
    tracing::debug!(dependency, code = telemetry::code(why.code()), "does without {dependency}");
    let value = ctx.scope(deadline::within(ctx.deadline(), otherwise(why))).await;
    let value = value.map_err(|Late| status::of(&Failure::Deadline))??;
    ctx.degrade(&dependency);
    callee::count(&telemetry::metrics().degraded, &dependency);
    Ok(value)
}
