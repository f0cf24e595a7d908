//! JSON objects to messages: the way back of [`super::decode`].
//!
//! What is absent in JSON is absent on the wire, which readers take for the zero value.

use base64::Engine as _;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use super::MAGIC;
use crate::schema::{self, Base, Field, Shape, TypeRef};
use crate::status::ApiError;

/// An object, a list, a `Status` or partial metadata as a body of media type `application/vnd.kubernetes.protobuf`.
///
/// # Errors
/// 406 if the kind has no protobuf form, as tables and custom resources; 500 if the object is not one of its kind.
pub fn encode(object: &Value) -> Result<Vec<u8>, ApiError> {
    let text = |name: &str| object[name].as_str().unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let raw = body(api_version, kind, object)?;
    let mut meta = Writer::default();
    meta.text(1, api_version);
    meta.text(2, kind);
    let mut unknown = Writer::default();
    unknown.bytes(1, &meta.0);
    unknown.bytes(2, &raw.0);
    unknown.text(3, "");
    unknown.text(4, "");
    Ok([MAGIC, &unknown.0].concat())
}

/// An event of a watch as a frame of `application/vnd.kubernetes.protobuf;stream=watch`: its length in four bytes, then
/// `WatchEvent { type = 1, object = 2 }` without an envelope, whose object has one (apimachinery,
/// `runtime/serializer/protobuf` and `util/framer`).
///
/// # Errors
/// As [`encode`].
pub fn encode_event(event: &Value) -> Result<Vec<u8>, ApiError> {
    let mut raw = Writer::default();
    raw.bytes(1, &encode(&event["object"])?);
    let mut message = Writer::default();
    message.text(1, event["type"].as_str().unwrap_or_default());
    message.bytes(2, &raw.0);
    let length = u32::try_from(message.0.len()).map_err(ApiError::internal)?;
    Ok([&length.to_be_bytes()[..], &message.0].concat())
}

fn body(api_version: &str, kind: &str, object: &Value) -> Result<Writer, ApiError> {
    let unencodable = || ApiError::not_acceptable(&["application/json", "application/yaml"]);
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let fields = object.as_object().ok_or_else(unencodable)?;
    if let Some(ty) = schema::lookup(group, version, kind) {
        return message(ty, fields).ok_or_else(|| ApiError::internal(format!("{kind} cannot be encoded")));
    }
    match (group, kind) {
        ("", "Status") => Ok(status(object)),
        ("meta.k8s.io", "PartialObjectMetadata") => partial(object).ok_or_else(unencodable),
        ("meta.k8s.io", "PartialObjectMetadataList") => list(object, partial).ok_or_else(unencodable),
        // The table lacks the lists of some kinds; all lists are alike.
        _ => {
            let ty = kind.strip_suffix("List").and_then(|item| schema::lookup(group, version, item));
            let ty = ty.ok_or_else(unencodable)?;
            list(object, |item| message(ty, item.as_object()?)).ok_or_else(unencodable)
        }
    }
}

/// `ListMeta` and the items.
fn list(object: &Value, encode: impl Fn(&Value) -> Option<Writer>) -> Option<Writer> {
    let mut writer = Writer::default();
    writer.bytes(1, &list_meta(&object["metadata"]).0);
    for item in object["items"].as_array()? {
        writer.bytes(2, &encode(item)?.0);
    }
    Some(writer)
}

fn list_meta(metadata: &Value) -> Writer {
    let mut writer = Writer::default();
    writer.text_of(2, &metadata["resourceVersion"]);
    writer.text_of(3, &metadata["continue"]);
    writer.number_of(4, &metadata["remainingItemCount"]);
    writer
}

/// The metadata of all kinds is of one type.
fn partial(object: &Value) -> Option<Writer> {
    let pod = schema::lookup("", "v1", "Pod")?;
    let field = pod.fields().iter().find(|field| field.name == "metadata")?;
    let mut writer = Writer::default();
    writer.field(field, object.get("metadata")?)?;
    Some(writer)
}

/// `metav1.Status`.
fn status(object: &Value) -> Writer {
    let mut details = Writer::default();
    let about = &object["details"];
    for (number, name) in [(1, "name"), (2, "group"), (3, "kind")] {
        details.text_of(number, &about[name]);
    }
    for cause in about["causes"].as_array().into_iter().flatten() {
        let mut writer = Writer::default();
        for (number, name) in [(1, "reason"), (2, "message"), (3, "field")] {
            writer.text_of(number, &cause[name]);
        }
        details.bytes(4, &writer.0);
    }
    details.number_of(5, &about["retryAfterSeconds"]);
    details.text_of(6, &about["uid"]);
    let mut writer = Writer::default();
    writer.bytes(1, &list_meta(&object["metadata"]).0);
    for (number, name) in [(2, "status"), (3, "message"), (4, "reason")] {
        writer.text_of(number, &object[name]);
    }
    if about.is_object() {
        writer.bytes(5, &details.0);
    }
    writer.number_of(6, &object["code"]);
    writer
}

