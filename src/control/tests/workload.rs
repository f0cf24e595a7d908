//! Controllers of workloads with the real API server: what they make, and what becomes of it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::time::Duration;

use client::{Client, DeleteOptions, Informer, Key, ListOptions, Object, Patch, Scope};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Node, PersistentVolumeClaim, Pod, ReplicationController, ServiceAccount};
use serde_json::{Value, json};
use support::{Cluster, cluster, read, until};

/// What a kubelet would do, at once: pods run and are ready, and are gone when they are to go.
async fn pretend_to_run(client: Client, pods: Informer<Pod>) {
    let mut dirty = pods.subscribe();
    loop {
        let key = dirty.next().await;
        let Some(pod) = pods.get(&key) else { continue };
        if pod.metadata.deletion_timestamp.is_some() {
            let _ = client.delete::<Pod>(&key, &DeleteOptions::now(pod.metadata.uid.as_deref().unwrap())).await;
        } else if pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Pending")) {
            let annotations = pod.metadata.annotations.clone().unwrap_or_default();
            if let Some(end) = annotations.get("test/ends") {
                let patch = Patch::Strategic(json!({ "status": { "phase": end } }));
                let _ = client.patch_status::<Pod>(&key, &patch).await;
                continue;
            }
            let ready = json!([{ "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-02T03:04:05Z" }]);
            let patch = Patch::Strategic(json!({ "status": { "phase": "Running", "conditions": ready } }));
            let _ = client.patch_status::<Pod>(&key, &patch).await;
        }
    }
}

async fn running_cluster() -> Cluster {
    let cluster = cluster().await;
    until::<ServiceAccount>(&cluster, Key::namespaced("default", "default"), |account| account.is_some()).await;
    let pods = Informer::spawn(&cluster.client, &cluster.tasks, Scope::Cluster, ListOptions::default());
    cluster.tasks.spawn("kubelet", pretend_to_run(cluster.client.clone(), pods));
    cluster
}

