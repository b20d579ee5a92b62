use super::*;

fn bad(cases: &[(&str, &str)]) {
    for (text, field) in cases {
        let error = query(text).expect_err(text);
        assert_eq!(error.row().0, 400, "{text}");
        assert_eq!(blamed(&error).0, *field, "{text}: {error}");
    }
}

fn good(cases: &[(&str, serde_json::Value)]) {
    for (text, expected) in cases {
        assert_eq!(query(text).expect(text), *expected, "{text}");
    }
}

#[test]
fn s16_path_query_and_body_may_only_agree() {
    let text = binding("GET", "/v1/text/{text}");
    for (query, fine) in
        [("text=a%2Fb", true), ("text=a", false), ("text=", false), ("small=1", true)]
    {
        let input = Input { variables: vec!["a%2Fb"], query, ..Input::default() };
        let result = read(text, &input);
        assert_eq!(result.is_ok(), fine, "{query}: {result:?}");
        if let Ok(json) = result {
            assert_eq!(json["text"], "a/b");
        }
    }
    let flags = binding("GET", "/v1/flags/{flag}/{small}/{color}/{at}");
    let input = Input {
        variables: vec!["true", "-7", "COLOR_RED", "2024-01-01T00%3A00%3A00Z"],
        ..Input::default()
    };
    assert_eq!(
        read(flags, &input).expect("scalars"),
        json!({"flag": true, "small": -7, "color": "COLOR_RED", "at": "2024-01-01T00:00:00Z"})
    );
    let wrong = Input { variables: vec!["true", "x", "COLOR_RED", "0"], ..Input::default() };
    assert_eq!(blamed(&read(flags, &wrong).expect_err("x")).0, "small");
    let not_utf8 = Input { variables: vec!["%ff"], ..Input::default() };
    assert_eq!(blamed(&read(text, &not_utf8).expect_err("not UTF-8")).0, "text");
}

#[test]
fn s17_what_the_body_covers_is_no_parameter_and_no_body_means_none() {
    let all = binding("POST", "/v1/all");
    let inner = binding("POST", "/v1/inner");
    let get = binding("GET", "/v1/all");
    for (binding, query, body, blame) in [
        (all, "text=a", "", Some("text")),
        (inner, "text=a", "{}", None),
        (inner, "inner.text=a", "{}", Some("inner.text")),
        (get, "", "{}", Some("body")),
        (get, "", "  ", None),
    ] {
        let input = Input { query, body: body.as_bytes(), ..Input::default() };
        let result = read(binding, &input);
        assert_eq!(result.err().map(|e| blamed(&e).0).as_deref(), blame, "{query} {body}");
    }
}

#[test]
fn s18_a_singular_parameter_comes_once_and_a_list_by_repeating() {
    good(&[
        ("texts=a&texts=b,c&texts=", json!({"texts": ["a", "b,c", ""]})),
        ("numbers=1&numbers=1", json!({"numbers": [1, 1]})),
        ("times=2024-01-01T00:00:00Z", json!({"times": ["2024-01-01T00:00:00Z"]})),
        ("inner.texts=a&inner.texts=b", json!({"inner": {"texts": ["a", "b"]}})),
    ]);
    bad(&[
        ("text=a&text=b", "text"),
        ("text=&text=", "text"),
        ("texts[]=a", "texts[]"),
        ("inners=a", "inners"),
    ]);
}

#[test]
fn s19_both_names_of_a_field_are_one_field() {
    good(&[
        ("unsignedSmall=1", json!({"unsignedSmall": 1})),
        ("unsigned_small=1", json!({"unsignedSmall": 1})),
    ]);
    bad(&[("unsignedSmall=1&unsigned_small=1", "unsigned_small")]);
}

#[test]
fn s20_dots_pass_through_messages_and_brackets_into_maps() {
    good(&[
        (
            "inner.text=a&inner.inner.small=2",
            json!({"inner": {"text": "a", "inner": {"small": 2}}}),
        ),
        ("labels[a%20b]=c&labels[d]=", json!({"labels": {"a b": "c", "d": ""}})),
        ("byFlag[true]=5", json!({"byFlag": {"true": "5"}})),
        ("inner.labels[x]=y", json!({"inner": {"labels": {"x": "y"}}})),
    ]);
    bad(&[
        ("text.a=1", "text.a"),
        ("inners.text=a", "inners.text"),
        ("labels=a", "labels"),
        ("labels.a=b", "labels.a"),
        ("labels[a]=b&labels[a]=c", "labels[a]"),
        ("text[a]=b", "text[a]"),
        ("byFlag[x]=1", "by_flag[x]"),
        ("byNumber[1]=x", "by_number[1]"),
        ("inner=x", "inner"),
        ("inner.=x", "inner."),
        (".text=x", ".text"),
    ]);
    let deep = |levels| format!("{}text=a", "inner.".repeat(levels));
    assert!(query(&deep(63)).is_ok());
    assert!(query(&deep(64)).is_err());
    assert!(query(&deep(100_000)).is_err());
}

