//! HorizontalPodAutoscalers: as many pods as their use of processor time and memory asks for.
//!
//! After `pkg/controller/podautoscaler`; what is used is asked of `metrics.k8s.io`. [`decide`] is pure, [`count`] is its
//! arithmetic and [`pace`] what holds it back. Whatever has a subresource `scale` can be scaled. Metrics of other sources
//! need an adapter, which there is none for here: they are refused in upstream's words. Invariant: a target changes only
//! through its scale, and only as it was when that was decided.

mod count;
mod decide;
mod pace;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::selector::LabelSelector;
use client::events::{Recorder, Source, reference};
use client::reconcile::{self, Outcome, Queue};
use client::{Client, ClientError, Informer, Key, ListOptions, Scope, unless_overtaken};
use http::Method;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use task::{SharedClock, Tasks};

use crate::kinds;
use decide::{NoPods, Target, Verdict};
use pace::History;

/// How often each is looked at (`--horizontal-pod-autoscaler-sync-period`).
const PERIOD: Duration = Duration::from_secs(15);
/// Scalers worked on at a time (`--concurrent-horizontal-pod-autoscaler-syncs`).
const WORKERS: usize = 5;

struct Shell {
    client: Client,
    clock: SharedClock,
    recorder: Recorder,
    scalers: Informer<HorizontalPodAutoscaler>,
    pods: Informer<Pod>,
    known: Mutex<HashMap<Key, Known>>,
}

/// What is kept of a scaler between two looks.
#[derive(Default)]
struct Known {
    history: History,
    /// Which pods its target has.
    selector: Option<LabelSelector>,
}

/// Starts the controller.
pub fn spawn(client: &Client, clock: &SharedClock, tasks: &Tasks, pods: &Informer<Pod>) {
    let source = Source { component: "horizontal-pod-autoscaler".to_owned(), host: String::new() };
    let shell = Arc::new(Shell {
        client: client.clone(),
        clock: SharedClock::clone(clock),
        recorder: Recorder::spawn(client, tasks, SharedClock::clone(clock), source),
        scalers: Informer::spawn(client, tasks, Scope::Cluster, ListOptions::default()),
        pods: pods.clone(),
        known: Mutex::default(),
    });
    let queue = Queue::default();
    tasks.spawn("autoscale-feed", feed(Arc::clone(&shell), queue.clone()));
    tasks.spawn("autoscale-controller", async move {
        shell.pods.synced().await;
        reconcile::run(queue, WORKERS, move |key| sync(Arc::clone(&shell), key)).await;
    });
}

/// A scaler is looked at when somebody changes what it is to do; its status is written here.
async fn feed(shell: Arc<Shell>, queue: Queue<Key>) {
    let mut dirty = shell.scalers.subscribe();
    let mut seen: HashMap<Key, (Option<String>, Option<i64>)> = HashMap::new();
    loop {
        let key = dirty.next().await;
        let Some(scaler) = shell.scalers.get(&key) else {
            seen.remove(&key);
            queue.add(key);
            continue;
        };
        let state = (scaler.metadata.uid.clone(), scaler.metadata.generation);
        if seen.insert(key.clone(), state.clone()).as_ref() != Some(&state) {
            queue.add(key);
        }
    }
}

async fn sync(shell: Arc<Shell>, key: Key) -> Result<Outcome, ClientError> {
    let Some(scaler) = shell.scalers.get(&key) else {
        shell.known.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        return Ok(Outcome::Done);
    };
    let verdict = match shell.scale(&scaler, &key).await? {
        Ok((path, scale)) => shell.rescale(&scaler, &key, &path, scale).await,
        Err(error) => decide::no_scale(&scaler, &error, shell.clock.now()),
    };
    for (kind, reason, message) in &verdict.events {
        shell.recorder.event(&reference(&*scaler), *kind, reason, message);
    }
    let mut new = (*scaler).clone();
    new.status = serde_json::from_value(verdict.status.value()).ok();
    if new.status != scaler.status {
        unless_overtaken(shell.client.replace_status(&new).await)?;
    }
    Ok(Outcome::Again(PERIOD))
}

