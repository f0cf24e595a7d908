//! Webhooks: a real server behind TLS is asked about writes, refuses some and changes others.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

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
use super::world::{Answer, World, sample};
use crate::fairness::Limits;
use crate::pki::{Pki, Subject};
use crate::{Entropy, tls_config};

pub(super) const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
pub(super) const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// What a server of webhooks answers to the path and the request of a review: its response, or an HTTP status.
pub(super) type Answers = fn(&str, &Value) -> Result<Value, u16>;

/// A server of webhooks on a port of loopback, and what it has been asked.
pub(super) struct Hooks {
    pub(super) port: u16,
    pub(super) authority: String,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
    pub(super) tasks: Tasks,
}

impl Hooks {
    pub(super) async fn start(answers: Answers) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let now = SystemClock.now();
        let pki = Pki::open(directory.path(), now, &Entropy::system()).unwrap();
        let subject = Subject::Server {
            common_name: "hooks".to_owned(),
            names: vec!["hooks.default.svc".to_owned()],
            addresses: vec![Ipv4Addr::LOCALHOST.into()],
        };
        let credential = pki.credential("hooks", &subject, now).unwrap();
        let tls = TlsAcceptor::from(tls_config(pki.certificate(), &credential).unwrap());
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
        let (port, tasks, asked) = (listener.local_addr().unwrap().port(), Tasks::new(), Arc::default());
        let seen: Arc<Mutex<Vec<(String, Value)>>> = Arc::clone(&asked);
        let connections = tasks.clone();
        tasks.spawn("webhooks", async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (tls, seen) = (tls.clone(), Arc::clone(&seen));
                connections.spawn("webhook", async move {
                    // Whoever does not trust the certificate goes away.
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let service = service_fn(move |request| answer(request, answers, Arc::clone(&seen)));
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { port, authority: STANDARD.encode(pki.certificate()), asked, tasks }
    }

    pub(super) fn hook(&self, name: &str, resources: &[&str], change: Value) -> Value {
        let rule = json!({
            "apiGroups": ["*"], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE", "DELETE"], "resources": resources,
        });
        let url = format!("https://127.0.0.1:{}/{name}", self.port);
        let mut hook = json!({
            "name": format!("{name}.example.org"), "rules": [rule], "sideEffects": "None",
            "admissionReviewVersions": ["v1"], "clientConfig": { "url": url, "caBundle": self.authority },
        });
        change.as_object().unwrap().iter().for_each(|(key, value)| hook[key] = value.clone());
        hook
    }

    /// The requests of a path.
    pub(super) fn asked(&self, path: &str) -> Vec<Value> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|(own, _)| own == path).map(|(_, request)| request.clone()).collect()
    }
}

async fn answer(
    request: Request<Incoming>,
    answers: Answers,
    seen: Arc<Mutex<Vec<(String, Value)>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let query = request.uri().query().map(str::to_owned);
    let path = request.uri().path().trim_start_matches('/').to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let review: Value = serde_json::from_slice(&body).unwrap();
    let (kind, version) = (&review["kind"], &review["apiVersion"]);
    let (group, seconds) =
        if kind == "ConversionReview" { ("apiextensions.k8s.io", 30) } else { ("admission.k8s.io", 10) };
    assert_eq!((version, query), (&json!(format!("{group}/v1")), Some(format!("timeout={seconds}s"))));
    let asked = &review["request"];
    seen.lock().unwrap().push((path.clone(), asked.clone()));
    let (code, text) = match answers(&path, asked) {
        Ok(mut response) => {
            if response["uid"].is_null() {
                response["uid"] = asked["uid"].clone();
            }
            let review = json!({ "kind": kind, "apiVersion": version, "response": response });
            (200, review.to_string())
        }
        Err(code) => (code, "no".to_owned()),
    };
    Ok(Response::builder().status(code).body(Full::new(Bytes::from(text))).unwrap())
}

