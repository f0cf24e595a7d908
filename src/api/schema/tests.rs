use serde_json::{Value, json};

use super::{Base, Shape, decode, kinds, lookup};

fn decoded(kind: (&str, &str, &str), mut value: Value) -> (Value, Vec<String>) {
    let ty = lookup(kind.0, kind.1, kind.2).unwrap();
    let problems = decode(ty, &mut value).unwrap();
    (value, problems.iter().map(ToString::to_string).collect())
}

const POD: (&str, &str, &str) = ("", "v1", "Pod");

#[test]
fn unknown_fields_are_removed_and_named() {
    let pod = json!({"kind": "Pod", "spec": {"containers": [{"name": "a", "imagee": "x"}], "nope": {"a": 1}}});
    let (value, problems) = decoded(POD, pod);
    assert_eq!(problems, [r#"unknown field "spec.containers[0].imagee""#, r#"unknown field "spec.nope""#]);
    assert_eq!(value, json!({"kind": "Pod", "spec": {"containers": [{"name": "a"}]}}));
}

#[test]
fn nulls_and_empty_optional_fields_are_dropped_and_pointers_kept() {
    let pod = json!({
        "metadata": {"creationTimestamp": null, "labels": {}},
        "spec": {"hostNetwork": false, "priority": 0, "enableServiceLinks": false, "containers": [],
                 "volumes": [{"name": "v", "emptyDir": {}, "secret": null}], "nodeName": ""},
    });
    let (value, problems) = decoded(POD, pod);
    assert!(problems.is_empty());
    let expected = json!({"metadata": {}, "spec": {"priority": 0, "enableServiceLinks": false, "containers": [],
        "volumes": [{"name": "v", "emptyDir": {}}]}});
    assert_eq!(value, expected);
}

#[test]
fn quantities_and_times_become_canonical() {
    let pod = json!({
        "metadata": {"creationTimestamp": "2026-01-02T03:04:05.678+01:00"},
        "spec": {"containers": [{"name": "a", "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}}}]},
    });
    let (value, _) = decoded(POD, pod);
    assert_eq!(value["metadata"]["creationTimestamp"], "2026-01-02T02:04:05Z");
    assert_eq!(value["spec"]["containers"][0]["resources"]["limits"], json!({"cpu": "500m", "memory": "1Gi"}));
    let lease = json!({"spec": {"renewTime": "2026-01-02T03:04:05.6Z"}});
    let (value, _) = decoded(("coordination.k8s.io", "v1", "Lease"), lease);
    assert_eq!(value["spec"]["renewTime"], "2026-01-02T03:04:05.600000Z");
}

#[test]
fn wrong_types_are_refused_with_the_path() {
    for (pod, message) in [
        (
            json!({"spec": {"containers": {"name": "a"}}}),
            "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []Container",
        ),
        (
            json!({"spec": {"priority": "high"}}),
            "json: cannot unmarshal string into Go struct field PodSpec.spec.priority of type int32",
        ),
        (
            json!({"spec": {"priority": 3_000_000_000_i64}}),
            "json: cannot unmarshal number 3000000000 into Go struct field PodSpec.spec.priority of type int32",
        ),
        (
            json!({"metadata": {"labels": {"a": 1}}}),
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (json!([]), "json: cannot unmarshal array into Go value of type Pod"),
    ] {
        let error = decode(lookup("", "v1", "Pod").unwrap(), &mut pod.clone()).unwrap_err();
        assert_eq!((error.code, error.reason.as_str()), (400, "BadRequest"));
        assert_eq!(error.message, format!("Pod in version \"v1\" cannot be handled as a Pod: {message}"));
    }
}

#[test]
fn secrets_keep_only_valid_base64() {
    let secret = ("", "v1", "Secret");
    assert_eq!(decoded(secret, json!({"data": {"a": "aGV5\n"}})).0["data"]["a"], "aGV5");
    let error = decode(lookup("", "v1", "Secret").unwrap(), &mut json!({"data": {"a": "!"}})).unwrap_err();
    assert!(error.message.ends_with("data.a: illegal base64 data at input byte 0"), "{}", error.message);
}

#[test]
fn the_table_knows_the_kinds_that_are_served() {
    for (group, version, kind) in [
        ("", "v1", "Namespace"),
        ("apps", "v1", "Deployment"),
        ("batch", "v1", "CronJob"),
        ("rbac.authorization.k8s.io", "v1", "ClusterRole"),
        ("networking.k8s.io", "v1", "Ingress"),
        ("policy", "v1", "Eviction"),
        ("discovery.k8s.io", "v1", "EndpointSlice"),
        ("events.k8s.io", "v1", "Event"),
        ("coordination.k8s.io", "v1", "Lease"),
        ("autoscaling", "v2", "HorizontalPodAutoscaler"),
        ("autoscaling", "v1", "Scale"),
        ("storage.k8s.io", "v1", "StorageClass"),
        ("scheduling.k8s.io", "v1", "PriorityClass"),
        ("node.k8s.io", "v1", "RuntimeClass"),
        ("certificates.k8s.io", "v1", "CertificateSigningRequest"),
        ("authentication.k8s.io", "v1", "TokenRequest"),
        ("authorization.k8s.io", "v1", "SelfSubjectAccessReview"),
        ("policy", "v1", "DeleteOptions"),
    ] {
        assert!(lookup(group, version, kind).is_some(), "{group}/{version} {kind}");
    }
    assert!(lookup("", "v1", "Nope").is_none());
}

#[test]
fn fields_are_sorted_and_only_wrapped_lists_are_lists_of_scalars() {
    for (_, _, _, ty) in kinds() {
        assert!(ty.fields().windows(2).all(|pair| pair[0].name < pair[1].name), "{}", ty.name());
        for field in ty.fields() {
            assert!(field.shape != Shape::MapOfLists || field.base == Base::String, "{}.{}", ty.name(), field.name);
        }
    }
}

#[test]
fn the_parsed_table_stays_small() {
    let bytes = super::table::footprint();
    assert!(bytes < 512 * 1024, "{bytes} bytes");
}
