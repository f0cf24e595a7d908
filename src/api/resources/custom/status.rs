//! The life of a definition: which names it gets, when its kind is served, and when its objects are gone.
//!
//! ```text
//! created ── names free ──► NamesAccepted ──► Established: served ── deleted ──► Terminating: objects go ──► gone
//!     └── names taken ──► NamesAccepted=False, until they are free
//! ```
//! Follows `pkg/controller/{status,establish,finalizer}` of apiextensions. Pure: the API server looks, asks and writes.

use serde_json::{Value, json};

use crate::resources::path::{items, present, put, text};

/// What keeps a definition while there are objects of its kind.
pub const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

const NOT_SERVABLE: &str = "NotServable";

/// The status of a condition.
fn condition<'a>(definition: &'a Value, ty: &str) -> Option<&'a Value> {
    items(&definition["status"], "conditions").iter().find(|condition| condition["type"] == ty)
}

/// Whether the kind of a definition is served.
pub fn is_established(definition: &Value) -> bool {
    condition(definition, "Established").is_some_and(|condition| condition["status"] == "True")
}

/// Whether a definition is on its way out.
pub fn is_terminating(definition: &Value) -> bool {
    present(&definition["metadata"], "deletionTimestamp")
}

/// Marks a definition for deletion: it stays until its objects are gone.
pub fn terminate(definition: &mut Value, now: &str) {
    let metadata = &mut definition["metadata"];
    if !items(metadata, "finalizers").iter().any(|name| name == FINALIZER) {
        match metadata["finalizers"].as_array_mut() {
            Some(list) => list.push(FINALIZER.into()),
            None => metadata["finalizers"] = json!([FINALIZER]),
        }
    }
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    set(definition, now, &("Terminating", "True", "InstanceDeletionPending", message));
}

/// The names of a group that other definitions have.
#[derive(Debug, Default)]
struct Taken<'a> {
    resources: Vec<&'a str>,
    kinds: Vec<&'a str>,
}

impl<'a> Taken<'a> {
    fn by(others: impl Iterator<Item = &'a Value>) -> Self {
        let mut taken = Self::default();
        for names in others.map(|other| &other["status"]["acceptedNames"]) {
            let shorts = items(names, "shortNames").iter().filter_map(Value::as_str);
            taken.resources.extend([text(names, "plural"), text(names, "singular")].into_iter().chain(shorts));
            taken.kinds.extend([text(names, "kind"), text(names, "listKind")]);
        }
        taken
    }
}

/// The next status of a definition, none if it is right; `others` are those of its group.
pub fn next<'a>(definition: &'a Value, others: impl Iterator<Item = &'a Value>, now: &str) -> Option<Value> {
    if is_terminating(definition) {
        return None;
    }
    let taken = Taken::by(others);
    let (wanted, accepted) = (&definition["spec"]["names"], &definition["status"]["acceptedNames"]);
    let mut names = accepted.clone();
    if !names.is_object() {
        names = json!({});
    }
    let mut conflict = None;
    let clash = |name: &str| format!("{name:?} is already in use");
    for (field, reason, used) in [
        ("plural", "PluralConflict", &taken.resources),
        ("singular", "SingularConflict", &taken.resources),
        ("kind", "KindConflict", &taken.kinds),
        ("listKind", "ListKindConflict", &taken.kinds),
    ] {
        let name = text(wanted, field);
        if name != text(accepted, field) && used.contains(&name) {
            conflict = Some((reason, clash(name)));
        } else {
            put(&mut names, field, &wanted[field]);
        }
    }
    let known = items(accepted, "shortNames");
    let shorts = items(wanted, "shortNames").iter().filter(|name| !known.contains(name)).filter_map(Value::as_str);
    let clashes: Vec<String> = shorts.filter(|name| taken.resources.contains(name)).map(clash).collect();
    if clashes.is_empty() {
        put(&mut names, "shortNames", &wanted["shortNames"]);
    } else {
        let all = if let [one] = clashes.as_slice() { one.clone() } else { format!("[{}]", clashes.join(", ")) };
        conflict = Some(("ShortNamesConflict", all));
    }
    put(&mut names, "categories", &wanted["categories"]);

    let mut next = json!({"status": definition["status"]});
    put(&mut next["status"], "acceptedNames", &names);
    match conflict {
        Some((reason, message)) => {
            set(&mut next, now, &("NamesAccepted", "False", reason, &message));
            if !is_established(definition) {
                set(&mut next, now, &("Established", "False", "NotAccepted", "not all names are accepted"));
            }
        }
        None => {
            set(&mut next, now, &("NamesAccepted", "True", "NoConflicts", "no conflicts found"));
            let message = "the initial names have been accepted";
            set(&mut next, now, &("Established", "True", "InitialNamesAccepted", message));
        }
    }
    let status = next["status"].take();
    (status != definition["status"]).then_some(status)
}

