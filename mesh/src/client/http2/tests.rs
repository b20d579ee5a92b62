//! Callers against a server by hand, over pipes, with time paused.

use std::{future::poll_fn, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use h2::server;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tonic::{Status, body::Body};

use super::*;
use crate::{
    client::connect::{Error, Settings},
    clock,
};

const SECOND: Duration = Duration::from_secs(1);

type Server = server::Connection<DuplexStream, Bytes>;
type Respond = server::SendResponse<Bytes>;

/// A connection to a server that admits so many streams.
async fn connected(admits: u32) -> (Connected, Server) {
    connected_by(&Settings::default(), admits).await
}

async fn connected_by(settings: &Settings, admits: u32) -> (Connected, Server) {
    let (ours, theirs) = tokio::io::duplex(64 << 20);
    let mut server = server::Builder::new();
    let server = server.max_concurrent_streams(admits).handshake::<_, Bytes>(theirs);
    let (connected, server) = tokio::join!(handshake(ours, settings), server);
    (connected.expect("connected"), server.expect("a server"))
}

/// From now on, for as long as a test lasts.
fn time() -> (Instant, Instant) {
    let now = clock::instant();
    (now, now + 100 * SECOND)
}

fn request(body: Outgoing) -> Option<Request<Outgoing>> {
    Some(Request::post("http://a/t.T/Call").body(body).expect("a request"))
}

fn whole() -> Option<Request<Outgoing>> {
    request(Outgoing::Whole(Bytes::from("a")))
}

/// Requests of which the first has come, and the second has not.
fn waiting() -> Option<Request<Outgoing>> {
    let first = stream::iter([Ok::<_, Status>(Frame::data(Bytes::from("a")))]);
    request(Outgoing::Streamed(Body::new(StreamBody::new(first.chain(stream::pending())))))
}

/// What does not come by then never does: nothing in these tests waits for so long.
async fn soon<F: Future>(awaited: F) -> F::Output {
    tokio::time::timeout(300 * SECOND, awaited).await.expect("it never comes")
}

/// What comes of `awaited` while a server does its part, and gets no further call.
async fn served<F: Future>(server: &mut Server, awaited: F) -> F::Output {
    soon(async {
        tokio::select! {
            done = awaited => done,
            call = server.accept() => unreachable!("{call:?}"),
        }
    })
    .await
}

/// The next call that a server gets, while `caller` waits.
async fn accept<F: Future<Output: std::fmt::Debug>>(
    server: &mut Server,
    caller: F,
) -> (h2::RecvStream, Respond) {
    let (request, respond) = next(server, caller).await;
    (request.into_body(), respond)
}

/// The head of it alone.
async fn accept_head<F>(server: &mut Server, caller: F) -> Request<h2::RecvStream>
where
    F: Future<Output: std::fmt::Debug>,
{
    next(server, caller).await.0
}

async fn next<F>(server: &mut Server, caller: F) -> (Request<h2::RecvStream>, Respond)
where
    F: Future<Output: std::fmt::Debug>,
{
    soon(async {
        tokio::select! {
            call = server.accept() => call.expect("a call").expect("a call"),
            answer = caller => unreachable!("nobody has answered: {answer:?}"),
        }
    })
    .await
}

/// Why the server has to give a call up.
async fn given_up(server: &mut Server, respond: &mut Respond) -> Option<Reason> {
    let reason = poll_fn(|cx| respond.poll_reset(cx));
    soon(async {
        tokio::select! {
            reason = reason => Some(reason.expect("a reason")),
            _ = server.accept() => None,
        }
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_given_up_is_reset_wherever_it_is() {
    for admits in [100, 1] {
        given_up_where_so_many_are_admitted(admits).await;
    }
}

async fn given_up_where_so_many_are_admitted(admits: u32) {
    for (mut sent, name) in [(whole(), "whole"), (waiting(), "requests still come")] {
        let (Connected { sender, ends: _ends }, mut server) = connected(admits).await;
        // Before its answer.
        let mut call = Box::pin(sender.send(&mut sent, time()));
        let (_body, mut respond) = accept(&mut server, &mut call).await;
        drop(call);
        assert_eq!(given_up(&mut server, &mut respond).await, Some(Reason::CANCEL), "{name}");
    }
    for (mut sent, name) in [(whole(), "whole"), (waiting(), "requests still come")] {
        let (Connected { sender, ends: _ends }, mut server) = connected(admits).await;
        // With its answer under way.
        let mut call = Box::pin(sender.send(&mut sent, time()));
        let (_body, mut respond) = accept(&mut server, &mut call).await;
        let mut answer = respond.send_response(Response::new(()), false).expect("a head");
        let head = served(&mut server, call).await.expect("a head");
        drop(head);
        let reason =
            served(&mut server, poll_fn(|cx| answer.poll_reset(cx))).await.expect("a reason");
        assert_eq!(reason, Reason::CANCEL, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_read_to_its_trailers_and_gives_its_place_back() {
    let (Connected { sender, ends: _ends }, mut server) = connected(1).await;
    for round in 0..3 {
        let mut sent = whole();
        let mut call = Box::pin(sender.send(&mut sent, time()));
        let (_body, mut respond) = accept(&mut server, &mut call).await;
        // The peer admits one: the next one waits.
        let mut next = whole();
        assert!(sender.send(&mut next, time()).now_or_never().is_none(), "{round}");
        assert!(next.is_some(), "it was not taken");
        let mut answer = respond.send_response(Response::new(()), false).expect("a head");
        answer.send_data(Bytes::from("b"), false).expect("data");
        let trailers = http::HeaderMap::from_iter([(http::header::AGE, "1".parse().expect("1"))]);
        answer.send_trailers(trailers.clone()).expect("trailers");
        let read = async { call.await.expect("a head").into_body().collect().await };
        let read = served(&mut server, read).await.expect("a body");
        assert_eq!(read.trailers(), Some(&trailers));
        assert_eq!(read.to_bytes(), "b");
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_place_gets_the_request_back_when_the_peer_goes() {
    let (Connected { sender, ends }, mut server) = connected(1).await;
    let (mut first, mut second) = (whole(), whole());
    let mut call = Box::pin(sender.send(&mut first, time()));
    let (_body, mut respond) = accept(&mut server, &mut call).await;
    let waits = sender.send(&mut second, time());
    server.graceful_shutdown();
    let lost = served(&mut server, waits).await.expect_err("lost");
    assert!(matches!(lost, Lost::Unsent), "{lost:?}");
    assert!(second.is_some() && sender.is_closed());
    assert!(ends.await.expect("told").is_ok(), "it was said, and nothing is wrong");
    // What was begun goes on.
    drop(respond.send_response(Response::new(()), true).expect("a head"));
    let (head, ended) = soon(async { tokio::join!(call, server.accept()) }).await;
    assert!(head.is_ok() && ended.is_none(), "{head:?}");
}

#[tokio::test(start_paused = true)]
async fn what_the_peer_refuses_was_not_begun_and_what_it_resets_may_have_been() {
    let not_begun = |lost: &Lost| matches!(lost, Lost::NotBegun);
    for (reason, expected) in [(Reason::REFUSED_STREAM, true), (Reason::INTERNAL_ERROR, false)] {
        let (Connected { sender, ends: _ends }, mut server) = connected(100).await;
        let mut sent = whole();
        let mut call = Box::pin(sender.send(&mut sent, time()));
        let (_body, mut respond) = accept(&mut server, &mut call).await;
        respond.send_reset(reason);
        let lost = served(&mut server, call).await.expect_err("lost");
        assert_eq!(not_begun(&lost), expected, "{reason}: {lost:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_ends_with_its_last_stream_once_nobody_sends() {
    let (Connected { sender, ends }, mut server) = connected(100).await;
    let mut sent = whole();
    let mut call = Box::pin(sender.send(&mut sent, time()));
    let (_body, mut respond) = accept(&mut server, &mut call).await;
    drop(respond.send_response(Response::new(()), false).expect("a head"));
    let head = served(&mut server, call).await.expect("a head");
    drop(sender);
    let one_more = tokio::time::timeout(SECOND, server.accept()).await;
    assert!(one_more.is_err(), "the answer is still under way");
    drop(head);
    assert!(server.accept().await.is_none(), "it is over");
    assert!(ends.await.expect("told").is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_over_holds_no_place_however_long_it_is_kept() {
    let (Connected { sender, ends: _ends }, mut server) = connected(1).await;
    let mut kept = Vec::new();
    for trailers_only in [true, false, true] {
        let mut sent = whole();
        let mut call = Box::pin(sender.send(&mut sent, time()));
        let (_body, mut respond) = accept(&mut server, &mut call).await;
        let mut answer = respond.send_response(Response::new(()), trailers_only).expect("a head");
        if !trailers_only {
            answer.send_trailers(http::HeaderMap::new()).expect("trailers");
        }
        let read = async {
            let mut answer = call.await.expect("a head").into_body();
            while let Some(frame) = answer.frame().await {
                assert!(frame.is_ok(), "{frame:?}");
            }
            answer
        };
        kept.push(served(&mut server, read).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_body_goes_out_while_others_begin() {
    let (Connected { sender, ends: _ends }, mut server) = connected(100).await;
    const SIZE: usize = 200 << 10;
    let frame = Ok::<_, Status>(Frame::data(Bytes::from(vec![7; SIZE])));
    let large = Body::new(StreamBody::new(stream::iter([frame])));
    let (mut first, mut second) = (request(Outgoing::Streamed(large)), whole());
    // Both are begun before the connection is driven.
    let mut large = Box::pin(sender.send(&mut first, time()));
    assert!(large.as_mut().now_or_never().is_none());
    let mut small = Box::pin(sender.send(&mut second, time()));
    assert!(small.as_mut().now_or_never().is_none());
    let (mut body, _respond) = accept(&mut server, &mut large).await;
    let mut seen = 0;
    while seen < SIZE {
        let data = tokio::select! {
            data = body.data() => data.expect("data").expect("data"),
            more = server.accept() => { drop(more.expect("a call")); continue }
        };
        seen += data.len();
        body.flow_control().release_capacity(data.len()).expect("room for more");
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_falls_is_kept_by_those_who_wait_already() {
    let (Connected { sender, .. }, _server) = connected(4).await;
    let room = Arc::clone(&sender.room);
    let place = || room.enter().ok();
    let mut taken: Vec<_> = (0..4).map(|_| place().expect("a place")).collect();
    room.resize(2);
    for left in [3, 2] {
        let mut waits = Box::pin(room.wait());
        assert!(waits.as_mut().now_or_never().is_none());
        taken.pop();
        assert!(waits.now_or_never().is_none(), "{left} are in use of 2");
    }
    taken.pop();
    taken.push(place().expect("one of two is in use"));
    assert!(place().is_none());
    // And one that rises is there at once, less what was too many.
    room.resize(1);
    room.resize(3);
    taken.push(place().expect("two of three are in use"));
    assert!(place().is_none());
}

#[tokio::test(start_paused = true)]
async fn what_a_call_has_left_is_told_when_it_is_sent() {
    let (Connected { sender, ends: _ends }, mut server) = connected(1).await;
    let (mut first, mut second) = (whole(), whole());
    let mut call = Box::pin(sender.send(&mut first, time()));
    let (_body, mut respond) = accept(&mut server, &mut call).await;
    let mut waits = Box::pin(sender.send(&mut second, time()));
    assert!(waits.as_mut().now_or_never().is_none());
    tokio::time::advance(40 * SECOND).await;
    drop(respond.send_response(Response::new(()), true).expect("a head"));
    let head = served(&mut server, call).await;
    drop(head);
    let told = accept_head(&mut server, waits).await;
    assert_eq!(told.headers()[&deadline::TIMEOUT], "60000m");
}

#[tokio::test(start_paused = true)]
async fn headers_of_a_connection_are_left_out() {
    let (Connected { sender, ends: _ends }, mut server) = connected(1).await;
    let mut sent = whole();
    let headers = sent.as_mut().expect("a request").headers_mut();
    for name in OF_CONNECTIONS {
        headers.insert(name, "x".parse().expect("a value"));
    }
    headers.insert("x", "y".parse().expect("a value"));
    let call = sender.send(&mut sent, time());
    let got = accept_head(&mut server, call).await;
    assert_eq!(got.headers().get("x").expect("x"), "y");
}

#[tokio::test(start_paused = true)]
async fn streams_of_small_messages_that_nobody_reads_do_not_end_the_others() {
    let settings = Settings { windows: crate::client::long::WINDOWS, ..Settings::default() };
    let (Connected { sender, ends: _ends }, mut server) = connected_by(&settings, 256).await;
    let mut unread = Vec::new();
    for number in 0..100 {
        let mut sent = whole();
        let mut call = Box::pin(sender.send(&mut sent, time()));
        let (_body, mut respond) = accept(&mut server, &mut call).await;
        let mut answer = respond.send_response(Response::new(()), false).expect("a head");
        for _ in 0..(64 << 10) / 45 {
            answer.send_data(Bytes::from_static(&[7; 45]), false).expect("data");
        }
        let head = served(&mut server, &mut call).await;
        unread.push((head.unwrap_or_else(|lost| panic!("{number}: {lost:?}")), answer));
    }
    assert!(!sender.is_closed());
}

/// The first bytes of a server: settings without any, and ours acknowledged.
const GREETING: [u8; 18] = [0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0];
/// A window update of the connection, by one byte.
const LIFE: [u8; 13] = [0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1];

#[tokio::test(start_paused = true)]
async fn a_peer_is_there_while_it_says_anything_and_gone_three_seconds_after_a_ping() {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let (mut reads, mut writes) = tokio::io::split(theirs);
    writes.write_all(&GREETING).await.expect("written");
    let connected = handshake(ours, &Settings::default()).await.expect("connected");
    let Connected { sender, mut ends } = connected;
    // It answers no ping; but every 11 s, a second after each, it says something else.
    for _ in 0..5 {
        assert!(tokio::time::timeout(11 * SECOND, &mut ends).await.is_err(), "it is there");
        writes.write_all(&LIFE).await.expect("written");
    }
    let began = crate::clock::instant();
    let ended = ends.await.expect("told");
    assert!(matches!(ended, Err(Error::Silent)), "{ended:?}");
    assert_eq!(began.elapsed().as_secs(), 13);
    assert!(sender.is_closed());
    let mut said = Vec::new();
    let _size = reads.read_to_end(&mut said).await.expect("to its end");
    let pings = said.windows(9).filter(|head| head[..5] == [0, 0, 8, 6, 0]).count();
    assert_eq!(pings, 1, "one was asked for, and never answered");
}
