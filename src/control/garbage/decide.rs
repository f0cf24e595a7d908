//! What becomes of an object, by what its owners are now.
//!
//! Follows `attemptToDeleteItem` of `pkg/controller/garbagecollector/garbagecollector.go`.

use client::{Owner, PartialMetadata};
use serde_json::{Value, json};

use super::graph::{FOREGROUND, ORPHAN};

/// What an owner is, according to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is there.
    Solid,
    /// It is there, and waits for its dependents to go.
    Waiting,
    /// It is not there.
    Absent,
    /// It is not there, and wanted its dependents to stay.
    Released,
}

/// What is to be done about an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Keep,
    /// It stays, without these owners.
    Cut(Vec<String>),
    /// It goes, with this policy for its own dependents.
    Delete(&'static str),
}

/// Decides by the standing of each owner of the object.
pub(super) fn decide(object: &PartialMetadata, standings: &[Standing], has_dependents: bool) -> Verdict {
    let with = |wanted: &[Standing]| -> Vec<String> {
        let owners = object.owner_references.iter().zip(standings);
        owners.filter(|(_, standing)| wanted.contains(standing)).map(|(owner, _)| owner.uid.clone()).collect()
    };
    let released = with(&[Standing::Released]);
    if standings.is_empty() {
        return Verdict::Keep;
    }
    if standings.contains(&Standing::Solid) {
        // Owners that wait would do so for ever.
        let others = with(&[Standing::Absent, Standing::Waiting, Standing::Released]);
        return if others.is_empty() { Verdict::Keep } else { Verdict::Cut(others) };
    }
    if !released.is_empty() {
        return Verdict::Cut(released);
    }
    if standings.contains(&Standing::Waiting) && has_dependents {
        return Verdict::Delete("Foreground");
    }
    let has = |name: &str| object.finalizers.iter().any(|finalizer| finalizer == name);
    Verdict::Delete(match (has(ORPHAN), has(FOREGROUND)) {
        (true, _) => "Orphan",
        (false, true) => "Foreground",
        (false, false) => "Background",
    })
}

/// The change that takes owners away from an object, for exactly this state of it.
pub(super) fn cut(object: &PartialMetadata, uids: &[String]) -> Value {
    let rest: Vec<&Owner> = object.owner_references.iter().filter(|owner| !uids.contains(&owner.uid)).collect();
    patch(object, "ownerReferences", json!(rest))
}

/// The change that takes a finalizer away from an object, for exactly this state of it; none if it has it not.
pub(super) fn without_finalizer(object: &PartialMetadata, finalizer: &str) -> Option<Value> {
    let rest: Vec<&String> = object.finalizers.iter().filter(|name| *name != finalizer).collect();
    (rest.len() < object.finalizers.len()).then(|| patch(object, "finalizers", json!(rest)))
}

/// A merge patch, as custom resources know no other that would do. It replaces a whole list, so it must not meet a
/// state that it was not made from.
fn patch(object: &PartialMetadata, field: &str, list: Value) -> Value {
    let mut metadata = json!({ "uid": object.uid, "resourceVersion": object.resource_version });
    metadata[field] = list;
    json!({ "metadata": metadata })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(count: usize, finalizers: &[&str]) -> PartialMetadata {
        let owner = |number: usize| Owner { uid: number.to_string(), controller: Some(true), ..Owner::default() };
        PartialMetadata {
            uid: "own".to_owned(),
            resource_version: "7".to_owned(),
            finalizers: finalizers.iter().map(|name| (*name).to_owned()).collect(),
            owner_references: (0..count).map(owner).collect(),
            ..PartialMetadata::default()
        }
    }

    fn verdict(standings: &[Standing]) -> Verdict {
        decide(&owned(standings.len(), &[]), standings, true)
    }

    fn cut_of(uids: &[&str]) -> Verdict {
        Verdict::Cut(uids.iter().map(|uid| (*uid).to_owned()).collect())
    }

    #[test]
    fn one_solid_owner_keeps_an_object_and_the_others_are_cut() {
        use Standing::{Absent, Released, Solid, Waiting};
        assert_eq!(verdict(&[]), Verdict::Keep);
        assert_eq!(verdict(&[Solid, Solid]), Verdict::Keep);
        assert_eq!(verdict(&[Absent, Solid, Waiting, Released]), cut_of(&["0", "2", "3"]));
    }

    #[test]
    fn an_object_without_solid_owners_goes_as_its_finalizers_and_owners_want() {
        use Standing::{Absent, Waiting};
        assert_eq!(verdict(&[Absent, Absent]), Verdict::Delete("Background"));
        assert_eq!(verdict(&[Absent, Waiting]), Verdict::Delete("Foreground"));
        assert_eq!(decide(&owned(1, &[]), &[Waiting], false), Verdict::Delete("Background"));
        assert_eq!(decide(&owned(1, &[ORPHAN]), &[Absent], true), Verdict::Delete("Orphan"));
        assert_eq!(decide(&owned(1, &[FOREGROUND]), &[Absent], true), Verdict::Delete("Foreground"));
    }

    #[test]
    fn an_object_whose_owner_wanted_it_to_stay_is_cut_off_first() {
        assert_eq!(verdict(&[Standing::Released, Standing::Absent]), cut_of(&["0"]));
    }

    #[test]
    fn changes_are_for_one_state_and_leave_the_rest_as_it_is() {
        let object = owned(2, &["a", FOREGROUND]);
        let rest = json!([{"apiVersion": "", "kind": "", "name": "", "uid": "1", "controller": true}]);
        let metadata = json!({"uid": "own", "resourceVersion": "7", "ownerReferences": rest});
        assert_eq!(cut(&object, &["0".to_owned()]), json!({ "metadata": metadata }));
        let metadata = json!({"uid": "own", "resourceVersion": "7", "finalizers": ["a"]});
        assert_eq!(without_finalizer(&object, FOREGROUND), Some(json!({ "metadata": metadata })));
        assert_eq!(without_finalizer(&object, ORPHAN), None);
    }
}
