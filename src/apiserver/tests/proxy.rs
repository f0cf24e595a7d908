//! What goes through the server: to pods, Services and nodes, and back.
//!
//! A backend is a listener on the address by which this host reaches others, because no pod has the address of a loopback.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use api::user::UserInfo;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::world::{Answer, World, admin, sample};
use crate::Caller;
use crate::fairness::Limits;

const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICES: &str = "/api/v1/namespaces/default/services";

/// The address of this host that is nobody's loopback.
pub(super) fn outward() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_unspecified() && !address.is_loopback())
}

/// What the backend answers: by path.
async fn serve(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let path = request.uri().path().to_owned();
    let mut response = Response::new(Full::default());
    let text = match path.as_str() {
        "/page" => {
            response.headers_mut().insert("content-type", "text/html; charset=utf-8".parse().unwrap());
            "<a href=\"/next\">next</a>".to_owned()
        }
        "/away" => {
            *response.status_mut() = http::StatusCode::FOUND;
            response.headers_mut().insert("location", "/login?x=1".parse().unwrap());
            String::new()
        }
        "/upgrade" => {
            let upgrade = hyper::upgrade::on(&mut request);
            #[expect(clippy::disallowed_methods, reason = "the backend of a test, which ends with it")]
            tokio::spawn(async move {
                let mut connection = TokioIo::new(upgrade.await.unwrap());
                let mut word = [0; 4];
                connection.read_exact(&mut word).await.unwrap();
                word.reverse();
                connection.write_all(&word).await.unwrap();
            });
            *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert("connection", "upgrade".parse().unwrap());
            response.headers_mut().insert("upgrade", "test".parse().unwrap());
            String::new()
        }
        _ => {
            let line = format!("{} {}", request.method(), request.uri());
            let mut headers: Vec<String> =
                request.headers().iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect();
            headers.sort();
            let body = request.into_body().collect().await?.to_bytes();
            response.headers_mut().insert("access-control-allow-origin", "*".parse().unwrap());
            format!("{line}\n{}\n{}", headers.join("\n"), String::from_utf8_lossy(&body))
        }
    };
    *response.body_mut() = Full::new(text.into());
    Ok(response)
}

/// A world with a pod `p` whose address is the backend's; none where the host has no such address.
async fn with_backend() -> Option<(World, u16)> {
    let Some(address) = outward() else {
        println!("SKIP proxied requests: the host has no address beside its loopback");
        return None;
    };
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let world = World::limited(Limits::default()).await;
    world.tasks.spawn("backend", async move {
        let tasks = task::Tasks::new();
        while let Ok((stream, _)) = listener.accept().await {
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(serve))
                .with_upgrades();
            tasks.spawn("backend connection", connection);
        }
    });
    let mut pod = sample("Pod", "p");
    pod["spec"]["nodeName"] = json!("n1");
    pod["spec"]["containers"][0]["ports"] = json!([{ "containerPort": port }]);
    world.ask(&format!("POST {PODS}"), pod).await.expect(201);
    set_address(&world, &address.to_string()).await;
    Some((world, port))
}

async fn set_address(world: &World, address: &str) {
    let status = json!({ "status": { "podIP": address, "podIPs": [{ "ip": address }] } });
    world.patch(&format!("{PODS}/p/status"), "merge-patch", status).await.expect(200);
}

async fn ask(world: &World, line: &str) -> Answer {
    world.send(admin(), line, &[], "").await
}

#[tokio::test]
async fn a_request_reaches_a_pod_as_it_was_sent() {
    let Some((world, port)) = with_backend().await else { return };
    let headers =
        [("authorization", "Bearer x"), ("host", "api:6443"), ("cookie", "a=b"), ("accept", "application/yaml")];
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let line = format!("{method} {PODS}/p/proxy/a%2Fb//c/?x=1&y=%20");
        let answer = world.send(admin(), &line, &headers, "body").await;
        assert_eq!(answer.code, 200, "{}", answer.text);
        let prefix = format!("{PODS}/p/proxy");
        let wanted = format!(
            "{method} /a%2Fb//c/?x=1&y=%20\naccept=application/yaml\ncontent-length=4\ncookie=a=b\nhost=api:6443\n\
             x-forwarded-uri={prefix}/a%2Fb/c/\nbody"
        );
        assert_eq!(answer.text, wanted);
        assert!(!answer.headers.contains_key("access-control-allow-origin"));
    }
    let answer = ask(&world, &format!("HEAD {PODS}/p:{port}/proxy/x")).await;
    assert_eq!((answer.code, answer.text.as_str()), (200, ""));
    let answer = ask(&world, &format!("GET {PODS}/http:p:{port}/proxy/")).await;
    assert!(answer.text.starts_with("GET /\n"), "{}", answer.text);
}

