//! Service accounts through the commands by which people use them.

use serde_json::{Value, json};

use super::kubectl::Kubectl;

/// Drives one kubectl; the namespace has an account `robot`.
pub(super) async fn drive(kubectl: &Kubectl) {
    let namespace = kubectl.namespace.clone();
    kubectl.run(&format!("create rolebinding robots --clusterrole=view --serviceaccount={namespace}:robot")).await;
    let token = kubectl.run("create token robot --duration=20m").await;
    let file = as_bearer(kubectl, token.trim()).await;
    kubectl.has(&format!("--kubeconfig={file} get pods"), &["web"]).await;
    let refusal = kubectl.fail(&format!("--kubeconfig={file} get secrets")).await;
    assert!(refusal.contains(&format!("User \"system:serviceaccount:{namespace}:robot\" cannot list")), "{refusal}");
    kubectl.has("create token robot --audience=vault -o jsonpath={.spec.audiences}", &["vault"]).await;
    let short = kubectl.fail("create token robot --duration=1m").await;
    assert!(short.contains("may not specify a duration less than 10 minutes"), "{short}");

    let viewer = format!("--as=system:serviceaccount:{namespace}:robot");
    kubectl.has(&format!("{viewer} auth can-i list pods"), &["yes"]).await;
    assert!(kubectl.fail(&format!("{viewer} get secrets")).await.contains("cannot list resource"));
    kubectl.has("--as=jane --as-group=system:masters auth can-i delete nodes", &["yes"]).await;

    let bound = "create token robot --bound-object-kind=Secret --bound-object-name=token";
    let file = as_bearer(kubectl, kubectl.run(bound).await.trim()).await;
    kubectl.has(&format!("--kubeconfig={file} get pods"), &["web"]).await;
    kubectl.run("delete secret token").await;
    let refusal = kubectl.fail(&format!("--kubeconfig={file} get pods")).await;
    assert!(refusal.contains("Unauthorized") || refusal.contains("must be logged in"), "{refusal}");
}

/// A configuration that shows a token and nothing else.
async fn as_bearer(kubectl: &Kubectl, token: &str) -> String {
    let own = kubectl.run("config view --raw --flatten -o json").await;
    let mut config: Value = serde_json::from_str(&own).unwrap();
    config["users"][0]["user"] = json!({ "token": token });
    kubectl.file("bearer.json", &config)
}
