//! `Any` in JSON (S35): the fields of what it holds, beside an `@type` that stands anywhere.

use prost::Message as _;
use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, Value};

use super::Builder;
use crate::{
    error::Error,
    transcode::{
        path::{Step, brief},
        scan::{Json, Member, Node},
        well_known::{self, WellKnown},
    },
};

const TYPE: &str = "@type";
const VALUE: &str = "value";

impl Builder {
    pub(super) fn any(
        &mut self,
        message: &MessageDescriptor,
        node: &Node<'_>,
    ) -> Result<DynamicMessage, Error> {
        let Json::Object(members) = &node.json else {
            return Err(self.wrong("must be an object with an @type"));
        };
        let mut any = DynamicMessage::new(message.clone());
        if members.is_empty() {
            return Ok(any);
        }
        let url = members.iter().find(|member| member.key == TYPE).map(|member| &member.node.json);
        let Some(Json::String(url)) = url else {
            return Err(self.wrong("must have an @type, which is a string"));
        };
        let name = url.rsplit_once('/').map(|(_, name)| name);
        let held = name.and_then(|name| message.parent_pool().get_message_by_name(name));
        let Some(held) = held else {
            self.path.push(Step::Key(TYPE.to_owned()));
            return Err(self.wrong(&format!("{} is not known here", brief(url))));
        };
        let rest = || members.iter().filter(|member| member.key != TYPE);
        // What it holds is read by itself, from bytes: its depth is counted anew.
        let depth = std::mem::take(&mut self.depth);
        let inner = if is_written_as_value(&held) {
            self.under_value(&held, rest())?
        } else {
            self.members(&held, rest())?
        };
        self.depth = depth;
        let set =
            well_known::set(&mut any, "type_url", Value::String(url.to_string())).and_then(|()| {
                well_known::set(&mut any, VALUE, Value::Bytes(inner.encode_to_vec().into()))
            });
        self.checked(set)?;
        Ok(any)
    }

    fn under_value<'a, 'b: 'a>(
        &mut self,
        held: &MessageDescriptor,
        members: impl Iterator<Item = &'a Member<'b>>,
    ) -> Result<DynamicMessage, Error> {
        let mut value = None;
        for member in members {
            self.path.push(Step::Key(member.key.to_string()));
            if member.key != VALUE {
                return Err(self.wrong(&format!("{} is written as @type and value", held.name())));
            }
            value = self.present(&Kind::Message(held.clone()), &member.node)?.as_message().cloned();
            self.path.pop();
        }
        // `Empty` has no fields, so that nothing is missing if it has no value either.
        match value {
            Some(value) => Ok(value),
            None if held.fields().len() == 0 => Ok(DynamicMessage::new(held.clone())),
            None => Err(self.wrong("must have a value")),
        }
    }
}

/// Whether JSON writes the message in an `Any` under `value`, not field by field.
#[must_use]
pub fn is_written_as_value(held: &MessageDescriptor) -> bool {
    WellKnown::of(held).is_some() || held.full_name() == "google.protobuf.Empty"
}
