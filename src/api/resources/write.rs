//! What happens to an object between decoding and storing, the same for all kinds; a row fills in what differs.
//!
//! ```text
//! create   decode → mutating admission → row.default → prepare_create → check
//! update   decode → mutating admission → row.default → prepare_update → check_update
//! status   decode → row.default → prepare_status → check_status
//! part     decode → row.default → prepare_part → part.validate
//! ```
//!
//! The server adds what only it knows: name from `generateName`, uid, creation time, resourceVersion. The rules are those
//! of `k8s.io/apiserver/pkg/registry/rest` (`BeforeCreate`, `BeforeUpdate`) and of the strategies of `pkg/registry`.

use serde_json::Value;

use super::metadata;
use super::path::{ensure_object, items_mut, object_mut, put, remove, text};
use super::{Generation, Part, Resource, WriteBehind, custom};
use crate::status::FieldError;

impl Resource {
    /// Fills in what a client left out. Idempotent.
    pub fn fill_defaults(&self, object: &mut Value) {
        (self.default)(object);
        if let Some(custom) = &self.custom {
            custom.fill(object);
        }
    }

    /// Makes what a client sent the first state of an object: a new status, no deletion, generation 1.
    pub fn prepare_create(&self, object: &mut Value) {
        let meta = ensure_object(object, "metadata");
        for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"] {
            remove(meta, field);
        }
        if self.generation != Generation::None {
            meta["generation"] = 1.into();
        }
        if self.has_status && !self.status_on_create {
            put(object, "status", &(self.new_status)());
        }
        (self.prepare)(object);
    }

    /// Checks a new object, metadata included.
    pub fn check(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = metadata::check(object, self.namespaced, self.name_rule);
        errors.extend((self.validate)(object));
        errors.extend(self.check_custom(object, None));
        errors
    }

    /// What the definition of a custom resource says of an object.
    fn check_custom(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let Some(custom) = &self.custom else { return Vec::new() };
        let mut errors = custom.check(new, old);
        if errors.is_empty() {
            errors.extend(self.scale.iter().flat_map(|scale| custom::check_scale(scale, new)));
        }
        errors
    }

    /// Makes what a client sent the next state of `old`: status and everything that the system keeps stay.
    pub fn prepare_update(&self, new: &mut Value, old: &Value) {
        keep_system_metadata(new, old);
        if self.has_status {
            put(new, "status", &old["status"]);
        }
        (self.prepare_update)(new, old);
        self.count_generation(new, old);
    }

    fn count_generation(&self, new: &mut Value, old: &Value) {
        let changed = match self.generation {
            Generation::None => return,
            Generation::Of(fields) => fields.iter().any(|field| new.pointer(field) != old.pointer(field)),
            Generation::ButStatus => custom::differs(new, old, self.has_status),
        };
        if changed {
            let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
            new["metadata"]["generation"] = generation.into();
        }
    }

    /// Checks the next state of `old`, metadata included.
    pub fn check_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = metadata::check_update(new, old);
        errors.extend((self.validate_update)(new, old));
        errors.extend(self.check_custom(new, Some(old)));
        errors
    }

    /// Makes what a client sent to `status` the next state of `old`: only status and metadata may change.
    pub fn prepare_status(&self, new: &mut Value, old: &Value) {
        keep_system_metadata(new, old);
        if self.custom.is_some() {
            custom::keep_metadata(new, old);
        }
        for field in self.status_keeps {
            put(ensure_object(new, "metadata"), field, &old["metadata"][*field]);
        }
        let mut result = old.clone();
        put(&mut result, "metadata", &new["metadata"]);
        if new["status"].is_null() {
            put(&mut result, "status", &(self.new_status)());
        } else {
            put(&mut result, "status", &new["status"]);
        }
        *new = result;
    }

    /// Checks a change through `status`, metadata included.
    pub fn check_status(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = metadata::check_update(new, old);
        errors.extend((self.validate_status)(new, old));
        errors.extend(self.check_custom(new, Some(old)));
        errors
    }

    /// Makes what a client sent to a part the next state of `old`: nothing else may change.
    pub fn prepare_part(&self, part: &Part, new: &mut Value, old: &Value) {
        let mut result = old.clone();
        (part.take)(&mut result, new);
        if !new["metadata"]["managedFields"].is_null() {
            put(ensure_object(&mut result, "metadata"), "managedFields", &new["metadata"]["managedFields"]);
        }
        self.count_generation(&mut result, old);
        *new = result;
    }

    /// Whether a write may be acknowledged before it has reached the disk; `old` is what it replaces.
    pub fn written_behind(&self, new: &Value, old: Option<&Value>) -> bool {
        match self.write_behind {
            WriteBehind::Never => false,
            WriteBehind::Always => true,
            WriteBehind::Namespace(namespace) => text(&new["metadata"], "namespace") == namespace,
            WriteBehind::Heartbeats => old.is_some_and(|old| without_heartbeats(new) == without_heartbeats(old)),
        }
    }
}

/// Fields of metadata that an update cannot change, and need not repeat.
fn keep_system_metadata(new: &mut Value, old: &Value) {
    let (meta, old) = (ensure_object(new, "metadata"), &old["metadata"]);
    for field in ["creationTimestamp", "generation", "selfLink"] {
        put(meta, field, &old[field]);
    }
    if meta["uid"].as_str().is_none_or(str::is_empty) {
        put(meta, "uid", &old["uid"]);
    }
    if !old["deletionTimestamp"].is_null() {
        put(meta, "deletionTimestamp", &old["deletionTimestamp"]);
    }
    if !old["deletionGracePeriodSeconds"].is_null() && meta["deletionGracePeriodSeconds"].is_null() {
        put(meta, "deletionGracePeriodSeconds", &old["deletionGracePeriodSeconds"]);
    }
}

/// The object without what every heartbeat changes.
fn without_heartbeats(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object_mut(&mut object, "metadata") {
        remove(metadata, "resourceVersion");
        remove(metadata, "managedFields");
    }
    if let Some(status) = object_mut(&mut object, "status") {
        items_mut(status, "conditions").for_each(|condition| remove(condition, "lastHeartbeatTime"));
    }
    object
}
