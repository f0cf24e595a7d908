//! Requests for certificates from the question to a connection with the answer, over TLS, and through kubectl.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::path::Path;
use std::sync::Arc;

use apiserver::pki::{Kubeconfig, Subject};
use client::{Client, HttpsConfig, HttpsTransport, Identity, Key};
use http::Method;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};
use support::{Cluster, MASTERS, cluster, read, until};
use task::Tasks;

const REVIEW: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// A server on a port, which the test stops.
struct Served {
    cluster: Cluster,
    serving: Tasks,
    address: String,
}

impl Served {
    async fn start() -> Self {
        let cluster = cluster().await;
        let credential = cluster.pki.mint(&Subject::api_server("edge-1", &[]), cluster.clock.now()).unwrap();
        let tls = apiserver::tls_config(cluster.pki.certificate(), &credential).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let serving = Tasks::new();
        serving.spawn("serve", Arc::clone(&cluster.server).serve(listener, tls, cluster.tasks.clone()));
        Self { cluster, serving, address }
    }

    fn client(&self, chain: String, key: String) -> Client {
        let identity = Identity::Certificate { chain: chain.into(), key: key.into() };
        let ca = self.cluster.pki.certificate().as_bytes().to_vec();
        let config = HttpsConfig { server: self.address.clone(), ca, server_name: None, identity };
        Client::new(Arc::new(HttpsTransport::new(config, &self.serving).unwrap()), "test")
    }

    /// Who the server takes somebody for.
    async fn who(&self, chain: String, key: &KeyPair) -> Value {
        let body = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" });
        let client = self.client(chain, key.serialize_pem());
        client.request(Method::POST, REVIEW, Some(&body)).await.unwrap()["status"]["userInfo"].clone()
    }

    async fn stop(self) {
        self.serving.stop();
        self.cluster.tasks.shutdown().await;
    }
}

fn request(name: &str, signer: &str, user: &str, group: &str, usages: &[&str]) -> (CertificateSigningRequest, KeyPair) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::OrganizationName, group);
    params.distinguished_name.push(DnType::CommonName, user);
    let key = KeyPair::generate().unwrap();
    let text = params.serialize_request(&key).unwrap().pem().unwrap();
    let mut request: CertificateSigningRequest = read(json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name},
        "spec": {"signerName": format!("kubernetes.io/{signer}"), "usages": usages, "request": "", "expirationSeconds": 3600},
    }));
    request.spec.request = ByteString(text.into_bytes());
    (request, key)
}

/// The certificate, once it is there.
async fn issued(cluster: &Cluster, name: &str) -> String {
    let certificate = |request: &CertificateSigningRequest| request.status.as_ref()?.certificate.clone();
    let request = until(cluster, Key::cluster(name), |request| request.and_then(certificate).is_some()).await;
    String::from_utf8(certificate(&request.unwrap()).unwrap().0).unwrap()
}

fn condition(request: &CertificateSigningRequest, kind: &str) -> Option<(String, String)> {
    let conditions = request.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((found.reason.clone()?, found.message.clone()?))
}

#[tokio::test]
async fn a_kubelet_gets_its_certificate_by_its_right_and_renews_it_by_another() {
    let served = Served::start().await;
    let (cluster, admin) = (&served.cluster, &served.cluster.client);
    let bind = async |role: &str, kind: &str, name: &str| {
        let role = format!("system:certificates.k8s.io:certificatesigningrequests:{role}");
        let body = json!({
            "metadata": {"name": name}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}],
        });
        admin.request(Method::POST, &format!("{RBAC}/clusterrolebindings"), Some(&body)).await.unwrap();
    };
    let usages = ["digital signature", "client auth"];
    let asked = |name| request(name, "kube-apiserver-client-kubelet", "system:node:n1", "system:nodes", &usages);
    let (first, _) = asked("by-master");
    let joiner = cluster.pki.mint(&Subject::client("joiner", &[MASTERS]), cluster.clock.now()).unwrap();
    let joiner = served.client(joiner.certificate.clone(), joiner.key().to_owned());
    joiner.create(&first).await.unwrap();
    assert!(issued(cluster, "by-master").await.contains("BEGIN"), "who may do everything may do this");
    bind("selfnodeclient", "Group", "system:nodes").await;
    let (own, key) = asked("first");
    joiner.create(&own).await.unwrap();
    let chain = issued(cluster, "first").await;
    let who = served.who(chain.clone(), &key).await;
    assert_eq!(who["username"], "system:node:n1");
    assert_eq!(who["groups"], json!(["system:nodes", "system:authenticated"]));
    // Now the node asks for itself.
    let node = served.client(chain, key.serialize_pem());
    let (again, key) = asked("renewed");
    node.create(&again).await.unwrap();
    let renewed = issued(cluster, "renewed").await;
    assert_eq!(served.who(renewed, &key).await["username"], "system:node:n1");
    let object: CertificateSigningRequest = admin.get(&Key::cluster("renewed")).await.unwrap();
    let (reason, message) = condition(&object, "Approved").unwrap();
    assert_eq!(reason, "AutoApproved");
    assert_eq!(message, "Auto approving self kubelet client certificate after SubjectAccessReview.");
    // Another node's certificate is not to be had.
    let (other, _) = request("other", "kube-apiserver-client-kubelet", "system:node:n2", "system:nodes", &usages);
    let error = node.create(&other).await.unwrap_err();
    assert!(error.is_forbidden() && error.to_string().contains("CN=system:node:n1"), "{error}");
    served.stop().await;
}

