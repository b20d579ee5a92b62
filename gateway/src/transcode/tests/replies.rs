use super::*;

fn reply(wire: &[u8]) -> Result<String, Error> {
    wire_to_json(binding("POST", "/v1/all"), wire)
        .map(|reply| String::from_utf8(reply.body.to_vec()).expect("UTF-8"))
}

/// What comes of a body that goes in and out again.
fn round(text: &str) -> String {
    let input = Input { body: text.as_bytes(), ..Input::default() };
    let frame = json_to_wire(binding("POST", "/v1/all"), &input).expect(text);
    reply(&frame[PREFIX..]).expect(text)
}

#[test]
fn s38_values_are_written_in_their_shortest_exact_form() {
    for text in [
        "{}",
        r#"{"text":"é😀<>&","flag":true,"small":-1,"big":"9007199254740993"}"#,
        r#"{"unsignedBig":"18446744073709551615","single":0.1,"real":1e300}"#,
        r#"{"real":-0.5,"blob":"+/8=","color":"COLOR_RED","inner":{"text":"a"}}"#,
        r#"{"real":5e-324}"#,
        r#"{"real":1}"#,
        r#"{"value":-0}"#,
        r#"{"single":"NaN","real":"-Infinity"}"#,
        r#"{"color":77}"#,
        r#"{"texts":["a",""],"numbers":[0,1],"labels":{"a":"","b":"2"}}"#,
        r#"{"byNumber":{"-1":{},"2":{"small":1}},"byFlag":{"false":"1","true":"0"}}"#,
        r#"{"nothing":null}"#,
        r#"{"maybe":"","maybeSmall":0}"#,
        r#"{"at":"2024-02-29T12:00:00Z","lasts":"-1.000000001s","mask":"fooBar,a.b"}"#,
        r#"{"at":"1969-12-31T23:59:59.100Z","lasts":"0.000001s"}"#,
        r#"{"structure":{"a":[1,{"b":null}],"c":"d"},"value":[true],"list":[0.5]}"#,
        r#"{"value":null}"#,
        r#"{"any":{"@type":"x/echo.v1.Inner","text":"a"},"wrapped":"0","wrappedText":""}"#,
        r#"{"any":{}}"#,
        r#"{"any":{"@type":"x/google.protobuf.Duration","value":"1s"}}"#,
    ] {
        assert_eq!(round(text), text);
    }
    // An empty list and an empty map are no values on the wire.
    assert_eq!(round(r#"{"texts":[],"labels":{},"text":""}"#), "{}");
}

#[test]
fn s36_only_quotes_backslashes_and_controls_are_escaped() {
    assert_eq!(
        round(r#"{"text":"\"\\\u0000\u001f\n\/\u2028\u007f"}"#),
        "{\"text\":\"\\\"\\\\\\u0000\\u001f\\n/\u{2028}\u{7f}\"}"
    );
}

#[test]
fn s39_the_wire_is_read_by_the_rules_of_merging() {
    for (wire, expected) in [
        // The last scalar wins.
        (&[0x18, 1, 0x18, 2][..], r#"{"small":2}"#),
        // Messages merge.
        (&[0x5a, 2, 0x10, 1, 0x5a, 3, 0x0a, 1, b'a'], r#"{"inner":{"text":"a","small":1}}"#),
        // Packed and unpacked.
        (&[0x6a, 2, 1, 2, 0x68, 3], r#"{"numbers":[1,2,3]}"#),
        // Unknown fields: 100 as varint, and a group.
        (&[0xa0, 0x06, 1, 0xa3, 0x06, 0xa4, 0x06, 0x10, 1], r#"{"flag":true}"#),
        // The last member of a oneof.
        (&[0x92, 0x01, 1, b'a', 0x9a, 0x01, 0], r#"{"right":{}}"#),
    ] {
        assert_eq!(reply(wire).expect(expected), expected);
    }
}

#[test]
fn s39_what_is_no_message_is_a_502() {
    for wire in [
        // A string that is not UTF-8.
        &[0x0a, 1, 0xff][..],
        // Cut off, too long, tag 0, a varint of 11 bytes, a length near 2^64.
        &[0x0a, 5, b'a'],
        &[0x0a],
        &[0x00, 0x00],
        &[0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        // A timestamp of the year 10000.
        &[0xba, 0x01, 7, 0x08, 0x80, 0xdc, 0xee, 0xd6, 0xf6, 0x3b],
    ] {
        let error = reply(wire).expect_err("malformed");
        assert!(matches!(error, Error::UpstreamMalformed(_)), "{wire:?}: {error}");
        assert_eq!(error.row().0, 502);
    }
}

#[test]
fn s37_a_map_entry_without_key_or_value_is_the_default_and_depth_has_an_end() {
    assert_eq!(reply(&[0x7a, 0]).expect("an entry"), r#"{"labels":{"":""}}"#);
    assert_eq!(reply(&[0x82, 0x01, 2, 0x08, 5]).expect("an entry"), r#"{"byNumber":{"5":{}}}"#);
    assert_eq!(
        reply(&[0x7a, 3, 0x12, 1, b'a', 0x7a, 3, 0x12, 1, b'b']).expect("twice"),
        r#"{"labels":{"":"b"}}"#
    );
    let mut wire = Vec::new();
    for _ in 0..150 {
        let mut outer = vec![0x1a];
        prost::encoding::encode_varint(wire.len() as u64, &mut outer);
        outer.extend(wire);
        wire = outer;
    }
    let mut outer = vec![0x5a];
    prost::encoding::encode_varint(wire.len() as u64, &mut outer);
    outer.extend(wire);
    assert_eq!(reply(&outer).expect_err("too deep").row().0, 502);
}

#[test]
fn s35_an_any_of_an_unknown_type_leaves_as_base64() {
    let any = prost_types::Any { type_url: "x/no.Such".to_owned(), value: vec![1, 2] };
    let mut wire = vec![0xea, 0x01];
    prost::encoding::encode_varint(any.encoded_len() as u64, &mut wire);
    wire.extend(any.encode_to_vec());
    assert_eq!(reply(&wire).expect("unknown"), r#"{"any":{"@type":"x/no.Such","value":"AQI="}}"#);
}

#[test]
fn a_reply_may_be_one_field() {
    for (template, wire, expected) in [
        ("/v1/labels", &[0x7a, 4, 0x0a, 0, 0x12, 0][..], r#"{"":""}"#),
        ("/v1/labels", &[], "{}"),
        ("/v1/texts", &[0x62, 1, b'a'], r#"["a"]"#),
        ("/v1/texts", &[], "[]"),
    ] {
        let reply = wire_to_json(binding("POST", template), wire).expect(template);
        assert_eq!(reply.body, expected, "{template}");
    }
}

#[test]
fn s50_an_http_body_leaves_as_it_is() {
    let binding = binding("GET", "/v1/{name=files/**}");
    let wire = [&[0x0a, 10][..], b"text/plain", &[0x12, 2, 0xff, 0x00]].concat();
    let reply = wire_to_json(binding, &wire).expect("raw");
    assert_eq!(reply.content_type.as_deref(), Some("text/plain"));
    assert_eq!(reply.body, [0xff, 0x00].as_slice());
    let reply = wire_to_json(binding, &[]).expect("raw");
    assert_eq!(reply.content_type.as_deref(), Some("application/octet-stream"));
}

#[test]
fn s52_a_reply_shows_its_etag_and_its_name() {
    let binding = binding("GET", "/v1/{name=things/*}");
    let wire = [&[0x0a, 8][..], b"things/1", &[0x2a, 4], b"\"v1\""].concat();
    let reply = wire_to_json(binding, &wire).expect("a thing");
    assert_eq!(reply.etag.as_deref(), Some("\"v1\""));
    assert_eq!(reply.name.as_deref(), Some("things/1"));
}

proptest! {
    #[test]
    fn no_reply_is_too_strange(wire in prop::collection::vec(any::<u8>(), 0..100)) {
        let _whatever = reply(&wire).is_ok();
    }

    /// What prost-reflect writes is read, and what is written says the same to prost-reflect.
    #[test]
    fn both_codecs_say_the_same(
        text in ".{0,12}", small in any::<i32>(), big in any::<i64>(), real in any::<f64>(),
        single in any::<f32>(), blob in prop::collection::vec(any::<u8>(), 0..9),
        seconds in -62_135_596_800_i64..=253_402_300_799, nanos in 0..1_000_000_000_i32,
        color in any::<i32>(), texts in prop::collection::vec(".{0,4}", 0..3),
    ) {
        use prost_reflect::Value;
        let binding = binding("POST", "/v1/all");
        let mut message = DynamicMessage::new(binding.method.input.clone());
        for (name, value) in [
            ("text", Value::String(text.clone())),
            ("small", Value::I32(small)),
            ("big", Value::I64(big)),
            ("real", Value::F64(real)),
            ("single", Value::F32(single)),
            ("blob", Value::Bytes(blob.into())),
            ("color", Value::EnumNumber(color)),
            ("texts", Value::List(texts.into_iter().map(Value::String).collect())),
        ] {
            message.set_field_by_name(name, value);
        }
        let at = message.get_field_by_name_mut("at").and_then(Value::as_message_mut).expect("at");
        at.set_field_by_name("seconds", Value::I64(seconds));
        at.set_field_by_name("nanos", Value::I32(nanos));
        let theirs = serde_json::to_vec(&message).expect("JSON");
        let frame = json_to_wire(binding, &Input { body: &theirs, ..Input::default() })
            .expect("what they write");
        let read = DynamicMessage::decode(binding.method.input.clone(), &frame[PREFIX..])
            .expect("a message");
        let ours = wire_to_json(binding, &message.encode_to_vec()).expect("JSON").body;
        let parsed = DynamicMessage::deserialize(
            binding.method.output.clone(),
            &mut serde_json::Deserializer::from_slice(&ours),
        );
        let mut parsed = parsed.expect("what we write");
        // serde_json reads floats by one unit in the last place wrong.
        for name in ["real", "single"] {
            let value = message.get_field_by_name(name).expect(name).into_owned();
            parsed.set_field_by_name(name, value);
        }
        // NaN is not equal to itself: compare what is written.
        prop_assert_eq!(read.encode_to_vec(), message.encode_to_vec());
        prop_assert_eq!(parsed.encode_to_vec(), message.encode_to_vec());
    }
}
