//! Workloads, Services and what belongs to them, through the commands by which people make them. Each version of kubectl
//! writes some of these as protobuf.

use serde_json::json;

use super::kubectl::Kubectl;

/// Drives one kubectl.
pub(super) async fn drive(kubectl: &Kubectl) {
    workloads(kubectl).await;
    services(kubectl).await;
    policies(kubectl).await;
    storage(kubectl).await;
    documents(kubectl).await;
    kubectl.has("get all", &["deployment.apps/web", "service/front", "job.batch/work", "cronjob.batch/tick"]).await;
    for kind in ["deployments", "daemonsets", "statefulsets", "jobs", "cronjobs", "services", "hpa", "pdb", "rc"] {
        kubectl.run(&format!("delete {kind} --all --cascade=background")).await;
    }
    assert_eq!(kubectl.run("get deployments,jobs,cronjobs,services,hpa,pdb -o name").await, "");
}

async fn workloads(kubectl: &Kubectl) {
    kubectl.has("create deployment web --image=web:1 --replicas=2", &["deployment.apps/web created"]).await;
    kubectl.has("get deployment web -o wide", &["READY", "0/2", "web:1", "app=web"]).await;
    kubectl.has("scale deployment web --replicas=3", &["deployment.apps/web scaled"]).await;
    kubectl.has("scale deployment web --current-replicas=3 --replicas=1", &["scaled"]).await;
    assert!(kubectl.fail("scale deployment web --current-replicas=9 --replicas=1").await.contains("Expected replicas"));
    kubectl.has("get deployment web -o jsonpath={.spec.replicas}/{.metadata.generation}", &["1/3"]).await;
    kubectl.has("set image deployment/web web=web:2", &["image updated"]).await;
    kubectl.has("rollout pause deployment web", &["paused"]).await;
    kubectl.has("describe deployment web", &["RollingUpdate", "25% max unavailable, 25% max surge", "web:2"]).await;
    kubectl.has("create job work --image=busybox:1", &["job.batch/work created"]).await;
    kubectl.has("get job work", &["COMPLETIONS", "0/1"]).await;
    kubectl.has("create cronjob tick --image=busybox:1 --schedule=@hourly", &["cronjob.batch/tick created"]).await;
    kubectl.has("create job now --from=cronjob/tick", &["job.batch/now created"]).await;
    kubectl.has("get cronjob tick", &["@hourly", "False", "<none>"]).await;
    assert!(
        kubectl
            .fail("create cronjob bad --image=i --schedule=@never")
            .await
            .contains("unrecognized descriptor: @never")
    );
    for kind in ["DaemonSet", "StatefulSet", "ReplicaSet"] {
        let file = kubectl.file(
            "workload.json",
            &json!({
                "apiVersion": "apps/v1", "kind": kind, "metadata": { "name": "other" },
                "spec": {
                    "selector": { "matchLabels": { "app": "other" } },
                    "template": {
                        "metadata": { "labels": { "app": "other" } },
                        "spec": { "containers": [{ "name": "c", "image": "i:1" }] },
                    },
                },
            }),
        );
        let name = kind.to_lowercase();
        kubectl.has(&format!("apply -f {file}"), &[&format!("{name}.apps/other created")]).await;
        kubectl.has(&format!("apply -f {file}"), &[&format!("{name}.apps/other unchanged")]).await;
        kubectl.has(&format!("get {name} other -o wide"), &["other", "i:1"]).await;
    }
    kubectl.has("scale statefulset other --replicas=0", &["scaled"]).await;
}