#[tokio::test]
async fn pages_and_places_lead_back_through_the_server() {
    let Some((world, _)) = with_backend().await else { return };
    let page = ask(&world, &format!("GET {PODS}/p/proxy/page")).await;
    assert_eq!(page.text, format!("<a href=\"{PODS}/p/proxy/next\">next</a>"));
    let away = ask(&world, &format!("GET {PODS}/p/proxy/away")).await;
    assert_eq!((away.code, away.headers["location"].to_str().unwrap()), (302, &*format!("{PODS}/p/proxy/login?x=1")));
    let bare = ask(&world, &format!("GET {PODS}/p/proxy?x=1")).await;
    assert_eq!((bare.code, bare.headers["location"].to_str().unwrap()), (301, &*format!("{PODS}/p/proxy/?x=1")));
    let bare = ask(&world, &format!("POST {PODS}/p/proxy?x=1")).await;
    assert!(bare.text.starts_with("POST /?x=1\n"), "{}", bare.text);
}

#[tokio::test]
async fn a_body_passes_piece_by_piece() {
    let Some((world, _)) = with_backend().await else { return };
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
    let pieces = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let piece = receiver.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(http_body::Frame::data(piece)), receiver))
    });
    let request = Request::post(format!("{PODS}/p/proxy/x")).body(StreamBody::new(pieces)).unwrap();
    let (server, caller) = (Arc::clone(&world.server), Caller { user: admin() });
    let answered = world.tasks.spawn("request", async move {
        let response = server.handle(caller, request).await;
        response.into_body().collect().await.unwrap().to_bytes()
    });
    for piece in ["one ", "two ", "three"] {
        sender.send(Bytes::from_static(piece.as_bytes())).await.unwrap();
    }
    drop(sender);
    let text = answered.await.unwrap().unwrap();
    assert!(text.ends_with(
        b"transfer-encoding=chunked\nx-forwarded-uri=/api/v1/namespaces/default/pods/p/proxy/x\none two three"
    ));
}

#[tokio::test]
async fn a_connection_changes_its_protocol_through_the_server() {
    let Some((world, _)) = with_backend().await else { return };
    let (ours, theirs) = tokio::io::duplex(1000);
    let server = Arc::clone(&world.server);
    let service = service_fn(move |request: Request<Incoming>| {
        let server = Arc::clone(&server);
        async move { Ok::<_, std::convert::Infallible>(server.handle(Caller { user: admin() }, request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(theirs), service);
    world.tasks.spawn("front", connection.with_upgrades());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(ours)).await.unwrap();
    world.tasks.spawn("client", connection.with_upgrades());
    let ask = |path: &str| {
        let request = Request::get(format!("{PODS}/p/proxy{path}"));
        request
            .header("connection", "Upgrade")
            .header("upgrade", "test")
            .header("host", "api")
            .body(Full::<Bytes>::default())
    };
    let refused = sender.send_request(ask("/x").unwrap()).await.unwrap();
    assert_eq!(refused.status(), 500);
    let text = refused.into_body().collect().await.unwrap().to_bytes();
    let status: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(status["message"], "invalid upgrade response: status code 200");
    let mut response = sender.send_request(ask("/upgrade").unwrap()).await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers()["upgrade"].to_str().unwrap()), (101, "test"));
    let mut connection = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    connection.write_all(b"word").await.unwrap();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"drow");
    // Both ends are gone, and with them all that was between.
    tokio::time::timeout(Duration::from_secs(60), async {
        world.server.tunnels.stop();
        world.server.tunnels.shutdown().await;
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_service_leads_to_a_pod_behind_it() {
    let Some((world, port)) = with_backend().await else { return };
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "s" },
        "spec": { "ports": [{ "name": "web", "port": 80 }, { "name": "other", "port": 81 }] },
    });
    world.ask(&format!("POST {SERVICES}"), service).await.expect(201);
    let none = ask(&world, &format!("GET {SERVICES}/s:web/proxy/x")).await.expect(503);
    assert_eq!(none["message"], "no endpoints available for service \"s:web\"");
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let address = outward().unwrap().to_string();
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": { "name": "s-1", "labels": { "kubernetes.io/service-name": "s" } },
        "addressType": "IPv4", "endpoints": [{ "addresses": [address] }],
        "ports": [{ "name": "web", "port": port }],
    });
    world.ask(&format!("POST {slices}"), slice).await.expect(201);
    for id in ["s:web", "s:80", "http:s:web"] {
        let answer = ask(&world, &format!("GET {SERVICES}/{id}/proxy/x")).await;
        assert!(answer.text.starts_with("GET /x\n"), "{id}: {}", answer.text);
    }
    ask(&world, &format!("GET {SERVICES}/s:81/proxy/x")).await.expect(503);
    ask(&world, &format!("GET {SERVICES}/s/proxy/x")).await.expect(503);
    let missing = ask(&world, &format!("GET {SERVICES}/s:82/proxy/x")).await.expect(503);
    assert_eq!(missing["message"], "no service port 82 found for service \"s\"");
    ask(&world, &format!("GET {SERVICES}/absent/proxy/x")).await.expect(404);
    // An address that is no pod's, or that of a pod elsewhere, is not reached.
    set_address(&world, "10.9.9.9").await;
    ask(&world, &format!("GET {SERVICES}/s:web/proxy/x")).await.expect(503);
}

