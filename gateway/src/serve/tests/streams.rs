//! What a client sees of a stream, and what the service sees of its client.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll},
};

use mesh::config::Bound;
use prost_reflect::MessageDescriptor;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::JoinHandle,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;
use crate::stream::HEARTBEAT;

const EVENTS: (&str, &str) = ("accept", "text/event-stream");
const LINES: (&str, &str) = ("accept", "application/x-ndjson");
const PATH: &str = "/v1/things/1:watch";

/// The answer of a service, bit by bit as a test says.
#[derive(Clone, Debug)]
pub(super) struct Feed {
    say: UnboundedSender<Said>,
    said: Arc<Mutex<Option<UnboundedReceiver<Said>>>>,
    /// How many frames were taken.
    taken: Arc<AtomicUsize>,
    /// When nobody wants more.
    gone: CancellationToken,
}

#[derive(Debug)]
enum Said {
    Message(Value),
    Bytes(Bytes),
    Trailers(&'static [(&'static str, &'static str)]),
    /// The connection breaks.
    Break,
}

struct Answer {
    said: UnboundedReceiver<Said>,
    output: MessageDescriptor,
    taken: Arc<AtomicUsize>,
    _gone: DropGuard,
}

const OK: Said = Said::Trailers(&[("grpc-status", "0")]);

// === impl Feed ===

impl Feed {
    fn new() -> Self {
        let (say, said) = unbounded_channel();
        let said = Arc::new(Mutex::new(Some(said)));
        Self { say, said, taken: Arc::default(), gone: CancellationToken::new() }
    }

    /// One that says all this at once.
    fn of(all: impl IntoIterator<Item = Said>) -> Self {
        let feed = Self::new();
        for said in all {
            feed.say(said);
        }
        feed
    }

    fn say(&self, said: Said) {
        self.say.send(said).expect("somebody listens");
    }

    pub(super) fn answer(&self, output: &MessageDescriptor) -> http::Response<tonic::body::Body> {
        let answer = Answer {
            said: self.said.lock().expect("no panic").take().expect("one call"),
            output: output.clone(),
            taken: Arc::clone(&self.taken),
            _gone: self.gone.clone().drop_guard(),
        };
        let mut response = http::Response::new(tonic::body::Body::new(answer));
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        response.headers_mut().insert("x-said", HeaderValue::from_static("before"));
        response
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let Some(said) = std::task::ready!(self.said.poll_recv(cx)) else {
            return Poll::Ready(None);
        };
        self.taken.fetch_add(1, Ordering::SeqCst);
        Poll::Ready(Some(match said {
            Said::Message(value) => {
                let message = DynamicMessage::deserialize(self.output.clone(), value);
                Ok(Frame::data(frame(&message.expect("a message"))))
            }
            Said::Bytes(bytes) => Ok(Frame::data(bytes)),
            Said::Trailers(trailers) => Ok(Frame::trailers(map(trailers))),
            Said::Break => {
                Err(mesh::status::of(&mesh::status::Failure::Broken("things".to_owned())))
            }
        }))
    }
}

fn note(text: &str) -> Said {
    Said::Message(json!({ "note": text, "resumeToken": format!("after {text}") }))
}

fn bed(feed: &Feed) -> Bed {
    Bed::new(Act::Feed(feed.clone()))
}

/// A stream as it arrives.
struct Arriving {
    status: u16,
    headers: HeaderMap,
    body: tonic::body::Body,
}

impl Arriving {
    async fn of(bed: &Bed, headers: &[(&str, &str)]) -> Self {
        let request = request("GET", PATH, headers, "");
        let response = bed.gateway.clone().oneshot(request).await.expect("an answer");
        let (head, body) = response.into_parts();
        Self { status: head.status.as_u16(), headers: head.headers, body }
    }

    /// The next frame; `None` at the end, `Err` if it is cut off.
    async fn next(&mut self) -> Option<Result<String, tonic::Status>> {
        let frame = self.body.frame().await?;
        Some(frame.map(|frame| {
            let data = frame.into_data().expect("no trailers");
            String::from_utf8(data.to_vec()).expect("UTF-8")
        }))
    }

