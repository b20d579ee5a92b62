//! One connection over a pipe, in paused time: how long who may do what.
#![expect(clippy::disallowed_methods, reason = "both ends of a pipe are tasks of the test")]

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt as _;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::client::conn;
use tokio::{io::DuplexStream, task::JoinHandle};
use tower::{service_fn, util::BoxCloneSyncService};

use super::*;

const MINUTE: Duration = Duration::from_secs(60);
/// SETTINGS without any, and the acknowledgement of the other side's.
const NO_SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
const GET: &[u8] = b"GET /ok HTTP/1.1\r\nhost: x\r\n\r\n";
const ACK: [u8; 9] = [0, 0, 0, 4, 1, 0, 0, 0, 0];

type Client = conn::http2::SendRequest<Empty<Bytes>>;
type Fake = BoxCloneSyncService<Request<Incoming>, Response<Body>, Infallible>;

/// A connection that is served, seen from its client.
struct Bench {
    phases: Phases,
    ended: JoinHandle<Ended>,
    begun: Instant,
    /// Handlers that were called, and those that are at work.
    called: Arc<AtomicUsize>,
    working: Arc<AtomicUsize>,
}

struct Working(Arc<AtomicUsize>);

// === impl Working ===

impl Working {
    fn begin(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

// === impl Bench ===

impl Bench {
    fn new(wire: Wire, buffer: usize) -> (Self, DuplexStream) {
        let (client, server) = tokio::io::duplex(buffer);
        let phases = Phases::default();
        let peer = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let link = Arc::new(Link::new(peer, wire, None, &phases));
        let (called, working) = (Arc::default(), Arc::default());
        let service = fake(&called, &working);
        let (ours, begun) = (phases.clone(), clock::instant());
        let ended =
            tokio::spawn(
                async move { serve(server, link, &Settings::default(), &ours, service).await },
            );
        (Self { phases, ended, begun, called, working }, client)
    }

    async fn http2() -> (Self, Client) {
        let (bench, io) = Self::new(Wire::Http2, 64 << 10);
        let (client, connection) = conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .handshake(TokioIo::new(io))
            .await
            .expect("a handshake");
        tokio::spawn(connection);
        (bench, client)
    }

    /// How it ended, and after how long.
    async fn end(self) -> (Ended, Duration) {
        let ended = self.ended.await.expect("no panic");
        (ended, self.begun.elapsed())
    }
}

/// Answers `/ok`, never answers `/hang`, sends one frame and no more on `/stream`, waits a second
/// before it answers `/slow`.
fn fake(called: &Arc<AtomicUsize>, working: &Arc<AtomicUsize>) -> Fake {
    let (called, working) = (Arc::clone(called), Arc::clone(working));
    BoxCloneSyncService::new(service_fn(move |request: Request<Incoming>| {
        called.fetch_add(1, Ordering::SeqCst);
        let working = Working::begin(&working);
        async move {
            let body = match request.uri().path() {
                "/hang" => std::future::pending().await,
                "/slow" => {
                    sleep(Duration::from_secs(1)).await;
                    Body::empty()
                }
                "/stream" => {
                    let frame = http_body::Frame::data(Bytes::from_static(b"a"));
                    let first = futures_util::stream::iter([Ok::<_, Infallible>(frame)]);
                    let first = first.chain(futures_util::stream::pending());
                    Body::new(StreamBody::new(first.map(move |frame| {
                        let _held = &working;
                        frame
                    })))
                }
                _ => Body::empty(),
            };
            Ok(Response::new(body))
        }
    }))
}

fn request(path: &str) -> Request<Empty<Bytes>> {
    Request::post(format!("http://x{path}")).body(Empty::new()).expect("a request")
}

/// Whether a connection ended without being cut. The client may close its end of the pipe before
/// our last frame is through.
fn went(ended: &Ended) -> bool {
    match ended {
        Ended::Finished => true,
        Ended::Failed(error) => error.contains("broken pipe"),
        Ended::Cut(_) => false,
    }
}

/// HEADERS of a call that has no body, by hand: HPACK's static table, and literals.
fn headers(stream: u32, path: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).expect("short");
    let mut block = vec![0x83, 0x86, 0x04, length(path)];
    block.extend_from_slice(path.as_bytes());
    block.extend_from_slice(&[0x01, 1, b'x']);
    let size = u8::try_from(block.len()).expect("short");
    // END_STREAM and END_HEADERS.
    let mut frame = vec![0, 0, size, 1, 5];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(&block);
    frame
}

fn reset(stream: u32) -> Vec<u8> {
    let mut frame = vec![0, 0, 4, 3, 0];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(&8_u32.to_be_bytes());
    frame
}

/// Reads frames until one has this kind and this flag.
async fn frame(io: &mut DuplexStream, kind: u8, flag: u8) -> Vec<u8> {
    loop {
        let mut head = [0; 9];
        io.read_exact(&mut head).await.expect("a frame");
        let size = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(size).expect("small")];
        io.read_exact(&mut payload).await.expect("its payload");
        if head[3] == kind && head[4] & flag == flag {
            return payload;
        }
    }
}

