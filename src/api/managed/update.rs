//! Who manages what after a write that is no apply: what changed is the writer's.
//!
//! The order of steps is that of upstream's chain of managers (`managedfields/internal/fieldmanager.go`).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use super::compare::{self, Difference};
use super::element::Element;
use super::entries::{self, Fields, Manager, Managers, Operation};
use super::layout::Kind;
use super::set::Set;

/// Who writes, when, and through which subresource (empty for the object itself).
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// The name of the manager.
    pub name: &'a str,
    /// The subresource.
    pub subresource: &'a str,
    /// Now.
    pub now: Timestamp,
}

impl Writer<'_> {
    pub(super) fn manager(&self, operation: Operation, version: &str) -> Manager {
        let version = if operation == Operation::Apply { "" } else { version };
        let (version, subresource) = (version.to_owned(), self.subresource.to_owned());
        Manager { name: self.name.to_owned(), operation, version, subresource }
    }
}

/// Sets `metadata.managedFields` of an object that is to replace `live`, which is empty at creation.
///
/// A client may give the list itself, or empty it; one that says nothing of it leaves it alone. Objects of which nobody
/// managed anything so far stay so until something is applied to them.
pub fn update<K: Kind>(kind: &K, live: &Value, new: &mut Value, writer: &Writer<'_>) {
    let is_new = live["metadata"]["uid"].as_str().is_none_or(str::is_empty);
    let given = if writer.subresource.is_empty() { given(new) } else { None };
    let mut managers = given.unwrap_or_else(|| Managers::read(live).unwrap_or_default());
    entries::clear(new);
    if managers.0.is_empty() && !is_new {
        return;
    }
    record(kind, live, new, writer, &mut managers);
    managers.cap();
    managers.write(new);
}

/// What a client says of the managers; none if it leaves them alone or says what cannot be read.
fn given(new: &Value) -> Option<Managers> {
    if entries::is_reset(new) {
        return Some(Managers::default());
    }
    Managers::read(new).ok().filter(|managers| !managers.0.is_empty())
}

/// Gives the writer what changed and takes it from all others.
pub(super) fn record<K: Kind>(kind: &K, live: &Value, new: &Value, writer: &Writer<'_>, managers: &mut Managers) {
    let mut changes = Changes::new(kind, live, new);
    let Some(own) = changes.of(kind.version()) else { return };
    let changed = stripped(own.changed());
    take(&mut changes, managers, |_| true);
    managers.drop_idle();
    if changed.is_empty() {
        return;
    }
    let manager = writer.manager(Operation::Update, kind.version());
    let before = managers.0.remove(&manager).map(|fields| fields.set).unwrap_or_default();
    let fields = Fields { version: kind.version().to_owned(), set: changed.union(&before), time: Some(writer.now) };
    managers.0.insert(manager, fields);
}

/// Takes what changed, and what is gone, from managers; one whose version is not served any more goes.
pub(super) fn take<K: Kind>(changes: &mut Changes<'_, K>, managers: &mut Managers, from: impl Fn(&Manager) -> bool) {
    managers.0.retain(|manager, fields| {
        if !from(manager) {
            return true;
        }
        let Some(difference) = changes.of(&fields.version) else { return false };
        let set = std::mem::take(&mut fields.set);
        fields.set = set.difference(&difference.modified).difference(&difference.added).difference(&difference.removed);
        true
    });
}

/// What of its metadata nobody manages: the system does.
pub(super) fn stripped(set: Set) -> Set {
    const OWN: [&str; 9] = [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    ];
    let mut gone = Set::default();
    for field in ["apiVersion", "kind", "metadata"] {
        gone.insert(&[Element::field(field)]);
    }
    for field in OWN {
        gone.insert(&[Element::field("metadata"), Element::field(field)]);
    }
    set.difference(&gone)
}

/// How a write changes an object, in each version that somebody manages fields in.
pub(super) struct Changes<'a, K: Kind> {
    kind: &'a K,
    live: &'a Value,
    new: &'a Value,
    known: BTreeMap<String, Option<Difference>>,
}

impl<'a, K: Kind> Changes<'a, K> {
    pub(super) fn new(kind: &'a K, live: &'a Value, new: &'a Value) -> Self {
        Self { kind, live, new, known: BTreeMap::new() }
    }

    /// The changes in a version; none if it is not served.
    pub(super) fn of(&mut self, version: &str) -> Option<&Difference> {
        if !self.known.contains_key(version) {
            self.known.insert(version.to_owned(), self.find(version));
        }
        self.known.get(version).and_then(Option::as_ref)
    }

    fn find(&self, version: &str) -> Option<Difference> {
        let layout = self.kind.layout(version)?;
        let own = self.kind.version();
        let all = if version == own {
            compare::objects(layout, self.live, self.new)
        } else {
            let live = self.kind.convert(self.live, own, version)?;
            compare::objects(layout, &live, &self.kind.convert(self.new, own, version)?)
        };
        Some(all.only(|field| self.kind.writes(field)))
    }
}