    async fn text(&mut self) -> String {
        self.next().await.expect("a frame").expect("no failure")
    }
}

#[tokio::test]
async fn s47_a_stream_is_an_array_lines_or_events_as_accept_says() {
    for (accept, content_type, expected) in [
        (
            &[][..],
            "application/json",
            "[{\"note\":\"a\",\"resumeToken\":\"after a\"},\n{\"note\":\"b\",\"resumeToken\":\"after b\"}]",
        ),
        (
            &[LINES],
            "application/x-ndjson",
            "{\"note\":\"a\",\"resumeToken\":\"after a\"}\n{\"note\":\"b\",\"resumeToken\":\"after b\"}\n",
        ),
        (
            &[EVENTS],
            "text/event-stream",
            "id: after a\ndata: {\"note\":\"a\",\"resumeToken\":\"after a\"}\n\n\
             id: after b\ndata: {\"note\":\"b\",\"resumeToken\":\"after b\"}\n\n\
             event: end\ndata: {}\n\n",
        ),
    ] {
        let bed = bed(&Feed::of([note("a"), note("b"), OK]));
        let reply = bed.send(request("GET", PATH, accept, "")).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, Some(content_type)));
        assert_eq!(reply.bytes, expected);
        assert_eq!(reply.header("x-said"), Some("before"));
        assert_eq!(reply.header("content-length"), None);
        assert_eq!(reply.header("x-accel-buffering"), Some("no"));
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        let events = content_type == "text/event-stream";
        let cached = if events { "no-cache" } else { "no-store" };
        assert_eq!(reply.header("cache-control"), Some(cached));
    }
    let bed = Bed::new(Act::Echo);
    let reply = bed.send(request("GET", PATH, &[("accept", "text/html")], "")).await;
    assert_eq!((reply.status, reply.reason()), (406, "NOT_ACCEPTABLE"));
    assert_eq!(bed.count(), 0);
}

#[tokio::test]
async fn s47_every_message_leaves_as_soon_as_it_came() {
    let feed = Feed::of([note("a")]);
    let mut arriving = Arriving::of(&bed(&feed), &[LINES]).await;
    assert!(arriving.text().await.contains("after a"));
    for text in ["b", "c"] {
        feed.say(note(text));
        assert!(arriving.text().await.contains(&format!("after {text}")));
    }
    feed.say(OK);
    assert!(arriving.next().await.is_none());
    assert_eq!(arriving.headers["content-type"], "application/x-ndjson");
}

#[tokio::test]
async fn s45_a_stream_without_messages_is_an_end_in_each_form() {
    for (headers, expected) in
        [(&[][..], "[]"), (&[LINES], ""), (&[EVENTS], "event: end\ndata: {}\n\n")]
    {
        let reply = bed(&Feed::of([OK])).send(request("GET", PATH, headers, "")).await;
        assert_eq!((reply.status, &reply.bytes[..]), (200, expected.as_bytes()));
        // The same without a body at all.
        let bed = Bed::new(Act::FailAtOnce(&[("grpc-status", "0")]));
        let reply = bed.send(request("GET", PATH, headers, "")).await;
        assert_eq!((reply.status, &reply.bytes[..]), (200, expected.as_bytes()));
    }
}

#[tokio::test(start_paused = true)]
async fn s45_no_head_goes_out_before_the_first_message() {
    let feed = Feed::new();
    let bed = bed(&feed);
    let mut arriving = Box::pin(Arriving::of(&bed, &[EVENTS]));
    // Longer than any unary call may last.
    let early = tokio::time::timeout(Duration::from_secs(300), arriving.as_mut()).await;
    assert!(early.is_err());
    feed.say(note("a"));
    assert_eq!(arriving.await.status, 200);
}

#[tokio::test]
async fn s45_a_failure_before_the_first_message_is_an_ordinary_reply() {
    let gone: &[(&str, &str)] = &[("grpc-status", "11"), ("grpc-message", "too old")];
    for headers in [&[][..], &[LINES], &[EVENTS]] {
        for act in [Act::Fail(gone), Act::FailAtOnce(gone)] {
            let reply = Bed::new(act).send(request("GET", PATH, headers, "")).await;
            assert_eq!(reply.status, 400);
            assert_eq!(reply.body, json!({"code": 11, "message": "too old"}));
            assert_eq!(reply.header("content-type"), Some("application/json"));
        }
    }
}

#[tokio::test]
async fn s46_a_failure_in_the_midst_is_a_line_an_event_or_a_cut_and_never_a_clean_end() {
    let failed = || Said::Trailers(&[("grpc-status", "8"), ("grpc-message", "too slow")]);
    let status = r#"{"code":8,"message":"too slow"}"#;
    for (headers, expected) in [
        (&[LINES][..], Some(format!("{{\"error\":{status}}}\n"))),
        (&[EVENTS], Some(format!("event: error\ndata: {status}\n\n"))),
        (&[], None),
    ] {
        let mut arriving = Arriving::of(&bed(&Feed::of([note("a"), failed()])), headers).await;
        assert!(arriving.text().await.contains("after a"));
        match expected {
            Some(expected) => {
                assert_eq!(arriving.text().await, expected);
                assert!(arriving.next().await.is_none());
            }
            None => assert!(arriving.next().await.expect("no clean end").is_err()),
        }
    }
}

