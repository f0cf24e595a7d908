//! Values of expressions: those of an object as they stand there, typed by its schema when they are looked at, and those
//! that expressions make.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::authorizer::Access;
use super::eval::{Budget, EvalError};
use super::made::{self, Made};
use super::{Identity, Scalar, Shape, time};
use crate::quantity::Quantity;

/// A value.
#[derive(Debug, Clone)]
pub enum Val<'v> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Rc<str>),
    Bytes(Rc<[u8]>),
    /// An object where it stands.
    Object(&'v Map<String, Value>, Option<&'v dyn Shape>),
    /// A list where it stands.
    Array(&'v [Value], Option<&'v dyn Shape>),
    List(Rc<Vec<Val<'v>>>),
    Map(Rc<Vec<(Val<'v>, Val<'v>)>>),
    Timestamp(Timestamp),
    /// Nanoseconds.
    Duration(i64),
    Quantity(Quantity),
    Url(Rc<str>),
    Ip(IpAddr),
    Cidr(IpAddr, u8),
    Optional(Option<Rc<Val<'v>>>),
    Type(&'static str),
    /// Who may do what.
    Access(Rc<Access<'v>>),
    /// A part of an object, or an operation of a patch, that the expression makes.
    Made(Rc<Made<'v>>),
}

impl<'v> Val<'v> {
    /// A value of an object, as its schema says what it is.
    pub fn of(value: &'v Value, shape: Option<&'v dyn Shape>) -> Self {
        let scalar = shape.map_or(Scalar::Any, Shape::scalar);
        match value {
            Value::Null => Self::Null,
            Value::Bool(truth) => Self::Bool(*truth),
            Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (_, _, Some(float)) if scalar == Scalar::Double => Self::Double(float),
                (Some(whole), ..) => Self::Int(whole),
                (_, Some(whole), _) => Self::Uint(whole),
                (.., Some(float)) if scalar == Scalar::Plain && float.fract() == 0.0 && float.abs() < 9e15 =>
                {
                    #[expect(clippy::cast_possible_truncation, reason = "it is whole and small enough")]
                    Self::Int(float as i64)
                }
                (.., float) => Self::Double(float.unwrap_or(f64::NAN)),
            },
            Value::String(text) => typed(text, scalar),
            Value::Array(items) => Self::Array(items, shape),
            Value::Object(fields) => Self::Object(fields, shape),
        }
    }

    pub(super) fn text(text: impl Into<Rc<str>>) -> Self {
        Self::Text(text.into())
    }

    pub(super) fn list(items: Vec<Self>) -> Self {
        Self::List(Rc::new(items))
    }

    pub(super) fn some(value: Self) -> Self {
        Self::Optional(Some(Rc::new(value)))
    }

    /// The name of the type, for messages and `type()`.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::Text(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Object(..) | Self::Map(_) => "map",
            Self::Array(..) | Self::List(_) => "list",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Url(_) => "kubernetes.URL",
            Self::Ip(_) => "net.IP",
            Self::Cidr(..) => "net.CIDR",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Access(access) => access.type_name(),
            Self::Made(_) => made::OBJECT,
        }
    }

    /// Whether it is the truth value `true`.
    pub fn is_true(&self) -> bool {
        matches!(self, Self::Bool(true))
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub(super) const fn is_map(&self) -> bool {
        matches!(self, Self::Object(..) | Self::Map(_))
    }

    /// Whether it may have fields that can be selected.
    pub(super) const fn has_fields(&self) -> bool {
        matches!(self, Self::Object(..) | Self::Map(_) | Self::Made(_))
    }

    pub(super) const fn is_list(&self) -> bool {
        matches!(self, Self::Array(..) | Self::List(_))
    }

    /// The element of a list at a place.
    pub(super) fn item(&self, place: usize) -> Option<Self> {
        match self {
            Self::Array(items, shape) => Some(Self::of(items.get(place)?, shape.and_then(|shape| shape.item()))),
            Self::List(items) => items.get(place).cloned(),
            _ => None,
        }
    }

    /// The elements of a list, none if it is none.
    pub(super) fn items(&self) -> Option<Vec<Self>> {
        match self {
            Self::Array(items, shape) => {
                let own = shape.and_then(|shape| shape.item());
                Some(items.iter().map(|item| Self::of(item, own)).collect())
            }
            Self::List(items) => Some(items.to_vec()),
            _ => None,
        }
    }

    /// The keys and values of a map, none if it is none.
    pub(super) fn entries(&self) -> Option<Vec<(Self, Self)>> {
        match self {
            Self::Object(fields, shape) => Some(
                fields
                    .iter()
                    .map(|(name, value)| {
                        (Self::text(name.as_str()), Self::of(value, shape.and_then(|shape| shape.field(name))))
                    })
                    .collect(),
            ),
            Self::Map(entries) => Some(entries.to_vec()),
            _ => None,
        }
    }

    /// How many elements, entries or characters there are.
    pub(super) fn size(&self) -> Option<usize> {
        Some(match self {
            Self::Text(text) => text.chars().count(),
            Self::Bytes(bytes) => bytes.len(),
            Self::Array(items, _) => items.len(),
            Self::List(items) => items.len(),
            Self::Object(fields, _) => fields.len(),
            Self::Map(entries) => entries.len(),
            _ => return None,
        })
    }

    /// A field or entry.
    pub(super) fn get(&self, name: &str) -> Option<Self> {
        match self {
            Self::Object(fields, shape) => {
                let value = fields.get(name)?;
                Some(Self::of(value, shape.and_then(|shape| shape.field(name))))
            }
            Self::Map(entries) => {
                entries.iter().find(|(key, _)| key.as_text() == Some(name)).map(|(_, value)| value.clone())
            }
            Self::Made(made) => made.get(name),
            _ => None,
        }
    }

    /// Whether two values are equal; what is compared is paid for.
    pub(super) fn equals(&self, other: &Self, budget: &mut Budget) -> Result<bool, EvalError> {
        budget.pay(1)?;
        Ok(match (self, other) {
            (Self::Text(a), Self::Text(b)) => {
                budget.pay_bytes(a.len().min(b.len()))?;
                a == b
            }
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Timestamp(a), Self::Timestamp(b)) => a == b,
            (Self::Duration(a), Self::Duration(b)) => a == b,
            (Self::Quantity(a), Self::Quantity(b)) => a == b,
            (Self::Url(a), Self::Url(b)) => a == b,
            (Self::Ip(a), Self::Ip(b)) => a == b,
            (Self::Cidr(a, m), Self::Cidr(b, n)) => a == b && m == n,
            (Self::Type(a), Self::Type(b)) => a == b,
            (Self::Optional(a), Self::Optional(b)) => match (a, b) {
                (None, None) => true,
                (Some(a), Some(b)) => a.equals(b, budget)?,
                _ => false,
            },
            (Self::Made(a), Self::Made(b)) => a.equals(b, budget)?,
            _ if self.is_number() && other.is_number() => self.compare(other) == Some(Ordering::Equal),
            _ if self.is_list() != other.is_list()
                || self.is_map() != other.is_map()
                || self.size() != other.size() =>
            {
                false
            }
            _ => {
                budget.pay(self.size().unwrap_or(0) as u64)?;
                match (self.items(), other.items(), self.entries(), other.entries()) {
                    (Some(a), Some(b), ..) => lists_equal(self, &a, &b, budget)?,
                    (.., Some(a), Some(b)) => maps_equal(&a, &b, budget)?,
                    _ => false,
                }
            }
        })
    }

    pub(super) const fn is_number(&self) -> bool {
        matches!(self, Self::Int(_) | Self::Uint(_) | Self::Double(_))
    }

    #[expect(clippy::cast_precision_loss, reason = "as CEL compares numbers of different types")]
    pub(super) fn as_double(&self) -> f64 {
        match self {
            Self::Int(number) => *number as f64,
            Self::Uint(number) => *number as f64,
            Self::Double(number) => *number,
            _ => f64::NAN,
        }
    }

    /// The order of two values, none if they have none.
    pub(super) fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(b)),
            (Self::Uint(a), Self::Uint(b)) => Some(a.cmp(b)),
            (Self::Int(a), Self::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Self::Uint(a), Self::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Self::Text(a), Self::Text(b)) => Some(a.cmp(b)),
            (Self::Bytes(a), Self::Bytes(b)) => Some(a.cmp(b)),
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::Timestamp(a), Self::Timestamp(b)) => Some(a.cmp(b)),
            (Self::Duration(a), Self::Duration(b)) => Some(a.cmp(b)),
            _ if self.is_number() && other.is_number() => self.as_double().partial_cmp(&other.as_double()),
            _ => None,
        }
    }

    /// Which elements of the list are the same, if it is one of an object.
    pub(super) fn identity(&self) -> Identity<'v> {
        match self {
            Self::Array(_, Some(shape)) => shape.identity(),
            _ => Identity::Place,
        }
    }
}

