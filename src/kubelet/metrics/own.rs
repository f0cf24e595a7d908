//! `/metrics`: the kubelet itself. A small set: what is said here is counted here.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use k8s_openapi::api::core::v1::ContainerState;

use super::disk::{Found, VolumeDisk};
use super::text::{Exposition, Sample, moment};
use crate::shared::{Entry, Shared};

/// Nanoseconds of a tick of proc_pid_stat(5): `USER_HZ` is 100 everywhere.
const TICK: u64 = 10_000_000;

pub(super) fn render(shared: &Shared) -> String {
    let mut text = Exposition::default();
    let build = [("git_version", shared.config.kubelet_version.as_str())];
    text.family(
        "kubernetes_build_info",
        "gauge",
        "What this is. The count is always 1.",
        vec![Sample::count(&build, 1)],
    );
    let name = vec![Sample::count(&[("node", &shared.config.node_name)], 1)];
    text.family("kubelet_node_name", "gauge", "The node's name. The count is always 1.", name);
    pods(&shared.pods(), &mut text);
    volumes(&shared.pods(), &shared.metrics.disk.known(), &mut text);
    process(&shared.config.proc, &mut text);
    text.finish()
}

/// One figure of a volume.
type Held = fn(&VolumeDisk) -> u64;

/// Those of claims, as `pkg/kubelet/metrics/collectors/volume_stats.go` has them.
const VOLUMES: [(&str, &str, Held); 6] = [
    ("kubelet_volume_stats_available_bytes", "Number of available bytes in the volume", |one| {
        one.file_system.available
    }),
    ("kubelet_volume_stats_capacity_bytes", "Capacity in bytes of the volume", |one| one.file_system.capacity),
    ("kubelet_volume_stats_inodes", "Maximum number of inodes in the volume", |one| one.file_system.inodes),
    ("kubelet_volume_stats_inodes_free", "Number of free inodes in the volume", |one| one.file_system.inodes_free),
    ("kubelet_volume_stats_inodes_used", "Number of used inodes in the volume", |one| one.used.files),
    ("kubelet_volume_stats_used_bytes", "Number of used bytes in the volume", |one| one.used.bytes),
];

fn volumes(entries: &[Entry], disk: &Found, text: &mut Exposition) {
    // Of a claim that several pods use there is one.
    let mut claims: BTreeMap<(&str, &str), &VolumeDisk> = BTreeMap::new();
    for entry in entries {
        let (uid, namespace) = (entry.pod.metadata.uid.as_deref(), entry.pod.metadata.namespace.as_deref());
        let volumes = uid.and_then(|uid| disk.get(uid)).map(|disk| disk.volumes.as_slice()).unwrap_or_default();
        for (claim, volume) in volumes.iter().filter_map(|volume| Some((volume.claim.as_deref()?, volume))) {
            claims.insert((namespace.unwrap_or_default(), claim), volume);
        }
    }
    for (name, help, of) in VOLUMES {
        let sample = |((namespace, claim), volume): (&(&str, &str), &&VolumeDisk)| {
            Sample::count(&[("namespace", namespace), ("persistentvolumeclaim", claim)], of(volume))
        };
        text.family(name, "gauge", help, claims.iter().map(sample).collect());
    }
}

fn pods(entries: &[Entry], text: &mut Exposition) {
    let running = entries.iter().filter(|entry| entry.status.phase.as_deref() == Some("Running")).count();
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let help = "Number of pods that are running";
    text.family("kubelet_running_pods", "gauge", help, vec![Sample::count(&[], count(running))]);
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in entries {
        let status = &entry.status;
        let lists = [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
        for state in lists.into_iter().flatten().flatten().filter_map(|one| one.state.as_ref()) {
            *states.entry(word(state)).or_default() += 1;
        }
    }
    let samples = states.iter().map(|(state, number)| Sample::count(&[("container_state", state)], count(*number)));
    text.family("kubelet_running_containers", "gauge", "Number of containers by state", samples.collect());
}

fn word(state: &ContainerState) -> &'static str {
    match state {
        ContainerState { running: Some(_), .. } => "running",
        ContainerState { terminated: Some(_), .. } => "exited",
        _ => "created",
    }
}

/// What is known of this process, which is that of the whole program.
fn process(proc: &Path, text: &mut Exposition) {
    let read = |file: &str| fs::read_to_string(proc.join("self").join(file)).unwrap_or_default();
    let stat = read("stat");
    // The name of the program may have anything in it but a newline.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let mut one =
        |name, kind, help, sample: Option<Sample>| text.family(name, kind, help, sample.into_iter().collect());
    let cpu = field(14).zip(field(15)).map(|(user, system)| Sample::seconds(&[], (user + system) * TICK));
    one("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.", cpu);
    let status = read("status");
    let kilobytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    let bytes = |name| kilobytes(name).map(|kilobytes| Sample::count(&[], kilobytes * 1024));
    one("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", bytes("VmRSS"));
    one("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", bytes("VmSize"));
    let open = fs::read_dir(proc.join("self/fd")).ok().map(|entries| u64::try_from(entries.count()).unwrap_or(0));
    one("process_open_fds", "gauge", "Number of open file descriptors.", open.map(|open| Sample::count(&[], open)));
    let booted = super::snapshot::booted(&fs::read_to_string(proc.join("stat")).unwrap_or_default());
    let started = booted.zip(field(22)).and_then(|(booted, ticks)| {
        let started = booted.checked_add(std::time::Duration::from_nanos(ticks * TICK)).ok()?;
        Some(Sample { value: moment(started), ..Sample::count(&[], 0) })
    });
    let help = "Start time of the process since unix epoch in seconds.";
    one("process_start_time_seconds", "gauge", help, started);
}
