//! `metadata.managedFields`: reading and writing it, and what it may grow to.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::set::Set;
use crate::schema::time;
use crate::status::FieldError;

/// Upstream's limit of managers by update (`DefaultMaxUpdateManagers`).
const MAX_UPDATERS: usize = 10;
/// Whoever has the fields of those that are too many.
const ANCIENT: &str = "ancient-changes";
/// Upstream's limit of a manager's name (`FieldManagerMaxLength`).
const MAX_NAME: usize = 128;

/// How a manager came to its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

/// Who manages fields. One that applies keeps its fields over versions, one that updates has some in each.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Manager {
    pub(super) name: String,
    pub(super) operation: Operation,
    /// Empty for `Apply`.
    pub(super) version: String,
    pub(super) subresource: String,
}

/// What a manager has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) version: String,
    pub(super) set: Set,
    /// When it last changed something.
    pub(super) time: Option<Timestamp>,
}

/// All managers of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Managers(pub(super) BTreeMap<Manager, Fields>);

impl Operation {
    fn word(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

impl Managers {
    /// Reads `metadata.managedFields`; a list with a mistake in it is none at all.
    pub(super) fn read(object: &Value) -> Result<Self, String> {
        let mut managers = BTreeMap::new();
        for entry in object["metadata"]["managedFields"].as_array().into_iter().flatten() {
            let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
            let operation = match entry["operation"].as_str() {
                Some("Apply") => Operation::Apply,
                Some("Update") => Operation::Update,
                _ => return Err("operation must be `Apply` or `Update`".to_owned()),
            };
            let version = text("apiVersion");
            if version.is_empty() {
                return Err("apiVersion must not be empty".to_owned());
            }
            if entry["fieldsType"] != "FieldsV1" {
                return Err(format!("invalid fieldsType {}", entry["fieldsType"]));
            }
            let set = match &entry["fieldsV1"] {
                Value::Null => Set::default(),
                fields => Set::from_fields(fields)?,
            };
            let time = entry["time"].as_str().and_then(|time| time.parse().ok());
            let own = if operation == Operation::Apply { String::new() } else { version.clone() };
            let manager = Manager { name: text("manager"), operation, version: own, subresource: text("subresource") };
            managers.insert(manager, Fields { version, set, time });
        }
        Ok(Self(managers))
    }

    /// Makes these the `metadata.managedFields` of an object.
    pub(super) fn write(&self, object: &mut Value) {
        let mut entries: Vec<_> = self.0.iter().collect();
        entries.sort_by_key(|(manager, fields)| {
            let second = fields.time.map_or(0, Timestamp::as_second);
            (manager.operation, second, &manager.name, &fields.version, &manager.subresource)
        });
        let entries: Vec<Value> = entries.into_iter().map(|(manager, fields)| entry(manager, fields)).collect();
        if entries.is_empty() {
            clear(object);
        } else {
            object["metadata"]["managedFields"] = Value::Array(entries);
        }
    }

    /// Joins the oldest managers by update, those of a version together, until there are no longer too many.
    pub(super) fn cap(&mut self) {
        let mut updaters: Vec<(i64, Manager)> = Vec::new();
        for (manager, fields) in self.0.iter().filter(|(manager, _)| manager.operation == Operation::Update) {
            updaters.push((fields.time.map_or(0, Timestamp::as_second), manager.clone()));
        }
        let mut left = updaters.len();
        updaters.sort();
        let mut first: BTreeMap<String, Manager> = BTreeMap::new();
        for (_, manager) in updaters {
            if left <= MAX_UPDATERS {
                return;
            }
            let Some(oldest) = first.get(&manager.version) else {
                first.insert(manager.version.clone(), manager);
                continue;
            };
            let Some(fields) = self.0.remove(&manager) else { continue };
            let bucket = Manager { name: ANCIENT.to_owned(), subresource: String::new(), ..manager };
            let before = self.0.remove(&bucket).or_else(|| self.0.remove(oldest));
            let set = before.map(|before| before.set).unwrap_or_default().union(&fields.set);
            self.0.insert(bucket, Fields { set, ..fields });
            left -= 1;
        }
    }

    /// Takes out whoever manages nothing any more.
    pub(super) fn drop_idle(&mut self) {
        self.0.retain(|_, fields| !fields.set.is_empty());
    }
}

fn entry(manager: &Manager, fields: &Fields) -> Value {
    let mut entry = Map::new();
    let mut put = |field: &str, text: &str| {
        if !text.is_empty() {
            entry.insert(field.to_owned(), text.into());
        }
    };
    put("manager", &manager.name);
    put("operation", manager.operation.word());
    put("apiVersion", &fields.version);
    put("time", &fields.time.map(time).unwrap_or_default());
    put("fieldsType", "FieldsV1");
    put("subresource", &manager.subresource);
    entry.insert("fieldsV1".to_owned(), fields.set.to_fields());
    Value::Object(entry)
}

/// Makes an object one that nobody manages.
pub(super) fn clear(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

/// `metadata.managedFields` without its times, by which alone a write is none.
pub fn without_times(object: &Value) -> Value {
    let mut entries = object["metadata"]["managedFields"].clone();
    for entry in entries.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        entry.remove("time");
    }
    entries
}

/// Whether an object asks that nobody manage its fields any more: an empty list, or one of an empty entry.
pub(super) fn is_reset(object: &Value) -> bool {
    let entries = object["metadata"]["managedFields"].as_array();
    entries.is_some_and(|entries| entries.is_empty() || *entries == [json!({})])
}

/// What is wrong with the name of a manager (`ValidateFieldManager` of apimachinery).
pub fn check_manager(field: &str, name: &str) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    if name.len() > MAX_NAME {
        wrong.push(FieldError::too_long(field, MAX_NAME));
    }
    for (place, character) in name.char_indices().filter(|(_, character)| !is_printable(*character)) {
        let text = format!("invalid character U+{:04X} (at position {place})", u32::from(character));
        wrong.push(FieldError::invalid(field, &name.into(), &text));
    }
    wrong
}

/// What Go's `unicode.IsPrint` takes for printable, but for what is unassigned.
pub fn is_printable(character: char) -> bool {
    character == ' ' || !(character.is_control() || character.is_whitespace() || is_format(character))
}

/// Characters that only steer others, and those of private use.
fn is_format(character: char) -> bool {
    matches!(u32::from(character),
        0xAD | 0x600..=0x605 | 0x61C | 0x6DD | 0x70F | 0x180E | 0x200B..=0x200F | 0x202A..=0x202E | 0x2060..=0x206F
        | 0xFEFF | 0xFFF9..=0xFFFB | 0xE000..=0xF8FF | 0xE0001..=0xE007F | 0xF_0000..=0x10_FFFF)
}
