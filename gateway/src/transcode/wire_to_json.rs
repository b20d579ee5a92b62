//! A message on the wire becomes the JSON of a reply.

use bytes::Bytes;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor,
    ReflectMessage as _, Value,
};

use super::{
    base64,
    build::any::is_written_as_value,
    scan::DEPTH,
    well_known::{self, WellKnown},
};
use crate::{
    error::Error,
    schema::{Binding, compile::is_http_body},
};

/// A reply in the form in which it leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// `None` for JSON; the type of an HttpBody.
    pub content_type: Option<String>,
    /// The body.
    pub body: Bytes,
    /// The field `etag`, if it is there and not empty.
    pub etag: Option<String>,
    /// The field `name`, if it is there and not empty.
    pub name: Option<String>,
    /// The field `resume_token`, if it is there and not empty.
    pub resume_token: Option<String>,
}

/// The message cannot be written as JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unwritable(pub &'static str);

/// Writes the message of a reply, or one of many.
///
/// # Errors
/// [`Error::UpstreamMalformed`]: the bytes are no such message, or JSON cannot hold it.
pub fn wire_to_json(binding: &Binding, wire: &[u8]) -> Result<Reply, Error> {
    let message = DynamicMessage::decode(binding.method.output.clone(), wire)
        .map_err(|_error| Error::UpstreamMalformed("the message cannot be decoded"))?;
    let text = |name: &str| {
        let value = message.get_field_by_name(name)?;
        value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let (etag, name, resume_token) = (text("etag"), text("name"), text("resume_token"));
    let raw = match &binding.response {
        None => Some(message.clone()),
        Some(field) => message.get_field(field).as_message().cloned(),
    };
    if let Some(raw) = raw.filter(|raw| is_http_body(&raw.descriptor())) {
        return Ok(Reply { etag, name, resume_token, ..http_body(&raw) });
    }
    let mut writer = Writer::new(binding.method.output.parent_pool());
    let written = match &binding.response {
        None => writer.message(&message),
        Some(field) => writer.field_value(field, &message.get_field(field)),
    };
    written.map_err(|Unwritable(problem)| Error::UpstreamMalformed(problem))?;
    Ok(Reply { content_type: None, body: writer.json.into(), etag, name, resume_token })
}

/// S50: the bytes with their type, as they are.
fn http_body(message: &DynamicMessage) -> Reply {
    let content_type = message.get_field_by_name("content_type");
    let content_type = content_type
        .and_then(|value| value.as_str().map(str::to_owned))
        .filter(|value| !value.is_empty())
        .unwrap_or_else(|| "application/octet-stream".to_owned());
    let data = message.get_field_by_name("data");
    let body = data.and_then(|value| value.as_bytes().cloned()).unwrap_or_default();
    Reply { content_type: Some(content_type), body, etag: None, name: None, resume_token: None }
}

/// Writes ProtoJSON.
pub struct Writer<'a> {
    pool: &'a DescriptorPool,
    /// Where the types of `Any` are looked up next.
    more: Option<&'a DescriptorPool>,
    json: String,
    depth: usize,
}

// === impl Writer ===

impl<'a> Writer<'a> {
    /// A writer that finds the types of `Any` in `pool`.
    #[must_use]
    pub fn new(pool: &'a DescriptorPool) -> Self {
        Self { pool, more: None, json: String::new(), depth: 0 }
    }

    /// Finds types there too.
    #[must_use]
    pub fn or(self, more: &'a DescriptorPool) -> Self {
        Self { more: Some(more), ..self }
    }

    /// The text so far.
    #[must_use]
    pub fn finish(self) -> String {
        self.json
    }

    fn nested(
        &mut self,
        open: char,
        close: char,
        write: impl FnOnce(&mut Self) -> Result<(), Unwritable>,
    ) -> Result<(), Unwritable> {
        if self.depth == DEPTH {
            return Err(Unwritable("it is nested more than 100 deep"));
        }
        self.depth += 1;
        self.json.push(open);
        write(self)?;
        self.json.push(close);
        self.depth -= 1;
        Ok(())
    }

    fn message(&mut self, message: &DynamicMessage) -> Result<(), Unwritable> {
        let descriptor = message.descriptor();
        match WellKnown::of(&descriptor) {
            Some(form) => self.well_known(form, message),
            None => self.nested('{', '}', |writer| writer.fields(message, true)),
        }
    }

