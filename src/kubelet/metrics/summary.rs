//! `/stats/summary`: `k8s.io/kubelet/pkg/apis/stats/v1alpha1`.
//!
//! One field more than upstream: `cpu.window`, the span that `usageNanoCores` is the average of, so that what is made of it
//! (`metrics.k8s.io`) can tell.

use std::time::Duration;

use runtime::{Pressure, Stalls};
use serde_json::{Map, Value, json};

use super::disk::{PodDisk, VolumeDisk};
use super::network::Interface;
use super::snapshot::{ContainerReading, FileSystem, PodReading, Reading, Snapshot};
use crate::volumes::usage::Size;

/// The document.
pub(super) fn render(snapshot: &Snapshot) -> Value {
    let at = snapshot.at.to_string();
    let mut node = json!({
        "nodeName": snapshot.node,
        "startTime": snapshot.booted.unwrap_or(snapshot.at).to_string(),
        "cpu": cpu(&snapshot.host, &at),
        "memory": memory(&snapshot.host, &at, Some(snapshot.memory)),
    });
    if let Some(swap) = swap(&snapshot.host, &at, Some(snapshot.machine.swap)) {
        node["swap"] = swap;
    }
    if let Some(io) = io(&snapshot.host, &at) {
        node["io"] = io;
    }
    if let Some((most, now)) = snapshot.tasks {
        node["rlimit"] = json!({ "time": at, "maxpid": most, "curproc": now });
    }
    if let Some(first) = snapshot.interfaces.first() {
        node["network"] = network(first, &snapshot.interfaces, &at);
    }
    if let Some(file_system) = &snapshot.file_system {
        node["fs"] = shared(file_system, &at);
        node["runtime"] = json!({ "imageFs": shared(file_system, &at), "containerFs": shared(file_system, &at) });
    }
    let pods: Vec<Value> = snapshot.pods.iter().map(|one| pod(one, snapshot, &at)).collect();
    json!({ "node": node, "pods": pods })
}

fn pod(pod: &PodReading, snapshot: &Snapshot, at: &str) -> Value {
    let containers: Vec<Value> =
        pod.containers.iter().map(|one| container(one, pod.disk.as_ref(), snapshot, at)).collect();
    let mut value = json!({
        "podRef": { "name": pod.name, "namespace": pod.namespace, "uid": pod.uid },
        "startTime": pod.started.to_string(),
        "containers": containers,
        "cpu": cpu(&pod.reading, at),
        "memory": memory(&pod.reading, at, None),
    });
    if let Some(swap) = swap(&pod.reading, at, None) {
        value["swap"] = swap;
    }
    if let Some(io) = io(&pod.reading, at) {
        value["io"] = io;
    }
    if let Some(disk) = &pod.disk {
        if !disk.volumes.is_empty() {
            value["volume"] = disk.volumes.iter().map(|one| volume(one, &pod.namespace)).collect();
        }
        if let Some(file_system) = &snapshot.file_system {
            value["ephemeral-storage"] = used(file_system, disk.ephemeral(), at);
        }
    }
    if let Some(interface) = &pod.interface {
        value["network"] = network(interface, std::slice::from_ref(interface), at);
    }
    if let Some(pids) = pod.reading.stats.pids {
        value["process_stats"] = json!({ "process_count": pids });
    }
    value
}

fn container(container: &ContainerReading, disk: Option<&PodDisk>, snapshot: &Snapshot, at: &str) -> Value {
    let mut value = json!({
        "name": container.name,
        "startTime": container.started.to_string(),
        "cpu": cpu(&container.reading, at),
        "memory": memory(&container.reading, at, container.limits.memory),
    });
    if let Some(swap) = swap(&container.reading, at, None) {
        value["swap"] = swap;
    }
    if let Some(io) = io(&container.reading, at) {
        value["io"] = io;
    }
    if let Some(file_system) = &snapshot.file_system {
        // How long a log is, is known without a walk.
        let logs = disk.and_then(|disk| disk.logs.get(&container.name));
        value["logs"] = used(file_system, Size { bytes: container.logs, files: logs.map_or(0, |logs| logs.files) }, at);
        if logs.is_none() {
            value["logs"].as_object_mut().and_then(|logs| logs.remove("inodesUsed"));
        }
        if let Some(layer) = disk.and_then(|disk| disk.layers.get(&container.id)) {
            value["rootfs"] = used(file_system, *layer, at);
        }
    }
    value
}

fn volume(volume: &VolumeDisk, namespace: &str) -> Value {
    let mut value = used(&volume.file_system, volume.used, &volume.at.to_string());
    value["name"] = volume.name.as_str().into();
    if let Some(claim) = &volume.claim {
        value["pvcRef"] = json!({ "name": claim, "namespace": namespace });
    }
    value
}