/// Whether the kind of a definition could not be served although it is in order.
pub fn is_refused(definition: &Value) -> bool {
    condition(definition, "Established").is_some_and(|condition| condition["reason"] == NOT_SERVABLE)
}

/// The status of a definition whose kind cannot be served although it is in order.
pub fn refused(definition: &Value, why: &str, now: &str) -> Option<Value> {
    let mut next = json!({"status": definition["status"]});
    set(&mut next, now, &("Established", "False", NOT_SERVABLE, why));
    let status = next["status"].take();
    (status != definition["status"]).then_some(status)
}

/// Sets a condition; one that says the same stays as it is.
fn set(definition: &mut Value, now: &str, (ty, status, reason, message): &(&str, &str, &str, &str)) {
    let old = condition(definition, ty);
    let changed = old.is_none_or(|old| old["status"] != *status);
    let since = old.filter(|_| !changed).map_or_else(|| now.into(), |old| old["lastTransitionTime"].clone());
    let new = json!({"type": ty, "status": status, "reason": reason, "message": message, "lastTransitionTime": since});
    if !definition["status"].is_object() {
        definition["status"] = json!({});
    }
    let conditions = &mut definition["status"]["conditions"];
    match conditions.as_array_mut() {
        Some(list) => match list.iter_mut().find(|condition| condition["type"] == *ty) {
            Some(old) => {
                // What others have added to the condition stays.
                for (field, value) in new.as_object().into_iter().flatten() {
                    old[field] = value.clone();
                }
            }
            None => list.push(new),
        },
        None => *conditions = json!([new]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{is_established, next, refused, terminate};

    const NOW: &str = "2026-01-02T03:04:05Z";

    fn definition(plural: &str, kind: &str) -> Value {
        let names = json!({"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List"), "shortNames": ["ct"]});
        json!({"metadata": {"name": plural}, "spec": {"names": names}, "status": {"storedVersions": ["v1"]}})
    }

    fn served(mut definition: Value, others: &[&Value]) -> Value {
        definition["status"] = next(&definition, others.iter().copied(), NOW).unwrap();
        definition
    }

    #[test]
    fn free_names_are_accepted_and_then_nothing_is_left_to_do() {
        let first = served(definition("crontabs", "CronTab"), &[]);
        assert!(is_established(&first));
        assert_eq!(first["status"]["acceptedNames"], first["spec"]["names"]);
        assert_eq!(first["status"]["storedVersions"], json!(["v1"]));
        assert_eq!(next(&first, std::iter::empty(), "2027-01-01T00:00:00Z"), None);
    }

    #[test]
    fn taken_names_wait_until_they_are_free() {
        let first = served(definition("crontabs", "CronTab"), &[]);
        let second = served(definition("tabs", "CronTab"), &[&first]);
        assert!(!is_established(&second));
        let conditions = second["status"]["conditions"].as_array().unwrap();
        assert_eq!(conditions[0]["message"], "\"ct\" is already in use");
        assert_eq!(second["status"]["acceptedNames"], json!({"plural": "tabs"}));
        assert_eq!(next(&second, [&first].into_iter(), NOW), None);
        assert!(is_established(&served(second, &[])));
    }

    #[test]
    fn what_is_served_stays_served_when_a_new_short_name_is_taken() {
        let first = served(definition("crontabs", "CronTab"), &[]);
        let mut second = definition("tabs", "Tab");
        second["spec"]["names"]["shortNames"] = json!([]);
        let mut second = served(second, &[&first]);
        second["spec"]["names"]["shortNames"] = json!(["ct", "t"]);
        let second = served(second, &[&first]);
        assert!(is_established(&second));
        assert_eq!(second["status"]["acceptedNames"]["shortNames"], json!([]));
    }

    #[test]
    fn a_definition_that_goes_is_kept_for_its_objects_and_gets_no_other_names() {
        let mut first = served(definition("crontabs", "CronTab"), &[]);
        first["metadata"]["deletionTimestamp"] = NOW.into();
        terminate(&mut first, NOW);
        let once = first.clone();
        terminate(&mut first, NOW);
        assert_eq!(first, once);
        assert_eq!(next(&first, std::iter::empty(), NOW), None);
    }

    #[test]
    fn what_cannot_be_served_says_so() {
        let status = refused(&definition("crontabs", "CronTab"), "too many", NOW).unwrap();
        assert_eq!(status["conditions"][0]["message"], "too many");
    }
}
