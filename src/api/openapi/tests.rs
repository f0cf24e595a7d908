use serde_json::{Value, json};

use super::{KindInfo, v2_protobuf, v3_document, v3_index};

fn kind(group: &str, version: &str, kind: &str, plural: &str, namespaced: bool) -> KindInfo {
    let verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
    KindInfo {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
        namespaced,
        verbs: verbs.map(str::to_owned).to_vec(),
        custom: None,
    }
}

fn kinds() -> Vec<KindInfo> {
    vec![
        kind("", "v1", "Pod", "pods", true),
        kind("", "v1", "Node", "nodes", false),
        kind("apps", "v1", "Deployment", "deployments", true),
    ]
}

#[test]
fn the_index_lists_each_group_version_once_and_its_hash_follows_the_kinds() {
    let index = v3_index(&kinds()).unwrap();
    let paths: Vec<&String> = index["paths"].as_object().unwrap().keys().collect();
    assert_eq!(paths, ["api/v1", "apis/apps/v1"]);
    let url = |index: &Value| index["paths"]["api/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    assert!(url(&index).starts_with("/openapi/v3/api/v1?hash="));
    assert_eq!(url(&index), url(&v3_index(&kinds()).unwrap()));
    assert_ne!(url(&index), url(&v3_index(&kinds()[..1]).unwrap()));
}

#[test]
fn patches_say_their_kind_and_that_fields_are_validated() {
    let document = v3_document("apis/apps/v1", &kinds()).unwrap();
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    let expected = json!({"group": "apps", "version": "v1", "kind": "Deployment"});
    assert_eq!(patch["x-kubernetes-group-version-kind"], expected);
    assert!(patch["requestBody"]["content"]["application/strategic-merge-patch+json"].is_object());
    let names: Vec<&Value> = patch["parameters"].as_array().unwrap().iter().map(|p| &p["name"]).collect();
    assert!(names.contains(&&json!("fieldValidation")) && names.contains(&&json!("dryRun")), "{names:?}");
    assert!(v3_document("apis/nope/v1", &kinds()).is_none());
}

#[test]
fn schemas_carry_structure_and_patch_strategy_and_every_reference_resolves() {
    let document = v3_document("api/v1", &kinds()).unwrap();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    let description = "List of containers belonging to the pod. Containers cannot currently be added or removed. There \
                       must be at least one container in a Pod. Cannot be updated.";
    assert_eq!(
        *containers,
        json!({
            "description": description,
            "type": "array",
            "items": {"allOf": [{"$ref": "#/components/schemas/io.k8s.api.core.v1.Container"}]},
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "name",
        })
    );
    let pod = &schemas["io.k8s.api.core.v1.Pod"];
    assert_eq!(pod["x-kubernetes-group-version-kind"], json!([{"group": "", "version": "v1", "kind": "Pod"}]));
    assert!(schemas.contains_key("io.k8s.api.core.v1.PodList"));
    assert!(!schemas.contains_key("io.k8s.api.core.v1.Service"));
    let text = document.to_string();
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name}");
    }
}

#[test]
fn the_v2_document_is_a_message_that_names_the_kinds() {
    let bytes = v2_protobuf(&kinds());
    // 0x0a: field 1, bytes; then "2.0".
    assert!(bytes.starts_with(b"\x0a\x032.0\x12"));
    let text = String::from_utf8_lossy(&bytes);
    for needle in ["/api/v1/nodes/{name}", "fieldValidation", r#"{"group":"apps","kind":"Deployment","version":"v1"}"#]
    {
        assert!(text.contains(needle), "{needle}");
    }
}

#[test]
fn every_type_that_kubectl_explains_has_its_description_also_of_extensions() {
    for (path, name) in [
        ("apis/apiextensions.k8s.io/v1", "CustomResourceDefinition"),
        ("apis/apiregistration.k8s.io/v1", "APIService"),
        ("api/v1", "Pod"),
        ("apis/apps/v1", "Deployment"),
    ] {
        let group = path.strip_prefix("apis/").and_then(|rest| rest.split_once('/')).map_or("", |(group, _)| group);
        let of_it = [kind(group, "v1", name, "plural", false)];
        let document = v3_document(path, &of_it).unwrap();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let (own, _) = schemas.iter().find(|(key, _)| key.ends_with(&format!(".{name}"))).unwrap();
        let package = own.strip_suffix(name).unwrap();
        let of_package =
            schemas.iter().filter(|(key, _)| key.strip_prefix(package).is_some_and(|key| !key.ends_with("List")));
        for (key, schema) in of_package {
            assert!(schema["description"].is_string(), "{key}");
        }
    }
}
