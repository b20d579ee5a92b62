use super::*;

#[tokio::test]
async fn s1_to_s3_a_path_reaches_the_upstream_decoded_once() {
    let bed = Bed::new(Act::Echo);
    for (path, text) in [
        ("/v1/text/a%2Fb", "a/b"),
        ("/v1/text/%252F", "%2F"),
        ("/v1/text/a+b", "a+b"),
        ("/v1/text/%00", "\0"),
        ("/v1/deep/a/b%2Fc", "a/b%2Fc"),
        ("/v1/deep/a", "a"),
        ("/v1/deep/a%2fb", "a%2fb"),
    ] {
        let reply = bed.get(path).await;
        assert_eq!((reply.status, &reply.body), (200, &json!({ "text": text })), "{path}");
    }
    let reply = bed.get("/v1/deep").await;
    assert_eq!((reply.status, reply.body), (200, json!({})));
    let call = bed.call();
    assert_eq!(call.path, "/echo.v1.EchoService/All");
    assert_eq!(call.headers["content-type"], "application/grpc");
    assert_eq!(call.headers["te"], "trailers");
}

#[tokio::test]
async fn s5_and_s6_a_path_that_cannot_be_read_is_400_as_json() {
    let bed = Bed::new(Act::Echo);
    for (path, reason) in [
        ("/v1/text/%zz", "MALFORMED_PATH"),
        ("/v1/text/a%", "MALFORMED_PATH"),
        ("/v1/nowhere/%4", "MALFORMED_PATH"),
        ("/v1/text/%ff", "FIELD_VIOLATION"),
    ] {
        let reply = bed.get(path).await;
        assert_eq!((reply.status, reply.reason()), (400, reason), "{path}");
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(reply.body["code"], 3);
    }
    assert_eq!(bed.count(), 0);
}

#[tokio::test]
async fn s9_an_extra_slash_is_another_path() {
    let bed = Bed::new(Act::Echo);
    for path in ["/v1/all/", "/v1//all", "//v1/all", "/"] {
        assert_eq!(bed.get(path).await.status, 404, "{path}");
    }
    // 64,000 slashes are more than a request line may have; 8,000 are not.
    assert_eq!(bed.get(&"/".repeat(64_000)).await.status, 414);
    assert_eq!(bed.get(&"/".repeat(8_000)).await.status, 404);
}

