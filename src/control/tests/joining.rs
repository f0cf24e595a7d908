//! What a machine that joins meets: the authority by its fingerprint, certificates by a token, addresses for its pods.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::Arc;

use api::user::{JOINERS, UserInfo};
use apiserver::pki::{Asked, Subject};
use client::{Client, Fingerprint, HttpsConfig, HttpsTransport, Identity, Key, authority};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{Node, Secret};
use serde_json::{Value, json};
use support::{Cluster, cluster, read, until};
use task::Tasks;

/// A server on a port.
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

    fn client(&self, identity: Identity) -> Client {
        let ca = self.cluster.pki.certificate().as_bytes().to_vec();
        let config = HttpsConfig { server: self.address.clone(), ca, server_name: None, identity };
        Client::new(Arc::new(HttpsTransport::new(config, &self.serving).unwrap()), "test")
    }

    async fn stop(self) {
        self.serving.stop();
        self.cluster.tasks.shutdown().await;
    }
}

fn asked(name: &str, signer: &str, purpose: &str, request: &Asked) -> CertificateSigningRequest {
    let mut asked: CertificateSigningRequest = read(json!({
        "metadata": {"name": name},
        "spec": {
            "signerName": format!("kubernetes.io/{signer}"), "usages": ["digital signature", purpose], "request": "",
        },
    }));
    asked.spec.request = ByteString(request.request.clone().into_bytes());
    asked
}

async fn issued(cluster: &Cluster, name: &str) -> String {
    let certificate = |request: &CertificateSigningRequest| request.status.as_ref()?.certificate.clone();
    let request = until(cluster, Key::cluster(name), |request| request.and_then(certificate).is_some()).await;
    String::from_utf8(certificate(&request.unwrap()).unwrap().0).unwrap()
}

#[tokio::test]
async fn an_authority_is_known_by_its_fingerprint_and_no_other_is_taken() {
    let served = Served::start().await;
    let text = served.cluster.pki.certificate();
    let pin = Fingerprint::of_pem(text.as_bytes()).unwrap();
    let found = authority(&served.address, pin).await.unwrap();
    assert_eq!(Fingerprint::of_pem(found.as_bytes()), Some(pin));
    assert!(authority(&served.address, Fingerprint::of(b"another")).await.is_err());
    // The server's own certificate is no authority, whatever its fingerprint; and its name counts.
    let leaf = served.cluster.pki.mint(&Subject::api_server("edge-1", &[]), served.cluster.clock.now()).unwrap();
    let leaf = Fingerprint::of_pem(leaf.certificate.as_bytes()).unwrap();
    assert!(authority(&served.address, leaf).await.is_err());
    let elsewhere = served.address.replace("127.0.0.1", "127.0.0.2");
    assert!(authority(&elsewhere, pin).await.is_err());
    assert!(authority("http://127.0.0.1:1", pin).await.is_err());
    served.stop().await;
}

#[tokio::test]
async fn a_token_for_one_node_makes_that_node_and_no_other() {
    let served = Served::start().await;
    let (cluster, admin) = (&served.cluster, &served.cluster.client);
    let secret: Secret = read(json!({
        "metadata": {"name": "bootstrap-token-abcdef", "namespace": "kube-system"},
        "type": "bootstrap.kubernetes.io/token",
        "stringData": {
            "token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
            "auth-extra-groups": format!("{JOINERS},{}", UserInfo::joiners_as("edge.2")),
        },
    }));
    admin.create(&secret).await.unwrap();
    let joiner = served.client(Identity::Token("abcdef.0123456789abcdef".to_owned()));
    let client_request = |node: &str| Asked::new(&format!("system:node:{node}"), "system:nodes", &[], &[]).unwrap();
    let request = client_request("edge.3");
    let error = joiner.create(&asked("other", "kube-apiserver-client-kubelet", "client auth", &request)).await;
    let error = error.unwrap_err();
    assert!(error.is_forbidden() && error.to_string().contains("CN=system:node:edge.2"), "{error}");
    let request = client_request("edge.2");
    joiner.create(&asked("own", "kube-apiserver-client-kubelet", "client auth", &request)).await.unwrap();
    let credential = request.issued(issued(cluster, "own").await);
    let (chain, key) = (credential.certificate.clone().into_bytes(), credential.key().as_bytes().to_vec());
    let node = served.client(Identity::Certificate { chain, key });
    assert!(joiner.get::<Node>(&Key::cluster("edge.2")).await.unwrap_err().is_forbidden(), "the token does no more");

    // As the node, it registers, gets addresses, and is known by its own alone.
    let own: Node = read(json!({
        "metadata": {"name": "edge.2"},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.2"}]},
    }));
    node.create(&own).await.unwrap();
    let range = |node: &Node| node.spec.as_ref()?.pod_cidr.clone();
    let made = until::<Node>(cluster, Key::cluster("edge.2"), |node| node.and_then(range).is_some()).await.unwrap();
    assert_eq!(range(&made).as_deref(), Some("10.42.0.0/24"));
    let server = |address: &str| {
        let (names, addresses) = ([String::from("edge.2")], [address.parse().unwrap()]);
        Asked::new("system:node:edge.2", "system:nodes", &names, &addresses).unwrap()
    };
    // 192.0.2.1 is the API server.
    for (name, address) in [("false", "192.0.2.1"), ("true", "192.0.2.2")] {
        node.create(&asked(name, "kubelet-serving", "server auth", &server(address))).await.unwrap();
    }
    issued(cluster, "true").await;
    let left: Value = admin
        .request(http::Method::GET, "/apis/certificates.k8s.io/v1/certificatesigningrequests/false", None)
        .await
        .unwrap();
    assert_eq!(left["status"]["conditions"], Value::Null);
    served.stop().await;
}

#[tokio::test]
async fn a_machine_does_not_join_by_a_name_of_the_api_server() {
    let served = Served::start().await;
    let request = Asked::new("system:node:kubernetes", "system:nodes", &[], &[]).unwrap();
    let asked = asked("taken", "kube-apiserver-client-kubelet", "client auth", &request);
    served.cluster.client.create(&asked).await.unwrap();
    let conditions = |request: &CertificateSigningRequest| request.status.clone().and_then(|status| status.conditions);
    let key = Key::cluster("taken");
    let denied =
        until::<CertificateSigningRequest>(&served.cluster, key, |request| request.and_then(conditions).is_some());
    let conditions = conditions(&denied.await.unwrap()).unwrap();
    assert_eq!(conditions[0].type_, "Denied");
    assert_eq!(conditions[0].message.as_deref(), Some("\"kubernetes\" is a name of the API server and of no node"));
    served.stop().await;
}
