//! The objects that every cluster has: its first namespaces, the system's PriorityClasses, what sorts requests by their
//! priority, the ServiceCIDR of the settings, and the Service `kubernetes` with what stands behind it. Made again whenever
//! one is removed. Roles are looked at when the server starts only.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use api::resources::admission::system_classes;
use api::resources::{self, Resource, flowcontrol};
use api::status::ApiError;
use api::user::{MASTERS, UserInfo};
use bytes::Bytes;
use futures_util::future::try_join_all;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use store::{Change, Key, Watched};
use task::Tasks;

use crate::addresses;
use crate::authz::rbac::bootstrap;
use crate::definitions::keeper;
use crate::object::{self, meta};
use crate::server::{ApiServer, Caller};
use crate::storage;

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
const RETRY: Duration = Duration::from_secs(1);

/// As whom the server itself writes.
pub(crate) fn own_user() -> UserInfo {
    UserInfo::authenticated("system:apiserver", &[MASTERS])
}

/// An object that must be there.
struct Wanted {
    row: &'static Resource,
    object: Value,
    /// What of it must stay as it is here; of the rest only the first state is.
    kept: Kept,
}

/// What must stay of an object that every cluster has.
#[derive(Debug, Clone, Copy)]
enum Kept {
    /// These fields.
    Fields(&'static [&'static str]),
    /// Its conditions, by their types.
    Conditions,
    /// The rules and subjects that it has here, beside what somebody has added.
    Grants,
    /// Its `spec`, unless somebody has said otherwise in an annotation (`strategy.go` of
    /// `pkg/registry/flowcontrol/ensurer`).
    Suggestion,
}

impl Wanted {
    fn new(object: Value, kept: Kept) -> Result<Self, ApiError> {
        let (group, version) = object["apiVersion"].as_str().unwrap_or_default().rsplit_once('/').unwrap_or(("", "v1"));
        let kind = object["kind"].as_str().unwrap_or_default();
        let row = resources::find_kind(group, version, kind);
        let row = row.ok_or_else(|| ApiError::internal(format!("no kind {kind} in {group}/{version}")))?;
        Ok(Self { row, object, kept })
    }

    fn key(&self) -> Key {
        storage::key(self.row, meta(&self.object, "namespace"), meta(&self.object, "name"))
    }

    fn collection(&self) -> String {
        let row = self.row;
        let root = if row.group.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{}", row.api_version()) };
        let namespace = meta(&self.object, "namespace");
        if row.namespaced {
            format!("{root}/namespaces/{namespace}/{}", row.plural)
        } else {
            format!("{root}/{}", row.plural)
        }
    }

    /// The object as it should be instead of how it is; none if it is right.
    fn correction(&self, found: &Value) -> Option<Value> {
        let fields = match self.kept {
            Kept::Fields(fields) => fields,
            Kept::Grants => return bootstrap::completed(found, &self.object),
            Kept::Conditions => return conditions(&self.object, found),
            Kept::Suggestion if is_left_alone(found) => &[],
            Kept::Suggestion => &["spec"],
        };
        let mut right = found.clone();
        fields.iter().for_each(|field| right[*field] = self.object[*field].clone());
        (right != *found).then_some(right)
    }
}

/// A status with the conditions that are wanted, if it lacks some.
fn conditions(wanted: &Value, found: &Value) -> Option<Value> {
    let of = |object: &Value| object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let is_like = |one: &Value, other: &Value| one["type"] == other["type"] && one["status"] == other["status"];
    let (wanted, mut all) = (of(wanted), of(found));
    // One that is to go says why it is still there.
    if object::is_terminating(found) || wanted.iter().all(|own| all.iter().any(|other| is_like(own, other))) {
        return None;
    }
    all.retain(|other| wanted.iter().all(|own| own["type"] != other["type"]));
    all.extend(wanted);
    let mut right = found.clone();
    right["status"] = json!({ "conditions": all });
    Some(right)
}

/// Whether somebody else says how an object is to be; the server's own say in an annotation that it does.
fn is_left_alone(found: &Value) -> bool {
    let metadata = &found["metadata"];
    match metadata["annotations"][flowcontrol::bootstrap::AUTO_UPDATE].as_str() {
        Some("true") => false,
        Some("false") => true,
        _ => metadata["generation"] != 1,
    }
}

