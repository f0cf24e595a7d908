//! From a StatefulSet and its pods to what is to be done. Pure.
//!
//! One thing at a time, in order of the numbers, unless the set says that its pods may come and go in parallel: up from the
//! lowest, down and through an update from the highest, each step only once what it rests on is ready.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::super::number;
use super::member::{self, claims, ordinal, revision_of};
use super::retention;
use crate::workload::revision::{History, hash_of};
use crate::workload::rounding::{Round, part};
use crate::workload::{availability, has_ended, is_deleting, ready_since};

/// What is known.
pub(super) struct Picture<'a> {
    pub(super) set: &'a StatefulSet,
    pub(super) pods: &'a [Arc<Pod>],
    pub(super) history: &'a History,
    /// The claims of its pods that are there.
    pub(super) claims: &'a Claims,
    /// Whether everything that was done can be seen.
    pub(super) is_settled: bool,
    pub(super) now: Timestamp,
}

/// Claims by their names.
pub(super) type Claims = BTreeMap<String, Arc<PersistentVolumeClaim>>;

/// A claim that others own from now on.
#[derive(Debug)]
pub(super) struct Inheritance {
    pub(super) claim: Arc<PersistentVolumeClaim>,
    pub(super) owners: Vec<OwnerReference>,
}

/// What is to be done, in this order.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Claims that must be there, with the names of their pods.
    pub(super) claims: Vec<(String, PersistentVolumeClaim)>,
    /// Pods that cannot be made before these claims have gone.
    pub(super) awaited: Vec<(String, String)>,
    pub(super) bequeathed: Vec<Inheritance>,
    pub(super) delete: Vec<Arc<Pod>>,
    pub(super) create: Vec<Pod>,
    pub(super) status: StatefulSetStatus,
    /// Hashes of the revisions that are in use.
    pub(super) live: BTreeSet<String>,
    pub(super) again: Option<Duration>,
}

/// How long a pod waits before it is looked again whether an old claim of its has gone.
const AWAITING: Duration = Duration::from_secs(1);

struct Work<'a> {
    picture: &'a Picture<'a>,
    spec: &'a StatefulSetSpec,
    /// Names of the revisions that pods are updated from and to.
    current: String,
    update: String,
    pods: BTreeMap<i32, &'a Arc<Pod>>,
    plan: Plan,
}

fn name(revision: &ControllerRevision) -> String {
    revision.metadata.name.clone().unwrap_or_default()
}

/// Decides what happens next.
pub(super) fn decide(picture: &Picture<'_>) -> Plan {
    let status = picture.set.status.clone().unwrap_or_default();
    let Some(spec) = &picture.set.spec else { return Plan { status, ..Plan::default() } };
    let update = name(&picture.history.present);
    let current = status.current_revision.clone().filter(|current| !current.is_empty());
    let pods = picture.pods.iter().filter_map(|pod| Some((ordinal(picture.set, pod)?, pod))).collect();
    let current = current.unwrap_or_else(|| update.clone());
    let mut work = Work { picture, spec, current, update, pods, plan: Plan::default() };
    work.tell(status);
    if picture.is_settled {
        work.act();
    }
    work.look_again();
    work.plan
}

impl<'a> Work<'a> {
    fn start(&self) -> i32 {
        member::ordinals(self.spec).start
    }

    fn end(&self) -> i32 {
        member::ordinals(self.spec).end
    }

    fn is_parallel(&self) -> bool {
        self.spec.pod_management_policy.as_deref() == Some("Parallel")
    }

    fn is_available(&self, pod: &Pod) -> bool {
        availability(pod, self.spec.min_ready_seconds.unwrap_or(0), self.picture.now).0
    }

    /// Running, ready and not on its way out.
    fn is_healthy(pod: &Pod) -> bool {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        phase == Some("Running") && ready_since(pod).is_some() && !is_deleting(&pod.metadata)
    }