/// Makes the Service `hooks`, at whose port 443 the server answers by a slice that somebody has written; none where this
/// host has no address but those of loopback.
pub(super) async fn serve_behind(world: &World, hooks: &Hooks) -> Option<()> {
    let address = outward()?.to_string();
    let port = json!({ "name": "tls", "port": 443, "targetPort": hooks.port });
    let service = json!({ "metadata": { "name": "hooks" }, "spec": { "ports": [port] } });
    world.ask("POST /api/v1/namespaces/default/services", service).await.expect(201);
    let slice = json!({
        "metadata": { "name": "hooks-1", "labels": { "kubernetes.io/service-name": "hooks" } },
        "addressType": "IPv4", "endpoints": [{ "addresses": [address] }],
        "ports": [{ "name": "tls", "port": hooks.port }],
    });
    world.ask("POST /apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice).await.expect(201);
    Some(())
}

/// As a webhook's `clientConfig` names it.
pub(super) fn by_service(hooks: &Hooks, path: &str) -> Value {
    let service = json!({ "name": "hooks", "namespace": "default", "path": path });
    json!({ "service": service, "caBundle": hooks.authority })
}

#[tokio::test]
async fn webhooks_behind_a_service_are_asked_at_an_address_of_its_slices() {
    let hooks = Hooks::start(|path, _| match path {
        "change" => Ok(patch(json!([{ "op": "add", "path": "/data", "value": { "k": "v" } }]))),
        _ => Ok(json!({ "allowed": false, "status": { "message": "no" } })),
    })
    .await;
    let world = World::limited(Limits::default()).await;
    let change = json!({ "clientConfig": by_service(&hooks, "/change") });
    configure(&world, MUTATING, "m", vec![hooks.hook("change", &["configmaps"], change)]).await;
    let post = format!("POST {MAPS}");
    let told = message(&world.ask(&post, map("a", Value::Null)).await, 500);
    assert!(told.ends_with("Post \"https://hooks.default.svc:443/change?timeout=10s\": service \"hooks\" not found"));
    if serve_behind(&world, &hooks).await.is_none() {
        return;
    }
    let made = world.ask(&post, map("a", Value::Null)).await.expect(201);
    assert_eq!(made["data"], json!({ "k": "v" }));
    let deny = json!({ "clientConfig": by_service(&hooks, "/deny") });
    configure(&world, VALIDATING, "v", vec![hooks.hook("deny", &["configmaps"], deny)]).await;
    let told = message(&world.ask(&post, map("b", Value::Null)).await, 400);
    assert_eq!(told, "admission webhook \"deny.example.org\" denied the request: no");
    hooks.tasks.shutdown().await;
}

pub(super) async fn configure(world: &World, path: &str, name: &str, hooks: Vec<Value>) {
    let body = json!({ "metadata": { "name": name }, "webhooks": hooks });
    let made = world.ask(&format!("POST {path}"), body).await;
    assert!(!made.headers.contains_key("warning"), "{:?}", made.headers);
    made.expect(201);
}

pub(super) fn message(answer: &Answer, code: u16) -> String {
    assert_eq!(answer.code, code, "{}", answer.text);
    answer.json()["message"].as_str().unwrap().to_owned()
}

fn map(name: &str, data: Value) -> Value {
    json!({ "metadata": { "name": name }, "data": data })
}

pub(super) fn patch(operations: Value) -> Value {
    json!({ "allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(operations.to_string()) })
}

#[tokio::test]
async fn a_validating_webhook_refuses_writes_in_its_own_words() {
    let hooks = Hooks::start(|_, request| {
        let object = if request["object"].is_null() { &request["oldObject"] } else { &request["object"] };
        Ok(match object["data"]["say"].as_str() {
            Some("plain") => json!({ "allowed": false }),
            Some("why") => {
                json!({ "allowed": false, "status": { "message": "because", "code": 409, "reason": "Conflict" } })
            }
            Some("reason") => json!({ "allowed": false, "status": { "reason": "Because", "code": 200 } }),
            _ => json!({ "allowed": true, "warnings": ["take care"] }),
        })
    })
    .await;
    let world = World::limited(Limits::default()).await;
    configure(&world, VALIDATING, "c", vec![hooks.hook("v", &["configmaps"], json!({}))]).await;
    let post = format!("POST {MAPS}");
    let denied = "admission webhook \"v.example.org\" denied the request";
    let answer = world.ask(&post, map("a", json!({ "say": "plain" }))).await;
    assert_eq!(message(&answer, 400), format!("{denied} without explanation"));
    let answer = world.ask(&post, map("a", json!({ "say": "why" }))).await;
    assert_eq!((message(&answer, 409), &answer.json()["reason"]), (format!("{denied}: because"), &json!("Conflict")));
    let answer = world.ask(&post, map("a", json!({ "say": "reason" }))).await;
    assert_eq!(message(&answer, 400), format!("{denied}: Because"));
    world.ask(&format!("GET {MAPS}/a"), Value::Null).await.expect(404);
    let made = world.ask(&format!("{post}?fieldManager=me"), map("a", json!({ "k": "v" }))).await;
    assert_eq!(made.headers["warning"], "299 - \"take care\"");
    made.expect(201);
    let asked = hooks.asked("v").pop().unwrap();
    assert_eq!(asked["object"]["data"], json!({ "k": "v" }));
    let kind = json!({ "group": "", "version": "v1", "kind": "ConfigMap" });
    assert_eq!((&asked["kind"], &asked["requestKind"]), (&kind, &kind));
    assert_eq!(
        (&asked["operation"], &asked["name"], &asked["namespace"]),
        (&json!("CREATE"), &json!("a"), &json!("default"))
    );
    assert_eq!((&asked["oldObject"], &asked["dryRun"]), (&Value::Null, &json!(false)));
    assert_eq!(
        asked["options"],
        json!({ "kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "me" })
    );
    assert_eq!(asked["userInfo"]["username"], "admin");
    let answer = world.patch(&format!("{MAPS}/a"), "merge-patch", json!({ "data": { "say": "plain" } })).await;
    message(&answer, 400);
    let asked = hooks.asked("v").pop().unwrap();
    assert_eq!((&asked["operation"], &asked["oldObject"]["data"]), (&json!("UPDATE"), &json!({ "k": "v" })));
    world.ask(&format!("DELETE {MAPS}/a"), Value::Null).await.expect(200);
    let asked = hooks.asked("v").pop().unwrap();
    assert_eq!((&asked["operation"], &asked["object"]), (&json!("DELETE"), &Value::Null));
    // Of other kinds, and of what says whom to ask, nobody asks.
    let before = hooks.asked("v").len();
    world.ask("POST /api/v1/namespaces/default/secrets", sample("Secret", "s")).await.expect(201);
    world.ask(&format!("DELETE {VALIDATING}/c"), Value::Null).await.expect(200);
    world.ask(&post, map("b", json!({ "say": "plain" }))).await.expect(201);
    assert_eq!(hooks.asked("v").len(), before);
    hooks.tasks.shutdown().await;
}

#[tokio::test]
async fn mutating_webhooks_change_objects_in_turn_and_again_if_they_want() {
    let hooks = Hooks::start(|path, request| {
        let annotations = &request["object"]["metadata"]["annotations"];
        Ok(match path {
            // Says how much was there when it was asked.
            "first" => {
                let seen = annotations.as_object().map_or(0, serde_json::Map::len);
                patch(json!([{ "op": "add", "path": "/metadata/annotations/first", "value": seen.to_string() }]))
            }
            "second" => patch(json!([
                { "op": "add", "path": "/metadata/annotations/second", "value": "x" },
                { "op": "replace", "path": "/metadata/namespace", "value": "kube-system" },
                { "op": "add", "path": "/spec/containers/-", "value": { "name": "side", "image": "side:1" } },
            ])),
            _ => json!({ "allowed": true }),
        })
    })
    .await;
    let world = World::limited(Limits::default()).await;
    let limit = json!({ "type": "Container", "default": { "memory": "1Gi" } });
    let range = json!({ "metadata": { "name": "l" }, "spec": { "limits": [limit] } });
    world.ask("POST /api/v1/namespaces/default/limitranges", range).await.expect(201);
    let created =
        json!([{ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"] }]);
    let again = json!({ "reinvocationPolicy": "IfNeeded", "rules": created });
    let own = [hooks.hook("first", &["pods"], again), hooks.hook("second", &["pods"], json!({ "rules": created }))];
    configure(&world, MUTATING, "a", own.to_vec()).await;
    configure(&world, VALIDATING, "v", vec![hooks.hook("last", &["pods"], json!({}))]).await;
    let mut pod = sample("Pod", "p");
    pod["metadata"]["annotations"] = json!({ "own": "x" });
    let made = world.ask("POST /api/v1/namespaces/default/pods", pod).await.expect(201);
    let annotations = &made["metadata"]["annotations"];
    assert_eq!((&annotations["second"], &made["metadata"]["namespace"]), (&json!("x"), &json!("default")));
    assert_eq!(hooks.asked("first").len(), 2, "something changed after it was asked");
    assert_ne!(annotations["first"], "1");
    assert_eq!(hooks.asked("second").len(), 1);
    let side = &made["spec"]["containers"][1];
    assert_eq!((&side["name"], &side["resources"]["limits"]["memory"]), (&json!("side"), &json!("1Gi")));
    assert_eq!(side["terminationMessagePath"], "/dev/termination-log", "defaults come after changes too");
    assert_eq!(side["volumeMounts"].as_array().unwrap().len(), 1, "it has the account's token like all others");
    let seen = hooks.asked("last").pop().unwrap()["object"].clone();
    assert_eq!(seen["spec"]["containers"][1]["name"], "side");
    hooks.tasks.shutdown().await;
}

#[tokio::test]
async fn failures_refuse_or_are_ignored_as_the_webhook_says() {
    let hooks = Hooks::start(|path, _| match path {
        "broken" => Err(500),
        "absent" => Err(404),
        "typeless" => Ok(json!({ "allowed": true, "patch": "W10=" })),
        _ => Ok(json!({ "allowed": true })),
    })
    .await;
    let world = World::limited(Limits::default()).await;
    let url = |path: &str| format!("https://127.0.0.1:{}/{path}", hooks.port);
    let service = json!({ "clientConfig": { "service": { "name": "none", "namespace": "default" }, "caBundle": hooks.authority } });
    let strange = json!({ "clientConfig": { "url": url("untrusted") } });
    let cases = [
        (
            MUTATING,
            "broken",
            json!({}),
            "failed to call webhook: an error on the server (\"no\") has prevented the request from succeeding",
        ),
        (MUTATING, "absent", json!({}), "failed to call webhook: the server could not find the requested resource"),
        (
            MUTATING,
            "typeless",
            json!({}),
            "received invalid webhook response: webhook returned response.patch but not response.patchType",
        ),
        (
            VALIDATING,
            "typeless",
            json!({}),
            "received invalid webhook response: validating webhook may not return response.patch",
        ),
        (
            VALIDATING,
            "missing",
            service,
            "failed to call webhook: Post \"https://none.default.svc:443/?timeout=10s\": service \"none\" not found",
        ),
        (
            VALIDATING,
            "untrusted",
            strange,
            &format!(
                "failed to call webhook: Post \"{}?timeout=10s\": tls: failed to verify certificate: x509: \
            certificate signed by unknown authority",
                url("untrusted")
            ),
        ),
    ];
    for (path, name, change, expected) in cases {
        configure(&world, path, "c", vec![hooks.hook(name, &["configmaps"], change.clone())]).await;
        let told = message(&world.ask(&format!("POST {MAPS}"), map("m", json!({}))).await, 500);
        assert_eq!(told, format!("Internal error occurred: failed calling webhook \"{name}.example.org\": {expected}"));
        world.ask(&format!("DELETE {path}/c"), Value::Null).await.expect(200);
        let mut ignored = hooks.hook(name, &["configmaps"], change);
        ignored["failurePolicy"] = json!("Ignore");
        configure(&world, path, "c", vec![ignored]).await;
        world.ask(&format!("POST {MAPS}?dryRun=All"), map("m", json!({}))).await.expect(201);
        world.ask(&format!("DELETE {path}/c"), Value::Null).await.expect(200);
    }
    hooks.tasks.shutdown().await;
}

#[tokio::test]
async fn an_answer_to_another_question_or_to_none_is_refused() {
    let hooks = Hooks::start(|path, _| match path {
        "stranger" => Ok(json!({ "allowed": true, "uid": "x" })),
        _ => Ok(patch(json!([{ "op": "remove", "path": "/data/none" }]))),
    })
    .await;
    let world = World::limited(Limits::default()).await;
    configure(&world, VALIDATING, "c", vec![hooks.hook("stranger", &["configmaps"], json!({}))]).await;
    let told = message(&world.ask(&format!("POST {MAPS}"), map("m", json!({}))).await, 500);
    assert!(told.contains("received invalid webhook response: expected response.uid="), "{told}");
    world.ask(&format!("DELETE {VALIDATING}/c"), Value::Null).await.expect(200);
    configure(
        &world,
        MUTATING,
        "c",
        vec![hooks.hook("nonsense", &["configmaps"], json!({ "failurePolicy": "Ignore" }))],
    )
    .await;
    message(&world.ask(&format!("POST {MAPS}"), map("m", json!({}))).await, 500);
    hooks.tasks.shutdown().await;
}

#[tokio::test]
async fn conditions_selectors_and_dry_runs_say_whether_a_webhook_is_asked() {
    let hooks = Hooks::start(|_, _| Ok(json!({ "allowed": false }))).await;
    let world = World::limited(Limits::default()).await;
    let about = |change: Value| hooks.hook("v", &["configmaps"], change);
    let condition = |expression: &str| json!({ "matchConditions": [{ "name": "c", "expression": expression }] });
    let selects = |field: &str| json!({ (field): { "matchLabels": { "none": "such" } } });
    let own = json!({ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": "default" } } });
    let cases = [
        (about(json!({})), Some("denied the request")),
        (about(own), Some("denied the request")),
        (about(selects("namespaceSelector")), None),
        (about(selects("objectSelector")), None),
        (about(json!({ "rules": [] })), None),
        (about(condition("object.metadata.name == 'm'")), Some("denied the request")),
        (about(condition("request.userInfo.username != 'admin'")), None),
        (about(condition("object.data.none == 'x'")), Some("resulted in error")),
        (about(condition("authorizer.requestResource.check('get').allowed()")), Some("denied the request")),
        (about(condition("!authorizer.requestResource.check('get').allowed()")), None),
        (about(json!({ "sideEffects": "NoneOnDryRun" })), Some("denied the request")),
    ];
    for (hook, expected) in cases {
        configure(&world, VALIDATING, "c", vec![hook.clone()]).await;
        let answer = world.ask(&format!("POST {MAPS}?dryRun=All"), map("m", json!({}))).await;
        match expected {
            Some(text) => assert!(answer.code >= 400 && answer.text.contains(text), "{hook}: {}", answer.text),
            None => drop(answer.expect(201)),
        }
        world.ask(&format!("DELETE {VALIDATING}/c"), Value::Null).await.expect(200);
    }
    // Conditions know less than policies.
    let body = json!({ "metadata": { "name": "c" }, "webhooks": [about(condition("params.x"))] });
    let told = message(&world.ask(&format!("POST {VALIDATING}"), body).await, 422);
    assert!(told.contains("compilation failed"), "{told}");
    hooks.tasks.shutdown().await;
}

#[tokio::test]
async fn a_service_is_asked_about_with_its_address_while_nothing_is_held() {
    let hooks = Hooks::start(|_, _| Ok(json!({ "allowed": true }))).await;
    let world = World::limited(Limits::default()).await;
    configure(&world, VALIDATING, "c", vec![hooks.hook("v", &["services"], json!({}))]).await;
    let made = world.ask("POST /api/v1/namespaces/default/services", sample("Service", "s")).await.expect(201);
    let asked = hooks.asked("v").pop().unwrap();
    assert!(made["spec"]["clusterIP"].is_string());
    assert_eq!(asked["object"]["spec"]["clusterIP"], made["spec"]["clusterIP"]);
    hooks.tasks.shutdown().await;
}

#[tokio::test]
async fn versions_of_a_kind_are_told_in_the_one_that_a_rule_names() {
    let hooks = Hooks::start(|_, _| {
        Ok(patch(json!([{ "op": "add", "path": "/spec/targetCPUUtilizationPercentage", "value": 7 }])))
    })
    .await;
    let world = World::limited(Limits::default()).await;
    let rule = json!({
        "apiGroups": ["autoscaling"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["horizontalpodautoscalers"],
    });
    configure(&world, MUTATING, "c", vec![hooks.hook("v", &[], json!({ "rules": [rule] }))]).await;
    let path = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    let made = world.ask(&format!("POST {path}"), sample("HorizontalPodAutoscaler", "h")).await.expect(201);
    let asked = hooks.asked("v").pop().unwrap();
    assert_eq!((&asked["kind"]["version"], &asked["requestKind"]["version"]), (&json!("v1"), &json!("v2")));
    assert_eq!(asked["object"]["apiVersion"], "autoscaling/v1");
    assert_eq!(made["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 7);
    world.ask(&format!("DELETE {MUTATING}/c"), Value::Null).await.expect(200);
    configure(&world, MUTATING, "c", vec![hooks.hook("v", &[], json!({ "rules": [rule], "matchPolicy": "Exact" }))])
        .await;
    let before = hooks.asked("v").len();
    world.ask(&format!("POST {path}"), sample("HorizontalPodAutoscaler", "i")).await.expect(201);
    assert_eq!(hooks.asked("v").len(), before);
    hooks.tasks.shutdown().await;
}

#[tokio::test]
async fn connections_to_pods_and_services_are_asked_about_before_they_are_made() {
    let hooks =
        Hooks::start(|_, _| Ok(json!({ "allowed": false, "status": { "message": "not here", "code": 403 } }))).await;
    let world = World::limited(Limits::default()).await;
    world.ask("POST /api/v1/namespaces/default/pods", sample("Pod", "p")).await.expect(201);
    world.ask("POST /api/v1/namespaces/default/services", sample("Service", "s")).await.expect(201);
    let resources = ["pods/exec", "pods/attach", "pods/portforward", "pods/proxy", "services/proxy"];
    let rule = json!({ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CONNECT"], "resources": resources });
    configure(&world, VALIDATING, "c", vec![hooks.hook("v", &[], json!({ "rules": [rule] }))]).await;
    let cases = [
        ("POST", "pods/p/exec?command=a&command=b&stdout=true&container=c", "PodExecOptions"),
        ("GET", "pods/p/attach?stdin=true", "PodAttachOptions"),
        ("POST", "pods/p/portforward?ports=80", "PodPortForwardOptions"),
        ("GET", "pods/p/proxy/x", "PodProxyOptions"),
        ("DELETE", "services/s/proxy/x", "ServiceProxyOptions"),
    ];
    for (method, path, kind) in cases {
        let told = message(&world.ask(&format!("{method} /api/v1/namespaces/default/{path}"), Value::Null).await, 403);
        assert_eq!(told, "admission webhook \"v.example.org\" denied the request: not here", "{path}");
        let asked = hooks.asked("v").pop().unwrap();
        let mut parts = path.split(['/', '?']);
        let (resource, name, below) = (parts.next(), parts.next(), parts.next());
        assert_eq!((asked["operation"].as_str(), asked["resource"]["resource"].as_str()), (Some("CONNECT"), resource));
        assert_eq!((asked["subResource"].as_str(), asked["name"].as_str()), (below, name));
        assert_eq!((asked["kind"]["kind"].as_str(), asked["object"]["kind"].as_str()), (Some(kind), Some(kind)));
        assert_eq!((&asked["namespace"], &asked["oldObject"]), (&json!("default"), &Value::Null));
    }
    let exec = hooks.asked("v").swap_remove(0)["object"].clone();
    assert_eq!(
        (&exec["command"], &exec["container"], &exec["stdout"]),
        (&json!(["a", "b"]), &json!("c"), &json!(true))
    );
    hooks.tasks.shutdown().await;
}

#[tokio::test]
async fn subresources_are_asked_about_by_rules_that_name_them_and_by_no_others() {
    let hooks = Hooks::start(|_, _| Ok(json!({ "allowed": true }))).await;
    let world = World::limited(Limits::default()).await;
    world.ask("POST /api/v1/namespaces/default/pods", sample("Pod", "p")).await.expect(201);
    world.ask("POST /apis/apps/v1/namespaces/default/deployments", sample("Deployment", "d")).await.expect(201);
    let of = |name: &str, resources: &[&str]| hooks.hook(name, resources, json!({}));
    let own = vec![of("whole", &["pods", "deployments"]), of("status", &["*/status"]), of("scale", &["deployments/*"])];
    configure(&world, VALIDATING, "c", own).await;
    let status = json!({ "status": { "phase": "Running" } });
    world.patch("/api/v1/namespaces/default/pods/p/status", "merge-patch", status).await.expect(200);
    let scale = json!({ "spec": { "replicas": 3 } });
    world.patch("/apis/apps/v1/namespaces/default/deployments/d/scale", "merge-patch", scale).await.expect(200);
    assert!(hooks.asked("whole").is_empty());
    let asked = hooks.asked("status");
    assert_eq!(
        (asked.len(), &asked[0]["subResource"], &asked[0]["kind"]["kind"]),
        (1, &json!("status"), &json!("Pod"))
    );
    let asked = hooks.asked("scale");
    assert_eq!(
        (asked.len(), &asked[0]["subResource"], &asked[0]["kind"]["kind"]),
        (1, &json!("scale"), &json!("Scale"))
    );
    assert_eq!(
        (&asked[0]["object"]["spec"]["replicas"], &asked[0]["oldObject"]["spec"]["replicas"]),
        (&json!(3), &json!(1))
    );
    hooks.tasks.shutdown().await;
}
