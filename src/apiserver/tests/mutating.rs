//! MutatingAdmissionPolicies: writes that they change, leave alone and refuse.

use serde_json::{Value, json};

use super::custom::{crontab, crontabs, establish};
use super::validating::about;
use super::world::{World, sample};

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings";
const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn laid_over(expression: &str) -> Value {
    json!({ "patchType": "ApplyConfiguration", "applyConfiguration": { "expression": expression } })
}

fn patched(expression: &str) -> Value {
    json!({ "patchType": "JSONPatch", "jsonPatch": { "expression": expression } })
}

/// A policy about a resource with a binding of the same name.
async fn bind(world: &World, name: &str, resource: &str, spec: Value, binding: Value) {
    let metadata = json!({ "name": name });
    let mut policy = json!({
        "matchConstraints": about(resource, &["CREATE", "UPDATE"]), "reinvocationPolicy": "Never",
    });
    spec.as_object().unwrap().iter().for_each(|(key, value)| policy[key] = value.clone());
    world.ask(&format!("POST {POLICIES}"), json!({ "metadata": metadata, "spec": policy })).await.expect(201);
    let mut spec = json!({ "policyName": name });
    binding.as_object().unwrap().iter().for_each(|(key, value)| spec[key] = value.clone());
    world.ask(&format!("POST {BINDINGS}"), json!({ "metadata": metadata, "spec": spec })).await.expect(201);
}

async fn mutate(world: &World, name: &str, resource: &str, mutations: Value) {
    bind(world, name, resource, json!({ "mutations": mutations }), json!({})).await;
}

fn map(name: &str) -> Value {
    json!({ "metadata": { "name": name } })
}

#[tokio::test(start_paused = true)]
async fn a_configuration_is_laid_over_what_is_written_as_an_apply_would() {
    let world = World::new().await;
    let spec = json!({
        "variables": [{ "name": "name", "expression": "object.metadata.name + '-sidecar'" }],
        "matchConditions": [{
            "name": "no-sidecar", "expression": "!object.spec.?initContainers.orValue([]).exists(c, c.name == object.metadata.name + '-sidecar')",
        }],
        "mutations": [laid_over(
            "Object{ metadata: Object.metadata{ labels: {'mesh': 'on'} }, spec: Object.spec{ initContainers: [
                Object.spec.initContainers{ name: variables.name, image: 'proxy:1', restartPolicy: 'Always' } ] } }",
        )],
    });
    bind(&world, "mesh", "pods", spec, json!({})).await;
    let mut pod = sample("Pod", "p");
    pod["metadata"]["labels"] = json!({ "app": "a" });
    let dry = world.ask(&format!("POST {PODS}?dryRun=All"), pod.clone()).await.expect(201);
    assert_eq!(dry["spec"]["initContainers"][0]["name"], "p-sidecar");
    let made = world.ask(&format!("POST {PODS}"), pod).await.expect(201);
    assert_eq!(made["metadata"]["labels"], json!({ "app": "a", "mesh": "on" }));
    let init = &made["spec"]["initContainers"];
    assert_eq!((init.as_array().unwrap().len(), &init[0]["image"]), (1, &json!("proxy:1")));
    assert_eq!(init[0]["imagePullPolicy"], "IfNotPresent", "its defaults are filled in");
    assert_eq!(
        init[0]["volumeMounts"][0]["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount",
        "and its token"
    );
    let managed = made["metadata"]["managedFields"].to_string();
    assert!(!managed.contains("mesh") && managed.contains("app"), "nobody manages what a policy sets: {managed}");
}