    /// The first number that an update reaches, if it goes on by itself.
    fn partition(&self) -> Option<i32> {
        let strategy = self.spec.update_strategy.as_ref();
        if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
            return None;
        }
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        Some(self.start() + rolling.and_then(|rolling| rolling.partition).unwrap_or(0))
    }

    fn act(&mut self) {
        self.bequeath();
        for ordinal in self.start()..self.end() {
            if !self.see_to(ordinal) && !self.is_parallel() {
                return;
            }
        }
        if !self.shrink() && !self.is_parallel() {
            return;
        }
        self.roll();
    }

    /// Sees to one pod that should be there; whether the next one may be seen to.
    fn see_to(&mut self, ordinal: i32) -> bool {
        let Some(pod) = self.pods.get(&ordinal).copied() else {
            if !self.awaits_claims(ordinal) {
                self.make(ordinal);
            }
            return false;
        };
        if is_deleting(&pod.metadata) {
            return false;
        }
        if has_ended(pod) {
            self.plan.delete.push(Arc::clone(pod));
            return false;
        }
        if pod.status.as_ref().is_none_or(|status| status.phase.as_deref() == Some("Pending")) {
            self.make_claims(ordinal);
        }
        Self::is_healthy(pod) && self.is_available(pod)
    }

    /// Whether claims of a pod that is to be made are on their way out still, by themselves or with a former pod of its name
    /// (`createPersistentVolumeClaims`, `PodClaimIsStale`).
    fn awaits_claims(&mut self, ordinal: i32) -> bool {
        let pod = member::name(self.picture.set, ordinal);
        let goes_with_pods = retention::when_scaled(self.spec) == retention::Policy::Delete;
        let mut awaits = false;
        for claim in claims(self.picture.set, self.spec, ordinal) {
            let Some(found) = self.picture.claims.get(&claim.key.name) else { continue };
            if is_deleting(&found.metadata) {
                self.plan.awaited.push((pod.clone(), claim.key.name));
                awaits = true;
            }
            awaits |= goes_with_pods && retention::belongs_to_a_pod(found, &pod);
        }
        awaits.then(|| self.plan.again = Some(AWAITING));
        awaits
    }

    /// Makes claims of a pod that are not there.
    fn make_claims(&mut self, ordinal: i32) {
        let set = self.picture.set;
        let missing = claims(set, self.spec, ordinal)
            .into_iter()
            .filter(|claim| !self.picture.claims.contains_key(&claim.key.name));
        self.plan.claims.extend(missing.map(|claim| (member::name(set, ordinal), claim.object)));
    }

    fn make(&mut self, ordinal: i32) {
        let set = self.picture.set;
        let is_former = self.current != self.update && self.stays_former(ordinal);
        let history = self.picture.history;
        let former = history.former.iter().find(|one| is_former && name(one) == self.current);
        let revision = former.unwrap_or(&history.present);
        let template = member::template(revision).unwrap_or_else(|| self.spec.template.clone());
        self.make_claims(ordinal);
        self.plan.create.push(member::pod(set, self.spec, &template, &name(revision), ordinal));
    }

    /// Whether a pod of this number comes back as it was before the update (`isCurrentRevisionNeeded`).
    fn stays_former(&self, ordinal: i32) -> bool {
        self.partition().is_some_and(|partition| ordinal < partition)
    }

    /// Takes away what is too much; whether nothing is.
    fn shrink(&mut self) -> bool {
        let kept = self.start()..self.end();
        let condemned: Vec<(i32, &'a Arc<Pod>)> = self
            .pods
            .iter()
            .rev()
            .filter(|(ordinal, _)| !kept.contains(ordinal))
            .map(|(ordinal, pod)| (*ordinal, *pod))
            .collect();
        // In order, the next one goes when the one before it is gone and nothing else is amiss.
        for (_, pod) in &condemned {
            if !self.is_parallel() && self.is_held_up(pod, &condemned) {
                return false;
            }
            if !is_deleting(&pod.metadata) {
                self.plan.delete.push(Arc::clone(pod));
            }
            if !self.is_parallel() {
                return false;
            }
        }
        condemned.is_empty()
    }

    /// Whether a pod that is too much stays because it does not work itself: of those that do not, the lowest number alone
    /// may go (`processCondemned`).
    fn is_held_up(&self, pod: &Pod, condemned: &[(i32, &Arc<Pod>)]) -> bool {
        let works = |pod: &Pod| Self::is_healthy(pod) && self.is_available(pod);
        let first = condemned.iter().rev().find(|(_, other)| !works(other));
        !works(pod) && first.is_some_and(|(_, first)| first.metadata.name != pod.metadata.name)
    }

    /// Sees to whom the claims of all pods belong, so that a policy that has changed holds for those that are there, too.
    fn bequeath(&mut self) {
        let set = self.picture.set;
        for (ordinal, pod) in &self.pods {
            for claim in claims(set, self.spec, *ordinal) {
                let Some(found) = self.picture.claims.get(&claim.key.name) else { continue };
                let whose =
                    retention::Whose { set, spec: self.spec, pod, stays: (self.start()..self.end()).contains(ordinal) };
                if let Some(owners) = whose.owners(found) {
                    self.plan.bequeathed.push(Inheritance { claim: Arc::clone(found), owners });
                }
            }
        }
    }

    /// Goes on with an update from the highest number down.
    fn roll(&mut self) {
        let Some(partition) = self.partition() else { return };
        let rolling = self.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let allowed = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        let replicas = self.spec.replicas.unwrap_or(1);
        let mut room = allowed.map_or(1, |allowed| part(Some(allowed), replicas, Round::Up).max(1));
        for ordinal in (partition.max(self.start())..self.end()).rev() {
            if room == 0 {
                return;
            }
            let Some(pod) = self.pods.get(&ordinal).copied() else {
                room -= 1;
                continue;
            };
            let is_former = revision_of(pod) != self.update;
            if is_former && !is_deleting(&pod.metadata) {
                if !self.plan.delete.iter().any(|deleted| Arc::ptr_eq(deleted, pod)) {
                    self.plan.delete.push(Arc::clone(pod));
                }
                room -= 1;
            } else if !Self::is_healthy(pod) || !self.is_available(pod) {
                room -= 1;
            }
        }
    }

    fn tell(&mut self, former: StatefulSetStatus) {
        let alive = || self.pods.values().filter(|pod| !has_ended(pod));
        let count = |is_it: &dyn Fn(&Pod) -> bool| number(alive().filter(|pod| is_it(pod)).count());
        let some = |number: i32| (number > 0).then_some(number);
        let ready = count(&Self::is_healthy);
        let of = |revision: &str| count(&|pod: &Pod| !is_deleting(&pod.metadata) && revision_of(pod) == revision);
        let (updated, replicas) = (of(&self.update), number(alive().count()));
        // All pods are of the new template: what was the update is what is current from now on.
        let wanted = self.spec.replicas.unwrap_or(1);
        let is_done = self.partition().is_some() && [updated, ready, replicas] == [wanted; 3];
        if is_done {
            self.current.clone_from(&self.update);
        }
        let history = self.picture.history;
        let names = [&self.current, &self.update];
        let in_use = history
            .former
            .iter()
            .filter(|one| names.contains(&&name(one)) || self.pods.values().any(|pod| revision_of(pod) == name(one)));
        self.plan.live = in_use.map(hash_of).collect();
        self.plan.status = StatefulSetStatus {
            replicas,
            ready_replicas: some(ready),
            available_replicas: Some(count(&|pod: &Pod| Self::is_healthy(pod) && self.is_available(pod))),
            current_replicas: some(of(&self.current)),
            updated_replicas: some(updated),
            current_revision: Some(self.current.clone()),
            update_revision: Some(self.update.clone()),
            collision_count: Some(former.collision_count.unwrap_or(0)),
            observed_generation: self.picture.set.metadata.generation,
            conditions: former.conditions,
        };
    }

    fn look_again(&mut self) {
        let min_ready = self.spec.min_ready_seconds.unwrap_or(0);
        let coming = self.pods.values().filter_map(|pod| availability(pod, min_ready, self.picture.now).1);
        self.plan.again = coming.chain(self.plan.again).min();
    }
}