/// A client by hand that has shaken hands, and reads whatever comes.
async fn by_hand(buffer: usize) -> (Bench, DuplexStream) {
    let (bench, mut io) = Bench::new(Wire::Http2, buffer);
    io.write_all(PREFACE).await.expect("room");
    io.write_all(&NO_SETTINGS).await.expect("room");
    frame(&mut io, 4, 0).await;
    io.write_all(&ACK).await.expect("room");
    (bench, io)
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_finish_its_preface_within_5_s_is_cut() {
    let whole = [&PREFACE[..], &NO_SETTINGS].concat();
    for (wire, said) in [
        (Wire::Http2, 0),
        (Wire::Http2, 3),
        (Wire::Http2, 23),
        (Wire::Http2, 24),
        (Wire::Http2, 32),
        (Wire::Http, 0),
        (Wire::Http, 24),
    ] {
        let (bench, mut io) = Bench::new(wire, 1 << 10);
        io.write_all(&whole[..said]).await.unwrap();
        let (ended, took) = bench.end().await;
        assert!(matches!(ended, Ended::Cut(Why::Silent)), "{wire:?} {said}: {ended:?}");
        assert_eq!(took, Duration::from_secs(5), "{wire:?} {said}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stops_in_the_middle_of_a_frame_is_cut_by_the_keepalive() {
    let (bench, mut io) = by_hand(1 << 10).await;
    // SETTINGS of six bytes, of which three come.
    io.write_all(&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0]).await.unwrap();
    let (ended, took) = bench.end().await;
    assert!(took <= Duration::from_secs(35), "{ended:?} after {took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_is_cut_although_our_last_words_do_not_get_through() {
    let (bench, mut io) = by_hand(64).await;
    for ping in 0..50_u8 {
        let ping = [&[0, 0, 8, 6, 0, 0, 0, 0, 0][..], &[ping; 8]].concat();
        if timeout(Duration::from_millis(10), io.write_all(&ping)).await.is_err() {
            break;
        }
    }
    let (ended, took) = bench.end().await;
    assert!(took <= Duration::from_secs(65), "{ended:?} after {took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_no_ping_is_cut_after_25_s() {
    let (bench, mut io) = by_hand(1 << 10).await;
    let reads = tokio::spawn(async move {
        let mut bytes = Vec::new();
        io.read_to_end(&mut bytes).await
    });
    let (ended, took) = bench.end().await;
    assert!(
        took >= Duration::from_secs(25) && took <= Duration::from_secs(27),
        "{took:?} {ended:?}"
    );
    reads.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_not_http_2_is_refused_and_a_browser_is_told_why() {
    for (said, told) in [
        (&b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..], "HTTP/1.1 505 "),
        (b"PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n", ""),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", ""),
        (&[0; 100], ""),
    ] {
        let (bench, mut io) = Bench::new(Wire::Http2, 1 << 10);
        io.write_all(said).await.unwrap();
        let mut answer = String::new();
        io.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(told) && answer.is_empty() == told.is_empty(), "{answer:?}");
        if let Some((head, body)) = answer.split_once("\r\n\r\n") {
            assert!(head.ends_with(&format!("content-length: {}", body.len())), "{answer:?}");
        }
        assert!(matches!(bench.end().await.0, Ended::Failed(_)));
    }
}

#[tokio::test(start_paused = true)]
async fn the_edge_speaks_both_versions() {
    let (bench, mut io) = Bench::new(Wire::Http, 1 << 10);
    io.write_all(b"GET /ok HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    io.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(matches!(bench.end().await.0, Ended::Finished));

    let (bench, mut io) = Bench::new(Wire::Http, 1 << 10);
    io.write_all(&[&PREFACE[..], &NO_SETTINGS, &headers(1, "/ok")].concat()).await.unwrap();
    frame(&mut io, 1, 4).await;
    assert_eq!(bench.called.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_of_http_1_may_keep_its_connection_for_two_minutes_between_requests() {
    let (bench, mut io) = Bench::new(Wire::Http, 1 << 10);
    // Some send an empty line behind a request; that is not the head of another one.
    for (request, rest) in [(GET, &b"\r\n"[..]), (GET, b""), (GET, b"")] {
        let (first, second) = request.split_at(9);
        io.write_all(first).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        io.write_all(second).await.unwrap();
        let mut answer = [0; 1 << 10];
        let read = io.read(&mut answer).await.unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 200 OK"), "{answer:?}");
        io.write_all(rest).await.unwrap();
        sleep(Duration::from_secs(100)).await;
    }
    assert!(!bench.ended.is_finished(), "the last call is 100 s old");
    let (ended, took) = bench.end().await;
    assert!(matches!(ended, Ended::Finished), "{ended:?}");
    assert!(took >= Duration::from_secs(320) && took < Duration::from_secs(325), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_of_http_1_that_takes_too_long_for_the_head_of_a_request_is_cut() {
    for before in [&b""[..], GET] {
        let (bench, mut io) = Bench::new(Wire::Http, 1 << 10);
        io.write_all(before).await.unwrap();
        sleep(MINUTE * u32::from(!before.is_empty())).await;
        let slow = clock::instant();
        let trickle = async {
            for byte in b"GET /ok HTTP/1.1\r\nhost: x\r\nx: ".iter().cycle() {
                if io.write_all(&[*byte]).await.is_err() {
                    return;
                }
                sleep(Duration::from_secs(1)).await;
            }
        };
        trickle.await;
        let took = slow.elapsed();
        assert!(took >= HEAD && took <= 2 * HEAD, "{took:?}");
        assert!(matches!(bench.end().await.0, Ended::Cut(Why::Silent)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_allows_256_calls_and_16_kib_of_headers() {
    let (_bench, mut io) = Bench::new(Wire::Http2, 1 << 10);
    io.write_all(PREFACE).await.unwrap();
    let settings = frame(&mut io, 4, 0).await;
    let value = |id: u16| {
        settings
            .chunks(6)
            .find(|pair| u16::from_be_bytes([pair[0], pair[1]]) == id)
            .map(|pair| u32::from_be_bytes([pair[2], pair[3], pair[4], pair[5]]))
    };
    assert_eq!(value(3), Some(256), "SETTINGS_MAX_CONCURRENT_STREAMS");
    assert_eq!(value(6), Some(16 << 10), "SETTINGS_MAX_HEADER_LIST_SIZE");
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_calls_goes_after_15_min_and_calls_keep_it() {
    let (bench, mut client) = Bench::http2().await;
    sleep(10 * MINUTE).await;
    client.send_request(request("/ok")).await.unwrap();
    sleep(14 * MINUTE).await;
    assert!(!bench.ended.is_finished(), "the last call is 14 minutes old");
    let (ended, took) = bench.end().await;
    assert!(went(&ended), "{ended:?}");
    assert!(took >= 25 * MINUTE && took < 26 * MINUTE, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_goes_after_30_min_give_or_take_a_tenth_and_loses_no_call() {
    let (mut earliest, mut latest) = (Duration::MAX, Duration::ZERO);
    for _ in 0..20 {
        let (bench, mut client) = Bench::http2().await;
        let mut answered = 0;
        while !bench.ended.is_finished() {
            sleep(Duration::from_secs(20)).await;
            match client.try_send_request(request("/slow")).await {
                Ok(_) => answered += 1,
                Err(mut error) => {
                    assert!(error.take_message().is_some(), "sent, and lost: {error:?}");
                    break;
                }
            }
        }
        assert!(answered > 75, "{answered}");
        let (ended, took) = bench.end().await;
        assert!(went(&ended), "{ended:?}");
        (earliest, latest) = (earliest.min(took), latest.max(took));
    }
    assert!(earliest >= 27 * MINUTE && latest <= 33 * MINUTE + Duration::from_secs(30));
    assert!(latest - earliest > MINUTE, "jitter: {earliest:?} to {latest:?}");
}

#[tokio::test(start_paused = true)]
async fn a_call_may_outlive_the_age_of_its_connection_by_60_s() {
    let (bench, mut client) = Bench::http2().await;
    let answer = client.send_request(request("/stream")).await.unwrap();
    let mut body = answer.into_body();
    body.frame().await.expect("a frame").expect("no failure");
    let (ended, took) = bench.end().await;
    assert!(matches!(ended, Ended::Cut(Why::Age)), "{ended:?}");
    assert!(took >= 28 * MINUTE && took <= 34 * MINUTE + 2 * SILENT, "{took:?}");
    assert!(body.frame().await.is_none_or(|frame| frame.is_err()));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hears_that_we_leave_goes_at_once_and_a_silent_one_is_cut() {
    let (bench, mut client) = Bench::http2().await;
    client.send_request(request("/ok")).await.unwrap();
    bench.phases.leave.cancel();
    let begun = clock::instant();
    let (ended, _) = bench.end().await;
    assert!(went(&ended) && begun.elapsed() < SILENT, "{ended:?}");

    // It has shaken hands, and is dead.
    let (bench, _io) = by_hand(1 << 10).await;
    bench.phases.leave.cancel();
    let begun = clock::instant();
    let (ended, _) = bench.end().await;
    assert!(matches!(ended, Ended::Cut(Why::Silent)), "{ended:?}");
    assert!(begun.elapsed() <= 2 * SILENT, "{:?}", begun.elapsed());

    // It has not even shaken hands.
    let (bench, _io) = Bench::new(Wire::Http2, 1 << 10);
    bench.phases.leave.cancel();
    let (ended, took) = bench.end().await;
    assert!(matches!(ended, Ended::Cut(Why::Leaving)) && took < SILENT, "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_under_way_when_we_leave_is_answered() {
    let (bench, mut client) = Bench::http2().await;
    let call = client.send_request(request("/slow"));
    let leave = async {
        sleep(Duration::from_millis(500)).await;
        bench.phases.leave.cancel();
    };
    let (answer, ()) = tokio::join!(call, leave);
    assert_eq!(answer.unwrap().status(), 200);
    assert!(went(&bench.end().await.0));
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_reset_as_soon_as_they_are_opened_end_the_connection() {
    let (bench, io) = by_hand(64 << 10).await;
    // Somebody must read, or the pipe is full before anything is proved.
    let (mut reads, mut io) = tokio::io::split(io);
    tokio::spawn(async move { tokio::io::copy(&mut reads, &mut tokio::io::sink()).await });
    let mut sent = 0;
    for call in 0..100_000_u32 {
        let stream = 2 * call + 1;
        if io.write_all(&[headers(stream, "/hang"), reset(stream)].concat()).await.is_err() {
            break;
        }
        sent = call;
        // Often enough that handlers begin.
        if call % 16 == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert!(sent < 50_000, "{sent} resets went through");
    let (called, working) = (Arc::clone(&bench.called), Arc::clone(&bench.working));
    let (ended, _) = bench.end().await;
    assert!(!matches!(ended, Ended::Finished), "{ended:?}");
    assert!(called.load(Ordering::SeqCst) <= 2_000, "{called:?} handlers");
    tokio::task::yield_now().await;
    assert_eq!(working.load(Ordering::SeqCst), 0, "work of calls that nobody waits for");
}

#[tokio::test(start_paused = true)]
async fn a_client_may_change_its_mind_as_often_as_it_waits() {
    let (bench, mut client) = Bench::http2().await;
    for _ in 0..3_000 {
        client.send_request(request("/ok")).await.unwrap();
        let given_up = client.send_request(request("/hang"));
        tokio::select! {
            biased;
            () = tokio::task::yield_now() => {}
            _ = given_up => unreachable!("it hangs"),
        }
    }
    client.send_request(request("/ok")).await.unwrap();
    assert!(!bench.ended.is_finished());
}

#[tokio::test(start_paused = true)]
async fn floods_of_pings_and_settings_are_not_stored_and_calls_go_on() {
    let ping = [&[0, 0, 8, 6, 0, 0, 0, 0, 0][..], &[7; 8]].concat();
    for flood in [ping, NO_SETTINGS.to_vec()] {
        let (bench, mut io) = by_hand(4 << 10).await;
        // Nobody reads the answers: what the server takes in is what fits into its buffers.
        let mut taken = 0;
        while timeout(Duration::from_millis(100), io.write_all(&flood)).await.is_ok() {
            taken += flood.len();
            assert!(taken < 256 << 10, "the server takes in whatever comes");
        }
        // The last write broke off anywhere: go on with another client.
        drop(io);
        drop(bench);
        let (bench, mut io) = by_hand(64 << 10).await;
        for _ in 0..1_000 {
            io.write_all(&flood).await.unwrap();
            frame(&mut io, flood[3], 1).await;
        }
        io.write_all(&headers(1, "/ok")).await.unwrap();
        frame(&mut io, 1, 4).await;
        assert_eq!(bench.called.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn headers_beyond_16_kib_reach_no_handler_and_the_connection_lives_on() {
    let (bench, mut client) = Bench::http2().await;
    let refused = client.send_request(large(17 << 10)).await.expect("an answer");
    assert_eq!(refused.status(), 431);
    assert_eq!(bench.called.load(Ordering::SeqCst), 0, "no handler saw it");
    client.ready().await.unwrap();
    assert_eq!(client.send_request(request("/ok")).await.unwrap().status(), 200);
}

/// Whoever sends more than twice of what was announced is not told politely: reading on would be
/// work for an attacker.
#[tokio::test(start_paused = true)]
async fn headers_of_64_kib_reach_no_handler_and_end_their_connection_alone() {
    let (bench, mut client) = Bench::http2().await;
    let refused = client.send_request(large(64 << 10)).await;
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(bench.called.load(Ordering::SeqCst), 0, "no handler saw it");
    let (ended, took) = bench.end().await;
    assert!(matches!(ended, Ended::Failed(_)) && took < SILENT, "{ended:?}");
}

fn large(bytes: usize) -> Request<Empty<Bytes>> {
    let mut large = request("/ok");
    let value = http::HeaderValue::try_from("x".repeat(bytes)).expect("a value");
    large.headers_mut().insert("x-large", value);
    large
}
