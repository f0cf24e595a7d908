//! Roles and bindings that every cluster has, as `plugin/pkg/auth/authorizer/rbac/bootstrappolicy/policy.go` lists them,
//! for the kinds that there are; and the bindings by which machines join, as `kubeadm init` makes them
//! (`cmd/kubeadm/app/phases/bootstraptoken/node`).
//!
//! Invariant: what is missing of them is added at each start, what somebody has added stays; an object whose annotation
//! `rbac.authorization.kubernetes.io/autoupdate` is `false` is left alone.

use api::resources::rbac::GROUP;
use api::user::{JOINERS, NODES};
use serde_json::{Value, json};

use crate::authz::NETWORK;

/// Verbs, API groups and resources, separated by blanks; `""` is the core group.
type Grant = (&'static str, &'static str, &'static str);

const READ: &str = "get list watch";
const READ_WRITE: &str = "create delete deletecollection get list patch update watch";
const WRITE: &str = "create delete deletecollection patch update";
const CORE: &str = "\"\"";

/// A role of the cluster.
struct Role {
    name: &'static str,
    /// The role that takes in these rules (`rbac.authorization.k8s.io/aggregate-to-…`).
    into: &'static str,
    grants: &'static [Grant],
    /// Paths, for `get`.
    paths: &'static str,
}

const fn role(name: &'static str, grants: &'static [Grant]) -> Role {
    Role { name, into: "", grants, paths: "" }
}

const ROLES: &[Role] = &[
    Role { name: "cluster-admin", into: "", grants: &[("*", "*", "*")], paths: "*" },
    Role {
        name: "system:discovery",
        into: "",
        grants: &[],
        paths: "/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/",
    },
    Role {
        name: "system:public-info-viewer",
        into: "",
        grants: &[],
        paths: "/healthz /livez /readyz /version /version/",
    },
    Role {
        name: "system:monitoring",
        into: "",
        grants: &[],
        paths: "/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*",
    },
    Role {
        name: "system:service-account-issuer-discovery",
        into: "",
        grants: &[],
        paths: "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/",
    },
    role(
        "system:basic-user",
        &[
            ("create", "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
            ("create", "authentication.k8s.io", "selfsubjectreviews"),
        ],
    ),
    Role {
        name: "system:aggregate-to-admin",
        into: "admin",
        grants: &[
            ("create", "authorization.k8s.io", "localsubjectaccessreviews"),
            (READ_WRITE, GROUP, "roles rolebindings"),
        ],
        paths: "",
    },
    Role {
        name: "system:aggregate-to-edit",
        into: "edit",
        grants: &[
            (READ, CORE, "pods/attach pods/proxy pods/exec pods/portforward secrets services/proxy"),
            ("impersonate", CORE, "serviceaccounts"),
            (WRITE, CORE, "pods pods/attach pods/exec pods/portforward pods/proxy"),
            ("create", CORE, "pods/eviction"),
            (
                WRITE,
                CORE,
                "configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets \
                 serviceaccounts services services/proxy",
            ),
            ("create", CORE, "serviceaccounts/token"),
            (
                WRITE,
                "apps",
                "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale \
                 statefulsets statefulsets/scale",
            ),
            (WRITE, "autoscaling", "horizontalpodautoscalers"),
            (WRITE, "batch", "cronjobs jobs"),
            (WRITE, "policy", "poddisruptionbudgets"),
            (WRITE, "networking.k8s.io", "ingresses networkpolicies"),
            (WRITE, "resource.k8s.io", "resourceclaims resourceclaimtemplates"),
            (READ_WRITE, "coordination.k8s.io", "leases"),
        ],
        paths: "",
    },
    Role {
        name: "system:aggregate-to-view",
        into: "view",
        grants: &[
            (
                READ,
                CORE,
                "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers \
                 replicationcontrollers/scale serviceaccounts services services/status",
            ),
            (
                READ,
                CORE,
                "bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status \
                 resourcequotas resourcequotas/status",
            ),
            (READ, CORE, "namespaces"),
            (READ, "discovery.k8s.io", "endpointslices"),
            (
                READ,
                "apps",
                "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status \
                 replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status",
            ),
            (READ, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
            (READ, "batch", "cronjobs cronjobs/status jobs jobs/status"),
            (READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
            (READ, "networking.k8s.io", "ingresses ingresses/status networkpolicies"),
            (READ, "resource.k8s.io", "resourceclaims resourceclaims/status resourceclaimtemplates"),
        ],
        paths: "",
    },
    role("system:node", &[]),
    // What the DNS of a node reads beside what nodes may anyway, as kubeadm's `system:coredns`.
    role("system:coracle:dns", &[("list watch", CORE, "namespaces")]),
    role("system:node-bootstrapper", &[("create get list watch", "certificates.k8s.io", "certificatesigningrequests")]),
    role(
        "system:node-proxier",
        &[
            ("list watch", CORE, "services endpoints"),
            ("get list watch", CORE, "nodes"),
            ("create patch update", "\"\" events.k8s.io", "events"),
            ("list watch", "discovery.k8s.io", "endpointslices"),
            ("list watch", "networking.k8s.io", "servicecidrs"),
        ],
    ),
    // Of our own: what the network of a node must know beyond what the node may.
    role(
        "system:node-network",
        &[("get list watch", CORE, "pods namespaces"), ("get list watch", "networking.k8s.io", "networkpolicies")],
    ),
    role(
        "system:auth-delegator",
        &[
            ("create", "authentication.k8s.io", "tokenreviews"),
            ("create", "authorization.k8s.io", "subjectaccessreviews"),
        ],
    ),
    role(
        "system:kubelet-api-admin",
        &[
            (READ, CORE, "nodes"),
            ("proxy", CORE, "nodes"),
            ("*", CORE, "nodes/configz nodes/healthz nodes/log nodes/metrics nodes/pods nodes/proxy nodes/stats"),
        ],
    ),
    role(
        "system:persistent-volume-provisioner",
        &[
            ("create delete get list watch", CORE, "persistentvolumes"),
            ("get list update watch", CORE, "persistentvolumeclaims"),
            (READ, "storage.k8s.io", "storageclasses"),
            ("watch", CORE, "events"),
            ("create patch update", "\"\" events.k8s.io", "events"),
        ],
    ),
    // What metrics-server brings along.
    Role {
        name: "system:aggregated-metrics-reader",
        into: "view",
        grants: &[(READ, "metrics.k8s.io", "pods nodes")],
        paths: "",
    },
    role(
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        &[("create", "certificates.k8s.io", "certificatesigningrequests/nodeclient")],
    ),
    role(
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        &[("create", "certificates.k8s.io", "certificatesigningrequests/selfnodeclient")],
    ),
];

/// Roles that are made of those that name them: each with the roles that go into it.
const AGGREGATES: &[(&str, &[&str])] =
    &[("admin", &["admin", "edit", "view"]), ("edit", &["edit", "view"]), ("view", &["view"])];

/// Signers for whose requests there is a role to approve them.
const SIGNERS: [&str; 4] =
    ["legacy-unknown", "kubelet-serving", "kube-apiserver-client", "kube-apiserver-client-kubelet"];

/// Role, kind of the subject and its name.
const BINDINGS: &[(&str, &[(&str, &str)])] = &[
    ("cluster-admin", &[("Group", "system:masters")]),
    ("system:monitoring", &[("Group", "system:monitoring")]),
    ("system:discovery", &[("Group", "system:authenticated")]),
    ("system:basic-user", &[("Group", "system:authenticated")]),
    ("system:public-info-viewer", &[("Group", "system:authenticated"), ("Group", "system:unauthenticated")]),
    ("system:node-proxier", &[("User", "system:kube-proxy")]),
    ("system:node-network", &[("User", NETWORK)]),
    ("system:node-network-impersonator", &[("Group", "system:nodes")]),
    ("system:node", &[]),
    ("system:coracle:dns", &[("Group", "system:nodes")]),
    ("system:service-account-issuer-discovery", &[("Group", "system:serviceaccounts")]),
    ("system:node-bootstrapper", &[("Group", JOINERS)]),
    ("system:certificates.k8s.io:certificatesigningrequests:nodeclient", &[("Group", JOINERS)]),
    ("system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", &[("Group", NODES)]),
];

/// A namespaced role with its binding: namespace, name, grants with one named object, subject.
const EXTENSION_READER: (&str, &str, &str) =
    ("kube-system", "extension-apiserver-authentication-reader", "extension-apiserver-authentication");

/// Who may read what nodes are to know of the cluster.
const CLUSTER_READER: (&str, &str, &str) = ("kube-system", "coracle:cluster-reader", "coracle-cluster");

/// All objects, as they would be created.
pub(crate) fn objects() -> Vec<Value> {
    let roles = ROLES.iter().map(Role::object);
    let bindings = BINDINGS.iter().map(|(role, subjects)| binding(role, subjects));
    roles
        .chain(AGGREGATES.iter().map(|(name, parts)| aggregate(name, parts)))
        .chain(SIGNERS.map(approver))
        .chain(bindings)
        .chain([reader(EXTENSION_READER), impersonator(), reader(CLUSTER_READER), binding_of_nodes()])
        .collect()
}

fn metadata(name: &str) -> Value {
    json!({
        "name": name,
        "labels": { "kubernetes.io/bootstrapping": "rbac-defaults" },
        "annotations": { "rbac.authorization.kubernetes.io/autoupdate": "true" },
    })
}

fn words(list: &str) -> Vec<&str> {
    list.split(' ').map(|word| if word == CORE { "" } else { word }).collect()
}

impl Role {
    fn rules(&self) -> Vec<Value> {
        let grants = self.grants.iter().map(|(verbs, groups, resources)| {
            json!({ "verbs": words(verbs), "apiGroups": words(groups), "resources": words(resources) })
        });
        let verb = if self.paths == "*" { "*" } else { "get" };
        let paths = (!self.paths.is_empty()).then(|| json!({ "verbs": [verb], "nonResourceURLs": words(self.paths) }));
        grants.chain(paths).collect()
    }

    fn object(&self) -> Value {
        let mut metadata = metadata(self.name);
        if !self.into.is_empty() {
            metadata["labels"][format!("{GROUP}/aggregate-to-{}", self.into)] = json!("true");
        }
        json!({ "apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRole", "metadata": metadata, "rules": self.rules() })
    }
}

/// The rules are what the named roles have now; the aggregation controller keeps them.
fn aggregate(name: &str, parts: &[&str]) -> Value {
    let mut metadata = metadata(name);
    // `edit` goes into `admin` as a whole, `view` into `edit`.
    let into = match name {
        "edit" => "admin",
        "view" => "edit",
        _ => "",
    };
    if !into.is_empty() {
        metadata["labels"][format!("{GROUP}/aggregate-to-{into}")] = json!("true");
    }
    let rules: Vec<Value> = ROLES.iter().filter(|role| parts.contains(&role.into)).flat_map(Role::rules).collect();
    let selector = json!({ "matchLabels": { (format!("{GROUP}/aggregate-to-{name}")): "true" } });
    json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRole", "metadata": metadata,
        "aggregationRule": { "clusterRoleSelectors": [selector] }, "rules": rules,
    })
}

fn approver(signer: &str) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRole",
        "metadata": metadata(&format!("system:certificates.k8s.io:{signer}-approver")),
        "rules": [{
            "verbs": ["approve"], "apiGroups": ["certificates.k8s.io"], "resources": ["signers"],
            "resourceNames": [format!("kubernetes.io/{signer}")],
        }],
    })
}

