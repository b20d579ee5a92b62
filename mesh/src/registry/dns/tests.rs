//! Against a server on a socket of loopback that answers as it is told.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use hickory_resolver::proto::{
    op::Message,
    rr::{
        Name,
        rdata::{A, AAAA, SRV},
    },
};
use tokio::net::UdpSocket;

use super::*;

/// What the server says to a question.
#[derive(Clone, Debug)]
enum Says {
    Records(u32, Vec<RData>),
    Code(ResponseCode),
    Nothing,
}

/// A server on a port of its own, until the test ends.
#[derive(Clone)]
struct Server {
    address: SocketAddr,
    zone: Arc<Mutex<HashMap<(String, RecordType), Says>>>,
    asked: Arc<Mutex<Vec<(String, RecordType)>>>,
}

impl Server {
    #[expect(clippy::disallowed_methods, reason = "ends with the runtime of the test")]
    async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let address = socket.local_addr().expect("a port");
        let server = Self { address, zone: Arc::default(), asked: Arc::default() };
        let served = server.clone();
        tokio::spawn(async move {
            let mut bytes = [0; 1_500];
            while let Ok((size, from)) = socket.recv_from(&mut bytes).await {
                let question = Message::from_vec(&bytes[..size]).expect("a question");
                if let Some(answer) = served.answer(&question) {
                    let answer = answer.to_vec().expect("an answer");
                    socket.send_to(&answer, from).await.expect("sent");
                }
            }
        });
        server
    }

    fn says(&self, name: &str, kind: RecordType, says: Says) {
        let mut zone = self.zone.lock().unwrap_or_else(PoisonError::into_inner);
        zone.insert((format!("{name}."), kind), says);
    }

    fn asked(&self) -> Vec<(String, RecordType)> {
        std::mem::take(&mut self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn answer(&self, question: &Message) -> Option<Message> {
        let query = question.queries.first().expect("a question").clone();
        // Clients may write a name in any case.
        let asked = (query.name().to_string().to_lowercase(), query.query_type());
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked.clone());
        let zone = self.zone.lock().unwrap_or_else(PoisonError::into_inner);
        let says = zone.get(&asked).cloned().unwrap_or(Says::Code(ResponseCode::NoError));
        let id = question.metadata.id;
        let mut answer = Message::response(id, question.metadata.op_code);
        answer.metadata.recursion_available = true;
        answer.add_query(query.clone());
        match says {
            Says::Nothing => return None,
            Says::Code(code) => answer.metadata.response_code = code,
            Says::Records(ttl, records) => {
                for data in records {
                    answer.add_answer(Record::from_rdata(query.name().clone(), ttl, data));
                }
            }
        }
        Some(answer)
    }

    fn look(&self, parameters: &str) -> (Box<dyn Source>, Arc<Notify>) {
        let dns = Dns::open(&format!("{}?{parameters}", self.address)).expect("settings");
        let hurry = Arc::new(Notify::new());
        match dns.source("orders", Arc::clone(&hurry)) {
            Found::Asked(source) => (source, hurry),
            Found::Fixed(_) => panic!("nobody is asked"),
        }
    }
}

fn a(last: u8) -> RData {
    RData::A(A::new(10, 0, 0, last))
}

fn srv(priority: u16, weight: u16, port: u16, target: &str) -> RData {
    RData::SRV(SRV::new(priority, weight, port, Name::from_ascii(target).expect("a name")))
}

fn known(answer: &Answer) -> Vec<(String, u32)> {
    answer.instances.iter().map(|it| (it.address.to_string(), it.weight)).collect()
}

fn plain(addresses: &[&str]) -> Vec<(String, u32)> {
    addresses.iter().map(|it| ((*it).to_owned(), 1)).collect()
}

#[tokio::test]
async fn addresses_of_both_families_have_the_port_that_was_named() {
    let server = Server::start().await;
    server.says("orders.shop", RecordType::A, Says::Records(30, vec![a(2), a(1)]));
    let six = RData::AAAA(AAAA::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));
    server.says("orders.shop", RecordType::AAAA, Says::Records(20, vec![six]));
    let (mut source, _) = server.look("suffix=shop&port=50051");
    let answer = source.next().await.expect("an answer");
    assert_eq!(known(&answer), plain(&["10.0.0.1:50051", "10.0.0.2:50051", "[fd00::1]:50051"]));
    assert_eq!(answer.fresh, Duration::from_secs(20) + 2 * PATIENCE);
}

#[tokio::test]
async fn how_long_an_answer_counts_is_bounded() {
    let server = Server::start().await;
    for (ttl, expected) in [(0, 1), (1, 1), (7, 7), (3_600, 60)] {
        server.says("orders.shop", RecordType::A, Says::Records(ttl, vec![a(1)]));
        let (mut source, _) = server.look("suffix=shop&port=1");
        let answer = source.next().await.expect("an answer");
        assert_eq!(answer.fresh, Duration::from_secs(expected) + 2 * PATIENCE, "{ttl}");
    }
}

