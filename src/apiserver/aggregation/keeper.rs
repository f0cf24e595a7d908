//! Keeps APIServices in order: registers the groups of this server, asks the servers of others, and says who answers.
//!
//! There is one task. It looks at everything again after each change of an APIService or a definition, and, as long as
//! there are groups of others, of a slice, and from time to time. Whoever was faster is right: a conflict only means to
//! look again.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use api::resources::apiservice::{self, MANAGED, is_local};
use api::resources::{self, Resource};
use api::status::ApiError;
use futures_util::future::{join_all, try_join_all};
use http::Method;
use serde_json::{Value, json};
use store::{Range, Watch, Watched};

use super::check::{self, Problem};
use super::{FRONT_PROXY, Remote, Remotes};
use crate::object::meta;
use crate::server::ApiServer;
use crate::storage;

/// How long to wait after an error, and when somebody who did not answer is asked again.
const RETRY: Duration = Duration::from_secs(1);
/// When somebody who answered is asked again; upstream's resync.
const AGAIN: Duration = Duration::from_secs(30);
const SLICES: &str = "discovery.k8s.io/endpointslices/";
/// Where other servers read by what they know this one.
const NAMESPACE: &str = "kube-system";
const MAP: &str = "extension-apiserver-authentication";
const PATH: &str = "/apis/apiregistration.k8s.io/v1/apiservices";

/// Keeps APIServices in order for as long as the server runs.
pub(super) async fn keep(server: Arc<ApiServer>) {
    let mut is_first = true;
    loop {
        if let Err(error) = follow(&server, &mut is_first).await {
            tracing::warn!(%error, "APIServices could not be kept in order");
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn row() -> Result<&'static Resource, ApiError> {
    let row = resources::find("apiregistration.k8s.io", "v1", "apiservices");
    row.ok_or_else(|| ApiError::internal("no kind apiservices"))
}

fn maps() -> Result<&'static Resource, ApiError> {
    resources::find("", "v1", "configmaps").ok_or_else(|| ApiError::internal("no kind configmaps"))
}

async fn watch(server: &ApiServer, prefix: &str) -> Result<Box<dyn Watch>, ApiError> {
    let store = &server.config.store;
    store.watch(prefix, store.revision()).await.map_err(storage::failed)
}

async fn follow(server: &Arc<ApiServer>, is_first: &mut bool) -> Result<(), ApiError> {
    let definitions = resources::find("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    let definitions = definitions.map(|row| storage::prefix(row, "")).unwrap_or_default();
    let mut own = watch(server, &storage::prefix(row()?, "")).await?;
    let mut definitions = watch(server, &definitions).await?;
    let mut slices: Option<Box<dyn Watch>> = None;
    let mut map = watch(server, &storage::key(maps()?, NAMESPACE, MAP).0).await?;
    loop {
        publish_identity(server).await?;
        let objects = register(server, *is_first).await?;
        *is_first = false;
        let pause = settle(server, &objects).await?;
        slices = match (pause, slices) {
            (None, _) => None,
            (Some(_), Some(there)) => Some(there),
            (Some(_), None) => Some(watch(server, SLICES).await?),
        };
        let later = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        let slice = async {
            match &mut slices {
                Some(slices) => slices.next().await,
                None => std::future::pending().await,
            }
        };
        let woken = tokio::select! {
            next = own.next() => next,
            next = definitions.next() => next,
            next = map.next() => next,
            next = slice => next,
            () = later => continue,
        };
        if let Some(Watched::Overrun) | None = woken {
            return Ok(());
        }
    }
}

/// Tells other servers by what they know this one (`pkg/controlplane/controller/clusterauthenticationtrust`).
async fn publish_identity(server: &Arc<ApiServer>) -> Result<(), ApiError> {
    let Some(front) = server.aggregation.front.get() else { return Ok(()) };
    let list = |words: &[&str]| json!(words).to_string();
    let data = json!({
        "client-ca-file": front.clients,
        "requestheader-allowed-names": list(&[FRONT_PROXY]),
        "requestheader-client-ca-file": front.authority,
        "requestheader-extra-headers-prefix": list(&["X-Remote-Extra-"]),
        "requestheader-group-headers": list(&["X-Remote-Group"]),
        "requestheader-username-headers": list(&["X-Remote-User"]),
    });
    let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    match server.read(maps()?, NAMESPACE, MAP).await {
        Ok((found, _)) if found["data"] == data => Ok(()),
        Ok(_) => server.send(Method::PATCH, &format!("{path}/{MAP}"), &json!({ "data": data })).await,
        Err(error) if error.code == 404 => {
            let object = json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": { "name": MAP, "namespace": NAMESPACE }, "data": data,
            });
            server.send(Method::POST, &path, &object).await
        }
        Err(error) => Err(error),
    }
}

