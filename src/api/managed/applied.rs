//! Applying a configuration.
//!
//! ```text
//! merged := live + configuration
//! pruned := merged − what the manager applied last time, + what anybody manages, + what it never managed
//! conflicts := what others manage and what changed from live to pruned
//! ```

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::conflict::{self, Conflict};
use super::entries::{self, Fields, Manager, Managers, Operation};
use super::layout::Kind;
use super::set::Set;
use super::update::{Changes, Writer, record, stripped, take};
use super::{check, compare, extract, merge, remove};
use crate::status::ApiError;

/// Where kubectl keeps what was applied by it on the client's side.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The one manager for which that counts.
const KUBECTL: &str = "kubectl";
/// Whoever has what was there before the first configuration.
const BEFORE: &str = "before-first-apply";

/// Why a configuration cannot be applied.
#[derive(Debug)]
pub enum ApplyError {
    /// It is none of this kind, in upstream's words.
    Malformed(String),
    /// Others manage what it would change.
    Conflicts(ApiError),
}

/// The object that a configuration makes of `live`, which is empty where there is none yet; with its managed fields,
/// without defaults. With `force`, the manager takes what others have.
pub fn apply<K: Kind>(
    kind: &K,
    live: &Value,
    configuration: &Value,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    let malformed = |text: String| ApplyError::Malformed(text);
    let layout = kind.layout(kind.version()).ok_or_else(|| malformed("the version is not served".to_owned()))?;
    if let Some(problem) = check::problem(layout, configuration) {
        return Err(malformed(problem));
    }
    let mut wanted = configuration.clone();
    kind.canonical(&mut wanted).map_err(malformed)?;
    let mut managers = Managers::read(live).unwrap_or_default();
    let mut live = live.clone();
    entries::clear(&mut live);
    if managers.0.is_empty() {
        let before = Writer { name: BEFORE, ..*writer };
        record(kind, &json!({}), &live, &before, &mut managers);
    }
    let application = Application { kind, layout, live: &live, wanted: &wanted, writer };
    let (mut object, managers) = match application.run(managers.clone(), force) {
        Err(conflicts) if writer.name == KUBECTL => {
            let rest = application.beyond_last_applied(conflicts);
            if !rest.is_empty() {
                return Err(ApplyError::Conflicts(conflict::error(&rest)));
            }
            application.run(managers, true)
        }
        result => result,
    }
    .map_err(|conflicts| ApplyError::Conflicts(conflict::error(&conflicts)))?;
    if writer.name == KUBECTL && last_applied(&object).is_some() {
        keep_last_applied(&mut object, configuration);
    }
    managers.write(&mut object);
    Ok(object)
}

/// One application, all of whose parts have one version.
struct Application<'a, K: Kind> {
    kind: &'a K,
    layout: K::Layout,
    live: &'a Value,
    wanted: &'a Value,
    writer: &'a Writer<'a>,
}

