//! Tokens of service accounts: asked for, shown, checked, ended.

use api::user::UserInfo;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Request;
use http_body_util::{BodyExt, Full};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde_json::{Value, json};

use super::world::{World, admin, node, sample};

const OWN: &str = "https://kubernetes.default.svc.cluster.local";
const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const PODS: &str = "/api/v1/namespaces/default/pods";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

impl World {
    async fn token(&self, spec: Value) -> Value {
        self.ask(&format!("POST {ACCOUNTS}/default/token"), json!({ "spec": spec })).await.expect(201)
    }

    /// Who the server thinks that the bearer of a token is; none if it refuses him.
    async fn bearer(&self, token: &str) -> Option<Value> {
        let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        let request = Request::post(path).header("authorization", format!("Bearer {token}"));
        let request = request.body(Full::new("{}".into())).unwrap();
        let response = std::sync::Arc::clone(&self.server).authenticated(None, request).await;
        let code = response.status().as_u16();
        let body: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
        assert!(matches!(code, 201 | 401), "{body}");
        (code == 201).then(|| body["status"]["userInfo"].clone())
    }

    async fn review(&self, spec: Value) -> Value {
        self.ask(&format!("POST {REVIEWS}"), json!({ "spec": spec })).await.expect(201)["status"].clone()
    }

    /// A pod bound to a node.
    async fn bound_pod(&self, name: &str, on: &str) -> Value {
        let mut pod = sample("Pod", name);
        let sources = json!([{ "serviceAccountToken": { "path": "token" } }]);
        pod["spec"]["volumes"] = json!([{ "name": "own", "projected": { "sources": sources } }]);
        self.ask(&format!("POST {PODS}"), pod).await.expect(201);
        let target = json!({ "target": { "name": on } });
        self.ask(&format!("POST {PODS}/{name}/binding"), target).await.expect(201);
        self.ask(&format!("GET {PODS}/{name}"), Value::Null).await.expect(200)
    }
}

fn text(answer: &Value) -> &str {
    answer["status"]["token"].as_str().unwrap()
}

