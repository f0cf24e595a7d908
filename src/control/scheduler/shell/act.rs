//! Carries out what was decided, and what follows from how that ended.

use std::sync::Arc;

use client::events::{EventType, reference};
use client::{Client, ClientError, DeleteOptions, Key, Patch};
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{DECISIONS, Done, NAME, REQUESTS, Scheduler};
use crate::scheduler::bind::{self, BindError, Binding};
use crate::scheduler::claims::Bindings;
use crate::scheduler::decide::{Decision, Nomination, decide};
use crate::scheduler::facts::Asked;
use crate::scheduler::hints::Change;
use crate::scheduler::nominations::nominated_node;
use crate::scheduler::pending::Waiting;
use crate::scheduler::preempt::{self, Preemption};
use crate::workload::is_deleting;

/// Longest message of an event (`k8s.io/api/events`, note).
const MESSAGE: usize = 1024;
/// What stands for what did not fit (`truncateMessage`).
const MORE: &str = " ...";

/// How making others go has ended.
pub(super) struct Preempted {
    pod: Arc<Pod>,
    node: String,
    /// Whom it has made go, and whom it could not.
    gone: Vec<Arc<Pod>>,
    spared: Vec<(Key, ClientError)>,
}

impl Scheduler {
    /// Decides on some of the pods that wait; says whether more do.
    pub(super) fn decide_some(&mut self) -> bool {
        self.pending.ripen(Instant::now());
        for _ in 0..DECISIONS {
            if self.requests.len() >= REQUESTS {
                return false;
            }
            let Some((key, waiting)) = self.pending.take() else { return false };
            if self.reporting.contains_key(&key) {
                self.deferred.insert(key);
            } else {
                self.decide_on(key, &waiting);
            }
        }
        true
    }

    fn decide_on(&mut self, key: Key, waiting: &Waiting) {
        let family = self.families.of(&waiting.pod);
        let asked = Asked { pod: &waiting.pod, needs: &waiting.needs, family: family.as_ref() };
        self.cluster.get_ready(asked.crowds());
        let budgets = || self.budgets.snapshot();
        self.decisions += 1;
        let verdict = decide(asked, &self.cluster, self.circumstances(&budgets, &waiting.pod));
        self.next_node = (self.next_node + verdict.examined) % self.cluster.size().max(1);
        match verdict.decision {
            Decision::Bind { node, bindings } => self.bind(key, waiting, node, bindings),
            Decision::Unschedulable { message, refusals, nomination: Nomination::Preempts(preemption) } => {
                let node = preemption.node.clone();
                self.preempt(waiting, preemption);
                // Their going wakes it.
                self.pending.park(&key, refusals, Instant::now());
                let nominated = (nominated_node(&waiting.pod) != Some(&node)).then_some(Value::String(node));
                self.report(&key, &waiting.pod, "Unschedulable", &message, nominated);
            }
            Decision::Unschedulable { message, refusals, nomination } => {
                self.pending.park(&key, refusals, Instant::now());
                let released = match nomination {
                    Nomination::None => nominated_node(&waiting.pod).map(|_| Value::Null),
                    Nomination::Stays | Nomination::Preempts(_) => None,
                };
                if nomination == Nomination::None {
                    self.unnominate(&key, None);
                }
                self.report(&key, &waiting.pod, "Unschedulable", &message, released);
            }
        }
    }

    fn bind(&mut self, key: Key, waiting: &Waiting, node: String, bindings: Bindings) {
        let pod = Arc::clone(&waiting.pod);
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        self.unnominate(&key, Some(&node));
        self.cluster.assume(&pod, &waiting.needs, &node);
        self.cluster.claims.promise(&bindings, &node);
        self.wake(Change::Came(&waiting.needs));
        let binding = Binding {
            client: self.client.clone(),
            claims: self.claims.clone(),
            pod: key.clone(),
            uid,
            node: node.clone(),
            steps: bind::steps(&bindings, &self.cluster.claims, &node),
        };
        let promised = bindings.clone();
        // Beside this task, which goes on deciding meanwhile.
        let work = self.tasks.spawn("binding", async move { binding.carry_out(&bindings).await });
        let queue = if promised.is_empty() { &self.requests } else { &self.waiting };
        queue.push(Box::pin(async move {
            let result = work.await.ok().flatten().unwrap_or(Err(BindError::Lost));
            Done::Bind { key, pod, node, bindings: promised, result }
        }));
    }

