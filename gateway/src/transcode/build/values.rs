//! `Struct`, `Value` and `ListValue`: JSON as it is.

use std::collections::HashMap;

use prost_reflect::{DynamicMessage, Kind, MapKey, MessageDescriptor, Value};

use super::Builder;
use crate::{
    error::Error,
    transcode::{
        number,
        path::Step,
        scan::{Json, Node},
        well_known,
    },
};

impl Builder {
    pub(super) fn structure(
        &mut self,
        message: &MessageDescriptor,
        node: &Node<'_>,
    ) -> Result<DynamicMessage, Error> {
        let Json::Object(members) = &node.json else {
            return Err(self.wrong("must be an object"));
        };
        let element = self.element(message, "fields")?;
        let mut fields = HashMap::with_capacity(members.len());
        self.open()?;
        for member in members {
            self.path.push(Step::Entry(member.key.to_string()));
            let value = self.value(&element, &member.node)?;
            fields.insert(MapKey::String(member.key.to_string()), Value::Message(value));
            self.path.pop();
        }
        self.depth -= 1;
        self.with(message, "fields", Value::Map(fields))
    }

    pub(super) fn list_value(
        &mut self,
        message: &MessageDescriptor,
        node: &Node<'_>,
    ) -> Result<DynamicMessage, Error> {
        let Json::Array(elements) = &node.json else {
            return Err(self.wrong("must be an array"));
        };
        let element = self.element(message, "values")?;
        let mut values = Vec::with_capacity(elements.len());
        for (index, node) in elements.iter().enumerate() {
            self.path.push(Step::Index(index));
            values.push(Value::Message(self.value(&element, node)?));
            self.path.pop();
        }
        self.with(message, "values", Value::List(values))
    }

    pub(super) fn value(
        &mut self,
        message: &MessageDescriptor,
        node: &Node<'_>,
    ) -> Result<DynamicMessage, Error> {
        let depth = self.depth;
        self.open()?;
        let (name, value) = match &node.json {
            Json::Null => ("null_value", Value::EnumNumber(0)),
            Json::Bool(value) => ("bool_value", Value::Bool(*value)),
            Json::Number(text) => {
                ("number_value", self.checked(number::scalar(&Kind::Double, text))?)
            }
            Json::String(text) => ("string_value", Value::String(text.to_string())),
            Json::Array(_) => {
                self.open()?;
                let list = self.element(message, "list_value")?;
                ("list_value", Value::Message(self.list_value(&list, node)?))
            }
            Json::Object(_) => {
                self.open()?;
                let structure = self.element(message, "struct_value")?;
                ("struct_value", Value::Message(self.structure(&structure, node)?))
            }
        };
        self.depth = depth;
        self.with(message, name, value)
    }

    /// The message that a field holds, or holds as elements or values.
    fn element(
        &self,
        message: &MessageDescriptor,
        field: &str,
    ) -> Result<MessageDescriptor, Error> {
        let kind = message.get_field_by_name(field).map(|field| field.kind());
        let element = match kind.as_ref().and_then(Kind::as_message) {
            Some(entry) if entry.is_map_entry() => {
                entry.map_entry_value_field().kind().as_message().cloned()
            }
            other => other.cloned(),
        };
        element.ok_or_else(|| self.wrong("cannot be read"))
    }

    fn with(
        &self,
        message: &MessageDescriptor,
        field: &str,
        value: Value,
    ) -> Result<DynamicMessage, Error> {
        let mut built = DynamicMessage::new(message.clone());
        self.checked(well_known::set(&mut built, field, value))?;
        Ok(built)
    }
}