impl<K: Kind> Application<'_, K> {
    fn run(&self, mut managers: Managers, force: bool) -> Result<(Value, Managers), Vec<Conflict>> {
        let version = self.kind.version();
        let manager = self.writer.manager(Operation::Apply, version);
        let last = managers.0.get(&manager).cloned();
        let merged = merge::values(self.layout, Some(self.live), Some(self.wanted));
        let set = extract::set(self.layout, self.wanted).only(|field| self.kind.writes(field));
        let time = last.as_ref().and_then(|last| last.time);
        managers.0.insert(manager.clone(), Fields { version: version.to_owned(), set, time });
        let object = match &last {
            Some(last) if !last.set.is_empty() => self.prune(merged, &managers, last),
            _ => merged,
        };
        let mut changes = Changes::new(self.kind, self.live, &object);
        if !force {
            let conflicts = conflicts(&mut changes, &managers, &manager);
            if !conflicts.is_empty() {
                return Err(conflicts);
            }
        }
        take(&mut changes, &mut managers, |other| *other != manager);
        if let Some(fields) = managers.0.get_mut(&manager) {
            fields.set = stripped(std::mem::take(&mut fields.set));
            if fields.time.is_none() || object != *self.live {
                fields.time = Some(self.writer.now);
            }
        }
        managers.drop_idle();
        Ok((object, managers))
    }

    /// Without what was applied last time and is no longer, unless anybody else manages it.
    fn prune(&self, merged: Value, managers: &Managers, last: &Fields) -> Value {
        let own = self.kind.version();
        let (Some(layout), Some(before)) =
            (self.kind.layout(&last.version), self.kind.convert(&merged, own, &last.version))
        else {
            return merged;
        };
        let gone = last.set.clone().with_holders(layout);
        let pruned = remove::contents(layout, before.clone(), &gone);
        let pruned = self.add_back(&before, pruned, managers, last);
        // Only what the manager had goes.
        let pruned_set = extract::set(layout, &pruned).with_holders(layout);
        let merged_set = extract::set(layout, &before).with_holders(layout);
        let gone = merged_set.difference(&pruned_set).intersection(&gone);
        let pruned = remove::fields(layout, before, &gone).unwrap_or_else(|| json!({}));
        self.kind.convert(&pruned, &last.version, own).unwrap_or(merged)
    }

    /// With all that is managed, in whatever version: that of the last application first, because a conversion may need
    /// what was pruned.
    fn add_back(&self, merged: &Value, mut pruned: Value, managers: &Managers, last: &Fields) -> Value {
        let mut managed: BTreeMap<&str, Set> = BTreeMap::new();
        for fields in managers.0.values() {
            let set = managed.remove(fields.version.as_str()).unwrap_or_default();
            managed.insert(&fields.version, set.union(&fields.set));
        }
        let mut order: Vec<(&str, Set)> = managed.into_iter().collect();
        order.sort_by_key(|(version, _)| *version != last.version);
        for (version, managed) in order {
            let Some(layout) = self.kind.layout(version) else { continue };
            let convert = |object: &Value| self.kind.convert(object, &last.version, version);
            let (Some(merged), Some(there)) = (convert(merged), convert(&pruned)) else { continue };
            let kept = extract::set(layout, &there).with_holders(layout).union(&managed.with_holders(layout));
            let gone = extract::set(layout, &merged).with_holders(layout).difference(&kept);
            let there = remove::contents(layout, merged, &gone);
            pruned = self.kind.convert(&there, version, &last.version).unwrap_or(pruned);
        }
        pruned
    }

    /// The conflicts that do not come from what kubectl itself applied on the client's side.
    fn beyond_last_applied(&self, conflicts: Vec<Conflict>) -> Vec<Conflict> {
        let applied = last_applied(self.live).and_then(|text| crate::json::parse(text.as_bytes()).ok());
        let Some(applied) = applied.map(|parsed| parsed.value) else { return conflicts };
        if applied["apiVersion"] != self.kind.version() || check::problem(self.layout, &applied).is_some() {
            return conflicts;
        }
        let difference = compare::objects(self.layout, &applied, self.live);
        let same =
            extract::set(self.layout, &applied).difference(&difference.changed()).difference(&difference.removed);
        let rest = conflicts.into_iter().map(|Conflict { manager, fields }| {
            let fields = fields.difference(&same);
            Conflict { manager, fields }
        });
        rest.filter(|conflict| !conflict.fields.is_empty()).collect()
    }
}

/// What others manage and the application changes.
fn conflicts<K: Kind>(changes: &mut Changes<'_, K>, managers: &Managers, own: &Manager) -> Vec<Conflict> {
    let mut conflicts = Vec::new();
    for (manager, fields) in managers.0.iter().filter(|(manager, _)| *manager != own) {
        let Some(difference) = changes.of(&fields.version) else { continue };
        let taken = fields.set.intersection(&difference.changed());
        if !taken.is_empty() {
            conflicts.push(Conflict { manager: manager.clone(), fields: taken });
        }
    }
    conflicts
}

fn last_applied(object: &Value) -> Option<&str> {
    object["metadata"]["annotations"][LAST_APPLIED].as_str().filter(|text| !text.is_empty())
}

/// Keeps the annotation of applying on the client's side true, so that the client can go back to it.
fn keep_last_applied(object: &mut Value, configuration: &Value) {
    let mut configuration = configuration.clone();
    if let Some(annotations) = configuration.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    object["metadata"]["annotations"][LAST_APPLIED] = format!("{configuration}\n").into();
}
