//! From descriptors to bindings: reads `google.api.http` and finds the fields that protocol
//! words stand for.

use std::sync::Arc;

use http::uri::PathAndQuery;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
    Value,
};

use super::{Binding, Body, FieldPath, Mask, Method, NoField, field_path, is};
use crate::{
    route::template::{Malformed, Template},
    transcode::well_known::WellKnown,
};

/// Who may call an rpc without a token, and whether anybody outside may call it at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Anonymous,
    /// Who has a token.
    Token,
    /// Other services only: it has no route.
    Internal,
}

/// Why a binding is left out.
#[derive(Debug, thiserror::Error)]
pub enum Skipped {
    /// It takes a stream.
    #[error("its request is a stream")]
    Streams,
    /// Its body is no JSON.
    #[error("its request holds a google.api.HttpBody")]
    RawBody,
    /// Its path cannot be read.
    #[error(transparent)]
    Template(#[from] Malformed),
    /// A field that it names is not there.
    #[error(transparent)]
    Field(#[from] NoField),
    /// A field that it names cannot be part of a path.
    #[error("{0} cannot be part of a path")]
    Variable(String),
    /// It has neither method nor path.
    #[error("its rule has no pattern")]
    Pattern,
}

/// The bindings of every annotated method, and what was left out.
#[derive(Debug, Default)]
pub struct Compiled {
    /// In the order of the files.
    pub bindings: Vec<Binding>,
    /// The path of each method with the reason.
    pub skipped: Vec<(String, Skipped)>,
}

/// Reads the annotations of every method of `pool`; `access` is asked with
/// `/package.Service/Method`.
#[must_use]
pub fn compile(pool: &DescriptorPool, access: impl Fn(&str) -> Access) -> Compiled {
    let mut compiled = Compiled::default();
    let Some(annotation) = pool.get_extension_by_name("google.api.http") else {
        return compiled;
    };
    for service in pool.services() {
        for method in service.methods() {
            let options = method.options();
            if !options.has_extension(&annotation) {
                continue;
            }
            let rule = options.get_extension(&annotation);
            let path = format!("/{}/{}", service.full_name(), method.name());
            let access = access(&path);
            if let (Some(rule), true) = (rule.as_message(), access != Access::Internal) {
                read(&method, &path, access, rule, &mut compiled);
            }
        }
    }
    compiled
}

fn read(
    method: &MethodDescriptor,
    path: &str,
    access: Access,
    rule: &DynamicMessage,
    compiled: &mut Compiled,
) {
    let Ok(target) = PathAndQuery::try_from(path) else { return };
    if method.is_client_streaming() {
        compiled.skipped.push((path.to_owned(), Skipped::Streams));
        return;
    }
    let output = method.output();
    let named = output.get_field_by_name("name").is_some_and(|name| is_string(&name));
    let shared = Arc::new(Method {
        path: target,
        input: method.input(),
        creates: method.name().starts_with("Create") && named,
        output,
        streams: method.is_server_streaming(),
        anonymous: access == Access::Anonymous,
    });
    let mut rules = vec![rule.clone()];
    if let Some(Value::List(more)) = rule.get_field_by_name("additional_bindings").as_deref() {
        rules.extend(more.iter().filter_map(Value::as_message).cloned());
    }
    for rule in rules {
        match binding(&shared, &rule) {
            Ok(binding) => compiled.bindings.push(binding),
            Err(problem) => compiled.skipped.push((path.to_owned(), problem)),
        }
    }
}

fn binding(method: &Arc<Method>, rule: &DynamicMessage) -> Result<Binding, Skipped> {
    let (http, pattern) = pattern(rule).ok_or(Skipped::Pattern)?;
    let template = Template::parse(&pattern)?;
    let variables = template.variables.iter().map(|variable| variable_path(method, &variable.path));
    let variables = variables.collect::<Result<Vec<_>, _>>()?;
    let body = match text(rule, "body").as_str() {
        "" => Body::None,
        "*" => Body::All,
        name => Body::Field(one(&method.input, name)?),
    };
    let raw = match &body {
        Body::None => false,
        Body::All => is_http_body(&method.input),
        Body::Field(field) => field.kind().as_message().is_some_and(is_http_body),
    };
    if raw {
        return Err(Skipped::RawBody);
    }
    let response = match text(rule, "response_body").as_str() {
        "" => None,
        name => Some(one(&method.output, name)?),
    };
    let resource = resource(&body, &variables);
    let string = |name| method.input.get_field_by_name(name).filter(is_string);
    let etag = match string("etag") {
        Some(etag) => Some(vec![etag]),
        None if matches!(http.as_str(), "PATCH" | "PUT") => within(&resource, "etag"),
        None => None,
    };
    let request_id = string("request_id");
    // Where the path says from where to read, it is not for a header to say something else.
    let resume = string("resume_token")
        .filter(|field| method.streams && !variables.contains(&vec![field.clone()]));
    let mask = method
        .input
        .get_field_by_name("update_mask")
        .filter(|field| http == "PATCH" && is(field, WellKnown::FieldMask))
        .map(|field| Mask { field, resource });
    let method = Arc::clone(method);
    Ok(Binding {
        method,
        http,
        template,
        variables,
        body,
        response,
        etag,
        request_id,
        resume,
        mask,
    })
}

/// The method and the path of a rule.
fn pattern(rule: &DynamicMessage) -> Option<(String, String)> {
    for kind in ["get", "put", "post", "delete", "patch"] {
        if rule.has_field_by_name(kind) {
            return Some((kind.to_ascii_uppercase(), text(rule, kind)));
        }
    }
    let custom = rule.get_field_by_name("custom")?;
    let custom = custom.as_message()?;
    let kind = text(custom, "kind");
    (!kind.is_empty()).then(|| (kind, text(custom, "path")))
}

/// The field of a variable: one scalar, or a message that has the form of one.
fn variable_path(method: &Method, names: &[String]) -> Result<FieldPath, Skipped> {
    use WellKnown::{Duration, FieldMask, Timestamp, Wrapper};
    let path = field_path(&method.input, names)?;
    let scalar = path.last().is_some_and(|field| {
        let form = field.kind().as_message().map(WellKnown::of);
        let text = form
            .is_none_or(|form| matches!(form, Some(Timestamp | Duration | FieldMask | Wrapper)));
        text && !field.is_list() && !field.is_map()
    });
    if scalar { Ok(path) } else { Err(Skipped::Variable(names.join("."))) }
}

/// The message that a call is about: the body's field, or the one that a variable lies in.
fn resource(body: &Body, variables: &[FieldPath]) -> FieldPath {
    match body {
        Body::Field(field) => vec![field.clone()],
        Body::None | Body::All => variables
            .iter()
            .find(|path| path.len() > 1)
            .map(|path| vec![path[0].clone()])
            .unwrap_or_default(),
    }
}

fn within(resource: &[FieldDescriptor], name: &str) -> Option<FieldPath> {
    let Kind::Message(message) = resource.last()?.kind() else { return None };
    let field = message.get_field_by_name(name).filter(is_string)?;
    Some(resource.iter().cloned().chain([field]).collect())
}

fn one(message: &MessageDescriptor, name: &str) -> Result<FieldDescriptor, NoField> {
    let mut path = field_path(message, &[name.to_owned()])?;
    path.pop().ok_or_else(|| NoField { message: String::new(), name: name.to_owned() })
}

fn is_string(field: &FieldDescriptor) -> bool {
    field.kind() == Kind::String && !field.is_list()
}

/// Whether a message is raw bytes with a type.
#[must_use]
pub fn is_http_body(message: &MessageDescriptor) -> bool {
    message.full_name() == "google.api.HttpBody"
}

fn text(message: &DynamicMessage, name: &str) -> String {
    let value = message.get_field_by_name(name);
    value.and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
