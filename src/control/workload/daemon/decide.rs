//! From a DaemonSet, its pods and the nodes to what is to be done. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::events::EventType;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod, PodSpec};

use super::super::number;
use super::node::{self, Wish, wish};
use crate::workload::members::BURST;
use crate::workload::revision::HASH;
use crate::workload::rounding::{Round, part};
use crate::workload::{availability, is_deleting, ready_since};

pub(super) type Status = DaemonSetStatus;

/// What is known.
pub(super) struct Picture<'a> {
    pub(super) set: &'a DaemonSet,
    pub(super) nodes: Vec<Arc<Node>>,
    pub(super) pods: Vec<Arc<Pod>>,
    /// That of the present template.
    pub(super) hash: String,
    /// Whether everything that was done can be seen.
    pub(super) is_settled: bool,
    pub(super) now: Timestamp,
}

/// What is to be done, in this order.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) events: Vec<(EventType, &'static str, String)>,
    pub(super) delete: Vec<Arc<Pod>>,
    pub(super) create: Vec<Pod>,
    pub(super) status: Status,
    pub(super) again: Option<Duration>,
}

/// Whether a pod is of the template with this hash.
pub(super) fn has_hash(pod: &Pod, hash: &str) -> bool {
    pod.metadata.labels.as_ref().and_then(|labels| labels.get(HASH)).is_some_and(|own| own == hash)
}

/// A node and what is there.
struct Place<'p> {
    name: String,
    wish: Wish,
    /// Pods that are not being removed and have not ended.
    alive: Vec<&'p Arc<Pod>>,
    /// Being removed.
    ending: usize,
}

struct Work<'p> {
    picture: &'p Picture<'p>,
    spec: &'p DaemonSetSpec,
    pod_spec: PodSpec,
    places: Vec<Place<'p>>,
    plan: Plan,
    /// Names of nodes that get a pod.
    fill: Vec<String>,
}

/// Decides what happens next.
pub(super) fn decide(picture: &Picture<'_>) -> Plan {
    let Some(spec) = &picture.set.spec else { return Plan::default() };
    let pod_spec = node::tolerant(spec.template.spec.clone().unwrap_or_default());
    let mut work = Work { picture, spec, pod_spec, places: Vec::new(), plan: Plan::default(), fill: Vec::new() };
    work.look_round();
    if picture.is_settled {
        work.keep_one_each();
        work.update();
        let create =
            work.fill.iter().filter_map(|name| node::pod(picture.set, work.pod_spec.clone(), name, &picture.hash));
        work.plan.create = create.take(BURST).collect();
    } else {
        work.plan.delete.clear();
        work.plan.events.clear();
    }
    work.tell();
    work.plan
}

impl<'p> Work<'p> {
    /// Sees what is on each node. Pods that have ended are removed, and those of nodes that are gone.
    fn look_round(&mut self) {
        let mut of_node: BTreeMap<&str, Vec<&'p Arc<Pod>>> = BTreeMap::new();
        for pod in &self.picture.pods {
            of_node.entry(node::target(pod).unwrap_or_default()).or_default().push(pod);
        }
        let mut nodes: Vec<&Arc<Node>> = self.picture.nodes.iter().collect();
        nodes.sort_by_key(|node| node.metadata.name.clone());
        for node in nodes {
            let name = node.metadata.name.clone().unwrap_or_default();
            let (ending, there): (Vec<_>, Vec<_>) = of_node
                .remove(name.as_str())
                .unwrap_or_default()
                .into_iter()
                .partition(|pod| is_deleting(&pod.metadata));
            let mut alive = Vec::new();
            for pod in there {
                let (phase, word) = match pod.status.as_ref().and_then(|status| status.phase.as_deref()) {
                    Some("Failed") => ("failed", "FailedDaemonPod"),
                    Some("Succeeded") => ("succeeded", "SucceededDaemonPod"),
                    _ => {
                        alive.push(pod);
                        continue;
                    }
                };
                let own = pod.metadata.name.as_deref().unwrap_or_default();
                let text =
                    format!("Found {phase} daemon pod {}/{own} on node {name}, will try to kill it", self.namespace());
                let kind = if phase == "failed" { EventType::Warning } else { EventType::Normal };
                self.plan.events.push((kind, word, text));
                self.plan.delete.push(Arc::clone(pod));
            }
            self.places.push(Place { wish: wish(&self.pod_spec, node), name, alive, ending: ending.len() });
        }
        let stranded = of_node.into_values().flatten().filter(|pod| !is_deleting(&pod.metadata));
        self.plan.delete.extend(stranded.map(Arc::clone));
    }

