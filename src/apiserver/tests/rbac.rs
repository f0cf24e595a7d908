//! Roles, bindings and questions about them, through the whole server.

use api::user::UserInfo;
use serde_json::{Value, json};

use super::world::{World, sample};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

fn jane() -> UserInfo {
    UserInfo::authenticated("jane", &["dev"])
}

fn role(name: &str, verbs: &[&str], resources: &[&str]) -> Value {
    json!({ "metadata": { "name": name }, "rules": [{ "verbs": verbs, "apiGroups": [""], "resources": resources }] })
}

fn binding(name: &str, kind: &str, role: &str) -> Value {
    json!({
        "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role },
        "subjects": [{ "kind": "User", "name": "jane" }],
    })
}

impl World {
    async fn as_jane(&self, line: &str, body: Value) -> super::world::Answer {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        self.send(jane(), line, &[], &text).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_role_counts_for_the_next_request_and_no_longer_than_its_binding() {
    let world = World::new().await;
    let pods = "GET /api/v1/namespaces/default/pods";
    let refused = world.as_jane(pods, Value::Null).await.expect(403);
    assert_eq!(
        refused["message"],
        "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    world.ask(&format!("POST {RBAC}/namespaces/default/roles"), role("r", &["list"], &["pods"])).await.expect(201);
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    let made = world.ask(&format!("POST {bindings}"), binding("b", "Role", "r")).await.expect(201);
    assert_eq!(made["subjects"][0]["apiGroup"], "rbac.authorization.k8s.io");
    world.as_jane(pods, Value::Null).await.expect(200);
    world.as_jane("GET /api/v1/namespaces/kube-system/pods", Value::Null).await.expect(403);
    world.as_jane("GET /api/v1/pods", Value::Null).await.expect(403);
    let mut other = made.clone();
    other["roleRef"]["name"] = json!("s");
    world.ask(&format!("PUT {bindings}/b"), other).await.expect(422);
    world.ask(&format!("DELETE {bindings}/b"), Value::Null).await.expect(200);
    world.as_jane(pods, Value::Null).await.expect(403);
}

#[tokio::test(start_paused = true)]
async fn nobody_grants_what_he_does_not_have() {
    let world = World::new().await;
    let (roles, bindings) =
        (format!("{RBAC}/namespaces/default/roles"), format!("{RBAC}/namespaces/default/rolebindings"));
    world.ask(&format!("POST {bindings}"), binding("admin", "ClusterRole", "admin")).await.expect(201);
    world.as_jane(&format!("POST {roles}"), role("fine", &["get"], &["pods"])).await.expect(201);
    let refused = world.as_jane(&format!("POST {roles}"), role("more", &["get"], &["nodes", "pods"])).await.expect(403);
    assert_eq!(
        refused["message"],
        "roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"jane\" (groups=[\"dev\", \
         \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], \
         Resources:[\"nodes\"], Verbs:[\"get\"]}"
    );
    world.as_jane(&format!("POST {bindings}"), binding("b", "ClusterRole", "view")).await.expect(201);
    world.as_jane(&format!("POST {bindings}"), binding("c", "ClusterRole", "cluster-admin")).await.expect(403);
    world.as_jane(&format!("POST {bindings}"), binding("d", "Role", "absent")).await.expect(404);
    let mut wider = role("fine", &["*"], &["*"]);
    wider["metadata"]["namespace"] = json!("default");
    world.as_jane(&format!("PUT {roles}/fine"), wider.clone()).await.expect(403);
    // Told so by the administrator, she may.
    let escalate = json!({
        "metadata": { "name": "escalate" },
        "rules": [{ "verbs": ["escalate"], "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"] }],
    });
    world.ask(&format!("POST {roles}"), escalate).await.expect(201);
    world.ask(&format!("POST {bindings}"), binding("e", "Role", "escalate")).await.expect(201);
    world.as_jane(&format!("PUT {roles}/fine"), wider).await.expect(200);
}

#[tokio::test(start_paused = true)]
async fn questions_are_answered_and_forgotten() {
    let world = World::new().await;
    let authorization = "/apis/authorization.k8s.io/v1";
    let pods = json!({ "resourceAttributes": { "verb": "get", "resource": "pods", "namespace": "default" } });
    let own = format!("POST {authorization}/selfsubjectaccessreviews");
    let answer = world.as_jane(&own, json!({ "spec": pods })).await.expect(201);
    assert_eq!(answer["status"], json!({ "allowed": false }));
    let view = binding("v", "ClusterRole", "view");
    world.ask(&format!("POST {RBAC}/namespaces/default/rolebindings"), view).await.expect(201);
    let answer = world.as_jane(&own, json!({ "spec": pods })).await.expect(201);
    let reason = "RBAC: allowed by RoleBinding \"v/default\" of ClusterRole \"view\" to User \"jane\"";
    assert_eq!(answer["status"], json!({ "allowed": true, "reason": reason }));
    // She may not ask about others; the administrator may.
    let mut about = pods.clone();
    about["user"] = json!("jane");
    let others = format!("POST {authorization}/subjectaccessreviews");
    world.as_jane(&others, json!({ "spec": about })).await.expect(403);
    assert_eq!(world.ask(&others, json!({ "spec": about })).await.expect(201)["status"]["allowed"], true);
    world.ask(&others, json!({ "spec": pods })).await.expect(422);
    let rules = format!("POST {authorization}/selfsubjectrulesreviews");
    let answer = world.as_jane(&rules, json!({ "spec": { "namespace": "default" } })).await.expect(201);
    assert!(answer["status"]["resourceRules"].as_array().unwrap().len() > 5);
    let who = world.as_jane("POST /apis/authentication.k8s.io/v1/selfsubjectreviews", json!({})).await.expect(201);
    let groups = json!(["dev", "system:authenticated"]);
    assert_eq!(who["status"]["userInfo"], json!({ "username": "jane", "groups": groups }));
    let token = json!({ "spec": { "token": "sesame" } });
    let whose = world.ask("POST /apis/authentication.k8s.io/v1/tokenreviews", token).await.expect(201);
    assert_eq!((&whose["status"]["authenticated"], &whose["status"]["user"]["uid"]), (&json!(true), &json!("7")));
    world.ask("GET /apis/authentication.k8s.io/v1/tokenreviews", Value::Null).await.expect(405);
}

#[tokio::test(start_paused = true)]
async fn nobody_has_a_policy_read_what_he_may_not_read_himself() {
    const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
    let world = World::new().await;
    let mut all = role("policies", &["*"], &["*"]);
    all["rules"][0]["apiGroups"] = json!(["admissionregistration.k8s.io"]);
    world.ask(&format!("POST {RBAC}/clusterroles"), all).await.expect(201);
    let bound = binding("policies", "ClusterRole", "policies");
    world.ask(&format!("POST {RBAC}/clusterrolebindings"), bound).await.expect(201);
    for (kind, plural) in [("Validating", "validatingadmissionpolicies"), ("Mutating", "mutatingadmissionpolicies")] {
        let path = format!("{GROUP}/{plural}");
        let mut policy = sample(&format!("{kind}AdmissionPolicy"), "p");
        policy["spec"]["paramKind"] = json!({ "apiVersion": "v1", "kind": "Secret" });
        let refused = world.as_jane(&format!("POST {path}"), policy.clone()).await.expect(422);
        let told = "spec.paramKind: Forbidden: user jane (groups=[\"dev\", \"system:authenticated\"]) must have \"get\" \
                    permission on all objects of the referenced paramKind (kind=Secret, apiVersion=v1)";
        assert!(refused["message"].as_str().unwrap().ends_with(told), "{refused}");
        world.ask(&format!("POST {path}"), policy).await.expect(201);
        let label = json!({ "metadata": { "labels": { "a": "b" } } }).to_string();
        let merge = [("content-type", "application/merge-patch+json")];
        world.send(jane(), &format!("PATCH {path}/p"), &merge, &label).await.expect(200);

        let bindings = format!("POST {GROUP}/{}bindings", plural.replace("policies", "policy"));
        let mut binding = sample(&format!("{kind}AdmissionPolicyBinding"), "b");
        binding["spec"]["paramRef"] =
            json!({ "name": "s", "namespace": "default", "parameterNotFoundAction": "Allow" });
        let refused = world.as_jane(&bindings, binding.clone()).await.expect(422);
        let told = "does not have \"get\" permission on the object referenced by paramRef";
        assert!(refused["message"].as_str().unwrap().ends_with(told), "{refused}");
        let (roles, held) =
            (format!("{RBAC}/namespaces/default/roles"), format!("{RBAC}/namespaces/default/rolebindings"));
        world.ask(&format!("POST {roles}"), role("r", &["get"], &["secrets"])).await.expect(201);
        world.ask(&format!("POST {held}"), self::binding("r", "Role", "r")).await.expect(201);
        world.as_jane(&bindings, binding.clone()).await.expect(201);
        let some = json!({ "selector": {}, "namespace": "default", "parameterNotFoundAction": "Allow" });
        (binding["metadata"]["name"], binding["spec"]["paramRef"]) = (json!("c"), some);
        let refused = world.as_jane(&bindings, binding).await.expect(422);
        assert!(refused["message"].as_str().unwrap().contains("\"list\""), "{refused}");
        world.ask(&format!("DELETE {held}/r"), Value::Null).await.expect(200);
        world.ask(&format!("DELETE {roles}/r"), Value::Null).await.expect(200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_has_no_more_than_before() {
    let world = World::new().await;
    let node = super::world::node("n1");
    world.ask("POST /api/v1/namespaces/default/secrets", sample("Secret", "s")).await.expect(201);
    world.send(node.clone(), "GET /api/v1/namespaces/default/secrets/s", &[], "").await.expect(403);
    world.send(node.clone(), "GET /api/v1/secrets", &[], "").await.expect(403);
    assert_eq!(world.send(node, "GET /apis", &[], "").await.code, 200);
}