#[tokio::test(start_paused = true)]
async fn a_patch_is_applied_unless_its_test_fails_and_each_change_sees_those_before() {
    let world = World::new().await;
    let mutations = json!([
        patched(
            "[JSONPatch{op: 'test', path: '/data/color', value: 'red'},
                  JSONPatch{op: 'replace', path: '/data/color', value: 'green'}]"
        ),
        laid_over("Object{ data: Object.data{ seen: object.data.?color.orValue('none') } }"),
        patched(
            "[JSONPatch{op: 'add', path: '/metadata/annotations/' + jsonpatch.escapeKey('a/b'), value: object.data.seen + '!'}]"
        ),
    ]);
    mutate(&world, "colours", "configmaps", mutations).await;
    let mut red = map("red");
    red["data"] = json!({ "color": "red" });
    red["metadata"]["annotations"] = json!({ "c": "d" });
    let made = world.ask(&format!("POST {MAPS}"), red).await.expect(201);
    assert_eq!(made["data"], json!({ "color": "green", "seen": "green" }));
    assert_eq!(made["metadata"]["annotations"], json!({ "a/b": "green!", "c": "d" }));
    let made = world.ask(&format!("POST {MAPS}"), map("plain")).await;
    let text = "policy 'colours' with binding 'colours' denied request: JSONPath: ";
    assert!(
        made.json()["message"].as_str().unwrap().starts_with(text),
        "there is no /data to look into: {}",
        made.text
    );
    let mut blue = map("blue");
    blue["data"] = json!({ "color": "blue" });
    blue["metadata"]["annotations"] = json!({ "c": "d" });
    let made = world.ask(&format!("POST {MAPS}"), blue).await.expect(201);
    assert_eq!(made["data"], json!({ "color": "blue", "seen": "blue" }), "its test fails, and nothing else");
    world.ask(&format!("DELETE {MAPS}/blue"), Value::Null).await.expect(200);
}

