use proptest::prelude::*;

use super::{
    template::{Segment, Template, bad_escape, decoded, normalized},
    trie::{Missed, Router},
};

fn router(routes: &[(&str, &str)]) -> Router<String> {
    let mut router = Router::default();
    for (method, template) in routes {
        let parsed = Template::parse(template).expect(template);
        router.insert(method, &parsed, format!("{method} {template}")).expect("no equal route");
    }
    router
}

/// The route that is found, with the raw values of its variables.
fn found(router: &Router<String>, method: &str, path: &str) -> String {
    match router.find(method, path) {
        Ok(found) => {
            let template = found.route.split_once(' ').expect("method and template").1;
            let template = Template::parse(template).expect("it was parsed before");
            let values: Vec<_> =
                template.variables.iter().map(|v| found.value(v.first, v.end)).collect();
            format!("{} {values:?}", found.route)
        }
        Err(Missed::Path) => "404".to_owned(),
        Err(Missed::Method(methods)) => {
            format!("405 {}", methods.into_iter().collect::<Vec<_>>().join(","))
        }
    }
}

fn check(routes: &[(&str, &str)], cases: &[(&str, &str, &str)]) {
    let router = router(routes);
    for (method, path, expected) in cases {
        assert_eq!(found(&router, method, path), *expected, "{method} {path}");
    }
}

