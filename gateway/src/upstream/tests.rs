use super::*;

fn patterns(texts: &[&str]) -> Vec<Pattern> {
    texts.iter().map(|text| text.parse().expect(text)).collect()
}

#[test]
fn the_longest_pattern_names_the_upstream() {
    let shop = patterns(&["shop.{name}.*={name}", "shop.auth.*=users", "*=http://127.0.0.1:50051"]);
    for (service, expected) in [
        ("shop.notes.v1.NotesService", "notes"),
        ("shop.auth.v1.TokensService", "users"),
        ("shop.notes", "http://127.0.0.1:50051"),
        ("other.v1.Service", "http://127.0.0.1:50051"),
        ("shop..v1.Service", "http://127.0.0.1:50051"),
    ] {
        assert_eq!(target(&shop, service).as_deref(), Some(expected), "{service}");
    }
    let exact = patterns(&["a.v1.Service=x", "b.{name}=y-{name}"]);
    assert_eq!(target(&exact, "a.v1.Service").as_deref(), Some("x"));
    assert_eq!(target(&exact, "a.v1.Service2"), None);
    assert_eq!(target(&exact, "b.c").as_deref(), Some("y-c"));
    assert_eq!(target(&exact, "b.c.d"), None);
}

#[test]
fn what_is_no_pattern_is_refused() {
    for wrong in ["", "a", "a=", "a.*.b=c", "a.*={name}", "{name}*x=y"] {
        assert!(wrong.parse::<Pattern>().is_err(), "{wrong}");
    }
}

fn trailers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| ((*name).parse().expect("a name"), value.parse().expect("a value")))
        .collect()
}

#[test]
fn s43_a_message_is_decoded_once_and_details_come_with_or_without_padding() {
    let rich = pb::Status {
        code: 5,
        message: "another".to_owned(),
        details: vec![
            prost_types::Any { type_url: "x/google.rpc.DebugInfo".to_owned(), value: vec![1] },
            prost_types::Any { type_url: "x/some.Detail".to_owned(), value: vec![2] },
        ],
    };
    let padded = base64::engine::general_purpose::STANDARD.encode(rich.encode_to_vec());
    for details in [padded.as_str(), padded.trim_end_matches('=')] {
        let failure = failure(
            &trailers(&[
                ("grpc-status", "9"),
                ("grpc-message", "a%25b %C3%A9%2541"),
                ("grpc-status-details-bin", details),
            ]),
            &HeaderMap::new(),
        )
        .expect("a failure");
        // The code of the trailer rules, and what is for developers is gone.
        assert_eq!((failure.code, failure.http.as_u16()), (Code::FailedPrecondition, 400));
        assert_eq!(failure.message, "a%b é%41");
        let urls: Vec<_> = failure.details.iter().map(|detail| detail.type_url.as_str()).collect();
        assert_eq!(urls, ["x/some.Detail"]);
    }
    let broken = trailers(&[("grpc-status", "5"), ("grpc-status-details-bin", "????")]);
    let failure = failure(&broken, &HeaderMap::new()).expect("a failure");
    assert_eq!((failure.code, failure.details.len()), (Code::NotFound, 0));
}

#[test]
fn s44_an_answer_without_a_status_is_told_by_its_http_status() {
    for (http, code) in [
        (200, Code::Unknown),
        (400, Code::Internal),
        (401, Code::Unauthenticated),
        (403, Code::PermissionDenied),
        (404, Code::Unimplemented),
        (418, Code::Unknown),
        (429, Code::Unavailable),
        (500, Code::Unknown),
        (502, Code::Unavailable),
        (503, Code::Unavailable),
        (504, Code::Unavailable),
    ] {
        let status = StatusCode::from_u16(http).expect("a status");
        assert_eq!(without_status(status).code, code, "{http}");
    }
}