fn deployment(replicas: i32) -> Deployment {
    read(json!({
        "kind": "Deployment", "apiVersion": "apps/v1",
        "metadata": { "name": "web", "namespace": "default", "annotations": { "team": "a" } },
        "spec": {
            "replicas": replicas, "selector": { "matchLabels": { "app": "web" } },
            "template": { "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{ "name": "c", "image": "1" }] } },
        },
    }))
}

fn web() -> Key {
    Key::namespaced("default", "web")
}

async fn all<K: Object>(cluster: &Cluster) -> Vec<K> {
    cluster.client.list::<K>(&Scope::namespace("default"), &ListOptions::default()).await.unwrap().items
}

/// Waits until so many objects of a kind are there that satisfy `is_it`.
async fn until_count<K: Object>(cluster: &Cluster, count: usize, is_it: impl Fn(&K) -> bool) {
    let tasks = cluster.tasks.child();
    let informer: Informer<K> =
        Informer::spawn(&cluster.client, &tasks, Scope::namespace("default"), ListOptions::default());
    informer.synced().await;
    let mut dirty = informer.subscribe();
    let found = async {
        while informer.snapshot().iter().filter(|object| is_it(object)).count() != count {
            dirty.next().await;
        }
    };
    let late = |_| panic!("there are not {count} but {}", informer.snapshot().len());
    tokio::time::timeout(Duration::from_secs(20), found).await.unwrap_or_else(late);
    tasks.stop();
}

fn is_available(deployment: Option<&Deployment>, count: i32, revision: &str) -> bool {
    deployment.is_some_and(|deployment| {
        let status = deployment.status.clone().unwrap_or_default();
        let own = deployment.metadata.annotations.as_ref().and_then(|all| all.get("deployment.kubernetes.io/revision"));
        own.is_some_and(|own| own == revision)
            && (status.replicas, status.updated_replicas, status.available_replicas)
                == (Some(count), Some(count), Some(count))
            && status.observed_generation == deployment.metadata.generation
    })
}

async fn patch(cluster: &Cluster, change: Value) {
    cluster.client.patch::<Deployment>(&web(), &Patch::Strategic(change)).await.unwrap();
}

#[tokio::test]
async fn a_deployment_has_its_pods_updates_them_and_takes_them_with_it() {
    let cluster = running_cluster().await;
    cluster.client.create(&deployment(3)).await.unwrap();
    until::<Deployment>(&cluster, web(), |deployment| is_available(deployment, 3, "1")).await;
    let sets = all::<ReplicaSet>(&cluster).await;
    let [set] = &sets[..] else { panic!("{} sets", sets.len()) };
    let annotations = set.metadata.annotations.clone().unwrap();
    assert_eq!(
        annotations.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
        [
            "deployment.kubernetes.io/desired-replicas=3",
            "deployment.kubernetes.io/max-replicas=4",
            "deployment.kubernetes.io/revision=1",
            "team=a",
        ]
    );
    let hash = set.metadata.labels.as_ref().unwrap()["pod-template-hash"].clone();
    assert_eq!(set.metadata.name.as_deref(), Some(format!("web-{hash}").as_str()));
    // A pod that is lost is replaced.
    let lost = Key::of(&all::<Pod>(&cluster).await[0].metadata);
    cluster.client.delete::<Pod>(&lost, &DeleteOptions::default()).await.unwrap();
    until::<Pod>(&cluster, lost, |pod| pod.is_none()).await;
    until_count::<Pod>(&cluster, 3, |pod| pod.metadata.labels.as_ref().unwrap()["pod-template-hash"] == hash).await;
    patch(&cluster, json!({ "spec": { "template": { "spec": { "containers": [{ "name": "c", "image": "2" }] } } } }))
        .await;
    until::<Deployment>(&cluster, web(), |deployment| is_available(deployment, 3, "2")).await;
    until_count::<Pod>(&cluster, 3, |pod| pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("2")).await;
    until_count::<Pod>(&cluster, 3, |_| true).await;
    assert_eq!(all::<ReplicaSet>(&cluster).await.len(), 2);
    let events = all::<Event>(&cluster).await;
    let said = |reason: &str, text: &str| {
        let is_it = |event: &&Event| event.reason.as_deref() == Some(reason);
        events
            .iter()
            .filter(is_it)
            .any(|event| event.message.as_deref().is_some_and(|message| message.starts_with(text)))
    };
    assert!(said("ScalingReplicaSet", &format!("Scaled up replica set web-{hash} from 0 to 3")));
    assert!(said("SuccessfulCreate", "Created pod: web-") && said("SuccessfulDelete", "Deleted pod: web-"));
    // Fewer, and back to what was before.
    patch(&cluster, json!({ "spec": { "replicas": 1 } })).await;
    until_count::<Pod>(&cluster, 1, |_| true).await;
    patch(&cluster, json!({ "spec": { "template": { "spec": { "containers": [{ "name": "c", "image": "1" }] } } } }))
        .await;
    until::<Deployment>(&cluster, web(), |deployment| is_available(deployment, 1, "3")).await;
    let first = cluster.client.get::<ReplicaSet>(&Key::of(&set.metadata)).await.unwrap();
    assert_eq!(first.metadata.annotations.unwrap()["deployment.kubernetes.io/revision-history"], "1");
    let options = DeleteOptions { propagation: "Foreground", ..DeleteOptions::default() };
    cluster.client.delete::<Deployment>(&web(), &options).await.unwrap();
    until::<Deployment>(&cluster, web(), |deployment| deployment.is_none()).await;
    assert_eq!((all::<ReplicaSet>(&cluster).await.len(), all::<Pod>(&cluster).await.len()), (0, 0));
    cluster.tasks.shutdown().await;
}

#[tokio::test]
async fn pods_are_taken_in_and_let_go_by_their_labels() {
    let cluster = running_cluster().await;
    let pod: Pod = read(json!({
        "kind": "Pod", "apiVersion": "v1", "metadata": { "name": "loose", "namespace": "default", "labels": { "app": "old" } },
        "spec": { "containers": [{ "name": "c", "image": "1" }] },
    }));
    cluster.client.create(&pod).await.unwrap();
    let controller: ReplicationController = read(json!({
        "kind": "ReplicationController", "apiVersion": "v1", "metadata": { "name": "old", "namespace": "default" },
        "spec": {
            "replicas": 2,
            "template": { "metadata": { "labels": { "app": "old" } }, "spec": { "containers": [{ "name": "c", "image": "1" }] } },
        },
    }));
    let controller = cluster.client.create(&controller).await.unwrap();
    let is_owned = |pod: &Pod| {
        let owners = pod.metadata.owner_references.iter().flatten();
        owners.into_iter().any(|owner| Some(&owner.uid) == controller.metadata.uid.as_ref())
    };
    until_count::<Pod>(&cluster, 2, is_owned).await;
    until::<Pod>(&cluster, Key::namespaced("default", "loose"), |pod| pod.is_some_and(is_owned)).await;
    until::<ReplicationController>(&cluster, Key::namespaced("default", "old"), |found| {
        let status = found.and_then(|found| found.status.clone()).unwrap_or_default();
        (status.replicas, status.available_replicas) == (2, Some(2))
    })
    .await;
    // One with other labels is on its own, and another one comes in its place.
    let patch = Patch::Merge(json!({ "metadata": { "labels": { "app": "other" } } }));
    cluster.client.patch::<Pod>(&Key::namespaced("default", "loose"), &patch).await.unwrap();
    until::<Pod>(&cluster, Key::namespaced("default", "loose"), |pod| pod.is_some_and(|pod| !is_owned(pod))).await;
    until_count::<Pod>(&cluster, 2, is_owned).await;
    cluster.tasks.shutdown().await;
}

#[tokio::test]
async fn a_quota_is_told_where_users_look() {
    let cluster = running_cluster().await;
    let quota = json!({
        "kind": "ResourceQuota", "apiVersion": "v1", "metadata": { "name": "few", "namespace": "default" },
        "spec": { "hard": { "pods": "1" } },
    });
    let path = "/api/v1/namespaces/default/resourcequotas";
    cluster.client.request(http::Method::POST, path, Some(&quota)).await.unwrap();
    cluster.client.create(&deployment(2)).await.unwrap();
    let failure = |deployment: &Deployment| {
        let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|condition| condition.type_ == "ReplicaFailure")?.message.clone()
    };
    let found = until::<Deployment>(&cluster, web(), |deployment| deployment.and_then(failure).is_some()).await;
    let text = failure(&found.unwrap()).unwrap();
    assert!(text.contains("exceeded quota: few, requested: pods=1, used: pods=1, limited: pods=1"), "{text}");
    let delete = DeleteOptions::default();
    cluster.client.delete_path(&format!("{path}/few"), &delete).await.unwrap();
    until::<Deployment>(&cluster, web(), |deployment| {
        is_available(deployment, 2, "1") && deployment.and_then(failure).is_none()
    })
    .await;
    cluster.tasks.shutdown().await;
}

