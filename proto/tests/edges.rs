//! Every edge of the table of events in ARCHITECTURE.md has its bytes on file: what was published
//! once is read for ever, because it may still lie in a log, a dead letter or a backup.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{collections::BTreeSet, fs, path::PathBuf};

use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value,
};

/// How deep a sample fills messages within messages.
const DEPTH: u8 = 4;

#[test]
fn every_edge_has_a_fixture_whose_every_form_is_still_read_whole() {
    let pool = DescriptorPool::decode(proto::DESCRIPTORS).unwrap();
    let mut wrong = Vec::new();
    for kind in kinds() {
        let Some(message) = message(&pool, &kind) else {
            wrong.push(format!("{kind}: no message of the contract is called so"));
            continue;
        };
        let forms = forms(&kind);
        if forms.is_empty() {
            wrong.push(format!("{kind}: {} is missing", path(&kind).display()));
        }
        for (number, form) in forms.iter().enumerate() {
            let read = DynamicMessage::decode(message.clone(), form.as_slice());
            match read {
                Ok(read) if has_unknown(&read) => {
                    wrong.push(format!("{kind}: form {} has fields that are gone", number + 1));
                }
                Ok(read) if read.encode_to_vec() != *form => {
                    wrong.push(format!("{kind}: form {} is read as something else", number + 1));
                }
                Ok(_) => {}
                Err(error) => wrong.push(format!("{kind}: form {}: {error}", number + 1)),
            }
        }
        let now = sample(&message, DEPTH).encode_to_vec();
        if forms.last() != Some(&now) {
            wrong.push(format!("{kind} has grown: add this line to its fixture\n{}", hex(&now)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_fixture_is_without_an_edge() {
    let kinds: BTreeSet<PathBuf> = kinds().iter().map(|kind| path(kind)).collect();
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/events");
    for entry in fs::read_dir(root).unwrap() {
        let found = entry.unwrap().path();
        assert!(kinds.contains(&found), "{} belongs to no edge", found.display());
    }
}

#[test]
fn a_field_that_is_gone_or_changed_its_type_shows() {
    let pool = DescriptorPool::decode(proto::DESCRIPTORS).unwrap();
    let kind = pool.get_message_by_name("ordermesh.orders.v1.OrderConfirmed").unwrap();
    let mut bytes = sample(&kind, DEPTH).encode_to_vec();
    // Field 99, a varint: nobody knows it.
    bytes.extend([0x98, 0x06, 0x01]);
    assert!(has_unknown(&DynamicMessage::decode(kind.clone(), bytes.as_slice()).unwrap()));
    // Field 1, which is a string, as a varint.
    assert!(DynamicMessage::decode(kind, [0x08, 0x01].as_slice()).is_err());
}

/// The types of the table: the first cell of each row of the section on events.
fn kinds() -> BTreeSet<String> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../ARCHITECTURE.md");
    let text = fs::read_to_string(root).unwrap();
    let section = text.split("\n## ").find(|section| section.starts_with("Who tells whom"));
    let rows = section.unwrap().lines().filter_map(|line| line.strip_prefix("| `"));
    let kinds: BTreeSet<String> =
        rows.filter_map(|row| Some(row.split_once('`')?.0.to_owned())).collect();
    assert!(kinds.len() > 10, "the table of events was not found");
    kinds
}

/// `order.cancelled` is `ordermesh.orders.v1.OrderCancelled`.
fn message(pool: &DescriptorPool, kind: &str) -> Option<MessageDescriptor> {
    let camel: String =
        kind.split(['.', '_']).map(|word| word[..1].to_uppercase() + &word[1..]).collect();
    let name =
        |message: &MessageDescriptor| message.name() == camel && message.parent_message().is_none();
    pool.all_messages().find(name)
}

fn path(kind: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/events").join(format!("{kind}.hex"))
}

/// What was ever published under this type, the oldest first: a line of hexadecimal digits each.
fn forms(kind: &str) -> Vec<Vec<u8>> {
    let text = fs::read_to_string(path(kind)).unwrap_or_default();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    text.lines().map(|line| line.as_bytes().chunks(2).map(byte).collect()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Every field set, to something that its number makes its own.
fn sample(kind: &MessageDescriptor, depth: u8) -> DynamicMessage {
    let mut message = DynamicMessage::new(kind.clone());
    for field in kind.fields() {
        // Of a oneof the last one stays.
        if let Some(value) = value(&field, depth) {
            message.set_field(&field, value);
        }
    }
    message
}

fn value(field: &FieldDescriptor, depth: u8) -> Option<Value> {
    let number = field.number();
    if field.is_map() {
        let key = MapKey::String("key".to_owned());
        let entry = [(key, Value::String(format!("value {number}")))];
        return Some(Value::Map(entry.into_iter().collect()));
    }
    let one = match field.kind() {
        Kind::String => Value::String(format!("text {number}")),
        Kind::Bytes => Value::Bytes(vec![0xff, 0x00].into()),
        Kind::Bool => Value::Bool(true),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(i32::try_from(number).unwrap()),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(i64::from(number)),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(number),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(u64::from(number)),
        Kind::Double => Value::F64(0.5),
        Kind::Float => Value::F32(0.5),
        Kind::Enum(_) => Value::EnumNumber(1),
        Kind::Message(inner) if depth > 0 => Value::Message(sample(&inner, depth - 1)),
        Kind::Message(_) => return None,
    };
    Some(if field.is_list() { Value::List(vec![one]) } else { one })
}

/// Whether a message, or one in it, holds a field that nobody knows.
fn has_unknown(message: &DynamicMessage) -> bool {
    let nested = |value: &Value| {
        let list = value.as_list().unwrap_or_default();
        let one = value.as_message().is_some_and(has_unknown);
        one || list.iter().any(|it| it.as_message().is_some_and(has_unknown))
    };
    message.unknown_fields().next().is_some() || message.fields().any(|(_, value)| nested(value))
}
