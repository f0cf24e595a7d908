//! `/metrics/cadvisor`: the names that dashboards know, with what of them is known here
//! (`github.com/google/cadvisor/metrics/prometheus.go`, labels as the kubelet gives them).

use runtime::{DeviceIo, Pressures, Stats};

use super::network::Interface;
use super::snapshot::{ContainerReading, Limits, PodReading, Reading, Snapshot};
use super::text::{Exposition, Sample, moment};

/// Microseconds of a period of the CPU limit.
const PERIOD: u64 = 100_000;

/// One series of labels: the host, a pod, or a container.
struct Row<'a> {
    labels: Vec<(&'static str, String)>,
    reading: &'a Reading,
    started: Option<jiff::Timestamp>,
    limits: Option<Limits>,
}

type Figure = fn(&Stats) -> Option<u64>;

/// Counters of time.
const SECONDS: [(&str, &str, Figure); 4] = [
    ("container_cpu_usage_seconds_total", "Cumulative CPU time consumed in seconds.", |stats| stats.cpu_nanos),
    ("container_cpu_user_seconds_total", "Cumulative user CPU time consumed in seconds.", |stats| stats.cpu_user_nanos),
    ("container_cpu_system_seconds_total", "Cumulative system CPU time consumed in seconds.", |stats| {
        stats.cpu_system_nanos
    }),
    ("container_cpu_cfs_throttled_seconds_total", "Total time for which the container has been throttled.", |stats| {
        stats.cpu_throttled_nanos
    }),
];

/// Counters and gauges of things.
const COUNTS: [(&str, &str, &str, Figure); 12] = [
    ("container_cpu_cfs_periods_total", "counter", "Number of elapsed enforcement period intervals.", |stats| {
        stats.cpu_periods
    }),
    ("container_cpu_cfs_throttled_periods_total", "counter", "Number of throttled period intervals.", |stats| {
        stats.cpu_throttled_periods
    }),
    ("container_memory_cache", "gauge", "Number of bytes of page cache memory.", |stats| stats.memory_cache),
    ("container_memory_mapped_file", "gauge", "Size of memory mapped files in bytes.", |stats| stats.memory_mapped),
    ("container_memory_max_usage_bytes", "gauge", "Maximum memory usage recorded in bytes.", |stats| stats.memory_peak),
    ("container_memory_rss", "gauge", "Size of RSS in bytes.", |stats| stats.memory_rss),
    ("container_memory_swap", "gauge", "Container swap usage in bytes.", |stats| stats.memory_swap),
    ("container_memory_usage_bytes", "gauge", "Current memory usage in bytes, whenever it was accessed.", |stats| {
        stats.memory_usage
    }),
    ("container_memory_working_set_bytes", "gauge", "Current working set in bytes.", |stats| stats.memory_working_set),
    ("container_oom_events_total", "counter", "Count of out of memory events observed for the container", |stats| {
        stats.oom_kills
    }),
    ("container_processes", "gauge", "Number of processes running inside the container.", |stats| stats.processes),
    (
        "container_threads_max",
        "gauge",
        "Maximum number of threads allowed inside the container, infinity if value is zero",
        |stats| stats.pids.map(|_| stats.pids_limit.unwrap_or(0)),
    ),
];

/// What waited, in microseconds.
type Waited = fn(&Pressures) -> Option<u64>;

/// Pressure stall information (KEP-4205).
const PRESSURES: [(&str, &str, Waited); 6] = [
    (
        "container_pressure_cpu_stalled_seconds_total",
        "Total time duration no tasks in the container could make progress due to CPU congestion.",
        |all| all.cpu.map(|one| one.full.micros),
    ),
    (
        "container_pressure_cpu_waiting_seconds_total",
        "Total time duration tasks in the container have waited due to CPU congestion.",
        |all| all.cpu.map(|one| one.some.micros),
    ),
    (
        "container_pressure_io_stalled_seconds_total",
        "Total time duration no tasks in the container could make progress due to IO congestion.",
        |all| all.io.map(|one| one.full.micros),
    ),
    (
        "container_pressure_io_waiting_seconds_total",
        "Total time duration tasks in the container have waited due to IO congestion.",
        |all| all.io.map(|one| one.some.micros),
    ),
    (
        "container_pressure_memory_stalled_seconds_total",
        "Total time duration no tasks in the container could make progress due to memory congestion.",
        |all| all.memory.map(|one| one.full.micros),
    ),
    (
        "container_pressure_memory_waiting_seconds_total",
        "Total time duration tasks in the container have waited due to memory congestion.",
        |all| all.memory.map(|one| one.some.micros),
    ),
];

