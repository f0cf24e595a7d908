//! Whether there is room for a pod, and what those that are here hold of the node.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};

use super::{Held, Table, is_over};
use crate::admission::{self, Amounts, Place, Refusal, Rejection, Shortage, isolation, preemption};
use crate::allocation;
use crate::container::{Qos, qos};
use crate::eviction;
use crate::groups;
use crate::node;
use crate::pod::eviction::Eviction;
use crate::pod::resize::{self, Pending};
use crate::pod::{Assignment, Wish};

impl Table {
    /// Whether the node takes a pod of which it hears for the first time; why not, if it does not.
    pub(super) fn admit(&mut self, uid: &str, assignment: &Assignment, has_run: bool) -> Option<Rejection> {
        let pod = &assignment.pod;
        if assignment.wish == Wish::Gone || pod.metadata.deletion_timestamp.is_some() || is_over(pod) {
            return None;
        }
        if has_run {
            self.hold(uid, admission::wants(&allocation::with_actual_sizes(pod)), pod);
            return None;
        }
        let wants = admission::wants(pod);
        let finished = self.shared.finished();
        let others = self.workers.iter().filter(|(other, _)| self.counts(other, uid, &finished));
        let others: Vec<Arc<Pod>> = others.map(|(_, own)| own.assignment.borrow().pod.clone()).collect();
        let allowed = &self.shared.config.allowed_unsafe_sysctls;
        let first = eviction::admit(pod, self.shared.pressure()).and_then(|()| isolation::admit(pod, allowed));
        if let Err(rejection) = first {
            return Some(rejection);
        }
        let (node, used, allocatable) = (self.node(), self.used_beside(uid), self.allocatable());
        let place = Place { node: &node, others: &others, used: &used, allocatable: &allocatable };
        match admission::admit(pod, &wants, &place) {
            Ok(()) => {}
            Err(Refusal::Rejected(rejection)) => return Some(rejection),
            Err(Refusal::Short(shortages)) => {
                if let Err(rejection) = self.make_room(uid, pod, &shortages) {
                    return Some(rejection);
                }
            }
        }
        self.hold(uid, wants, pod);
        None
    }

    /// Ends pods so that one gets in that the node cannot do without. What they hold counts as free at once.
    fn make_room(&mut self, uid: &str, pod: &Pod, shortages: &[Shortage]) -> Result<(), Rejection> {
        let finished = self.shared.finished();
        let others = self.admitted.iter().filter(|(other, _)| self.counts(other, uid, &finished));
        let candidates = others.filter_map(|(other, held)| {
            let pod = Arc::clone(&self.workers.get(other)?.assignment.borrow().pod);
            Some(preemption::Candidate { uid: other.clone(), pod, class: held.class, amounts: &held.amounts })
        });
        let victims = preemption::victims(pod, candidates.collect(), shortages)?;
        for victim in victims {
            tracing::info!(uid = victim, "pod makes room for a critical one");
            self.shared.evict(&victim, Eviction::preempted());
        }
        Ok(())
    }

    /// The node as the API server has it, or as it will be registered.
    fn node(&self) -> Arc<Node> {
        let name = &self.shared.config.node_name;
        let known = self.nodes.as_ref().and_then(|nodes| nodes.get(&client::Key::cluster(name)));
        known.unwrap_or_else(|| Arc::new(node::unregistered(&self.shared.config)))
    }

    /// Notes what a pod holds from now on.
    pub(super) fn hold(&mut self, uid: &str, amounts: Amounts, pod: &Pod) {
        self.admitted.insert(uid.to_owned(), Held { amounts, class: qos(pod) });
        self.held_changed = true;
    }

    /// Gives the classes of pods what their pods hold, if that may have changed.
    pub(super) fn share_out(&mut self) {
        if !std::mem::take(&mut self.held_changed) && !self.room_made {
            return;
        }
        let finished = self.shared.finished();
        let burstable = self.admitted.iter().filter(|(_, held)| held.class == Qos::Burstable);
        let burstable = burstable.filter(|(uid, _)| self.counts(uid, "", &finished));
        let cpu =
            burstable.filter_map(|(_, held)| held.amounts.get("cpu")).fold(0_i64, |sum, own| sum.saturating_add(*own));
        let config = &self.shared.config;
        let groups = groups::groups(&config.cgroup_prefix, &self.shared.capacity.for_pods(config), cpu);
        self.groups.send_if_modified(|current| {
            let differs = *current != groups;
            *current = groups;
            differs
        });
    }

    pub(super) fn allocatable(&self) -> Amounts {
        self.shared.capacity.allocatable(&self.shared.config).amounts()
    }

    /// Whether a pod beside `uid` holds anything. Of one that nobody has any more only the last traces can be left, and one
    /// that must go does so soon.
    pub(super) fn counts(&self, other: &str, uid: &str, finished: &BTreeSet<String>) -> bool {
        let is_gone = || self.workers.get(other).is_some_and(|own| own.assignment.borrow().wish == Wish::Gone);
        other != uid && !finished.contains(other) && !is_gone() && self.shared.eviction(other).is_none()
    }

    /// What all other pods hold.
    pub(super) fn used_beside(&self, uid: &str) -> Amounts {
        let finished = self.shared.finished();
        let counts = |other: &String| self.counts(other, uid, &finished);
        let mut used = Amounts::new();
        for (name, amount) in self.admitted.iter().filter(|(uid, _)| counts(uid)).flat_map(|(_, held)| &held.amounts) {
            let sum = used.entry(name.clone()).or_insert(0);
            *sum = sum.saturating_add(*amount);
        }
        used
    }

    /// Gives a pod that is here the size that it asks for, if there is room; else it keeps that of `current`.
    pub(super) fn allocate(&mut self, uid: &str, assignment: Assignment, current: &Pod) -> Assignment {
        let pod = &assignment.pod;
        self.room_made |= assignment.wish == Wish::Gone || is_over(pod);
        let Some(held) = self.admitted.get(uid).filter(|_| assignment.wish == Wish::Keep) else {
            self.deferred.remove(uid);
            return assignment;
        };
        let wants = admission::wants(pod);
        if held.amounts == wants {
            self.deferred.remove(uid);
            return assignment;
        }
        let grown = allocation::grow(&held.amounts, &wants, &self.used_beside(uid), &self.allocatable());
        match grown {
            Err(pending) if !admission::is_critical(pod) => {
                self.deferred.insert(uid.to_owned());
                let asked = resize::summary(pod, Some(&pending.message));
                let pending = Pending { asked, ..pending };
                let pod = Arc::new(allocation::with_sizes(pod, current));
                Assignment { pod, resize_pending: Some(pending), ..assignment }
            }
            _ => {
                self.room_made = true;
                self.deferred.remove(uid);
                self.hold(uid, wants, &assignment.pod);
                assignment
            }
        }
    }

    /// Looks again at pods for which there was no room, if some has been made.
    pub(super) fn ask_deferred(&mut self) {
        if !std::mem::take(&mut self.room_made) || self.deferred.is_empty() {
            return;
        }
        let keys = self.names.iter().filter(|(_, uid)| self.deferred.contains(*uid));
        for key in keys.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.look_at(&key);
        }
        // Those that got what they asked for have made no room.
        self.room_made = false;
    }
}
