//! A configuration laid over an object that nobody applies and nobody comes to manage by it.
//!
//! As MutatingAdmissionPolicies do it (`ApplyStructuredMergeDiff` of
//! `k8s.io/apiserver/pkg/admission/plugin/policy/mutating/patch/smd.go`): it sets fields and takes none away, so it may not
//! hold what is only replaced as a whole.

use serde_json::Value;

use super::layout::{Form, Layout};
use super::{check, merge};

/// The object with all that a configuration sets; else why that cannot be, in upstream's words.
pub fn overlay<L: Layout>(layout: L, object: &Value, configuration: &Value) -> Result<Value, String> {
    if let Some(problem) = check::problem(layout, configuration) {
        return Err(format!("failed to convert patch object to typed object: {problem}"));
    }
    let mut atomics = Vec::new();
    find_atomics(layout, configuration, &mut String::new(), &mut atomics);
    if !atomics.is_empty() {
        let atomics = atomics.join(", ");
        return Err(format!("invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {atomics}"));
    }
    Ok(merge::values(layout, Some(object), Some(configuration)))
}

fn find_atomics<L: Layout>(layout: L, value: &Value, path: &mut String, atomics: &mut Vec<String>) {
    let form = layout.form_of(None, Some(value));
    let is_whole = match form {
        Form::AtomicMap | Form::AtomicList => true,
        // What is anything is replaced like an atomic one; a scalar is no matter.
        Form::Opaque => value.is_object() || value.is_array(),
        _ => false,
    };
    if is_whole && !value.is_null() {
        atomics.push(path.clone());
    }
    let length = path.len();
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                // Entries of maps are no fields: upstream does not look into them.
                let Some((below, true)) = layout.field(name) else { continue };
                path.push('.');
                path.push_str(name);
                find_atomics(below, value, path, atomics);
                path.truncate(length);
            }
        }
        Value::Array(items) => {
            for (place, item) in items.iter().enumerate() {
                path.push_str(&format!("[{place}]"));
                find_atomics(layout.item(), item, path, atomics);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::managed::BuiltIn;
    use crate::schema;

    fn laid(configuration: Value) -> Result<Value, String> {
        let pod = BuiltIn::of(schema::lookup("", "v1", "Pod").unwrap());
        let object = json!({
            "metadata": { "name": "p", "labels": { "a": "1" } },
            "spec": {
                "containers": [{ "name": "c", "image": "i", "env": [{ "name": "A", "value": "1" }] }],
                "nodeSelector": { "x": "y" }, "tolerations": [{ "key": "k" }],
            },
        });
        overlay(pod, &object, &configuration)
    }

    #[test]
    fn maps_and_lists_merge_by_their_keys_and_nothing_goes() {
        let configuration = json!({
            "metadata": { "labels": { "b": "2" } },
            "spec": {
                "containers": [{ "name": "c", "env": [{ "name": "B", "value": "2" }] }, { "name": "d" }], "hostNetwork": true,
            },
        });
        let expected = json!({
            "metadata": { "name": "p", "labels": { "a": "1", "b": "2" } },
            "spec": {
                "containers": [
                    { "name": "c", "image": "i", "env": [{ "name": "A", "value": "1" }, { "name": "B", "value": "2" }] },
                    { "name": "d" },
                ],
                "hostNetwork": true, "nodeSelector": { "x": "y" }, "tolerations": [{ "key": "k" }],
            },
        });
        assert_eq!(laid(configuration), Ok(expected));
    }

    #[test]
    fn what_is_only_replaced_as_a_whole_is_refused_and_so_is_what_no_type_has() {
        let spec = |spec: Value| laid(json!({ "spec": spec })).unwrap_err();
        let refused =
            |paths: &str| format!("invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {paths}");
        assert_eq!(spec(json!({ "nodeSelector": { "x": "z" } })), refused(".spec.nodeSelector"));
        let nested = json!({ "tolerations": [], "containers": [{ "name": "c", "args": ["x"] }] });
        assert_eq!(spec(nested), refused(".spec.containers[0].args, .spec.tolerations"));
        let unknown = "failed to convert patch object to typed object: .spec.none: field not declared in schema";
        assert_eq!(spec(json!({ "none": 1 })), unknown);
        assert!(spec(json!({ "containers": [{ "image": "x" }] })).contains("omits key field \"name\""));
    }
}
