//! What is to be applied and what to be pruned, by what the files have and what they had.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::read::{Mistake, Object};

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Id {
    pub(super) api_version: String,
    pub(super) kind: String,
    #[serde(default)]
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Id {
    /// The object's own; a version of a group is as good as another.
    pub(super) fn of(value: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &value["metadata"];
        Self {
            api_version: text(&value["apiVersion"]),
            kind: text(&value["kind"]),
            namespace: text(&metadata["namespace"]),
            name: text(&metadata["name"]),
        }
    }

    pub(super) fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    fn is_same(&self, other: &Self) -> bool {
        let own = |id: &Self| (id.group().to_owned(), id.kind.clone(), id.namespace.clone(), id.name.clone());
        own(self) == own(other)
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kind, namespace, name, .. } = self;
        if namespace.is_empty() { write!(f, "{kind} {name}") } else { write!(f, "{kind} {namespace}/{name}") }
    }
}

/// What each file had, as far as it was begun to be applied.
pub(super) type Record = BTreeMap<String, BTreeSet<Id>>;

/// An object that is to be as its file says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wanted {
    pub(super) file: String,
    pub(super) line: usize,
    pub(super) id: Id,
    pub(super) value: Value,
}

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Plan {
    /// In this order: what others live in, or are of, comes first.
    pub(super) apply: Vec<Wanted>,
    /// What no file has any more, the youngest kinds first.
    pub(super) prune: Vec<(String, Id)>,
    /// What is not done, by file.
    pub(super) mistakes: Vec<(String, Mistake)>,
    /// What the record must say before any of that is begun.
    pub(super) record: Record,
}

/// Decides. A file that cannot be read keeps what it had.
pub(super) fn plan(files: &BTreeMap<String, Result<Vec<Object>, Mistake>>, record: &Record) -> Plan {
    let mut plan = Plan { record: record.clone(), ..Plan::default() };
    let mut kept: BTreeSet<Id> = BTreeSet::new();
    for (file, read) in files {
        let objects = match read {
            Ok(objects) => objects,
            Err(mistake) => {
                plan.mistakes.push((file.clone(), mistake.clone()));
                kept.extend(record.get(file).cloned().unwrap_or_default());
                continue;
            }
        };
        for Object { line, value } in objects {
            let id = Id::of(value);
            if let Some(other) = plan.apply.iter().find(|other| other.id.is_same(&id)) {
                let message = format!("{id} is on line {} of {} already", other.line, other.file);
                plan.mistakes.push((file.clone(), Mistake { line: *line, message }));
                continue;
            }
            plan.apply.push(Wanted { file: file.clone(), line: *line, id, value: value.clone() });
        }
    }
    // Stable: within a rank the order of files, and within them that of their lines.
    plan.apply.sort_by_key(|wanted| rank(&wanted.id));
    for wanted in &plan.apply {
        plan.record.entry(wanted.file.clone()).or_default().insert(wanted.id.clone());
    }
    let is_wanted =
        |id: &Id| plan.apply.iter().any(|wanted| wanted.id.is_same(id)) || kept.iter().any(|other| other.is_same(id));
    for (file, ids) in record {
        let gone = ids.iter().filter(|id| !is_wanted(id)).map(|id| (file.clone(), id.clone()));
        plan.prune.extend(gone);
    }
    plan.prune.sort_by_key(|(_, id)| std::cmp::Reverse(rank(id)));
    // What has moved to another file, or is said in another version there.
    for (file, ids) in &mut plan.record {
        let elsewhere = |id: &Id| {
            plan.apply.iter().any(|wanted| wanted.id.is_same(id) && (wanted.file != *file || wanted.id != *id))
        };
        ids.retain(|id| !elsewhere(id));
    }
    plan.record.retain(|_, ids| !ids.is_empty());
    plan
}