    /// Makes others go, and keeps their room for the pod.
    fn preempt(&mut self, waiting: &Waiting, preemption: Preemption) {
        let Preemption { node, victims, demoted } = preemption;
        self.cluster.nominations.nominate(&waiting.pod, &waiting.needs, &node);
        for other in demoted {
            self.demote(other);
        }
        let is_it = |pod: &Pod, uid: &str| pod.metadata.uid.as_deref().unwrap_or_default() == uid;
        let seen = |(key, uid): (Key, String)| self.pods.get(&key).filter(|pod| is_it(pod, &uid));
        let victims: Vec<_> = victims.into_iter().filter_map(seen).collect();
        for victim in &victims {
            self.cluster.set_preempted(&Key::of(&victim.metadata), true);
        }
        let (client, clock, pod) = (self.client.clone(), Arc::clone(&self.clock), Arc::clone(&waiting.pod));
        self.requests.push(Box::pin(async move {
            let (mut gone, mut spared) = (Vec::new(), Vec::new());
            for victim in victims {
                match make_go(&client, &victim, &Time(clock.now())).await {
                    Ok(()) => gone.push(victim),
                    // Who merely changed meanwhile is still there.
                    Err(error) if error.is_overtaken() && !is_still_there(&client, &victim).await => {}
                    Err(error) => spared.push((Key::of(&victim.metadata), error)),
                }
            }
            Done::Preempted(Preempted { pod, node, gone, spared })
        }));
    }

    /// Room is no longer kept for a pod, because one of higher priority needs it.
    fn demote(&mut self, key: Key) {
        self.unnominate(&key, None);
        let Some(waiting) = self.pending.get(&key).filter(|waiting| nominated_node(&waiting.pod).is_some()) else {
            return;
        };
        let patch = json!({"metadata": {"uid": waiting.pod.metadata.uid}, "status": {"nominatedNodeName": null}});
        self.say(key, patch);
    }

    /// Changes the status of a pod.
    fn say(&mut self, key: Key, patch: Value) {
        let client = self.client.clone();
        *self.reporting.entry(key.clone()).or_default() += 1;
        self.requests.push(Box::pin(async move {
            let result = client.patch_status::<Pod>(&key, &Patch::Strategic(patch)).await.map(drop);
            Done::Said { key, result }
        }));
    }

    /// One thing less is being said of a pod; whether nothing is any more.
    fn is_all_said(&mut self, key: &Key) -> bool {
        let left = self.reporting.get_mut(key).map_or(0, |count| {
            *count -= 1;
            *count
        });
        if left == 0 {
            self.reporting.remove(key);
        }
        left == 0
    }

    fn finish_preemption(&mut self, preempted: Preempted) {
        let Preempted { pod, node, gone, spared } = preempted;
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        for victim in gone {
            let message = format!("Preempted by pod {uid} on node {node}");
            self.recorder.event(&reference(&*victim), EventType::Normal, "Preempted", &message);
        }
        for (victim, error) in &spared {
            let error: &dyn std::error::Error = error;
            tracing::warn!(pod = %Key::of(&pod.metadata), %victim, error, "cannot make a pod go for another one");
            self.cluster.set_preempted(victim, false);
        }
        if !spared.is_empty() {
            // It would choose the same again at once, without end.
            self.pending.rest(&Key::of(&pod.metadata), Instant::now());
            self.wake(Change::Released);
        }
    }

