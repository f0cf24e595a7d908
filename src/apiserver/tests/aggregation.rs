//! Groups that another server serves: a real one behind TLS, which says what reached it.

use std::convert::Infallible;
use std::net::Ipv4Addr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use task::{Clock, SystemClock, Tasks};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::proxy::outward;
use super::world::{World, admin};
use crate::authn::certificate_user;
use crate::fairness::Limits;
use crate::pki::{Pki, Subject};
use crate::{Entropy, FRONT_PROXY, FrontProxy, tls_config};
use api::user::UserInfo;

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const NAME: &str = "v1alpha1.wardle.example.com";
const ROOT: &str = "/apis/wardle.example.com/v1alpha1";

/// A server of flunders.
struct Wardle {
    port: u16,
    authority: String,
    tasks: Tasks,
}

async fn answer(request: Request<Incoming>, peer: Option<String>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let document = match path {
        ROOT => json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "wardle.example.com/v1alpha1",
            "resources": [
                { "name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get"] },
                { "name": "flunders/status", "singularName": "", "namespaced": true, "kind": "Flunder", "verbs": ["get"] },
            ],
        }),
        "/openapi/v3" => {
            let address = json!({ "serverRelativeURL": format!("/openapi/v3{ROOT}?hash=7") });
            json!({ "paths": { "apis/wardle.example.com/v1alpha1": address } })
        }
        _ => {
            let header = |name: &str| -> Vec<String> {
                parts.headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
            };
            let body = body.collect().await.unwrap().to_bytes();
            json!({
                "asked": format!("{} {}", parts.method, parts.uri), "body": String::from_utf8_lossy(&body), "peer": peer,
                "user": header("x-remote-user"), "groups": header("x-remote-group"),
                "extra": header("x-remote-extra-scopes"), "authorization": header("authorization"),
                "accept": header("accept"),
            })
        }
    };
    let response = Response::builder().status(200).header("content-type", "application/json");
    Ok(response.body(Full::new(Bytes::from(document.to_string()))).unwrap())
}

