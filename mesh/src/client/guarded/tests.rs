use std::{
    future::pending,
    sync::atomic::{AtomicU32, Ordering},
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, Method, StatusCode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::{
    client::{
        http::{self as outside, Http},
        readings, view,
    },
    ctx::Trace,
};

const SECOND: Duration = Duration::from_secs(1);

/// A call that has a minute.
async fn in_call<F: Future>(future: F) -> F::Output {
    Ctx::root(60 * SECOND, Trace::new()).scope(future).await
}

async fn hangs(name: &'static str, policy: &Policy) -> Result<(), Unserved<String>> {
    guarded(name, policy, pending()).await
}

async fn answers(name: &'static str, policy: &Policy) -> Result<(), Unserved<String>> {
    guarded(name, policy, async { Ok(()) }).await
}

#[tokio::test(start_paused = true)]
async fn who_hangs_for_every_call_holds_nobody_up_until_a_probe_is_answered() {
    let policy = Policy::external();
    in_call(async {
        let before = clock::instant();
        for late in join_all((0..5).map(|_| hangs("hanging", &policy))).await {
            assert!(matches!(late, Err(Unserved::Late(_))), "{late:?}");
        }
        assert_eq!(before.elapsed(), 3 * SECOND);
        let begun = AtomicU32::new(0);
        let refused = guarded("hanging", &policy, async {
            begun.fetch_add(1, Ordering::Relaxed);
            Ok::<_, String>(())
        });
        let refused = refused.await.expect_err("the breaker is open");
        let Unserved::Refused(Failure::CircuitOpen { callee, after }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!((callee.as_str(), after), ("hanging", 30 * SECOND));
        assert_eq!((begun.into_inner(), before.elapsed()), (0, 3 * SECOND), "not begun, at once");
    })
    .await;
    tokio::time::advance(30 * SECOND).await;
    in_call(async {
        answers("hanging", &policy).await.expect("the probe is answered");
        answers("hanging", &policy).await.expect("one is enough");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_has_little_time_itself_says_nothing_of_whom_it_calls() {
    let policy = Policy::external();
    for _ in 0..20 {
        in_call(answers_after("slow", &policy, SECOND)).await.expect("in time");
    }
    for _ in 0..100 {
        let hurried = Ctx::root(SECOND / 10, Trace::new());
        let late = hurried.scope(answers_after("slow", &policy, SECOND)).await;
        assert!(matches!(late, Err(Unserved::Late(_))), "{late:?}");
    }
    in_call(answers_after("slow", &policy, SECOND)).await.expect("the breaker is closed");
}

async fn answers_after(
    name: &'static str,
    policy: &Policy,
    after: Duration,
) -> Result<(), Unserved<String>> {
    let answer = async {
        tokio::time::sleep(after).await;
        Ok(())
    };
    guarded(name, policy, answer).await
}

#[tokio::test(start_paused = true)]
async fn no_more_than_there_are_places_wait_for_an_answer() {
    let policy = Policy { bulkhead: 3, ..Policy::external() };
    let waiting = || in_call(hangs("narrow", &policy));
    let fourth = async {
        tokio::task::yield_now().await;
        let reading = readings().into_iter().find(|it| it.dependency == "narrow").expect("read");
        assert_eq!((reading.bulkhead_in_use, reading.retry_budget), (3, None));
        in_call(answers("narrow", &policy)).await
    };
    let (.., fourth) = tokio::join!(waiting(), waiting(), waiting(), fourth);
    let full = fourth.expect_err("no place is left");
    assert!(matches!(full, Unserved::Refused(Failure::Full(_))), "{full:?}");
    let refused = telemetry::metrics().encode();
    let counted = r#"mesh_refused_total{dependency="narrow",reason="BULKHEAD_FULL"} 1"#;
    assert!(refused.contains(counted), "{refused}");
    in_call(answers("narrow", &policy)).await.expect("places were given back");
}

#[tokio::test(start_paused = true)]
async fn who_is_outside_is_seen_by_the_operator_as_an_upstream_is() {
    let policy = Policy { bulkhead: 7, ..Policy::external() };
    for _ in 0..5 {
        let failed = guarded("seen", &policy, async { Err::<(), _>("no") });
        let failed = in_call(failed).await.expect_err("it fails");
        assert_eq!(failed.to_string(), "no");
    }
    let all = view();
    let seen = all.as_array().and_then(|all| all.iter().find(|it| it["name"] == "seen"));
    let seen = seen.expect("it is in the view");
    assert_eq!(seen["breaker"]["state"], "open");
    assert_eq!((&seen["breaker"]["calls_10s"], &seen["bulkhead"]["max"]), (&5.into(), &7.into()));
    let metrics = telemetry::metrics().encode();
    for metric in [
        r#"mesh_breaker_state{dependency="seen",method=""} 2"#,
        r#"mesh_bulkhead_in_use{dependency="seen"} 0"#,
    ] {
        assert!(metrics.contains(metric), "{metric} in {metrics}");
    }
    let other = Policy { bulkhead: 8, ..policy };
    in_call(answers("seen", &other)).await.expect("another policy has a breaker of its own");
}

/// A server that answers each request with the next of these, and hangs when there is none; how
/// often it was asked.
async fn server(answers: &'static [&'static str]) -> (Http, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    let (asked, count) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let counts = Arc::clone(&asked);
    crate::detach("server", 60 * SECOND, async move {
        let mut held = Vec::new();
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            let mut request = [0; 4_096];
            let _read = stream.read(&mut request).await;
            counts.fetch_add(1, Ordering::Relaxed);
            let next = count.fetch_add(1, Ordering::Relaxed);
            match usize::try_from(next).ok().and_then(|next| answers.get(next)) {
                Some(answer) => {
                    let answer = format!(
                        "HTTP/1.1 {answer} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                    );
                    let _written = stream.write_all(answer.as_bytes()).await;
                }
                None => held.push(stream),
            }
        }
    });
    (Http::new(&base), asked)
}

async fn ask(http: &Http) -> Result<StatusCode, outside::Failure> {
    let timeout = 10 * SECOND;
    let asked = http.call(Method::POST, "/", HeaderMap::new(), Bytes::new(), timeout);
    Ok(in_call(asked).await?.0)
}

#[tokio::test]
async fn a_server_that_hangs_is_not_sent_what_it_would_hold_up() {
    let (http, asked) = server(&[]).await;
    let timeout = Some(Duration::from_millis(50));
    let http = http.guarded("outside", Policy { timeout, ..Policy::external() });
    for _ in 0..5 {
        let unsure = ask(&http).await.expect_err("it hangs");
        assert!(matches!(unsure, outside::Failure::Unsure(_)), "{unsure:?}");
    }
    let before = asked.load(Ordering::Relaxed);
    let refused = ask(&http).await.expect_err("the breaker is open");
    assert!(matches!(refused, outside::Failure::NotSent(_)), "{refused:?}");
    assert!(refused.to_string().contains("left alone"), "{refused}");
    assert_eq!(asked.load(Ordering::Relaxed), before);
}

#[tokio::test]
async fn a_server_that_says_no_is_well_and_one_that_says_it_is_not_is_left_alone() {
    let answers = &["404", "429", "402", "500", "429", "500", "429", "503"];
    let (http, asked) = server(answers).await;
    let http = http.guarded("saying", Policy::external());
    for answer in answers {
        assert_eq!(ask(&http).await.expect("an answer").as_str(), *answer);
    }
    // Three of five fail: what it sheds does not count.
    let refused = ask(&http).await.expect_err("the breaker is open");
    assert!(matches!(refused, outside::Failure::NotSent(_)), "{refused:?}");
    assert_eq!(asked.load(Ordering::Relaxed), 8);
}