#[tokio::test]
async fn s46_what_breaks_the_contract_in_the_midst_is_told_like_any_failure() {
    for (bad, reason) in [
        (Said::Bytes(Bytes::from_static(&[1, 0, 0, 0, 0])), "UPSTREAM_MALFORMED"),
        (Said::Bytes(Bytes::from_static(&[0, 0, 0, 0, 2, 0x12, 9])), "UPSTREAM_MALFORMED"),
        (Said::Bytes(Bytes::from_static(&[0, 0xff, 0, 0, 0])), "UPSTREAM_REPLY_TOO_LARGE"),
        (Said::Break, "CONNECTION_LOST"),
    ] {
        let mut arriving = Arriving::of(&bed(&Feed::of([note("a"), bad])), &[LINES]).await;
        assert!(arriving.text().await.contains("after a"));
        let line: Value = serde_json::from_str(&arriving.text().await).expect("JSON");
        assert_eq!(line["error"]["details"][0]["reason"], reason, "{line}");
    }
    // Within a message, and without a status.
    for end in [vec![Said::Bytes(Bytes::from_static(&[0, 0])), OK], vec![Said::Trailers(&[])]] {
        let feed = Feed::of([note("a")].into_iter().chain(end));
        let mut arriving = Arriving::of(&bed(&feed), &[]).await;
        assert!(arriving.text().await.contains("after a"));
        assert!(arriving.next().await.expect("no clean end").is_err());
    }
}

#[tokio::test]
async fn a_stream_goes_on_where_its_last_event_was() {
    for (path, headers, expected) in [
        (PATH, &[("last-event-id", "t1")][..], Some("t1")),
        // A browser comes back to the address that it had.
        ("/v1/things/1:watch?resumeToken=t0", &[("last-event-id", "t1")], Some("t1")),
        ("/v1/things/1:watch?resumeToken=t0&depth=2", &[], Some("t0")),
        ("/v1/things/1:watch", &[("last-event-id", "")], None),
        // The path rules over every header.
        ("/v1/things/1/from/t0", &[("last-event-id", "t1")], Some("t0")),
    ] {
        let bed = bed(&Feed::of([OK]));
        let reply = bed.send(request("GET", path, headers, "")).await;
        assert_eq!(reply.status, 200, "{path}");
        let call = bed.call();
        assert_eq!(call.message["resumeToken"].as_str(), expected, "{path}");
        assert!(!call.headers.contains_key("last-event-id"));
    }
    let twice = [("last-event-id", "a"), ("last-event-id", "b")];
    let reply = Bed::new(Act::Echo).send(request("GET", PATH, &twice, "")).await;
    assert_eq!((reply.status, reply.reason()), (400, "MALFORMED_HEADER"));
}

