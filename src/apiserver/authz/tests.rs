//! Tables of who may do what.

use api::user::UserInfo;
use http::Method;
use serde_json::json;

use super::*;

fn node() -> UserInfo {
    UserInfo::authenticated("system:node:n1", &["system:nodes"])
}

/// One request as `METHOD path?query` and what becomes of it.
fn check(user: &UserInfo, request: &str, wanted: Decision<'_>) {
    let (method, address) = request.split_once(' ').unwrap();
    let (path, query) = address.split_once('?').unwrap_or((address, ""));
    let query = Query::parse(query);
    let info = RequestInfo::parse(&method.parse::<Method>().unwrap(), path, &query);
    assert_eq!(decide(user, &info, &query), wanted, "{}: {request}", user.username);
}

#[test]
fn masters_may_do_everything() {
    let admin = UserInfo::authenticated("admin", &["system:masters"]);
    for request in ["GET /metrics", "DELETE /api/v1/nodes", "PATCH /apis/any.example/v1/things/x/status"] {
        check(&admin, request, Decision::Allow);
    }
}

#[test]
fn strangers_see_health_whatever_roles_say() {
    let stranger = UserInfo::anonymous();
    for request in ["GET /healthz", "GET /livez/ping", "GET /readyz?verbose"] {
        check(&stranger, request, Decision::Allow);
    }
    for request in ["GET /api", "GET /openapi/v3", "GET /api/v1/pods", "GET /", "POST /healthz", "GET /healthzx"] {
        check(&stranger, request, Decision::Deny);
    }
}

#[test]
fn everything_else_is_said_by_roles() {
    let user = UserInfo::authenticated("jane", &["dev"]);
    for request in
        ["GET /api", "GET /version", "GET /api/v1/namespaces", "GET /metrics", "POST /api/v1/namespaces/default/pods"]
    {
        check(&user, request, Decision::Deny);
    }
}

#[test]
fn a_node_may_do_what_concerns_it() {
    let node = node();
    let allowed = [
        "GET /api/v1/pods?fieldSelector=spec.nodeName%3Dn1",
        "GET /api/v1/pods?watch=true&fieldSelector=spec.nodeName%3D%3Dn1,status.phase!=Failed",
        "POST /api/v1/nodes",
        "PATCH /api/v1/nodes/n1/status",
        "PUT /api/v1/nodes/n1",
        "GET /api/v1/nodes/n2",
        "GET /apis/node.k8s.io/v1/runtimeclasses/other",
        "GET /api/v1/services?watch=1",
        "GET /apis/networking.k8s.io/v1/servicecidrs?watch=1",
        "POST /api/v1/namespaces/x/events",
        "PATCH /api/v1/namespaces/x/events/e",
        "POST /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases",
        "PUT /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1",
    ];
    for request in allowed {
        check(&node, request, Decision::Allow);
    }
    let denied = [
        "GET /api/v1/pods",
        "GET /api/v1/pods?fieldSelector=spec.nodeName%3Dn2",
        "GET /api/v1/pods?fieldSelector=spec.nodeName!%3Dn1",
        "PUT /api/v1/namespaces/x/pods/p",
        "POST /api/v1/namespaces/x/pods/p/binding",
        "PATCH /api/v1/nodes/n2/status",
        "DELETE /api/v1/nodes/n1",
        "DELETE /api/v1/namespaces/x/pods",
        "GET /api/v1/secrets",
        "GET /api/v1/namespaces/x/secrets",
        "GET /api/v1/secrets?fieldSelector=metadata.name%3Ds",
        "PUT /api/v1/namespaces/x/secrets/s",
        "GET /api/v1/namespaces",
        "PUT /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n2",
        "PUT /apis/coordination.k8s.io/v1/namespaces/kube-system/leases/n1",
        "GET /metrics",
        "GET /api/v1/persistentvolumes",
        "GET /api/v1/namespaces/x/persistentvolumeclaims",
        "PATCH /api/v1/namespaces/x/persistentvolumeclaims/c",
    ];
    for request in denied {
        check(&node, request, Decision::Deny);
    }
    for request in ["GET /api/v1/namespaces/x/pods/p", "PATCH /api/v1/namespaces/x/pods/p/status"] {
        check(&node, request, Decision::IfBoundTo("n1"));
    }
    check(&node, "DELETE /api/v1/namespaces/x/pods/p", Decision::IfBoundTo("n1"));
    let named = [
        "GET /api/v1/namespaces/x/secrets/s",
        "GET /api/v1/namespaces/x/configmaps?watch=1&fieldSelector=metadata.name%3Dc",
        "GET /api/v1/namespaces/x/serviceaccounts/default",
        "GET /api/v1/namespaces/x/persistentvolumeclaims/c",
        "GET /api/v1/persistentvolumes/v",
    ];
    for request in named {
        check(&node, request, Decision::IfNamedByPodOf("n1"));
    }
}

#[test]
fn a_node_name_without_the_group_is_nobody() {
    let pretender = UserInfo::authenticated("system:node:n1", &[]);
    check(&pretender, "PATCH /api/v1/nodes/n1/status", Decision::Deny);
}

