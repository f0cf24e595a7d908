//! The schemas and levels that every cluster has.
//!
//! The mandatory and suggested ones of `k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap`. Those of `exempt` and `catch-all`
//! are fixed; the others may be changed by who first says so in the annotation [`AUTO_UPDATE`].

use serde_json::{Value, json};

use super::{CATCH_ALL, EXEMPT, GROUP};

/// Whether the server keeps an object as it is here: `true` or `false`.
pub const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

/// Levels with their shares, what they may lend (in percent), and their queues and hands; no queues where nothing waits.
const LEVELS: [(&str, u32, u32, (u32, u32)); 7] = [
    (CATCH_ALL, 5, 0, (0, 0)),
    ("system", 30, 33, (64, 6)),
    ("node-high", 40, 25, (64, 6)),
    ("leader-election", 10, 0, (16, 4)),
    ("workload-high", 40, 50, (128, 6)),
    ("workload-low", 100, 90, (128, 6)),
    ("global-default", 20, 50, (128, 6)),
];

const MANAGER: &str = "system:kube-controller-manager";
const SCHEDULER: &str = "system:kube-scheduler";
const NODES: &[&str] = &["system:nodes"];
const EVERYBODY: &[&str] = &["system:unauthenticated", "system:authenticated"];

/// All of them; levels come before the schemas that name them.
pub fn objects() -> Vec<Value> {
    levels().into_iter().chain(schemas()).collect()
}

/// The level of a name.
pub fn level(name: &str) -> Option<Value> {
    levels().into_iter().find(|level| level["metadata"]["name"] == name)
}

/// The schema of a name.
pub fn schema(name: &str) -> Option<Value> {
    schemas().into_iter().find(|schema| schema["metadata"]["name"] == name)
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": kind,
        "metadata": { "name": name, "annotations": { (AUTO_UPDATE): "true" } }, "spec": spec,
    })
}

fn levels() -> Vec<Value> {
    let none = json!({ "nominalConcurrencyShares": 0, "lendablePercent": 0 });
    let exempt = object("PriorityLevelConfiguration", EXEMPT, &json!({ "type": "Exempt", "exempt": none }));
    let limited = LEVELS.into_iter().map(|(name, shares, lendable, (queues, hand))| {
        let response = match queues {
            0 => json!({ "type": "Reject" }),
            _ => {
                let queuing = json!({ "queues": queues, "handSize": hand, "queueLengthLimit": 50 });
                json!({ "type": "Queue", "queuing": queuing })
            }
        };
        let limited =
            json!({ "nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response });
        object("PriorityLevelConfiguration", name, &json!({ "type": "Limited", "limited": limited }))
    });
    std::iter::once(exempt).chain(limited).collect()
}

fn schemas() -> Vec<Value> {
    let [leases, endpoints] = [("coordination.k8s.io", "leases"), ("", "endpoints")]
        .map(|(group, resource)| resources(&["get", "create", "update"], group, &[resource], false));
    let configuration = resources(&["get", "create", "update"], "", &["endpoints", "configmaps"], false);
    let of_nodes = [
        resources(&["*"], "", &["nodes", "nodes/status"], true),
        resources(&["*"], "coordination.k8s.io", &["leases"], false),
    ];
    let probes = json!({ "verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"] });
    let probes = json!({ "subjects": groups(EVERYBODY), "nonResourceRules": [probes] });
    let accounts = || accounts(&["*"]);
    let electing = [users(&[MANAGER, SCHEDULER]), accounts()].concat();
    let of_endpoints =
        [users(&[MANAGER]), self::accounts(&["endpoint-controller", "endpointslicemirroring-controller"])].concat();
    let (user, namespace) = ("ByUser", "ByNamespace");
    vec![
        of(EXEMPT, EXEMPT, 1, "", &everything(&groups(&["system:masters"]))),
        of("probes", EXEMPT, 2, "", &probes),
        of("system-leader-election", "leader-election", 100, user, &about(&electing, std::slice::from_ref(&leases))),
        of("endpoint-controller", "workload-high", 150, user, &about(&of_endpoints, &[endpoints])),
        of("workload-leader-election", "leader-election", 200, user, &about(&accounts(), &[configuration, leases])),
        of("system-node-high", "node-high", 400, user, &about(&groups(NODES), &of_nodes)),
        of("system-nodes", "system", 500, user, &everything(&groups(NODES))),
        of("kube-controller-manager", "workload-high", 800, namespace, &everything(&users(&[MANAGER]))),
        of("kube-scheduler", "workload-high", 800, namespace, &everything(&users(&[SCHEDULER]))),
        of("kube-system-service-accounts", "workload-high", 900, namespace, &everything(&accounts())),
        of("service-accounts", "workload-low", 9000, user, &everything(&groups(&["system:serviceaccounts"]))),
        of("global-default", "global-default", 9900, user, &everything(&groups(EVERYBODY))),
        of(CATCH_ALL, CATCH_ALL, 10_000, user, &everything(&groups(EVERYBODY))),
    ]
}

fn of(name: &str, level: &str, precedence: u32, method: &str, rule: &Value) -> Value {
    let mut spec = json!({
        "priorityLevelConfiguration": { "name": level }, "matchingPrecedence": precedence, "rules": [rule],
    });
    if !method.is_empty() {
        spec["distinguisherMethod"] = json!({ "type": method });
    }
    object("FlowSchema", name, &spec)
}

fn groups(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({ "kind": "Group", "group": { "name": name } })).collect()
}

fn users(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| json!({ "kind": "User", "user": { "name": name } })).collect()
}

fn accounts(names: &[&str]) -> Vec<Value> {
    let of_system = |name: &&str| json!({ "namespace": "kube-system", "name": name });
    names.iter().map(|name| json!({ "kind": "ServiceAccount", "serviceAccount": of_system(name) })).collect()
}

fn resources(verbs: &[&str], group: &str, resources: &[&str], of_cluster: bool) -> Value {
    let mut rule = json!({ "verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": ["*"] });
    if of_cluster {
        rule["clusterScope"] = json!(true);
    }
    rule
}

fn about(subjects: &[Value], resources: &[Value]) -> Value {
    json!({ "subjects": subjects, "resourceRules": resources })
}

fn everything(subjects: &[Value]) -> Value {
    let mut rule = about(subjects, &[resources(&["*"], "*", &["*"], true)]);
    rule["nonResourceRules"] = json!([{ "verbs": ["*"], "nonResourceURLs": ["*"] }]);
    rule
}