fn rank(id: &Id) -> u8 {
    match (id.group(), &*id.kind) {
        ("", "Namespace") => 0,
        ("apiextensions.k8s.io", "CustomResourceDefinition") => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autoapply::read::objects;

    fn files(list: &[(&str, &str)]) -> BTreeMap<String, Result<Vec<Object>, Mistake>> {
        list.iter().map(|(name, text)| ((*name).to_owned(), objects(text))).collect()
    }

    fn map(name: &str) -> String {
        format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}}}}}")
    }

    fn show(plan: &Plan) -> Vec<String> {
        let apply = plan.apply.iter().map(|wanted| format!("apply {}:{} {}", wanted.file, wanted.line, wanted.id));
        let prune = plan.prune.iter().map(|(file, id)| format!("prune {file} {id}"));
        let mistakes = plan.mistakes.iter().map(|(file, mistake)| format!("mistake {file} {mistake}"));
        apply.chain(prune).chain(mistakes).collect()
    }

    #[test]
    fn namespaces_and_definitions_come_first_and_go_last() {
        let text = format!(
            "{}\n---\n{}\n---\n{}\n",
            map("a"),
            "{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: c}}",
            "{apiVersion: v1, kind: Namespace, metadata: {name: team}}"
        );
        let first = plan(&files(&[("a.yaml", &text)]), &Record::new());
        let expected = [
            "apply a.yaml:4 Namespace team",
            "apply a.yaml:2 CustomResourceDefinition c",
            "apply a.yaml:1 ConfigMap a",
        ];
        assert_eq!(show(&first), expected);
        let gone = plan(&files(&[]), &first.record);
        let expected =
            ["prune a.yaml ConfigMap a", "prune a.yaml CustomResourceDefinition c", "prune a.yaml Namespace team"];
        assert_eq!(show(&gone), expected);
    }

    #[test]
    fn what_a_file_has_lost_is_pruned_and_what_has_moved_is_not() {
        let both = format!("{}\n---\n{}\n", map("a"), map("b"));
        let first = plan(&files(&[("one.yaml", &both)]), &Record::new());
        let second = plan(&files(&[("one.yaml", &map("a"))]), &first.record);
        assert_eq!(show(&second), ["apply one.yaml:1 ConfigMap a", "prune one.yaml ConfigMap b"]);
        let moved = plan(&files(&[("one.yaml", &map("a")), ("two.yaml", &map("b"))]), &first.record);
        assert_eq!(show(&moved), ["apply one.yaml:1 ConfigMap a", "apply two.yaml:1 ConfigMap b"]);
        assert_eq!(moved.record["two.yaml"].len(), 1);
        assert_eq!(moved.record["one.yaml"].len(), 1);
    }

    #[test]
    fn a_broken_file_keeps_what_it_had() {
        let first = plan(&files(&[("one.yaml", &map("a"))]), &Record::new());
        let broken = plan(&files(&[("one.yaml", "a: [")]), &first.record);
        assert!(broken.apply.is_empty() && broken.prune.is_empty());
        assert_eq!((broken.mistakes.len(), &broken.record), (1, &first.record));
    }

    #[test]
    fn of_two_files_with_the_same_object_the_first_has_it() {
        let twice = plan(&files(&[("one.yaml", &map("a")), ("two.yaml", &map("a"))]), &Record::new());
        let expected =
            ["apply one.yaml:1 ConfigMap a", "mistake two.yaml line 1: ConfigMap a is on line 1 of one.yaml already"];
        assert_eq!(show(&twice), expected);
    }

    #[test]
    fn another_version_of_a_kind_is_the_same_object() {
        let of =
            |version: &str| format!("{{apiVersion: {version}, kind: HorizontalPodAutoscaler, metadata: {{name: a}}}}");
        let first = plan(&files(&[("one.yaml", &of("autoscaling/v1"))]), &Record::new());
        let second = plan(&files(&[("one.yaml", &of("autoscaling/v2"))]), &first.record);
        assert_eq!(show(&second), ["apply one.yaml:1 HorizontalPodAutoscaler a"]);
        assert_eq!(second.record["one.yaml"].len(), 1);
    }
}