/// What was done with a block device.
type Done = fn(&DeviceIo) -> u64;

const DEVICES: [(&str, &str, Done); 4] = [
    ("container_fs_reads_bytes_total", "Cumulative count of bytes read", |io| io.read_bytes),
    ("container_fs_reads_total", "Cumulative count of reads completed", |io| io.reads),
    ("container_fs_writes_bytes_total", "Cumulative count of bytes written", |io| io.written_bytes),
    ("container_fs_writes_total", "Cumulative count of writes completed", |io| io.writes),
];

pub(super) fn render(snapshot: &Snapshot) -> String {
    let rows = rows(snapshot);
    let mut text = Exposition::default();
    for (name, help, of) in SECONDS {
        let nanos = rows.iter().filter_map(|row| Some((row, of(&row.reading.stats)?)));
        let samples = nanos.map(|(row, nanos)| row.sample(super::text::seconds(nanos)).at(snapshot.at));
        text.family(name, "counter", help, samples.collect());
    }
    for (name, kind, help, of) in COUNTS {
        let counts = rows.iter().filter_map(|row| Some((row, of(&row.reading.stats)?)));
        let samples = counts.map(|(row, count)| row.sample(count.to_string()).at(snapshot.at));
        text.family(name, kind, help, samples.collect());
    }
    for (name, help, of) in PRESSURES {
        let micros = rows.iter().filter_map(|row| Some((row, of(&row.reading.stats.pressures)?)));
        let seconds = |micros: u64| super::text::seconds(micros.saturating_mul(1000));
        let samples = micros.map(|(row, micros)| row.sample(seconds(micros)).at(snapshot.at));
        text.family(name, "counter", help, samples.collect());
    }
    failures(&rows, snapshot, &mut text);
    disks(&rows, snapshot, &mut text);
    let seen = rows.iter().map(|row| row.sample(moment(snapshot.at)).at(snapshot.at)).collect();
    text.family("container_last_seen", "gauge", "Last time a container was seen by the exporter.", seen);
    let tasks = rows.iter().filter_map(|row| Some(row.sample(row.reading.stats.pids?.to_string()).at(snapshot.at)));
    text.family("container_threads", "gauge", "Number of threads running inside the container.", tasks.collect());
    let started = rows.iter().filter_map(|row| Some(row.sample(moment(row.started?)).at(snapshot.at)));
    let help = "Start time of the container since unix epoch in seconds.";
    text.family("container_start_time_seconds", "gauge", help, started.collect());
    limits(&rows, &mut text);
    network(snapshot, &mut text);
    machine(snapshot, &mut text);
    text.finish()
}

impl Row<'_> {
    fn sample(&self, value: String) -> Sample {
        Sample { suffix: "", labels: self.labels.clone(), value, at: None }
    }
}

fn rows(snapshot: &Snapshot) -> Vec<Row<'_>> {
    let host = Row {
        labels: labels(("", "/"), "", None, ""),
        reading: &snapshot.host,
        started: snapshot.booted,
        limits: None,
    };
    let pods = snapshot.pods.iter().flat_map(|pod| {
        let whole = Row {
            labels: labels(("", &cgroup(pod, "")), "", Some(pod), ""),
            reading: &pod.reading,
            started: Some(pod.started),
            limits: None,
        };
        let each = pod.containers.iter().map(move |one| of_container(pod, one));
        std::iter::once(whole).chain(each)
    });
    std::iter::once(host).chain(pods).collect()
}