#[tokio::test]
async fn a_job_counts_its_pods_and_lets_them_go() {
    let cluster = running_cluster().await;
    let job: Job = read(json!({
        "kind": "Job", "apiVersion": "batch/v1", "metadata": { "name": "work", "namespace": "default" },
        "spec": {
            "completions": 3, "parallelism": 2,
            "template": {
                "metadata": { "annotations": { "test/ends": "Succeeded" } },
                "spec": { "restartPolicy": "Never", "containers": [{ "name": "c", "image": "1" }] },
            },
        },
    }));
    cluster.client.create(&job).await.unwrap();
    let key = Key::namespaced("default", "work");
    let is_done = |job: Option<&Job>| {
        let status = job.and_then(|job| job.status.clone()).unwrap_or_default();
        let complete = status.conditions.iter().flatten().any(|one| one.type_ == "Complete" && one.status == "True");
        complete && status.succeeded == Some(3)
    };
    until::<Job>(&cluster, key.clone(), is_done).await;
    until_count::<Pod>(&cluster, 3, |pod| pod.metadata.finalizers.is_none()).await;
    assert_eq!(all::<Pod>(&cluster).await.len(), 3);
    // One that is deleted while its pods run leaves none of them behind.
    let mut endless = job.clone();
    endless.metadata.name = Some("endless".to_owned());
    endless.spec.as_mut().unwrap().template.metadata = None;
    cluster.client.create(&endless).await.unwrap();
    until_count::<Pod>(&cluster, 2, |pod| pod.metadata.finalizers.is_some()).await;
    let options = DeleteOptions { propagation: "Background", ..DeleteOptions::default() };
    cluster.client.delete::<Job>(&Key::namespaced("default", "endless"), &options).await.unwrap();
    until_count::<Pod>(&cluster, 3, |_| true).await;
    cluster.client.delete::<Job>(&key, &options).await.unwrap();
    until_count::<Pod>(&cluster, 0, |_| true).await;
    cluster.tasks.shutdown().await;
}

