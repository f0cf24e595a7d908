//! Tokens that lie in Secrets: those of service accounts, and those by which machines join.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use client::{DeleteOptions, Key};
use http::Method;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use serde_json::{Value, json};
use support::{Cluster, cluster, read, until};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";

/// What the server says of a token.
async fn review(cluster: &Cluster, token: &str) -> Value {
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    cluster.client.request(Method::POST, path, Some(&body)).await.unwrap()["status"].clone()
}

fn text(secret: &Secret, key: &str) -> Option<String> {
    Some(String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).unwrap())
}

#[tokio::test]
async fn a_secret_gets_a_token_that_is_good_until_it_or_its_account_goes() {
    let cluster = cluster().await;
    let client = &cluster.client;
    let account: ServiceAccount = read(json!({"metadata": {"name": "robot", "namespace": "default"}}));
    let account = client.create(&account).await.unwrap();
    let secret = |name: &str, account: &str| {
        json!({
            "metadata": {"name": name, "annotations": {"kubernetes.io/service-account.name": account}},
            "type": "kubernetes.io/service-account-token",
        })
    };
    let mut tokens = Vec::new();
    for name in ["one", "two"] {
        client.request(Method::POST, SECRETS, Some(&secret(name, "robot"))).await.unwrap();
        let key = Key::namespaced("default", name);
        let filled = until::<Secret>(&cluster, key, |secret| secret.and_then(|secret| text(secret, "token")).is_some());
        let filled = filled.await.unwrap();
        assert_eq!(text(&filled, "namespace").as_deref(), Some("default"));
        assert_eq!(text(&filled, "ca.crt").as_deref(), Some("the CA"));
        let uid = &filled.metadata.annotations.as_ref().unwrap()["kubernetes.io/service-account.uid"];
        assert_eq!(Some(uid), account.metadata.uid.as_ref());
        tokens.push(text(&filled, "token").unwrap());
    }
    let good = review(&cluster, &tokens[0]).await;
    assert_eq!(good["user"]["username"], "system:serviceaccount:default:robot");
    assert_eq!(
        good["user"]["groups"],
        json!(["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"])
    );
    let forged = format!("{}x", tokens[0]);
    assert_eq!(review(&cluster, &forged).await["authenticated"], Value::Null);

    client.delete::<Secret>(&Key::namespaced("default", "one"), &DeleteOptions::default()).await.unwrap();
    let gone = review(&cluster, &tokens[0]).await;
    assert!(gone["error"].as_str().unwrap().contains("Token has been invalidated"), "{gone}");
    assert_eq!(review(&cluster, &tokens[1]).await["authenticated"], true);
    // One that is put aside is not good, even if it is of the same Secret.
    let put_aside = json!({"data": {"token": "eA=="}});
    let key = Key::namespaced("default", "two");
    client.patch::<Secret>(&key, &client::Patch::Merge(put_aside)).await.unwrap();
    let other = review(&cluster, &tokens[1]).await;
    assert!(other["error"].as_str().unwrap().contains("Token does not match server's copy"), "{other}");

    client.delete::<ServiceAccount>(&Key::namespaced("default", "robot"), &DeleteOptions::default()).await.unwrap();
    until::<Secret>(&cluster, key, |secret| secret.is_none()).await;
    client.request(Method::POST, SECRETS, Some(&secret("three", "nobody"))).await.unwrap();
    until::<Secret>(&cluster, Key::namespaced("default", "three"), |secret| secret.is_none()).await;
    cluster.tasks.shutdown().await;
}

#[tokio::test]
async fn a_bootstrap_token_that_has_run_out_goes_and_others_stay() {
    let cluster = cluster().await;
    let path = "/api/v1/namespaces/kube-system/secrets";
    for (name, end) in [("old", "2020-01-01T00:00:00Z"), ("new", "2199-01-01T00:00:00Z"), ("eternal", "")] {
        let body = json!({
            "metadata": {"name": name}, "type": "bootstrap.kubernetes.io/token", "stringData": {"expiration": end},
        });
        cluster.client.request(Method::POST, path, Some(&body)).await.unwrap();
    }
    let key = |name: &str| Key::namespaced("kube-system", name);
    until::<Secret>(&cluster, key("old"), |secret| secret.is_none()).await;
    for name in ["new", "eternal"] {
        cluster.client.get::<Secret>(&key(name)).await.unwrap();
    }
    cluster.tasks.shutdown().await;
}
