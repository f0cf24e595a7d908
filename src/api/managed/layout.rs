//! What apply needs to know of types: what merges by its parts and what is replaced as a whole.
//!
//! [`Layout`] describes one place in a type, [`Kind`] the versions of a kind. Those of the built-in kinds are made from
//! [`crate::schema`] here; custom resources make theirs from the schemas of their definitions.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::element::{Atom, Element};
use crate::resources::custom::{self, Custom};
use crate::resources::{self, Resource};
use crate::schema::{self, Base, Field, ListType, Shape, TypeRef};

/// How values at one place merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Without parts.
    Scalar,
    /// A struct or map, each field by itself.
    Map,
    /// A struct or map that is replaced as a whole.
    AtomicMap,
    /// A list of scalars, each by itself.
    Set,
    /// A list whose items are known by key fields.
    Keyed,
    /// A list that is replaced as a whole.
    AtomicList,
    /// Anything, replaced as a whole.
    Opaque,
    /// Nothing is declared: maps merge, all else is replaced.
    Untyped,
}

/// One place in a type.
pub trait Layout: Copy {
    /// How values merge here.
    fn form(self) -> Form;
    /// The place of a field or entry below, and whether it is a field that the type declares; none if there may be none.
    fn field(self, name: &str) -> Option<(Self, bool)>;
    /// The place of the items of a list.
    fn item(self) -> Self;
    /// The key fields of a list of form `Keyed`.
    fn keys(&self) -> Vec<&str>;
    /// What stands here where the value is left out, if that does not mean that there is none.
    fn absent(&self) -> Option<&'static Value> {
        None
    }
    /// What a key field is in items that leave it out.
    fn default_of(&self, key: &str) -> Option<Value>;

    /// Which item of a list a value is, or the sentence why it cannot be told.
    fn identify(self, item: &Value) -> Result<Element, String> {
        if self.form() == Form::Set {
            return match item {
                Value::Object(_) => Err("associative list without keys has an element that's a map type".to_owned()),
                Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
                Value::Null => Err("associative list without keys has an element that's an explicit null".to_owned()),
                scalar => Ok(Element::Value(Atom(scalar.clone()))),
            };
        }
        let fields = match item {
            Value::Object(fields) => fields,
            Value::Null => return Err("associative list with keys may not have a null element".to_owned()),
            _ => return Err("associative list with keys may not have non-map elements".to_owned()),
        };
        let mut keys = Vec::new();
        for key in self.keys() {
            let value = fields.get(key).cloned().or_else(|| self.default_of(key)).ok_or_else(|| {
                format!(
                    "associative list with keys has an element that omits key field {key:?} (and doesn't have default value)"
                )
            })?;
            keys.push((key.to_owned(), Atom(value)));
        }
        keys.sort();
        Ok(Element::Key(keys))
    }

    /// The form as values show it; nulls show nothing.
    fn form_of(self, left: Option<&Value>, right: Option<&Value>) -> Form {
        let form = self.form();
        let mut values = [left, right].into_iter().flatten().filter(|value| !value.is_null());
        let Some(value) = values.next() else { return if form == Form::Untyped { Form::Opaque } else { form } };
        let alike = |other: &Value| other.is_object() == value.is_object() && other.is_array() == value.is_array();
        match form {
            _ if !values.all(alike) => Form::Opaque,
            Form::Untyped if value.is_object() => Form::Map,
            Form::Untyped => Form::Opaque,
            Form::Map if !value.is_object() => Form::Opaque,
            Form::Set | Form::Keyed if !value.is_array() => Form::Opaque,
            form => form,
        }
    }
}

/// A kind in all its versions, as one request writes it. Versions are written as in `apiVersion`.
pub trait Kind {
    /// How its types are described.
    type Layout: Layout;

    /// The version of the request.
    fn version(&self) -> &str;
    /// The layout of a version; none if it is not served.
    fn layout(&self, version: &str) -> Option<Self::Layout>;
    /// An object of the request's version in another one, or back; none if that is not served.
    fn convert(&self, object: &Value, from: &str, to: &str) -> Option<Value>;
    /// Whether the request writes what is below this field of the object.
    fn writes(&self, field: &str) -> bool;
    /// Gives the values of a configuration the form in which they are stored, or says what they cannot be.
    fn canonical(&self, configuration: &mut Value) -> Result<(), String>;
}

