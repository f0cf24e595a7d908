//! How objects of a custom resource merge when a configuration is applied, by `x-kubernetes-list-type`,
//! `x-kubernetes-list-map-keys` and `x-kubernetes-map-type` (`k8s.io/kube-openapi/pkg/schemaconv` of upstream).
//!
//! `metadata`, also that of embedded objects, merges as that of any object. What a schema keeps without specifying it
//! merges by what is there.

use serde_json::Value;

use super::Custom;
use super::prune::OBJECT;
use super::schema::{Additional, List, Schema, Type};
use crate::managed::{BuiltIn, Form, Layout};
use crate::schema::lookup;

/// One place in the schema of a custom resource.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a>(Node<'a>);

#[derive(Debug, Clone, Copy)]
enum Node<'a> {
    Declared(&'a Schema, IsObject),
    Known(BuiltIn),
    Unspecified,
}

/// Whether a whole object stands at a place, with metadata of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct IsObject(bool);

impl Custom {
    /// Where objects of a version begin; none if the definition has no such version.
    pub(crate) fn layout(&self, version: &str) -> Option<Place<'_>> {
        let version = self.versions.iter().find(|own| own.name == version)?;
        Some(Place(Node::Declared(version.schema(), IsObject(true))))
    }
}

impl<'a> Place<'a> {
    fn of(schema: &'a Schema) -> Self {
        Self(Node::Declared(schema, IsObject(schema.embedded)))
    }
}

impl<'a> Layout for Place<'a> {
    fn form(self) -> Form {
        let (schema, is_object) = match self.0 {
            Node::Declared(schema, is_object) => (schema, is_object),
            Node::Known(place) => return place.form(),
            Node::Unspecified => return Form::Untyped,
        };
        match schema.ty {
            _ if schema.int_or_string => Form::Scalar,
            _ if is_object == IsObject(true) => Form::Map,
            Some(Type::Object) if schema.atomic => Form::AtomicMap,
            Some(Type::Object) if schema.properties.is_empty() && matches!(schema.additional, Additional::Unsaid) => {
                Form::Untyped
            }
            Some(Type::Object) => Form::Map,
            Some(Type::Array) => match schema.list {
                List::Atomic => Form::AtomicList,
                List::Set => Form::Set,
                List::Map(_) => Form::Keyed,
            },
            Some(_) => Form::Scalar,
            None => Form::Untyped,
        }
    }

    fn field(self, name: &str) -> Option<(Self, bool)> {
        let (schema, is_object) = match self.0 {
            Node::Declared(schema, is_object) => (schema, is_object),
            Node::Known(place) => {
                return place.field(name).map(|(below, is_declared)| (Self(Node::Known(below)), is_declared));
            }
            Node::Unspecified => return Some((self, false)),
        };
        if is_object == IsObject(true) && OBJECT.contains(&name) {
            let any = BuiltIn::of(lookup("", "v1", "ConfigMap")?);
            return any.field(name).map(|(below, is_declared)| (Self(Node::Known(below)), is_declared));
        }
        if let Some(own) = schema.properties.get(name) {
            return Some((Self::of(own), true));
        }
        let keeps_all = schema.preserve || self.form() == Form::Untyped || schema.ty.is_none();
        match &schema.additional {
            Additional::Of(own) => Some((Self::of(own), false)),
            Additional::Allowed(true) => Some((Self(Node::Unspecified), false)),
            _ if keeps_all => Some((Self(Node::Unspecified), false)),
            _ => None,
        }
    }

    fn item(self) -> Self {
        match self.0 {
            Node::Declared(schema, _) => schema.items.as_deref().map_or(Self(Node::Unspecified), Self::of),
            Node::Known(place) => Self(Node::Known(place.item())),
            Node::Unspecified => self,
        }
    }

    fn keys(&self) -> Vec<&str> {
        match &self.0 {
            Node::Declared(Schema { list: List::Map(keys), .. }, _) => keys.iter().map(String::as_str).collect(),
            Node::Known(place) => place.keys(),
            _ => Vec::new(),
        }
    }

    fn default_of(&self, key: &str) -> Option<Value> {
        match self.0 {
            Node::Declared(schema, _) => schema.items.as_deref()?.properties.get(key)?.default.clone(),
            Node::Known(place) => place.default_of(key),
            Node::Unspecified => None,
        }
    }
}
