//! Requests for certificates: who asks, who decides, who issues.

use api::user::UserInfo;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};

use super::world::{Answer, World, sample};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
const SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// A request for a user in a group, as the field has it.
pub(super) fn request(user: &str, group: &str) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::OrganizationName, group);
    params.distinguished_name.push(DnType::CommonName, user);
    let key = KeyPair::generate().unwrap();
    STANDARD.encode(params.serialize_request(&key).unwrap().pem().unwrap())
}

fn issued() -> String {
    let key = KeyPair::generate().unwrap();
    STANDARD.encode(CertificateParams::default().self_signed(&key).unwrap().pem())
}

fn jane() -> UserInfo {
    let mut jane = UserInfo::authenticated("jane", &["dev"]);
    jane.extra.insert("team".to_owned(), vec!["blue".to_owned()]);
    jane
}

async fn as_jane(world: &World, line: &str, body: &Value) -> Answer {
    world.send(jane(), line, &[], &body.to_string()).await
}

/// Gives jane verbs on resources of the group; `names` may be empty.
async fn grant(world: &World, name: &str, verbs: &[&str], resource: &str, names: &[&str]) {
    let rbac = "POST /apis/rbac.authorization.k8s.io/v1";
    let rule = json!({
        "verbs": verbs, "apiGroups": ["certificates.k8s.io"], "resources": [resource], "resourceNames": names,
    });
    let role = json!({ "metadata": { "name": name }, "rules": [rule] });
    world.ask(&format!("{rbac}/clusterroles"), role).await.expect(201);
    let binding = json!({
        "metadata": { "name": name }, "subjects": [{ "kind": "User", "name": "jane" }],
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name },
    });
    world.ask(&format!("{rbac}/clusterrolebindings"), binding).await.expect(201);
}

fn decided(object: &Value, kind: &str) -> Value {
    let mut object = object.clone();
    object["status"]["conditions"] = json!([{ "type": kind, "status": "True", "reason": "Test" }]);
    object
}

#[tokio::test(start_paused = true)]
async fn a_request_names_who_made_it_whatever_it_says_itself() {
    let world = World::new().await;
    grant(&world, "asks", &["create", "update"], "certificatesigningrequests", &[]).await;
    let mut body = sample("CertificateSigningRequest", "r");
    body["spec"]["username"] = json!("admin");
    body["spec"]["uid"] = json!("1");
    body["spec"]["groups"] = json!(["system:masters"]);
    body["status"] = decided(&body, "Approved")["status"].clone();
    let made = as_jane(&world, &format!("POST {REQUESTS}"), &body).await.expect(201);
    assert_eq!(made["spec"]["username"], "jane");
    assert_eq!(made["spec"]["groups"], json!(["dev", "system:authenticated"]));
    assert_eq!(made["spec"]["extra"], json!({ "team": ["blue"] }));
    assert_eq!((&made["spec"]["uid"], &made["status"]), (&Value::Null, &json!({})));
    let mut other = made.clone();
    other["spec"]["username"] = json!("admin");
    let kept = as_jane(&world, &format!("PUT {REQUESTS}/r"), &other).await.expect(200);
    assert_eq!(kept["spec"], made["spec"]);
}

#[tokio::test(start_paused = true)]
async fn nobody_asks_for_the_group_that_may_do_everything() {
    let world = World::new().await;
    let mut body = sample("CertificateSigningRequest", "r");
    body["spec"]["request"] = json!(request("jane", "system:masters"));
    let refused = world.ask(&format!("POST {REQUESTS}"), body.clone()).await.expect(403);
    let text = refused["message"].as_str().unwrap().to_owned();
    assert!(text.ends_with(&format!("use of {SIGNER} signer with system:masters group is not allowed")), "{text}");
    body["spec"]["signerName"] = json!("example.org/other");
    world.ask(&format!("POST {REQUESTS}"), body).await.expect(201);
}

