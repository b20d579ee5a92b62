//! Bad input at every public field, made from the contract: a field that is added is tested.

use http::Method;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MethodDescriptor, Value as Field,
};
use serde_json::{Value, json};

use crate::bed::{Bed, Reply};

/// How deep into messages the fields are visited.
const DEPTH: usize = 4;

/// How long a stream may take.
const SOON: [(&str, &str); 1] = [("grpc-timeout", "5S")];

/// A public method as HTTP reaches it.
struct Route {
    method: MethodDescriptor,
    verb: Method,
    /// With a name that does not exist in place of each variable.
    path: String,
    /// The fields that the path binds.
    bound: Vec<String>,
    body: String,
}

#[expect(clippy::print_stderr, reason = "how much was tried is part of the claim")]
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_type_in_any_public_field_is_400_and_names_the_field() {
    let bed = Bed::start().await;
    let mut tried = 0;
    for route in routes() {
        for path in fields(&route) {
            let leaf = path.last().expect("a path has fields");
            let Some(wrong) = wrong_type(leaf) else { continue };
            let reply = route.send(&bed, &path, &wrong).await;
            let what = format!("{} {} = {wrong}", route.method.full_name(), dotted(&path));
            assert_eq!(reply.status, 400, "{what}: {}", reply.body);
            let named = reply.fields().iter().any(|field| field.ends_with(&last_name(&path)));
            assert!(named, "{what} is not named: {}", reply.body);
            tried += 1;
        }
    }
    eprintln!("{tried} fields with a wrong type");
    assert!(tried > 60, "only {tried} fields were found");
    bed.end().await;
}

#[expect(clippy::print_stderr, reason = "how much was tried is part of the claim")]
#[tokio::test(flavor = "multi_thread")]
async fn an_extreme_value_in_any_public_field_breaks_nothing() {
    let bed = Bed::start().await;
    let long = "x".repeat(100_000);
    let mut tried = 0;
    for route in routes() {
        for path in fields(&route) {
            let leaf = path.last().expect("a path has fields");
            for value in extremes(leaf, &long) {
                let reply = route.send(&bed, &path, &value).await;
                let status = reply.status.as_u16();
                let shown = value.to_string().chars().take(40).collect::<String>();
                let what = format!("{} {} = {shown}", route.method.full_name(), dotted(&path));
                assert!(status < 500, "{what}: {status} {}", reply.body);
                tried += 1;
            }
        }
    }
    eprintln!("{tried} extreme values");
    let alive = bed.get("/v1/products", None).await;
    assert_eq!(alive.status, 200);
    bed.end().await;
}

// === impl Route ===

impl Route {
    async fn send(&self, bed: &Bed, path: &[FieldDescriptor], value: &Value) -> Reply {
        let names: Vec<&str> = path.iter().map(FieldDescriptor::json_name).collect();
        let in_body = match self.body.as_str() {
            "" => false,
            "*" => true,
            field => path[0].name() == field,
        };
        let mut uri = self.path.clone();
        let mut body = if self.body.is_empty() { None } else { Some(json!({})) };
        if in_body {
            let inside = if self.body == "*" { path } else { &path[1..] };
            body = Some(inside.iter().rev().fold(value.clone(), |inner, field| {
                let inner = if field.is_list() && field.cardinality_is_walked(path) {
                    json!([inner])
                } else {
                    inner
                };
                json!({field.json_name(): inner})
            }));
        } else {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let text = text.chars().take(4_000).collect::<String>();
            uri = format!("{uri}?{}={}", names.join("."), percent(&text));
        }
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        // What is watched does not exist, and a stream that begins all the same ends soon.
        let soon = if self.method.is_server_streaming() { &SOON[..] } else { &[] };
        bed.send(self.verb.clone(), &uri, Some(&bed.admin), soon, body.into()).await
    }
}

/// Whether a list is passed through on the way to a field below it.
trait Walked {
    fn cardinality_is_walked(&self, path: &[FieldDescriptor]) -> bool;
}

impl Walked for FieldDescriptor {
    fn cardinality_is_walked(&self, path: &[FieldDescriptor]) -> bool {
        path.last() != Some(self)
    }
}

/// Every public method with its first HTTP rule.
fn routes() -> Vec<Route> {
    let pool = DescriptorPool::decode(proto::DESCRIPTORS).expect("descriptors");
    let http = pool.get_extension_by_name("google.api.http").expect("annotations");
    let mut routes = Vec::new();
    for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
        let options = method.options();
        if !options.has_extension(&http) {
            continue;
        }
        let rule = options.get_extension(&http);
        let rule = rule.as_message().expect("a rule");
        let text = |name: &str| {
            rule.get_field_by_name(name)
                .and_then(|value| value.as_str().map(str::to_owned))
                .unwrap_or_default()
        };
        let (verb, template) = [
            (Method::GET, "get"),
            (Method::POST, "post"),
            (Method::PUT, "put"),
            (Method::PATCH, "patch"),
            (Method::DELETE, "delete"),
        ]
        .into_iter()
        .find(|(_, name)| rule.has_field_by_name(name))
        .map(|(verb, name)| (verb, text(name)))
        .expect("a pattern");
        let (path, bound) = filled(&template);
        routes.push(Route { verb, path, bound, body: text("body"), method });
    }
    assert!(routes.len() > 20, "only {} routes", routes.len());
    routes
}

