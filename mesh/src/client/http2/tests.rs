//! Callers against a server by hand, over pipes, with time paused.

use std::{future::poll_fn, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use h2::server;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tonic::{Status, body::Body};

use super::*;
use crate::client::connect::{Error, Settings};

const SECOND: Duration = Duration::from_secs(1);

type Server = server::Connection<DuplexStream, Bytes>;
type Respond = server::SendResponse<Bytes>;

/// A connection to a server that admits so many streams.
async fn connected(admits: u32) -> (Connected, Server) {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let mut server = server::Builder::new();
    let server = server.max_concurrent_streams(admits).handshake::<_, Bytes>(theirs);
    let settings = Settings::default();
    let (connected, server) = tokio::join!(handshake(ours, &settings), server);
    (connected.expect("connected"), server.expect("a server"))
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

/// The next call that a server gets, while `caller` waits.
async fn accept<F: Future>(server: &mut Server, caller: F) -> (h2::RecvStream, Respond) {
    tokio::select! {
        call = server.accept() => {
            let (request, respond) = call.expect("a call").expect("a call");
            (request.into_body(), respond)
        }
        _ = caller => unreachable!("nobody has answered"),
    }
}

/// Why the server has to give a call up.
async fn given_up(server: &mut Server, respond: &mut Respond) -> Option<Reason> {
    tokio::select! {
        reason = poll_fn(|cx| respond.poll_reset(cx)) => Some(reason.expect("a reason")),
        _ = server.accept() => None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_given_up_is_reset_wherever_it_is() {
    for (mut sent, name) in [(whole(), "whole"), (waiting(), "requests still come")] {
        let (Connected { sender, ends: _ends, .. }, mut server) = connected(100).await;
        // Before its answer.
        let mut call = Box::pin(sender.send(&mut sent));
        let (_body, mut respond) = accept(&mut server, &mut call).await;
        drop(call);
        assert_eq!(given_up(&mut server, &mut respond).await, Some(Reason::CANCEL), "{name}");
    }
    for (mut sent, name) in [(whole(), "whole"), (waiting(), "requests still come")] {
        let (Connected { sender, ends: _ends, .. }, mut server) = connected(100).await;
        // With its answer under way.
        let mut call = Box::pin(sender.send(&mut sent));
        let (_body, mut respond) = accept(&mut server, &mut call).await;
        let mut answer = respond.send_response(Response::new(()), false).expect("a head");
        let head = tokio::select! {
            head = call => head.expect("a head"),
            _ = server.accept() => unreachable!("one call"),
        };
        drop(head);
        let reason = tokio::select! {
            reason = poll_fn(|cx| answer.poll_reset(cx)) => reason.expect("a reason"),
            _ = server.accept() => unreachable!("one call"),
        };
        assert_eq!(reason, Reason::CANCEL, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_read_to_its_trailers_and_gives_its_place_back() {
    let (Connected { sender, ends: _ends, .. }, mut server) = connected(1).await;
    for round in 0..3 {
        let mut sent = whole();
        let mut call = Box::pin(sender.send(&mut sent));
        let (_body, mut respond) = accept(&mut server, &mut call).await;
        // The peer admits one: the next one waits.
        let mut next = whole();
        assert!(sender.send(&mut next).now_or_never().is_none(), "{round}");
        assert!(next.is_some(), "it was not taken");
        let mut answer = respond.send_response(Response::new(()), false).expect("a head");
        answer.send_data(Bytes::from("b"), false).expect("data");
        let trailers = http::HeaderMap::from_iter([(http::header::AGE, "1".parse().expect("1"))]);
        answer.send_trailers(trailers.clone()).expect("trailers");
        let read = async { call.await.expect("a head").into_body().collect().await };
        let read = tokio::select! {
            read = read => read.expect("a body"),
            _ = server.accept() => unreachable!("one call"),
        };
        assert_eq!(read.trailers(), Some(&trailers));
        assert_eq!(read.to_bytes(), "b");
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_place_gets_the_request_back_when_the_peer_goes() {
    let (Connected { sender, ends, .. }, mut server) = connected(1).await;
    let (mut first, mut second) = (whole(), whole());
    let mut call = Box::pin(sender.send(&mut first));
    let (_body, mut respond) = accept(&mut server, &mut call).await;
    let waits = sender.send(&mut second);
    server.graceful_shutdown();
    let lost = tokio::select! {
        lost = waits => lost.expect_err("lost"),
        _ = server.accept() => unreachable!("no more calls"),
    };
    assert!(matches!(lost, Lost::Unsent), "{lost:?}");
    assert!(second.is_some() && sender.is_closed());
    assert!(ends.await.expect("told").is_ok(), "it was said, and nothing is wrong");
    // What was begun goes on.
    drop(respond.send_response(Response::new(()), true).expect("a head"));
    let head = tokio::select! {
        head = call => head,
        _ = async { while server.accept().await.is_some() {}; std::future::pending::<()>().await } => unreachable!(),
    };
    assert!(head.is_ok(), "{head:?}");
}

#[tokio::test(start_paused = true)]
async fn what_the_peer_refuses_was_not_begun_and_what_it_resets_may_have_been() {
    let not_begun = |lost: &Lost| matches!(lost, Lost::NotBegun);
    for (reason, expected) in [(Reason::REFUSED_STREAM, true), (Reason::INTERNAL_ERROR, false)] {
        let (Connected { sender, ends: _ends, .. }, mut server) = connected(100).await;
        let mut sent = whole();
        let mut call = Box::pin(sender.send(&mut sent));
        let (_body, mut respond) = accept(&mut server, &mut call).await;
        respond.send_reset(reason);
        let lost = tokio::select! {
            lost = call => lost.expect_err("lost"),
            _ = server.accept() => unreachable!("one call"),
        };
        assert_eq!(not_begun(&lost), expected, "{reason}: {lost:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_ends_with_its_last_stream_once_nobody_sends() {
    let (Connected { sender, ends, .. }, mut server) = connected(100).await;
    let mut sent = whole();
    let mut call = Box::pin(sender.send(&mut sent));
    let (_body, mut respond) = accept(&mut server, &mut call).await;
    drop(respond.send_response(Response::new(()), false).expect("a head"));
    let head = tokio::select! {
        head = call => head.expect("a head"),
        _ = server.accept() => unreachable!("one call"),
    };
    drop(sender);
    let one_more = tokio::time::timeout(SECOND, server.accept()).await;
    assert!(one_more.is_err(), "the answer is still under way");
    drop(head);
    assert!(server.accept().await.is_none(), "it is over");
    assert!(ends.await.expect("told").is_ok());
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
    let Connected { sender, mut ends, .. } = connected;
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