/// A part of a file system.
fn used(file_system: &FileSystem, size: Size, at: &str) -> Value {
    let mut value = shared(file_system, at);
    (value["usedBytes"], value["inodesUsed"]) = (size.bytes.into(), size.files.into());
    value
}

fn cpu(reading: &Reading, at: &str) -> Value {
    let mut value = Map::from_iter([("time".to_owned(), at.into())]);
    if let Some(rate) = reading.rate {
        value.insert("usageNanoCores".to_owned(), rate.nano_cores.into());
        value.insert("window".to_owned(), span(rate.window).into());
    }
    if let Some(nanos) = reading.stats.cpu_nanos {
        value.insert("usageCoreNanoSeconds".to_owned(), nanos.into());
    }
    if let Some(pressure) = &reading.stats.pressures.cpu {
        value.insert("psi".to_owned(), psi(pressure));
    }
    Value::Object(value)
}

/// `available` is what is left of a limit without the working set.
fn memory(reading: &Reading, at: &str, limit: Option<u64>) -> Value {
    let stats = &reading.stats;
    let available = limit.zip(stats.memory_working_set).map(|(limit, used)| limit.saturating_sub(used));
    let fields = [
        ("availableBytes", available),
        ("usageBytes", stats.memory_usage),
        ("workingSetBytes", stats.memory_working_set),
        ("rssBytes", stats.memory_rss),
        ("pageFaults", stats.page_faults),
        ("majorPageFaults", stats.major_page_faults),
    ];
    let mut value = Map::from_iter([("time".to_owned(), at.into())]);
    value.extend(fields.into_iter().filter_map(|(name, number)| Some((name.to_owned(), number?.into()))));
    if let Some(pressure) = &stats.pressures.memory {
        value.insert("psi".to_owned(), psi(pressure));
    }
    Value::Object(value)
}

fn swap(reading: &Reading, at: &str, whole: Option<u64>) -> Option<Value> {
    let used = reading.stats.memory_swap?;
    let mut value = json!({ "time": at, "swapUsageBytes": used });
    if let Some(whole) = whole {
        value["swapAvailableBytes"] = whole.saturating_sub(used).into();
    }
    Some(value)
}

/// Upstream tells of nothing but what waited.
fn io(reading: &Reading, at: &str) -> Option<Value> {
    reading.stats.pressures.io.as_ref().map(|pressure| json!({ "time": at, "psi": psi(pressure) }))
}

/// Nanoseconds and percent, as `PSIStats` has them.
fn psi(pressure: &Pressure) -> Value {
    let of = |stalls: &Stalls| {
        let [ten, sixty, all] = stalls.averages.map(|hundredths| f64::from(hundredths) / 100.0);
        json!({ "total": stalls.micros.saturating_mul(1000), "avg10": ten, "avg60": sixty, "avg300": all })
    };
    json!({ "full": of(&pressure.full), "some": of(&pressure.some) })
}

fn network(main: &Interface, all: &[Interface], at: &str) -> Value {
    let of = |one: &Interface| {
        json!({
            "name": one.name,
            "rxBytes": one.received.bytes,
            "rxErrors": one.received.errors,
            "txBytes": one.sent.bytes,
            "txErrors": one.sent.errors,
        })
    };
    let mut value = of(main);
    value["time"] = at.into();
    value["interfaces"] = all.iter().map(of).collect();
    value
}

/// A file system that others use as well.
fn shared(file_system: &FileSystem, at: &str) -> Value {
    json!({
        "time": at,
        "availableBytes": file_system.available,
        "capacityBytes": file_system.capacity,
        "usedBytes": file_system.used,
        "inodesFree": file_system.inodes_free,
        "inodes": file_system.inodes,
        "inodesUsed": file_system.inodes.saturating_sub(file_system.inodes_free),
    })
}

/// A span as Go writes it (`time.Duration.String`), to milliseconds.
fn span(span: Duration) -> String {
    let (minutes, millis) = (span.as_secs() / 60, span.as_millis() % 60_000);
    let seconds = format!("{}.{:03}", millis / 1000, millis % 1000);
    let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_written_as_go_writes_them() {
        let shown = |millis| span(Duration::from_millis(millis));
        assert_eq!((shown(15_000), shown(14_987), shown(500)), ("15s".into(), "14.987s".into(), "0.5s".into()));
        assert_eq!((shown(60_000), shown(3_661_100)), ("1m0s".into(), "1h1m1.1s".into()));
    }
}
