//! Whether a run notices that a part of the stack is not at work: spans that nobody records.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::TcpListener;

use mesh::testing::SpanCounts;
use meshbench::{
    api::echo_service_client::EchoServiceClient,
    counters::{self, Counted},
    echo::{Echoer, Seen},
    load::Variant,
    transport::{Sampled, Serving, Stack, Transport},
};
use tokio::sync::Mutex;

/// Metrics are those of the process: one test at a time.
static ONE: Mutex<()> = Mutex::const_new(());

const CALLS: u32 = 100;

/// The stack under the name of the one that records its calls, which it does not.
enum Off {}

impl Transport for Off {
    const NAME: &'static str = Sampled::NAME;

    type Caller = <Stack as Transport>::Caller;

    async fn serve(bound: TcpListener, echo: Echoer) -> anyhow::Result<Serving> {
        Stack::serve(bound, echo).await
    }

    async fn connect(ports: &[u16], _: &Seen) -> anyhow::Result<Self::Caller> {
        Ok(EchoServiceClient::new(Stack::channel(Sampled::CALLEE, ports)?))
    }
}

async fn called(variant: &Variant) -> Counted {
    let before = Counted::now(variant);
    variant.calls(4, CALLS).await.unwrap();
    Counted::now(variant).since(before)
}

#[tokio::test]
async fn a_recorded_call_has_three_spans_and_one_of_the_stack_none() {
    let _one = ONE.lock().await;
    let calls = u64::from(CALLS);
    let sampled = called(&Variant::start::<Sampled>().await.unwrap()).await;
    assert_eq!(sampled.spans, SpanCounts { calls, attempts: calls, served: calls });
    assert_eq!((sampled.made, sampled.served), (calls, calls));
    let stack = called(&Variant::start::<Stack>().await.unwrap()).await;
    assert_eq!(stack.spans, SpanCounts::default());
    assert_eq!((stack.made, stack.served), (calls, calls));
}

#[tokio::test]
async fn a_run_does_not_count_whose_spans_are_off() {
    let _one = ONE.lock().await;
    let off = Variant::start::<Off>().await.unwrap();
    let told = counters::look(&off, CALLS).await.unwrap_err().to_string();
    let (moved, expected) = told.rsplit_once(" of ").unwrap();
    assert!(moved.contains("made: 100,") && moved.contains("served: 100,"), "{told}");
    assert!(moved.contains("calls: 0, attempts: 0, served: 0"), "{told}");
    assert!(expected.contains("calls: 100, attempts: 100, served: 100"), "{told}");
}