#[tokio::test]
async fn a_request_whose_author_lacks_the_right_waits_for_it() {
    let cluster = cluster().await;
    let usages = ["digital signature", "client auth"];
    let (waiting, _) = request("w", "kube-apiserver-client-kubelet", "system:node:n1", "system:nodes", &usages);
    let body = serde_json::to_value(&waiting).unwrap();
    let made = cluster.code_for("joe", "POST", "/apis/certificates.k8s.io/v1/certificatesigningrequests", &body).await;
    assert_eq!(made, 403, "joe may not even ask");
    let role = |verb: &str, resource: &str, name: &str| {
        json!({"metadata": {"name": name}, "rules": [{
            "verbs": [verb], "apiGroups": ["certificates.k8s.io"], "resources": [resource],
        }]})
    };
    let grant = async |name: &str, role: Value| {
        cluster.client.request(Method::POST, &format!("{RBAC}/clusterroles"), Some(&role)).await.unwrap();
        let binding = json!({
            "metadata": {"name": name}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "joe"}],
        });
        cluster.client.request(Method::POST, &format!("{RBAC}/clusterrolebindings"), Some(&binding)).await.unwrap();
    };
    grant("asks", role("create", "certificatesigningrequests", "asks")).await;
    let made = cluster.code_for("joe", "POST", "/apis/certificates.k8s.io/v1/certificatesigningrequests", &body).await;
    assert_eq!(made, 201);
    // Another request shows that the controller has been there: both came in order, and this one is decided later.
    let (marker, _) = request("marker", "kube-apiserver-client-kubelet", "system:node:n2", "system:nodes", &usages);
    cluster.client.create(&marker).await.unwrap();
    issued(&cluster, "marker").await;
    let object: CertificateSigningRequest = cluster.client.get(&Key::cluster("w")).await.unwrap();
    assert_eq!(condition(&object, "Approved"), None);
    grant("joins", role("create", "certificatesigningrequests/nodeclient", "joins")).await;
    issued(&cluster, "w").await;
    cluster.tasks.shutdown().await;
}

/// kubectl with a configuration of its own; none if there is none.
async fn kubectl(home: &Path, line: &str) -> (bool, String) {
    let mut command = tokio::process::Command::new("kubectl");
    command.args(line.split(' ')).env("HOME", home).env("KUBECONFIG", home.join("config")).kill_on_drop(true);
    let output = command.output().await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

fn has_kubectl() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join("kubectl").is_file())
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_approves_and_denies_and_the_certificate_works() {
    if !has_kubectl() {
        eprintln!("SKIP kubectl_approves_and_denies_and_the_certificate_works: no kubectl in the path");
        return;
    }
    let served = Served::start().await;
    let cluster = &served.cluster;
    let home = tempfile::tempdir().unwrap();
    let admin = cluster.pki.mint(&Subject::client("admin", &[MASTERS]), cluster.clock.now()).unwrap();
    let authority = cluster.pki.certificate();
    let config = Kubeconfig { server: &served.address, cluster: "test", user: "admin", authority, credential: &admin };
    std::fs::write(home.path().join("config"), config.render()).unwrap();
    let run = async |line: &str| {
        let (success, text) = kubectl(home.path(), line).await;
        assert!(success, "{line}: {text}");
        text
    };
    let mut keys = Vec::new();
    for (name, usages) in [("good", &["client auth"][..]), ("bad", &["client auth"]), ("wrong", &["server auth"])] {
        let (object, key) = request(name, "kube-apiserver-client", "jane", "dev", usages);
        let file = home.path().join(name);
        std::fs::write(&file, serde_json::to_vec(&object).unwrap()).unwrap();
        let text = run(&format!("create -f {}", file.display())).await;
        assert!(!text.contains("Warning"), "{text}");
        keys.push(key);
    }
    run("certificate approve good wrong").await;
    run("certificate deny bad").await;
    let who = served.who(issued(cluster, "good").await, &keys[0]).await;
    assert_eq!((&who["username"], &who["groups"]), (&json!("jane"), &json!(["dev", "system:authenticated"])));
    assert!(run("get csr good").await.contains("Approved,Issued"));
    assert!(run("get csr bad").await.contains("Denied"));
    let failed = |request: Option<&CertificateSigningRequest>| condition(request?, "Failed");
    let object = until(cluster, Key::cluster("wrong"), |request| failed(request).is_some()).await.unwrap();
    let said = ("SignerValidationFailure".to_owned(), "invalid usage for client certificate: server auth".to_owned());
    assert_eq!(condition(&object, "Failed"), Some(said));
    assert!(run("get csr wrong").await.contains("Approved,Failed"));
    served.stop().await;
}