#[test]
fn s21_to_s23_scalars_are_read_as_in_the_body() {
    good(&[
        ("color=COLOR_RED", json!({"color": "COLOR_RED"})),
        ("color=2", json!({"color": "COLOR_GREEN"})),
        ("color=77", json!({"color": 77})),
        ("flag=true", json!({"flag": true})),
        ("flag=1", json!({"flag": true})),
        ("flag=TRUE", json!({"flag": true})),
        ("flag=0", json!({})),
        ("maybe=", json!({"maybe": ""})),
        ("maybe", json!({"maybe": ""})),
        ("small=1e2", json!({"small": 100})),
        ("small=1.0", json!({"small": 1})),
        ("text=a+b%2Bc", json!({"text": "a b+c"})),
    ]);
    bad(&[
        ("color=RED", "color"),
        ("flag=", "flag"),
        ("flag", "flag"),
        ("flag=True", "flag"),
        ("small=", "small"),
        ("small=+1", "small"),
        ("small=%201", "small"),
        ("small=0x1", "small"),
        ("small=1.5", "small"),
        ("unsignedSmall=-1", "unsigned_small"),
        ("big=9223372036854775808", "big"),
    ]);
}

#[test]
fn s24_to_s26_floats_bytes_and_times() {
    good(&[
        ("real=NaN", json!({"real": "NaN"})),
        ("single=Infinity", json!({"single": "Infinity"})),
        ("blob=-_8", json!({"blob": "+/8="})),
        ("blob=%2B%2F8%3D", json!({"blob": "+/8="})),
        ("lasts=1.5s", json!({"lasts": "1.500s"})),
        ("mask=fooBar,inner.text", json!({"mask": "fooBar,inner.text"})),
        ("wrapped=5", json!({"wrapped": "5"})),
        ("wrappedText=", json!({"wrappedText": ""})),
        ("at.seconds=5", json!({"at": "1970-01-01T00:00:05Z"})),
    ]);
    bad(&[
        ("real=inf", "real"),
        ("single=1e39", "single"),
        ("lasts=13h", "lasts"),
        ("mask=foo_bar", "mask"),
        ("at=2024-01-01", "at"),
        ("value=1", "value"),
        ("structure=x", "structure"),
        ("any=x", "any"),
    ]);
}

#[test]
fn s27_semicolons_are_data_empty_pairs_nothing_and_unknown_parameters_named() {
    good(&[
        ("text=a;b&&&small=1&", json!({"text": "a;b", "small": 1})),
        ("text=a=b", json!({"text": "a=b"})),
    ]);
    bad(&[
        ("nope=1", "nope"),
        ("text=%zz", "text"),
        ("%ff=1", "%ff"),
        ("text=%ff", "text"),
        ("=1", ""),
    ]);
    let error = query("colour=1").expect_err("unknown");
    assert_eq!(blamed(&error).1, "is no parameter of this call; did you mean color?");
    let ignored = ["key".to_owned(), "$alt".to_owned()];
    let input = Input { query: "$alt=json&key=k", ignored: &ignored, ..Input::default() };
    // A field of that name wins.
    assert_eq!(read(binding("GET", "/v1/all"), &input).expect("ignored"), json!({"key": "k"}));
    let many = "texts=a&".repeat(1_001);
    assert!(query(&many).is_err());
    assert!(query(&many["texts=a&".len()..]).is_ok());
}

#[test]
fn s28_two_members_of_a_oneof_are_refused_across_query_and_body() {
    bad(&[("left=a&right.text=b", "right.text"), ("right.text=b&left=", "left")]);
    good(&[("right.text=a&right.small=1", json!({"right": {"text": "a", "small": 1}}))]);
}

#[test]
fn hostile_queries_end_in_a_refusal() {
    for text in [
        "[".repeat(8_000),
        "a[".repeat(4_000),
        "&=".repeat(4_000),
        ".".repeat(8_000),
        "%".to_owned(),
    ] {
        assert!(query(&text).is_err(), "{}", &text[..4.min(text.len())]);
    }
}

proptest! {
    #[test]
    fn no_query_is_too_strange(text in r"[a-zA-Z_.\[\]=&%+0-9;]{0,50}") {
        let _whatever = query(&text).is_ok();
    }
}
