//! Managed fields between an object and its Scale (`managedfields/scalehandler.go` of apimachinery).
//!
//! In a Scale, whoever manages the number of replicas of the object manages `spec.replicas`, and nobody anything else.

use std::collections::BTreeMap;

use serde_json::Value;

use super::element::Element;
use super::entries::{Fields, Managers};
use super::set::{Path, Set};

const VERSION: &str = "autoscaling/v1";

/// The managed fields of an object as those of its Scale; `place` is the JSON pointer of the replicas in each version.
pub fn to_scale(object: &Value, scale: &mut Value, place: impl Fn(&str) -> Option<&'static str>) {
    let managers = Managers::read(object).unwrap_or_default();
    let mut replicas = Set::default();
    replicas.insert(&steps("/spec/replicas"));
    let mut found = BTreeMap::new();
    for (manager, fields) in managers.0 {
        let Some(place) = place(&fields.version) else { continue };
        if fields.set.contains(&steps(place)) {
            found.insert(manager, Fields { version: VERSION.to_owned(), set: replicas.clone(), time: fields.time });
        }
    }
    Managers(found).write(scale);
}

/// The managed fields of an object after those of its Scale became others; `version` is that of the request.
pub fn from_scale(object: &mut Value, scale: &Value, version: &str, place: impl Fn(&str) -> Option<&'static str>) {
    let mut managers = Managers::read(object).unwrap_or_default();
    let mut scaled = Managers::read(scale).unwrap_or_default();
    managers.0.retain(|manager, fields| {
        let Some(place) = place(&fields.version) else { return false };
        let path = steps(place);
        let mut in_scale = manager.clone();
        if !in_scale.version.is_empty() {
            VERSION.clone_into(&mut in_scale.version);
        }
        if fields.set.contains(&path) && scaled.0.remove(&in_scale).is_none() {
            let mut gone = Set::default();
            gone.insert(&path);
            fields.set = std::mem::take(&mut fields.set).difference(&gone);
        }
        true
    });
    managers.drop_idle();
    if let Some(place) = place(version) {
        let mut set = Set::default();
        set.insert(&steps(place));
        for (mut manager, fields) in scaled.0 {
            if !manager.version.is_empty() {
                version.clone_into(&mut manager.version);
            }
            let before = managers.0.remove(&manager).map(|fields| fields.set).unwrap_or_default();
            let fields = Fields { version: version.to_owned(), set: before.union(&set), time: fields.time };
            managers.0.insert(manager, fields);
        }
    }
    managers.write(object);
}

fn steps(pointer: &str) -> Path {
    pointer.split('/').skip(1).map(Element::field).collect()
}