#[test]
fn s42_retry_after_is_what_the_service_asked_for_in_whole_seconds() {
    let info = pb::RetryInfo { retry_delay: Some(prost_types::Duration { seconds: 2, nanos: 1 }) };
    let rich = pb::Status {
        code: 14,
        details: vec![prost_types::Any {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
            value: info.encode_to_vec(),
        }],
        ..pb::Status::default()
    };
    let details = base64::engine::general_purpose::STANDARD.encode(rich.encode_to_vec());
    for (pairs, expected) in [
        (vec![("grpc-status", "14"), ("grpc-status-details-bin", details.as_str())], Some("3")),
        (vec![("grpc-status", "8"), ("grpc-retry-pushback-ms", "4100")], Some("5")),
        (vec![("grpc-status", "14")], Some("1")),
        (vec![("grpc-status", "5")], None),
    ] {
        let failure = failure(&trailers(&pairs), &HeaderMap::new()).expect("a failure");
        let found = failure.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        assert_eq!(found, expected, "{pairs:?}");
    }
    let unauthenticated = failure(&trailers(&[("grpc-status", "16")]), &HeaderMap::new());
    let headers = unauthenticated.expect("a failure").headers;
    assert!(headers[header::WWW_AUTHENTICATE].to_str().expect("ASCII").starts_with("Bearer "));
}

#[test]
fn r16_what_is_no_single_message_is_malformed() {
    for (body, fine) in [
        (&[0, 0, 0, 0, 0][..], true),
        (&[0, 0, 0, 0, 1, 7], true),
        (&[], false),
        (&[0, 0, 0, 0], false),
        (&[1, 0, 0, 0, 0], false),
        (&[0, 0, 0, 0, 2, 7], false),
        (&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0], false),
        (&[0, 0xff, 0xff, 0xff, 0xff, 7], false),
    ] {
        assert_eq!(unframed(Bytes::copy_from_slice(body)).is_ok(), fine, "{body:?}");
    }
}

/// The messages of an answer whose body comes in these parts and ends well.
async fn messages(parts: &[&[u8]], limit: usize) -> Result<Vec<Bytes>, Failure> {
    let parts: Vec<_> = parts.iter().map(|part| Bytes::copy_from_slice(part)).collect();
    let upstream = Upstream::new(tower::service_fn(move |_: Request<Body>| {
        let ended = http_body::Frame::trailers(trailers(&[("grpc-status", "0")]));
        let frames = parts.clone().into_iter().map(http_body::Frame::data).chain([ended]);
        let frames = tokio_stream::iter(frames.map(Ok::<_, Status>).collect::<Vec<_>>());
        let body = Body::new(http_body_util::StreamBody::new(frames));
        async move { Ok(Response::new(body)) }
    }));
    let path = PathAndQuery::from_static("/a.B/C");
    let mut stream = stream(upstream, &path, HeaderMap::new(), Bytes::new(), limit).await?;
    let mut found = Vec::new();
    while let Some(message) = stream.next().await? {
        found.push(message);
    }
    Ok(found)
}

#[tokio::test]
async fn a_message_of_a_stream_comes_whole_however_it_was_cut_on_the_way() {
    let wire = [0, 0, 0, 0, 3, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 4, 5];
    let expected: [&[u8]; 3] = [&[1, 2, 3], &[], &[4, 5]];
    for first in 0..=wire.len() {
        for second in first..=wire.len() {
            let parts = [&wire[..first], &wire[first..second], &wire[second..]];
            let found = messages(&parts, 3).await.expect("messages");
            assert_eq!(found, expected, "{first} {second}");
        }
    }
    let bytes: Vec<_> = wire.chunks(1).collect();
    assert_eq!(messages(&bytes, 3).await.expect("messages"), expected);
}

#[tokio::test]
async fn a_message_of_a_stream_that_is_too_large_is_refused_by_its_head() {
    for (length, fine) in [(3, true), (4, false), (255, false)] {
        let head = [0, 0, 0, 0, length];
        let body = vec![7; usize::from(length)];
        let found = messages(&[&head, &body[..]], 3).await;
        assert_eq!(found.is_ok(), fine, "{length}");
    }
}
