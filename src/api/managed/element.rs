//! One step of a path to a field, and how `FieldsV1` writes it.

use std::cmp::Ordering;
use std::fmt;

use serde_json::{Map, Number, Value};

/// A step from a value to a part of it. Ordered as upstream orders them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Element {
    /// `f:name`: a field of a struct or an entry of a map.
    Field(String),
    /// `k:{…}`: the item of a list whose key fields have these values, by name.
    Key(Vec<(String, Atom)>),
    /// `v:…`: the item of a set that is this value.
    Value(Atom),
    /// `i:3`: the item at a place, which nobody writes nowadays.
    Index(i64),
}

/// A value that identifies an item, with a total order.
#[derive(Debug, Clone)]
pub struct Atom(pub(super) Value);

impl Element {
    /// A field or entry.
    pub fn field(name: &str) -> Self {
        Self::Field(name.to_owned())
    }

    /// Reads a key of `FieldsV1`; none if a future version wrote it, an error if it is malformed.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, String> {
        let Some((kind, rest)) = text.split_once(':').filter(|(kind, _)| kind.len() == 1) else {
            return Err(format!("missing colon: {text}"));
        };
        let json = || serde_json::from_str(rest).map_err(|error| format!("{text}: {error}"));
        Ok(Some(match kind {
            "f" => Self::Field(rest.to_owned()),
            "v" => Self::Value(Atom(json()?)),
            "k" => match json()? {
                Value::Object(fields) => {
                    Self::Key(fields.into_iter().map(|(name, value)| (name, Atom(value))).collect())
                }
                _ => return Err(format!("{text}: not an object")),
            },
            "i" => Self::Index(rest.parse().map_err(|error| format!("{text}: {error}"))?),
            _ => return Ok(None),
        }))
    }

    /// The key of `FieldsV1`.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(fields) => {
                let fields: Map<String, Value> =
                    fields.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect();
                format!("k:{}", Value::Object(fields))
            }
            Self::Value(value) => format!("v:{}", value.0),
            Self::Index(place) => format!("i:{place}"),
        }
    }
}

/// As paths are shown to people: `.spec`, `[name="web"]`, `[="a"]`, `[3]`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(fields) => {
                let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}", value.0)).collect();
                write!(f, "[{}]", fields.join(","))
            }
            Self::Value(value) => write!(f, "[={}]", value.0),
            Self::Index(place) => write!(f, "[{place}]"),
        }
    }
}

impl PartialEq for Atom {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Atom {}

impl PartialOrd for Atom {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Atom {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.0, &other.0)
    }
}

fn compare(left: &Value, right: &Value) -> Ordering {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => compare_numbers(left, right),
        (Value::String(left), Value::String(right)) => left.cmp(right),
        (Value::Bool(left), Value::Bool(right)) => left.cmp(right),
        (Value::Array(left), Value::Array(right)) => {
            let unequal = left.iter().zip(right).map(|(left, right)| compare(left, right)).find(|order| order.is_ne());
            unequal.unwrap_or_else(|| left.len().cmp(&right.len()))
        }
        (Value::Object(left), Value::Object(right)) => {
            let entries = left.iter().zip(right);
            let unequal = entries
                .map(|((name, value), (other, right))| name.cmp(other).then_with(|| compare(value, right)))
                .find(|order| order.is_ne());
            unequal.unwrap_or_else(|| left.len().cmp(&right.len()))
        }
        _ => rank(left).cmp(&rank(right)),
    }
}

/// Integers exactly, others as floating-point numbers; of equal ones the integer is the lesser.
fn compare_numbers(left: &Number, right: &Number) -> Ordering {
    let integer = |number: &Number| number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    match (integer(left), integer(right)) {
        (Some(left), Some(right)) => left.cmp(&right),
        (left_integer, right_integer) => {
            let float = |number: &Number| number.as_f64().unwrap_or(0.0);
            let order = float(left).total_cmp(&float(right));
            order.then_with(|| right_integer.is_some().cmp(&left_integer.is_some()))
        }
    }
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    }
}
