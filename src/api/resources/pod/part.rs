//! Subresources through which one part of a pod is changed and nothing else: `ephemeralcontainers` and `resize`.
//!
//! Follows `podEphemeralContainersStrategy` and `podResizeStrategy` of `pkg/registry/core/pod` and
//! `ValidatePodEphemeralContainersUpdate` and `ValidatePodResize` of `pkg/apis/core/validation`.

use serde_json::Value;

use super::requests::qos_class;
use super::spec::validate_any;
use super::update::{MIRROR, differences, mirror_annotation};
use crate::resources::path::{Path, entries, items, put, text};
use crate::resources::{Part, STATUS_VERBS, Subresource};
use crate::status::FieldError;

/// Fields of a container that a resize takes over; that the second may not change is the check's business.
const RESIZED: [&str; 2] = ["resources", "resizePolicy"];
/// What can be resized.
const SIZES: [&str; 2] = ["cpu", "memory"];

pub(super) const EPHEMERAL: Subresource = below("ephemeralcontainers");
pub(super) const RESIZE: Subresource = below("resize");

pub(super) const PARTS: &[Part] = &[
    Part { name: "ephemeralcontainers", take: take_ephemeral, validate: validate_ephemeral },
    Part { name: "resize", take: take_sizes, validate: validate_resize },
];

const fn below(name: &'static str) -> Subresource {
    Subresource { name, group: "", version: "v1", kind: "Pod", verbs: STATUS_VERBS }
}

fn take_ephemeral(pod: &mut Value, wanted: &Value) {
    put(&mut pod["spec"], "ephemeralContainers", &wanted["spec"]["ephemeralContainers"]);
}

/// Sizes by the names of containers: another order of them is no wish that could be granted. A pod that has a size as a
/// whole may get another (KEP-5419).
fn take_sizes(pod: &mut Value, wanted: &Value) {
    if pod["spec"]["resources"].is_object() {
        put(&mut pod["spec"], "resources", &wanted["spec"]["resources"]);
    }
    for list in ["containers", "initContainers"] {
        for container in items(&wanted["spec"], list) {
            let own = items(&pod["spec"], list).iter().position(|own| own["name"] == container["name"]);
            if let Some(index) = own {
                RESIZED.iter().for_each(|field| put(&mut pod["spec"][list][index], field, &container[*field]));
            }
        }
    }
}

fn is_mirror(pod: &Value) -> bool {
    !pod["metadata"]["annotations"][MIRROR].is_null()
}

/// Containers may be added, and none changed or removed.
fn validate_ephemeral(new: &Value, old: &Value) -> Vec<FieldError> {
    if is_mirror(old) {
        return vec![FieldError::forbidden("", "static pods do not support ephemeral containers")];
    }
    let mut errors = validate_any(new);
    errors.extend(mirror_annotation(new, old));
    let path = Path::new("spec").child("ephemeralContainers");
    let list = "ephemeralContainers";
    for before in items(&old["spec"], list) {
        let name = text(before, "name");
        let detail = match items(&new["spec"], list).iter().find(|after| after["name"] == before["name"]) {
            None => format!("existing ephemeral containers {name:?} may not be removed\n"),
            Some(after) => {
                let changed = changes(after, before, name);
                if changed.is_empty() {
                    continue;
                }
                format!("existing ephemeral containers {name:?} may not be changed\nchanged: {changed}")
            }
        };
        errors.push(FieldError::forbidden(&path, &detail));
    }
    errors
}

fn changes(new: &Value, old: &Value, name: &str) -> String {
    let mut changed = Vec::new();
    differences(new, old, name, &mut changed);
    changed.join(", ")
}

/// Nothing but the amounts of cpu and memory may change, and not so far that the pod is of another class.
fn validate_resize(new: &Value, old: &Value) -> Vec<FieldError> {
    if is_mirror(old) {
        return vec![FieldError::forbidden("", "static pods cannot be resized")];
    }
    if old["spec"]["os"]["name"] == "windows" {
        return vec![FieldError::forbidden("", "windows pods cannot be resized")];
    }
    let mut errors = validate_any(new);
    let path = Path::new("spec");
    if qos_class(new) != qos_class(old) {
        let detail = "Pod QOS Class may not change as a result of resizing";
        errors.push(FieldError::invalid(&path, &new["status"]["qosClass"], detail));
    }
    let is_unsized = |status: &Value| !status["state"]["running"].is_null() && status["resources"].is_null();
    let running = items(&old["status"], "containerStatuses");
    if running.iter().find(|status| !status["state"]["running"].is_null()).is_some_and(is_unsized) {
        errors.push(FieldError::forbidden(&path, "Pod running on node without support for resize"));
    }
    whole_pod(new, old, &path.child("resources"), &mut errors);
    for list in ["containers", "initContainers"] {
        for (index, (after, before)) in items(&new["spec"], list).iter().zip(items(&old["spec"], list)).enumerate() {
            let path = path.child(list).index(index).child("resources");
            removals(&after["resources"], &before["resources"], &path, &mut errors);
            let is_sidecar = super::is_restartable(before);
            errors.extend(other_changes(after, before, list == "initContainers", is_sidecar));
        }
    }
    errors
}