#[tokio::test]
async fn a_record_that_ends_is_asked_for_again_and_haste_asks_sooner() {
    let server = Server::start().await;
    server.says("orders.shop", RecordType::A, Says::Records(1, vec![a(1)]));
    let (mut source, hurry) = server.look("suffix=shop&port=1");
    source.next().await.expect("an answer");
    server.says("orders.shop", RecordType::A, Says::Records(60, vec![a(2)]));
    assert_eq!(known(&source.next().await.expect("an answer")), plain(&["10.0.0.2:1"]));
    server.says("orders.shop", RecordType::A, Says::Records(60, vec![a(3)]));
    let begun = clock::instant();
    hurry.notify_one();
    assert_eq!(known(&source.next().await.expect("an answer")), plain(&["10.0.0.3:1"]));
    let took = clock::instant() - begun;
    assert!(took >= Duration::from_millis(900), "more than once a second: {took:?}");
    assert!(took < Duration::from_secs(30), "{took:?}");
    let questions = server.asked().iter().filter(|(_, kind)| *kind == RecordType::A).count();
    assert_eq!(questions, 3);
}

#[tokio::test]
async fn of_srv_records_the_first_class_counts_with_its_weights() {
    let server = Server::start().await;
    let name = "_grpc._tcp.orders.shop";
    let records =
        vec![srv(1, 5, 50_051, "a.shop."), srv(1, 0, 50_052, "b.shop."), srv(2, 9, 1, "c.shop.")];
    server.says(name, RecordType::SRV, Says::Records(30, records));
    server.says("a.shop", RecordType::A, Says::Records(10, vec![a(1)]));
    server.says("b.shop", RecordType::A, Says::Records(20, vec![a(2)]));
    server.says("c.shop", RecordType::A, Says::Records(30, vec![a(3)]));
    let (mut source, _) = server.look("suffix=shop&srv=grpc");
    let answer = source.next().await.expect("an answer");
    let expected = [("10.0.0.1:50051".to_owned(), 5), ("10.0.0.2:50052".to_owned(), 1)];
    assert_eq!(known(&answer), expected);
    // NoError without an address says nothing about how long that counts, A said 10.
    assert_eq!(answer.fresh, Duration::from_secs(10) + 2 * PATIENCE);
    assert!(server.asked().iter().all(|(name, _)| name != "c.shop."), "nobody asked for that");
}

#[tokio::test]
async fn that_there_is_nobody_is_an_answer() {
    let server = Server::start().await;
    for code in [ResponseCode::NXDomain, ResponseCode::NoError] {
        server.says("orders.shop", RecordType::A, Says::Code(code));
        server.says("orders.shop", RecordType::AAAA, Says::Code(code));
        let (mut source, _) = server.look("suffix=shop&port=1");
        let answer = source.next().await.unwrap_or_else(|why| panic!("{code}: {why}"));
        assert!(answer.instances.is_empty());
    }
}

#[tokio::test]
async fn a_server_that_fails_or_is_silent_has_given_no_answer() {
    let server = Server::start().await;
    for says in
        [Says::Code(ResponseCode::ServFail), Says::Code(ResponseCode::Refused), Says::Nothing]
    {
        server.says("orders.shop", RecordType::A, says.clone());
        let (mut source, _) = server.look("suffix=shop&port=1");
        let begun = clock::instant();
        let answer = source.next().await;
        assert!(matches!(answer, Err(Failure::Unreachable(_))), "{says:?}: {answer:?}");
        assert!(clock::instant() - begun < 2 * PATIENCE);
        // One family is enough where the other has somebody.
        let six = RData::AAAA(AAAA::new(0xfd00, 0, 0, 0, 0, 0, 0, 1));
        server.says("orders.shop", RecordType::AAAA, Says::Records(5, vec![six]));
        assert_eq!(known(&source.next().await.expect("an answer")), plain(&["[fd00::1]:1"]));
        server.says("orders.shop", RecordType::AAAA, Says::Code(ResponseCode::NoError));
    }
}

#[test]
fn what_is_missing_or_unknown_is_named() {
    for (rest, words) in [
        ("127.0.0.1:53?suffix=shop", "port=, where all instances listen, or srv="),
        ("127.0.0.1:53?suffix=shop&port=1&srv=grpc", "either port="),
        ("127.0.0.1:53?suffix=shop&port=x", "port=x: `x` is not a number from 1"),
        ("127.0.0.1:53?suffix=shop&port=70000", "port=70000: `70000` is not a number from 1"),
        ("127.0.0.1:53?suffix=shop&port=0", "port=0: `0` is not a number from 1"),
        ("127.0.0.1:53?port=1", "needs suffix="),
        ("localhost:53?suffix=shop&port=1", "dns://localhost:53: a server is ip:port"),
        ("127.0.0.1?suffix=shop&port=1", "dns://127.0.0.1: a server is ip:port"),
        ("127.0.0.1:53?suffix=shop&port=1&ttl=5", "DNS is told suffix"),
    ] {
        let error = Dns::open(rest).map(drop).expect_err(rest).to_string();
        assert!(error.contains(words), "{rest}: {error}");
    }
    // Names of the root are asked for only by whoever says so.
    let root = Dns::open("127.0.0.1:53?suffix=.&port=1").expect("settings");
    assert_eq!(root.suffix, "");
}