#[tokio::test(start_paused = true)]
async fn whoever_decides_must_be_allowed_to_approve_for_the_signer() {
    let world = World::new().await;
    let body = sample("CertificateSigningRequest", "r");
    let made = world.ask(&format!("POST {REQUESTS}"), body).await.expect(201);
    let path = format!("PUT {REQUESTS}/r/approval");
    as_jane(&world, &path, &decided(&made, "Approved")).await.expect(403);
    grant(&world, "decides", &["update"], "certificatesigningrequests/approval", &[]).await;
    let refused = as_jane(&world, &path, &decided(&made, "Approved")).await.expect(403);
    let text = refused["message"].as_str().unwrap().to_owned();
    assert!(text.ends_with(&format!("user not permitted to approve requests with signerName {SIGNER:?}")), "{text}");
    grant(&world, "approves", &["approve"], "signers", &["kubernetes.io/*"]).await;
    let mut wanted = decided(&made, "Approved");
    (wanted["spec"]["signerName"], wanted["status"]["certificate"]) = (json!("example.org/x"), json!(issued()));
    let approved = as_jane(&world, &path, &wanted).await.expect(200);
    assert_eq!(approved["spec"], made["spec"], "approval changes conditions only");
    let now = "2026-01-02T03:04:05Z";
    let condition = json!({
        "type": "Approved", "status": "True", "reason": "Test", "lastUpdateTime": now, "lastTransitionTime": now,
    });
    assert_eq!(approved["status"], json!({ "conditions": [condition] }));

    let refused = as_jane(&world, &path, &decided(&approved, "Denied")).await.expect(422);
    let text = refused["message"].as_str().unwrap().to_owned();
    assert!(text.contains("updates may not remove a condition of type \"Approved\""), "{text}");
    let mut both = approved.clone();
    both["status"]["conditions"] = json!([condition, { "type": "Denied", "status": "True" }]);
    let refused = as_jane(&world, &path, &both).await.expect(422);
    let text = refused["message"].as_str().unwrap().to_owned();
    assert!(text.contains("Approved and Denied conditions are mutually exclusive"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn whoever_issues_must_be_allowed_to_sign_and_does_so_once() {
    let world = World::new().await;
    let body = sample("CertificateSigningRequest", "r");
    let made = world.ask(&format!("POST {REQUESTS}"), body).await.expect(201);
    let path = format!("PUT {REQUESTS}/r/status");
    world.ask(&path, decided(&made, "Approved")).await.expect(422);
    grant(&world, "issues", &["update"], "certificatesigningrequests/status", &[]).await;
    let mut wanted = made.clone();
    wanted["status"]["certificate"] = json!(issued());
    let refused = as_jane(&world, &path, &wanted).await.expect(403);
    let text = refused["message"].as_str().unwrap().to_owned();
    assert!(text.ends_with(&format!("user not permitted to sign requests with signerName {SIGNER:?}")), "{text}");
    // What does not touch the certificate asks for no such right.
    as_jane(&world, &path, &made).await.expect(200);
    grant(&world, "signs", &["sign"], "signers", &[SIGNER]).await;
    let mut signed = as_jane(&world, &path, &wanted).await.expect(200);
    assert_eq!(signed["status"]["certificate"], wanted["status"]["certificate"]);
    signed["status"]["certificate"] = json!(issued());
    let refused = as_jane(&world, &path, &signed).await.expect(422);
    let text = refused["message"].as_str().unwrap().to_owned();
    assert!(text.contains("updates may not modify existing certificate content"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn approval_and_status_may_mark_a_request_besides() {
    let world = World::new().await;
    let spec = json!({ "request": request("jane", "dev"), "signerName": "example.com/s", "usages": ["client auth"] });
    world.ask(&format!("POST {REQUESTS}"), json!({ "metadata": { "name": "a" }, "spec": spec })).await.expect(201);
    let mark = |name: &str, status: Value| json!({ "metadata": { "annotations": { name: "true" } }, "status": status });
    let condition = json!({ "type": "ApprovalPatch", "status": "True", "reason": "e2e" });
    let patch = mark("approved", json!({ "conditions": [condition] }));
    let patched = world.patch(&format!("{REQUESTS}/a/approval"), "merge-patch", patch).await.expect(200);
    assert_eq!(patched["metadata"]["annotations"], json!({ "approved": "true" }));
    assert_eq!(patched["status"]["conditions"][0]["type"], "ApprovalPatch");
    let patch = mark("issued", json!({ "certificate": issued() }));
    let patched = world.patch(&format!("{REQUESTS}/a/status"), "merge-patch", patch).await.expect(200);
    assert_eq!(patched["metadata"]["annotations"], json!({ "approved": "true", "issued": "true" }));
    let wrong = json!({ "metadata": { "labels": { "a": "not good" } } });
    world.patch(&format!("{REQUESTS}/a/approval"), "merge-patch", wrong).await.expect(422);
}
