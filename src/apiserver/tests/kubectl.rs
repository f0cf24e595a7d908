//! Unmodified kubectl binaries against a served instance.
//!
//! Every `kubectl.1.NN` beside the `kubectl` of the path is driven through the same steps, and plain `kubectl` if there
//! are none. Each gets a fresh home, because kubectl keeps discovery there.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::tls::Served;

/// A kubectl with its own home.
pub(super) struct Kubectl {
    program: PathBuf,
    home: TempDir,
    pub(super) namespace: String,
}

pub(super) fn programs() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let plain = std::env::split_paths(&path).map(|directory| directory.join("kubectl")).find(|file| file.is_file());
    let Some(plain) = plain.and_then(|file| std::fs::canonicalize(file).ok()) else { return Vec::new() };
    let beside = plain.parent().and_then(|directory| std::fs::read_dir(directory).ok());
    let mut versioned: Vec<PathBuf> = beside
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("kubectl.1.")))
        .collect();
    versioned.sort();
    if versioned.is_empty() { vec![plain] } else { versioned }
}

impl Kubectl {
    pub(super) fn new(program: PathBuf, kubeconfig: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("config"), kubeconfig).unwrap();
        let name = program.file_name().unwrap().to_string_lossy().replace('.', "-");
        Self { program, home, namespace: format!("t-{name}") }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.args(line.split_whitespace()).env_clear().env("HOME", self.home.path());
        command.env("KUBECONFIG", self.home.path().join("config"));
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.arg(format!("--namespace={}", self.namespace)).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    pub(super) async fn output(&self, line: &str) -> Output {
        let run = self.command(line).output();
        tokio::time::timeout(Duration::from_secs(60), run).await.expect("kubectl hangs").unwrap()
    }

    /// What a command prints, which must succeed.
    pub(super) async fn run(&self, line: &str) -> String {
        let output = self.output(line).await;
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} {line}: {error}", self.program.display());
        assert!(!error.contains("couldn't get"), "{} {line}: {error}", self.program.display());
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a command complains about, which must fail.
    pub(super) async fn fail(&self, line: &str) -> String {
        let output = self.output(line).await;
        assert!(!output.status.success(), "{} {line} succeeded", self.program.display());
        String::from_utf8(output.stderr).unwrap()
    }

    /// Whether this kubectl leaves the check of fields to the server (KEP-2885, since 1.25). An older one gets a warning.
    async fn asks_for_strict_fields(&self) -> bool {
        let version: Value = serde_json::from_str(&self.run("version --client -o json").await).unwrap();
        let minor = version["clientVersion"]["minor"].as_str().unwrap().trim_end_matches('+').parse::<u32>().unwrap();
        minor >= 25
    }

    /// Asserts that a command succeeds and prints these words.
    pub(super) async fn has(&self, line: &str, words: &[&str]) {
        let text = self.run(line).await;
        for word in words {
            assert!(text.contains(word), "{} {line}: no {word:?} in {text}", self.program.display());
        }
    }

    /// A file for a command to read.
    pub(super) fn file(&self, name: &str, content: &Value) -> String {
        let path = self.home.path().join(name);
        std::fs::write(&path, content.to_string()).unwrap();
        path.display().to_string()
    }
}

fn pod(image: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "web", "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "web", "image": image, "env": [{ "name": "A", "value": "1" }] }] },
    })
}

async fn creates(kubectl: &Kubectl) {
    let namespace = kubectl.namespace.clone();
    kubectl.has(&format!("create namespace {namespace}"), &["created"]).await;
    // No controller runs here that would make it.
    kubectl.has("create serviceaccount default", &["created"]).await;
    kubectl.has("create configmap settings --from-literal=a=b", &["configmap/settings created"]).await;
    kubectl.has("create secret generic token --from-literal=t=s", &["secret/token created"]).await;
    kubectl.has("get secret token -o jsonpath={.data.t}", &["cw=="]).await;
    kubectl.has("create serviceaccount robot", &["serviceaccount/robot created"]).await;
    let file = kubectl.file("pod.json", &pod("busybox:1"));
    kubectl.has(&format!("create -f {file}"), &["pod/web created"]).await;
    assert!(kubectl.fail(&format!("create -f {file}")).await.contains("AlreadyExists"));
    let typo = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "typo" },
        "spec": { "containers": [{ "name": "c", "imagee": "x", "image": "y" }] },
    });
    let file = kubectl.file("typo.json", &typo);
    if kubectl.asks_for_strict_fields().await {
        assert!(kubectl.fail(&format!("create -f {file}")).await.contains("imagee"));
    } else {
        let output = kubectl.output(&format!("create -f {file}")).await;
        assert!(output.status.success() && String::from_utf8_lossy(&output.stderr).contains("imagee"), "{output:?}");
    }
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "one" } },
        { "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "two" } },
    ]});
    let file = kubectl.file("list.json", &list);
    kubectl.has(&format!("create -f {file}"), &["configmap/one created", "configmap/two created"]).await;
    kubectl.has("run runner --image=busybox:1 --restart=Never", &["pod/runner created"]).await;
}

