//! A minimal object of each kind.

use api::resources::Resource;
use serde_json::{Value, json};

/// A minimal object of a row, and the name it has in tests of all rows.
pub(super) fn sample_of(row: &Resource) -> (Value, &'static str) {
    let name = match row.kind {
        "IPAddress" => "10.43.0.9",
        "CustomResourceDefinition" => "samples.example.org",
        "APIService" => "v1.samples.example.org",
        _ => "sample",
    };
    let mut object = sample(row.kind, name);
    if row.group == "events.k8s.io" {
        object = json!({
            "metadata": { "name": name }, "regarding": object["involvedObject"], "eventTime": "2026-01-02T03:04:05.000000Z",
            "reportingController": "example.org/c", "reportingInstance": "c-1", "action": "Do", "reason": "Done",
            "type": "Normal",
        });
    }
    (object, name)
}

/// A minimal object of a kind.
pub(super) fn sample(kind: &str, name: &str) -> Value {
    let mut object = json!({ "metadata": { "name": name } });
    let labels = json!({ "app": name });
    let containers = json!([{ "name": "c", "image": "i:1" }]);
    let template = json!({ "metadata": { "labels": labels }, "spec": { "containers": containers } });
    let selector = json!({ "matchLabels": labels });
    match kind {
        "Pod" => object["spec"] = json!({ "containers": containers }),
        "APIService" => {
            object["spec"] = json!({
                "group": "samples.example.org", "version": "v1", "groupPriorityMinimum": 7, "versionPriority": 7,
            });
        }
        "PodTemplate" => object["template"] = template,
        "ReplicationController" => object["spec"] = json!({ "template": template }),
        "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet" => {
            object["spec"] = json!({ "selector": selector, "template": template });
        }
        "Job" => {
            object["spec"] = json!({ "template": template });
            object["spec"]["template"]["spec"]["restartPolicy"] = json!("Never");
        }
        "CronJob" => {
            object["spec"] = json!({ "schedule": "@hourly", "jobTemplate": sample("Job", name) });
        }
        "Service" => object["spec"] = json!({ "selector": labels, "ports": [{ "port": 80 }] }),
        "Endpoints" => object["subsets"] = json!([{ "addresses": [{ "ip": "10.42.0.2" }], "ports": [{ "port": 80 }] }]),
        "EndpointSlice" => {
            object["addressType"] = json!("IPv4");
            object["endpoints"] = json!([{ "addresses": ["10.42.0.2"] }]);
        }
        "PriorityClass" => object["value"] = json!(7),
        "PodDisruptionBudget" => object["spec"] = json!({ "minAvailable": 1, "selector": selector }),
        "HorizontalPodAutoscaler" => {
            let target = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": name });
            object["spec"] = json!({ "maxReplicas": 3, "scaleTargetRef": target });
        }
        "ControllerRevision" => (object["data"], object["revision"]) = (json!({ "spec": {} }), json!(1)),
        "Event" => {
            object["involvedObject"] = json!({ "kind": "Pod", "namespace": "default", "name": "p", "uid": "u" });
        }
        "RoleBinding" | "ClusterRoleBinding" => {
            object["roleRef"] =
                json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view" });
        }
        _ => settings(kind, name, &mut object),
    }
    object
}