/// Amounts that were said and are not said any more.
fn removals(new: &Value, old: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    for field in ["requests", "limits"] {
        if entries(old, field).any(|(name, _)| new[field][name].is_null()) {
            errors.push(FieldError::forbidden(path.child(field), &format!("resource {field} cannot be removed")));
        }
    }
}

/// What the pod has as a whole may be another amount of cpu and memory, and nothing else.
fn whole_pod(new: &Value, old: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let (new, old) = (&new["spec"]["resources"], &old["spec"]["resources"]);
    removals(new, old, path, errors);
    let others = |sizes: &Value| {
        let amounts = ["requests", "limits"].map(|field| entries(sizes, field).collect::<Vec<_>>());
        let fixed = amounts.map(|list| {
            let fixed = list.into_iter().filter(|(name, _)| !SIZES.contains(&name.as_str()));
            fixed.map(|(name, amount)| (name.clone(), amount.clone())).collect::<Vec<_>>()
        });
        (fixed, sizes["claims"].clone())
    };
    if others(new) != others(old) {
        errors.push(FieldError::forbidden(path, "only cpu and memory resources are mutable"));
    }
}

/// Whether something of a container differs that is no size.
fn other_changes(new: &Value, old: &Value, is_init: bool, is_sidecar: bool) -> Option<FieldError> {
    let mut same = new.clone();
    if !is_init || is_sidecar {
        for field in ["requests", "limits"] {
            for name in SIZES {
                let before = &old["resources"][field][name];
                if same["resources"][field].is_object() {
                    put(&mut same["resources"][field], name, before);
                }
            }
        }
    }
    let detail = match (is_init, is_sidecar) {
        (false, _) => "only cpu and memory resources are mutable",
        (true, true) => "only cpu and memory resources for sidecar containers are mutable",
        (true, false) => "resources for non-sidecar init containers are immutable",
    };
    (!changes(&same, old, "").is_empty()).then(|| FieldError::forbidden("spec", detail))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources::pod::ROW;

    fn pod() -> Value {
        let container = json!({"name": "c", "image": "i:1", "resources": {
            "requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi", "ephemeral-storage": "1Gi"}}});
        let init = json!({"name": "init", "image": "i:1", "resources": {"requests": {"cpu": "50m"}}});
        let side = json!({"name": "side", "image": "i:1", "restartPolicy": "Always"});
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
            "spec": {"containers": [container, {"name": "d", "image": "i:1"}], "initContainers": [init, side]},
        });
        (ROW.default)(&mut pod);
        ROW.prepare_create(&mut pod);
        pod
    }

    fn through(name: &str, wanted: &Value, old: &Value) -> (Value, Vec<String>) {
        let part = ROW.part(name).expect("the part");
        let mut new = old.clone();
        (part.take)(&mut new, wanted);
        (ROW.default)(&mut new);
        let errors = (part.validate)(&new, old);
        (new, errors.into_iter().map(|error| format!("{}: {}", error.field, error.text)).collect())
    }

    fn debugger(image: &str) -> Value {
        json!({"name": "debugger", "image": image, "imagePullPolicy": "IfNotPresent",
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"})
    }

    #[test]
    fn ephemeral_containers_are_added_and_nothing_else_is_changed() {
        let old = pod();
        let mut wanted = old.clone();
        wanted["spec"]["ephemeralContainers"] = json!([{"name": "debugger", "image": "i:1"}]);
        wanted["spec"]["containers"][0]["image"] = json!("other:1");
        let (new, errors) = through("ephemeralcontainers", &wanted, &old);
        assert_eq!(errors, [""; 0]);
        assert_eq!(new["spec"]["containers"], old["spec"]["containers"]);
        assert_eq!(new["spec"]["ephemeralContainers"][0]["terminationMessagePolicy"], "File");
    }

    #[test]
    fn ephemeral_containers_are_neither_changed_nor_removed() {
        let mut old = pod();
        old["spec"]["ephemeralContainers"] = json!([debugger("i:1")]);
        let (_, errors) = through("ephemeralcontainers", &pod(), &old);
        let text =
            "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"debugger\" may not be removed\n";
        assert_eq!(errors, [text]);
        let mut wanted = old.clone();
        wanted["spec"]["ephemeralContainers"] = json!([{"name": "new", "image": "i:1"}, debugger("i:2")]);
        let (_, errors) = through("ephemeralcontainers", &wanted, &old);
        let text = "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"debugger\" may not be changed\n\
                    changed: debugger.image";
        assert_eq!(errors, [text]);
        old["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
        let (_, errors) = through("ephemeralcontainers", &wanted, &old);
        assert_eq!(errors, [": Forbidden: static pods do not support ephemeral containers"]);
    }

    #[test]
    fn sizes_of_containers_and_sidecars_change_and_nothing_else() {
        let old = pod();
        let mut wanted = old.clone();
        wanted["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("200m");
        wanted["spec"]["containers"][0]["resources"]["limits"]["cpu"] = json!("1");
        wanted["spec"]["initContainers"][1]["resources"] = json!({"requests": {"memory": "1Mi"}});
        wanted["spec"]["containers"][1]["image"] = json!("other:1");
        let (new, errors) = through("resize", &wanted, &old);
        assert_eq!(errors, [""; 0]);
        assert_eq!(new["spec"]["containers"][0]["resources"]["requests"]["cpu"], "200m");
        assert_eq!(new["spec"]["containers"][1], old["spec"]["containers"][1]);
    }

    #[test]
    fn a_pod_that_has_a_size_as_a_whole_gets_another_and_no_other_has_one() {
        let mut old = pod();
        let mut wanted = old.clone();
        wanted["spec"]["resources"] = json!({"requests": {"cpu": "1"}});
        assert_eq!(through("resize", &wanted, &old).0["spec"]["resources"], Value::Null);
        old["spec"]["resources"] = json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2", "memory": "1Gi"}});
        wanted = old.clone();
        wanted["spec"]["resources"]["limits"]["memory"] = json!("2Gi");
        let (new, errors) = through("resize", &wanted, &old);
        assert_eq!((errors, &new["spec"]["resources"]["limits"]["memory"]), (Vec::new(), &json!("2Gi")));
        wanted["spec"]["resources"] = json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2", "hugepages-2Mi": "2Mi"}});
        let (_, errors) = through("resize", &wanted, &old);
        assert!(errors.contains(&"spec.resources.limits: Forbidden: resource limits cannot be removed".to_owned()));
        assert!(errors.contains(&"spec.resources: Forbidden: only cpu and memory resources are mutable".to_owned()));
    }

    #[test]
    fn what_is_no_size_is_not_resized() {
        let old = pod();
        let check = |place: &str, value: Value, text: &str| {
            let mut wanted = old.clone();
            *wanted.pointer_mut(place).expect("the place") = value;
            let (_, errors) = through("resize", &wanted, &old);
            assert!(errors.iter().any(|error| error == text), "{place}: {errors:?}");
        };
        let only = "spec: Forbidden: only cpu and memory resources are mutable";
        check("/spec/containers/0/resources/limits/ephemeral-storage", json!("2Gi"), only);
        let removed = "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed";
        check("/spec/containers/0/resources/requests", json!({"memory": "64Mi"}), removed);
        let init = "spec: Forbidden: resources for non-sidecar init containers are immutable";
        check("/spec/initContainers/0/resources/requests/cpu", json!("60m"), init);
        let mut poor = pod();
        for list in ["containers", "initContainers"] {
            poor["spec"][list].as_array_mut().expect("a list").iter_mut().for_each(|c| c["resources"] = json!({}));
        }
        let (_, errors) = through("resize", &old, &poor);
        assert!(errors.iter().any(|error| error.ends_with("QOS Class may not change as a result of resizing")));
    }

    #[test]
    fn a_pod_of_a_node_that_cannot_resize_is_left_alone() {
        let mut old = pod();
        old["status"]["containerStatuses"] = json!([{"name": "c", "state": {"running": {}}}]);
        let (_, errors) = through("resize", &old, &old);
        assert_eq!(errors, ["spec: Forbidden: Pod running on node without support for resize"]);
    }
}