#[test]
fn components_may_do_what_they_are_for() {
    let scheduler = UserInfo::authenticated(SCHEDULER, &[]);
    for request in [
        "GET /api/v1/pods",
        "POST /api/v1/namespaces/x/pods/p/binding",
        "POST /api/v1/namespaces/x/events",
        "PATCH /api/v1/persistentvolumes/v",
        "PATCH /api/v1/namespaces/x/persistentvolumeclaims/c",
        "GET /apis/storage.k8s.io/v1/storageclasses",
    ] {
        check(&scheduler, request, Decision::Allow);
    }
    for request in ["GET /api/v1/secrets", "POST /api/v1/namespaces/x/pods", "PATCH /api/v1/nodes/n"] {
        check(&scheduler, request, Decision::Deny);
    }
    let both = UserInfo::authenticated(CONTROLLER_MANAGER, &[SCHEDULER]);
    for request in ["POST /api/v1/namespaces/x/pods/p/binding", "PUT /api/v1/namespaces/x/finalize"] {
        check(&both, request, Decision::Allow);
    }
    let control = UserInfo::authenticated(CONTROLLER_MANAGER, &[]);
    for request in [
        "PUT /api/v1/namespaces/x/finalize",
        "DELETE /api/v1/namespaces/x/secrets",
        "POST /api/v1/namespaces/x/serviceaccounts",
        "PATCH /apis/example.com/v1/namespaces/x/things/t",
        "PUT /apis/policy/v1/namespaces/x/poddisruptionbudgets/b/status",
        "PUT /apis/rbac.authorization.k8s.io/v1/clusterroles/admin",
        "GET /apis/apps/v1/namespaces/x/deployments/d/scale",
        "POST /api/v1/namespaces/x/persistentvolumeclaims",
        "PATCH /api/v1/namespaces/x/persistentvolumeclaims/c/status",
        "PUT /apis/example.com/v1/namespaces/x/things/t/scale",
        "PUT /apis/autoscaling/v2/namespaces/x/horizontalpodautoscalers/h/status",
        "POST /api/v1/persistentvolumes",
        "POST /apis/storage.k8s.io/v1/storageclasses",
        "PUT /api/v1/nodes/n/proxy/storage/pvc-a",
        "DELETE /api/v1/nodes/n/proxy/storage/pvc-a",
        "POST /api/v1/namespaces/x/pods",
        "PUT /apis/apps/v1/namespaces/x/replicasets/r",
        "PUT /apis/apps/v1/namespaces/x/deployments/d/status",
        "PUT /api/v1/namespaces/x/services/s/status",
        "POST /api/v1/namespaces/x/endpoints",
        "PUT /apis/discovery.k8s.io/v1/namespaces/x/endpointslices/s",
    ] {
        check(&control, request, Decision::Allow);
    }
    for request in
        ["POST /api/v1/namespaces/x/pods/p/exec", "POST /api/v1/namespaces", "PUT /api/v1/namespaces/x/secrets/s"]
    {
        check(&control, request, Decision::Deny);
    }
}

#[test]
fn refusals_have_the_words_of_upstream() {
    let user = UserInfo::authenticated("u", &[]);
    let text = |request: &str| {
        let (method, path) = request.split_once(' ').unwrap();
        let info = RequestInfo::parse(&method.parse().unwrap(), path, &Query::default());
        forbidden(&user, &info, "").message
    };
    assert_eq!(
        text("GET /api/v1/namespaces/n/pods"),
        r#"pods is forbidden: User "u" cannot list resource "pods" in API group "" in the namespace "n""#
    );
    assert_eq!(
        text("GET /api/v1/namespaces/n/pods/p/log"),
        r#"pods "p" is forbidden: User "u" cannot get resource "pods/log" in API group "" in the namespace "n""#
    );
    assert_eq!(
        text("DELETE /api/v1/nodes/x"),
        r#"nodes "x" is forbidden: User "u" cannot delete resource "nodes" in API group "" at the cluster scope"#
    );
    assert_eq!(text("GET /metrics"), r#"forbidden: User "u" cannot get path "/metrics""#);
}

#[test]
fn what_a_pod_names_is_found_wherever_it_can_stand() {
    let pod = json!({ "metadata": { "name": "p" }, "spec": {
        "nodeName": "n1",
        "serviceAccountName": "robot",
        "imagePullSecrets": [{ "name": "pull" }],
        "volumes": [
            { "secret": { "secretName": "volume" } },
            { "configMap": { "name": "config" } },
            { "projected": { "sources": [{ "secret": { "name": "projected" } }] } },
            { "csi": { "nodePublishSecretRef": { "name": "driver" } } },
            { "persistentVolumeClaim": { "claimName": "disk" } },
            { "name": "own", "ephemeral": {} },
        ],
        "containers": [{ "env": [{ "valueFrom": { "secretKeyRef": { "name": "key" } } }] }],
        "initContainers": [{ "envFrom": [{ "configMapRef": { "name": "from" } }] }],
    }});
    for name in ["pull", "volume", "projected", "driver", "key"] {
        assert!(relations::names(&pod, "secrets", name), "{name}");
        assert!(!relations::names(&pod, "configmaps", name), "{name}");
    }
    for name in ["config", "from"] {
        assert!(relations::names(&pod, "configmaps", name), "{name}");
    }
    for (name, is_named) in [("disk", true), ("p-own", true), ("own", false), ("p-", false)] {
        assert_eq!(relations::names(&pod, "persistentvolumeclaims", name), is_named, "{name}");
    }
    let volume = json!({ "spec": { "claimRef": { "namespace": "x", "name": "disk" } } });
    assert_eq!(relations::claim_of(&volume), Some(("x", "disk")));
    assert!(relations::names(&pod, "serviceaccounts", "robot"));
    assert!(!relations::names(&pod, "serviceaccounts", "default"));
    assert!(relations::is_bound(&pod, "n1") && !relations::is_bound(&pod, "n"));
}