impl Shell {
    /// Where the scale of a target is, and what it says; the inner error is why it cannot be had.
    async fn scale(
        &self,
        scaler: &HorizontalPodAutoscaler,
        key: &Key,
    ) -> Result<Result<(String, Value), String>, ClientError> {
        let target = &scaler.spec.scale_target_ref;
        let version = target.api_version.as_deref().unwrap_or_default();
        let Some(path) = kinds::locate(&self.client, (version, &target.kind), &key.namespace, &target.name).await?
        else {
            let group = version.split_once('/').map_or("", |(group, _)| group);
            return Ok(Err(format!("no matches for kind {:?} in group {group:?}", target.kind)));
        };
        let path = format!("{path}/scale");
        match self.client.request(Method::GET, &path, None).await {
            Ok(scale) => Ok(Ok((path, scale))),
            Err(error) => Ok(Err(error.to_string())),
        }
    }

    /// Decides, and changes the scale.
    async fn rescale(&self, scaler: &HorizontalPodAutoscaler, key: &Key, path: &str, mut scale: Value) -> Verdict {
        let number = |value: &Value| i32::try_from(value.as_i64().unwrap_or(0)).unwrap_or(i32::MAX);
        let replicas = number(&scale["spec"]["replicas"]);
        let selector = scale["status"]["selector"].as_str().unwrap_or_default();
        let pods = self.pods_of(key, selector);
        let metrics = match &pods {
            Ok(_) => self.metrics(key, selector).await,
            Err(_) => Ok(Vec::new()),
        };
        let target = Target { replicas, pods, metrics };
        let now = self.clock.now();
        let mut history = self.take_history(key);
        let mut verdict = decide::decide(scaler, &target, &mut history, now);
        if let Some((wanted, _)) = verdict.change {
            scale["spec"]["replicas"] = wanted.into();
            let result = self.client.request(Method::PUT, path, Some(&scale)).await;
            if result.is_ok() {
                tracing::info!(scaler = %key, from = replicas, to = wanted, "changed the number of replicas");
                history.changed(scaler.spec.behavior.as_ref(), (replicas, wanted), now);
            }
            decide::changed(&mut verdict, result.map(drop).map_err(|error| error.to_string()), now);
        }
        self.known.lock().unwrap_or_else(PoisonError::into_inner).entry(key.clone()).or_default().history = history;
        verdict
    }

    /// A scaler is worked on by one at a time, so that nobody misses what was taken.
    fn take_history(&self, key: &Key) -> History {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut known.entry(key.clone()).or_default().history)
    }

    /// The pods of a target; nobody else may scale any of them.
    fn pods_of(&self, key: &Key, selector: &str) -> Result<Vec<Arc<Pod>>, NoPods> {
        let fail = |event, reason, text: String, message| NoPods { event, reason, text, message };
        if selector.is_empty() {
            let message = Some("the HPA target's scale is missing a selector");
            return Err(fail("SelectorRequired", "InvalidSelector", "selector is required".to_owned(), message));
        }
        let parsed = LabelSelector::parse(selector).map_err(|error| {
            let text = format!("couldn't convert selector into a corresponding internal selector object: {error}");
            fail("InvalidSelector", "InvalidSelector", text, None)
        })?;
        let covers = |selector: &LabelSelector, pod: &Pod| {
            selector.covers(|name| pod.metadata.labels.as_ref()?.get(name).map(String::as_str))
        };
        let mut pods = self.pods.snapshot();
        pods.retain(|pod| pod.metadata.namespace.as_ref() == Some(&key.namespace) && covers(&parsed, pod));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(key.clone()).or_default().selector = Some(parsed);
        let selects = |other: &LabelSelector| pods.iter().any(|pod| covers(other, pod));
        let rivals = known
            .iter()
            .filter(|(other, known)| other.namespace == key.namespace && known.selector.as_ref().is_some_and(selects));
        let mut rivals: Vec<String> =
            rivals.map(|(Key { namespace, name }, _)| format!("{{{name} {namespace}}}")).collect();
        if rivals.len() > 1 {
            rivals.sort_unstable();
            let text = format!("pods by selector {selector} are controlled by multiple HPAs: [{}]", rivals.join(" "));
            return Err(fail("AmbiguousSelector", "AmbiguousSelector", text, None));
        }
        Ok(pods)
    }

    async fn metrics(&self, key: &Key, selector: &str) -> Result<Vec<Value>, String> {
        let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{}/pods", key.namespace);
        let page = self.client.list_at(&path, &ListOptions::labels(selector)).await;
        let page = page.map_err(|error| format!("unable to fetch metrics from resource metrics API: {error}"))?;
        Ok(page.items)
    }
}
