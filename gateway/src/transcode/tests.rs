use std::{sync::LazyLock, time::Duration};

use proptest::prelude::*;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::json;

use super::*;
use crate::{
    error::Error,
    schema::{
        Binding,
        compile::{Access, compile},
    },
};

mod bodies;
mod queries;
mod replies;

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata");
    let contract = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto");
    let mut compiler = protox::Compiler::new([root, contract]).expect("folders");
    compiler.include_imports(true).open_file("echo.proto").expect("echo.proto compiles");
    DescriptorPool::decode(compiler.encode_file_descriptor_set().as_slice()).expect("a pool")
});

static BINDINGS: LazyLock<Vec<Binding>> =
    LazyLock::new(|| compile(&POOL, |_| Access::Anonymous).bindings);

fn binding(http: &str, template: &str) -> &'static Binding {
    BINDINGS
        .iter()
        .find(|binding| binding.http == http && binding.template.text == template)
        .expect(template)
}

/// The message that a request gives, as JSON by the codec that is checked against.
fn read(binding: &Binding, input: &Input<'_>) -> Result<serde_json::Value, Error> {
    let frame = json_to_wire(binding, input)?;
    let message = DynamicMessage::decode(binding.method.input.clone(), &frame[PREFIX..]);
    let message = message.expect("what was written can be read");
    let options = SerializeOptions::new().stringify_64_bit_integers(true);
    let json = message.serialize_with_options(serde_json::value::Serializer, &options);
    Ok(json.expect("JSON"))
}

/// The field that an error blames, with its sentence.
fn blamed(error: &Error) -> (String, String) {
    if let Error::Field(violation) | Error::Conflict(violation) = error {
        (violation.field.clone(), violation.problem.clone())
    } else if let Error::MalformedJson { at, field, problem } = error {
        (field.clone(), format!("{at} {problem}"))
    } else {
        (String::new(), error.to_string())
    }
}

/// Reads a body for `POST /v1/all`.
fn body(text: &str) -> Result<serde_json::Value, Error> {
    bytes(text.as_bytes())
}

fn bytes(body: &[u8]) -> Result<serde_json::Value, Error> {
    read(binding("POST", "/v1/all"), &Input { body, ..Input::default() })
}

/// Reads a query for `GET /v1/all`.
fn query(text: &str) -> Result<serde_json::Value, Error> {
    read(binding("GET", "/v1/all"), &Input { query: text, ..Input::default() })
}

/// Each body is refused, and the field that is blamed is this one.
fn refused(cases: &[(&str, &str)]) {
    for (text, field) in cases {
        let error = body(text).expect_err(text);
        assert_eq!(error.row().0, 400, "{text}");
        assert_eq!(blamed(&error).0, *field, "{text}: {error}");
    }
}

#[test]
fn what_cannot_be_bound_is_left_out_and_the_rest_serves() {
    let compiled = compile(&POOL, |path| match path {
        "/echo.v1.EchoService/Between" => Access::Internal,
        _ => Access::Token,
    });
    let skipped: Vec<_> =
        compiled.skipped.iter().map(|(path, why)| format!("{path}: {why}")).collect();
    assert_eq!(
        skipped,
        [
            "/echo.v1.EchoService/All: echo.v1.Everything has no field nowhere",
            "/echo.v1.EchoService/All: texts cannot be part of a path",
            "/echo.v1.EchoService/Upload: its request is a stream",
        ]
    );
    assert!(!compiled.bindings.iter().any(|b| b.method.path.path().ends_with("Between")));
}
