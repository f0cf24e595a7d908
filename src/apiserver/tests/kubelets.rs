//! Kubelets on other machines, as the server reaches them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use api::user::MASTERS;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::world::World;
use crate::authn::certificate_user;
use crate::fairness::Limits;
use crate::pki::{Pki, Subject};
use crate::{Entropy, Kubelets, NodeConnector, tls_config};

/// A kubelet that says who asks for what, and to which host; its certificate is for this address.
async fn kubelet(world: &World, pki: &Pki, named: &str) -> SocketAddr {
    let subject = Subject::Server {
        common_name: "system:node:n1".to_owned(),
        names: Vec::new(),
        addresses: vec![named.parse().unwrap()],
    };
    let tls =
        tls_config(pki.certificate(), &pki.mint(&subject, task::Clock::now(&task::SystemClock)).unwrap()).unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    world.tasks.spawn("kubelet", async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = TlsAcceptor::from(Arc::clone(&tls)).accept(stream).await else { continue };
            let user = stream.get_ref().1.peer_certificates().and_then(|all| certificate_user(all.first()?));
            let name = user.map_or_else(|| "nobody".to_owned(), |user| user.username);
            let service = service_fn(move |request: Request<Incoming>| {
                let host = request.headers()["host"].to_str().unwrap().to_owned();
                let text = format!("{name} {} {} {host}", request.method(), request.uri());
                async move { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text)))) }
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        }
    });
    at
}

async fn register(world: &World, name: &str, at: SocketAddr) {
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": name },
        "status": {
            "addresses": [{ "type": "InternalIP", "address": at.ip().to_string() }],
            "daemonEndpoints": { "kubeletEndpoint": { "Port": at.port() } },
        },
    });
    world.ask("POST /api/v1/nodes", node).await.expect(201);
}

#[tokio::test]
async fn a_kubelet_knows_the_server_and_the_server_knows_the_kubelet() {
    let world = World::limited(Limits::default()).await;
    let directory = tempfile::tempdir().unwrap();
    let clock = task::Clock::now(&task::SystemClock);
    let pki = Pki::open(directory.path(), clock, &Entropy::system()).unwrap();
    let client = pki.mint(&Subject::client("kube-apiserver-kubelet-client", &[MASTERS]), clock).unwrap();
    let store = Arc::clone(&world.server.config.store);
    let kubelets = Kubelets::new(store, pki.certificate(), &client, world.tasks.clone()).unwrap();
    let ask = async |node: &str| {
        let request = Request::get("/containerLogs/d/p/c?follow=true").body(Bytes::new()).unwrap();
        match kubelets.send(node, request).await {
            Ok(response) => {
                String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
            }
            Err(error) => format!("{error}: {}", error.source),
        }
    };
    let at = kubelet(&world, &pki, "127.0.0.1").await;
    register(&world, "n1", at).await;
    let wanted = format!("kube-apiserver-kubelet-client GET /containerLogs/d/p/c?follow=true {at}");
    assert_eq!(ask("n1").await, wanted);
    // One with a certificate for another address is not who it says.
    let other = kubelet(&world, &pki, "192.0.2.77").await;
    register(&world, "n2", other).await;
    let refused = ask("n2").await;
    assert!(refused.starts_with("the kubelet of node n2 is unreachable: invalid peer certificate"), "{refused}");
    assert!(ask("absent").await.ends_with("nodes \"absent\" not found"));
    world.tasks.shutdown().await;
}