impl ApiServer {
    /// Makes the objects that every cluster has, and keeps them there; returns once they exist.
    ///
    /// # Errors
    /// If the store refuses.
    pub async fn start(self: &Arc<Self>, tasks: &Tasks) -> Result<(), ApiError> {
        let wanted = self.wanted()?;
        self.ensure(&wanted).await?;
        let flows = flows()?;
        let roles = bootstrap::objects().into_iter().map(|object| Wanted::new(object, Kept::Grants));
        let roles = roles.collect::<Result<Vec<_>, _>>()?;
        self.ensure_at_once(roles.iter().chain(&flows)).await?;
        let (objects, _) = self.sort_requests().await?;
        self.tell_schemas(&objects).await?;
        self.started.store(true, Ordering::Release);
        let mut prefixes: Vec<String> = wanted.iter().map(|wanted| storage::prefix(wanted.row, "")).collect();
        prefixes.dedup();
        tasks.spawn("custom resource definitions", keeper::keep(Arc::clone(self)));
        tasks.spawn("addresses of Services", addresses::keep(Arc::clone(self)));
        tasks.spawn("use of quotas", Arc::clone(self).count_quotas());
        tasks.spawn("priorities of requests", Arc::clone(self).keep_requests_sorted());
        let (wanted, flows) = (Arc::new(wanted), Arc::new(flows));
        for prefix in prefixes {
            tasks.spawn("system objects", Arc::clone(self).keep(Arc::clone(&wanted), prefix));
        }
        tasks.spawn("system objects", Arc::clone(self).keep(flows, format!("{}/", flowcontrol::GROUP)));
        Ok(())
    }

    /// In the order in which they can be made; those of one kind together.
    fn wanted(&self) -> Result<Vec<Wanted>, ApiError> {
        let namespace = |name: &&str| json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        let firsts = NAMESPACES.iter().map(namespace).chain(system_classes());
        let mut wanted = firsts.map(|object| Wanted::new(object, Kept::Fields(&[]))).collect::<Result<Vec<_>, _>>()?;
        wanted.push(Wanted::new(self.range(), Kept::Conditions)?);
        let at = self.config.advertise;
        wanted.push(Wanted::new(self.service(at), Kept::Fields(&[]))?);
        let ip = at.ip();
        if ip.is_loopback() || ip.is_unspecified() {
            tracing::warn!(address = %ip, "the API has no address that pods can reach: nothing stands behind its Service");
        } else {
            wanted.push(Wanted::new(endpoints(at), Kept::Fields(&["subsets"]))?);
            wanted.push(Wanted::new(slice(at), Kept::Fields(&["endpoints", "ports"]))?);
        }
        Ok(wanted)
    }

