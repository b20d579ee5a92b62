//! How the settings in effect are shown.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{
    backoff::Backoff,
    breaker::{Rule, Share},
    budget::Allowance,
    policy::{Hedge, Policy},
};

pub(super) fn told(policy: &Policy) -> Value {
    let Policy {
        timeout,
        longest,
        backoff,
        retry_aborted,
        hedge,
        breaker,
        budget,
        bulkhead,
        method_bulkhead,
        queue_timeout,
        throttle,
        methods: _,
    } = policy;
    let budget = match *budget {
        Allowance::Share { percent, per_second } => {
            json!({ "percent_of_calls": percent, "per_second": per_second })
        }
        Allowance::Tokens { max, ratio_thousandths } => {
            json!({ "tokens": max, "ratio_thousandths": ratio_thousandths })
        }
    };
    let hedge = hedge.map(
        |Hedge { percent, least }| json!({ "after_percent": percent, "least_ms": millis(least) }),
    );
    json!({
        "timeout_ms": timeout.map(millis),
        "longest_ms": longest.map(millis),
        "retry": told_of_retries(backoff),
        "retry_aborted": retry_aborted,
        "hedge": hedge,
        "budget": budget,
        "places": bulkhead,
        "method_places": method_bulkhead,
        "queue_timeout_ms": millis(*queue_timeout),
        "throttle": throttle,
        "breaker": told_of_breaker(breaker),
    })
}

fn told_of_retries(backoff: &Backoff) -> Value {
    let Backoff { retries, ceilings, max, jitter } = *backoff;
    let ceilings: Vec<u64> = ceilings.iter().copied().map(millis).collect();
    json!({ "times": retries, "ceilings_ms": ceilings, "max_ms": millis(max), "jitter": jitter })
}

fn told_of_breaker(breaker: &Rule) -> Value {
    let Rule {
        failures_min,
        calls_min,
        share,
        all_failing,
        slow_percent,
        open,
        open_max,
        jitter_percent,
        probes,
        ramp,
    } = breaker;
    if *failures_min == u32::MAX {
        return json!("off");
    }
    let share = match share {
        Share::Any => json!("any"),
        Share::AtLeast(percent) => json!(format!("at least {percent} %")),
        Share::Above(percent) => json!(format!("above {percent} %")),
    };
    json!({
        "failures": failures_min,
        "calls": calls_min,
        "share": share,
        "all_failing": all_failing,
        "slow_percent": slow_percent,
        "open_ms": millis(*open),
        "open_max_ms": millis(*open_max),
        "jitter_percent": jitter_percent,
        "probes": probes,
        "ramp_ms": millis(*ramp),
    })
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