/// What a minimal object of a kind says, for kinds that set up the cluster rather than use it.
fn settings(kind: &str, name: &str, object: &mut Value) {
    match kind {
        "PersistentVolume" => {
            object["spec"] = json!({
                "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"], "hostPath": { "path": "/data" },
            });
        }
        "PersistentVolumeClaim" => {
            let resources = json!({ "requests": { "storage": "1Gi" } });
            object["spec"] = json!({ "accessModes": ["ReadWriteOnce"], "resources": resources });
        }
        "StorageClass" => object["provisioner"] = json!("driver.example"),
        "VolumeAttributesClass" => {
            (object["driverName"], object["parameters"]) = (json!("driver.example"), json!({ "a": "b" }));
        }
        "VolumeAttachment" => {
            let source = json!({ "persistentVolumeName": "v" });
            object["spec"] = json!({ "attacher": "driver.example", "nodeName": "edge-1", "source": source });
        }
        "CSINode" => {
            let driver = json!({ "name": "driver.example", "nodeID": "edge-1" });
            object["spec"] = json!({ "drivers": [driver] });
        }
        "CSIDriver" => object["spec"] = json!({}),
        "CSIStorageCapacity" => object["storageClassName"] = json!("fast"),
        "LimitRange" => {
            object["spec"] = json!({ "limits": [{ "type": "Container", "max": { "cpu": "64" } }] });
        }
        "ResourceQuota" => object["spec"] = json!({ "hard": { "pods": "1000" } }),
        "Ingress" => {
            let service = json!({ "name": name, "port": { "number": 80 } });
            object["spec"] = json!({ "defaultBackend": { "service": service } });
        }
        "IngressClass" => object["spec"] = json!({ "controller": "example.org/c" }),
        "NetworkPolicy" => object["spec"] = json!({ "podSelector": {} }),
        "ServiceCIDR" => object["spec"] = json!({ "cidrs": ["10.99.0.0/24"] }),
        "IPAddress" => {
            let parent = json!({ "resource": "services", "namespace": "default", "name": "web" });
            object["spec"] = json!({ "parentRef": parent });
        }
        "CertificateSigningRequest" => {
            object["spec"] = json!({
                "request": super::certificates::request("jane", "dev"), "usages": ["client auth"],
                "signerName": "kubernetes.io/kube-apiserver-client",
            });
        }
        "FlowSchema" => object["spec"] = json!({ "priorityLevelConfiguration": { "name": "exempt" } }),
        "PriorityLevelConfiguration" => {
            object["spec"] = json!({ "type": "Limited", "limited": { "limitResponse": { "type": "Reject" } } });
        }
        "RuntimeClass" => object["handler"] = json!("native"),
        "ResourceSlice" => {
            let pool = json!({ "name": "cluster", "generation": 1, "resourceSliceCount": 1 });
            object["spec"] = json!({ "driver": "driver.example", "pool": pool, "nodeName": "edge-1" });
        }
        "DeviceClass" => object["spec"] = json!({ "selectors": [{ "cel": { "expression": "false" } }] }),
        "ResourceClaim" => object["spec"] = json!({ "devices": { "requests": [device_request()] } }),
        "ResourceClaimTemplate" => {
            object["spec"] = json!({ "spec": { "devices": { "requests": [device_request()] } } });
        }
        _ => extensions(kind, object),
    }
}

fn device_request() -> Value {
    json!({ "name": "one", "exactly": { "deviceClassName": "driver.example" } })
}

/// What a minimal object of a kind says, for kinds by which others have a say.
fn extensions(kind: &str, object: &mut Value) {
    match kind {
        "CustomResourceDefinition" => {
            let text = json!({ "type": "string" });
            let spec = json!({ "type": "object", "properties": { "x": text, "replicas": { "type": "integer" } } });
            let schema = json!({ "type": "object", "properties": { "spec": spec } });
            object["spec"] = json!({
                "group": "example.org", "scope": "Namespaced", "names": { "plural": "samples", "kind": "Sample" },
                "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": schema } }],
            });
        }
        "MutatingWebhookConfiguration" | "ValidatingWebhookConfiguration" => {
            object["webhooks"] = json!([{
                "name": "hook.example.org", "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "clientConfig": { "url": "https://hook.example.org/" },
            }]);
        }
        "ValidatingAdmissionPolicy" => {
            let rule =
                json!({ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"] });
            object["spec"] = json!({
                "matchConstraints": { "resourceRules": [rule] }, "validations": [{ "expression": "true" }],
            });
        }
        "MutatingAdmissionPolicy" => {
            let rule =
                json!({ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"] });
            let mutation =
                json!({ "patchType": "ApplyConfiguration", "applyConfiguration": { "expression": "Object{}" } });
            object["spec"] = json!({
                "matchConstraints": { "resourceRules": [rule] }, "mutations": [mutation], "reinvocationPolicy": "Never",
            });
        }
        "MutatingAdmissionPolicyBinding" => object["spec"] = json!({ "policyName": "p" }),
        "ValidatingAdmissionPolicyBinding" => {
            object["spec"] = json!({ "policyName": "p", "validationActions": ["Deny"] });
        }
        _ => {}
    }
}