/// None if a value is not of its field's type.
fn message(ty: TypeRef, object: &Map<String, Value>) -> Option<Writer> {
    let present = |field: &'static Field| Some((field, object.get(field.name).filter(|value| !value.is_null())?));
    let mut fields: Vec<_> = ty.fields().iter().filter_map(present).collect();
    fields.sort_by_key(|(field, _)| field.numbers);
    let mut writer = Writer::default();
    fields.into_iter().try_for_each(|(field, value)| writer.field(field, value))?;
    Some(writer)
}

/// A message under construction.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn varint(&mut self, mut number: u64) {
        loop {
            let [low, ..] = number.to_le_bytes();
            number >>= 7;
            if number == 0 {
                return self.0.push(low & 0x7f);
            }
            self.0.push(low | 0x80);
        }
    }

    fn tag(&mut self, number: u8, wire: u8) {
        self.varint(u64::from(number) << 3 | u64::from(wire));
    }

    fn number(&mut self, number: u8, value: i64) {
        self.tag(number, 0);
        self.varint(value.cast_unsigned());
    }

    fn number_of(&mut self, number: u8, value: &Value) {
        if let Some(value) = value.as_i64() {
            self.number(number, value);
        }
    }

    fn bytes(&mut self, number: u8, value: &[u8]) {
        self.tag(number, 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    fn text(&mut self, number: u8, value: &str) {
        self.bytes(number, value.as_bytes());
    }

    fn text_of(&mut self, number: u8, value: &Value) {
        if let Some(value) = value.as_str() {
            self.text(number, value);
        }
    }

    /// A field, in the messages that embed it; readers merge those that come several times.
    fn field(&mut self, field: &Field, value: &Value) -> Option<()> {
        let [first, rest @ ..] = field.numbers;
        if first == 0 {
            return Some(());
        }
        let mut numbers: Vec<u8> = rest.into_iter().take_while(|number| *number != 0).collect();
        numbers.insert(0, first);
        let own = numbers.pop()?;
        let mut inner = Self::default();
        inner.values(own, field, value)?;
        for number in numbers.into_iter().rev() {
            let mut outer = Self::default();
            outer.bytes(number, &inner.0);
            inner = outer;
        }
        self.0.extend_from_slice(&inner.0);
        Some(())
    }

    fn values(&mut self, number: u8, field: &Field, value: &Value) -> Option<()> {
        match field.shape {
            Shape::One => self.single(number, field.base, value),
            Shape::List => value.as_array()?.iter().try_for_each(|item| self.single(number, field.base, item)),
            Shape::Map | Shape::MapOfLists => value.as_object()?.iter().try_for_each(|(key, item)| {
                let mut entry = Self::default();
                entry.text(1, key);
                if field.shape == Shape::MapOfLists {
                    let mut list = Self::default();
                    item.as_array()?.iter().for_each(|item| list.text_of(1, item));
                    entry.bytes(2, &list.0);
                } else {
                    entry.single(2, field.base, item)?;
                }
                self.bytes(number, &entry.0);
                Some(())
            }),
        }
    }

    fn single(&mut self, number: u8, base: Base, value: &Value) -> Option<()> {
        match base {
            Base::String => self.text(number, value.as_str()?),
            Base::Bool => self.number(number, value.as_bool()?.into()),
            Base::Int32 | Base::Int64 => self.number(number, value.as_i64()?),
            Base::Double => {
                self.tag(number, 1);
                self.0.extend_from_slice(&value.as_f64()?.to_bits().to_le_bytes());
            }
            Base::Bytes => {
                let bytes = base64::engine::general_purpose::STANDARD.decode(value.as_str()?).ok()?;
                self.bytes(number, &bytes);
            }
            Base::Quantity => self.wrapped(number, value.as_str()?.as_bytes()),
            Base::Time | Base::MicroTime => {
                let stamp: Timestamp = value.as_str()?.parse().ok()?;
                let mut message = Self::default();
                message.number(1, stamp.as_second());
                message.number(2, stamp.subsec_nanosecond().into());
                self.bytes(number, &message.0);
            }
            Base::Duration => {
                let duration: SignedDuration = value.as_str()?.parse().ok()?;
                let mut message = Self::default();
                message.number(1, i64::try_from(duration.as_nanos()).ok()?);
                self.bytes(number, &message.0);
            }
            Base::IntOrString => {
                let mut message = Self::default();
                match value.as_str() {
                    Some(text) => {
                        message.number(1, 1);
                        message.text(3, text);
                    }
                    None => {
                        message.number(1, 0);
                        message.number(2, value.as_i64()?);
                    }
                }
                self.bytes(number, &message.0);
            }
            Base::Raw | Base::FieldsV1 => self.wrapped(number, value.to_string().as_bytes()),
            Base::Type(ty) => {
                let inner = message(ty, value.as_object()?)?;
                self.bytes(number, &inner.0);
            }
        }
        Some(())
    }

    /// A message with bytes as its field 1.
    fn wrapped(&mut self, number: u8, value: &[u8]) {
        let mut message = Self::default();
        message.bytes(1, value);
        self.bytes(number, &message.0);
    }
}
