//! Telling users what happened: `core/v1` Events that count their repeats.
//!
//! For the kubelet and the scheduler. Wording and correlation follow client-go's `tools/record`; what is correlated and
//! how is decided in `correlate.rs` without input or output. [`Recorder::event`] never waits: beyond [`BACKLOG`] unsent
//! events new ones are dropped and counted in the log. Invariant: an event that cannot be delivered delays nothing but
//! other events.

mod correlate;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, Node, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use task::{SharedClock, Tasks};
use tokio::sync::mpsc;

use crate::client::Client;
use crate::error::ClientError;
use crate::object::{Key, Object};
use correlate::{Correlator, Delivery};

/// Unsent events at most.
pub const BACKLOG: usize = 1000;
/// How often delivery is tried, as client-go's `maxTriesPerEvent`.
const TRIES: u32 = 12;
/// Pause between tries, as client-go's `defaultSleepDuration`.
const PAUSE: Duration = Duration::from_secs(10);

/// Whether an event is a matter of course.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    /// Nothing to worry about.
    Normal,
    /// Something may be wrong.
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Who reports events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Component, e.g. `kubelet` or `default-scheduler`.
    pub component: String,
    /// Host that it runs on; empty for components of the control plane.
    pub host: String,
}

/// Reports events; clones share the queue.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Event>,
    source: Arc<Source>,
    clock: RecorderClock,
    dropped: Arc<AtomicU64>,
}

#[derive(Clone)]
struct RecorderClock(SharedClock);

impl std::fmt::Debug for RecorderClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

/// A reference to an object, as the subject of an event.
pub fn reference<K: Object>(object: &K) -> ObjectReference {
    let metadata = object.metadata();
    ObjectReference {
        api_version: Some(K::API_VERSION.to_owned()),
        kind: Some(K::KIND.to_owned()),
        name: metadata.name.clone(),
        namespace: metadata.namespace.clone(),
        uid: metadata.uid.clone(),
        resource_version: metadata.resource_version.clone(),
        field_path: None,
    }
}

/// A reference to a part of an object, e.g. `spec.containers{web}`.
pub fn reference_part<K: Object>(object: &K, field_path: &str) -> ObjectReference {
    ObjectReference { field_path: Some(field_path.to_owned()), ..reference(object) }
}

/// A reference to a node as kubelets report it: the name stands for the uid, which `kubectl describe node` looks for.
pub fn node_reference(name: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some(<Node as k8s_openapi::Resource>::API_VERSION.to_owned()),
        kind: Some(<Node as k8s_openapi::Resource>::KIND.to_owned()),
        name: Some(name.to_owned()),
        uid: Some(name.to_owned()),
        ..ObjectReference::default()
    }
}

impl Recorder {
    /// A recorder that delivers through `client` until the task group ends.
    pub fn spawn(client: &Client, tasks: &Tasks, clock: SharedClock, source: Source) -> Self {
        let (queue, events) = mpsc::channel(BACKLOG);
        tasks.spawn("events", deliver_all(client.clone(), events, SharedClock::clone(&clock)));
        Self { queue, source: Arc::new(source), clock: RecorderClock(clock), dropped: Arc::default() }
    }

    /// Reports that something happened to `subject`. `reason` is a CamelCase word.
    pub fn event(&self, subject: &ObjectReference, kind: EventType, reason: &str, message: &str) {
        let event = self.compose(subject, kind, reason, message);
        if self.queue.try_send(event).is_err() {
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            tracing::warn!(reason, dropped, "event dropped");
        }
    }

    fn compose(&self, subject: &ObjectReference, kind: EventType, reason: &str, message: &str) -> Event {
        let now = self.clock.0.now();
        let name = subject.name.as_deref().unwrap_or_default();
        let namespace = subject.namespace.clone().filter(|namespace| !namespace.is_empty());
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{name}.{:x}", now.as_nanosecond())),
                namespace: Some(namespace.unwrap_or_else(|| "default".to_owned())),
                ..ObjectMeta::default()
            },
            involved_object: subject.clone(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            type_: Some(kind.as_str().to_owned()),
            count: Some(1),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            source: Some(EventSource {
                component: Some(self.source.component.clone()),
                host: Some(self.source.host.clone()).filter(|host| !host.is_empty()),
            }),
            reporting_component: Some(self.source.component.clone()),
            reporting_instance: Some(self.source.host.clone()),
            ..Event::default()
        }
    }
}

async fn deliver_all(client: Client, mut events: mpsc::Receiver<Event>, clock: SharedClock) {
    let mut correlator = Correlator::default();
    while let Some(event) = events.recv().await {
        let Some(delivery) = correlator.correlate(event, clock.now()) else { continue };
        for attempt in 1..=TRIES {
            match deliver(&client, &delivery).await {
                Ok(Some(stored)) => correlator.stored(&delivery, &stored),
                Ok(None) => {}
                Err(error) if error.is_unreachable() && attempt < TRIES => {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(reason = delivery.event.reason, error, "event not delivered");
                }
            }
            break;
        }
    }
}

/// Delivers once. None says that the server has refused the event for a reason that concerns it alone.
async fn deliver(client: &Client, delivery: &Delivery) -> Result<Option<Event>, ClientError> {
    if let Some(patch) = &delivery.patch {
        match client.patch::<Event>(&Key::of(&delivery.event.metadata), patch).await {
            // The earlier event has expired: start anew.
            Err(error) if error.is_not_found() => {}
            result => return result.map(Some),
        }
    }
    match client.create(&delivery.event).await {
        Err(error) if error.is_already_exists() => Ok(None),
        result => result.map(Some),
    }
}