/// What a token says, unchecked.
fn claims(token: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

fn reference(kind: &str, object: &Value) -> Value {
    let metadata = &object["metadata"];
    json!({ "apiVersion": "v1", "kind": kind, "name": metadata["name"], "uid": metadata["uid"] })
}

#[tokio::test(start_paused = true)]
async fn a_token_says_who_its_bearer_is() {
    let world = World::new().await;
    let answer = world.token(json!({})).await;
    assert_eq!((&answer["kind"], &answer["metadata"]["name"]), (&json!("TokenRequest"), &json!("default")));
    assert_eq!(answer["spec"], json!({ "audiences": [OWN], "expirationSeconds": 3600}));
    assert_eq!(answer["status"]["expirationTimestamp"], "2026-01-02T04:04:05Z");
    let account = world.ask(&format!("GET {ACCOUNTS}/default"), Value::Null).await.expect(200);
    let uid = account["metadata"]["uid"].clone();
    let said = claims(text(&answer));
    let expected = json!({
        "aud": [OWN], "exp": 1_767_326_645, "iat": 1_767_323_045, "iss": OWN, "jti": said["jti"],
        "kubernetes.io": { "namespace": "default", "serviceaccount": { "name": "default", "uid": uid } },
        "nbf": 1_767_323_045, "sub": "system:serviceaccount:default:default",
    });
    assert_eq!(said, expected);
    let user = world.bearer(text(&answer)).await.unwrap();
    assert_eq!((&user["username"], &user["uid"]), (&json!("system:serviceaccount:default:default"), &uid));
    let groups = ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"];
    assert_eq!(user["groups"], json!(groups));
    let id = format!("JTI={}", said["jti"].as_str().unwrap());
    assert_eq!(user["extra"], json!({ "authentication.kubernetes.io/credential-id": [id] }));
    let other = world.token(json!({})).await;
    assert_ne!(claims(text(&other))["jti"], said["jti"]);
}

#[tokio::test(start_paused = true)]
async fn requests_for_tokens_are_checked() {
    let world = World::new().await;
    let path = format!("POST {ACCOUNTS}/default/token");
    let ask = async |body: Value| world.ask(&path, body).await;
    let short = ask(json!({ "spec": { "expirationSeconds": 60 } })).await.expect(422);
    assert!(short["message"].as_str().unwrap().contains("may not specify a duration less than 10 minutes"));
    let long = ask(json!({ "spec": { "expirationSeconds": 1_i64 << 31 } })).await;
    assert!(long.headers["warning"].to_str().unwrap().contains("shortened to 31536000 seconds"));
    assert_eq!(long.expect(201)["spec"]["expirationSeconds"], 31_536_000);
    ask(json!({ "metadata": { "name": "other" } })).await.expect(400);
    world.ask(&format!("POST {ACCOUNTS}/nobody/token"), json!({})).await.expect(404);
    world.ask(&format!("GET {ACCOUNTS}/default/token"), Value::Null).await.expect(405);
    let bind = async |reference: Value| ask(json!({ "spec": { "boundObjectRef": reference } })).await;
    bind(json!({ "apiVersion": "v1", "kind": "Pod", "name": "absent" })).await.expect(404);
    let map = bind(json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": "x" })).await.expect(400);
    assert_eq!(map["message"], "cannot bind token to object of type /v1, Kind=ConfigMap");
    world.ask(&format!("POST {ACCOUNTS}"), sample("", "robot")).await.expect(201);
    let pod = world.bound_pod("web", "n1").await;
    let stale = json!({ "apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "another" });
    assert!(bind(stale).await.expect(409)["message"].as_str().unwrap().contains("does not match the UID in record"));
    let body = json!({ "spec": { "boundObjectRef": reference("Pod", &pod) } });
    let wrong = world.ask(&format!("POST {ACCOUNTS}/robot/token"), body).await.expect(400);
    let text = "cannot bind token for serviceaccount \"robot\" to pod running with serviceaccount \"default\"";
    assert_eq!(wrong["message"], text);
}

#[tokio::test(start_paused = true)]
async fn a_token_ends_with_its_time() {
    let world = World::new().await;
    let answer = world.token(json!({ "expirationSeconds": 600 })).await;
    tokio::time::advance(std::time::Duration::from_secs(600 + 60)).await;
    assert!(world.bearer(text(&answer)).await.is_some(), "clocks may differ by a minute");
    tokio::time::advance(std::time::Duration::from_secs(1)).await;
    assert!(world.bearer(text(&answer)).await.is_none());
    let status = world.review(json!({ "token": text(&answer) })).await;
    assert_eq!(status["error"], "[invalid bearer token, service account token has expired]");
}

#[tokio::test(start_paused = true)]
async fn a_token_ends_with_what_it_is_bound_to() {
    let world = World::new().await;
    world.ask("POST /api/v1/nodes", sample("Node", "n1")).await.expect(201);
    let pod = world.bound_pod("web", "n1").await;
    let secret = world.ask("POST /api/v1/namespaces/default/secrets", sample("Secret", "s")).await.expect(201);
    let machine = world.ask("GET /api/v1/nodes/n1", Value::Null).await.expect(200);
    let now = "?gracePeriodSeconds=0";
    let bound = [
        ("Secret", secret, "/api/v1/namespaces/default/secrets/s".to_owned()),
        ("Pod", pod, format!("{PODS}/web{now}")),
        ("Node", machine, "/api/v1/nodes/n1".to_owned()),
    ];
    for (kind, object, path) in bound {
        let answer = world.token(json!({ "boundObjectRef": reference(kind, &object) })).await;
        let user = world.bearer(text(&answer)).await.unwrap();
        if kind == "Pod" {
            let own = "authentication.kubernetes.io/";
            let extra = &user["extra"];
            assert_eq!(extra[format!("{own}pod-name")], json!(["web"]));
            assert_eq!(extra[format!("{own}pod-uid")], json!([object["metadata"]["uid"]]));
            assert_eq!(extra[format!("{own}node-name")], json!(["n1"]));
            assert!(extra[format!("{own}node-uid")][0].is_string());
        }
        world.ask(&format!("DELETE {path}"), Value::Null).await.expect(200);
        assert!(world.bearer(text(&answer)).await.is_none(), "{kind}");
    }
    let plain = world.token(json!({})).await;
    world.ask(&format!("DELETE {ACCOUNTS}/default"), Value::Null).await.expect(200);
    assert!(world.bearer(text(&plain)).await.is_none());
    world.ask(&format!("POST {ACCOUNTS}"), sample("", "default")).await.expect(201);
    assert!(world.bearer(text(&plain)).await.is_none(), "another account of the same name");
}

#[tokio::test(start_paused = true)]
async fn the_usual_token_of_a_pod_lasts_longer_than_it_says() {
    let world = World::new().await;
    let pod = world.bound_pod("web", "n1").await;
    let bound = reference("Pod", &pod);
    let answer = world.token(json!({ "boundObjectRef": bound, "expirationSeconds": 3607 })).await;
    let said = claims(text(&answer));
    assert_eq!(said["kubernetes.io"]["warnafter"], said["iat"].as_i64().unwrap() + 3607);
    assert_eq!(said["exp"], said["iat"].as_i64().unwrap() + 31_536_000);
    assert_eq!(answer["status"]["expirationTimestamp"], "2026-01-02T04:04:12Z");
    for spec in [
        json!({ "expirationSeconds": 3607 }),
        json!({ "boundObjectRef": bound, "expirationSeconds": 3608 }),
        json!({ "boundObjectRef": bound, "expirationSeconds": 3607, "audiences": ["vault"] }),
    ] {
        let said = claims(text(&world.token(spec).await));
        assert!(said["kubernetes.io"]["warnafter"].is_null());
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_for_others_is_reviewed_for_them_and_not_taken_here() {
    let world = World::new().await;
    let answer = world.token(json!({ "audiences": ["vault", "other"] })).await;
    assert!(world.bearer(text(&answer)).await.is_none());
    let status = world.review(json!({ "token": text(&answer) })).await;
    assert!(status["error"].as_str().unwrap().contains("token audiences [\"vault\", \"other\"] is invalid"));
    assert!(status["authenticated"].is_null());
    let status = world.review(json!({ "token": text(&answer), "audiences": ["x", "vault"] })).await;
    assert_eq!((&status["authenticated"], &status["audiences"]), (&json!(true), &json!(["vault"])));
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:default");
    let status = world.review(json!({ "token": "sesame" })).await;
    assert_eq!((&status["user"]["username"], &status["audiences"]), (&json!("jane"), &json!([OWN])));
    let status = world.review(json!({ "token": "sesame", "audiences": ["vault"] })).await;
    assert!(status["authenticated"].is_null());
}

#[tokio::test(start_paused = true)]
async fn a_node_gets_tokens_of_its_own_pods_only() {
    let world = World::new().await;
    let (own, other) = (world.bound_pod("own", "n1").await, world.bound_pod("other", "n2").await);
    let path = format!("POST {ACCOUNTS}/default/token");
    let ask =
        async |user: UserInfo, spec: Value| world.send(user, &path, &[], &json!({ "spec": spec }).to_string()).await;
    let made = ask(node("n1"), json!({ "boundObjectRef": reference("Pod", &own) })).await.expect(201);
    assert_eq!(claims(text(&made))["kubernetes.io"]["pod"]["name"], "own");
    let refused = [
        (json!({}), "not bound to a pod"),
        (json!({ "boundObjectRef": { "apiVersion": "v1", "kind": "Pod", "name": "own" } }), "without a uid"),
        (json!({ "boundObjectRef": reference("Pod", &other) }), "scheduled on a different node"),
        (json!({ "boundObjectRef": reference("Pod", &own), "audiences": ["vault"] }), "not found in pod spec volume"),
    ];
    for (spec, words) in refused {
        let answer = ask(node("n1"), spec).await.expect(403);
        assert!(answer["message"].as_str().unwrap().contains(words), "{answer}");
    }
    // A node none of whose pods has this account does not get as far as that.
    let answer = ask(node("n3"), json!({})).await.expect(403);
    assert!(answer["message"].as_str().unwrap().contains("no relationship found"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn anybody_with_the_published_keys_can_check_a_token() {
    let world = World::new().await;
    let account = UserInfo::authenticated("system:serviceaccount:a:b", &["system:serviceaccounts"]);
    let get = async |user: UserInfo, path: &str| world.send(user, &format!("GET {path}"), &[], "").await;
    let configuration = get(account.clone(), "/.well-known/openid-configuration").await;
    assert_eq!(configuration.headers["cache-control"], "public, max-age=3600");
    let configuration = configuration.expect(200);
    assert_eq!(configuration["issuer"], OWN);
    assert_eq!(configuration["jwks_uri"], "https://192.0.2.1:6443/openid/v1/jwks");
    assert_eq!(configuration["id_token_signing_alg_values_supported"], json!(["ES256"]));
    let keys = get(account, "/openid/v1/jwks").await;
    assert_eq!(keys.headers["content-type"], "application/jwk-set+json");
    get(UserInfo::anonymous(), "/openid/v1/jwks").await.expect(403);
    let key = keys.expect(200)["keys"][0].clone();

    let answer = world.token(json!({})).await;
    let (signed, signature) = text(&answer).rsplit_once('.').unwrap();
    let bytes = |value: &Value| URL_SAFE_NO_PAD.decode(value.as_str().unwrap()).unwrap();
    let point = [vec![4], bytes(&key["x"]), bytes(&key["y"])].concat();
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
    public.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
    let header: Value = serde_json::from_slice(&bytes(&json!(signed.split('.').next().unwrap()))).unwrap();
    assert_eq!(header, json!({ "alg": "ES256", "kid": key["kid"] }));
}

#[tokio::test(start_paused = true)]
async fn wrong_credentials_are_refused_and_none_are_anonymous() {
    let world = World::new().await;
    let code = async |header: Option<&str>| {
        let mut request = Request::get("/api/v1/pods");
        if let Some(header) = header {
            request = request.header("authorization", header);
        }
        let request = request.body(Full::new(bytes::Bytes::new())).unwrap();
        std::sync::Arc::clone(&world.server).authenticated(None, request).await.status().as_u16()
    };
    assert_eq!(code(Some("Bearer sesame")).await, 200);
    assert_eq!(code(Some("bearer sesame")).await, 200);
    assert_eq!(code(None).await, 403);
    for wrong in ["Bearer nope", "Bearer", "Bearer ", "Basic YTpi", "Bearer a.b.c", "Bearer e30.e30.e30"] {
        assert_eq!(code(Some(wrong)).await, 401, "{wrong}");
    }
}

/// The answer to the question who somebody is, asked with these headers.
async fn who(world: &World, peer: &UserInfo, headers: &[(&str, &str)]) -> (u16, Value) {
    let mut request = Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(bytes::Bytes::from("{}"))).unwrap();
    let response = std::sync::Arc::clone(&world.server).authenticated(Some(peer), request).await;
    let code = response.status().as_u16();
    (code, serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_user_acts_as_another_only_as_far_as_he_may() {
    let world = World::new().await;
    let (code, answer) = who(&world, &admin(), &[("Impersonate-User", "jane"), ("Impersonate-Group", "dev")]).await;
    assert_eq!((code, &answer["status"]["userInfo"]["username"]), (201, &json!("jane")));
    assert_eq!(answer["status"]["userInfo"]["groups"], json!(["dev", "system:authenticated"]));

    let rules = json!([
        { "apiGroups": [""], "resources": ["users"], "verbs": ["impersonate"], "resourceNames": ["jane"] },
        { "apiGroups": ["authentication.k8s.io"], "resources": ["userextras/scope"], "verbs": ["impersonate"] },
    ]);
    let root = "POST /apis/rbac.authorization.k8s.io/v1";
    world
        .ask(&format!("{root}/clusterroles"), json!({ "metadata": { "name": "r" }, "rules": rules }))
        .await
        .expect(201);
    let binding = json!({
        "metadata": { "name": "r" }, "subjects": [{ "kind": "User", "name": "joe" }],
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r" },
    });
    world.ask(&format!("{root}/clusterrolebindings"), binding).await.expect(201);
    let joe = UserInfo::authenticated("joe", &[]);
    let (code, answer) = who(&world, &joe, &[("Impersonate-User", "jane"), ("Impersonate-Extra-Scope", "x")]).await;
    assert_eq!((code, &answer["status"]["userInfo"]["extra"]), (201, &json!({ "scope": ["x"] })));
    for (headers, words) in [
        (vec![("Impersonate-User", "admin")], "cannot impersonate resource \"users\""),
        (vec![("Impersonate-User", "jane"), ("Impersonate-Group", "system:masters")], "resource \"groups\""),
        (vec![("Impersonate-User", "jane"), ("Impersonate-Uid", "7")], "resource \"uids\""),
        (vec![("Impersonate-User", "jane"), ("Impersonate-Extra-Other", "x")], "resource \"userextras/other\""),
        (vec![("Impersonate-User", "system:serviceaccount:default:default")], "resource \"serviceaccounts\""),
    ] {
        let (code, answer) = who(&world, &joe, &headers).await;
        assert_eq!(code, 403, "{headers:?}");
        assert!(answer["message"].as_str().unwrap().contains(words), "{answer}");
    }
    assert_eq!(who(&world, &admin(), &[("Impersonate-Group", "dev")]).await.0, 500);
}

#[tokio::test(start_paused = true)]
async fn a_bootstrap_token_is_its_secrets() {
    let world = World::new().await;
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    let secret = json!({
        "metadata": { "name": "bootstrap-token-abcdef" }, "type": "bootstrap.kubernetes.io/token",
        "stringData": {
            "token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
            "auth-extra-groups": "system:bootstrappers:edge",
        },
    });
    assert!(world.bearer("abcdef.0123456789abcdef").await.is_none());
    world.ask(&format!("POST {secrets}"), secret).await.expect(201);
    let user = world.bearer("abcdef.0123456789abcdef").await.unwrap();
    assert_eq!(user["username"], "system:bootstrap:abcdef");
    let groups = ["system:bootstrappers", "system:bootstrappers:edge", "system:authenticated"];
    assert_eq!(user["groups"], json!(groups));
    assert!(world.bearer("abcdef.0123456789abcdee").await.is_none());
    world.ask(&format!("DELETE {secrets}/bootstrap-token-abcdef"), Value::Null).await.expect(200);
    assert!(world.bearer("abcdef.0123456789abcdef").await.is_none());
}
