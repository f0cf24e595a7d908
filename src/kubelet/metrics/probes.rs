//! `/metrics/probes`: how often containers were asked and what came of it (`pkg/kubelet/prober`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use super::text::{Exposition, Sample};
use crate::shared::Entry;

/// Whose probe it is: UID of the pod, container, kind.
type Probe = (String, String, &'static str);

/// What came of asking, by upstream's words.
const RESULTS: [&str; 3] = ["successful", "failed", "unknown"];

/// Counts of all probes of pods that are on this node.
#[derive(Debug, Default)]
pub(crate) struct ProbeResults(Mutex<BTreeMap<Probe, [u64; 3]>>);

impl ProbeResults {
    /// Counts a result: success, failure, or none if it does not count.
    pub(crate) fn count(&self, uid: &str, container: &str, kind: &'static str, success: Option<bool>) {
        let which = match success {
            Some(true) => 0,
            Some(false) => 1,
            None => 2,
        };
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.entry((uid.to_owned(), container.to_owned(), kind)).or_default()[which] += 1;
    }

    /// The counts of these pods; those of others are forgotten.
    pub(super) fn render(&self, pods: &[Entry]) -> String {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known: BTreeSet<&str> = pods.iter().filter_map(|entry| entry.pod.metadata.uid.as_deref()).collect();
        counts.retain(|(uid, ..), _| known.contains(uid.as_str()));
        let mut samples = Vec::new();
        for ((uid, container, kind), results) in counts.iter() {
            let entry = pods.iter().find(|entry| entry.pod.metadata.uid.as_deref() == Some(uid));
            let metadata = entry.map(|entry| &entry.pod.metadata);
            let namespace = metadata.and_then(|metadata| metadata.namespace.as_deref()).unwrap_or_default();
            let pod = metadata.and_then(|metadata| metadata.name.as_deref()).unwrap_or_default();
            for (result, count) in RESULTS.iter().zip(results).filter(|(_, count)| **count > 0) {
                let labels = [
                    ("container", container.as_str()),
                    ("namespace", namespace),
                    ("pod", pod),
                    ("pod_uid", uid),
                    ("probe_type", kind),
                    ("result", result),
                ];
                samples.push(Sample::count(&labels, *count));
            }
        }
        let help = "[BETA] Cumulative number of a liveness, readiness or startup probe for a container by result.";
        let mut text = Exposition::default();
        text.family("prober_probe_total", "counter", help, samples);
        text.finish()
    }
}
