//! Server-side apply as kubectl does it, and the way there from applying on the client's side.

use serde_json::{Value, json};

use super::kubectl::Kubectl;

fn config(data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "managed"}, "data": data})
}

async fn managers(kubectl: &Kubectl) -> Vec<String> {
    let text = kubectl.run("get configmap managed -o json --show-managed-fields").await;
    let object: Value = serde_json::from_str(&text).unwrap();
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let word = |entry: &Value, field: &str| entry[field].as_str().unwrap_or_default().to_owned();
    let mut all: Vec<String> =
        entries.iter().map(|entry| format!("{} {}", word(entry, "manager"), word(entry, "operation"))).collect();
    all.sort();
    all
}

/// Drives one kubectl.
pub(super) async fn drive(kubectl: &Kubectl) {
    on_the_server(kubectl).await;
    from_the_clients_side(kubectl).await;
    workloads(kubectl).await;
}

async fn on_the_server(kubectl: &Kubectl) {
    let one = kubectl.file("one.json", &config(&json!({"a": "1", "b": "1"})));
    let two = kubectl.file("two.json", &config(&json!({"a": "2"})));
    kubectl.has(&format!("apply --server-side -f {one}"), &["configmap/managed serverside-applied"]).await;
    kubectl.has(&format!("apply --server-side -f {one}"), &["configmap/managed serverside-applied"]).await;
    assert_eq!(managers(kubectl).await, ["kubectl Apply"]);
    kubectl.has(&format!("diff --server-side -f {one}"), &[]).await;
    let hidden = kubectl.run("get configmap managed -o yaml").await;
    assert!(!hidden.contains("managedFields"), "{hidden}");
    let conflict = kubectl.fail(&format!("apply --server-side --field-manager=other -f {two}")).await;
    assert!(conflict.contains("Apply failed with 1 conflict: conflict with \"kubectl\": .data.a"), "{conflict}");
    assert!(conflict.contains("--force-conflicts"), "{conflict}");
    kubectl
        .has(&format!("apply --server-side --field-manager=other --force-conflicts -f {two}"), &["serverside-applied"])
        .await;
    kubectl.has("get configmap managed -o jsonpath={.data}", &[r#"{"a":"2","b":"1"}"#]).await;
    assert_eq!(managers(kubectl).await, ["kubectl Apply", "other Apply"]);
    // What kubectl no longer applies and nobody else does, goes.
    let three = kubectl.file("three.json", &config(&json!({"a": "2"})));
    kubectl.has(&format!("apply --server-side -f {three}"), &["serverside-applied"]).await;
    kubectl.has("get configmap managed -o jsonpath={.data}", &[r#"{"a":"2"}"#]).await;
    kubectl
        .has(&format!("apply --server-side --dry-run=server -f {one} --force-conflicts"), &["(server dry run)"])
        .await;
    kubectl.has("get configmap managed -o jsonpath={.data}", &[r#"{"a":"2"}"#]).await;
    kubectl.has("label configmap managed x=y", &["labeled"]).await;
    assert!(managers(kubectl).await.contains(&"kubectl-label Update".to_owned()));
    let typo = kubectl.file(
        "typo.json",
        &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "typo", "labelz": {}}}),
    );
    let refused = kubectl.fail(&format!("apply --server-side -f {typo}")).await;
    assert!(refused.contains(".metadata.labelz: field not declared in schema"), "{refused}");
    kubectl.has("delete configmap managed", &["deleted"]).await;
}

/// From applying on the client's side, where an annotation keeps what was applied.
async fn from_the_clients_side(kubectl: &Kubectl) {
    let one = kubectl.file("one.json", &config(&json!({"a": "1", "b": "1"})));
    let two = kubectl.file("two.json", &config(&json!({"a": "2"})));
    kubectl.has(&format!("apply -f {one}"), &["configmap/managed created"]).await;
    kubectl.has(&format!("apply -f {one}"), &["configmap/managed unchanged"]).await;
    assert_eq!(managers(kubectl).await, ["kubectl-client-side-apply Update"]);
    kubectl.has("apply view-last-applied configmap managed", &["a: \"1\""]).await;
    kubectl.has(&format!("apply --server-side -f {two}"), &["configmap/managed serverside-applied"]).await;
    let now = managers(kubectl).await;
    assert!(now.contains(&"kubectl Apply".to_owned()), "{now:?}");
    assert!(!now.contains(&"kubectl-client-side-apply Update".to_owned()), "{now:?}");
    kubectl.has("get configmap managed -o jsonpath={.data}", &[r#"{"a":"2"}"#]).await;
    kubectl.has("apply view-last-applied configmap managed", &["a: \"2\""]).await;
    // And back.
    kubectl.has(&format!("apply -f {one}"), &["configmap/managed configured"]).await;
    kubectl.has("get configmap managed -o jsonpath={.data}", &[r#"{"a":"1","b":"1"}"#]).await;
    kubectl.has(&format!("apply set-last-applied -f {two}"), &["configmap/managed configured"]).await;
    kubectl.has("apply view-last-applied configmap managed", &["a: \"2\""]).await;
    kubectl.has("delete configmap managed", &["deleted"]).await;
}

async fn workloads(kubectl: &Kubectl) {
    let deployment = |image: &str, replicas: Option<u8>| {
        let mut object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "managed"},
            "spec": {
                "selector": {"matchLabels": {"app": "m"}},
                "template": {
                    "metadata": {"labels": {"app": "m"}},
                    "spec": {"containers": [{"name": "c", "image": image, "ports": [{"containerPort": 80}]}]},
                },
            },
        });
        if let Some(replicas) = replicas {
            object["spec"]["replicas"] = json!(replicas);
        }
        object
    };
    let one = kubectl.file("d1.json", &deployment("i:1", Some(1)));
    let two = kubectl.file("d2.json", &deployment("i:2", None));
    kubectl.has(&format!("apply --server-side -f {one}"), &["deployment.apps/managed serverside-applied"]).await;
    kubectl.has("scale deployment managed --replicas=3", &["scaled"]).await;
    let conflict = kubectl.fail(&format!("apply --server-side -f {one}")).await;
    assert!(conflict.contains("with subresource \"scale\" using apps/v1: .spec.replicas"), "{conflict}");
    kubectl.has(&format!("apply --server-side -f {two}"), &["serverside-applied"]).await;
    let now = "get deployment managed -o jsonpath={.spec.replicas}/{.spec.template.spec.containers[0].image}";
    kubectl.has(now, &["3/i:2"]).await;
    kubectl.has("set env deployment/managed A=B", &["env updated"]).await;
    kubectl.has(&format!("apply --server-side -f {two}"), &["serverside-applied"]).await;
    kubectl.has("get deployment managed -o jsonpath={.spec.template.spec.containers[0].env[0].name}", &["A"]).await;
    kubectl.has("delete deployment managed", &["deleted"]).await;
}
