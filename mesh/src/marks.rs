//! What processes tell each other beside requests and answers.
//!
//! A handler that passes on what a child call said must not pass on what was meant for it alone:
//! the server strips these marks and sets its own.

use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::Code;

use crate::{ctx::Ctx, telemetry::names::span::ORDER};

/// A failure that this process made up before anything was sent.
pub(crate) const LOCAL: &str = "mesh-local";
/// The dependency that a failure came from. Only within a process.
pub(crate) const DEPENDENCY: &str = "mesh-dependency";
/// What an answer has to do without: names of dependencies, with commas between them.
pub const DEGRADED: &str = "mesh-degraded";
/// Why a server refused a call before it began: [`BUDGET`], `load` or `bulkhead`.
pub(crate) const REFUSED: &str = "mesh-refused";
/// The call had less time than it takes.
pub(crate) const BUDGET: &str = "budget";
/// When to try again, in milliseconds; a negative number says not to.
pub(crate) const PUSHBACK: &str = "grpc-retry-pushback-ms";
/// How many attempts came before this one.
pub(crate) const ATTEMPTS: &str = "grpc-previous-rpc-attempts";

/// W3C Baggage.
pub(crate) const BAGGAGE: &str = "baggage";

/// The code of an answer, read of each.
const STATUS: &str = "grpc-status";

/// The longest name of a dependency that is believed.
const NAME_MAX: usize = 64;

/// The baggage that says which order all of this is about.
pub(crate) fn baggage(order: &str) -> Option<HeaderValue> {
    if !is_name(order) {
        return None;
    }
    HeaderValue::from_str(&format!("{ORDER}={order}")).ok()
}

/// Which order a call is about, as its baggage says. Other members mean nothing here.
pub(crate) fn order(headers: &HeaderMap) -> Option<&str> {
    let members = headers.get(BAGGAGE)?.to_str().ok()?.split(',');
    let mut named =
        members.filter_map(|member| member.trim().strip_prefix(ORDER)?.strip_prefix('='));
    named.next().filter(|order| is_name(order))
}

/// Which attempt of its caller a request is, by the value of [`ATTEMPTS`].
pub(crate) fn attempt(before: Option<&str>) -> u32 {
    let before = before.and_then(|text| text.parse::<u32>().ok());
    before.unwrap_or_default().saturating_add(1)
}

/// Whether there is any mark in these headers. Almost always there is none, and to look at the few
/// names that are there costs less than to look for each mark.
pub(crate) fn are_in(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with("mesh-") || name == PUSHBACK)
}

/// Takes away what only the sender of an answer may say, and what it said to us alone.
pub(crate) fn strip(headers: &mut HeaderMap) {
    if !are_in(headers) {
        return;
    }
    for name in [LOCAL, DEPENDENCY, REFUSED, PUSHBACK, DEGRADED] {
        headers.remove(name);
    }
}

/// Says in the head or the trailers of an answer, with this code in it, what `ctx` knows of it.
pub(crate) fn sign(ctx: &Ctx, headers: &mut HeaderMap, code: Option<Code>) {
    let degraded = ctx.degraded();
    if !degraded.is_empty()
        && let Ok(value) = HeaderValue::from_str(&degraded.join(","))
    {
        headers.insert(DEGRADED, value);
    }
    let failed = code.is_some_and(|code| code != Code::Ok);
    if failed && ctx.was_retried() && !headers.contains_key(PUSHBACK) {
        // One level tries again: what was tried again here goes up as it is.
        headers.insert(PUSHBACK, HeaderValue::from_static("-1"));
    }
}

/// Takes in what an answer to a call of `ctx` has to do without.
pub(crate) fn inherit(ctx: &Ctx, headers: &HeaderMap) {
    for value in headers.get_all(DEGRADED) {
        let names = value.to_str().unwrap_or_default().split(',').map(str::trim);
        for name in names.filter(|name| is_name(name)) {
            ctx.degrade(name);
        }
    }
}

