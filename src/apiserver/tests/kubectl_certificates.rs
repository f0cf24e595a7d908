//! Requests for certificates through the commands by which people decide about them.

use serde_json::json;

use super::certificates::request;
use super::kubectl::Kubectl;
use super::world::sample;

/// Drives one kubectl.
pub(super) async fn drive(kubectl: &Kubectl) {
    let name = |what: &str| format!("{what}-{}", kubectl.namespace);
    let (good, bad) = (name("good"), name("bad"));
    for one in [&good, &bad] {
        let mut object = sample("CertificateSigningRequest", one);
        (object["apiVersion"], object["kind"]) = (json!("certificates.k8s.io/v1"), json!("CertificateSigningRequest"));
        object["spec"]["request"] = json!(request("jane", "dev"));
        object["spec"]["expirationSeconds"] = json!(86_400);
        let file = kubectl.file("csr.json", &object);
        kubectl.has(&format!("create -f {file}"), &["certificatesigningrequest.certificates.k8s.io/"]).await;
    }
    let columns = ["NAME", "AGE", "SIGNERNAME", "REQUESTOR", "REQUESTEDDURATION", "CONDITION"];
    kubectl.has(&format!("get csr {good}"), &columns).await;
    let cells = ["kubernetes.io/kube-apiserver-client", "admin", "24h", "Pending"];
    kubectl.has(&format!("get csr {good}"), &cells).await;
    kubectl.has(&format!("certificate approve {good}"), &["approved"]).await;
    kubectl.has(&format!("certificate deny {bad}"), &["denied"]).await;
    kubectl.has(&format!("get csr {good}"), &["Approved"]).await;
    kubectl.has(&format!("get csr {bad}"), &["Denied"]).await;
    kubectl.has(&format!("describe csr {good}"), &["Common Name:", "jane", "Organization:", "dev"]).await;
    let refusal = kubectl.fail(&format!("certificate approve {bad}")).await;
    assert!(refusal.contains("already Denied"), "{refusal}");
    kubectl.run(&format!("delete csr {good} {bad}")).await;
}
