//! Messages to JSON objects, field by field as the schema table says.
//!
//! Upstream's writers (gogo protobuf) write every field that is not a pointer, zero or not, so zeros of optional fields
//! are dropped again: the JSON is what upstream's types would emit.

use serde_json::{Map, Value, json};

use super::special;
use super::wire::{Problem, Reader, Wire};
use crate::schema::{Base, Field, Shape, TypeRef};

/// No built-in type nests this deep.
const MAX_DEPTH: usize = 64;

/// Reads a message of a type.
pub(super) fn decode(ty: TypeRef, bytes: &[u8]) -> Result<Map<String, Value>, Problem> {
    let mut object = Map::new();
    fill(ty, &[], bytes, &mut object, MAX_DEPTH)?;
    Ok(object)
}

/// Reads the message that `outer` numbers lead to, into the JSON object of `ty`: upstream embeds some structs, whose
/// fields are in a message of their own on the wire but beside the others in JSON.
fn fill(ty: TypeRef, outer: &[u8], bytes: &[u8], object: &mut Map<String, Value>, depth: usize) -> Result<(), Problem> {
    let depth = depth.checked_sub(1).ok_or(Problem::Depth)?;
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next()? {
        let Ok(number) = u8::try_from(number) else { continue };
        let mut path = outer.to_vec();
        path.push(number);
        let mut below = ty.fields().iter().filter(|field| field.numbers.starts_with(&path) && number != 0);
        let Some(field) = below.next() else { continue };
        if field.numbers.get(path.len()).is_some_and(|inner| *inner != 0) {
            fill(ty, &path, wire.bytes()?, object, depth)?;
        } else {
            read_field(field, wire, object, depth)?;
        }
    }
    Ok(())
}

fn read_field(field: &Field, wire: Wire<'_>, object: &mut Map<String, Value>, depth: usize) -> Result<(), Problem> {
    let name = field.name.to_owned();
    match field.shape {
        Shape::One => {
            let value = single(field.base, wire, depth)?;
            // Readers of protobuf keep the last of repeated values.
            if value.is_null() || (!field.pointer && !field.always && is_zero(&value)) {
                object.remove(&name);
            } else {
                object.insert(name, value);
            }
        }
        Shape::List => {
            let values = elements(field.base, wire, depth)?;
            if let Value::Array(list) = object.entry(name).or_insert_with(|| json!([])) {
                list.extend(values);
            }
        }
        Shape::Map | Shape::MapOfLists => {
            let (key, value) = entry(field, wire.bytes()?, depth)?;
            if let Value::Object(map) = object.entry(name).or_insert_with(|| json!({})) {
                map.insert(key, value);
            }
        }
    }
    Ok(())
}

/// The element of a repeated field, or all elements of a packed one.
fn elements(base: Base, wire: Wire<'_>, depth: usize) -> Result<Vec<Value>, Problem> {
    let packable = matches!(base, Base::Bool | Base::Int32 | Base::Int64);
    let Wire::Bytes(bytes) = wire else { return Ok(vec![single(base, wire, depth)?]) };
    if !packable {
        return Ok(vec![single(base, wire, depth)?]);
    }
    let mut reader = Reader::new(bytes);
    let mut values = Vec::new();
    while !reader.is_done() {
        values.push(single(base, Wire::Varint(reader.varint()?), depth)?);
    }
    Ok(values)
}

/// An entry of a map: a message of key and value.
fn entry(field: &Field, bytes: &[u8], depth: usize) -> Result<(String, Value), Problem> {
    let mut key = String::new();
    let mut value = None;
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next()? {
        match number {
            1 => wire.text()?.clone_into(&mut key),
            2 if field.shape == Shape::MapOfLists => value = Some(wrapped_list(wire.bytes()?)?),
            2 => value = Some(single(field.base, wire, depth)?),
            _ => {}
        }
    }
    let empty = match field.shape {
        Shape::MapOfLists => json!([]),
        _ => single(field.base, zero_wire(field.base), depth)?,
    };
    Ok((key, value.unwrap_or(empty)))
}

/// What an absent map value stands for.
fn zero_wire(base: Base) -> Wire<'static> {
    match base {
        Base::Bool | Base::Int32 | Base::Int64 => Wire::Varint(0),
        Base::Double => Wire::Fixed64(0),
        _ => Wire::Bytes(&[]),
    }
}

/// A list of texts in a message of its own (`ExtraValue`).
fn wrapped_list(bytes: &[u8]) -> Result<Value, Problem> {
    let mut reader = Reader::new(bytes);
    let mut items = Vec::new();
    while let Some((number, wire)) = reader.next()? {
        if number == 1 {
            items.push(json!(wire.text()?));
        }
    }
    Ok(Value::Array(items))
}

fn single(base: Base, wire: Wire<'_>, depth: usize) -> Result<Value, Problem> {
    Ok(match base {
        Base::String => json!(wire.text()?),
        Base::Bool => json!(wire.int64()? != 0),
        Base::Int32 => json!(wire.int32()?),
        Base::Int64 => json!(wire.int64()?),
        Base::Double => json!(wire.double()?),
        Base::Bytes => special::base64(wire.bytes()?),
        Base::Quantity => special::quantity(wire.bytes()?)?,
        Base::Time => special::time(wire.bytes()?, false)?,
        Base::MicroTime => special::time(wire.bytes()?, true)?,
        Base::Duration => special::duration(wire.bytes()?)?,
        Base::IntOrString => special::int_or_string(wire.bytes()?)?,
        Base::Raw | Base::FieldsV1 => special::raw(wire.bytes()?)?,
        Base::Type(ty) => {
            let mut object = Map::new();
            fill(ty, &[], wire.bytes()?, &mut object, depth)?;
            Value::Object(object)
        }
    })
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Bool(truth) => !truth,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}