/// Says within this process which dependency a failure came from.
pub(crate) fn from(headers: &mut HeaderMap, dependency: &str) {
    if let Ok(value) = HeaderValue::from_str(dependency) {
        headers.insert(HeaderName::from_static(DEPENDENCY), value);
    }
}

/// The status of an answer, if it stands in these headers.
pub(crate) fn code(headers: &HeaderMap) -> Option<Code> {
    // Few headers come with an answer: to look at each costs less than to look one up.
    let status = headers.iter().find(|(name, _)| name.as_str() == STATUS);
    status.map(|(_, value)| Code::from_bytes(value.as_bytes()))
}

fn is_name(name: &str) -> bool {
    let allowed =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'/');
    (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ctx::Trace;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn ctx() -> Ctx {
        Ctx::root(Duration::from_secs(1), Trace::new())
    }

    #[test]
    fn an_answer_names_what_it_and_those_below_do_without() {
        let (ctx, mut out) = (ctx(), HeaderMap::new());
        inherit(&ctx, &headers(&[(DEGRADED, "users, catalog"), (DEGRADED, "users")]));
        ctx.degrade("orders");
        sign(&ctx, &mut out, None);
        assert_eq!(out[DEGRADED], "users,catalog,orders");
    }

    #[test]
    fn what_is_no_name_is_not_passed_on_and_names_are_few() {
        let ctx = ctx();
        inherit(&ctx, &headers(&[(DEGRADED, "a b,\t,<script>,,ok")]));
        assert_eq!(ctx.degraded(), ["ok".into()]);
        (0..100).for_each(|n| ctx.degrade(&n.to_string()));
        assert_eq!(ctx.degraded().len(), 8);
    }

    #[test]
    fn only_a_failure_that_was_tried_again_goes_up_with_pushback() {
        for (status, retried, pushback) in
            [("14", true, true), ("14", false, false), ("0", true, false)]
        {
            let ctx = ctx();
            if retried {
                ctx.note_retried();
            }
            let mut out = headers(&[("grpc-status", status)]);
            let code = code(&out);
            sign(&ctx, &mut out, code);
            assert_eq!(out.get(PUSHBACK).is_some_and(|it| it == "-1"), pushback, "{status}");
        }
    }

    #[test]
    fn every_mark_is_seen_and_stripped_and_nothing_else_is() {
        for mark in [LOCAL, DEPENDENCY, REFUSED, PUSHBACK, DEGRADED] {
            let mut marked = headers(&[("grpc-status", "0"), (mark, "x"), ("x-mesh", "y")]);
            assert!(are_in(&marked), "{mark}");
            strip(&mut marked);
            assert_eq!(marked, headers(&[("grpc-status", "0"), ("x-mesh", "y")]), "{mark}");
            assert!(!are_in(&marked), "{mark}");
        }
    }

    #[test]
    fn an_order_is_read_from_the_baggage_as_it_was_written_and_nothing_else_is() {
        let mut written = HeaderMap::new();
        written.insert(BAGGAGE, baggage("orders/42").expect("a name"));
        assert_eq!(order(&written), Some("orders/42"));
        assert_eq!(baggage("a b"), None);
        for (text, expected) in [
            ("user=ada, order.id=orders/1", Some("orders/1")),
            ("order.id=a;p=1", None),
            ("order.ids=orders/1", None),
            ("order.id=", None),
            ("", None),
        ] {
            assert_eq!(order(&headers(&[(BAGGAGE, text)])), expected, "{text}");
        }
    }

    #[test]
    fn attempts_are_counted_from_one() {
        for (text, expected) in [("0", 1), ("2", 3), ("-1", 1), ("x", 1), ("4294967295", u32::MAX)]
        {
            assert_eq!(attempt(Some(text)), expected, "{text}");
        }
        assert_eq!(attempt(None), 1);
    }
}