fn impersonator() -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRole",
        "metadata": metadata(&format!("{NETWORK}-impersonator")),
        "rules": [{ "verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"], "resourceNames": [NETWORK] }],
    })
}

fn binding(role: &str, subjects: &[(&str, &str)]) -> Value {
    let subjects: Vec<Value> =
        subjects.iter().map(|(kind, name)| json!({ "kind": kind, "apiGroup": GROUP, "name": name })).collect();
    json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "ClusterRoleBinding", "metadata": metadata(role),
        "roleRef": { "apiGroup": GROUP, "kind": "ClusterRole", "name": role }, "subjects": subjects,
    })
}

fn reader((namespace, name, config_map): (&str, &str, &str)) -> Value {
    let mut metadata = metadata(name);
    metadata["namespace"] = json!(namespace);
    json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "Role", "metadata": metadata,
        "rules": [{
            "verbs": ["get", "list", "watch"], "apiGroups": [""], "resources": ["configmaps"],
            "resourceNames": [config_map],
        }],
    })
}

fn binding_of_nodes() -> Value {
    let (namespace, name, _) = CLUSTER_READER;
    let mut metadata = metadata(name);
    metadata["namespace"] = json!(namespace);
    json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "RoleBinding", "metadata": metadata,
        "roleRef": { "apiGroup": GROUP, "kind": "Role", "name": name },
        "subjects": [{ "kind": "Group", "apiGroup": GROUP, "name": NODES }],
    })
}

/// The stored object with what it lacks of the wanted one, or none if it lacks nothing or is to be left alone.
pub(crate) fn completed(stored: &Value, wanted: &Value) -> Option<Value> {
    if stored["metadata"]["annotations"]["rbac.authorization.kubernetes.io/autoupdate"] != "true" {
        return None;
    }
    let mut new = stored.clone();
    if stored["aggregationRule"].is_null() {
        let missing = super::uncovered(&super::Rule::list(&stored["rules"]), &super::Rule::list(&wanted["rules"]));
        append(&mut new, "rules", missing.iter().map(super::Rule::to_value));
    }
    let present = stored["subjects"].as_array().cloned().unwrap_or_default();
    let wanted = wanted["subjects"].as_array().into_iter().flatten();
    append(&mut new, "subjects", wanted.filter(|subject| !present.contains(subject)).cloned());
    (new != *stored).then_some(new)
}

fn append(object: &mut Value, field: &str, values: impl Iterator<Item = Value>) {
    let mut values = values.peekable();
    if values.peek().is_some() {
        let mut whole = object[field].as_array().cloned().unwrap_or_default();
        whole.extend(values);
        object[field] = Value::Array(whole);
    }
}