async fn list(server: &Arc<ApiServer>) -> Result<Vec<Value>, ApiError> {
    let row = row()?;
    let range = Range { prefix: storage::prefix(row, ""), after: None, limit: None, at: None };
    let page = server.config.store.list(range).await.map_err(storage::failed)?;
    server.load_all(row, &page.entries).await
}

/// Makes the APIServices of what is served here; returns all that there are.
async fn register(server: &Arc<ApiServer>, is_first: bool) -> Result<Vec<Value>, ApiError> {
    let found = list(server).await?;
    let snapshot = server.kinds().await?;
    let steps = steps(&found, &wanted(&snapshot.all()), is_first);
    if steps.is_empty() {
        return Ok(found);
    }
    try_join_all(steps.iter().map(|step| step.carry_out(server))).await?;
    list(server).await
}

/// The APIServices of what rows serve.
fn wanted(rows: &[&Resource]) -> BTreeMap<String, Value> {
    let mut wanted = BTreeMap::new();
    for object in rows.iter().filter_map(|row| apiservice::local(row)) {
        wanted.entry(meta(&object, "name").to_owned()).or_insert(object);
    }
    wanted
}

/// What is to be done about one APIService.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    Make(Value),
    Mend(String, Value),
    Remove(String),
}

impl Step {
    async fn carry_out(&self, server: &Arc<ApiServer>) -> Result<(), ApiError> {
        let done = match self {
            Self::Make(object) => server.send(Method::POST, PATH, object).await,
            Self::Mend(name, patch) => server.send(Method::PATCH, &format!("{PATH}/{name}"), patch).await,
            Self::Remove(name) => server.send(Method::DELETE, &format!("{PATH}/{name}"), &Value::Null).await,
        };
        match done {
            Err(error) if error.code == 404 => Ok(()),
            other => other,
        }
    }
}

/// What differs from what is wanted, and is not somebody else's (`autoregister_controller.go`).
fn steps(found: &[Value], wanted: &BTreeMap<String, Value>, is_first: bool) -> Vec<Step> {
    let find = |name: &str| found.iter().find(|object| meta(object, "name") == name);
    let managed = |object: &Value| object["metadata"]["labels"][MANAGED].as_str().unwrap_or_default().to_owned();
    let missing = wanted.iter().filter(|(name, _)| find(name).is_none()).map(|(_, object)| Step::Make(object.clone()));
    let mut steps: Vec<Step> = missing.collect();
    for object in found {
        let name = meta(object, "name");
        match (managed(object).as_str(), wanted.get(name)) {
            ("true", None) => steps.push(Step::Remove(name.to_owned())),
            ("onstart", None) if is_first => steps.push(Step::Remove(name.to_owned())),
            ("true", Some(right)) if object["spec"] != right["spec"] => steps.push(mend(name, right)),
            ("onstart", Some(right)) if is_first && object["spec"] != right["spec"] => steps.push(mend(name, right)),
            _ => {}
        }
    }
    steps
}

fn mend(name: &str, right: &Value) -> Step {
    let mut spec = right["spec"].clone();
    for field in ["service", "caBundle", "insecureSkipTLSVerify"] {
        spec[field] = Value::Null;
    }
    Step::Mend(name.to_owned(), json!({ "spec": spec }))
}

/// Asks all others, says what came of it, and takes them in; how long that is good for, none without others.
async fn settle(server: &Arc<ApiServer>, objects: &[Value]) -> Result<Option<Duration>, ApiError> {
    let before = server.aggregation.remotes();
    let (locals, mut others): (Vec<&Value>, Vec<&Value>) = objects.iter().partition(|object| is_local(object));
    // Nobody else says who serves what: whoever did could not be removed any more.
    others.retain(|object| object["spec"]["group"] != apiservice::GROUP);
    for object in locals {
        let right = apiservice::available(object).is_some_and(|condition| condition["reason"] == "Local");
        if !right {
            write(server, object, &apiservice::local_condition(&now(server).into())).await?;
        }
    }
    let remotes = join_all(others.iter().map(|object| remote_of(server, object, &before))).await;
    // Until they have answered, what was known of them holds: nobody waits for the slowest of all.
    publish(server, remotes.iter().cloned());
    let asked = remotes.into_iter().map(|remote| ask(server, remote));
    let mut pause = None;
    let mut news = Vec::new();
    let mut present = Vec::new();
    for (object, (mut remote, problem)) in others.iter().zip(join_all(asked).await) {
        let soon = if problem.is_some() { RETRY } else { AGAIN };
        pause = Some(pause.map_or(soon, |pause: Duration| pause.min(soon)));
        let condition = condition(object, problem.as_ref(), &now(server));
        remote.is_available = condition["status"] == "True";
        if is_news(apiservice::available(object), &condition) {
            news.push((object, condition));
        }
        present.push(remote);
    }
    // What a condition says holds already when it is read.
    publish(server, present.into_iter());
    for (object, condition) in news {
        if let Err(error) = write(server, object, &condition).await {
            tracing::debug!(%error, name = meta(object, "name"), "a condition of an APIService could not be written");
            pause = Some(RETRY);
        }
    }
    Ok(pause)
}