#[tokio::test(start_paused = true)]
async fn settings_come_from_the_binding_and_each_of_them_changes_the_object() {
    let world = World::new().await;
    let spec = json!({
        "paramKind": { "apiVersion": "v1", "kind": "ConfigMap" },
        "mutations": [laid_over("Object{ metadata: Object.metadata{ labels: params.data } }")],
    });
    let selector = json!({ "selector": { "matchLabels": { "settings": "yes" } }, "parameterNotFoundAction": "Deny" });
    bind(&world, "labels", "secrets", spec, json!({ "paramRef": selector })).await;
    let secrets = "POST /api/v1/namespaces/default/secrets";
    let refused = world.ask(secrets, map("s")).await;
    let message = "policy 'labels' with binding 'labels' denied request: failed to configure binding: no params found for \
                   policy binding with `Deny` parameterNotFoundAction";
    assert_eq!((refused.code, &refused.json()["message"]), (403, &json!(message)));
    assert_eq!(refused.json()["reason"], "Forbidden");
    for (name, label) in [("one", "a"), ("two", "b")] {
        let settings =
            json!({ "metadata": { "name": name, "labels": { "settings": "yes" } }, "data": { label: name } });
        world.ask(&format!("POST {MAPS}"), settings).await.expect(201);
    }
    let made = world.ask(secrets, map("s")).await.expect(201);
    assert_eq!(made["metadata"]["labels"], json!({ "a": "one", "b": "two" }));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_done_is_refused_or_passed_over_as_the_policy_says() {
    let world = World::new().await;
    let broken = json!([
        laid_over("Object{ data: Object.data{ a: object.none } }"),
        laid_over("Object{ data: Object.data{ b: 'b' } }"),
        laid_over("Object{ other: 1 }"),
    ]);
    let spec = json!({ "failurePolicy": "Ignore", "mutations": broken });
    bind(&world, "lenient", "configmaps", spec, json!({})).await;
    assert_eq!(world.ask(&format!("POST {MAPS}"), map("a")).await.expect(201)["data"], json!({ "b": "b" }));
    bind(&world, "strict", "configmaps", json!({ "mutations": broken }), json!({})).await;
    let refused = world.ask(&format!("POST {MAPS}"), map("b")).await;
    let status = refused.json();
    let first = "policy 'strict' with binding 'strict' denied request: expression 'Object{ data: Object.data{ a: \
                 object.none } }' resulted in error: no such key: none";
    assert_eq!((refused.code, &status["reason"], &status["message"]), (403, &json!("Invalid"), &json!(first)));
    let second = "policy 'strict' with binding 'strict' denied request: error applying patch: failed to convert patch \
                  object to typed object: .other: field not declared in schema";
    assert_eq!(status["details"]["causes"], json!([{ "message": first }, { "message": second }]));
    world.ask(&format!("DELETE {BINDINGS}/strict"), Value::Null).await.expect(200);

    let atomic = json!([laid_over("Object{ spec: Object.spec{ nodeSelector: Object.spec.nodeSelector{ a: 'b' } } }")]);
    mutate(&world, "atomic", "pods", atomic).await;
    let refused = world.ask(&format!("POST {PODS}"), sample("Pod", "p")).await;
    let text = "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: \
                .spec.nodeSelector";
    assert!(refused.json()["message"].as_str().unwrap().ends_with(text), "{}", refused.text);
    let unknown = json!([patched("[JSONPatch{op: 'add', path: '/spec', value: 1}]")]);
    bind(&world, "unknown", "secrets", json!({ "failurePolicy": "Ignore", "mutations": unknown }), json!({})).await;
    let refused = world.ask("POST /api/v1/namespaces/default/secrets", map("s")).await;
    let text = "Internal error occurred: strict decoding error: unknown field \"spec\"";
    assert_eq!((refused.code, &refused.json()["message"]), (500, &json!(text)));
}

#[tokio::test(start_paused = true)]
async fn policies_change_in_the_order_of_names_and_once_more_if_they_want() {
    let world = World::new().await;
    let append = |own: &str| {
        let expression = format!("Object{{ data: Object.data{{ log: object.?data.?log.orValue('') + '{own}' }} }}");
        json!([laid_over(&expression)])
    };
    for (name, again) in [("c", "Never"), ("a", "IfNeeded"), ("b", "IfNeeded")] {
        let spec = json!({ "mutations": append(name), "reinvocationPolicy": again });
        bind(&world, name, "configmaps", spec, json!({})).await;
    }
    let made = world.ask(&format!("POST {MAPS}"), map("m")).await.expect(201);
    assert_eq!(made["data"]["log"], "abcab");
    let fixed =
        json!([laid_over("Object{ metadata: Object.metadata{ name: 'other', uid: 'x', labels: {'a': 'b'} } }")]);
    mutate(&world, "fixed", "configmaps", fixed).await;
    let patch = json!({ "data": { "log": "" } });
    let made = world.patch(&format!("{MAPS}/m"), "merge-patch", patch).await.expect(200);
    assert_eq!((&made["metadata"]["name"], &made["data"]["log"]), (&json!("m"), &json!("abcab")));
    assert_eq!(made["metadata"]["labels"]["a"], "b");
    world.ask(&format!("DELETE {MAPS}/m"), Value::Null).await.expect(200);
}

#[tokio::test(start_paused = true)]
async fn custom_objects_scales_and_other_versions_are_changed_as_their_types_say() {
    let world = World::new().await;
    establish(&world, crontabs()).await;
    let add = "Object{ spec: Object.spec{ ports: [Object.spec.ports{ name: 'b', number: 2 }, Object.spec.ports{ name: 'c' }] } }";
    mutate(&world, "ports", "crontabs", json!([laid_over(add)])).await;
    let spec = json!({ "cronSpec": "* * * * */5", "ports": [{ "name": "a" }, { "name": "b", "number": 1 }] });
    let path = "POST /apis/stable.example.com/v1/namespaces/default/crontabs";
    let made = world.ask(path, crontab("t", spec)).await.expect(201);
    assert_eq!(made["spec"]["ports"], json!([{ "name": "a" }, { "name": "b", "number": 2 }, { "name": "c" }]));
    assert_eq!(made["spec"]["image"], "busybox");

    let most = "Object{ spec: Object.spec{ replicas: object.spec.replicas > 3 ? 3 : object.spec.replicas } }";
    mutate(&world, "most", "deployments/scale", json!([laid_over(most)])).await;
    world.ask("POST /apis/apps/v1/namespaces/default/deployments", sample("Deployment", "d")).await.expect(201);
    let path = "/apis/apps/v1/namespaces/default/deployments/d";
    let patch = json!({ "spec": { "replicas": 9 } });
    let scale = world.patch(&format!("{path}/scale"), "merge-patch", patch.clone()).await.expect(200);
    assert_eq!(scale["spec"]["replicas"], 3);
    assert_eq!(world.patch(path, "merge-patch", patch).await.expect(200)["spec"]["replicas"], 9);
}

#[tokio::test(start_paused = true)]
async fn policies_change_what_is_asked_for_under_an_object_and_know_who_may_do_what() {
    let world = World::new().await;
    let spec = json!({
        "matchConstraints": about("serviceaccounts/token", &["CREATE"]),
        "matchConditions": [{ "name": "free", "expression": "authorizer.path('/free').check('get').allowed()" }],
        "mutations": [laid_over("Object{ spec: Object.spec{ expirationSeconds: 700 } }")],
    });
    bind(&world, "short", "", spec, json!({})).await;
    world.ask("POST /api/v1/namespaces/default/serviceaccounts", sample("ServiceAccount", "a")).await.expect(201);
    let made = world.ask("POST /api/v1/namespaces/default/serviceaccounts/a/token", json!({ "spec": {} })).await;
    assert_eq!(made.expect(201)["spec"]["expirationSeconds"], 700);
}
