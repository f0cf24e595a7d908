//! Which pods end so that one gets in that the node cannot do without: pure.
//!
//! After `pkg/kubelet/preemption` upstream, words included: of the most replaceable class of service as few as will do, and
//! among them those whose requests come nearest to what is missing.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::{Amounts, Rejection, Shortage, is_critical};
use crate::container::Qos;

/// A pod that is there.
#[derive(Clone)]
pub(crate) struct Candidate<'a> {
    pub(crate) uid: String,
    pub(crate) pod: Arc<Pod>,
    pub(crate) class: Qos,
    /// What it holds.
    pub(crate) amounts: &'a Amounts,
}

impl Candidate<'_> {
    fn holds(&self, resource: &str) -> i64 {
        self.amounts.get(resource).copied().unwrap_or(0)
    }

    /// Whether it may have to go for the other one (`types.Preemptable`).
    fn yields_to(&self, pod: &Pod) -> bool {
        let priority = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.priority);
        let is_less = || priority(pod).zip(priority(&self.pod)).is_some_and(|(own, other)| own > other);
        !is_critical(&self.pod) || is_less()
    }
}

/// What is missing, by resource.
#[derive(Clone)]
struct Missing(Vec<(String, i64)>);

impl Missing {
    /// What is still missing when these are gone.
    fn without<'a>(&self, gone: impl IntoIterator<Item = &'a Candidate<'a>> + Clone) -> Self {
        let left = self.0.iter().filter_map(|(resource, amount)| {
            let given = gone.clone().into_iter().fold(0_i64, |sum, one| sum.saturating_add(one.holds(resource)));
            Some((resource.clone(), amount.saturating_sub(given))).filter(|(_, left)| *left > 0)
        });
        Self(left.collect())
    }

    /// How far from enough it is what a pod holds.
    #[expect(clippy::cast_precision_loss, reason = "a share, by which pods are compared")]
    fn distance(&self, candidate: &Candidate<'_>) -> f64 {
        let parts = self.0.iter().map(|(resource, amount)| {
            let left = amount.saturating_sub(candidate.holds(resource)).max(0);
            (left as f64 / *amount as f64).powi(2)
        });
        parts.sum()
    }
}

/// The pods, by UID, that have to go for a critical one.
pub(crate) fn victims(
    pod: &Pod,
    candidates: Vec<Candidate<'_>>,
    shortages: &[Shortage],
) -> Result<Vec<String>, Rejection> {
    let missing = Missing(shortages.iter().map(|short| (short.resource.clone(), short.missing())).collect());
    let of = |class: Qos| -> Vec<Candidate<'_>> {
        candidates.iter().filter(|one| one.class == class && one.yields_to(pod)).cloned().collect()
    };
    let (best_effort, burstable, guaranteed) = (of(Qos::BestEffort), of(Qos::Burstable), of(Qos::Guaranteed));
    let unmet = missing.without(best_effort.iter().chain(&burstable).chain(&guaranteed));
    if !unmet.0.is_empty() {
        let list: String = unmet.0.iter().map(|(name, amount)| format!("(res: {name}, q: {amount}), ")).collect();
        let message = format!(
            "Unexpected error while attempting to recover from admission failure: preemption: error finding a set of \
             pods to preempt: no set of running pods found to reclaim resources: [{list}]"
        );
        return Err(Rejection::new("UnexpectedAdmissionError", &message));
    }
    // Of a class as few go as would if all of the more replaceable ones went.
    let guaranteed = nearest(guaranteed, missing.without(best_effort.iter().chain(&burstable)));
    let burstable = nearest(burstable, missing.without(best_effort.iter().chain(&guaranteed)));
    let best_effort = nearest(best_effort, missing.without(burstable.iter().chain(&guaranteed)));
    let all = best_effort.into_iter().chain(burstable).chain(guaranteed);
    Ok(all.map(|one| one.uid).collect())
}

/// One after the other the pod whose requests come nearest to what is still missing, the smaller of two; together they give
/// back enough.
fn nearest<'a>(mut pods: Vec<Candidate<'a>>, mut missing: Missing) -> Vec<Candidate<'a>> {
    let mut going = Vec::new();
    while !missing.0.is_empty() {
        let size = |one: &Candidate<'_>| (one.holds("memory"), one.holds("cpu"));
        let best = (0..pods.len()).min_by(|a, b| {
            let distance = |index: &usize| missing.distance(&pods[*index]);
            distance(a).total_cmp(&distance(b)).then_with(|| size(&pods[*a]).cmp(&size(&pods[*b])))
        });
        let Some(best) = best else { break };
        let one = pods.swap_remove(best);
        missing = missing.without([&one]);
        going.push(one);
    }
    going
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(priority: i32) -> Arc<Pod> {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [], "priority": priority}});
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    fn short(resource: &str, missing: i64) -> Shortage {
        Shortage { resource: resource.to_owned(), requested: missing, used: 0, capacity: 0 }
    }

    /// Pods as class, priority, milli-CPU and bytes; the answer as their places in the list.
    fn check(list: &[(Qos, i32, i64, i64)], shortages: &[Shortage]) -> Result<Vec<usize>, String> {
        let amounts = list.iter().map(|(_, _, cpu, memory)| {
            Amounts::from([("cpu".to_owned(), *cpu), ("memory".to_owned(), *memory), ("pods".to_owned(), 1)])
        });
        let amounts: Vec<Amounts> = amounts.collect();
        let candidates = list.iter().zip(&amounts).enumerate().map(|(index, ((class, priority, ..), amounts))| {
            Candidate { uid: index.to_string(), pod: pod(*priority), class: *class, amounts }
        });
        let found = victims(&pod(2_000_000_000), candidates.collect(), shortages);
        found.map(|uids| uids.iter().map(|uid| uid.parse().expect("a place")).collect()).map_err(|own| own.message)
    }

    #[test]
    fn the_most_replaceable_go_first_and_no_more_than_needed() {
        let pods = [
            (Qos::Guaranteed, 0, 1000, 1000),
            (Qos::Burstable, 0, 300, 100),
            (Qos::Burstable, 0, 600, 100),
            (Qos::BestEffort, 0, 0, 0),
        ];
        assert_eq!(
            check(&pods, &[short("cpu", 250)]),
            Ok(vec![1]),
            "both would do, the other one is as near but larger"
        );
        assert_eq!(check(&pods, &[short("cpu", 500)]), Ok(vec![2]));
        assert_eq!(check(&pods, &[short("cpu", 900)]), Ok(vec![2, 1]));
        assert_eq!(check(&pods, &[short("cpu", 1500)]), Ok(vec![2, 0]), "only what burstable pods cannot give");
        assert_eq!(check(&pods, &[short("pods", 1)]), Ok(vec![3]));
        assert_eq!(check(&pods, &[short("cpu", 600), short("memory", 100)]), Ok(vec![2]));
    }

    #[test]
    fn nobody_goes_in_vain_and_critical_pods_only_for_greater_ones() {
        let pods = [(Qos::Burstable, 2_000_000_000, 1000, 0), (Qos::Burstable, 0, 300, 0)];
        let unmet = check(&pods, &[short("cpu", 450)]).expect_err("not enough");
        assert!(
            unmet.ends_with("no set of running pods found to reclaim resources: [(res: cpu, q: 150), ]"),
            "{unmet}"
        );
        assert_eq!(check(&pods, &[short("cpu", 300)]), Ok(vec![1]));
    }
}