    /// The fields that are set; `first` says that none stands before them.
    fn fields(&mut self, message: &DynamicMessage, mut first: bool) -> Result<(), Unwritable> {
        for (field, value) in message.fields() {
            if !std::mem::take(&mut first) {
                self.json.push(',');
            }
            self.key(field.json_name());
            self.field_value(&field, value)?;
        }
        Ok(())
    }

    fn key(&mut self, key: &str) {
        self.string(key);
        self.json.push(':');
    }

    fn field_value(&mut self, field: &FieldDescriptor, value: &Value) -> Result<(), Unwritable> {
        match value {
            Value::Map(map) => {
                let Kind::Message(entry) = field.kind() else {
                    return Err(Unwritable("a map has no entries"));
                };
                let kind = entry.map_entry_value_field().kind();
                let mut entries: Vec<_> = map.iter().collect();
                entries.sort_by(|a, b| a.0.cmp(b.0));
                self.nested('{', '}', |writer| {
                    for (index, (key, value)) in entries.into_iter().enumerate() {
                        if index > 0 {
                            writer.json.push(',');
                        }
                        writer.key(&key_text(key));
                        writer.value(&kind, value)?;
                    }
                    Ok(())
                })
            }
            Value::List(values) => {
                let kind = field.kind();
                self.list(values, |writer, value| writer.value(&kind, value))
            }
            Value::Bool(_)
            | Value::I32(_)
            | Value::I64(_)
            | Value::U32(_)
            | Value::U64(_)
            | Value::F32(_)
            | Value::F64(_)
            | Value::String(_)
            | Value::Bytes(_)
            | Value::EnumNumber(_)
            | Value::Message(_) => self.value(&field.kind(), value),
        }
    }

