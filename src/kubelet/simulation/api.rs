//! An API server that keeps objects and nothing else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use client::{Body, BoxError, Transport, TransportError};
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::{Value, json};
use task::SharedClock;
use tokio::sync::watch;

/// Objects by path, and all changes.
pub(crate) struct SimulatedApi {
    state: Mutex<State>,
    revision: watch::Sender<u64>,
    /// How often all watches were broken.
    breaks: watch::Sender<u64>,
    clock: SharedClock,
    own: std::sync::Weak<Self>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    log: Vec<(u64, &'static str, Value, String)>,
    revision: u64,
    /// How many of the next deletions are refused as if they had lost a race.
    lost: u32,
    /// How many of the next requests are refused without a reason.
    refused: u32,
    /// How many tokens have been given.
    tokens: u32,
}

impl SimulatedApi {
    pub(crate) fn new(clock: SharedClock) -> Arc<Self> {
        Arc::new_cyclic(|own| Self {
            state: Mutex::default(),
            revision: watch::channel(0).0,
            breaks: watch::channel(0).0,
            clock,
            own: own.clone(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds the state")
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.state().objects.get(path).cloned()
    }

    /// Objects of a collection; one without a namespace has those of all.
    pub(crate) fn list(&self, collection: &str) -> Vec<Value> {
        self.state()
            .objects
            .iter()
            .filter(|(path, _)| belongs(path, collection))
            .map(|(_, value)| value.clone())
            .collect()
    }

    pub(crate) fn create(&self, collection: &str, mut object: Value) -> Value {
        let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
        object["metadata"]["uid"] = json!(format!("uid-{name}-{}", self.state().revision));
        object["metadata"]["creationTimestamp"] = json!(self.clock.now().to_string());
        self.put(&format!("{collection}/{name}"), "ADDED", object)
    }

    /// Changes an object by a strategic merge patch.
    pub(crate) fn patch_strategically(&self, path: &str, patch: &[u8]) -> Option<Value> {
        let before = self.get(path)?;
        let kind = if path.contains("/pods/") { "Pod" } else { "Node" };
        let ty = api::schema::lookup("", "v1", kind);
        let after = api::patch::apply(api::patch::PatchType::Strategic, ty, &before, patch).expect("a good patch");
        Some(if after == before { before } else { self.put(path, "MODIFIED", after) })
    }

    /// Changes an object by an RFC 7396 patch.
    pub(crate) fn patch(&self, path: &str, patch: &Value) -> Option<Value> {
        let mut object = self.get(path)?;
        let before = object.clone();
        merge(&mut object, patch);
        if object == before {
            return Some(object);
        }
        Some(self.put(path, "MODIFIED", object))
    }

    /// Removes an object, or marks a pod for deletion.
    pub(crate) fn delete(&self, path: &str, grace: Option<i64>) -> Option<Value> {
        let object = self.get(path)?;
        if let Some(grace) = grace.filter(|grace| *grace > 0 && path.contains("/pods/")) {
            let at = self.clock.now() + Duration::from_secs(u64::try_from(grace).unwrap_or(0));
            let mark = json!({"deletionTimestamp": at.to_string(), "deletionGracePeriodSeconds": grace});
            return self.patch(path, &json!({ "metadata": mark }));
        }
        let removed = self.put(path, "DELETED", object);
        self.state().objects.remove(path);
        Some(removed)
    }

    /// Refuses the next deletions with a conflict, whatever their preconditions.
    pub(crate) fn lose_deletions(&self, count: u32) {
        self.state().lost = count;
    }

    /// Ends all watches, as a server that goes away does.
    pub(crate) fn break_watches(&self) {
        self.breaks.send_modify(|breaks| *breaks += 1);
    }

    /// Answers the next requests that it does not owe an object with an error of its own.
    pub(crate) fn refuse(&self, count: u32) {
        self.state().refused = count;
    }

    /// Whether this request is refused.
    fn refuses(&self) -> bool {
        let mut state = self.state();
        let refused = state.refused > 0;
        state.refused = state.refused.saturating_sub(1);
        refused
    }

    fn put(&self, path: &str, kind: &'static str, mut object: Value) -> Value {
        let revision = {
            let mut state = self.state();
            state.revision += 1;
            let revision = state.revision;
            object["metadata"]["resourceVersion"] = json!(revision.to_string());
            state.objects.insert(path.to_owned(), object.clone());
            state.log.push((revision, kind, object.clone(), path.to_owned()));
            revision
        };
        self.revision.send_replace(revision);
        object
    }

    fn answer(self: &Arc<Self>, request: &Request<Bytes>) -> (u16, Value) {
        let path = request.uri().path();
        let body: Value = serde_json::from_slice(request.body()).unwrap_or(Value::Null);
        let object_path = path.trim_end_matches("/status");
        if self.refuses() {
            return (500, json!({"kind": "Status", "reason": "InternalError", "code": 500}));
        }
        let precondition = body["metadata"]["uid"].as_str().or(body["preconditions"]["uid"].as_str());
        if let (Some(uid), Some(object)) = (precondition, self.get(object_path))
            && object["metadata"]["uid"] != uid
        {
            return (409, json!({"kind": "Status", "reason": "Conflict", "code": 409}));
        }
        if request.method() == Method::DELETE && self.state().lost > 0 {
            self.state().lost -= 1;
            return (409, json!({"kind": "Status", "reason": "Conflict", "code": 409}));
        }
        let found = match *request.method() {
            Method::GET if self.get(path).is_some() => self.get(path),
            Method::GET
                if path.ends_with('s')
                    && !path.contains("/nodes/")
                    && !path.contains("/pods/")
                    && !path.contains("/leases/")
                    && !path.contains("maps/")
                    && !path.contains("secrets/")
                    && !path.contains("claims/")
                    && !path.contains("volumes/") =>
            {
                let revision = self.state().revision.to_string();
                Some(json!({"metadata": {"resourceVersion": revision}, "items": self.list(path)}))
            }
            Method::POST if path.ends_with("/token") => {
                let mut state = self.state();
                state.tokens += 1;
                let token = format!("token-{}", state.tokens);
                Some(json!({"spec": body["spec"], "status": {"token": token}}))
            }
            Method::POST => {
                let name = body["metadata"]["name"].as_str().unwrap_or_default();
                if self.get(&format!("{path}/{name}")).is_some() {
                    return (409, json!({"kind": "Status", "reason": "AlreadyExists", "code": 409}));
                }
                Some(self.create(path, body))
            }
            Method::PATCH
                if request
                    .headers()
                    .get("content-type")
                    .is_some_and(|kind| kind.as_bytes().starts_with(b"application/strategic")) =>
            {
                self.patch_strategically(object_path, request.body())
            }
            Method::PATCH => self.patch(object_path, &body),
            Method::DELETE => self.delete(path, body["gracePeriodSeconds"].as_i64()),
            _ => None,
        };
        found.map_or((404, json!({"kind": "Status", "reason": "NotFound", "code": 404})), |value| (200, value))
    }

    fn watch(self: &Arc<Self>, collection: String, after: u64) -> Body {
        let signals = (self.revision.subscribe(), self.breaks.subscribe());
        let state = (Arc::clone(self), signals, after, collection);
        let frames =
            futures_util::stream::unfold(state, |(api, (mut revision, mut breaks), after, collection)| async move {
                loop {
                    let next = {
                        let state = api.state();
                        let found = state.log.iter().find(|(at, _, _, path)| *at > after && belongs(path, &collection));
                        found.map(|(at, kind, object, _)| (*at, json!({"type": kind, "object": object})))
                    };
                    if let Some((at, frame)) = next {
                        let bytes = Bytes::from(format!("{frame}\n"));
                        return Some((
                            Ok::<_, BoxError>(Frame::data(bytes)),
                            (api, (revision, breaks), at, collection),
                        ));
                    }
                    tokio::select! {
                        changed = revision.changed() => changed.ok()?,
                        _ = breaks.changed() => return None,
                    }
                }
            });
        BodyExt::boxed(StreamBody::new(Box::pin(SyncStream(Mutex::new(Box::pin(frames))))))
    }
}

type Frames = std::pin::Pin<Box<dyn futures_util::Stream<Item = Result<Frame<Bytes>, BoxError>> + Send>>;

/// A body must be shareable between threads; the lock makes a stream so.
struct SyncStream(Mutex<Frames>);

impl futures_util::Stream for SyncStream {
    type Item = Result<Frame<Bytes>, BoxError>;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.lock().expect("no code panics while it polls").as_mut().poll_next(context)
    }
}

/// Whether an object is in a collection; `/api/v1/pods` has those of all namespaces.
fn belongs(path: &str, collection: &str) -> bool {
    let Some((parent, _)) = path.rsplit_once('/') else { return false };
    let (Some((_, kind)), Some((_, wanted))) = (parent.rsplit_once('/'), collection.rsplit_once('/')) else {
        return false;
    };
    parent == collection || (kind == wanted && !collection.contains("/namespaces/"))
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in fields {
        if value.is_null() {
            target.as_object_mut().expect("made one above").remove(name);
        } else {
            merge(&mut target[name.as_str()], value);
        }
    }
}

#[async_trait]
impl Transport for SimulatedApi {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, TransportError> {
        let api = self.own.upgrade().expect("whoever sends holds it");
        let query = request.uri().query().unwrap_or_default();
        let (code, body) = if query.contains("watch=true") {
            let after = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion="));
            let after = after.and_then(|text| text.parse().ok()).unwrap_or(0);
            (200, api.watch(request.uri().path().to_owned(), after))
        } else {
            let (code, value) = api.answer(&request);
            (code, Full::new(Bytes::from(value.to_string())).map_err(|never| match never {}).boxed())
        };
        let mut response = Response::new(body);
        *response.status_mut() = http::StatusCode::from_u16(code).expect("a valid code");
        Ok(response)
    }
}