fn of_container<'a>(pod: &PodReading, container: &'a ContainerReading) -> Row<'a> {
    Row {
        labels: labels((&container.name, &cgroup(pod, &container.id)), &container.image, Some(pod), &container.id),
        reading: &container.reading,
        started: Some(container.started),
        limits: Some(container.limits),
    }
}

/// An id as dashboards take it apart: by its last part, and by `pod` and the UID.
fn cgroup(pod: &PodReading, container: &str) -> String {
    let end = if container.is_empty() { "" } else { "/" };
    format!("/kubepods/pod{}{end}{container}", pod.uid)
}

/// All labels, in the order of their names; those that do not apply are empty, as upstream.
fn labels(
    (container, id): (&str, &str),
    image: &str,
    pod: Option<&PodReading>,
    name: &str,
) -> Vec<(&'static str, String)> {
    let of = |part: fn(&PodReading) -> &str| pod.map(part).unwrap_or_default().to_owned();
    vec![
        ("container", container.to_owned()),
        ("id", id.to_owned()),
        ("image", image.to_owned()),
        ("name", name.to_owned()),
        ("namespace", of(|pod| &pod.namespace)),
        ("pod", of(|pod| &pod.name)),
    ]
}

fn failures(rows: &[Row<'_>], snapshot: &Snapshot, text: &mut Exposition) {
    let kinds: [(&str, Figure); 2] =
        [("pgfault", |stats| stats.page_faults), ("pgmajfault", |stats| stats.major_page_faults)];
    let samples = rows.iter().flat_map(|row| {
        kinds.iter().filter_map(|(kind, of)| {
            let mut sample = row.sample(of(&row.reading.stats)?.to_string()).at(snapshot.at);
            let more = [("failure_type", (*kind).to_owned()), ("scope", "hierarchy".to_owned())];
            sample.labels.extend(more);
            Some(sample)
        })
    });
    let help = "Cumulative count of memory allocation failures.";
    text.family("container_memory_failures_total", "counter", help, samples.collect());
}

/// What was read and written, by device; and what is on the node's disk.
fn disks(rows: &[Row<'_>], snapshot: &Snapshot, text: &mut Exposition) {
    let each = || rows.iter().flat_map(|row| row.reading.stats.io.iter().map(move |io| (row, io)));
    let name = |io: &DeviceIo| snapshot.machine.devices.get(&io.device).cloned().unwrap_or_default();
    let operations = each().flat_map(|(row, io)| {
        [("Read", io.read_bytes), ("Write", io.written_bytes)].map(|(operation, bytes)| {
            let mut sample = row.sample(bytes.to_string()).at(snapshot.at);
            sample.labels.insert(1, ("device", name(io)));
            let at = sample.labels.len() - 3;
            sample.labels.splice(at..at, [("major", io.device.0.to_string()), ("minor", io.device.1.to_string())]);
            sample.labels.insert(at + 4, ("operation", operation.to_owned()));
            sample
        })
    });
    let help = "Blkio Device bytes usage";
    text.family("container_blkio_device_usage_total", "counter", help, operations.collect());
    for (family, help, of) in DEVICES {
        let samples = each().map(|(row, io)| {
            let mut sample = row.sample(of(io).to_string()).at(snapshot.at);
            sample.labels.insert(1, ("device", name(io)));
            sample
        });
        text.family(family, "counter", help, samples.collect());
    }
    let Some(file_system) = &snapshot.file_system else { return };
    let figures = [
        ("container_fs_inodes_free", "Number of available Inodes", file_system.inodes_free),
        ("container_fs_inodes_total", "Number of Inodes", file_system.inodes),
        (
            "container_fs_limit_bytes",
            "Number of bytes that can be consumed by the container on this filesystem.",
            file_system.capacity,
        ),
        (
            "container_fs_usage_bytes",
            "Number of bytes that are consumed by the container on this filesystem.",
            file_system.used,
        ),
    ];
    for (family, help, value) in figures {
        let mut labels = labels(("", "/"), "", None, "");
        labels.insert(1, ("device", snapshot.device.clone()));
        text.family(
            family,
            "gauge",
            help,
            vec![Sample { suffix: "", labels, value: value.to_string(), at: Some(snapshot.at) }],
        );
    }
}

fn limits(rows: &[Row<'_>], text: &mut Exposition) {
    let limited = || rows.iter().filter_map(|row| Some((row, row.limits?)));
    let quota = limited().filter_map(|(row, limits)| Some(row.sample((limits.milli_cpu? * PERIOD / 1000).to_string())));
    text.family("container_spec_cpu_quota", "gauge", "CPU quota of the container.", quota.collect());
    let period = limited().filter(|(_, limits)| limits.milli_cpu.is_some());
    let period = period.map(|(row, _)| row.sample(PERIOD.to_string())).collect();
    text.family("container_spec_cpu_period", "gauge", "CPU period of the container.", period);
    // None is 0, as upstream.
    let memory = limited().map(|(row, limits)| row.sample(limits.memory.unwrap_or(0).to_string())).collect();
    text.family("container_spec_memory_limit_bytes", "gauge", "Memory limit for the container.", memory);
}

/// What passed through an interface, of one kind.
type Passed = fn(&Interface) -> u64;

const NETWORK: [(&str, &str, Passed); 8] = [
    ("container_network_receive_bytes_total", "Cumulative count of bytes received", |one| one.received.bytes),
    ("container_network_receive_errors_total", "Cumulative count of errors encountered while receiving", |one| {
        one.received.errors
    }),
    ("container_network_receive_packets_dropped_total", "Cumulative count of packets dropped while receiving", |one| {
        one.received.dropped
    }),
    ("container_network_receive_packets_total", "Cumulative count of packets received", |one| one.received.packets),
    ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", |one| one.sent.bytes),
    ("container_network_transmit_errors_total", "Cumulative count of errors encountered while transmitting", |one| {
        one.sent.errors
    }),
    (
        "container_network_transmit_packets_dropped_total",
        "Cumulative count of packets dropped while transmitting",
        |one| one.sent.dropped,
    ),
    ("container_network_transmit_packets_total", "Cumulative count of packets transmitted", |one| one.sent.packets),
];

fn network(snapshot: &Snapshot, text: &mut Exposition) {
    let host = snapshot.interfaces.iter().map(|one| (labels(("", "/"), "", None, ""), one));
    let pods = snapshot.pods.iter().filter_map(|pod| {
        let labels = labels(("", &cgroup(pod, "")), "", Some(pod), &pod.sandbox);
        Some((labels, pod.interface.as_ref()?))
    });
    let all: Vec<_> = host.chain(pods).collect();
    for (name, help, of) in NETWORK {
        let samples = all.iter().map(|(labels, interface)| {
            let mut labels = labels.clone();
            labels.insert(3, ("interface", interface.name.clone()));
            Sample { suffix: "", labels, value: of(interface).to_string(), at: Some(snapshot.at) }
        });
        text.family(name, "counter", help, samples.collect());
    }
}

fn machine(snapshot: &Snapshot, text: &mut Exposition) {
    let cores = vec![Sample::count(&[], snapshot.processors)];
    text.family("machine_cpu_cores", "gauge", "Number of logical CPU cores.", cores);
    let memory = vec![Sample::count(&[], snapshot.memory)];
    text.family("machine_memory_bytes", "gauge", "Amount of memory installed on the machine.", memory);
    let machine = &snapshot.machine;
    for (name, help, value) in [
        ("machine_cpu_physical_cores", "Number of physical CPU cores.", machine.cores),
        ("machine_cpu_sockets", "Number of CPU sockets.", machine.sockets),
        ("machine_swap_bytes", "Amount of swap memory available on the machine.", machine.swap),
        ("machine_scrape_error", "1 if there was an error while getting machine metrics, 0 otherwise.", 0),
    ] {
        text.family(name, "gauge", help, vec![Sample::count(&[], value)]);
    }
    let help = "1 if there was an error while getting container metrics, 0 otherwise.";
    text.family("container_scrape_error", "gauge", help, vec![Sample::count(&[], 0)]);
}