/// Lists that are sets or maps have no order.
fn lists_equal<'v>(list: &Val<'v>, a: &[Val<'v>], b: &[Val<'v>], budget: &mut Budget) -> Result<bool, EvalError> {
    if list.identity() == Identity::Place {
        for (a, b) in a.iter().zip(b) {
            if !a.equals(b, budget)? {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    for item in a {
        if !contains(b, item, budget)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether an element is in a list.
pub(super) fn contains<'v>(items: &[Val<'v>], item: &Val<'v>, budget: &mut Budget) -> Result<bool, EvalError> {
    for other in items {
        if other.equals(item, budget)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn maps_equal<'v>(a: &[(Val<'v>, Val<'v>)], b: &[(Val<'v>, Val<'v>)], budget: &mut Budget) -> Result<bool, EvalError> {
    for (key, value) in a {
        let mut found = false;
        for (other, theirs) in b {
            if key.equals(other, budget)? {
                found = value.equals(theirs, budget)?;
                break;
            }
        }
        if !found {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A text that stands for something else; one that does not is what it is.
fn typed<'v>(text: &str, scalar: Scalar) -> Val<'v> {
    let other = match scalar {
        Scalar::Timestamp => time::timestamp(text).map(Val::Timestamp),
        Scalar::Duration => time::duration(text).map(Val::Duration),
        Scalar::Bytes => STANDARD.decode(text).ok().map(|bytes| Val::Bytes(bytes.into())),
        _ => None,
    };
    other.unwrap_or_else(|| Val::text(text))
}