/// A path with a name in place of each variable, and the fields of those.
fn filled(template: &str) -> (String, Vec<String>) {
    let (mut path, mut bound) = (String::new(), Vec::new());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (variable, behind) = after.split_once('}').expect("a closed variable");
        let (field, pattern) = variable.split_once('=').unwrap_or((variable, "*"));
        path.push_str(before);
        path.push_str(&pattern.replace('*', "01920000-0000-7000-8000-000000000000"));
        bound.push(field.to_owned());
        rest = behind;
    }
    path.push_str(rest);
    (path, bound)
}

/// The fields that a client sets, each as the way to it.
fn fields(route: &Route) -> Vec<Vec<FieldDescriptor>> {
    let mut found = Vec::new();
    let mut open: Vec<Vec<FieldDescriptor>> =
        route.method.input().fields().map(|field| vec![field]).collect();
    while let Some(path) = open.pop() {
        let leaf = path.last().expect("a path has fields").clone();
        let dotted = path.iter().map(|field| field.name()).collect::<Vec<_>>().join(".");
        if is_output_only(&leaf) || route.bound.contains(&dotted) {
            continue;
        }
        let in_query = route.body != "*" && route.body != path[0].name();
        if let Kind::Message(message) = leaf.kind()
            && !leaf.is_map()
            && !message.full_name().starts_with("google.protobuf.")
            && path.len() < DEPTH
            && !(in_query && leaf.is_list())
        {
            for field in message.fields() {
                open.push(path.iter().cloned().chain([field]).collect());
            }
        }
        // A message has no text in a query.
        let is_message = matches!(leaf.kind(), Kind::Message(ref message) if !message.full_name().starts_with("google.protobuf."));
        if !(in_query && (is_message || leaf.is_map())) {
            found.push(path);
        }
    }
    found
}

fn is_output_only(field: &FieldDescriptor) -> bool {
    // The numbers of `google.api.FieldBehavior`.
    const OUTPUT_ONLY: i32 = 3;
    const IDENTIFIER: i32 = 8;
    let options: DynamicMessage = field.options();
    let Some(behavior) = field.parent_pool().get_extension_by_name("google.api.field_behavior")
    else {
        return false;
    };
    let behaviors = options.get_extension(&behavior);
    let Field::List(values) = behaviors.as_ref() else { return false };
    values.iter().any(|value| matches!(value, Field::EnumNumber(OUTPUT_ONLY | IDENTIFIER)))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is a number")]
fn wrong_type(field: &FieldDescriptor) -> Option<Value> {
    if field.is_map() {
        return Some(json!("text"));
    }
    Some(match field.kind() {
        Kind::Bool => json!("perhaps"),
        Kind::Enum(_) => json!("NO_SUCH_VALUE"),
        // In a query everything is text: there is no wrong type for a text.
        Kind::String | Kind::Bytes => return None,
        Kind::Message(_) => json!("neither object nor time"),
        _ => json!("many"),
    })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "every other kind is a number")]
fn extremes(field: &FieldDescriptor, long: &str) -> Vec<Value> {
    if field.is_map() {
        return vec![json!({}), json!(null)];
    }
    match field.kind() {
        Kind::String => {
            [long, "", "\u{0}", "../../etc/passwd", "'; DROP TABLE orders; --", "\u{202e}ü😀"]
                .into_iter()
                .map(|text| json!(text))
                .collect()
        }
        Kind::Bytes => vec![json!(""), json!("!!!!")],
        Kind::Bool => vec![json!(true), json!(null)],
        Kind::Enum(_) => vec![json!(0), json!(-1), json!(i32::MAX)],
        Kind::Message(_) => vec![json!({}), json!(null), json!([]), json!(0)],
        Kind::Double | Kind::Float => vec![json!(-1), json!(1e308), json!("NaN")],
        _ => vec![
            json!(-1),
            json!(0),
            json!(i32::MIN),
            json!(i32::MAX),
            json!(i64::MIN),
            json!(u64::MAX),
        ],
    }
}

fn dotted(path: &[FieldDescriptor]) -> String {
    path.iter().map(FieldDescriptor::name).collect::<Vec<_>>().join(".")
}

fn last_name(path: &[FieldDescriptor]) -> String {
    path.last().map(|field| field.name().to_owned()).unwrap_or_default()
}

fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
