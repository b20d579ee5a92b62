//! A JSON tree becomes a message: every value checked against its field, every problem named
//! by the field's path.

use std::collections::{HashMap, HashSet};

use prost_reflect::{
    DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value,
};

use super::{
    number,
    path::{Path, Step, brief, meant},
    scan::{Json, Member, Node},
    well_known::{self, WellKnown, takes_null},
};
use crate::{error::Error, schema::field_named};

pub mod any;
mod values;

/// The most messages in one another that every protobuf reader takes. One level of a `Value` is
/// three messages, so that JSON of a legal depth may be more.
const MESSAGES: usize = 100;

/// Builds messages, and knows where it is.
#[derive(Debug, Default)]
pub struct Builder {
    path: Path,
    /// How many messages are open.
    depth: usize,
}

// === impl Builder ===

impl Builder {
    /// A builder that stands at `path` already.
    #[must_use]
    pub fn at(path: Path) -> Self {
        Self { path, depth: 0 }
    }

    /// The value of a field; `None` if it is `null`, which says nothing (S32).
    ///
    /// # Errors
    /// [`Error::Field`] or [`Error::Conflict`] by the path of the field.
    pub fn field(
        &mut self,
        field: &FieldDescriptor,
        node: &Node<'_>,
    ) -> Result<Option<Value>, Error> {
        let kind = field.kind();
        let single = !field.is_list() && !field.is_map();
        if node.json == Json::Null && !(single && takes_null(&kind)) {
            return Ok(None);
        }
        let value = if field.is_map() {
            self.map(&kind, node)?
        } else if field.is_list() {
            let Json::Array(elements) = &node.json else {
                return Err(self.wrong("must be an array"));
            };
            let mut values = Vec::with_capacity(elements.len());
            for (index, element) in elements.iter().enumerate() {
                self.path.push(Step::Index(index));
                values.push(self.present(&kind, element)?);
                self.path.pop();
            }
            Value::List(values)
        } else {
            self.single(&kind, node)?
        };
        Ok(Some(value))
    }

    /// One value: a whole body, an element, or what a field holds.
    ///
    /// # Errors
    /// As [`Self::field`].
    pub fn single(&mut self, kind: &Kind, node: &Node<'_>) -> Result<Value, Error> {
        match kind {
            Kind::Message(message) => self.message(message, node).map(Value::Message),
            Kind::Enum(values) => self.enumeration(values, node),
            Kind::Bool => match &node.json {
                Json::Bool(value) => Ok(Value::Bool(*value)),
                Json::Null
                | Json::Number(_)
                | Json::String(_)
                | Json::Array(_)
                | Json::Object(_) => Err(self.wrong("must be true or false")),
            },
            Kind::String | Kind::Bytes => self.checked(number::scalar(kind, self.text(node)?)),
            Kind::Double
            | Kind::Float
            | Kind::Int32
            | Kind::Int64
            | Kind::Uint32
            | Kind::Uint64
            | Kind::Sint32
            | Kind::Sint64
            | Kind::Fixed32
            | Kind::Fixed64
            | Kind::Sfixed32
            | Kind::Sfixed64 => match &node.json {
                Json::Number(text) => self.checked(number::scalar(kind, text)),
                Json::String(text) => self.checked(number::scalar(kind, text)),
                Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => {
                    Err(self.wrong("must be a number"))
                }
            },
        }
    }

    fn enumeration(&self, values: &EnumDescriptor, node: &Node<'_>) -> Result<Value, Error> {
        match &node.json {
            Json::Null if values.full_name() == "google.protobuf.NullValue" => {
                Ok(Value::EnumNumber(0))
            }
            Json::Number(text) => self.checked(number::numbered(values, text)),
            Json::String(text) => self.checked(number::scalar(&Kind::Enum(values.clone()), text)),
            Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => {
                Err(self.wrong("must be the name or the number of a value"))
            }
        }
    }

    /// A value where `null` is not one, nor absence (S32).
    fn present(&mut self, kind: &Kind, node: &Node<'_>) -> Result<Value, Error> {
        if node.json == Json::Null && !takes_null(kind) {
            return Err(self.wrong("must not be null"));
        }
        self.single(kind, node)
    }