    /// The ranges from which Services get addresses (`pkg/controlplane/controller/defaultservicecidr`).
    fn range(&self) -> Value {
        let now = self.config.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
            "metadata": { "name": "kubernetes" },
            "spec": { "cidrs": self.config.services.ranges() },
            "status": { "conditions": [{
                "type": "Ready", "status": "True", "reason": "",
                "lastTransitionTime": now,
                "message": "Kubernetes default Service CIDR is ready",
            }] },
        })
    }

    /// The Service by which pods reach the API.
    fn service(&self, at: SocketAddr) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": "kubernetes", "namespace": "default",
                "labels": { "component": "apiserver", "provider": "kubernetes" },
            },
            "spec": {
                "clusterIP": self.config.services.first().to_string(),
                "ports": [{ "name": "https", "port": 443, "protocol": "TCP", "targetPort": at.port() }],
            },
        })
    }

    async fn ensure(self: &Arc<Self>, wanted: &[Wanted]) -> Result<(), ApiError> {
        for wanted in wanted {
            self.ensure_one(wanted).await?;
        }
        Ok(())
    }

    /// These wait for nothing but each other's write to the disk, so they are made all at once.
    async fn ensure_at_once(self: &Arc<Self>, wanted: impl Iterator<Item = &Wanted>) -> Result<(), ApiError> {
        try_join_all(wanted.map(|wanted| self.ensure_one(wanted))).await.map(drop)
    }

    async fn ensure_one(self: &Arc<Self>, wanted: &Wanted) -> Result<(), ApiError> {
        let found = self.config.store.get(&wanted.key()).await.map_err(storage::failed)?;
        let has_conditions = matches!(wanted.kept, Kept::Conditions);
        let found = match found {
            Some(found) => Some(found),
            None => {
                self.send(Method::POST, &wanted.collection(), &wanted.object).await?;
                // Nobody gives an object a status while making it.
                if !has_conditions {
                    return Ok(());
                }
                self.config.store.get(&wanted.key()).await.map_err(storage::failed)?
            }
        };
        let Some(found) = found else { return Ok(()) };
        match wanted.correction(&object::of_entry(&found)?) {
            None => Ok(()),
            Some(right) => {
                let part = if has_conditions { "/status" } else { "" };
                let path = format!("{}/{}{part}", wanted.collection(), meta(&right, "name"));
                self.send(Method::PUT, &path, &right).await
            }
        }
    }

    /// Writes as any client would; whoever was faster may be right as well.
    pub(crate) async fn send(self: &Arc<Self>, method: Method, path: &str, object: &Value) -> Result<(), ApiError> {
        let text = if object.is_null() { String::new() } else { object.to_string() };
        let body = Full::new(Bytes::from(text));
        let content_type = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, content_type);
        let request = request.header(USER_AGENT, "kube-apiserver").body(body).map_err(ApiError::internal)?;
        let response = self.handle(Caller { user: own_user() }, request).await;
        let code = response.status().as_u16();
        if matches!(code, 200..=202 | 409) {
            return Ok(());
        }
        let body = response.into_body().collect().await.map_err(ApiError::internal)?.to_bytes();
        let status: Value = serde_json::from_slice(&body).unwrap_or_default();
        Err(ApiError::from_value(code, &status))
    }

    async fn keep(self: Arc<Self>, wanted: Arc<Vec<Wanted>>, prefix: String) {
        loop {
            if let Err(error) = self.watch(&wanted, &prefix).await {
                tracing::warn!(%error, prefix, "the system objects could not be checked");
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Repairs after each removal, and each change of what is kept; returns when the watch ends.
    async fn watch(self: &Arc<Self>, wanted: &[Wanted], prefix: &str) -> Result<(), ApiError> {
        let store = &self.config.store;
        let mut watch = store.watch(prefix, store.revision()).await.map_err(storage::failed)?;
        let concerns = |change: &Change| {
            let own = wanted.iter().find(|wanted| wanted.key() == change.key);
            own.is_some_and(|own| change.after.is_none() || !matches!(own.kept, Kept::Fields([])))
        };
        loop {
            self.ensure(wanted).await?;
            loop {
                match watch.next().await {
                    Some(Watched::Changed(change)) if concerns(&change) => break,
                    Some(Watched::Changed(_)) => {}
                    Some(Watched::Overrun) | None => return Ok(()),
                }
            }
        }
    }
}

/// Which requests go first.
fn flows() -> Result<Vec<Wanted>, ApiError> {
    let fixed = [flowcontrol::EXEMPT, flowcontrol::CATCH_ALL];
    let kept = |object: &Value| {
        // Nobody can change the spec of those that must be there.
        if fixed.contains(&meta(object, "name")) { Kept::Fields(&[]) } else { Kept::Suggestion }
    };
    let flows = flowcontrol::bootstrap::objects().into_iter();
    flows
        .map(|object| {
            let kept = kept(&object);
            Wanted::new(object, kept)
        })
        .collect()
}

fn port(at: SocketAddr) -> Value {
    json!([{ "name": "https", "port": at.port(), "protocol": "TCP" }])
}

/// What stands behind the Service, in the old form, which nobody need make slices of.
fn endpoints(at: SocketAddr) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": { "endpointslice.kubernetes.io/skip-mirror": "true" },
        },
        "subsets": [{ "addresses": [{ "ip": at.ip().to_string() }], "ports": port(at) }],
    })
}

/// What stands behind the Service.
fn slice(at: SocketAddr) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes", "namespace": "default", "labels": { "kubernetes.io/service-name": "kubernetes" },
        },
        "addressType": if at.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{ "addresses": [at.ip().to_string()], "conditions": { "ready": true } }],
        "ports": port(at),
    })
}
