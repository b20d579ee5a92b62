//! What a call is made of, worked out once when the descriptors are loaded.

use http::uri::PathAndQuery;
use prost_reflect::{DynamicMessage, FieldDescriptor, MessageDescriptor, Value};
use std::sync::Arc;

use crate::{route::template::Template, transcode::well_known::WellKnown};

pub mod compile;

/// The fields on the way from a message to a value: all but the last are singular messages.
pub type FieldPath = Vec<FieldDescriptor>;

/// An rpc that can be called by HTTP.
#[derive(Debug)]
pub struct Method {
    /// `/package.Service/Method`.
    pub path: PathAndQuery,
    /// What it takes.
    pub input: MessageDescriptor,
    /// What it answers.
    pub output: MessageDescriptor,
    /// Whether a caller without a token may call it.
    pub anonymous: bool,
    /// Whether it makes a resource (AIP-133): then 201 and `Location`.
    pub creates: bool,
    /// Whether it answers with a stream.
    pub streams: bool,
}

/// One method and path of an rpc, and where its fields come from.
#[derive(Debug)]
pub struct Binding {
    /// The rpc.
    pub method: Arc<Method>,
    /// The HTTP method, or `*`.
    pub http: String,
    /// The path.
    pub template: Template,
    /// The field of each of the template's variables.
    pub variables: Vec<FieldPath>,
    /// What the body is.
    pub body: Body,
    /// The field that is the reply's body; `None` is the whole reply.
    pub response: Option<FieldDescriptor>,
    /// The string that takes `If-Match` (AIP-154).
    pub etag: Option<FieldPath>,
    /// The string that takes `Idempotency-Key` (AIP-155).
    pub request_id: Option<FieldDescriptor>,
    /// The string that takes `Last-Event-ID`: where a stream goes on.
    pub resume: Option<FieldDescriptor>,
    /// What is filled for a PATCH (AIP-134).
    pub mask: Option<Mask>,
}

/// What the body of a request is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    None,
    /// The request, less what the path holds.
    All,
    /// One field of the request.
    Field(FieldDescriptor),
}

/// The mask of a partial update.
#[derive(Clone, Debug)]
pub struct Mask {
    /// The `google.protobuf.FieldMask`.
    pub field: FieldDescriptor,
    /// The resource whose fields it names.
    pub resource: FieldPath,
}

/// A path that leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} has no field {name}")]
pub struct NoField {
    message: String,
    name: String,
}

/// Finds a field by a path of proto names.
///
/// # Errors
/// [`NoField`], also if the path would pass through something that is no singular message.
pub fn field_path(message: &MessageDescriptor, path: &[String]) -> Result<FieldPath, NoField> {
    let mut found = FieldPath::new();
    let mut at = Some(message.clone());
    for name in path {
        let missing = || NoField {
            message: at.as_ref().map_or("a scalar", MessageDescriptor::full_name).to_owned(),
            name: name.clone(),
        };
        let field = at.as_ref().and_then(|at| at.get_field_by_name(name)).ok_or_else(missing)?;
        let next =
            field.kind().as_message().filter(|_| !field.is_list() && !field.is_map()).cloned();
        found.push(field);
        at = next;
    }
    Ok(found)
}

/// Finds a field by its JSON or its proto name (S19).
#[must_use]
pub fn field_named(message: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    message.get_field_by_json_name(name).or_else(|| message.get_field_by_name(name))
}

/// The proto names of a path.
#[must_use]
pub fn dotted(path: &[FieldDescriptor]) -> String {
    path.iter().map(FieldDescriptor::name).collect::<Vec<_>>().join(".")
}

/// The field at the end of `path`, if every message on the way is there.
#[must_use]
pub fn value_at(message: &DynamicMessage, path: &[FieldDescriptor]) -> Option<Value> {
    let (field, rest) = path.split_first()?;
    if rest.is_empty() {
        return message.has_field(field).then(|| message.get_field(field).into_owned());
    }
    let inner = message.has_field(field).then(|| message.get_field(field))?;
    value_at(inner.as_message()?, rest)
}

/// Whether a field holds one message of this form.
#[must_use]
pub fn is(field: &FieldDescriptor, form: WellKnown) -> bool {
    !field.is_list()
        && field.kind().as_message().is_some_and(|message| WellKnown::of(message) == Some(form))
}