impl Wardle {
    /// Starts it, and tells the world's server to let others serve groups.
    async fn start(world: &World) -> Self {
        let (own, front) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let now = SystemClock.now();
        let own = Pki::open(own.path(), now, &Entropy::system()).unwrap();
        let front = Pki::open(front.path(), now, &Entropy::system()).unwrap();
        let subject = Subject::Server {
            common_name: "wardle".to_owned(),
            names: vec!["api.default.svc".to_owned()],
            addresses: vec![Ipv4Addr::LOCALHOST.into()],
        };
        let credential = own.credential("wardle", &subject, now).unwrap();
        let tls = TlsAcceptor::from(tls_config(front.certificate(), &credential).unwrap());
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
        let (port, tasks) = (listener.local_addr().unwrap().port(), Tasks::new());
        let connections = tasks.clone();
        tasks.spawn("wardle", async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let tls = tls.clone();
                connections.spawn("connection", async move {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let certificates = stream.get_ref().1.peer_certificates();
                    let peer = certificates.and_then(|chain| certificate_user(&chain[0])).map(|user| user.username);
                    let service = service_fn(move |request| answer(request, peer.clone()));
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        let credential = front.credential("client", &Subject::client(FRONT_PROXY, &[]), now).unwrap();
        let (authority, clients) = (front.certificate().to_owned(), "clients".to_owned());
        world.server.aggregate(FrontProxy { authority, credential, clients }, &world.tasks);
        Self { port, authority: STANDARD.encode(own.certificate()), tasks }
    }

    fn service(&self) -> Value {
        json!({
            "metadata": { "name": NAME },
            "spec": {
                "group": "wardle.example.com", "version": "v1alpha1", "groupPriorityMinimum": 2000, "versionPriority": 200,
                "service": { "namespace": "default", "name": "api", "port": 7443 }, "caBundle": self.authority,
            },
        })
    }

    async fn stand_behind(&self, world: &World, address: &str) {
        let slice = json!({
            "metadata": { "name": "api-1", "labels": { "kubernetes.io/service-name": "api" } },
            "addressType": "IPv4", "endpoints": [{ "addresses": [address] }],
            "ports": [{ "name": "", "port": self.port }],
        });
        world.ask("POST /apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice).await.expect(201);
    }
}

/// Waits until the condition has a reason; returns it.
async fn until(world: &World, reason: &str) -> Value {
    let path = format!("{SERVICES}?watch=1&fieldSelector=metadata.name%3D{NAME}");
    let mut events = world.watch(&path).await;
    loop {
        let object = events.next().await.unwrap()["object"].take();
        let condition = object["status"]["conditions"][0].clone();
        if condition["reason"] == reason {
            return condition;
        }
    }
}

#[tokio::test]
async fn requests_go_on_to_the_server_of_their_group_in_their_users_name() {
    let Some(address) = outward() else { return };
    let world = World::limited(Limits::default()).await;
    let wardle = Wardle::start(&world).await;
    world.ask(&format!("POST {SERVICES}"), wardle.service()).await.expect(201);
    let absent = until(&world, "ServiceNotFound").await;
    assert_eq!(
        (&absent["status"], &absent["message"]),
        (&json!("False"), &json!("service/api in \"default\" is not present"))
    );
    let told = world.ask(&format!("GET {ROOT}/flunders"), Value::Null).await;
    assert_eq!((told.code, told.text.as_str()), (503, "service unavailable\n"));
    let port = json!({ "port": 7443, "targetPort": wardle.port });
    let service = json!({ "metadata": { "name": "api" }, "spec": { "ports": [port] } });
    world.ask("POST /api/v1/namespaces/default/services", service).await.expect(201);
    until(&world, "EndpointsNotFound").await;
    wardle.stand_behind(&world, &address.to_string()).await;
    let passed = until(&world, "Passed").await;
    assert_eq!((&passed["status"], &passed["message"]), (&json!("True"), &json!("all checks passed")));

    let mut jane = UserInfo::authenticated("jane", &["devs", "system:masters"]);
    jane.extra.insert("scopes".to_owned(), vec!["all".to_owned()]);
    let headers = [
        ("x-remote-user", "root"),
        ("x-remote-group", "system:masters"),
        ("x-remote-extra-scopes", "none"),
        ("accept", "application/vnd.kubernetes.protobuf"),
    ];
    let path = format!("{ROOT}/namespaces/default/flunders/a?x=%2F&y=1");
    let told = world.send(jane, &format!("PATCH {path}"), &headers, "body").await.expect(200);
    let expected = json!({
        "asked": format!("PATCH {path}"), "body": "body", "peer": FRONT_PROXY, "user": ["jane"],
        "groups": ["devs", "system:masters", "system:authenticated"], "extra": ["all"], "authorization": [],
        "accept": ["application/vnd.kubernetes.protobuf"],
    });
    assert_eq!(told, expected);
    // What would be read otherwise there than here, where it was asked whether jane may, goes nowhere.
    for other in ["a%2Fstatus", "..%2F..%2Fother%2Fflunders%2Fa", "%2e%2e/flunders", "./a"] {
        let path = format!("GET {ROOT}/namespaces/default/flunders/{other}");
        world.send(admin(), &path, &[], "").await.expect(400);
    }
    // Whether somebody may is asked here first.
    let stranger = UserInfo::authenticated("stranger", &[]);
    world.send(stranger, &format!("GET {path}"), &[], "").await.expect(403);

    let slice = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/api-1";
    world.patch(slice, "merge-patch", json!({ "endpoints": [] })).await.expect(200);
    let gone = until(&world, "MissingEndpoints").await;
    assert_eq!(gone["message"], "endpoints for service/api in \"default\" have no addresses with port name \"\"");
    assert_eq!(world.ask(&format!("GET {ROOT}/flunders"), Value::Null).await.code, 503);
    world.ask(&format!("DELETE {SERVICES}/{NAME}"), Value::Null).await.expect(200);
    while world.ask(&format!("GET {ROOT}/flunders"), Value::Null).await.code != 404 {
        tokio::task::yield_now().await;
    }
    wardle.tasks.shutdown().await;
}

#[tokio::test]
async fn groups_of_others_are_discovered_beside_those_of_this_server() {
    let Some(address) = outward() else { return };
    let world = World::limited(Limits::default()).await;
    let wardle = Wardle::start(&world).await;
    let port = json!({ "port": 7443, "targetPort": wardle.port });
    let service = json!({ "metadata": { "name": "api" }, "spec": { "ports": [port] } });
    world.ask("POST /api/v1/namespaces/default/services", service).await.expect(201);
    wardle.stand_behind(&world, &address.to_string()).await;
    world.ask(&format!("POST {SERVICES}"), wardle.service()).await.expect(201);
    until(&world, "Passed").await;
    let version = json!({ "groupVersion": "wardle.example.com/v1alpha1", "version": "v1alpha1" });
    let expected = json!({
        "kind": "APIGroup", "apiVersion": "v1", "name": "wardle.example.com", "versions": [version], "preferredVersion": version,
    });
    assert_eq!(world.ask("GET /apis/wardle.example.com", Value::Null).await.expect(200), expected);
    let groups = world.ask("GET /apis", Value::Null).await.expect(200);
    assert_eq!(groups["groups"].as_array().unwrap().last().unwrap()["name"], "wardle.example.com");
    let list = world.ask(&format!("GET {ROOT}"), Value::Null).await.expect(200);
    assert_eq!(list["resources"][0]["name"], "flunders");
    let headers = [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")];
    let all = world.send(admin(), "GET /apis", &headers, "").await.expect(200);
    let kind = json!({ "group": "wardle.example.com", "version": "v1alpha1", "kind": "Flunder" });
    let below = json!([{ "subresource": "status", "responseKind": kind, "verbs": ["get"] }]);
    let resource = json!({
        "resource": "flunders", "responseKind": kind, "scope": "Namespaced", "singularResource": "flunder",
        "verbs": ["get"], "subresources": below,
    });
    let expected = json!({
        "metadata": { "name": "wardle.example.com" },
        "versions": [{ "version": "v1alpha1", "freshness": "Current", "resources": [resource] }],
    });
    assert_eq!(all["items"].as_array().unwrap().last().unwrap(), &expected);
    let index = world.ask("GET /openapi/v3", Value::Null).await.expect(200);
    let address = &index["paths"]["apis/wardle.example.com/v1alpha1"]["serverRelativeURL"];
    assert_eq!(address, &json!(format!("/openapi/v3{ROOT}?hash=7")));
    let told = world.ask(&format!("GET /openapi/v3{ROOT}?hash=7"), Value::Null).await.expect(200);
    assert_eq!(told["asked"], format!("GET /openapi/v3{ROOT}?hash=7"));

    // Who does not prove to be who it should is not believed.
    let liar = json!({ "spec": { "caBundle": null } });
    world.patch(&format!("{SERVICES}/{NAME}"), "merge-patch", liar).await.expect(200);
    let failed = until(&world, "FailedDiscoveryCheck").await;
    assert!(failed["message"].as_str().unwrap().ends_with("certificate signed by unknown authority"), "{failed}");
    let trusting = json!({ "spec": { "insecureSkipTLSVerify": true } });
    world.patch(&format!("{SERVICES}/{NAME}"), "merge-patch", trusting).await.expect(200);
    until(&world, "Passed").await;
    wardle.tasks.shutdown().await;
}

#[tokio::test]
async fn own_groups_are_registered_and_the_way_in_is_published() {
    let world = World::limited(Limits::default()).await;
    let wardle = Wardle::start(&world).await;
    let mut events = world.watch(&format!("{SERVICES}?watch=1")).await;
    loop {
        let event = events.next().await.unwrap();
        let object = &event["object"];
        if object["metadata"]["name"] == "v1.apps" && object["status"]["conditions"][0]["reason"] == "Local" {
            assert_eq!(object["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "onstart");
            break;
        }
    }
    // The group with which all this is said stays here.
    let mut taken = wardle.service();
    taken["metadata"]["name"] = json!("v1.apiregistration.k8s.io");
    taken["spec"]["group"] = json!("apiregistration.k8s.io");
    taken["spec"]["version"] = json!("v1");
    world.ask(&format!("POST {SERVICES}"), taken).await.expect(201);
    super::custom::establish(&world, super::custom::crontabs()).await;
    let path = format!("{SERVICES}?watch=1&fieldSelector=metadata.name%3Dv1.stable.example.com");
    let mut events = world.watch(&path).await;
    assert_eq!(events.next().await.unwrap()["type"], "ADDED");
    let definition = format!("{}/crontabs.stable.example.com", super::custom::DEFINITIONS);
    world.ask(&format!("DELETE {definition}"), Value::Null).await.expect(200);
    while events.next().await.unwrap()["type"] != "DELETED" {}
    let map = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let data = world.ask(&format!("GET {map}"), Value::Null).await.expect(200)["data"].take();
    assert_eq!(data["requestheader-allowed-names"], "[\"front-proxy-client\"]");
    assert!(data["requestheader-client-ca-file"].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
    assert_eq!(data["client-ca-file"], "clients");
    world.ask(&format!("DELETE {map}"), Value::Null).await.expect(200);
    while world.ask(&format!("GET {map}"), Value::Null).await.code != 200 {
        tokio::task::yield_now().await;
    }
    // The keeper has looked at all of them since.
    world.ask(&format!("DELETE {SERVICES}/v1.apiregistration.k8s.io"), Value::Null).await.expect(200);
    let headers = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = world.send(admin(), &format!("GET {SERVICES}/v1.apps"), &headers, "").await.expect(200);
    assert_eq!(table["rows"][0]["cells"].as_array().unwrap()[..3], [json!("v1.apps"), json!("Local"), json!("True")]);
    wardle.tasks.shutdown().await;
}