async fn shows(kubectl: &Kubectl) {
    kubectl.has("version", &["v1.36"]).await;
    kubectl.has("api-resources", &["pods", "po", "configmaps", "leases", "coordination.k8s.io/v1"]).await;
    kubectl.has("get pods", &["NAME", "READY", "STATUS", "web", "0/1", "Pending"]).await;
    kubectl.has("get po -o wide", &["NODE", "NOMINATED NODE"]).await;
    kubectl.has("get pods -A --show-labels", &["NAMESPACE", "app=web"]).await;
    kubectl.has("get pods -l app=web -o name", &["pod/web"]).await;
    kubectl.has("get pod web -o yaml", &["image: busybox:1", "restartPolicy: Always"]).await;
    kubectl.has("get pod web -o json", &["\"resourceVersion\""]).await;
    kubectl.has("get all", &["web"]).await;
    kubectl.has("get componentstatuses", &["STATUS", "MESSAGE", "etcd-0", "Healthy"]).await;
    kubectl.has("get pods --sort-by=.metadata.name", &["web"]).await;
    kubectl.has("get namespaces", &["kube-system", "Active"]).await;
    kubectl.has("get configmap,secret", &["configmap/settings", "secret/token"]).await;
    kubectl.has("describe pod web", &["Image:", "busybox:1", "Status:", "Pending"]).await;
    kubectl.has("describe configmap settings", &["Data"]).await;
    assert!(kubectl.fail("get pod none").await.contains("Error from server (NotFound): pods \"none\" not found"));
    assert!(kubectl.fail("get things").await.contains("the server doesn't have a resource type"));
}

async fn changes(kubectl: &Kubectl) {
    kubectl.has("label pod web tier=front", &["labeled"]).await;
    kubectl.has("annotate pod web note=hello", &["annotate"]).await;
    kubectl.has("get pod web -o jsonpath={.metadata.labels.tier}{.metadata.annotations.note}", &["fronthello"]).await;
    let config = |value: &str| json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "applied" }, "data": { "k": value } });
    let (first, second) = (kubectl.file("a.json", &config("1")), kubectl.file("b.json", &config("2")));
    kubectl.has(&format!("apply -f {first}"), &["configmap/applied created"]).await;
    kubectl.has(&format!("apply -f {first}"), &["configmap/applied unchanged"]).await;
    kubectl.has(&format!("apply -f {second}"), &["configmap/applied configured"]).await;
    kubectl.has("get configmap applied -o jsonpath={.data.k}", &["2"]).await;
    let mut applied = pod("busybox:1");
    applied["metadata"]["name"] = json!("applied");
    let first = kubectl.file("c.json", &applied);
    applied["spec"]["containers"][0]["image"] = json!("busybox:2");
    let second = kubectl.file("d.json", &applied);
    kubectl.has(&format!("apply -f {first}"), &["pod/applied created"]).await;
    kubectl.has(&format!("apply -f {first}"), &["pod/applied unchanged"]).await;
    kubectl.has(&format!("apply -f {second}"), &["pod/applied configured"]).await;
    kubectl.has("get pod applied -o jsonpath={.spec.containers[0].image}", &["busybox:2"]).await;
    let file = kubectl.file("e.json", &config("4"));
    kubectl.has(&format!("replace -f {file}"), &["configmap/applied replaced"]).await;
    kubectl.has("patch configmap applied -p {\"data\":{\"k\":\"3\"}}", &["patched"]).await;
}

/// Nodes, a pod on one, and its log.
async fn runs(kubectl: &Kubectl) {
    let name = format!("node-{}", kubectl.namespace);
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": name },
        "status": { "capacity": { "cpu": "2", "memory": "1Gi" }, "nodeInfo": { "kubeletVersion": "v1.36.0" } },
    });
    let file = kubectl.file("node.json", &node);
    kubectl.run(&format!("create -f {file}")).await;
    kubectl.has("get nodes -o wide", &[&name, "INTERNAL-IP"]).await;
    kubectl.has(&format!("cordon {name}"), &["cordoned"]).await;
    kubectl.has(&format!("describe node {name}"), &["Unschedulable:", "true"]).await;
    kubectl.has(&format!("taint node {name} a=b:NoSchedule"), &["tainted"]).await;
    let mut bound = pod("busybox:1");
    (bound["metadata"]["name"], bound["spec"]["nodeName"]) = (json!("bound"), json!(name));
    let file = kubectl.file("bound.json", &bound);
    kubectl.run(&format!("create -f {file}")).await;
    let log = format!("{name} /containerLogs/{}/bound/web", kubectl.namespace);
    kubectl.has("logs bound", &[&log]).await;
    kubectl.has("logs -f bound -c web --tail=5", &["follow=true", "tailLines=5"]).await;
    kubectl.has("logs -l app=web --previous", &["previous=true"]).await;
    assert!(kubectl.fail("logs bound -c none").await.contains("container none is not valid for pod bound"));
    let uid = kubectl.run("get pod bound -o jsonpath={.metadata.uid}").await;
    let event = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": { "name": "bound.1" }, "type": "Normal", "reason": "Pulled",
        "involvedObject": { "kind": "Pod", "namespace": kubectl.namespace, "name": "bound", "uid": uid },
        "message": "it is here",
    });
    let file = kubectl.file("event.json", &event);
    kubectl.run(&format!("create -f {file}")).await;
    kubectl.has("get events", &["Pulled", "pod/bound", "it is here"]).await;
    kubectl.has("describe pod bound", &["Pulled", "it is here"]).await;
    kubectl.has("delete pod bound --grace-period=0 --force", &["deleted"]).await;
    kubectl.has(&format!("delete node {name}"), &["deleted"]).await;
}