#[tokio::test]
async fn a_stream_is_asked_for_by_any_binding_and_may_show_one_field() {
    let thing = || Said::Message(json!({"thing": {"name": "things/1"}, "resumeToken": "t"}));
    let bed = bed(&Feed::of([thing(), OK]));
    let reply = bed.send(request("POST", PATH, &[], r#"{"depth": 2}"#)).await;
    assert_eq!(reply.body, json!([{"thing": {"name": "things/1"}, "resumeToken": "t"}]));
    assert_eq!(bed.call().message, json!({"name": "things/1", "depth": 2}));
    let bed = super::streams::bed(&Feed::of([thing(), OK]));
    let reply = bed.send(request("GET", "/v1/things/1:follow", &[EVENTS], "")).await;
    assert_eq!(reply.bytes, "id: t\ndata: {\"name\":\"things/1\"}\n\nevent: end\ndata: {}\n\n");
}

#[tokio::test]
async fn s50_a_stream_of_bytes_has_the_type_of_its_first_message_and_nothing_between() {
    let part = |kind: &str, data: &str| Said::Message(json!({"contentType": kind, "data": data}));
    let bed = bed(&Feed::of([part("text/plain", "YQ=="), part("text/html", "Yg=="), OK]));
    let reply = bed.send(request("GET", "/v1/logs/1", &[("accept", "text/plain")], "")).await;
    assert_eq!((reply.header("content-type"), &reply.bytes[..]), (Some("text/plain"), &b"ab"[..]));
    let bed = super::streams::bed(&Feed::of([OK]));
    let reply = bed.get("/v1/logs/1").await;
    assert_eq!(reply.header("content-type"), Some("application/octet-stream"));
}

#[tokio::test]
async fn s13_the_head_of_a_stream_is_that_of_get_and_the_call_ends() {
    let feed = Feed::of([note("a")]);
    let reply = bed(&feed).send(request("HEAD", PATH, &[EVENTS], "")).await;
    assert_eq!((reply.status, reply.bytes.len()), (200, 0));
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    assert_eq!(reply.header("content-length"), None);
    feed.gone.cancelled().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_on_which_nothing_happens_shows_that_it_lives() {
    for (headers, expected) in [(&[EVENTS][..], Some(":\n\n")), (&[], Some("\n")), (&[LINES], None)]
    {
        let feed = Feed::of([note("a")]);
        let mut arriving = Arriving::of(&bed(&feed), headers).await;
        assert!(arriving.text().await.contains("after a"));
        for _ in 0..3 {
            let began = mesh::clock::instant();
            let next = tokio::time::timeout(2 * HEARTBEAT, arriving.text()).await.ok();
            assert_eq!(next.as_deref(), expected);
            if expected.is_some() {
                assert_eq!((mesh::clock::instant() - began).as_secs(), HEARTBEAT.as_secs());
            }
        }
        feed.say(note("b"));
        assert!(arriving.text().await.contains("after b"));
    }
}

#[tokio::test(start_paused = true)]
async fn s47_one_message_waits_for_a_client_that_does_not_read() {
    let feed = Feed::of((0..10_000).map(|n| note(&n.to_string())));
    let mut arriving = Arriving::of(&bed(&feed), &[LINES]).await;
    let mut read = 0;
    for reads in [0, 1, 10, 100] {
        for _ in 0..reads {
            assert!(arriving.text().await.contains(&format!("after {read}\"")));
            read += 1;
        }
        // However long it takes: time passes once everything has come to rest.
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(feed.taken.load(Ordering::SeqCst), read + 1, "after {read}");
    }
}

#[tokio::test(start_paused = true)]
async fn s47_a_client_that_leaves_cancels_the_call_at_once() {
    for read in [false, true] {
        let feed = Feed::of([note("a"), note("b")]);
        let mut arriving = Arriving::of(&bed(&feed), &[EVENTS]).await;
        if read {
            // Then the gateway waits for the service, otherwise for the client.
            arriving.text().await;
            arriving.text().await;
        }
        let left = mesh::clock::instant();
        drop(arriving);
        feed.gone.cancelled().await;
        assert!((mesh::clock::instant() - left).as_millis() < 5);
    }
    // And one that leaves before the first message.
    let feed = Feed::new();
    let bed = bed(&feed);
    let early = tokio::time::timeout(Duration::from_secs(60), Arriving::of(&bed, &[EVENTS])).await;
    assert!(early.is_err());
    feed.gone.cancelled().await;
}

#[tokio::test(start_paused = true)]
async fn s49_a_stream_lasts_longer_than_a_call_may_and_ends_at_its_own_deadline() {
    for (headers, lasts) in [
        (&[LINES][..], 1_800),
        (&[LINES, ("grpc-timeout", "600S")], 600),
        (&[LINES, ("x-server-timeout", "99999")], 1_800),
    ] {
        let feed = Feed::of([note("a")]);
        let bed = bed(&feed);
        let began = mesh::clock::instant();
        let mut arriving = Arriving::of(&bed, headers).await;
        assert_eq!(bed.call().timeout.as_secs(), lasts);
        assert!(arriving.text().await.contains("after a"));
        let line: Value = serde_json::from_str(&arriving.text().await).expect("JSON");
        assert_eq!((mesh::clock::instant() - began).as_secs(), lasts);
        assert_eq!(line["error"]["details"][0]["reason"], "DEADLINE");
        assert!(arriving.next().await.is_none());
        feed.gone.cancelled().await;
    }
    // Also if nothing ever came, and if nobody ever reads.
    let bed = Bed::new(Act::Feed(Feed::new()));
    let reply = bed.send(request("GET", PATH, &[("grpc-timeout", "2S")], "")).await;
    assert_eq!((reply.status, reply.reason()), (504, "DEADLINE"));
    let feed = Feed::of([note("a"), note("b")]);
    let _unread = Arriving::of(&super::streams::bed(&feed), &[LINES]).await;
    feed.gone.cancelled().await;
}

#[tokio::test(start_paused = true)]
async fn streams_of_a_process_that_leaves_are_told_before_the_drain_is_over() {
    let drain = Config::try_parse_from(["gateway"]).expect("settings").mesh.drain;
    for (headers, expected) in [(&[EVENTS][..], "event: error\ndata: "), (&[LINES], "{\"error\":")]
    {
        let feed = Feed::of([note("a")]);
        let bed = bed(&feed);
        let mut arriving = Arriving::of(&bed, headers).await;
        arriving.text().await;
        bed.gateway.0.leaving.begin();
        let began = mesh::clock::instant();
        // Meanwhile it goes on.
        feed.say(note("b"));
        assert!(arriving.text().await.contains("after b"));
        let mut told = arriving.text().await;
        while told == ":\n\n" {
            told = arriving.text().await;
        }
        let took = mesh::clock::instant() - began;
        assert!(took < drain && took >= drain * 3 / 4, "{took:?}");
        assert!(told.contains(expected) && told.contains("DRAINING"), "{told}");
        if headers == [EVENTS] {
            let retry = told.lines().find_map(|line| line.strip_prefix("retry: "));
            let retry: u64 = retry.expect("a time").parse().expect("a number");
            assert!((1_000..5_000).contains(&retry), "{retry}");
        }
        assert!(arriving.next().await.is_none());
        feed.gone.cancelled().await;
    }
    let feed = Feed::new();
    let bed = bed(&feed);
    bed.gateway.0.leaving.begin();
    let reply = bed.get(PATH).await;
    assert_eq!((reply.status, reply.reason()), (503, "DRAINING"));
    assert_eq!(reply.header("retry-after"), Some("1"));
}

/// A process that serves a gateway, until `stop`; where it listens.
#[expect(clippy::disallowed_methods, reason = "ends with the runtime of the test")]
fn process(bed: &Bed, stop: CancellationToken) -> (SocketAddr, JoinHandle<mesh::app::Ended>) {
    let mut config = mesh::Config::for_tests(Bound::free().expect("ports"), "static://?");
    config.drain = Duration::from_secs(1);
    let app = mesh::App::new("gateway", proto::DESCRIPTORS, config).expect("a process");
    let (address, app) = (app.address(), bed.gateway.clone().on(app));
    let served = async move { app.serve(stop.cancelled_owned()).await.expect("serves") };
    (address, tokio::spawn(served))
}

/// A browser, so to say: asks for events and reads what comes until `expected` stands there.
async fn follow(address: SocketAddr, expected: &str) -> (TcpStream, String) {
    let mut socket = TcpStream::connect(address).await.expect("connects");
    let asked = format!("GET {PATH} HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n");
    socket.write_all(asked.as_bytes()).await.expect("writes");
    let mut text = String::new();
    read(&mut socket, &mut text, expected).await;
    (socket, text)
}

async fn read(socket: &mut TcpStream, text: &mut String, expected: &str) {
    let reads = async {
        while !text.contains(expected) {
            let mut bytes = [0; 1_024];
            let length = socket.read(&mut bytes).await.expect("reads");
            assert_ne!(length, 0, "closed after {text}");
            text.push_str(std::str::from_utf8(&bytes[..length]).expect("ASCII"));
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reads).await.expect("it comes");
}

#[tokio::test]
async fn s47_a_socket_that_is_closed_cancels_the_call_although_nothing_is_written_to_it() {
    let feed = Feed::of([note("a")]);
    let stop = CancellationToken::new();
    let bed = Bed::with(Act::Feed(feed.clone()), &["--drain=1s"]);
    let (address, served) = process(&bed, stop.clone());
    let (socket, text) = follow(address, "after a").await;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    drop(socket);
    // A write would notice it too, but the first one comes with the heartbeat.
    tokio::time::timeout(HEARTBEAT / 3, feed.gone.cancelled()).await.expect("it is noticed");
    stop.cancel();
    assert_eq!(served.await.expect("no panic"), mesh::app::Ended::Drained);
}

#[tokio::test]
async fn a_process_that_leaves_tells_its_streams_and_is_cut_by_none() {
    let feed = Feed::of([note("a")]);
    let stop = CancellationToken::new();
    let bed = Bed::with(Act::Feed(feed.clone()), &["--drain=1s"]);
    let (address, served) = process(&bed, stop.clone());
    let (mut socket, mut text) = follow(address, "after a").await;
    stop.cancel();
    // The end of the body: a chunk of no length.
    read(&mut socket, &mut text, "\r\n0\r\n\r\n").await;
    assert!(text.contains("retry: ") && text.contains("DRAINING"), "{text}");
    assert_eq!(served.await.expect("no panic"), mesh::app::Ended::Drained);
}
