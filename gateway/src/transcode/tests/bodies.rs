use super::*;

#[test]
fn s29_integers_are_exact_in_every_spelling_of_a_whole_number() {
    for (text, expected) in [
        (r#"{"big": 9007199254740993}"#, json!({"big": "9007199254740993"})),
        (r#"{"big": "9007199254740993"}"#, json!({"big": "9007199254740993"})),
        (r#"{"big": -9223372036854775808}"#, json!({"big": "-9223372036854775808"})),
        (
            r#"{"unsignedBig": 18446744073709551615}"#,
            json!({"unsignedBig": "18446744073709551615"}),
        ),
        (r#"{"small": 1.0}"#, json!({"small": 1})),
        (r#"{"small": 1e2}"#, json!({"small": 100})),
        (r#"{"small": 12000e-3}"#, json!({"small": 12})),
        (r#"{"small": 1.50e1}"#, json!({"small": 15})),
        (r#"{"small": -0}"#, json!({})),
        (r#"{"small": "-5"}"#, json!({"small": -5})),
        (r#"{"small": 0e999999999999}"#, json!({})),
        (r#"{"byNumber": {"-1": {}}}"#, json!({"byNumber": {"-1": {}}})),
    ] {
        assert_eq!(body(text).expect(text), expected, "{text}");
    }
    refused(&[
        (r#"{"small": 1.5}"#, "small"),
        (r#"{"small": " 5"}"#, "small"),
        (r#"{"small": "5 "}"#, "small"),
        (r#"{"small": "+5"}"#, "small"),
        (r#"{"small": "01"}"#, "small"),
        (r#"{"small": "0x1"}"#, "small"),
        (r#"{"small": ""}"#, "small"),
        (r#"{"small": true}"#, "small"),
        (r#"{"small": [1]}"#, "small"),
        (r#"{"small": 2147483648}"#, "small"),
        (r#"{"unsignedSmall": -1}"#, "unsigned_small"),
        (r#"{"unsignedBig": 18446744073709551616}"#, "unsigned_big"),
        (r#"{"big": 1e999999999}"#, "big"),
        (r#"{"numbers": [1, 2, "x"]}"#, "numbers[2]"),
        (r#"{"byNumber": {"1": {"small": 0.1}}}"#, "by_number[1].small"),
        (r#"{"byNumber": {"a": {}}}"#, "by_number[a]"),
    ]);
}

#[test]
fn s24_floats_keep_to_their_own_range_and_to_three_names() {
    for (text, expected) in [
        (r#"{"real": 1e300}"#, json!({"real": 1e300})),
        (r#"{"real": "1.5"}"#, json!({"real": 1.5})),
        (r#"{"real": "NaN"}"#, json!({"real": "NaN"})),
        (r#"{"single": "-Infinity"}"#, json!({"single": "-Infinity"})),
        (r#"{"single": 3.4028235e38}"#, json!({"single": 3.402_823_466_385_288_6e38})),
    ] {
        assert_eq!(body(text).expect(text), expected, "{text}");
    }
    refused(&[
        (r#"{"real": 1e999}"#, "real"),
        (r#"{"single": 1e39}"#, "single"),
        (r#"{"real": "inf"}"#, "real"),
        (r#"{"real": "nan"}"#, "real"),
        (r#"{"real": "Infinity "}"#, "real"),
        (r#"{"value": 1e999}"#, "value"),
    ]);
}

#[test]
fn s25_bytes_come_in_either_alphabet_padded_or_not_but_not_mixed() {
    for text in ["+/8=", "+/8", "-_8=", "-_8"] {
        assert_eq!(
            body(&format!(r#"{{"blob": "{text}"}}"#)).expect(text),
            json!({"blob": "+/8="}),
            "{text}"
        );
    }
    assert_eq!(body(r#"{"blob": "-_"}"#).expect("conformance"), json!({"blob": "+w=="}));
    refused(&[
        (r#"{"blob": "+_8="}"#, "blob"),
        (r#"{"blob": "a"}"#, "blob"),
        (r#"{"blob": "a b="}"#, "blob"),
        (r#"{"blob": 5}"#, "blob"),
    ]);
}

#[test]
fn s26_times_durations_and_masks_have_one_form() {
    for (text, expected) in [
        (r#"{"at": "0001-01-01T00:00:00Z"}"#, json!({"at": "0001-01-01T00:00:00Z"})),
        (
            r#"{"at": "9999-12-31T23:59:59.999999999Z"}"#,
            json!({"at": "9999-12-31T23:59:59.999999999Z"}),
        ),
        (r#"{"at": "2024-02-29T12:00:00.5+01:30"}"#, json!({"at": "2024-02-29T10:30:00.500Z"})),
        (r#"{"at": "1969-12-31T23:59:59.1Z"}"#, json!({"at": "1969-12-31T23:59:59.100Z"})),
        (r#"{"lasts": "-0.5s"}"#, json!({"lasts": "-0.500s"})),
        (r#"{"lasts": "315576000000s"}"#, json!({"lasts": "315576000000s"})),
        (r#"{"mask": "inner.texts,flag,fooBar"}"#, json!({"mask": "inner.texts,flag,fooBar"})),
        (r#"{"mask": ""}"#, json!({"mask": ""})),
        (r#"{"wrapped": "5", "wrappedText": ""}"#, json!({"wrapped": "5", "wrappedText": ""})),
    ] {
        assert_eq!(body(text).expect(text), expected, "{text}");
    }
    refused(&[
        (r#"{"at": "2024-02-30T00:00:00Z"}"#, "at"),
        (r#"{"at": "2023-02-29T00:00:00Z"}"#, "at"),
        (r#"{"at": "2024-01-01t00:00:00Z"}"#, "at"),
        (r#"{"at": "2024-01-01T00:00:00z"}"#, "at"),
        (r#"{"at": "2024-01-01T00:00:00"}"#, "at"),
        (r#"{"at": "2024-01-01T00:00:00.Z"}"#, "at"),
        (r#"{"at": "2024-01-01T00:00:00.1234567890Z"}"#, "at"),
        (r#"{"at": "0000-01-01T00:00:00Z"}"#, "at"),
        (r#"{"at": "0001-01-01T00:00:00+00:01"}"#, "at"),
        (r#"{"at": "10000-01-01T00:00:00Z"}"#, "at"),
        (r#"{"at": "2024-01-01T24:00:00Z"}"#, "at"),
        (r#"{"at": "2024-01-01T00:00:00+1:00"}"#, "at"),
        (r#"{"at": 5}"#, "at"),
        (r#"{"lasts": "13h"}"#, "lasts"),
        (r#"{"lasts": "1"}"#, "lasts"),
        (r#"{"lasts": "1.s"}"#, "lasts"),
        (r#"{"lasts": ".5s"}"#, "lasts"),
        (r#"{"lasts": "315576000000.1s"}"#, "lasts"),
        (r#"{"lasts": "+1s"}"#, "lasts"),
        (r#"{"mask": "inner_texts"}"#, "mask"),
        (r#"{"mask": "a,,b"}"#, "mask"),
    ]);
}

#[test]
fn s28_two_members_of_a_oneof_are_refused_and_null_is_a_member_only_where_it_is_a_value() {
    for (text, expected) in [
        (r#"{"left": null, "right": {}}"#, json!({"right": {}})),
        (r#"{"nothing": null}"#, json!({"nothing": null})),
        (r#"{"left": ""}"#, json!({"left": ""})),
    ] {
        assert_eq!(body(text).expect(text), expected, "{text}");
    }
    refused(&[
        (r#"{"left": "", "right": {}}"#, "right"),
        (r#"{"nothing": null, "left": "x"}"#, "left"),
        (r#"{"left": "x", "nothing": "NULL_VALUE"}"#, "nothing"),
    ]);
}

#[test]
fn s30_json_is_strict_and_says_where_it_breaks() {
    for (text, at) in [
        (r#"{"text": "a",}"#, 13),
        (r#"{"texts": ["a",]}"#, 15),
        ("{'text': 'a'}", 1),
        ("{\"text\": \"a\"} x", 14),
        ("{\"text\": \"a\"}}", 13),
        ("{/* */}", 1),
        (r#"{"real": NaN}"#, 9),
        (r#"{"small": 01}"#, 11),
        (r#"{"small": +1}"#, 10),
        (r#"{"small": 1.}"#, 12),
        (r#"{"small": .5}"#, 10),
        (r#"{"small": 1e}"#, 12),
        (r#"{"small": -}"#, 11),
        ("{\"text\": \"a\nb\"}", 11),
        ("{\"text\": \"a\u{0}b\"}", 11),
        ("\u{feff}{}", 0),
        (r#"{"text""#, 7),
        (r#"{"text" "a"}"#, 8),
        (r#"{"text": "#, 9),
        (r#"{"text": "a"#, 11),
        (r#"{"text": "\x"}"#, 12),
        (r#"{"text": "\u12"}"#, 12),
        (r#"{text: 1}"#, 1),
        ("{", 1),
        ("nul", 0),
    ] {
        let error = body(text).expect_err(text);
        assert!(
            matches!(&error, Error::MalformedJson { at: found, .. } if *found == at),
            "{text}: {error}"
        );
    }
    let error = body(r#"{"inner": {"texts": ["a", 'b']}}"#).expect_err("single quotes");
    assert_eq!(
        blamed(&error),
        ("inner.texts[1]".to_owned(), "26 this begins no JSON value".to_owned())
    );
}

#[test]
fn s31_a_key_may_stand_once_by_either_of_its_names() {
    assert_eq!(
        body(r#"{"by_flag": {"true": 1}}"#).expect("proto name"),
        json!({"byFlag": {"true": "1"}})
    );
    refused(&[
        (r#"{"text": "a", "text": "b"}"#, "text"),
        (r#"{"text": "a", "t\u0065xt": "b"}"#, "text"),
        (r#"{"unsignedSmall": 1, "unsigned_small": 1}"#, "unsigned_small"),
        (r#"{"labels": {"a": "1", "a": "2"}}"#, "labels.a"),
        (r#"{"byNumber": {"1": {}, "1.0": {}}}"#, "by_number[1.0]"),
        (r#"{"structure": {"a": 1, "a": 1}}"#, "structure.a"),
        (r#"{"inner": {"text": null, "text": null}}"#, "inner.text"),
    ]);
}

#[test]
fn s32_null_says_nothing_for_a_field_and_is_refused_where_something_must_be() {
    for (text, expected) in [
        (r#"{"text": null, "inner": null, "texts": null, "labels": null, "at": null}"#, json!({})),
        (r#"{"maybe": null, "wrapped": null, "any": null, "color": null}"#, json!({})),
        (r#"{"value": null}"#, json!({"value": null})),
        (r#"{"values": [null, 1]}"#, json!({"values": [null, 1.0]})),
        (
            r#"{"structure": {"a": null}, "list": [null]}"#,
            json!({"structure": {"a": null}, "list": [null]}),
        ),
    ] {
        assert_eq!(body(text).expect(text), expected, "{text}");
    }
    refused(&[
        ("null", ""),
        (r#"{"texts": [null]}"#, "texts[0]"),
        (r#"{"inners": [{}, null]}"#, "inners[1]"),
        (r#"{"labels": {"a": null}}"#, "labels[a]"),
        (r#"{"byNumber": {"1": null}}"#, "by_number[1]"),
        (r#"{"times": [null]}"#, "times[0]"),
    ]);
}

#[test]
fn s33_an_empty_body_is_the_empty_message_and_leaves_a_field_unset() {
    let all = binding("POST", "/v1/all");
    let inner = binding("POST", "/v1/inner");
    for (binding, text, expected) in [
        (all, "", json!({})),
        (all, " \r\n\t", json!({})),
        (all, "{}", json!({})),
        (inner, "", json!({})),
        (inner, "  ", json!({})),
        (inner, "null", json!({})),
        (inner, "{}", json!({"inner": {}})),
    ] {
        let input = Input { body: text.as_bytes(), ..Input::default() };
        assert_eq!(read(binding, &input).expect(text), expected, "{text}");
    }
}

#[test]
fn s34_an_unknown_field_is_named_with_what_was_probably_meant() {
    for (text, field, problem) in [
        (r#"{"colour": 1}"#, "colour", "Everything has no field colour; did you mean color?"),
        (r#"{"inner": {"txt": ""}}"#, "inner.txt", "Inner has no field txt; did you mean text?"),
        (r#"{"inners": [{}, {"zzzzzz": 1}]}"#, "inners[1].zzzzzz", "Inner has no field zzzzzz"),
        (r#"{"color": "COLOR_RAD"}"#, "color", "is no value of this enum; did you mean COLOR_RED?"),
        (r#"{"color": "PURPLE"}"#, "color", "must be a value of echo.v1.Color"),
    ] {
        let error = body(text).expect_err(text);
        assert_eq!(blamed(&error), (field.to_owned(), problem.to_owned()), "{text}");
    }
    // What comes back of what was sent stays short.
    let error = body(&format!(r#"{{"{}": 1}}"#, "x".repeat(100_000))).expect_err("unknown");
    assert!(error.to_string().len() < 300, "{error}");
}

#[test]
fn s21_enums_come_by_name_or_number_and_unknown_numbers_are_kept() {
    for (text, expected) in [
        (r#"{"color": "COLOR_GREEN"}"#, json!({"color": "COLOR_GREEN"})),
        (r#"{"color": 1}"#, json!({"color": "COLOR_RED"})),
        (r#"{"color": 77}"#, json!({"color": 77})),
        (r#"{"color": 1.0}"#, json!({"color": "COLOR_RED"})),
        (r#"{"colorOf": {"a": 2}}"#, json!({"colorOf": {"a": "COLOR_GREEN"}})),
    ] {
        assert_eq!(body(text).expect(text), expected, "{text}");
    }
    refused(&[
        (r#"{"color": "color_green"}"#, "color"),
        (r#"{"color": 1.5}"#, "color"),
        (r#"{"color": 2147483648}"#, "color"),
        (r#"{"color": {}}"#, "color"),
        (r#"{"colors": ["COLOR_RED", "x"]}"#, "colors[1]"),
    ]);
}

#[test]
fn s35_any_has_its_type_anywhere_and_holds_any_and_well_known_messages() {
    let inner = r#""@type": "type.googleapis.com/echo.v1.Inner""#;
    let nested = r#"{"@type": "type.googleapis.com/google.protobuf.Any", "value": {"@type": "x/echo.v1.Inner", "text": "a"}}"#;
    for (text, expected) in [
        (
            format!(r#"{{"text": "a", {inner}}}"#),
            json!({"@type": "type.googleapis.com/echo.v1.Inner", "text": "a"}),
        ),
        (nested.to_owned(), serde_json::from_str(nested).expect("JSON")),
        (
            r#"{"value": "1s", "@type": "x/google.protobuf.Duration"}"#.to_owned(),
            json!({"@type": "x/google.protobuf.Duration", "value": "1s"}),
        ),
        (
            r#"{"@type": "x/google.protobuf.Value", "value": null}"#.to_owned(),
            json!({"@type": "x/google.protobuf.Value", "value": null}),
        ),
        (
            r#"{"@type": "x/google.protobuf.Empty"}"#.to_owned(),
            json!({"@type": "x/google.protobuf.Empty", "value": {}}),
        ),
    ] {
        let sent = format!(r#"{{"any": {text}}}"#);
        assert_eq!(body(&sent).expect(&sent), json!({ "any": expected }), "{text}");
    }
    let empty = json_to_wire(
        binding("POST", "/v1/all"),
        &Input { body: br#"{"any": {}}"#, ..Input::default() },
    );
    // Field 29, length-delimited, nothing in it.
    assert_eq!(&empty.expect("empty")[PREFIX..], [0xea, 0x01, 0]);
    refused(&[
        (r#"{"any": {"@type": "x/no.Such"}}"#, "any.@type"),
        (r#"{"any": {"@type": "echo.v1.Inner"}}"#, "any.@type"),
        (r#"{"any": {"@type": 5}}"#, "any"),
        (r#"{"any": {"text": "a"}}"#, "any"),
        (r#"{"any": {"@type": "x/echo.v1.Inner", "nope": "a"}}"#, "any.nope"),
        (r#"{"any": {"@type": "x/google.protobuf.Duration", "seconds": "1"}}"#, "any.seconds"),
        (r#"{"any": {"@type": "x/google.protobuf.Duration"}}"#, "any"),
        (r#"{"anys": [null]}"#, "anys[0]"),
    ]);
}

#[test]
fn s36_surrogate_pairs_are_joined_and_lone_ones_refused() {
    assert_eq!(
        body(r#"{"text": "\ud83d\ude00\u00e9\/\b\f\n\r\t\"\\"}"#).expect("a pair"),
        json!({"text": "😀é/\u{8}\u{c}\n\r\t\"\\"})
    );
    refused(&[
        (r#"{"text": "\ud83d"}"#, "text"),
        (r#"{"text": "\ude00"}"#, "text"),
        (r#"{"text": "\ud83d\u0041"}"#, "text"),
        (r#"{"text": "\ud83dx"}"#, "text"),
        (r#"{"\ud800": "a"}"#, ""),
    ]);
    for wrong in [&b"{\"text\": \"\xff\"}"[..], b"{\"\xc0\x80\": 1}", b"\xed\xa0\x80", b"{}\xff"] {
        assert!(matches!(bytes(wrong), Err(Error::MalformedJson { .. })), "{wrong:?}");
    }
}

#[test]
fn s37_a_hundred_levels_are_read_and_no_more() {
    let nested = |levels: usize| {
        format!("{}{}{}", r#"{"inner":"#.repeat(levels - 1), "{}", "}".repeat(levels - 1))
    };
    assert!(body(&nested(99)).is_ok());
    assert!(matches!(body(&nested(101)), Err(Error::MalformedJson { .. })));
    // A level of a list is two messages on the wire, one of an object is three: what a service
    // could not read is refused here.
    let objects = |levels: usize| {
        format!("{{\"structure\":{}1{}}}", r#"{"a":"#.repeat(levels), "}".repeat(levels))
    };
    for levels in [1, 20, 30, 33, 34, 40, 60, 90] {
        let text = objects(levels);
        let input = Input { body: text.as_bytes(), ..Input::default() };
        match json_to_wire(binding("POST", "/v1/all"), &input) {
            Ok(frame) => {
                let input = binding("POST", "/v1/all").method.input.clone();
                assert!(DynamicMessage::decode(input, &frame[PREFIX..]).is_ok(), "{levels}");
                assert!(levels <= 33, "{levels}");
            }
            Err(error) => {
                assert!(levels > 30 && matches!(error, Error::Field(_)), "{levels}: {error}");
            }
        }
    }
    let list =
        |levels: usize| format!("{{\"value\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
    assert!(matches!(body(&list(101)), Err(Error::MalformedJson { .. })));
}

#[test]
fn what_has_the_wrong_shape_is_named() {
    refused(&[
        ("[]", ""),
        ("5", ""),
        ("\"x\"", ""),
        (r#"{"text": 5}"#, "text"),
        (r#"{"flag": "true"}"#, "flag"),
        (r#"{"flag": 1}"#, "flag"),
        (r#"{"inner": []}"#, "inner"),
        (r#"{"inner": "x"}"#, "inner"),
        (r#"{"texts": "a"}"#, "texts"),
        (r#"{"texts": {}}"#, "texts"),
        (r#"{"texts": [["a"]]}"#, "texts[0]"),
        (r#"{"labels": []}"#, "labels"),
        (r#"{"byFlag": {"1": 1}}"#, "by_flag[1]"),
        (r#"{"structure": []}"#, "structure"),
        (r#"{"list": {}}"#, "list"),
        (r#"{"wrapped": {"value": 1}}"#, "wrapped"),
        (r#"{"any": "x"}"#, "any"),
    ]);
}

#[test]
fn s16_the_path_wins_and_a_body_may_only_agree() {
    let all = binding("POST", "/v1/all/{text}");
    let inner = binding("POST", "/v1/inner/{inner.text}");
    for (binding, variable, text, expected) in [
        (all, "a", r#"{"small": 1}"#, Some(json!({"text": "a", "small": 1}))),
        (all, "a", r#"{"text": "a"}"#, Some(json!({"text": "a"}))),
        (all, "a", r#"{"text": null}"#, Some(json!({"text": "a"}))),
        (all, "a", "", Some(json!({"text": "a"}))),
        (all, "a", r#"{"text": "b"}"#, None),
        (all, "a", r#"{"text": ""}"#, None),
        (inner, "a", r#"{"small": 1}"#, Some(json!({"inner": {"text": "a", "small": 1}}))),
        (inner, "a", r#"{"text": "a"}"#, Some(json!({"inner": {"text": "a"}}))),
        (inner, "a", "", Some(json!({"inner": {"text": "a"}}))),
        (inner, "a", r#"{"text": "b"}"#, None),
    ] {
        let input = Input { variables: vec![variable], body: text.as_bytes(), ..Input::default() };
        match (read(binding, &input), expected) {
            (Ok(json), Some(expected)) => assert_eq!(json, expected, "{text}"),
            (Err(error), None) => assert!(matches!(error, Error::Conflict(_)), "{text}: {error}"),
            (result, _) => panic!("{text}: {result:?}"),
        }
    }
}

#[test]
fn bodies_may_be_lists_and_maps() {
    for (template, text, expected) in [
        ("/v1/labels", r#"{"a": "b"}"#, json!({"labels": {"a": "b"}})),
        ("/v1/texts", r#"["a", "b"]"#, json!({"texts": ["a", "b"]})),
        ("/v1/texts", "[]", json!({})),
    ] {
        let input = Input { body: text.as_bytes(), ..Input::default() };
        assert_eq!(read(binding("POST", template), &input).expect(text), expected, "{text}");
    }
}

#[test]
fn s51_a_patch_without_a_mask_changes_what_its_body_has() {
    let sub = binding("PATCH", "/v1/{thing.name=things/*}");
    let all = binding("PATCH", "/v2/{thing.name=things/*}");
    for (binding, text, mask) in [
        (sub, r#"{"title": "t"}"#, Some("title")),
        (sub, r#"{"title": null, "size": "1"}"#, Some("title,size")),
        (
            sub,
            r#"{"inner": {"text": "a", "inner": {"small": 1}}}"#,
            Some("inner.text,inner.inner.small"),
        ),
        (sub, r#"{"inner": {}}"#, Some("inner")),
        (sub, r#"{"inner": null}"#, Some("inner")),
        (
            sub,
            r#"{"tags": [], "labels": {"a": "b"}, "extra": {"a": 1}}"#,
            Some("tags,labels,extra"),
        ),
        (sub, r#"{"createTime": "2024-01-01T00:00:00Z", "title": ""}"#, Some("title")),
        (sub, r#"{"name": "things/1", "etag": "\"v1\"", "title": ""}"#, Some("title")),
        (sub, "{}", None),
        (sub, "", None),
        (all, r#"{"thing": {"title": "t", "inner": {"small": 1}}}"#, Some("title,inner.small")),
        (all, r#"{"thing": {"title": "t"}, "updateMask": "size"}"#, Some("size")),
        (all, r#"{"thing": {"title": "t"}, "updateMask": "*"}"#, Some("*")),
    ] {
        let input =
            Input { variables: vec!["things/1"], body: text.as_bytes(), ..Input::default() };
        let json = read(binding, &input).expect(text);
        assert_eq!(json["updateMask"].as_str(), mask, "{text}");
        assert_eq!(json["thing"]["name"], "things/1", "{text}");
    }
    let input = Input {
        variables: vec!["things/1"],
        body: br#"{"title": "t"}"#,
        query: "update_mask=size",
        ..Input::default()
    };
    assert_eq!(read(sub, &input).expect("a mask")["updateMask"], "size");
}

#[test]
fn s52_if_match_becomes_the_etag_and_a_key_the_request_id() {
    let update = binding("PATCH", "/v1/{thing.name=things/*}");
    let delete = binding("DELETE", "/v1/{name=things/*}");
    let create = binding("POST", "/v1/things");
    let input = Input { variables: vec!["things/1"], etag: Some("\"v1\""), ..Input::default() };
    assert_eq!(read(delete, &input).expect("delete")["etag"], "\"v1\"");
    assert_eq!(read(update, &input).expect("update")["thing"]["etag"], "\"v1\"");
    assert!(create.etag.is_none());
    let other = Input { body: br#"{"etag": "\"v2\""}"#, ..input.clone() };
    assert!(matches!(read(update, &other), Err(Error::Conflict(_))));

    let keyed = Input { request_id: Some(("key", "an-id".to_owned())), ..Input::default() };
    assert_eq!(read(create, &keyed).expect("create")["requestId"], "an-id");
    for (query, fine) in
        [("request_id=key", true), ("requestId=AN-ID", true), ("request_id=b", false)]
    {
        let both = Input { query, ..keyed.clone() };
        assert_eq!(read(create, &both).is_ok(), fine, "{query}");
    }
}

/// Hostile bodies end in a 400, fast. (Gateway design, section 8.6.)
#[test]
fn hostile_bodies_are_refused_fast_and_without_recursion() {
    let digits = "9".repeat(1_000_000);
    let nul = "\\u0000".repeat(600_000);
    let members: String = (0..50_000).map(|n| format!("\"k{n}\":1,")).collect();
    let equal: String = "\"k\":\"1\",".repeat(300_000);
    let any = r#"{"@type":"x/google.protobuf.Any","value":"#;
    let cases = [
        ("open", "[".repeat(100_000), false),
        ("open in a field", format!(r#"{{"value":{}"#, "[".repeat(100_000)), false),
        ("objects", r#"{"inner":"#.repeat(100_000), false),
        ("digits", format!(r#"{{"big":{digits}}}"#), false),
        ("digits of a float", format!(r#"{{"single":{digits}}}"#), false),
        ("digits in a string", format!(r#"{{"big":"{digits}"}}"#), false),
        ("digits of a fraction", format!(r#"{{"real":0.{digits}}}"#), true),
        ("exponent", r#"{"big":1e999999999}"#.to_owned(), false),
        ("digits of an exponent", format!(r#"{{"big":1e{digits}}}"#), false),
        ("nul", format!(r#"{{"text":"{nul}"}}"#), true),
        ("unknown keys", format!("{{{members}\"k\":1}}"), false),
        ("equal keys", format!(r#"{{"labels":{{{equal}"k":"1"}}}}"#), false),
        ("unknown keys of a map", format!(r#"{{"structure":{{{members}"z":1}}}}"#), true),
        ("any in any", format!(r#"{{"any":{}{{}}{}}}"#, any.repeat(98), "}".repeat(98)), true),
        ("any too deep", format!(r#"{{"any":{}{{}}{}}}"#, any.repeat(101), "}".repeat(101)), false),
    ];
    for (name, text, fine) in cases {
        let began = tokio::time::Instant::now();
        let result = json_to_wire(
            binding("POST", "/v1/all"),
            &Input { body: text.as_bytes(), ..Input::default() },
        );
        assert_eq!(result.is_ok(), fine, "{name}: {:?}", result.err().map(|e| e.to_string()));
        assert!(began.elapsed() < Duration::from_secs(5), "{name}: {:?}", began.elapsed());
    }
}

proptest! {
    #[test]
    fn no_body_is_too_strange(text in r#"[\[\]{}":,a-z0-9\\u.eE+ -]{0,60}"#) {
        let _whatever = body(&text).is_ok();
    }

    #[test]
    fn no_bytes_are_too_strange(body in prop::collection::vec(any::<u8>(), 0..80)) {
        let _whatever = bytes(&body).is_ok();
    }
}
