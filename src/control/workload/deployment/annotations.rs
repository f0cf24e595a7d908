//! What a Deployment notes at its sets (`pkg/controller/deployment/util`).

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::ReplicaSet;

/// Which revision a set is, or a Deployment is at.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
/// Which revisions a set was before.
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// How many pods the Deployment wanted when the set got its size.
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// How many it allowed.
const MAXIMUM: &str = "deployment.kubernetes.io/max-replicas";
/// Characters of a history at most.
const HISTORY_MAX: usize = 2000;

/// What stays with the Deployment: its own book-keeping, and kubectl's.
const OWN: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAXIMUM,
    "deprecated.deployment.rollback.to",
];

type Annotations = BTreeMap<String, String>;

fn number(annotations: Option<&Annotations>, name: &str) -> Option<i64> {
    annotations?.get(name)?.parse().ok()
}

/// The revision of a set.
pub(super) fn revision(set: &ReplicaSet) -> i64 {
    number(set.metadata.annotations.as_ref(), REVISION).unwrap_or(0)
}

/// How many pods were wanted when a set got its size.
pub(super) fn desired(set: &ReplicaSet) -> Option<i32> {
    number(set.metadata.annotations.as_ref(), DESIRED).and_then(|number| i32::try_from(number).ok())
}

/// How many pods were allowed when a set got its size.
pub(super) fn maximum(set: &ReplicaSet) -> Option<i32> {
    number(set.metadata.annotations.as_ref(), MAXIMUM).and_then(|number| i32::try_from(number).ok())
}

/// Notes what is wanted and allowed; whether that is new.
pub(super) fn set_sizes(set: &mut ReplicaSet, desired: i32, maximum: i32) -> bool {
    let annotations = set.metadata.annotations.get_or_insert_default();
    let mut note = |name: &str, number: i32| {
        let number = number.to_string();
        annotations.insert(name.to_owned(), number.clone()) != Some(number)
    };
    let (first, second) = (note(DESIRED, desired), note(MAXIMUM, maximum));
    first || second
}

/// Gives a set what its Deployment has, and a revision unless it has a later one; whether that is new.
pub(super) fn take_over(set: &mut ReplicaSet, from: Option<&Annotations>, revision: i64) -> bool {
    let former = set.metadata.annotations.clone().unwrap_or_default();
    let mut own = former.clone();
    for (name, value) in from.into_iter().flatten().filter(|(name, _)| !OWN.contains(&name.as_str())) {
        own.insert(name.clone(), value.clone());
    }
    let before = own.get(REVISION).cloned().unwrap_or_default();
    if before.parse().unwrap_or(0) < revision {
        own.insert(REVISION.to_owned(), revision.to_string());
        if !before.is_empty() {
            let history = own.get(HISTORY).map(String::as_str).unwrap_or_default();
            own.insert(HISTORY.to_owned(), append(history, &before));
        }
    }
    let is_new = own != former;
    set.metadata.annotations = Some(own);
    is_new
}

/// The oldest revisions give way.
fn append(history: &str, revision: &str) -> String {
    let mut all: Vec<&str> = history.split(',').filter(|part| !part.is_empty()).collect();
    all.push(revision);
    while all.len() > 1 && all.iter().map(|part| part.len() + 1).sum::<usize>() > HISTORY_MAX {
        all.remove(0);
    }
    all.join(",")
}