    fn namespace(&self) -> &str {
        self.picture.set.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// How many nodes may have two pods during an update, and how many none.
    fn margins(&self) -> (i32, i32) {
        let rolling = self.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let wanted = number(self.places.iter().filter(|place| place.wish == Wish::Run).count());
        let surge = part(rolling.and_then(|rolling| rolling.max_surge.as_ref()), wanted, Round::Up);
        let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        let unavailable = unavailable.map_or(1, |part_of| part(Some(part_of), wanted, Round::Up));
        (surge, if surge == 0 { unavailable.max(1) } else { unavailable })
    }

    fn is_rolling(&self) -> bool {
        let kind = self.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
        kind.is_none_or(|kind| kind == "RollingUpdate")
    }

    fn is_new(&self, pod: &Pod) -> bool {
        has_hash(pod, &self.picture.hash)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        availability(pod, self.spec.min_ready_seconds.unwrap_or(0), self.picture.now).0
    }

    /// One pod on each node that is meant, none elsewhere; two for as long as an update passes through.
    fn keep_one_each(&mut self) {
        let (surge, _) = self.margins();
        for place in &self.places {
            match place.wish {
                Wish::Go => self.plan.delete.extend(place.alive.iter().copied().map(Arc::clone)),
                Wish::Run if place.alive.is_empty() && place.ending == 0 => self.fill.push(place.name.clone()),
                Wish::Run | Wish::Stay => {
                    let (mut new, mut old): (Vec<_>, Vec<_>) =
                        place.alive.iter().copied().partition(|pod| self.is_new(pod));
                    let is_update = surge > 0 && self.is_rolling() && !new.is_empty() && !old.is_empty();
                    let groups = if is_update {
                        vec![new, old]
                    } else {
                        new.append(&mut old);
                        vec![new]
                    };
                    for mut group in groups {
                        // The one that works and is oldest stays.
                        group.sort_by_key(|pod| {
                            let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
                            (ready_since(pod).is_none(), created, pod.metadata.name.clone())
                        });
                        self.plan.delete.extend(group.into_iter().skip(1).map(Arc::clone));
                    }
                }
            }
        }
    }

    /// Goes on with an update, where it is not left to the user.
    fn update(&mut self) {
        if !self.is_rolling() {
            return;
        }
        let (surge, unavailable) = self.margins();
        if surge > 0 { self.surge(surge) } else { self.replace(unavailable) }
    }

    /// The former pod goes before the new one comes; those that do not work first (`rollingUpdate`).
    fn replace(&mut self, allowed: i32) {
        let (mut missing, mut broken, mut working) = (0, Vec::new(), Vec::new());
        for place in self.places.iter().filter(|place| place.wish == Wish::Run) {
            match place.alive[..] {
                [only] if self.is_new(only) => missing += i32::from(!self.is_available(only)),
                [only] if self.is_available(only) => working.push(Arc::clone(only)),
                [only] => {
                    missing += 1;
                    broken.push(Arc::clone(only));
                }
                _ => missing += 1,
            }
        }
        let room = usize::try_from(allowed - missing).unwrap_or(0);
        self.plan.delete.extend(broken);
        self.plan.delete.extend(working.into_iter().take(room));
    }

    /// The new pod comes first, and the former one goes once it works.
    fn surge(&mut self, allowed: i32) {
        let (mut under_way, mut broken, mut working) = (0, Vec::new(), Vec::new());
        for place in self.places.iter().filter(|place| place.wish == Wish::Run) {
            let (new, old): (Vec<_>, Vec<_>) = place.alive.iter().copied().partition(|pod| self.is_new(pod));
            match (new.first(), old.first()) {
                (_, None) => {}
                (None, Some(old)) if self.is_available(old) => working.push(place.name.clone()),
                (None, Some(_)) => broken.push(place.name.clone()),
                (Some(new), Some(old)) if self.is_available(new) => self.plan.delete.push(Arc::clone(old)),
                (Some(_), Some(_)) => under_way += 1,
            }
        }
        let room = usize::try_from(allowed - under_way).unwrap_or(0);
        self.fill.extend(broken);
        self.fill.extend(working.into_iter().take(room));
    }

    fn tell(&mut self) {
        let run = || self.places.iter().filter(|place| place.wish == Wish::Run);
        let any = |place: &&Place<'_>, is_it: &dyn Fn(&Pod) -> bool| place.alive.iter().any(|pod| is_it(pod));
        let desired = number(run().count());
        let available = number(run().filter(|place| any(place, &|pod| self.is_available(pod))).count());
        let some = |number: i32| (number > 0).then_some(number);
        let former = self.picture.set.status.clone().unwrap_or_default();
        self.plan.status = DaemonSetStatus {
            desired_number_scheduled: desired,
            current_number_scheduled: number(run().filter(|place| !place.alive.is_empty()).count()),
            number_misscheduled: number(
                self.places.iter().filter(|place| place.wish != Wish::Run && !place.alive.is_empty()).count(),
            ),
            number_ready: number(run().filter(|place| any(place, &|pod| ready_since(pod).is_some())).count()),
            number_available: some(available),
            number_unavailable: some(desired - available),
            updated_number_scheduled: some(number(run().filter(|place| any(place, &|pod| self.is_new(pod))).count())),
            observed_generation: self.picture.set.metadata.generation,
            collision_count: former.collision_count,
            conditions: former.conditions,
        };
        let min_ready = self.spec.min_ready_seconds.unwrap_or(0);
        let alive = self.places.iter().flat_map(|place| &place.alive);
        self.plan.again = alive.filter_map(|pod| availability(pod, min_ready, self.picture.now).1).min();
    }
}