    fn list(
        &mut self,
        values: &[Value],
        write: impl Fn(&mut Self, &Value) -> Result<(), Unwritable>,
    ) -> Result<(), Unwritable> {
        self.nested('[', ']', |writer| {
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    writer.json.push(',');
                }
                write(writer, value)?;
            }
            Ok(())
        })
    }

    fn value(&mut self, kind: &Kind, value: &Value) -> Result<(), Unwritable> {
        match value {
            Value::Bool(value) => self.json.push_str(if *value { "true" } else { "false" }),
            Value::I32(value) => self.json.push_str(&value.to_string()),
            Value::U32(value) => self.json.push_str(&value.to_string()),
            // S29: a JSON number is a double to most readers.
            Value::I64(value) => self.quoted(&value.to_string()),
            Value::U64(value) => self.quoted(&value.to_string()),
            Value::F32(value) => self.float(f64::from(*value), &format!("{value:?}")),
            Value::F64(value) => self.float(*value, &format!("{value:?}")),
            Value::String(value) => self.string(value),
            Value::Bytes(value) => {
                self.json.push('"');
                base64::encode(value, &mut self.json);
                self.json.push('"');
            }
            Value::EnumNumber(number) => self.enumeration(kind, *number),
            Value::Message(message) => return self.message(message),
            Value::List(_) | Value::Map(_) => return Err(Unwritable("a list stands in a list")),
        }
        Ok(())
    }

    fn enumeration(&mut self, kind: &Kind, number: i32) {
        let values = kind.as_enum();
        if values.is_some_and(|values| values.full_name() == "google.protobuf.NullValue") {
            self.json.push_str("null");
            return;
        }
        // The first of several names, in the order of the file.
        let value = values.and_then(|values| values.values().find(|v| v.number() == number));
        match value {
            Some(value) => self.quoted(value.name()),
            None => self.json.push_str(&number.to_string()),
        }
    }

    /// S38: the shortest text that reads back the same.
    fn float(&mut self, value: f64, shortest: &str) {
        if value.is_nan() {
            self.quoted("NaN");
        } else if value.is_infinite() {
            self.quoted(if value > 0.0 { "Infinity" } else { "-Infinity" });
        } else {
            self.json.push_str(shortest.strip_suffix(".0").unwrap_or(shortest));
        }
    }

    fn quoted(&mut self, plain: &str) {
        self.json.push('"');
        self.json.push_str(plain);
        self.json.push('"');
    }

    /// S36: only quotes, backslashes and controls are escaped.
    fn string(&mut self, text: &str) {
        self.json.push('"');
        let mut rest = text;
        while let Some(at) = rest.bytes().position(|b| b < 0x20 || b == b'"' || b == b'\\') {
            self.json.push_str(&rest[..at]);
            match rest.as_bytes()[at] {
                b'\n' => self.json.push_str("\\n"),
                b'\r' => self.json.push_str("\\r"),
                b'\t' => self.json.push_str("\\t"),
                byte @ (b'"' | b'\\') => self.json.extend(['\\', char::from(byte)]),
                byte => self.json.push_str(&format!("\\u{byte:04x}")),
            }
            rest = &rest[at + 1..];
        }
        self.json.push_str(rest);
        self.json.push('"');
    }

    fn well_known(&mut self, form: WellKnown, message: &DynamicMessage) -> Result<(), Unwritable> {
        let number = |name: &str| {
            let value = message.get_field_by_name(name);
            value.and_then(|value| value.as_i64().or_else(|| value.as_i32().map(i64::from)))
        };
        let (seconds, nanos) = (number("seconds").unwrap_or(0), number("nanos").unwrap_or(0));
        // `nanos` is an int32.
        let nanos = i32::try_from(nanos).unwrap_or(i32::MAX);
        match form {
            WellKnown::Timestamp => {
                let text = well_known::timestamp_text(seconds, nanos);
                self.quoted(&text.ok_or(Unwritable("a timestamp is out of range"))?);
            }
            WellKnown::Duration => {
                let text = well_known::duration_text(seconds, nanos);
                self.quoted(&text.ok_or(Unwritable("a duration is out of range"))?);
            }
            WellKnown::FieldMask => {
                let paths = message.get_field_by_name("paths");
                let paths = paths.as_deref().and_then(Value::as_list).unwrap_or_default();
                let text: Option<Vec<_>> =
                    paths.iter().map(|path| well_known::camel(path.as_str()?)).collect();
                let text = text.ok_or(Unwritable("a field mask has no form in camelCase"))?;
                self.string(&text.join(","));
            }
            WellKnown::Wrapper => {
                let Some(field) = message.descriptor().get_field_by_name("value") else {
                    return Err(Unwritable("a wrapper has no value"));
                };
                return self.value(&field.kind(), &message.get_field(&field));
            }
            WellKnown::Struct | WellKnown::ListValue => return self.json_value(form, message),
            WellKnown::Value => return self.json_any_value(message),
            WellKnown::Any => return self.any(message),
        }
        Ok(())
    }

    fn json_value(&mut self, form: WellKnown, message: &DynamicMessage) -> Result<(), Unwritable> {
        let name = if form == WellKnown::Struct { "fields" } else { "values" };
        let Some(field) = message.descriptor().get_field_by_name(name) else {
            return Err(Unwritable("a Struct has no fields"));
        };
        self.field_value(&field, &message.get_field(&field))
    }

    fn json_any_value(&mut self, message: &DynamicMessage) -> Result<(), Unwritable> {
        let Some((field, value)) = message.fields().next() else {
            self.json.push_str("null");
            return Ok(());
        };
        if let Value::F64(number) = value
            && !number.is_finite()
        {
            return Err(Unwritable("a Value is no number that JSON has"));
        }
        self.value(&field.kind(), value)
    }

    /// S35: what it holds beside its `@type`; base64 if that is not known here.
    fn any(&mut self, message: &DynamicMessage) -> Result<(), Unwritable> {
        let url = message.get_field_by_name("type_url");
        let url = url.as_deref().and_then(Value::as_str).unwrap_or_default();
        let bytes = message.get_field_by_name("value");
        let bytes = bytes.as_deref().and_then(Value::as_bytes).cloned().unwrap_or_default();
        if url.is_empty() && bytes.is_empty() {
            return self.nested('{', '}', |_| Ok(()));
        }
        let held = self
            .known(url.rsplit('/').next().unwrap_or_default())
            .and_then(|held| DynamicMessage::decode(held, bytes.clone()).ok());
        self.nested('{', '}', |writer| {
            writer.key("@type");
            writer.string(url);
            match held {
                None => {
                    writer.json.push_str(",\"value\":\"");
                    base64::encode(&bytes, &mut writer.json);
                    writer.json.push('"');
                    Ok(())
                }
                Some(held) if is_written_as_value(&held.descriptor()) => {
                    writer.json.push_str(",\"value\":");
                    writer.message(&held)
                }
                Some(held) => writer.fields(&held, false),
            }
        })
    }

    fn known(&self, name: &str) -> Option<MessageDescriptor> {
        let more = || self.more.and_then(|more| more.get_message_by_name(name));
        self.pool.get_message_by_name(name).or_else(more)
    }

    /// Writes one message.
    ///
    /// # Errors
    /// [`Unwritable`] if JSON cannot hold it.
    pub fn write(&mut self, message: &DynamicMessage) -> Result<(), Unwritable> {
        self.message(message)
    }
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}