    fn map(&mut self, entry: &Kind, node: &Node<'_>) -> Result<Value, Error> {
        let Json::Object(members) = &node.json else {
            return Err(self.wrong("must be an object"));
        };
        let Kind::Message(entry) = entry else { return Err(self.wrong("is no map")) };
        let (key_kind, value_kind) =
            (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
        let mut map = HashMap::with_capacity(members.len());
        self.open()?;
        for member in members {
            self.path.push(Step::Entry(member.key.to_string()));
            let key = self.checked(map_key(&key_kind, &member.key))?;
            let value = self.present(&value_kind, &member.node)?;
            if map.insert(key, value).is_some() {
                return Err(self.wrong("is given twice"));
            }
            self.path.pop();
        }
        self.depth -= 1;
        Ok(Value::Map(map))
    }

    /// A message in whatever form JSON gives it.
    ///
    /// # Errors
    /// As [`Self::field`].
    pub fn message(
        &mut self,
        message: &MessageDescriptor,
        node: &Node<'_>,
    ) -> Result<DynamicMessage, Error> {
        self.open()?;
        let built = if let Some(form) = WellKnown::of(message) {
            self.well_known(form, message, node)?
        } else if let Json::Object(members) = &node.json {
            self.members(message, members.iter())?
        } else {
            return Err(self.wrong("must be an object"));
        };
        self.depth -= 1;
        Ok(built)
    }

    /// Goes one message deeper; whoever comes back up takes it off `depth`.
    fn open(&mut self) -> Result<(), Error> {
        self.depth += 1;
        if self.depth > MESSAGES { Err(self.wrong("is nested too deep")) } else { Ok(()) }
    }

    fn well_known(
        &mut self,
        form: WellKnown,
        message: &MessageDescriptor,
        node: &Node<'_>,
    ) -> Result<DynamicMessage, Error> {
        match form {
            WellKnown::Any => self.any(message, node),
            WellKnown::Struct => self.structure(message, node),
            WellKnown::Value => self.value(message, node),
            WellKnown::ListValue => self.list_value(message, node),
            WellKnown::Wrapper => {
                let inner = message.get_field_by_name("value");
                let inner = inner.ok_or_else(|| self.wrong("cannot be read"))?;
                let value = self.present(&inner.kind(), node)?;
                let mut wrapper = DynamicMessage::new(message.clone());
                self.checked(well_known::set(&mut wrapper, "value", value))?;
                Ok(wrapper)
            }
            WellKnown::Timestamp | WellKnown::Duration | WellKnown::FieldMask => {
                self.checked(well_known::from_text(form, message, self.text(node)?))
            }
        }
    }

    /// The members of an object that is written field by field.
    fn members<'a, 'b: 'a>(
        &mut self,
        message: &MessageDescriptor,
        members: impl Iterator<Item = &'a Member<'b>>,
    ) -> Result<DynamicMessage, Error> {
        let mut built = DynamicMessage::new(message.clone());
        let mut seen = HashSet::new();
        for member in members {
            let Some(field) = field_named(message, &member.key) else {
                return Err(self.unknown(message, &member.key));
            };
            self.path.push(Step::Key(field.name().to_owned()));
            if !seen.insert(field.number()) {
                return Err(self.wrong("is given twice, by its JSON name and by its proto name"));
            }
            if let Some(value) = self.field(&field, &member.node)? {
                if let Some(other) = rival(&built, &field) {
                    let problem = format!("may not be given together with {}", other.name());
                    return Err(Error::conflict(self.path.to_string(), problem));
                }
                if built.try_set_field(&field, value).is_err() {
                    return Err(self.wrong("cannot hold this"));
                }
            }
            self.path.pop();
        }
        Ok(built)
    }

    fn unknown(&mut self, message: &MessageDescriptor, name: &str) -> Error {
        let fields: Vec<_> = message.fields().collect();
        let meant = meant(name, fields.iter().map(FieldDescriptor::json_name));
        self.path.push(Step::Key(name.to_owned()));
        let hint = meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
        Error::field(
            self.path.to_string(),
            format!("{} has no field {}{hint}", message.name(), brief(name)),
        )
    }

    fn text<'n>(&self, node: &'n Node<'_>) -> Result<&'n str, Error> {
        if let Json::String(text) = &node.json {
            Ok(text)
        } else {
            Err(self.wrong("must be a string"))
        }
    }

    fn checked<T>(&self, result: Result<T, String>) -> Result<T, Error> {
        result.map_err(|problem| Error::field(self.path.to_string(), problem))
    }

    fn wrong(&self, problem: &str) -> Error {
        Error::field(self.path.to_string(), problem)
    }
}

/// The member of the same oneof that is set already (S28).
#[must_use]
pub fn rival(message: &DynamicMessage, field: &FieldDescriptor) -> Option<FieldDescriptor> {
    let oneof = field.containing_oneof()?;
    let mut fields = oneof.fields();
    fields.find(|other| other != field && message.has_field(other))
}

/// The key of a map from its text.
///
/// # Errors
/// What would be right.
pub fn map_key(kind: &Kind, text: &str) -> Result<MapKey, String> {
    let wrong = || "is no key of this map".to_owned();
    if *kind == Kind::Bool {
        return text.parse().map(MapKey::Bool).map_err(|_error| wrong());
    }
    match number::scalar(kind, text)? {
        Value::I32(key) => Ok(MapKey::I32(key)),
        Value::I64(key) => Ok(MapKey::I64(key)),
        Value::U32(key) => Ok(MapKey::U32(key)),
        Value::U64(key) => Ok(MapKey::U64(key)),
        Value::String(key) => Ok(MapKey::String(key)),
        Value::Bool(_)
        | Value::F32(_)
        | Value::F64(_)
        | Value::Bytes(_)
        | Value::EnumNumber(_)
        | Value::Message(_)
        | Value::List(_)
        | Value::Map(_) => Err(wrong()),
    }
}