fn publish(server: &ApiServer, remotes: impl Iterator<Item = Remote>) {
    let remotes = remotes.map(|remote| ((remote.group.clone(), remote.version.clone()), Arc::new(remote)));
    let present = Arc::new(Remotes(remotes.collect()));
    *server.aggregation.present.write().unwrap_or_else(PoisonError::into_inner) = present;
}

/// Whether a condition is to be written. Its message names the endpoint that was asked, which is another one each time.
fn is_news(old: Option<&Value>, new: &Value) -> bool {
    old.is_none_or(|old| ["status", "reason"].iter().any(|field| old[*field] != new[*field]))
}

fn now(server: &ApiServer) -> String {
    server.config.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

async fn remote_of(server: &ApiServer, object: &Value, before: &Remotes) -> Remote {
    let known = before.0.values().find(|remote| remote.name == meta(object, "name"));
    Remote::new(object, known, server.aggregation.front.get()).await
}

async fn ask(server: &Arc<ApiServer>, mut remote: Remote) -> (Remote, Option<Problem>) {
    match check::check(server, &remote).await {
        Ok(resources) => {
            remote.resources = Some(resources);
            remote.schema = check::schema(server, &remote).await;
            (remote, None)
        }
        Err(problem) => (remote, Some(problem)),
    }
}

/// The condition as it is to be; the time is that of the last change of its status.
fn condition(object: &Value, problem: Option<&Problem>, now: &str) -> Value {
    let (status, reason, message) = match problem {
        None => ("True", "Passed", "all checks passed"),
        Some(problem) => (problem.status, problem.reason, problem.message.as_str()),
    };
    let old = apiservice::available(object).filter(|old| old["status"] == status);
    let since = old.map_or_else(|| now.into(), |old| old["lastTransitionTime"].clone());
    json!({
        "type": "Available", "status": status, "reason": reason, "message": message, "lastTransitionTime": since,
    })
}

async fn write(server: &Arc<ApiServer>, object: &Value, condition: &Value) -> Result<(), ApiError> {
    let mut conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    match conditions.iter_mut().find(|one| one["type"] == "Available") {
        Some(own) => *own = condition.clone(),
        None => conditions.push(condition.clone()),
    }
    let name = meta(object, "name");
    let patch = json!({
        "metadata": { "resourceVersion": meta(object, "resourceVersion") }, "status": { "conditions": conditions },
    });
    match server.send(Method::PATCH, &format!("{PATH}/{name}/status"), &patch).await {
        Err(error) if error.code == 404 => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, label: &str, minimum: u64) -> Value {
        let labels = if label.is_empty() { json!({}) } else { json!({ MANAGED: label }) };
        json!({ "metadata": { "name": name, "labels": labels }, "spec": { "groupPriorityMinimum": minimum } })
    }

    fn wanted(names: &[&str]) -> BTreeMap<String, Value> {
        names.iter().map(|name| ((*name).to_owned(), service(name, "onstart", 1))).collect()
    }

    #[test]
    fn own_groups_are_registered_and_what_people_wrote_is_left_alone() {
        let found = [service("v1.a", "onstart", 2), service("v1.b", "", 2), service("v1.c", "true", 2)];
        let wanted = wanted(&["v1.a", "v1.b", "v1.c", "v1.d"]);
        let made = Step::Make(wanted["v1.d"].clone());
        let names = |steps: Vec<Step>| -> Vec<String> {
            let name = |step: &Step| match step {
                Step::Make(object) => format!("make {}", meta(object, "name")),
                Step::Mend(name, _) => format!("mend {name}"),
                Step::Remove(name) => format!("remove {name}"),
            };
            steps.iter().map(name).collect()
        };
        assert_eq!(steps(&found, &wanted, false)[0], made);
        assert_eq!(names(steps(&found, &wanted, false)), ["make v1.d", "mend v1.c"]);
        assert_eq!(names(steps(&found, &wanted, true)), ["make v1.d", "mend v1.a", "mend v1.c"]);
        let gone = [service("v1.x", "true", 1), service("v1.y", "onstart", 1), service("v1.z", "", 1)];
        assert_eq!(names(steps(&gone, &BTreeMap::new(), false)), ["remove v1.x"]);
    }
}