    pub(super) fn finish(&mut self, done: Done) {
        match done {
            Done::Bind { key, pod, node, bindings, result: Ok(()) } => {
                self.cluster.claims.release(&bindings);
                tracing::debug!(pod = %key, node, "pod bound");
                let message = format!("Successfully assigned {key} to {node}");
                self.recorder.event(&reference(&*pod), EventType::Normal, "Scheduled", &message);
            }
            Done::Bind { key, pod, bindings, result: Err(error), .. } => {
                self.cluster.claims.release(&bindings);
                let uid = pod.metadata.uid.as_deref().unwrap_or_default();
                if self.cluster.is_assumed(&key, uid) {
                    self.free(&key);
                }
                if !bindings.is_empty() {
                    self.wake(Change::Volume);
                }
                // Another pod may have the name by now.
                if self.pending.get(&key).is_some_and(|waiting| waiting.pod.metadata.uid == pod.metadata.uid) {
                    self.pending.rest(&key, Instant::now());
                }
                if !matches!(&error, BindError::Rejected(error) if error.is_not_found()) {
                    self.report(&key, &pod, "SchedulerError", &error.to_string(), None);
                }
            }
            Done::Said { key, result } => {
                if self.is_all_said(&key) && self.deferred.remove(&key) {
                    self.pending.resume(&key);
                }
                if let Err(error) = result
                    && !error.is_not_found()
                {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(pod = %key, error, "cannot report why a pod is not scheduled");
                }
            }
            Done::Preempted(preempted) => self.finish_preemption(preempted),
        }
    }

    fn report(&mut self, key: &Key, pod: &Arc<Pod>, reason: &str, message: &str, nominated: Option<Value>) {
        self.recorder.event(&reference(&**pod), EventType::Warning, "FailedScheduling", &shorten(message));
        self.set_condition(key, pod, reason, message, nominated);
    }

    /// Sets `PodScheduled` to false and the node that room is kept on, unless both are said already.
    pub(super) fn set_condition(
        &mut self,
        key: &Key,
        pod: &Pod,
        reason: &str,
        message: &str,
        nominated: Option<Value>,
    ) {
        let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let former = conditions.iter().find(|condition| condition.type_ == "PodScheduled");
        let says_it = |former: &PodCondition| {
            former.status == "False"
                && former.reason.as_deref() == Some(reason)
                && former.message.as_deref() == Some(message)
        };
        if nominated.is_none() && former.is_some_and(says_it) {
            return;
        }
        let since = former.filter(|former| former.status == "False").and_then(|f| f.last_transition_time.clone());
        let since = since.unwrap_or_else(|| Time(self.clock.now()));
        let mut patch = json!({
            "metadata": {"uid": pod.metadata.uid},
            "status": {"conditions": [{
                "type": "PodScheduled", "status": "False", "reason": reason, "message": message,
                "lastProbeTime": null, "lastTransitionTime": since,
            }]},
        });
        if let Some(nominated) = nominated {
            patch["status"]["nominatedNodeName"] = nominated;
        }
        self.say(key.clone(), patch);
    }
}

/// Whether a pod is there and not on its way out; so it is as long as nobody can say.
async fn is_still_there(client: &Client, pod: &Pod) -> bool {
    match client.get_opt::<Pod>(&Key::of(&pod.metadata)).await {
        Ok(found) => found.is_some_and(|found| found.metadata.uid == pod.metadata.uid && !is_deleting(&found.metadata)),
        Err(_) => true,
    }
}

/// Says why, then deletes with the pod's own grace.
async fn make_go(client: &Client, victim: &Pod, now: &Time) -> Result<(), ClientError> {
    let key = Key::of(&victim.metadata);
    let patch = Patch::Strategic(json!({
        "metadata": {"uid": victim.metadata.uid},
        "status": {"conditions": [{
            "type": "DisruptionTarget", "status": "True", "reason": preempt::REASON,
            "message": format!("{NAME}: preempting to accommodate a higher priority pod"),
            "lastProbeTime": null, "lastTransitionTime": now,
        }]},
    }));
    client.patch_status::<Pod>(&key, &patch).await?;
    let uid = victim.metadata.uid.clone().unwrap_or_default();
    client.delete::<Pod>(&key, &DeleteOptions { uid, ..DeleteOptions::default() }).await
}

fn shorten(message: &str) -> String {
    if message.len() <= MESSAGE {
        return message.to_owned();
    }
    let end = (0..=MESSAGE - MORE.len()).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
    format!("{}{MORE}", &message[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_ends_in_dots_and_never_within_a_character() {
        assert_eq!(shorten("short"), "short");
        let long = format!("a{}", "ü".repeat(MESSAGE));
        let short = shorten(&long);
        assert!(short.len() <= MESSAGE && short.ends_with("ü ..."), "{short}");
    }
}
