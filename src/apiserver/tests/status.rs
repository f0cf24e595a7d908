//! What a write through the object and one through its status may change of each kind, and what a deletion returns.

use api::resources::{self, Resource, Verb};
use serde_json::{Value, json};

use super::rows::{collection, is_definition};
use super::world::{World, sample_of};

/// Some status that an object of a kind may have.
fn status(kind: &str) -> Value {
    let moment = "2026-01-02T03:04:05Z";
    let condition = json!([{
        "type": "example.org/A", "status": "True", "reason": "B", "message": "c", "lastTransitionTime": moment,
    }]);
    match kind {
        "Pod" | "PersistentVolume" => json!({ "message": "m" }),
        "Node" => json!({ "phase": "Running" }),
        "CronJob" => json!({ "lastScheduleTime": moment }),
        "Job" => json!({ "active": 1, "startTime": moment }),
        "DaemonSet" => {
            let number = ["currentNumberScheduled", "desiredNumberScheduled", "numberMisscheduled", "numberReady"];
            number.into_iter().map(|field| (field.to_owned(), json!(1))).collect::<serde_json::Map<_, _>>().into()
        }
        "ReplicationController" | "ReplicaSet" | "Deployment" | "StatefulSet" => json!({ "replicas": 1 }),
        "HorizontalPodAutoscaler" => json!({ "currentReplicas": 1, "desiredReplicas": 1 }),
        "PodDisruptionBudget" => {
            json!({ "disruptionsAllowed": 1, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1 })
        }
        "Ingress" => json!({ "loadBalancer": { "ingress": [{ "ip": "192.0.2.1" }] } }),
        "ResourceQuota" => json!({ "hard": { "pods": "1" }, "used": { "pods": "1" } }),
        "VolumeAttachment" => json!({ "attached": true }),
        "ResourceClaim" => json!({ "allocation": {} }),
        "ValidatingAdmissionPolicy" => json!({ "observedGeneration": 7 }),
        "CertificateSigningRequest" => {
            let mut condition = condition;
            condition[0]["lastUpdateTime"] = json!(moment);
            json!({ "conditions": condition })
        }
        _ => json!({ "conditions": condition }),
    }
}

/// What of metadata the strategies of upstream for a status put back.
fn untouched(kind: &str) -> &'static [&'static str] {
    match kind {
        "Pod" => &["ownerReferences"],
        "Deployment" => &["labels"],
        "FlowSchema"
        | "PriorityLevelConfiguration"
        | "ResourceClaim"
        | "ValidatingAdmissionPolicy"
        | "VolumeAttachment" => &["labels", "annotations", "ownerReferences"],
        _ => &[],
    }
}

fn with_status() -> impl Iterator<Item = &'static Resource> {
    resources::all().iter().copied().filter(|row| row.has_status && !is_definition(row))
}

#[tokio::test(start_paused = true)]
async fn a_write_of_an_object_leaves_its_status_and_one_of_its_status_the_rest() {
    for row in with_status() {
        let world = World::new().await;
        let (body, name) = sample_of(row);
        let (path, object) = (collection(row, "default"), format!("{}/{name}", collection(row, "default")));
        let made = world.ask(&format!("POST {path}"), body).await.expect(201);
        let kind = row.kind;
        let wanted = status(kind);
        let kept = world.patch(&object, "merge-patch", json!({ "status": wanted })).await.expect(200);
        assert_eq!(kept["status"], made["status"], "{kind}: written with the object");

        let metadata = json!({
            "labels": { "l": "l" }, "annotations": { "a": "a" },
            "ownerReferences": [{ "apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "u" }],
        });
        let patch = json!({ "metadata": metadata, "spec": null, "status": wanted });
        let changed = world.patch(&format!("{object}/status"), "merge-patch", patch).await.expect(200);
        assert_eq!(changed["spec"], made["spec"], "{kind}: the specification through the status");
        for (field, value) in wanted.as_object().unwrap() {
            assert_eq!(changed["status"][field], *value, "{kind}: {field} of the status");
        }
        for (field, value) in metadata.as_object().unwrap() {
            if untouched(kind).contains(&field.as_str()) {
                assert_eq!(changed["metadata"][field], made["metadata"][field], "{kind}: {field} through the status");
                continue;
            }
            // Some have labels of the server's own beside.
            let has = |name: &String, value: &Value| changed["metadata"][field][name] == *value;
            let is_there = match value {
                Value::Object(entries) => entries.iter().all(|(name, value)| has(name, value)),
                value => changed["metadata"][field] == *value,
            };
            assert!(is_there, "{kind}: {field} through the status: {changed}");
        }
        let generation = &changed["metadata"]["generation"];
        assert_eq!(*generation, kept["metadata"]["generation"], "{kind}: a status is no wish");

        let mut other = changed.clone();
        other["status"] = json!({});
        other["metadata"]["labels"] = json!({ "l": "other" });
        let updated = world.ask(&format!("PUT {object}"), other).await.expect(200);
        assert_eq!(updated["status"], changed["status"], "{kind}: replaced with the object");
        world.tasks.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_deletes_gets_the_object_or_a_status_by_its_kind() {
    // What the OpenAPI document of upstream says of its deletions.
    const RETURNED: [&str; 16] = [
        "PersistentVolume",
        "PersistentVolumeClaim",
        "Pod",
        "PodTemplate",
        "ResourceQuota",
        "Service",
        "ServiceAccount",
        "CSIDriver",
        "CSINode",
        "DeviceClass",
        "ResourceClaim",
        "ResourceClaimTemplate",
        "ResourceSlice",
        "StorageClass",
        "VolumeAttachment",
        "VolumeAttributesClass",
    ];
    let world = World::new().await;
    for row in resources::all().iter().copied().filter(|row| row.verbs.contains(&Verb::Delete) && !is_definition(row)) {
        // A namespace stays until its controller has emptied it.
        if row.kind == "Namespace" {
            continue;
        }
        let (body, name) = sample_of(row);
        let path = collection(row, "default");
        let made = world.ask(&format!("POST {path}"), body).await.expect(201);
        world.patch(&format!("{path}/{name}"), "merge-patch", json!({ "metadata": { "finalizers": null } })).await;
        let line = format!("DELETE {path}/{name}?propagationPolicy=Background");
        let answer = world.ask(&line, Value::Null).await.expect(200);
        let expected = if RETURNED.contains(&row.kind) { row.kind } else { "Status" };
        assert_eq!(answer["kind"], expected, "{}", row.kind);
        let uid = if expected == "Status" { &answer["details"]["uid"] } else { &answer["metadata"]["uid"] };
        assert_eq!(*uid, made["metadata"]["uid"]);
        world.ask(&format!("GET {path}/{name}"), Value::Null).await.expect(404);
    }
}