async fn services(kubectl: &Kubectl) {
    kubectl.has("create service clusterip front --tcp=80:8080", &["service/front created"]).await;
    kubectl.has("get service front", &["ClusterIP", "10.43.", "80/TCP"]).await;
    kubectl.has("create service nodeport door --tcp=80", &["service/door created"]).await;
    kubectl.has("get service door", &["NodePort", "80:3"]).await;
    kubectl.has("create service externalname elsewhere --external-name=example.org", &["created"]).await;
    kubectl.has("get service elsewhere", &["ExternalName", "<none>", "example.org"]).await;
    kubectl.has("create service clusterip headless --clusterip=None", &["created"]).await;
    kubectl.has("expose deployment web --port=80 --name=exposed", &["service/exposed exposed"]).await;
    kubectl.has("describe service exposed", &["app=web", "SingleStack", "IPv4"]).await;
    let file = kubectl.file(
        "service.json",
        &json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "applied" },
            "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80 }] },
        }),
    );
    kubectl.has(&format!("apply -f {file}"), &["created"]).await;
    kubectl.has(&format!("apply -f {file}"), &["unchanged"]).await;
    kubectl.has("get endpointslices -A", &["kubernetes", "IPv4", "6443", "192.0.2.1"]).await;
}

async fn policies(kubectl: &Kubectl) {
    kubectl.has("autoscale deployment web --max=5 --cpu-percent=70", &["autoscaled"]).await;
    kubectl.has("get hpa web", &["Deployment/web", "70%", "5"]).await;
    kubectl
        .has("get horizontalpodautoscalers.v1.autoscaling web -o yaml", &["targetCPUUtilizationPercentage: 70"])
        .await;
    kubectl.has("get horizontalpodautoscalers.v2.autoscaling web -o yaml", &["averageUtilization: 70"]).await;
    kubectl.has("create poddisruptionbudget least --selector=app=web --min-available=50%", &["created"]).await;
    kubectl.has("get pdb least", &["50%", "N/A"]).await;
    let class = format!("class-{}", kubectl.namespace);
    kubectl.has(&format!("create priorityclass {class} --value=5"), &["created"]).await;
    kubectl.has("get priorityclasses", &[&class, "system-node-critical", "2000001000"]).await;
    kubectl.has(&format!("delete priorityclass {class}"), &["deleted"]).await;
}

async fn storage(kubectl: &Kubectl) {
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "data" },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } },
    });
    let file = kubectl.file("claim.json", &claim);
    kubectl.has(&format!("apply -f {file}"), &["persistentvolumeclaim/data created"]).await;
    kubectl.has(&format!("apply -f {file}"), &["unchanged"]).await;
    kubectl.has("get pvc data", &["Pending", "STORAGECLASS"]).await;
    kubectl.has("describe pvc data", &["Filesystem", "Pending"]).await;
    kubectl.has("create ingress front --rule=a.example/*=web:80", &["ingress.networking.k8s.io/front created"]).await;
    kubectl.has("get ingress front", &["a.example", "80"]).await;
    kubectl.has("create quota most --hard=count/secrets=1", &["resourcequota/most created"]).await;
    kubectl.has("create secret generic one --from-literal=a=b", &["secret/one created"]).await;
    let refused = kubectl.fail("create secret generic two --from-literal=a=b").await;
    let words = "exceeded quota: most, requested: count/secrets=1, used: count/secrets=1, limited: count/secrets=1";
    assert!(refused.contains(words), "{refused}");
    kubectl.has("describe quota most", &["count/secrets", "1"]).await;
    // No controller runs here that would see that nobody uses it.
    kubectl.run(r#"patch pvc data --type=merge -p {"metadata":{"finalizers":null}}"#).await;
    kubectl.run("delete pvc,ingress,quota,secrets --all").await;
}

/// What kubectl reads from the OpenAPI documents.
async fn documents(kubectl: &Kubectl) {
    kubectl.has("explain pod.spec.restartPolicy", &["restartPolicy", "Restart policy for all containers"]).await;
    kubectl.has("explain deployment.spec.template.spec.containers.resources", &["limits", "requests"]).await;
    kubectl.has("explain persistentvolumeclaim.spec", &["storageClassName", "accessModes"]).await;
    let map = |name: &str| json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name } });
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": [map("first"), map("second")] });
    let file = kubectl.file("list.json", &list);
    kubectl.has(&format!("apply -f {file}"), &["configmap/first created", "configmap/second created"]).await;
    kubectl.has(&format!("delete -f {file}"), &["\"first\" deleted", "\"second\" deleted"]).await;
}
