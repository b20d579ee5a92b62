//! A request's path, query, body and headers become one message on the wire.

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, Value};

use super::{
    bind::{self, Source},
    build::Builder,
    mask,
    path::{Path, Step},
    query,
    scan::{self, Json, Node},
};
use crate::{
    error::Error,
    schema::{Binding, Body, FieldPath, dotted, value_at},
};

/// Before every message on the wire: whether it is compressed, and its length.
pub const PREFIX: usize = 5;

/// What a request says, taken apart but not decoded.
#[derive(Clone, Debug, Default)]
pub struct Input<'a> {
    /// The raw value of each variable of the binding's template.
    pub variables: Vec<&'a str>,
    /// What follows the `?`.
    pub query: &'a str,
    /// The body.
    pub body: &'a [u8],
    /// `If-Match`.
    pub etag: Option<&'a str>,
    /// `Idempotency-Key`, as it came and as the id that stands for it.
    pub request_id: Option<(&'a str, String)>,
    /// `Last-Event-ID`.
    pub resume: Option<&'a str>,
    /// Query parameters that are nobody's.
    pub ignored: &'a [String],
}

/// Makes the one gRPC frame of a unary request.
///
/// # Errors
/// What is wrong with the request, by field.
pub fn json_to_wire(binding: &Binding, input: &Input<'_>) -> Result<Bytes, Error> {
    let tree = scan::parse(input.body)?;
    let mut message = body(binding, tree.as_ref())?;
    for ((path, variable), raw) in
        binding.variables.iter().zip(&binding.template.variables).zip(&input.variables)
    {
        let value = bind::variable(path, raw, variable.multi)?;
        let said = tree.as_ref().is_some_and(|tree| says(binding, tree, path));
        merge(&mut message, path, value, said, "the path")?;
    }
    query::apply(&mut message, binding, input.query, input.ignored)?;
    if let (Some(path), Some(etag)) = (&binding.etag, input.etag) {
        let said = value_at(&message, path).is_some();
        merge(&mut message, path, Value::String(etag.to_owned()), said, "If-Match")?;
    }
    if let (Some(field), Some((key, id))) = (&binding.request_id, &input.request_id) {
        request_id(&mut message, field, key, id)?;
    }
    // A client that reconnects does so with the address that it had, and with a later event: so
    // this header rules over what the query says.
    if let (Some(field), Some(token)) = (&binding.resume, input.resume) {
        message.set_field(field, Value::String(token.to_owned()));
    }
    if let (Some(fill), Some(tree)) = (&binding.mask, &tree) {
        mask::fill(&mut message, binding, fill, tree)?;
    }
    Ok(frame(&message))
}

/// A message with its prefix.
#[must_use]
pub fn frame(message: &DynamicMessage) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(PREFIX + length);
    frame.put_u8(0);
    // A body is bounded far below 4 GiB.
    frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    frame.put(message.encode_to_vec().as_slice());
    frame.freeze()
}

fn body(binding: &Binding, tree: Option<&Node<'_>>) -> Result<DynamicMessage, Error> {
    let input = &binding.method.input;
    let empty = DynamicMessage::new(input.clone());
    let Some(tree) = tree else { return Ok(empty) };
    match &binding.body {
        Body::None => Err(Error::conflict("body", "this call takes no body")),
        Body::All => Builder::default().message(input, tree),
        Body::Field(field) => {
            let mut message = empty;
            let mut path = Path::default();
            path.push(Step::Key(field.name().to_owned()));
            if let Some(value) = Builder::at(path).field(field, tree)? {
                message.set_field(field, value);
            }
            Ok(message)
        }
    }
}

/// Whether the body has a value of its own for a field of the request.
fn says(binding: &Binding, tree: &Node<'_>, path: &[FieldDescriptor]) -> bool {
    let path = match &binding.body {
        Body::None => return false,
        Body::All => path,
        Body::Field(field) => match path.split_first() {
            Some((first, rest)) if first == field => rest,
            Some(_) | None => return false,
        },
    };
    let mut at = tree;
    for field in path {
        let Json::Object(members) = &at.json else { return false };
        let member = members.iter().find(|m| m.key == field.json_name() || m.key == field.name());
        let Some(member) = member else { return false };
        at = &member.node;
    }
    at.json != Json::Null
}

/// Sets a field that may have been said elsewhere too: the same is fine, another is not (S16).
pub(super) fn merge(
    message: &mut DynamicMessage,
    path: &FieldPath,
    value: Value,
    said: bool,
    from: &str,
) -> Result<(), Error> {
    if said {
        let other = value_at(message, path);
        let same = other.as_ref() == Some(&value)
            || (other.is_none() && path.last().is_some_and(|f| value.is_default(&f.kind())));
        if !same {
            let problem = format!("is given twice, and {from} says something else");
            return Err(Error::conflict(dotted(path), problem));
        }
    }
    bind::set(message, path, value, Source::Once)
}

/// S52: the field, the header, or both if they agree.
fn request_id(
    message: &mut DynamicMessage,
    field: &FieldDescriptor,
    key: &str,
    id: &str,
) -> Result<(), Error> {
    let said = message.get_field(field).as_str().map(str::to_owned).unwrap_or_default();
    if said.is_empty() {
        message.set_field(field, Value::String(id.to_owned()));
        Ok(())
    } else if said == key || said.eq_ignore_ascii_case(id) {
        Ok(())
    } else {
        Err(Error::conflict(
            field.name(),
            "is given twice, and Idempotency-Key says something else",
        ))
    }
}
