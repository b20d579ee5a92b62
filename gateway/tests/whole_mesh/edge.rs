//! What the edge refuses before anything is called.

use bytes::Bytes;
use http::Method;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

use crate::bed::{Bed, Changes};

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_json_is_400_and_a_body_of_ten_megabytes_is_413() {
    let bed = Bed::start().await;
    let (_, token) = bed.customer("ada@example.com").await;
    for body in
        ["{", "[1", "{\"order\":}", "nul", "{} {}", "\u{feff}{}", "{'a':1}", "\"", "{\"a\":1,}"]
    {
        let reply = bed.send(Method::POST, "/v1/orders", Some(&token), &[], body.into()).await;
        assert_eq!(reply.status, 400, "{body:?}: {}", reply.body);
        assert_eq!(reply.detail("ErrorInfo")["domain"], "ordermesh.gateway.v1", "{body:?}");
    }
    // The answer comes before the body, which is not read: a client that goes on writing may
    // find the connection closed, so this one waits.
    let mut connection = TcpStream::connect(("127.0.0.1", bed.port("gateway"))).await.unwrap();
    let head = format!(
        "POST /v1/orders HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        10 << 20
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    BufReader::new(connection).read_line(&mut answer).await.unwrap();
    assert_eq!(answer, "HTTP/1.1 413 Payload Too Large\r\n");
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_nothing_but_the_public_is_reached_and_a_bad_one_is_never_anonymous() {
    let bed = Bed::start().await;
    let reply = bed.get("/v1/orders", None).await;
    assert_eq!((reply.status.as_u16(), reply.reason()), (401, "TOKEN_MISSING"));
    assert!(reply.headers.contains_key("www-authenticate"));
    let reply = bed.get("/v1/products", None).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let reply = bed.get("/v1/products", Some("nonsense")).await;
    assert_eq!(reply.status, 401, "{}", reply.body);
    let reply = bed.get("/v1/nothing", None).await;
    assert_eq!((reply.status.as_u16(), reply.reason()), (404, "ROUTE_NOT_FOUND"));
    let reply = bed.send(Method::DELETE, "/v1/orders", None, &[], Bytes::new()).await;
    assert_eq!(reply.status, 405);
    assert!(reply.headers.contains_key("allow"));
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hundred_and_first_anonymous_call_in_a_quarter_of_an_hour_is_429() {
    let bed = Bed::with(Changes { defaults_at_the_edge: true, ..Changes::default() }).await;
    let mut answers = Vec::new();
    for _ in 0..101 {
        answers.push(bed.get("/v1/products", None).await.status.as_u16());
    }
    assert!(answers[..100].iter().all(|status| *status == 200), "{answers:?}");
    assert_eq!(answers[100], 429);
    let reply = bed.get("/v1/products", None).await;
    assert_eq!(reply.reason(), "RATE_LIMITED");
    assert!(reply.headers.contains_key("retry-after"));
    bed.end().await;
}