#[test]
fn a_template_is_read_by_the_grammar_of_http_proto() {
    let template = Template::parse("/v1/{note.name=notes/*}/x/{rest=**}:do").expect("a template");
    let literal = |word: &str| Segment::Literal(word.to_owned());
    assert_eq!(
        template.segments,
        [literal("v1"), literal("notes"), Segment::One, literal("x"), Segment::Many]
    );
    assert_eq!(template.verb.as_deref(), Some("do"));
    assert_eq!(template.variables[0].path, ["note", "name"]);
    assert_eq!((template.variables[0].first, template.variables[0].end), (1, 3));
    assert_eq!((template.variables[1].first, template.variables[1].end), (4, 5));
    for wrong in [
        "", "v1", "/v1/", "//", "/a//b", "/{", "/{}", "/{a", "/{a=}", "/{a={b}}", "/{a}/{a}",
        "/a:", "/{a.}", "/{1a}", "/a b{c}", "/a/*x", "/%zz", "/{a=b:c}", "/a:b/c", "/a?b",
    ] {
        assert!(Template::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn s1_a_single_segment_variable_is_decoded_exactly_once() {
    for (raw, expected) in [
        ("a%2Fb", "a/b"),
        ("%252F", "%2F"),
        ("100%25", "100%"),
        ("a%20b+c", "a b+c"),
        ("%C3%A9", "é"),
        ("x", "x"),
    ] {
        assert_eq!(decoded(raw, false).as_deref(), Some(expected), "{raw}");
    }
}

#[test]
fn s2_a_multi_segment_variable_keeps_escaped_slashes_as_they_were_sent() {
    for (raw, expected) in [
        ("notes/a%2Fb", "notes/a%2Fb"),
        ("notes/a%2fb%20c", "notes/a%2fb c"),
        ("%252F", "%2F"),
        ("a%2F%2fb", "a%2F%2fb"),
        ("a%3Ab%40", "a:b@"),
    ] {
        assert_eq!(decoded(raw, true).as_deref(), Some(expected), "{raw}");
    }
}

#[test]
fn s3_multi_segment_is_a_property_of_the_variable_not_of_the_match() {
    for (template, multi) in [
        ("/{x}", false),
        ("/{x=*}", false),
        ("/{x=**}", true),
        ("/{x=a/*}", true),
        ("/{x=a}", false),
    ] {
        assert_eq!(
            Template::parse(template).expect(template).variables[0].multi,
            multi,
            "{template}"
        );
    }
}

#[test]
fn s4_literals_match_in_every_spelling_and_paths_are_split_before_they_are_decoded() {
    check(
        &[("GET", "/v1/notes/{id}"), ("GET", "/a%2fb"), ("GET", "/c+d")],
        &[
            ("GET", "/v1/%6eotes/7", r#"GET /v1/notes/{id} ["7"]"#),
            ("GET", "/v1/%6Eotes/7", r#"GET /v1/notes/{id} ["7"]"#),
            ("GET", "/v1/notes/a%2Fb", r#"GET /v1/notes/{id} ["a%2Fb"]"#),
            ("GET", "/v1%2Forders/7", "404"),
            ("GET", "/a%2Fb", "GET /a%2fb []"),
            ("GET", "/a/b", "404"),
            ("GET", "/c+d", "GET /c+d []"),
            ("GET", "/c%2Bd", "404"),
            ("GET", "/V1/notes/7", "404"),
        ],
    );
}

#[test]
fn s5_a_malformed_escape_is_found() {
    for (path, at) in [
        ("/a", None),
        ("/%41", None),
        ("/%zz", Some(1)),
        ("/a%", Some(2)),
        ("/a%4", Some(2)),
        ("/%41%4g", Some(4)),
        ("/%%41", Some(1)),
    ] {
        assert_eq!(bad_escape(path.as_bytes()), at, "{path}");
    }
    assert_eq!(normalized(b"%4"), None);
}

#[test]
fn s6_a_value_that_is_not_utf8_is_none_and_nul_is_a_character() {
    assert_eq!(decoded("%ff", false), None);
    assert_eq!(decoded("a%2F%ff", true), None);
    assert_eq!(decoded("a%00b", false).as_deref(), Some("a\0b"));
}

#[test]
fn s7_many_matches_zero_or_more_segments_and_one_matches_no_empty_segment() {
    check(
        &[("GET", "/a/{x=**}"), ("GET", "/b/{x=*}"), ("GET", "/c/{x=d/**}")],
        &[
            ("GET", "/a", r#"GET /a/{x=**} [""]"#),
            ("GET", "/a/b", r#"GET /a/{x=**} ["b"]"#),
            ("GET", "/a/b/c", r#"GET /a/{x=**} ["b/c"]"#),
            ("GET", "/a/b//c", r#"GET /a/{x=**} ["b//c"]"#),
            ("GET", "/a/b/", "404"),
            ("GET", "/b/", "404"),
            ("GET", "/b", "404"),
            ("GET", "/c/d", r#"GET /c/{x=d/**} ["d"]"#),
            ("GET", "/c/d/e", r#"GET /c/{x=d/**} ["d/e"]"#),
        ],
    );
}

#[test]
fn s8_many_before_literals_works_with_zero_segments_too() {
    check(
        &[("GET", "/a/{x=**}/c"), ("GET", "/m/{x=**}/n/{y=**}/o")],
        &[
            ("GET", "/a/c", r#"GET /a/{x=**}/c [""]"#),
            ("GET", "/a/b/c", r#"GET /a/{x=**}/c ["b"]"#),
            ("GET", "/a/c/c", r#"GET /a/{x=**}/c ["c"]"#),
            ("GET", "/a/b/c/d", "404"),
            ("GET", "/m/1/n/n/2/o", r#"GET /m/{x=**}/n/{y=**}/o ["1", "n/2"]"#),
        ],
    );
    assert!(Template::parse("/a/**/c").expect("a template").is_unusual());
    assert!(!Template::parse("/a/**").expect("a template").is_unusual());
}

#[test]
fn s9_slashes_are_counted_strictly_and_64000_of_them_do_not_recurse() {
    let routes =
        [("GET", "/v1/notes"), ("GET", "/v1/{x=**}/end"), ("GET", "/{a=**}/{b=**}/{c=**}/z")];
    check(
        &routes,
        &[
            ("GET", "/v1/notes/", "404"),
            ("GET", "/v1//notes", "404"),
            ("GET", "//v1/notes", "404"),
            ("GET", "v1/notes", "404"),
            ("GET", "", "404"),
            ("GET", "*", "404"),
        ],
    );
    let slashes = "/".repeat(64_000);
    let letters = "/v1".repeat(2_000);
    let router = router(&routes);
    assert_eq!(found(&router, "GET", &slashes), "404");
    assert_eq!(found(&router, "GET", &letters), "404");
}

#[test]
fn s10_dot_segments_are_never_resolved() {
    check(
        &[("GET", "/a/{x}/c"), ("GET", "/c")],
        &[
            ("GET", "/a/../c", r#"GET /a/{x}/c [".."]"#),
            ("GET", "/a/%2e%2e/c", r#"GET /a/{x}/c ["%2e%2e"]"#),
        ],
    );
}

#[test]
fn s11_literal_before_one_before_many_with_backtracking_for_each_method() {
    check(
        &[
            ("GET", "/v1/{x=**}"),
            ("GET", "/v1/{x=*}/c"),
            ("GET", "/v1/a/d"),
            ("POST", "/v1/a/c"),
            ("GET", "/v1/{x=**}/z"),
            ("*", "/w/a"),
            ("GET", "/w/a"),
        ],
        &[
            ("GET", "/v1/a/d", "GET /v1/a/d []"),
            ("GET", "/v1/a/c", r#"GET /v1/{x=*}/c ["a"]"#),
            ("POST", "/v1/a/c", "POST /v1/a/c []"),
            ("GET", "/v1/a/e", r#"GET /v1/{x=**} ["a/e"]"#),
            ("GET", "/v1/a/e/z", r#"GET /v1/{x=**}/z ["a/e"]"#),
            ("PUT", "/v1/a/c", "405 GET,POST"),
            ("GET", "/w/a", "GET /w/a []"),
            ("PURGE", "/w/a", "* /w/a []"),
        ],
    );
}

#[test]
fn s11_two_equal_routes_are_refused_whatever_their_variables_are_called() {
    let mut router = router(&[("GET", "/v1/{name=notes/*}")]);
    let equal = Template::parse("/v1/notes/{id}").expect("a template");
    assert_eq!(router.insert("GET", &equal, String::new()).expect_err("equal").by, 0);
    assert!(router.insert("PUT", &equal, String::new()).is_ok());
}

#[test]
fn s12_a_verb_starts_after_the_last_slash_and_the_longest_registered_one_wins() {
    check(
        &[
            ("GET", "/v1/{name=notes/*}"),
            ("POST", "/v1/{name=notes/*}:do"),
            ("POST", "/v1/{name=notes/*}:b:do"),
            ("POST", "/v1/tokens:issue"),
            ("GET", "/v1/{name=files/**}"),
        ],
        &[
            ("POST", "/v1/notes/a:do", r#"POST /v1/{name=notes/*}:do ["notes/a"]"#),
            ("POST", "/v1/notes/a:x:do", r#"POST /v1/{name=notes/*}:do ["notes/a:x"]"#),
            ("POST", "/v1/notes/a:b:do", r#"POST /v1/{name=notes/*}:b:do ["notes/a"]"#),
            ("POST", "/v1/notes/a:%64o", r#"POST /v1/{name=notes/*}:do ["notes/a"]"#),
            ("POST", "/v1/tokens:issue", "POST /v1/tokens:issue []"),
            // Known verb, wrong method: not the value `a:do`.
            ("GET", "/v1/notes/a:do", "405 POST"),
            // Not registered, or escaped: part of the value.
            ("GET", "/v1/notes/a:zzz", r#"GET /v1/{name=notes/*} ["notes/a:zzz"]"#),
            ("GET", "/v1/notes/a%3Ado", r#"GET /v1/{name=notes/*} ["notes/a%3Ado"]"#),
            // Registered, but not for this path.
            ("GET", "/v1/files/a:do", r#"GET /v1/{name=files/**} ["files/a:do"]"#),
            ("GET", "/v1/files/a:do/b", r#"GET /v1/{name=files/**} ["files/a:do/b"]"#),
            ("POST", "/v1/tokens", "404"),
            // Before the colon stands no segment, so it is a value.
            ("GET", "/v1/notes/:do", r#"GET /v1/{name=notes/*} ["notes/:do"]"#),
        ],
    );
}

#[test]
fn s13_a_known_path_with_another_method_names_every_method_it_has() {
    check(
        &[("GET", "/v1/notes"), ("POST", "/v1/notes"), ("DELETE", "/v1/{x}")],
        &[
            ("PATCH", "/v1/notes", "405 DELETE,GET,POST"),
            ("GET", "/v1/x", "405 DELETE"),
            ("GET", "/v2", "404"),
        ],
    );
}

/// Says the same as the trie, by trying everything.
fn naive(template: &[Segment], path: &[&str]) -> bool {
    match template.split_first() {
        None => path.is_empty(),
        Some((Segment::Literal(word), rest)) => {
            path.first().is_some_and(|segment| segment == word) && naive(rest, &path[1..])
        }
        Some((Segment::One, rest)) => {
            path.first().is_some_and(|segment| !segment.is_empty()) && naive(rest, &path[1..])
        }
        Some((Segment::Many, rest)) => (0..=path.len()).any(|count| {
            (count == 0 || !path[count - 1].is_empty()) && naive(rest, &path[count..])
        }),
    }
}

proptest! {
    #[test]
    fn the_trie_finds_what_a_naive_matcher_finds(
        templates in prop::collection::vec(
            prop::collection::vec(prop::sample::select(vec!["a", "b", "*", "**"]), 1..5), 1..6),
        path in prop::collection::vec(prop::sample::select(vec!["a", "b", "c", ""]), 1..7),
    ) {
        let mut router = Router::default();
        let mut kept = Vec::new();
        for segments in templates {
            let template = Template::parse(&format!("/{}", segments.join("/"))).expect("a template");
            if router.insert("GET", &template, kept.len()).is_ok() {
                kept.push(template);
            }
        }
        let text = format!("/{}", path.join("/"));
        let expected = kept.iter().any(|template| naive(&template.segments, &path));
        prop_assert_eq!(router.find("GET", &text).is_ok(), expected);
    }

    #[test]
    fn no_path_and_no_template_is_too_strange(path in "[/a:*%{}=. ]{0,40}", template in "[/a:*%{}=. ]{0,20}") {
        let mut router = Router::default();
        if let Ok(template) = Template::parse(&template) {
            router.insert("GET", &template, ()).expect("the first");
        }
        let _whatever = router.find("GET", &path).is_ok();
        let _whatever = bad_escape(path.as_bytes());
    }
}
