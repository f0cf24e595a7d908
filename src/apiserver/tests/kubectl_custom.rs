//! Kinds that come at run time, with kubectl. Each version has a group of its own, because definitions have no namespace.

use serde_json::json;

use super::custom::{crontab, crontabs};
use super::kubectl::Kubectl;

/// Drives one kubectl.
pub(super) async fn drive(kubectl: &Kubectl) {
    let group = format!("{}.example.com", kubectl.namespace);
    let name = format!("crontabs.{group}");
    let mut definition = crontabs();
    definition["metadata"]["name"] = json!(name);
    definition["spec"]["group"] = json!(group);
    // An empty list is as none, and would differ from what is stored each time.
    if let Some(names) = definition["spec"]["names"].as_object_mut() {
        names.remove("categories");
    }
    let file = kubectl.file("crd.json", &definition);
    let says = |what: &str| format!("customresourcedefinition.apiextensions.k8s.io/{name} {what}");
    kubectl.has(&format!("apply -f {file}"), &[&says("created")]).await;
    kubectl.has(&format!("wait --for=condition=established crd/{name} --timeout=30s"), &[&says("condition met")]).await;
    kubectl.has(&format!("apply -f {file}"), &[&says("unchanged")]).await;
    kubectl.has("get crd", &["CREATED AT", &name]).await;
    kubectl.has(&format!("api-resources --api-group={group}"), &["crontabs", "ct", "true", "CronTab"]).await;

    let object = |spec| {
        let mut object = crontab("a", spec);
        object["apiVersion"] = json!(format!("{group}/v1"));
        object
    };
    let file = kubectl.file("ct.json", &object(json!({ "cronSpec": "* * * * */5", "image": "one" })));
    let crontabs = format!("crontabs.{group}");
    let about = |what: &str| format!("crontab.{group}/a {what}");
    kubectl.has(&format!("apply -f {file}"), &[&about("created")]).await;
    kubectl.has(&format!("apply -f {file}"), &[&about("unchanged")]).await;
    let file = kubectl.file("ct.json", &object(json!({ "cronSpec": "* * * * */5", "image": "two", "replicas": 2 })));
    kubectl.has(&format!("apply -f {file}"), &[&about("configured")]).await;
    kubectl.has(&format!("apply --server-side --force-conflicts -f {file}"), &[&about("serverside-applied")]).await;
    kubectl.has(&format!("get {crontabs}"), &["NAME", "SPEC", "REPLICAS", "AGE", "* * * * */5"]).await;
    kubectl.has(&format!("get {crontabs} -o wide"), &["IMAGE", "two"]).await;
    kubectl.has(&format!("get ct.{group} a -o jsonpath={{.spec.replicas}}/{{.metadata.generation}}"), &["2/2"]).await;
    kubectl.has(&format!("get {crontabs} --field-selector=spec.image=two -o name"), &["/a"]).await;
    kubectl.has(&format!("explain {crontabs}.spec"), &["cronSpec", "When.", "replicas"]).await;
    kubectl.has(&format!("scale {crontabs} a --replicas=3"), &["scaled"]).await;
    kubectl.has(&format!("patch {crontabs} a --type=merge -p {{\"spec\":{{\"replicas\":4}}}}"), &["patched"]).await;
    kubectl
        .has(
            &format!("patch {crontabs} a --subresource=status --type=merge -p {{\"status\":{{\"replicas\":4}}}}"),
            &["patched"],
        )
        .await;
    kubectl.has(&format!("label {crontabs} a x=y"), &["labeled"]).await;
    kubectl.has(&format!("describe {crontabs} a"), &["CronTab", "Cron Spec:", "* * * * */5"]).await;
    kubectl
        .has(&format!("wait {crontabs} a --for=jsonpath={{.spec.replicas}}=4 --timeout=30s"), &["condition met"])
        .await;

    let wrong = kubectl.file("wrong.json", &object(json!({ "cronSpec": "x", "replicas": 99 })));
    let error = kubectl.fail(&format!("apply -f {wrong}")).await;
    assert!(error.contains("spec.replicas") && error.contains("should be less than or equal to 10"), "{error}");
    let typo = kubectl.file("typo.json", &object(json!({ "cronSpec": "* * * * */5", "imagee": "x" })));
    let error = kubectl.fail(&format!("create -f {typo} --validate=strict")).await;
    assert!(error.contains("imagee"), "{error}");

    kubectl.has(&format!("delete {crontabs} a"), &["deleted"]).await;
    kubectl.has(&format!("delete crd {name}"), &["deleted"]).await;
    assert!(kubectl.fail(&format!("get crd {name}")).await.contains("NotFound"));
}