/// A place in a built-in type.
#[derive(Debug, Clone, Copy)]
pub struct BuiltIn(Place);

#[derive(Debug, Clone, Copy)]
enum Place {
    Field(&'static Field),
    One(Base),
    List(Base),
    Untyped,
}

impl BuiltIn {
    /// A whole object.
    pub fn of(ty: TypeRef) -> Self {
        Self(Place::One(Base::Type(ty)))
    }

    /// An object of which nothing is known.
    pub fn untyped() -> Self {
        Self(Place::Untyped)
    }
}

impl Layout for BuiltIn {
    fn form(self) -> Form {
        let base = match self.0 {
            Place::Untyped => return Form::Untyped,
            Place::List(_) => return Form::AtomicList,
            Place::One(base) => base,
            Place::Field(field) => match (field.shape, field.list_type) {
                // Bytes are marked as well, being lists to Go.
                (Shape::One, ListType::Atomic) if matches!(field.base, Base::Type(_)) => return Form::AtomicMap,
                (Shape::One, _) => field.base,
                (Shape::Map | Shape::MapOfLists, ListType::Atomic) => return Form::AtomicMap,
                (Shape::Map | Shape::MapOfLists, _) => return Form::Map,
                (Shape::List, ListType::Set) => return Form::Set,
                (Shape::List, ListType::Map) => return Form::Keyed,
                (Shape::List, _) => return Form::AtomicList,
            },
        };
        match base {
            Base::Type(ty) if ty.is_atomic() => Form::AtomicMap,
            Base::Type(_) => Form::Map,
            Base::Raw | Base::FieldsV1 => Form::Opaque,
            _ => Form::Scalar,
        }
    }

    fn field(self, name: &str) -> Option<(Self, bool)> {
        let base = match self.0 {
            Place::Untyped => return Some((self, false)),
            Place::Field(Field { shape: Shape::Map, base, .. }) => return Some((Self(Place::One(*base)), false)),
            Place::Field(Field { shape: Shape::MapOfLists, base, .. }) => {
                return Some((Self(Place::List(*base)), false));
            }
            Place::Field(Field { shape: Shape::One, base, .. }) => *base,
            Place::One(base) => base,
            Place::Field(_) | Place::List(_) => return None,
        };
        let Base::Type(ty) = base else { return None };
        Some((Self(Place::Field(ty.field(name)?)), true))
    }

    fn item(self) -> Self {
        match self.0 {
            Place::Field(field) => Self(Place::One(field.base)),
            Place::List(base) => Self(Place::One(base)),
            Place::One(_) | Place::Untyped => Self::untyped(),
        }
    }

    fn keys(&self) -> Vec<&str> {
        if let Place::Field(field) = self.0 { field.map_keys().collect() } else { Vec::new() }
    }

    /// Structs that are no pointers, and lists and maps that are written even when empty, are always there in Go.
    fn absent(&self) -> Option<&'static Value> {
        static NOTHING: LazyLock<Value> = LazyLock::new(|| json!({}));
        match self.0 {
            Place::Field(Field { shape: Shape::One, base: Base::Type(_), pointer: false, .. }) => Some(&NOTHING),
            Place::Field(Field { shape: Shape::List | Shape::Map, always: true, .. }) => Some(&Value::Null),
            _ => None,
        }
    }

    /// Protocols are the only key fields with a default (`+default="TCP"` of ContainerPort and ServicePort).
    fn default_of(&self, key: &str) -> Option<Value> {
        (key == "protocol").then(|| json!("TCP"))
    }
}

/// A place in the type of a row.
#[derive(Debug, Clone, Copy)]
pub enum RowLayout<'a> {
    /// Of a built-in kind.
    BuiltIn(BuiltIn),
    /// Of a kind that came at run time.
    Custom(custom::Place<'a>),
}

