//! The two shapes of an error: `google.rpc.Status`, and `application/problem+json` (RFC 9457).

use std::sync::LazyLock;

use http::StatusCode;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use prost_types::Any;
use serde_json::{Value, json};
use tonic::Code;
use tonic_types::pb;

use super::negotiate::Shape;
use crate::{
    error::{Failure, seconds},
    transcode::Writer,
};

/// The types of `google.rpc`: an error keeps its details although a contract does not import
/// them.
static GOOGLE_RPC: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(pb::FILE_DESCRIPTOR_SET).unwrap_or_default());

/// What an error is about, beside itself.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The path of the request.
    pub path: &'a str,
    /// The field of the request that is the body, if it is one.
    pub body: Option<&'a str>,
    /// The trace of the request.
    pub trace_id: &'a str,
}

/// An error as a body, with its type.
#[must_use]
pub fn body(
    failure: &Failure,
    shape: Shape,
    pool: &DescriptorPool,
    about: About<'_>,
) -> (&'static str, Vec<u8>) {
    let (content_type, json) = match shape {
        Shape::Status => ("application/json", status(failure, pool)),
        Shape::Problem => ("application/problem+json", problem(failure, pool, about).to_string()),
    };
    (content_type, json.into_bytes())
}

/// The HTTP status of a canonical code (section 6 of the gateway's design).
#[must_use]
pub fn http_status(code: Code) -> StatusCode {
    let status = match code {
        Code::Ok => 200,
        Code::Cancelled => 499,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::DeadlineExceeded => 504,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::PermissionDenied => 403,
        Code::ResourceExhausted => 429,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::Unauthenticated => 401,
        Code::Unknown | Code::Internal | Code::DataLoss => 500,
    };
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// In the order of the fields of `google.rpc.Status`.
fn status(failure: &Failure, pool: &DescriptorPool) -> String {
    let mut status = format!("{{\"code\":{}", i32::from(failure.code));
    if !failure.message.is_empty() {
        status.push_str(&format!(",\"message\":{}", json!(failure.message)));
    }
    if !failure.details.is_empty() {
        let details: Value = failure.details.iter().map(|detail| written(detail, pool)).collect();
        status.push_str(&format!(",\"details\":{details}"));
    }
    status.push('}');
    status
}

fn problem(failure: &Failure, pool: &DescriptorPool, about: About<'_>) -> Value {
    let phrase = failure.http.canonical_reason().unwrap_or("Client Closed Request");
    let mut problem = json!({
        "type": "about:blank",
        "title": phrase,
        "status": failure.http.as_u16(),
        "detail": failure.message,
        "instance": about.path,
        "code": mesh::telemetry::code(failure.code),
        "trace_id": about.trace_id,
    });
    let mut rest = Vec::new();
    for detail in &failure.details {
        let name = detail.type_url.rsplit('/').next().unwrap_or_default();
        let value = detail.value.as_slice();
        let told = match name {
            "google.rpc.ErrorInfo" => pb::ErrorInfo::decode(value).map(|info| {
                problem["type"] = json!(format!("/docs/problems/{}/{}", info.domain, info.reason));
                problem["title"] = json!(title(&info.reason));
                problem["reason"] = json!(info.reason);
                problem["domain"] = json!(info.domain);
                if !info.metadata.is_empty() {
                    problem["metadata"] = json!(info.metadata);
                }
            }),
            "google.rpc.BadRequest" => pb::BadRequest::decode(value).map(|bad| {
                problem["errors"] = bad
                    .field_violations
                    .iter()
                    .map(|v| json!({"pointer": pointer(&v.field, about.body), "detail": v.description}))
                    .collect();
            }),
            "google.rpc.RetryInfo" => pb::RetryInfo::decode(value).map(|info| {
                let delay = info.retry_delay.and_then(|delay| delay.try_into().ok());
                problem["retry_after"] = json!(seconds(delay.unwrap_or_default()));
            }),
            _ => {
                rest.push(written(detail, pool));
                Ok(())
            }
        };
        if told.is_err() {
            rest.push(written(detail, pool));
        }
    }
    if !rest.is_empty() {
        problem["details"] = Value::Array(rest);
    }
    problem
}

/// A detail as JSON. One that cannot be read leaves as base64 and never costs the status (S35).
fn written(detail: &Any, pool: &DescriptorPool) -> Value {
    let json = GOOGLE_RPC.get_message_by_name("google.protobuf.Any").and_then(|any| {
        let any = DynamicMessage::decode(any, detail.encode_to_vec().as_slice()).ok()?;
        let mut writer = Writer::new(pool).or(&GOOGLE_RPC);
        writer.write(&any).ok()?;
        serde_json::from_str(&writer.finish()).ok()
    });
    json.unwrap_or_else(|| {
        let mut bytes = String::new();
        crate::transcode::base64::encode(&detail.value, &mut bytes);
        json!({"@type": detail.type_url, "value": bytes})
    })
}

/// `OUT_OF_STOCK` as a title: `Out of stock`.
fn title(reason: &str) -> String {
    let words = reason.replace('_', " ").to_lowercase();
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// A field's path as a JSON pointer into the body: `note.lines[0].text` is `#/lines/0/text`.
fn pointer(field: &str, body: Option<&str>) -> String {
    let inside = body.and_then(|body| field.strip_prefix(body));
    let field =
        inside.filter(|rest| rest.starts_with(['.', '[']) || rest.is_empty()).unwrap_or(field);
    let steps = field.split(['.', '[', ']']).filter(|step| !step.is_empty());
    let steps = steps.map(|step| {
        let name = json_name(step).replace('~', "~0").replace('/', "~1");
        format!("/{name}")
    });
    format!("#{}", steps.collect::<String>())
}

/// A proto name as JSON spells it.
fn json_name(name: &str) -> String {
    let mut json = String::with_capacity(name.len());
    let mut raise = false;
    for c in name.chars() {
        if c == '_' {
            raise = true;
        } else if std::mem::take(&mut raise) {
            json.extend(c.to_uppercase());
        } else {
            json.push(c);
        }
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn about() -> About<'static> {
        About { path: "/v1/notes", body: Some("note"), trace_id: "4bf9" }
    }

    fn json(failure: &Failure, shape: Shape) -> Value {
        let (_, bytes) = body(failure, shape, &DescriptorPool::new(), about());
        serde_json::from_slice(&bytes).expect("JSON")
    }

    #[test]
    fn s41_every_code_has_its_status() {
        for (code, status) in [
            (0, 200),
            (1, 499),
            (2, 500),
            (3, 400),
            (4, 504),
            (5, 404),
            (6, 409),
            (7, 403),
            (8, 429),
            (9, 400),
            (10, 409),
            (11, 400),
            (12, 501),
            (13, 500),
            (14, 503),
            (15, 500),
            (16, 401),
        ] {
            assert_eq!(http_status(Code::from_i32(code)).as_u16(), status, "{code}");
        }
    }

    #[test]
    fn an_error_of_ours_names_its_reason_and_its_field_in_both_shapes() {
        let failure =
            Failure::from(Error::field("note.note_lines[0].quantity", "must be a number"));
        assert_eq!(
            json(&failure, Shape::Status),
            json!({
                "code": 3,
                "message": "note.note_lines[0].quantity: must be a number",
                "details": [
                    {
                        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                        "reason": "FIELD_VIOLATION",
                        "domain": "ordermesh.gateway.v1",
                    },
                    {
                        "@type": "type.googleapis.com/google.rpc.BadRequest",
                        "fieldViolations": [{
                            "field": "note.note_lines[0].quantity",
                            "description": "must be a number",
                        }],
                    },
                ],
            })
        );
        assert_eq!(
            json(&failure, Shape::Problem),
            json!({
                "type": "/docs/problems/ordermesh.gateway.v1/FIELD_VIOLATION",
                "title": "Field violation",
                "status": 400,
                "detail": "note.note_lines[0].quantity: must be a number",
                "instance": "/v1/notes",
                "code": "INVALID_ARGUMENT",
                "reason": "FIELD_VIOLATION",
                "domain": "ordermesh.gateway.v1",
                "trace_id": "4bf9",
                "errors": [{"pointer": "#/noteLines/0/quantity", "detail": "must be a number"}],
            })
        );
    }

    #[test]
    fn s35_a_detail_of_an_unknown_type_never_costs_the_status() {
        let mut failure = Failure::from(Error::RouteNotFound);
        failure.details = vec![
            Any { type_url: "x/no.Such".to_owned(), value: vec![1, 2] },
            Any { type_url: "x/google.rpc.ErrorInfo".to_owned(), value: vec![0xff] },
        ];
        let details = json!([
            {"@type": "x/no.Such", "value": "AQI="},
            {"@type": "x/google.rpc.ErrorInfo", "value": "/w=="},
        ]);
        assert_eq!(json(&failure, Shape::Status)["details"], details);
        let problem = json(&failure, Shape::Problem);
        assert_eq!((&problem["details"], &problem["type"]), (&details, &json!("about:blank")));
    }
}