/// A node is emptied by evictions, which a budget may refuse; deletions with the other policies are marked.
async fn drains(kubectl: &Kubectl) {
    let name = format!("drained-{}", kubectl.namespace);
    let file = kubectl.file("node.json", &json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name } }));
    kubectl.run(&format!("create -f {file}")).await;
    let mut evicted = pod("busybox:1");
    evicted["metadata"]["name"] = json!("evicted");
    evicted["spec"]["nodeName"] = json!(name);
    // No kubelet runs here that would end it.
    evicted["spec"]["terminationGracePeriodSeconds"] = json!(0);
    let file = kubectl.file("evicted.json", &evicted);
    kubectl.run(&format!("create -f {file}")).await;
    kubectl.has(&format!("drain {name} --force --dry-run=server"), &["evicted"]).await;
    kubectl.has("get pod evicted", &["evicted"]).await;
    kubectl.has(&format!("drain {name} --force"), &["pod/evicted evicted", "drained"]).await;
    assert!(kubectl.fail("get pod evicted").await.contains("NotFound"));
    kubectl.run(&format!("delete node {name}")).await;
    kubectl.run("create configmap owner").await;
    kubectl.has("delete configmap owner --dry-run=server", &["(server dry run)"]).await;
    for (policy, finalizer) in [("foreground", "foregroundDeletion"), ("orphan", "orphan")] {
        kubectl.has(&format!("delete configmap owner --cascade={policy} --wait=false"), &["deleted"]).await;
        kubectl.has("get configmap owner -o jsonpath={.metadata.finalizers}", &[finalizer]).await;
    }
    kubectl.has("delete configmap owner --cascade=background", &["deleted"]).await;
}

/// `get -w` prints what happens while it runs.
async fn watches(kubectl: &Kubectl) {
    let mut child = kubectl.command("get configmaps -w -o name").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut saw = async |wanted: &str| {
        let reading = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if line.contains(wanted) {
                    return;
                }
            }
            panic!("get -w ended without {wanted}");
        };
        tokio::time::timeout(Duration::from_secs(60), reading).await.expect("get -w does not show it");
    };
    saw("configmap/settings").await;
    kubectl.run("create configmap later").await;
    saw("configmap/later").await;
    child.kill().await.unwrap();
}

async fn deletes(kubectl: &Kubectl) {
    kubectl.has("delete pod web", &["deleted"]).await;
    assert!(kubectl.fail("get pod web").await.contains("NotFound"));
    kubectl.has("delete configmap settings one two", &["\"settings\"", "\"one\"", "\"two\""]).await;
    kubectl.has("delete pods --all --now", &["\"runner\"", "\"applied\""]).await;
    assert_eq!(kubectl.run("get pods").await, "");
    let file =
        kubectl.file("f.json", &json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "later" } }));
    kubectl.has(&format!("delete -f {file}"), &["\"later\" deleted"]).await;
    kubectl.has(&format!("delete namespace {} --wait=false", kubectl.namespace), &["deleted"]).await;
    kubectl.has("get --raw /readyz", &["ok"]).await;
}

async fn drive(program: &Path, kubeconfig: &str) {
    let kubectl = Kubectl::new(program.to_owned(), kubeconfig);
    creates(&kubectl).await;
    shows(&kubectl).await;
    changes(&kubectl).await;
    runs(&kubectl).await;
    drains(&kubectl).await;
    watches(&kubectl).await;
    super::kubectl_apply::drive(&kubectl).await;
    super::kubectl_accounts::drive(&kubectl).await;
    super::kubectl_certificates::drive(&kubectl).await;
    super::kubectl_workloads::drive(&kubectl).await;
    super::kubectl_custom::drive(&kubectl).await;
    deletes(&kubectl).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_of_every_version_works() {
    let programs = programs();
    if programs.is_empty() {
        eprintln!("SKIP kubectl_of_every_version_works: no kubectl in the path");
        return;
    }
    let served = Served::start().await;
    let kubeconfig = served.kubeconfig();
    futures_util::future::join_all(programs.iter().map(|program| drive(program, &kubeconfig))).await;
    served.stop().await;
}
