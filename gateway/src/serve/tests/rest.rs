//! Bodies that nobody waits for, and bodies that do not come.

use std::{
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll},
};

use futures_util::stream;
use http_body::SizeHint;

use super::*;

type Frames = Result<Frame<Bytes>, Infallible>;

/// A body that says how large it is, and must not be read.
struct Announced(u64);

impl Body for Announced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Frames>> {
        panic!("read")
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0)
    }
}

/// What a request is answered that is refused by its head alone, and after how many milliseconds.
async fn answered<B>(headers: &[(&str, &str)], body: B) -> (u16, u128)
where
    B: Body<Data = Bytes> + Send + 'static,
{
    let request = request("POST", "/v1/nowhere", headers, "").map(|_empty| body);
    let started = mesh::clock::instant();
    let response = Bed::new(Act::Echo).gateway.oneshot(request).await.expect("an answer");
    (response.status().as_u16(), started.elapsed().as_millis())
}

#[tokio::test(start_paused = true)]
async fn an_answer_does_not_overtake_the_small_rest_of_its_request() {
    let late = stream::once(async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        Frames::Ok(Frame::data(Bytes::from_static(b"{}")))
    });
    assert_eq!(answered(&[], StreamBody::new(late)).await, (404, 200));
}

#[tokio::test(start_paused = true)]
async fn an_answer_waits_a_quarter_of_a_second_for_its_request_and_no_longer() {
    let never = StreamBody::new(stream::pending::<Frames>());
    assert_eq!(answered(&[], never).await, (404, 250));
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_for_a_body_that_is_kept_back() {
    let never = StreamBody::new(stream::pending::<Frames>());
    assert_eq!(answered(&[("expect", "100-continue")], never).await, (404, 0));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_408() {
    let bed = Bed::new(Act::Echo);
    let never = StreamBody::new(stream::pending::<Frames>());
    let request = request("POST", "/v1/all", &[], "").map(|_empty| never);
    let response = bed.gateway.clone().oneshot(request).await.expect("an answer");
    assert_eq!((response.status().as_u16(), bed.count()), (408, 0));
}

#[tokio::test]
async fn s40_a_body_that_announces_too_much_stays_unread() {
    const LENGTH: u64 = 10 * 1_024 * 1_024;
    let bed = Bed::new(Act::Echo);
    let headers = [("content-length", LENGTH.to_string())];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    let request = request("POST", "/v1/all", &headers, "").map(|_empty| Announced(LENGTH));
    let response = bed.gateway.clone().oneshot(request).await.expect("an answer");
    assert_eq!(response.status(), 413);
}

#[tokio::test(start_paused = true)]
async fn a_large_rest_stays_unread() {
    assert_eq!(answered(&[], Announced(65_537)).await, (404, 0));
    let read = AtomicUsize::new(0);
    let read: &'static AtomicUsize = Box::leak(Box::new(read));
    let endless = stream::repeat_with(|| {
        read.fetch_add(16, Ordering::Relaxed);
        Frames::Ok(Frame::data(Bytes::from_static(&[b' '; 16 * 1_024])))
    });
    assert_eq!(answered(&[], StreamBody::new(endless)).await, (404, 0));
    assert_eq!(read.load(Ordering::Relaxed), 80, "KiB: the frame that is too much, and no more");
}