#[tokio::test]
async fn s11_two_rpcs_with_one_path_stop_the_start_and_are_named() {
    let text = r#"
        syntax = "proto3";
        package twice;
        import "google/api/annotations.proto";
        message M { string name = 1; string id = 2; }
        service S {
          rpc First(M) returns (M) { option (google.api.http) = {get: "/v1/{name=things/*}"}; }
          rpc Second(M) returns (M) { option (google.api.http) = {get: "/v1/things/{id}"}; }
        }"#;
    let folder = std::env::temp_dir().join(format!("gateway-{}", mesh::clock::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("twice.proto"), text).expect("a file");
    let contract = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto");
    let mut compiler =
        protox::Compiler::new([folder.to_str().expect("UTF-8"), contract]).expect("folders");
    compiler.include_imports(true).open_file("twice.proto").expect("it compiles");
    std::fs::remove_dir_all(&folder).expect("the folder");
    let pool =
        DescriptorPool::decode(compiler.encode_file_descriptor_set().as_slice()).expect("a pool");
    let outside = Outside {
        access: |_: &str| Access::Anonymous,
        upstream: |_: &str| upstream(Act::Echo, pool.clone(), Arc::default()),
        verify: verify(),
    };
    let config = Config::try_parse_from(["gateway", "--upstream=*=echo"]).expect("settings");
    let error = Gateway::new(pool.clone(), config, outside).err().expect("refused").to_string();
    assert!(error.contains("/twice.S/First") && error.contains("/twice.S/Second"), "{error}");
}

#[tokio::test]
async fn s12_a_known_verb_with_the_wrong_method_is_405_and_calls_nobody() {
    let bed = Bed::new(Act::Echo);
    let reply = bed.get("/v1/things/1:stop").await;
    assert_eq!((reply.status, reply.header("allow")), (405, Some("OPTIONS, POST")));
    assert_eq!(bed.count(), 0);
    assert_eq!(bed.get("/v1/things/1:other").await.status, 200);
    assert_eq!(bed.call().message, json!({"name": "things/1:other"}));
    assert_eq!(bed.get("/v1/things/1%3Astop").await.status, 200);
    assert_eq!(bed.call().message, json!({"name": "things/1:stop"}));
}

#[tokio::test]
async fn s13_methods_are_405_204_or_501_and_head_is_get_without_the_body() {
    let bed = Bed::new(Act::Echo);
    let reply = bed.send(request("DELETE", "/v1/text/a", &[], "")).await;
    assert_eq!((reply.status, reply.header("allow")), (405, Some("GET, HEAD, OPTIONS")));
    assert_eq!((reply.reason(), reply.body["code"].as_i64()), ("METHOD_NOT_ALLOWED", Some(12)));
    let reply = bed.send(request("OPTIONS", "/v1/text/a", &[], "")).await;
    assert_eq!((reply.status, reply.header("allow")), (204, Some("GET, HEAD, OPTIONS")));
    assert_eq!((reply.bytes.len(), reply.header("content-length")), (0, None));
    let reply = bed.send(request("OPTIONS", "/v1/nowhere", &[], "")).await;
    assert_eq!(reply.status, 404);
    let reply = bed.send(request("OPTIONS", "*", &[], "")).await;
    assert_eq!(reply.status, 204);
    assert_eq!(bed.send(request("TRACE", "/v1/text/a", &[], "")).await.status, 405);
    assert_eq!(bed.send(request("TRACE", "/nowhere", &[], "")).await.status, 405);
    assert_eq!(bed.send(request("CONNECT", "shop.example", &[], "")).await.status, 405);
    for path in ["/v1/text/a", "/nowhere"] {
        let reply = bed.send(request("BREW", path, &[], "")).await;
        assert_eq!((reply.status, reply.reason()), (501, "METHOD_UNKNOWN"), "{path}");
    }
    // A binding of a method of its own.
    assert_eq!(bed.send(request("REPORT", "/v1/all", &[], "")).await.status, 200);
    let get = bed.get("/v1/text/a").await;
    let head = bed.send(request("HEAD", "/v1/text/a", &[], "")).await;
    assert_eq!((head.status, head.bytes.len()), (200, 0));
    assert_eq!(head.header("content-length"), get.header("content-length"));
    assert_eq!(head.header("content-type"), Some("application/json"));
    let head = bed.send(request("HEAD", "/nowhere", &[], "")).await;
    assert_eq!((head.status, head.bytes.len()), (404, 0));
}

#[tokio::test]
async fn s14_a_path_that_nobody_has_differs_from_a_thing_that_is_not_there() {
    let bed = Bed::new(Act::Fail(&[("grpc-status", "5"), ("grpc-message", "no such thing")]));
    let theirs = bed.get("/v1/things/1").await;
    let ours = bed.get("/v1/nothings/1").await;
    assert_eq!((theirs.status, ours.status), (404, 404));
    assert_eq!((ours.domain(), ours.reason()), ("ordermesh.gateway.v1", "ROUTE_NOT_FOUND"));
    assert_eq!((theirs.domain(), theirs.body["message"].as_str()), ("", Some("no such thing")));
    let problem = [("accept", "application/problem+json")];
    let ours = bed.send(request("GET", "/v1/nothings/1", &problem, "")).await;
    assert_eq!(ours.body["type"], "/docs/problems/ordermesh.gateway.v1/ROUTE_NOT_FOUND");
    let theirs = bed.send(request("GET", "/v1/things/1", &problem, "")).await;
    assert_eq!(
        (&theirs.body["type"], &theirs.body["title"]),
        (&json!("about:blank"), &json!("Not Found"))
    );
}

#[tokio::test]
async fn s15_no_header_and_no_form_turns_one_method_into_another() {
    let bed = Bed::new(Act::Echo);
    let reply =
        bed.send(request("POST", "/v1/text/a", &[("x-http-method-override", "GET")], "")).await;
    assert_eq!(reply.status, 405);
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let reply = bed.send(request("POST", "/v1/all", &form, "text=a")).await;
    assert_eq!((reply.status, reply.reason()), (415, "UNSUPPORTED_MEDIA_TYPE"));
    assert_eq!(reply.header("accept-post"), Some("application/json"));
}

#[tokio::test]
async fn what_takes_a_stream_and_what_only_services_call_have_no_route() {
    let bed = Bed::new(Act::Echo);
    assert_eq!(bed.get("/v1/between/1").await.reason(), "ROUTE_NOT_FOUND");
    let reply = bed.send(request("POST", "/v1/things:upload", &[], "{}")).await;
    assert_eq!(reply.reason(), "ROUTE_NOT_FOUND");
    // Nobody serves `:uphold`, so it is no verb: the colon is part of the name.
    assert_eq!(bed.get("/v1/things/1:uphold").await.status, 200);
    assert_eq!(bed.call().message, json!({"name": "things/1:uphold"}));
}