async fn add_node(cluster: &Cluster, name: &str) {
    let node: Node = read(json!({
        "kind": "Node", "apiVersion": "v1", "metadata": { "name": name },
        "status": {
            "allocatable": { "cpu": "2", "memory": "1Gi", "pods": "10" },
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    }));
    cluster.client.create(&node).await.unwrap();
    cluster.client.replace_status(&node).await.unwrap();
}

#[tokio::test]
async fn a_daemon_is_on_every_node_and_goes_through_its_templates() {
    let cluster = running_cluster().await;
    add_node(&cluster, "one").await;
    let set: DaemonSet = read(json!({
        "kind": "DaemonSet", "apiVersion": "apps/v1", "metadata": { "name": "agent", "namespace": "default" },
        "spec": {
            "selector": { "matchLabels": { "app": "agent" } },
            "template": { "metadata": { "labels": { "app": "agent" } }, "spec": { "containers": [{ "name": "c", "image": "1" }] } },
        },
    }));
    cluster.client.create(&set).await.unwrap();
    let key = Key::namespaced("default", "agent");
    let is_on = |count: i32| {
        move |set: Option<&DaemonSet>| {
            let status = set.and_then(|set| set.status.clone()).unwrap_or_default();
            status.desired_number_scheduled == count
                && status.updated_number_scheduled == Some(count)
                && status.number_available == Some(count)
                && status.observed_generation == set.and_then(|set| set.metadata.generation)
        }
    };
    until::<DaemonSet>(&cluster, key.clone(), is_on(1)).await;
    add_node(&cluster, "two").await;
    until::<DaemonSet>(&cluster, key.clone(), is_on(2)).await;
    let nodes: std::collections::BTreeSet<_> =
        all::<Pod>(&cluster).await.into_iter().map(|pod| pod.spec.unwrap().node_name.unwrap()).collect();
    assert_eq!(nodes.into_iter().collect::<Vec<_>>(), ["one", "two"]);
    let change = json!({ "spec": { "template": { "spec": { "containers": [{ "name": "c", "image": "2" }] } } } });
    cluster.client.patch::<DaemonSet>(&key, &Patch::Strategic(change)).await.unwrap();
    until_count::<Pod>(&cluster, 2, |pod| pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("2")).await;
    until::<DaemonSet>(&cluster, key.clone(), is_on(2)).await;
    let mut revisions = all::<ControllerRevision>(&cluster).await;
    revisions.sort_by_key(|one| one.revision);
    assert_eq!(revisions.iter().map(|one| one.revision).collect::<Vec<_>>(), [1, 2]);
    // What `kubectl rollout undo` sends.
    let back = Patch::Strategic(revisions[0].data.clone().unwrap().0);
    cluster.client.patch::<DaemonSet>(&key, &back).await.unwrap();
    until_count::<Pod>(&cluster, 2, |pod| pod.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("1")).await;
    let mut revisions = all::<ControllerRevision>(&cluster).await;
    revisions.sort_by_key(|one| one.revision);
    assert_eq!(revisions.iter().map(|one| one.revision).collect::<Vec<_>>(), [2, 3]);
    cluster.tasks.shutdown().await;
}

#[tokio::test]
async fn a_stateful_set_has_its_pods_and_claims_by_name() {
    let cluster = running_cluster().await;
    let set: StatefulSet = read(json!({
        "kind": "StatefulSet", "apiVersion": "apps/v1", "metadata": { "name": "db", "namespace": "default" },
        "spec": {
            "replicas": 2, "serviceName": "db", "selector": { "matchLabels": { "app": "db" } },
            "template": { "metadata": { "labels": { "app": "db" } }, "spec": { "containers": [{ "name": "c", "image": "1" }] } },
            "volumeClaimTemplates": [{
                "metadata": { "name": "data" },
                "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } },
            }],
        },
    }));
    cluster.client.create(&set).await.unwrap();
    let key = Key::namespaced("default", "db");
    let is_at = |image: &'static str| {
        move |set: Option<&StatefulSet>| {
            let own = set.and_then(|set| set.spec.as_ref()?.template.spec.as_ref()?.containers[0].image.clone());
            let status = set.and_then(|set| set.status.clone()).unwrap_or_default();
            own.as_deref() == Some(image)
                && (status.ready_replicas, status.updated_replicas) == (Some(2), Some(2))
                && status.current_revision == status.update_revision
                && status.observed_generation == set.and_then(|set| set.metadata.generation)
        }
    };
    until::<StatefulSet>(&cluster, key.clone(), is_at("1")).await;
    let names = |mut names: Vec<String>| {
        names.sort();
        names.join(" ")
    };
    let pods = all::<Pod>(&cluster).await.into_iter().map(|pod| pod.metadata.name.unwrap()).collect();
    let claims = all::<PersistentVolumeClaim>(&cluster).await.into_iter().map(|claim| claim.metadata.name.unwrap());
    assert_eq!((names(pods).as_str(), names(claims.collect()).as_str()), ("db-0 db-1", "data-db-0 data-db-1"));
    let change = json!({ "spec": { "template": { "spec": { "containers": [{ "name": "c", "image": "2" }] } } } });
    cluster.client.patch::<StatefulSet>(&key, &Patch::Strategic(change)).await.unwrap();
    until::<StatefulSet>(&cluster, key.clone(), is_at("2")).await;
    let options = DeleteOptions { propagation: "Background", ..DeleteOptions::default() };
    cluster.client.delete::<StatefulSet>(&key, &options).await.unwrap();
    until_count::<Pod>(&cluster, 0, |_| true).await;
    assert_eq!(all::<PersistentVolumeClaim>(&cluster).await.len(), 2, "what was stored stays");
    cluster.tasks.shutdown().await;
}
