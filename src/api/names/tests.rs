use serde_json::{Value, json};

use super::*;

#[test]
fn names_are_valid_or_not() {
    let long = "a".repeat(64);
    let cases: [(Rule, &[&str], &[&str]); 9] = [
        (dns1123_label, &["a", "a-b", "1", "a1"], &["", "A", "-a", "a-", "a.b", "a_b", &long]),
        (dns1123_subdomain, &["a", "a.b", "1.2", &long], &["", "a..b", ".a", "a.", "A.b", "a_b"]),
        (dns1035_label, &["a", "a-1"], &["", "1a", "A", "a-"]),
        (path_segment, &["system:node", "a b"], &[".", "..", "a/b", "a%b"]),
        (qualified_name, &["a", "A_b.c", "example.com/a"], &["", "/a", "a/", "a/b/c", "-a", "A.com/a b", &long]),
        (label_value, &["", "a", "A_b.c"], &["-a", "a b", &long]),
        (config_map_key, &["a", ".a", "A_b", "-"], &["", ".", "..", "..a", "a/b"]),
        (env_var_name, &["A", "a.b", "1 x"], &["", "a=b", "ä"]),
        (port_name, &["http", "a-1"], &["", "1", "-a", "a--b", "Http", "aaaaaaaaaaaaaaaa"]),
    ];
    for (at, (rule, valid, invalid)) in cases.iter().enumerate() {
        for name in *valid {
            assert!(rule(name).is_empty(), "rule {at} admits {name:?}: {:?}", rule(name));
        }
        for name in *invalid {
            assert!(!rule(name).is_empty(), "rule {at} refuses {name:?}");
        }
    }
}

#[test]
fn messages_are_upstreams() {
    assert_eq!(
        dns1123_label("A"),
        [
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end \
          with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
          '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
        ]
    );
    assert_eq!(port_number(0), ["must be between 1 and 65535, inclusive"]);
    assert!(port_number(80).is_empty());
    assert_eq!(ip_address("x"), ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]);
}

#[test]
fn generated_names_end_in_five_safe_characters_and_fit_a_label() {
    assert_eq!(generate_name("web-", [0, 1, 26, 27, 255]), "web-bc9bq");
    let name = generate_name(&"x".repeat(100), [9; 5]);
    assert_eq!(name.len(), 63);
    assert!(generate_name(&"ä".repeat(100), [9; 5]).len() <= 63);
}

fn problems(metadata: Value) -> Vec<String> {
    let found = validate_metadata(&metadata, true, dns1123_subdomain);
    found.into_iter().map(|error| format!("{}: {}", error.field, error.text)).collect()
}

#[test]
fn good_metadata_has_no_problems() {
    let metadata = json!({
        "generateName": "web-", "name": "web-x", "namespace": "default", "labels": {"app": "web"},
        "annotations": {"Example.com/A": "anything goes\n"}, "finalizers": ["orphan", "example.com/f"],
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "1", "controller": true}],
    });
    assert_eq!(problems(metadata), [""; 0]);
}

#[test]
fn each_fault_of_metadata_is_named() {
    assert_eq!(
        problems(json!({})),
        ["metadata.name: Required value: name or generateName is required", "metadata.namespace: Required value"]
    );
    let with = |field: &str, value: Value| {
        let mut metadata = json!({"name": "a", "namespace": "b"});
        metadata[field] = value;
        let found = problems(metadata);
        assert_eq!(found.len(), 1, "{found:?}");
        found.into_iter().next().unwrap()
    };
    assert!(
        with("name", json!("A")).starts_with("metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain")
    );
    assert!(with("labels", json!({"a": "-"})).starts_with("metadata.labels: Invalid value: \"-\": a valid label"));
    assert_eq!(
        with("annotations", json!({"a": "x".repeat(256 * 1024)})),
        "metadata.annotations: Too long: may not be more than 262144 bytes"
    );
    assert_eq!(
        with("finalizers", json!(["mine"])),
        "metadata.finalizers[0]: Invalid value: \"mine\": name is neither a standard finalizer name nor is it fully qualified"
    );
    let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "1", "controller": true});
    assert!(with("ownerReferences", json!([owner, owner])).ends_with("in references for Pod/p and Pod/p"));
    assert_eq!(
        with("ownerReferences", json!([{"apiVersion": "v1", "kind": "Pod", "name": "p"}])),
        "metadata.ownerReferences.uid: Invalid value: \"\": uid must not be empty"
    );
    let found = validate_metadata(&json!({"name": "a", "namespace": "b"}), false, dns1123_subdomain);
    assert_eq!(found[0].text, "Forbidden: not allowed on this type");
}
