//! `/metrics/resource`: what metrics-server reads (`pkg/kubelet/metrics/collectors/resource_metrics.go`).

use runtime::Stats;

use super::snapshot::{Reading, Snapshot};
use super::text::{Exposition, Sample, moment};

/// Labels of somebody whose use is told.
type Labels<'a> = Vec<(&'static str, &'a str)>;

pub(super) fn render(snapshot: &Snapshot) -> String {
    let at = snapshot.at;
    let containers = || {
        snapshot.pods.iter().flat_map(|pod| {
            pod.containers.iter().map(move |one| {
                let labels: Labels<'_> =
                    vec![("container", &one.name), ("namespace", &pod.namespace), ("pod", &pod.name)];
                (labels, one)
            })
        })
    };
    let pods =
        || snapshot.pods.iter().map(|pod| (vec![("namespace", &*pod.namespace), ("pod", &*pod.name)], &pod.reading));
    let (each, whole) = (|| containers().map(|(labels, one)| (labels, &one.reading)).collect(), || pods().collect());
    let host = || vec![(Vec::new(), &snapshot.host)];
    let mut text = Exposition::default();
    let mut cpu = |name: &str, whose: &str, readings: Vec<(Labels<'_>, &Reading)>| {
        let samples = readings
            .iter()
            .filter_map(|(labels, reading)| Some(Sample::seconds(labels, reading.stats.cpu_nanos?).at(at)));
        let help = format!("[STABLE] Cumulative CPU time of {whose}, in seconds of a core");
        text.family(name, "counter", &help, samples.collect());
    };
    cpu("container_cpu_usage_seconds_total", "the container", each());
    cpu("node_cpu_usage_seconds_total", "the node", host());
    cpu("pod_cpu_usage_seconds_total", "the pod", whole());
    let mut bytes = |name: &str, help: &str, readings: Vec<(Labels<'_>, &Reading)>, of: fn(&Stats) -> Option<u64>| {
        let samples =
            readings.iter().filter_map(|(labels, reading)| Some(Sample::count(labels, of(&reading.stats)?).at(at)));
        text.family(name, "gauge", help, samples.collect());
    };
    let set = |stats: &Stats| stats.memory_working_set;
    bytes("container_memory_working_set_bytes", "[STABLE] Current working set of the container, in bytes", each(), set);
    bytes("node_memory_working_set_bytes", "[STABLE] Current working set of the node, in bytes", host(), set);
    bytes("pod_memory_working_set_bytes", "[STABLE] Current working set of the pod, in bytes", whole(), set);
    let swap = |stats: &Stats| stats.memory_swap;
    bytes(
        "container_swap_usage_bytes",
        "[ALPHA] Current amount of swap in use by the container, in bytes",
        each(),
        swap,
    );
    bytes("node_swap_usage_bytes", "[ALPHA] Current amount of swap in use on the node, in bytes", host(), swap);
    bytes("pod_swap_usage_bytes", "[ALPHA] Current amount of swap in use by the pod, in bytes", whole(), swap);
    let started = containers().map(|(labels, one)| Sample { value: moment(one.started), ..Sample::count(&labels, 0) });
    let help = "[STABLE] Start time of the container, in seconds since the epoch";
    text.family("container_start_time_seconds", "gauge", help, started.collect());
    let help = "[STABLE] 1 if there was an error while getting these figures, 0 otherwise";
    text.family("resource_scrape_error", "gauge", help, vec![Sample::count(&[], 0)]);
    text.finish()
}