impl Layout for RowLayout<'_> {
    fn form(self) -> Form {
        match self {
            Self::BuiltIn(place) => place.form(),
            Self::Custom(place) => place.form(),
        }
    }

    fn field(self, name: &str) -> Option<(Self, bool)> {
        Some(match self {
            Self::BuiltIn(place) => place.field(name).map(|(below, declared)| (Self::BuiltIn(below), declared))?,
            Self::Custom(place) => place.field(name).map(|(below, declared)| (Self::Custom(below), declared))?,
        })
    }

    fn item(self) -> Self {
        match self {
            Self::BuiltIn(place) => Self::BuiltIn(place.item()),
            Self::Custom(place) => Self::Custom(place.item()),
        }
    }

    fn keys(&self) -> Vec<&str> {
        match self {
            Self::BuiltIn(place) => place.keys(),
            Self::Custom(place) => place.keys(),
        }
    }

    fn absent(&self) -> Option<&'static Value> {
        match self {
            Self::BuiltIn(place) => place.absent(),
            Self::Custom(place) => place.absent(),
        }
    }

    fn default_of(&self, key: &str) -> Option<Value> {
        match self {
            Self::BuiltIn(place) => place.default_of(key),
            Self::Custom(place) => place.default_of(key),
        }
    }
}

/// The kind of a row, written through a subresource or (if it is empty) itself.
#[derive(Debug, Clone)]
pub struct RowKind<'a> {
    row: &'a Resource,
    version: String,
    subresource: String,
}

impl<'a> RowKind<'a> {
    /// The kind of a row.
    pub fn new(row: &'a Resource, subresource: &str) -> Self {
        Self { row, version: row.api_version(), subresource: subresource.to_owned() }
    }

    /// The row of the same built-in kind that serves a version.
    fn serving(&self, version: &str) -> Option<&'a Resource> {
        if version == self.version {
            return Some(self.row);
        }
        let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
        let other = resources::find_kind(group, version, self.row.kind)?;
        std::ptr::eq(other.stored(), self.row.stored()).then_some(other)
    }

    /// Where objects of a version of the same custom kind begin.
    fn place(&self, custom: &'a Custom, version: &str) -> Option<custom::Place<'a>> {
        let (group, version) = version.rsplit_once('/')?;
        (group == self.row.group).then(|| custom.layout(version)).flatten()
    }
}

impl<'a> Kind for RowKind<'a> {
    type Layout = RowLayout<'a>;

    fn version(&self) -> &str {
        &self.version
    }

    fn layout(&self, version: &str) -> Option<RowLayout<'a>> {
        if let Some(custom) = self.row.custom.as_deref() {
            return self.place(custom, version).map(RowLayout::Custom);
        }
        let row = self.serving(version)?;
        let ty = schema::lookup(row.group, row.version, row.kind);
        Some(RowLayout::BuiltIn(ty.map_or_else(BuiltIn::untyped, BuiltIn::of)))
    }

    fn convert(&self, object: &Value, from: &str, to: &str) -> Option<Value> {
        if let Some(custom) = self.row.custom.as_deref() {
            // Versions of a custom resource differ in their schemas only.
            self.place(custom, to)?;
            let mut object = object.clone();
            if object["apiVersion"].is_string() {
                object["apiVersion"] = to.into();
            }
            return Some(object);
        }
        let (from, to) = (self.serving(from)?, self.serving(to)?);
        Some(to.of_stored(from.to_stored(object).into_owned()))
    }

    fn writes(&self, field: &str) -> bool {
        match (self.subresource.as_str(), field) {
            ("status", field) => matches!(field, "apiVersion" | "kind" | "metadata" | "status"),
            (_, "status") => !self.row.has_status,
            _ => true,
        }
    }

    fn canonical(&self, configuration: &mut Value) -> Result<(), String> {
        let Some(ty) = schema::lookup(self.row.group, self.row.version, self.row.kind) else { return Ok(()) };
        schema::conform(ty, configuration).map_err(|error| error.message)
    }
}

/// The fields of an object, none if it is none.
pub(super) fn fields(value: Option<&Value>) -> Option<&Map<String, Value>> {
    value.and_then(Value::as_object)
}

/// The items of a list, none if it is none.
pub(super) fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