#[tokio::test]
async fn what_cannot_be_reached_is_said() {
    let Some((world, port)) = with_backend().await else { return };
    let plain = ask(&world, &format!("GET {PODS}/https:p:{port}/proxy/x")).await.expect(503);
    let message = "error trying to reach service: http: server gave HTTP response to HTTPS client";
    assert_eq!((plain["reason"].as_str(), plain["message"].as_str()), (Some("ServiceUnavailable"), Some(message)));
    let closed = {
        let listener = std::net::TcpListener::bind((outward().unwrap(), 0)).unwrap();
        listener.local_addr().unwrap()
    };
    let refused = ask(&world, &format!("GET {PODS}/p:{}/proxy/x", closed.port())).await.expect(503);
    let wanted = format!("error trying to reach service: dial tcp {closed}: connect: connection refused");
    assert_eq!(refused["message"], wanted);
    for wrong in ["127.0.0.1", "169.254.169.254", "::1"] {
        set_address(&world, wrong).await;
        let error = ask(&world, &format!("GET {PODS}/p/proxy/x")).await.expect(400);
        assert_eq!(error["message"], "address not allowed", "{wrong}");
    }
    let error = ask(&world, &format!("GET {PODS}/a:b:c:d/proxy/x")).await.expect(400);
    assert_eq!(error["message"], "invalid pod request \"a:b:c:d\"");
}

#[tokio::test(start_paused = true)]
async fn a_nodes_proxy_is_its_kubelet_or_another_port_of_it() {
    let world = World::new().await;
    let node = |name: &str, address: &str| {
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": { "name": name },
            "status": {
                "addresses": [{ "type": "InternalIP", "address": address }],
                "daemonEndpoints": { "kubeletEndpoint": { "Port": 10777 } },
            },
        })
    };
    world.ask("POST /api/v1/nodes", node("n1", "127.0.0.1")).await.expect(201);
    for name in ["n1", "n1:10777", "https:n1:10777"] {
        let answer = ask(&world, &format!("GET /api/v1/nodes/{name}/proxy/pods?x=1")).await;
        assert_eq!((answer.code, answer.text.as_str()), (200, "n1 /pods?x=1"), "{name}");
    }
    let error = ask(&world, "GET /api/v1/nodes/n1:22/proxy/").await.expect(400);
    assert_eq!(error["message"], "address not allowed");
    ask(&world, "GET /api/v1/nodes/absent/proxy/").await.expect(404);
    world.ask("POST /api/v1/nodes", node("unreachable", "10.0.0.1")).await.expect(201);
    let error = ask(&world, "GET /api/v1/nodes/unreachable/proxy/").await.expect(503);
    let message = error["message"].as_str().unwrap();
    assert!(message.starts_with("error trying to reach service: "), "{message}");
    ask(&world, "TRACE /api/v1/nodes/n1/proxy/").await.expect(405);
}

#[tokio::test(start_paused = true)]
async fn whoever_may_not_use_a_proxy_does_not() {
    let jane = UserInfo::authenticated("jane", &[]);
    let world = World::new().await;
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1" },
        "status": { "addresses": [{ "type": "InternalIP", "address": "10.0.0.1" }] },
    });
    world.ask("POST /api/v1/nodes", node).await.expect(201);
    let error = world.send(jane.clone(), "GET /api/v1/nodes/n1/proxy/pods", &[], "").await.expect(403);
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("cannot get resource \"nodes/proxy\""), "{message}");
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let rule = json!({ "apiGroups": [""], "resources": ["nodes/proxy"], "verbs": ["get"] });
    world
        .ask(&format!("POST {rbac}/clusterroles"), json!({ "metadata": { "name": "r" }, "rules": [rule] }))
        .await
        .expect(201);
    let binding = json!({
        "metadata": { "name": "b" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r" },
        "subjects": [{ "kind": "User", "name": "jane" }],
    });
    world.ask(&format!("POST {rbac}/clusterrolebindings"), binding).await.expect(201);
    let answer = world.send(jane.clone(), "GET /api/v1/nodes/n1/proxy/pods", &[], "").await;
    assert_eq!((answer.code, answer.text.as_str()), (200, "n1 /pods"));
    world.send(jane.clone(), "POST /api/v1/nodes/n1/proxy/run/a/b/c", &[], "").await.expect(403);
    // A WebSocket is opened by GET, and would run a command.
    let request = Request::get("/api/v1/nodes/n1/proxy/exec/a/b/c?command=x");
    let request = request.header("connection", "Upgrade").header("upgrade", "websocket");
    let connection = hyper::upgrade::on(Request::new(()));
    let request = request.extension(connection).body(Full::new(Bytes::new())).unwrap();
    assert_eq!(world.raw(jane, request).await.status(), 403);
}
