//! What a PATCH changes (S51): an unset field mask is filled from the fields that the body
//! has.

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

use super::{
    bind::{self, Source},
    scan::{Json, Member, Node},
    well_known::{self, WellKnown},
};
use crate::{
    error::Error,
    schema::{Binding, Body, FieldPath, Mask, field_named},
};

/// Fills the mask from the body, unless the request has one.
pub(super) fn fill(
    message: &mut DynamicMessage,
    binding: &Binding,
    mask: &Mask,
    tree: &Node<'_>,
) -> Result<(), Error> {
    if message.has_field(&mask.field) {
        return Ok(());
    }
    let Kind::Message(form) = mask.field.kind() else { return Ok(()) };
    let Some((resource, node)) = resource(binding, mask, tree) else { return Ok(()) };
    let mut collector = Collector { binding, mask, paths: Vec::new() };
    let mut at = mask.resource.clone();
    collector.collect(&resource, node, &mut at);
    let paths: Vec<_> = collector.paths.into_iter().map(Value::String).collect();
    if paths.is_empty() {
        return Ok(());
    }
    let mut filled = DynamicMessage::new(form);
    well_known::set(&mut filled, "paths", Value::List(paths))
        .map_err(|problem| Error::field(mask.field.name(), problem))?;
    bind::set(message, std::slice::from_ref(&mask.field), Value::Message(filled), Source::Once)
}

/// The resource's message with the part of the body that is it.
fn resource<'a, 'b>(
    binding: &Binding,
    mask: &Mask,
    tree: &'a Node<'b>,
) -> Option<(MessageDescriptor, &'a Node<'b>)> {
    let Some(field) = mask.resource.last() else {
        return Some((binding.method.input.clone(), tree));
    };
    let message = field.kind().as_message()?.clone();
    if matches!(binding.body, Body::Field(_)) {
        return Some((message, tree));
    }
    let Json::Object(members) = &tree.json else { return None };
    let member = members.iter().find(|member| is(member, field))?;
    Some((message, &member.node))
}

struct Collector<'a> {
    binding: &'a Binding,
    mask: &'a Mask,
    paths: Vec<String>,
}

// === impl Collector ===

impl Collector<'_> {
    /// Adds what `node` has of `message`, which stands at `at`.
    fn collect(&mut self, message: &MessageDescriptor, node: &Node<'_>, at: &mut FieldPath) {
        let Json::Object(members) = &node.json else { return };
        for member in members {
            let Some(field) = field_named(message, &member.key) else { continue };
            at.push(field.clone());
            if !self.is_no_change(at, &field) {
                match inner(&field, &member.node) {
                    Some(inner) => self.collect(&inner, &member.node, at),
                    None => {
                        self.paths.push(crate::schema::dotted(&at[self.mask.resource.len()..]));
                    }
                }
            }
            at.pop();
        }
    }

    /// Whether a field says which resource is meant or is not the caller's to write.
    fn is_no_change(&self, at: &FieldPath, field: &FieldDescriptor) -> bool {
        *field == self.mask.field
            || self.binding.variables.contains(at)
            || self.binding.etag.as_ref() == Some(at)
            || (at.len() == 1 && self.binding.request_id.as_ref() == Some(field))
            || is_output(field)
    }
}

/// The message to go on in: lists, maps and messages with a form of their own are one change,
/// and so is a message that the body has without a field.
fn inner(field: &FieldDescriptor, node: &Node<'_>) -> Option<MessageDescriptor> {
    let Kind::Message(message) = field.kind() else { return None };
    let open = !field.is_list() && !field.is_map() && WellKnown::of(&message).is_none();
    let full = matches!(&node.json, Json::Object(members) if !members.is_empty());
    (open && full).then_some(message)
}

fn is(member: &Member<'_>, field: &FieldDescriptor) -> bool {
    member.key == field.json_name() || member.key == field.name()
}

/// Whether `google.api.field_behavior` says that the service alone writes the field.
fn is_output(field: &FieldDescriptor) -> bool {
    const OUTPUT_ONLY: i32 = 3;
    const IDENTIFIER: i32 = 8;
    let pool = field.parent_pool();
    let Some(behavior) = pool.get_extension_by_name("google.api.field_behavior") else {
        return false;
    };
    let options = field.options();
    let values = options.get_extension(&behavior);
    values.as_list().is_some_and(|values| {
        let numbers = values.iter().filter_map(Value::as_enum_number);
        numbers.into_iter().any(|number| number == OUTPUT_ONLY || number == IDENTIFIER)
    })
}
