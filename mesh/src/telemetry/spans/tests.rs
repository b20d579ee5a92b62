use std::time::Duration;

use opentelemetry::trace::Status;

use super::*;

const METHOD: &str = "package.Service/Method";

fn spans(room: usize) -> (Spans, mpsc::Receiver<SpanData>) {
    let (sender, queue) = mpsc::channel(room);
    (Spans::over(sender), queue)
}

fn said(data: &SpanData, key: &str) -> Option<String> {
    let one = data.attributes.iter().find(|it| it.key.as_str() == key)?;
    Some(one.value.to_string())
}

fn parsed(sampled: u8) -> Trace {
    let text = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0{sampled}");
    Trace::parse(&text).expect("a traceparent")
}

#[tokio::test]
async fn a_span_is_below_the_caller_and_above_those_that_are_called() {
    let (spans, mut queue) = spans(8);
    let served = spans.served(parsed(1), METHOD);
    let ctx = Ctx::root(Duration::from_secs(1), parsed(1)).recorded(&spans, served.clone());
    let call = spans.call(&ctx, METHOD, "callee");
    let attempt = call.attempt(&spans, METHOD, 1);
    attempt.judged(None);
    call.answered(Code::Ok);
    served.answered(Code::Ok);

    let [attempt, call, served] = [(); 3].map(|()| queue.try_recv().expect("three ended"));
    assert_eq!(served.parent_span_id.to_string(), "00f067aa0ba902b7");
    assert!(served.parent_span_is_remote && !call.parent_span_is_remote);
    assert_eq!(call.parent_span_id, served.span_context.span_id());
    assert_eq!(attempt.parent_span_id, call.span_context.span_id());
    for one in [&served, &call, &attempt] {
        let trace = one.span_context.trace_id().to_string();
        assert_eq!(trace, "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(one.end_time >= one.start_time);
    }
    assert_eq!(attempt.name, "Attempt.package.Service/Method");
    assert_eq!(said(&attempt, name::RPC_METHOD), None, "that is said of the call");
    assert_eq!(said(&call, name::SERVER).as_deref(), Some("callee"));
}

#[tokio::test]
async fn what_is_not_sampled_is_not_recorded_and_is_nowhere_a_span() {
    let (spans, mut queue) = spans(8);
    let span = spans.served(parsed(0), METHOD);
    assert!(!span.is_recorded() && span.trace().is_none());
    let ctx = Ctx::root(Duration::from_secs(1), parsed(0)).recorded(&spans, span);
    assert_eq!(ctx.traceparent(), parsed(0).to_string());
    assert!(!spans.call(&ctx, METHOD, "callee").is_recorded());
    assert!(!Spans::nowhere().served(parsed(1), METHOD).is_recorded());
    assert!(queue.try_recv().is_err());
}

#[tokio::test]
async fn a_trace_that_begins_here_has_no_parent() {
    let (spans, mut queue) = spans(8);
    spans.served(Trace::new(), METHOD).answered(Code::Ok);
    let root = queue.try_recv().expect("it ended");
    assert_eq!(root.parent_span_id, SpanId::INVALID);
    assert!(!root.parent_span_is_remote);
}

#[tokio::test]
async fn a_server_fails_by_its_own_fault_and_a_call_by_everything_but_ok() {
    let (spans, mut queue) = spans(64);
    let ctx = Ctx::root(Duration::from_secs(1), parsed(1));
    for (code, server, client) in [
        (Code::Ok, false, false),
        (Code::NotFound, false, true),
        (Code::PermissionDenied, false, true),
        (Code::ResourceExhausted, false, true),
        (Code::Cancelled, false, true),
        (Code::Unknown, true, true),
        (Code::DeadlineExceeded, true, true),
        (Code::Unimplemented, true, true),
        (Code::Internal, true, true),
        (Code::Unavailable, true, true),
        (Code::DataLoss, true, true),
    ] {
        spans.served(parsed(1), METHOD).answered(code);
        spans.call(&ctx, METHOD, "callee").answered(code);
        for failed in [server, client] {
            let one = queue.try_recv().expect("it ended");
            let text = crate::telemetry::code(code);
            assert_eq!(said(&one, name::RPC_STATUS).as_deref(), Some(text));
            assert_eq!(
                one.status,
                if failed { Status::error("") } else { Status::Unset },
                "{text}"
            );
            assert_eq!(said(&one, name::ERROR_TYPE).is_some(), failed, "{text}");
        }
    }
}

#[tokio::test]
async fn a_span_ends_once_and_what_nobody_waited_for_ends_as_cancelled() {
    let (spans, mut queue) = spans(8);
    let ctx = Ctx::root(Duration::from_secs(1), parsed(1));
    let call = spans.call(&ctx, METHOD, "callee");
    let same = call.clone();
    drop(call);
    assert!(queue.try_recv().is_err(), "somebody still has it");
    same.answered(Code::NotFound);
    same.answered(Code::Ok);
    same.set(name::REASON, "LATE");
    drop(same);
    let ended = queue.try_recv().expect("it ended");
    assert_eq!(said(&ended, name::ERROR_TYPE).as_deref(), Some("NOT_FOUND"));
    assert_eq!(said(&ended, name::REASON), None);
    assert!(queue.try_recv().is_err(), "once");

    drop(spans.call(&ctx, METHOD, "callee"));
    let left = queue.try_recv().expect("it ended");
    assert_eq!(said(&left, name::ERROR_TYPE).as_deref(), Some("CANCELLED"));
}

#[tokio::test]
async fn a_full_queue_drops_and_counts_and_never_waits() {
    let (spans, mut queue) = spans(2);
    let before = crate::telemetry::metrics().spans_dropped.get();
    for _ in 0..5 {
        spans.served(parsed(1), METHOD).answered(Code::Ok);
    }
    assert!(crate::telemetry::metrics().spans_dropped.get() >= before + 3);
    assert!(queue.try_recv().is_ok() && queue.try_recv().is_ok() && queue.try_recv().is_err());
}

#[tokio::test]
async fn what_happens_meanwhile_is_told_and_does_not_grow_for_ever() {
    let (spans, mut queue) = spans(2);
    let ctx = Ctx::root(Duration::from_secs(1), parsed(1));
    let call = spans.call(&ctx, METHOD, "callee");
    (0..100).for_each(|_| call.retried(2, "UNAVAILABLE"));
    call.moved(Some(["closed", "closed"]), || ["open", "closed"]);
    call.answered(Code::Unavailable);
    let ended = queue.try_recv().expect("it ended");
    assert_eq!(ended.events.len(), EVENTS_MAX);
    assert_eq!(ended.events.dropped_count, 69);
    assert_eq!(ended.events[0].name, name::RETRY);
}

#[tokio::test]
async fn all_that_is_done_for_an_order_says_which() {
    let (spans, mut queue) = spans(8);
    let served = spans.served(parsed(1), METHOD);
    let ctx = Ctx::root(Duration::from_secs(1), parsed(1)).recorded(&spans, served);
    ctx.about("orders/42");
    ctx.about("orders/43");
    spans.call(&ctx, METHOD, "callee").answered(Code::Ok);
    Spans::created(&ctx, "an id", "order.created").end();
    ctx.span().answered(Code::Ok);
    for named in [METHOD, "create order_events", METHOD] {
        let one = queue.try_recv().expect("it ended");
        assert_eq!(one.name, named);
        assert_eq!(said(&one, name::ORDER).as_deref(), Some("orders/42"));
    }
}

#[tokio::test]
async fn work_that_nobody_waits_for_is_a_span_where_it_goes_on_with_a_trace() {
    let (spans, mut queue) = spans(8);
    let kept = parsed(1).to_string();
    let work = async {
        let second = Duration::from_secs(1);
        let inside = crate::ctx::background("resolve", second, Some(&kept), async {
            Ctx::current().expect("a scope").trace()
        });
        let inside = inside.await.expect("in time");
        // Without a trace there is nothing to be found below.
        crate::ctx::background("poll", second, None, async {}).await.expect("in time");
        inside
    };
    let inside = HOME.scope(spans, work).await;
    let ended = queue.try_recv().expect("it ended");
    assert_eq!(ended.name, "resolve");
    assert_eq!(ended.parent_span_id.to_string(), "00f067aa0ba902b7");
    assert_eq!(ended.span_context.span_id().to_string(), inside.span_id());
    assert!(queue.try_recv().is_err());
}
