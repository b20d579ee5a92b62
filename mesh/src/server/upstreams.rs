//! `/upstreams` of the admin port: every dependency as this process sees it, as JSON for programs
//! and as a page for people. It is the same value: the page says no more than the JSON.

use std::fmt::Write as _;

use axum::{
    Json,
    extract::Query,
    http::{HeaderMap, header},
    response::{Html, IntoResponse, Response},
};
use serde_json::Value;

use crate::client;

/// What stands above the tables. No script and nothing from elsewhere: it is read in an emergency.
const HEAD: &str = "<!doctype html><meta charset=utf-8><meta http-equiv=refresh content=5>\
<title>upstreams</title><style>body{font:14px system-ui;margin:2em;color:#222}\
table{border-collapse:collapse;margin:.5em 0 1em}td,th{border:1px solid #ccc;padding:.2em .6em;text-align:left}\
th{background:#f3f3f3}h2{margin:1.2em 0 .2em}</style><h1>Upstreams</h1>\
<p>Every dependency as this process sees it; again every 5 s. <a href=\"?format=json\">JSON</a></p>";

/// Which form is asked for.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Form {
    format: Option<String>,
}

/// Answers with JSON if that is asked for by `?format=json` or `Accept`, else with a page.
pub(super) async fn upstreams(Query(form): Query<Form>, headers: HeaderMap) -> Response {
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let page = match form.format.as_deref() {
        Some(format) => format != "json",
        None => accepts.is_some_and(|accepts| accepts.contains("text/html")),
    };
    let view = client::view();
    if page { Html(render(&view)).into_response() } else { Json(view).into_response() }
}

fn render(view: &Value) -> String {
    let mut page = HEAD.to_owned();
    for dependency in view.as_array().into_iter().flatten() {
        section(&mut page, dependency);
    }
    page
}

fn section(page: &mut String, dependency: &Value) {
    let text = |key: &str| cell(&dependency[key]);
    let breaker = &dependency["breaker"];
    let bulkhead = &dependency["bulkhead"];
    // Writing into a string does not fail.
    let _written = write!(
        page,
        "<h2>{}</h2><p>breaker {}: {} of {} calls failed in 10 s &middot; retry budget {} \
         &middot; {} of {} places in use</p>",
        text("name"),
        cell(&breaker["state"]),
        cell(&breaker["failures_10s"]),
        cell(&breaker["calls_10s"]),
        text("retry_budget"),
        cell(&bulkhead["in_use"]),
        cell(&bulkhead["max"]),
    );
    for (title, key) in [("Instances", "endpoints"), ("Methods", "methods")] {
        table(page, title, &dependency[key]);
    }
}

/// A row for each object, a column for each key of the first.
fn table(page: &mut String, title: &str, rows: &Value) {
    let rows: Vec<_> = rows.as_array().into_iter().flatten().filter_map(Value::as_object).collect();
    let Some(first) = rows.first() else { return };
    let _written = write!(page, "<table><caption>{title}</caption><tr>");
    for key in first.keys() {
        let _written = write!(page, "<th>{}", escaped(key));
    }
    for row in &rows {
        page.push_str("<tr>");
        for key in first.keys() {
            let _written = write!(page, "<td>{}", row.get(key).map(cell).unwrap_or_default());
        }
    }
    page.push_str("</table>");
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "&ndash;".to_owned(),
        Value::String(text) => escaped(text),
        Value::Number(number) if number.is_f64() => {
            format!("{:.2}", number.as_f64().unwrap_or_default())
        }
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            escaped(&value.to_string())
        }
    }
}

/// Names come from a registry: they are text, whatever they hold.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_page_shows_every_dependency_and_no_markup_of_others() {
        let page = render(&json!([{
            "name": "cata<b>log",
            "breaker": {"state": "open", "calls_10s": 20, "failures_10s": 12},
            "retry_budget": 7,
            "bulkhead": {"in_use": 3, "max": 256},
            "endpoints": [{"id": "catalog-1", "ewma_ms": 1.234, "error": null}],
            "methods": [],
        }]));
        for part in [
            "<h2>cata&lt;b&gt;log</h2>",
            "breaker open: 12 of 20 calls failed",
            "3 of 256 places",
            "<td>catalog-1",
            "<td>1.23",
            "<td>&ndash;",
        ] {
            assert!(page.contains(part), "no `{part}` in {page}");
        }
        assert!(!page.contains("Methods"), "a table without rows is left out");
    }
}
