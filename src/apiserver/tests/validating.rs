//! ValidatingAdmissionPolicies: writes that they refuse, warn of and let through.

use serde_json::{Value, json};

use api::user::UserInfo;

use super::world::{Answer, World, sample};

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";
const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

pub(super) fn about(resource: &str, operations: &[&str]) -> Value {
    json!({ "resourceRules": [{
        "apiGroups": ["*"], "apiVersions": ["*"], "operations": operations, "resources": [resource],
    }] })
}

/// A policy of this name with a binding of the same name.
pub(super) async fn bind(world: &World, name: &str, spec: Value, binding: Value) {
    let metadata = json!({ "name": name });
    let made = world.ask(&format!("POST {POLICIES}"), json!({ "metadata": metadata, "spec": spec })).await;
    assert!(!made.headers.contains_key("warning"), "{:?}", made.headers);
    made.expect(201);
    let mut spec = json!({ "policyName": name, "validationActions": ["Deny"] });
    binding.as_object().unwrap().iter().for_each(|(key, value)| spec[key] = value.clone());
    world.ask(&format!("POST {BINDINGS}"), json!({ "metadata": metadata, "spec": spec })).await.expect(201);
}

fn message(answer: &Answer, code: u16) -> String {
    assert_eq!(answer.code, code, "{}", answer.text);
    answer.json()["message"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn images_from_elsewhere_are_refused_with_the_policys_words() {
    let world = World::new().await;
    let spec = json!({
        "matchConstraints": about("pods", &["CREATE", "UPDATE"]),
        "variables": [{ "name": "images", "expression": "object.spec.containers.map(c, c.image)" }],
        "validations": [{
            "expression": "variables.images.all(image, image.startsWith('registry.example/'))",
            "messageExpression": "'not ours: ' + variables.images.filter(i, !i.startsWith('registry.example/')).join(', ')",
            "reason": "Forbidden",
        }],
    });
    bind(&world, "images", spec, json!({})).await;
    let mut pod = sample("Pod", "p");
    let refused = world.ask(&format!("POST {PODS}"), pod.clone()).await;
    let expected = "pods \"p\" is forbidden: ValidatingAdmissionPolicy 'images' with binding 'images' denied request: not \
                    ours: i:1";
    assert_eq!(message(&refused, 403), expected);
    world.ask(&format!("GET {PODS}/p"), Value::Null).await.expect(404);
    message(&world.ask(&format!("POST {PODS}?dryRun=All"), pod.clone()).await, 403);
    pod["spec"]["containers"][0]["image"] = json!("registry.example/i:1");
    world.ask(&format!("POST {PODS}"), pod).await.expect(201);
    let patch = json!({ "spec": { "containers": [{ "name": "c", "image": "i:2" }] } });
    message(&world.patch(&format!("{PODS}/p"), "strategic-merge-patch", patch).await, 403);
    // A policy about objects says nothing of their status.
    world
        .patch(&format!("{PODS}/p/status"), "merge-patch", json!({ "status": { "phase": "Failed" } }))
        .await
        .expect(200);
    world.ask(&format!("DELETE {BINDINGS}/images"), Value::Null).await.expect(200);
    world.ask(&format!("POST {PODS}"), sample("Pod", "free")).await.expect(201);
}

#[tokio::test(start_paused = true)]
async fn a_policy_sees_what_goes_and_who_asks() {
    let world = World::new().await;
    let validations = json!([{ "expression": "oldObject.metadata.?labels.keep.orValue('') != 'yes' && object == null \
        && request.operation == 'DELETE' && request.userInfo.username == 'admin'", "message": "it is kept" }]);
    let spec = json!({ "matchConstraints": about("configmaps", &["DELETE"]), "validations": validations });
    bind(&world, "kept", spec, json!({})).await;
    let mut kept = sample("ConfigMap", "a");
    kept["metadata"]["labels"] = json!({ "keep": "yes" });
    world.ask(&format!("POST {MAPS}"), kept).await.expect(201);
    world.ask(&format!("POST {MAPS}"), sample("ConfigMap", "b")).await.expect(201);
    assert!(message(&world.ask(&format!("DELETE {MAPS}/a"), Value::Null).await, 422).ends_with("it is kept"));
    world.ask(&format!("DELETE {MAPS}/b"), Value::Null).await.expect(200);
    message(&world.ask(&format!("DELETE {MAPS}"), Value::Null).await, 422);
}

#[tokio::test(start_paused = true)]
async fn settings_come_from_objects_and_a_binding_says_where_and_how() {
    let world = World::new().await;
    let spec = json!({
        "paramKind": { "apiVersion": "v1", "kind": "ConfigMap" },
        "matchConstraints": about("secrets", &["CREATE"]),
        "matchConditions": [{ "name": "not-free", "expression": "object.metadata.name != 'free'" }],
        "validations": [{ "expression": "object.data.size() <= int(params.data.most)" }],
    });
    let reference = json!({ "name": "limits", "namespace": "default", "parameterNotFoundAction": "Deny" });
    let binding = json!({
        "paramRef": reference, "matchResources": { "namespaceSelector": { "matchLabels": { "strict": "yes" } } },
    });
    bind(&world, "sized", spec, binding).await;
    let secrets = "POST /api/v1/namespaces/default/secrets";
    let secret = |name: &str| json!({ "metadata": { "name": name }, "data": { "a": "eA==", "b": "eA==" } });
    world.ask(secrets, secret("before")).await.expect(201);
    let labels = json!({ "metadata": { "labels": { "strict": "yes" } } });
    world.patch("/api/v1/namespaces/default", "merge-patch", labels).await.expect(200);
    let refused = message(&world.ask(secrets, secret("s")).await, 422);
    assert!(refused.ends_with("no params found for policy binding with `Deny` parameterNotFoundAction"), "{refused}");
    let limits = json!({ "metadata": { "name": "limits" }, "data": { "most": "1" } });
    world.ask(&format!("POST {MAPS}"), limits).await.expect(201);
    let refused = message(&world.ask(secrets, secret("s")).await, 422);
    assert!(refused.ends_with("failed expression: object.data.size() <= int(params.data.most)"), "{refused}");
    world.ask(secrets, secret("free")).await.expect(201);
    world.patch(&format!("{MAPS}/limits"), "merge-patch", json!({ "data": { "most": "2" } })).await.expect(200);
    world.ask(secrets, secret("s")).await.expect(201);

    let warned = json!({ "validationActions": ["Warn", "Audit"] });
    let spec = json!({
        "matchConstraints": about("secrets", &["*"]), "validations": [{ "expression": "false", "message": "why?" }],
    });
    bind(&world, "warned", spec, warned).await;
    let answer = world.ask(secrets, secret("w")).await;
    let told = "299 - \"Validation failed for ValidatingAdmissionPolicy 'warned' with binding 'warned': why?\"";
    assert_eq!((answer.code, answer.headers["warning"].to_str().unwrap()), (201, told));
}

#[tokio::test(start_paused = true)]
async fn another_version_is_meant_as_well_unless_a_policy_says_so() {
    let world = World::new().await;
    let path = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
    let scaler = json!({ "metadata": { "name": "h" }, "spec": {
        "maxReplicas": 3, "targetCPUUtilizationPercentage": 50,
        "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "d" },
    }});
    let spec = |policy: &str| {
        let rule = json!({
            "apiGroups": ["autoscaling"], "apiVersions": ["v2"], "operations": ["CREATE"],
            "resources": ["horizontalpodautoscalers"],
        });
        json!({
            "matchConstraints": { "resourceRules": [rule], "matchPolicy": policy },
            "validations": [{ "expression": "object.spec.metrics[0].resource.target.averageUtilization != 50" }],
        })
    };
    bind(&world, "exact", spec("Exact"), json!({})).await;
    world.ask(&format!("POST {path}?dryRun=All"), scaler.clone()).await.expect(201);
    bind(&world, "equivalent", spec("Equivalent"), json!({})).await;
    let refused = message(&world.ask(&format!("POST {path}"), scaler).await, 422);
    assert!(refused.contains("'equivalent'") && refused.contains("failed expression"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_evaluated_is_refused_when_it_is_written() {
    let world = World::new().await;
    let policy = |expression: &str, resource: &str| {
        let constraints = about(resource, &["CREATE"]);
        let validations = json!([{ "expression": expression }]);
        json!({ "metadata": { "name": "p" }, "spec": { "matchConstraints": constraints, "validations": validations } })
    };
    for wrong in ["object.", "self.x", "authorizer.path('/x').ask('get').allowed()"] {
        let refused = message(&world.ask(&format!("POST {POLICIES}"), policy(wrong, "pods")).await, 422);
        assert!(
            refused.contains("spec.validations[0].expression") && refused.contains("compilation failed"),
            "{refused}"
        );
    }
    // Nobody can lock himself out.
    let all = json!({ "matchConstraints": about("*", &["*"]), "validations": [{ "expression": "false" }] });
    bind(&world, "all", all, json!({})).await;
    message(&world.ask(&format!("POST {MAPS}"), sample("ConfigMap", "c")).await, 422);
    world.ask(&format!("DELETE {POLICIES}/all"), Value::Null).await.expect(200);
    world.ask(&format!("POST {MAPS}"), sample("ConfigMap", "c")).await.expect(201);
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_for_under_an_objects_name_is_asked_about_too() {
    let world = World::new().await;
    world.ask(&format!("POST {PODS}"), sample("Pod", "p")).await.expect(201);
    let post = |path: &str| format!("POST /api/v1/namespaces/default/{path}");
    let eviction = json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": "p" } });
    let binding = json!({ "apiVersion": "v1", "kind": "Binding", "metadata": { "name": "p" }, "target": { "kind": "Node", "name": "far" } });
    let token = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": { "expirationSeconds": 4000 } });
    let cases = [
        (
            "pods/eviction",
            "pods/p/eviction",
            "CREATE",
            eviction,
            "request.kind.group != 'policy' || request.name != 'p'",
        ),
        ("pods/binding", "pods/p/binding", "CREATE", binding.clone(), "object.target.name != 'far'"),
        ("bindings", "bindings", "CREATE", binding, "object.target.name != 'far'"),
        (
            "serviceaccounts/token",
            "serviceaccounts/default/token",
            "CREATE",
            token,
            "object.spec.expirationSeconds < 4000",
        ),
        (
            "pods/exec",
            "pods/p/exec?command=sh&command=-c&tty=1",
            "CONNECT",
            Value::Null,
            "!object.tty || object.command != ['sh', '-c']",
        ),
        ("pods/attach", "pods/p/attach?container=c", "CONNECT", Value::Null, "object.container != 'c'"),
        ("pods/portforward", "pods/p/portforward?ports=80", "CONNECT", Value::Null, "!(80 in object.ports)"),
        ("pods/proxy", "pods/p/proxy/admin/x", "CONNECT", Value::Null, "!object.path.startsWith('admin/')"),
    ];
    for (index, (resource, path, operation, body, expression)) in cases.into_iter().enumerate() {
        let rule =
            json!({ "apiGroups": [""], "apiVersions": ["v1"], "operations": [operation], "resources": [resource] });
        let spec = json!({
            "matchConstraints": { "resourceRules": [rule] }, "validations": [{ "expression": expression, "reason": "Forbidden" }],
        });
        bind(&world, &format!("p{index}"), spec, json!({})).await;
        let refused = message(&world.ask(&post(path), body).await, 403);
        assert!(refused.contains(&format!("failed expression: {expression}")), "{refused}");
    }
    world.ask(&format!("GET {PODS}/p"), Value::Null).await.expect(200);
}

#[tokio::test(start_paused = true)]
async fn a_policy_may_ask_what_the_writer_or_an_account_may_do() {
    let world = World::new().await;
    let validation = |expression: &str, message: &str| json!({ "expression": expression, "message": message });
    let spec = json!({ "matchConstraints": about("configmaps", &["CREATE"]), "validations": [
        validation("authorizer.requestResource.check('delete').allowed()", "who makes must be able to remove"),
        validation("authorizer.group('').resource('secrets').namespace('default').name('s').check('get').allowed()", "no secrets"),
        validation("!authorizer.serviceAccount('default', 'default').path('/metrics').check('get').allowed()", "open"),
        validation("authorizer.path('/healthz').check('get').reason() == ''", "fixed"),
    ]});
    bind(&world, "p", spec, json!({})).await;
    let group = "rbac.authorization.k8s.io";
    let grant = async |name: &str, rules: Value, subject: Value| {
        let metadata = json!({ "name": name });
        let role = json!({ "metadata": metadata, "rules": rules });
        world.ask(&format!("POST /apis/{group}/v1/clusterroles"), role).await.expect(201);
        let role = json!({ "apiGroup": group, "kind": "ClusterRole", "name": name });
        let binding = json!({ "metadata": metadata, "roleRef": role, "subjects": [subject] });
        world.ask(&format!("POST /apis/{group}/v1/clusterrolebindings"), binding).await.expect(201);
    };
    let user = |name: &str| json!({ "kind": "User", "apiGroup": group, "name": name });
    let rule = |resource: &str, verbs: &[&str]| json!({ "apiGroups": [""], "resources": [resource], "verbs": verbs });
    grant("makes", json!([rule("configmaps", &["create"])]), user("joe")).await;
    let both = json!([rule("configmaps", &["create", "delete"]), rule("secrets", &["get"])]);
    grant("does", both, user("jane")).await;
    let write = async |name: &str| {
        let body = sample("ConfigMap", name).to_string();
        world.send(UserInfo::authenticated(name, &[]), &format!("POST {MAPS}"), &[], &body).await
    };
    assert!(message(&write("joe").await, 422).ends_with("who makes must be able to remove"));
    write("jane").await.expect(201);
    world.ask(&format!("POST {MAPS}"), sample("ConfigMap", "admin")).await.expect(201);
    let account = json!({ "kind": "ServiceAccount", "namespace": "default", "name": "default" });
    grant("metrics", json!([{ "nonResourceURLs": ["/metrics"], "verbs": ["get"] }]), account).await;
    assert!(message(&world.ask(&format!("POST {MAPS}"), sample("ConfigMap", "b")).await, 422).ends_with("open"));
}
