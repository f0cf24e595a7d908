//! The subresource `scale`: a view of an object as `autoscaling/v1 Scale`, through which anybody can set how many replicas
//! there are without knowing the kind.
//!
//! A row says where in its objects the numbers and the selector are; custom resources say the same in their definitions.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cell::{self, column};
use super::path::{ensure_object, put, text};
use super::{BLANK, Resource, metadata, rule, selector};
use crate::status::FieldError;

/// Where an object keeps what a Scale shows. Places are JSON pointers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// The wanted number of replicas.
    pub wanted: &'static str,
    /// The actual number of replicas.
    pub actual: &'static str,
    /// By which labels the replicas are known.
    pub selector: Selector,
}

/// How an object says which pods are its replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selector {
    /// A `LabelSelector` at this place.
    Labels(&'static str),
    /// A map of labels at this place.
    Map(&'static str),
    /// The text of a query at this place.
    Text(&'static str),
    /// It does not.
    Unsaid,
}

/// The usual place: `spec.replicas`, `status.replicas` and a `LabelSelector` in `spec.selector`.
pub(super) const USUAL: Scale =
    Scale { wanted: "/spec/replicas", actual: "/status/replicas", selector: Selector::Labels("/spec/selector") };

/// `Scale` itself: never stored, and shown in tables as any kind is.
pub const ROW: Resource = Resource {
    group: "autoscaling",
    kind: "Scale",
    plural: "scales",
    singular: "scale",
    validate,
    columns: &[
        cell::NAME,
        column("Desired", "integer", "", "How many replicas are wanted.", 0),
        column("Available", "integer", "", "How many replicas there are.", 0),
        cell::AGE,
    ],
    cells,
    ..BLANK
};

fn cells(scale: &Value, now: Timestamp) -> Vec<Value> {
    let count = |part: &str| scale[part]["replicas"].as_i64().unwrap_or(0).into();
    vec![cell::name(scale), count("spec"), count("status"), cell::age(scale, now)]
}

/// `pkg/apis/autoscaling/validation.ValidateScale`.
fn validate(scale: &Value) -> Vec<FieldError> {
    let mut errors = metadata::check(scale, true, super::NameRule::Subdomain);
    errors.extend(rule::not_negative(&super::path::Path::new("spec").child("replicas"), &scale["spec"]["replicas"]));
    errors
}

impl Scale {
    /// The Scale of an object.
    pub fn read(&self, object: &Value) -> Value {
        let at = |place: &str| object.pointer(place).unwrap_or(&Value::Null);
        let replicas = |place: &str| at(place).as_i64().unwrap_or(0);
        let own = &object["metadata"];
        let mut metadata = json!({});
        for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
            put(&mut metadata, field, &own[field]);
        }
        let query = match self.selector {
            Selector::Labels(place) => selector::query(at(place)),
            Selector::Map(place) => selector::map_query(at(place)),
            Selector::Text(place) => at(place).as_str().unwrap_or_default().to_owned(),
            Selector::Unsaid => String::new(),
        };
        let mut status = json!({"replicas": replicas(self.actual)});
        if !query.is_empty() {
            status["selector"] = query.into();
        }
        let mut spec = json!({});
        // As every number of upstream's that may be left out, 0 is.
        if replicas(self.wanted) != 0 {
            spec["replicas"] = replicas(self.wanted).into();
        }
        json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
    }

    /// Makes the number of replicas that a Scale wants that of an object, and takes over the resourceVersion that the
    /// Scale is for.
    pub fn write(&self, object: &mut Value, scale: &Value) {
        let wanted = scale["spec"]["replicas"].as_i64().unwrap_or(0);
        let mut fields: Vec<&str> = self.wanted.split('/').skip(1).collect();
        let Some(last) = fields.pop() else { return };
        let mut parent = &mut *object;
        for field in fields {
            parent = ensure_object(parent, field);
        }
        put(parent, last, &wanted.into());
        let version = text(&scale["metadata"], "resourceVersion");
        if !version.is_empty() {
            ensure_object(object, "metadata")["resourceVersion"] = version.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_shows_replicas_and_selector_of_an_object() {
        let object = json!({
            "metadata": {"name": "web", "namespace": "default", "uid": "1", "resourceVersion": "7", "labels": {"a": "b"}},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"b": "1", "a": "2"}}},
            "status": {"replicas": 2},
        });
        let scale = USUAL.read(&object);
        let metadata = json!({"name": "web", "namespace": "default", "uid": "1", "resourceVersion": "7"});
        assert_eq!((&scale["metadata"], &scale["spec"]), (&metadata, &json!({"replicas": 3})));
        assert_eq!(scale["status"], json!({"replicas": 2, "selector": "a=2,b=1"}));
    }

    #[test]
    fn selectors_are_read_in_every_form() {
        let query = |selector, spec: Value| {
            let scale = Scale { selector, ..USUAL }.read(&json!({"spec": spec}));
            scale["status"]["selector"].clone()
        };
        assert_eq!(query(Selector::Map("/spec/selector"), json!({"selector": {"a": "b"}})), "a=b");
        assert_eq!(query(Selector::Text("/spec/labels"), json!({"labels": "a in (b,c)"})), "a in (b,c)");
        assert_eq!(query(Selector::Unsaid, json!({"selector": {"a": "b"}})), Value::Null);
        let expressions = json!({"selector": {"matchExpressions": [
            {"key": "d", "operator": "Exists"}, {"key": "c", "operator": "NotIn", "values": ["z", "y"]}]}});
        assert_eq!(query(Selector::Labels("/spec/selector"), expressions), "c notin (y,z),d");
    }

    #[test]
    fn writing_a_scale_changes_replicas_and_nothing_else() {
        let mut object = json!({"metadata": {"name": "web", "resourceVersion": "7"}, "spec": {"replicas": 3, "x": 1}});
        USUAL.write(&mut object, &json!({"metadata": {"name": "other"}, "spec": {}}));
        assert_eq!(
            object,
            json!({"metadata": {"name": "web", "resourceVersion": "7"}, "spec": {"replicas": 0, "x": 1}})
        );
        let mut custom = json!({});
        let place = Scale { wanted: "/spec/size/count", ..USUAL };
        place.write(&mut custom, &json!({"metadata": {"resourceVersion": "9"}, "spec": {"replicas": 2}}));
        assert_eq!(custom, json!({"metadata": {"resourceVersion": "9"}, "spec": {"size": {"count": 2}}}));
    }
}
