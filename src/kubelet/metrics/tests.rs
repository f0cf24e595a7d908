//! One moment, rendered in all forms: golden files.

use std::path::PathBuf;
use std::time::Duration;

use runtime::{DeviceIo, Pressure, Pressures, Stalls, Stats};

use super::disk::{PodDisk, VolumeDisk};
use super::history::Rate;
use super::network::{Interface, Traffic};
use super::snapshot::{ContainerReading, FileSystem, Limits, Machine, PodReading, Reading, Snapshot};
use super::{cadvisor, resource, summary};
use crate::volumes::usage::Size;

const GIB: u64 = 1 << 30;

fn reading(factor: u64) -> Reading {
    let stats = Stats {
        cpu_nanos: Some(factor * 1_500_000_000),
        cpu_user_nanos: Some(factor * 1_000_000_000),
        cpu_system_nanos: Some(factor * 500_000_000),
        memory_usage: Some(factor * (10 << 20)),
        memory_working_set: Some(factor * (8 << 20)),
        memory_rss: Some(factor * (6 << 20)),
        memory_cache: Some(factor * (3 << 20)),
        memory_mapped: Some(factor * (1 << 20)),
        page_faults: Some(factor * 100),
        major_page_faults: Some(factor),
        pids: Some(factor),
        processes: Some(factor),
        ..Stats::default()
    };
    let rate = Rate { nano_cores: factor * 12_345_678, window: Duration::from_millis(15_250) };
    Reading { stats, rate: Some(rate) }
}

fn interface(name: &str, factor: u64) -> Interface {
    let side = |factor| Traffic { bytes: factor * 1000, packets: factor * 10, errors: 0, dropped: factor };
    Interface { name: name.to_owned(), received: side(factor), sent: side(factor + 1) }
}

fn file_system(gib: u64) -> FileSystem {
    FileSystem {
        available: gib / 2 * GIB,
        capacity: gib * GIB,
        used: (gib - gib / 2 - 1) * GIB,
        inodes_free: 900,
        inodes: 1000,
    }
}

fn pressure(factor: u32) -> Pressure {
    let stalls = |factor: u32| Stalls { micros: (factor * 1_500_000).into(), averages: [factor, factor * 10, 1234] };
    Pressure { some: stalls(factor * 2), full: stalls(factor) }
}

fn disk(at: jiff::Timestamp) -> PodDisk {
    let size = |bytes, files| Size { bytes, files };
    let volume = |name: &str, claim: Option<&str>, is_on_disk, used| VolumeDisk {
        name: name.to_owned(),
        claim: claim.map(str::to_owned),
        is_on_disk,
        at,
        used,
        file_system: file_system(20),
    };
    PodDisk {
        layers: [("server00000000".to_owned(), size(65_536, 3))].into(),
        logs: [("server".to_owned(), size(4096, 1))].into(),
        volumes: vec![
            volume("data", Some("db"), false, size(GIB, 500)),
            volume("scratch", None, true, size(8192, 2)),
            volume("memory", None, false, size(12_288, 4)),
        ],
    }
}

fn snapshot() -> Snapshot {
    let at = "2026-01-02T03:04:05.5Z".parse().unwrap();
    let started = "2026-01-02T03:00:00Z".parse().unwrap();
    let throttled = Stats {
        cpu_periods: Some(20),
        cpu_throttled_periods: Some(5),
        cpu_throttled_nanos: Some(250_000_000),
        memory_peak: Some(20 << 20),
        memory_swap: Some(0),
        oom_kills: Some(1),
        pids_limit: Some(100),
        pressures: Pressures { cpu: Some(pressure(1)), memory: Some(pressure(2)), io: Some(pressure(3)) },
        io: vec![
            DeviceIo { device: (254, 0), read_bytes: 4096, written_bytes: 8192, reads: 1, writes: 2 },
            DeviceIo { device: (7, 1), read_bytes: 512, ..DeviceIo::default() },
        ],
        ..reading(2).stats
    };
    let container = |name: &str, stats, limits| ContainerReading {
        name: name.to_owned(),
        id: format!("{name}{}", "0".repeat(8)),
        image: "registry.example/web:1".to_owned(),
        started,
        reading: Reading { stats, ..reading(2) },
        logs: 4096,
        limits,
    };
    let limits = Limits { milli_cpu: Some(500), memory: Some(64 << 20) };
    let pod = PodReading {
        namespace: "default".to_owned(),
        name: "web".to_owned(),
        uid: "11111111-2222-3333-4444-555555555555".to_owned(),
        sandbox: "11111111-2222-3333-4444-555555555555-0".to_owned(),
        started,
        reading: reading(3),
        interface: Some(interface("eth0", 7)),
        containers: vec![
            container("server", throttled, limits),
            container("side", reading(1).stats, Limits::default()),
        ],
        disk: Some(disk(at)),
    };
    let bare = PodReading {
        name: "host".to_owned(),
        uid: "u".to_owned(),
        interface: None,
        containers: Vec::new(),
        disk: None,
        ..pod.clone()
    };
    Snapshot {
        at,
        node: "n1".to_owned(),
        booted: Some("2026-01-01T00:00:00Z".parse().unwrap()),
        processors: 2,
        memory: 4 * GIB,
        host: reading(100),
        interfaces: vec![interface("eth0", 1), interface("eth1", 3)],
        file_system: Some(file_system(10)),
        device: "/dev/vda".to_owned(),
        tasks: Some((32_768, 321)),
        machine: Machine {
            cores: 1,
            sockets: 1,
            swap: GIB,
            devices: [((254, 0), "/dev/vda".to_owned()), ((7, 1), "/dev/loop1".to_owned())].into(),
        },
        pods: vec![bare, pod],
    }
}

#[track_caller]
fn golden(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/metrics").join(name);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap_or_default(), "{name}");
}

#[test]
fn a_moment_is_rendered_as_a_summary() {
    let document = summary::render(&snapshot());
    golden("summary.json", &format!("{}\n", serde_json::to_string_pretty(&document).unwrap()));
}

#[test]
fn a_moment_is_rendered_for_scrapers() {
    golden("resource.txt", &resource::render(&snapshot()));
    golden("cadvisor.txt", &cadvisor::render(&snapshot()));
}

#[test]
fn what_is_not_known_is_left_out() {
    let unknown = Reading { stats: Stats::default(), rate: None };
    let mut snapshot = Snapshot { host: unknown, file_system: None, interfaces: Vec::new(), ..snapshot() };
    snapshot.pods.clear();
    let document = summary::render(&snapshot).to_string();
    assert!(!document.contains("usageNanoCores") && !document.contains("usageBytes"), "{document}");
    let text = resource::render(&snapshot);
    assert!(!text.contains("node_cpu") && text.contains("resource_scrape_error 0"), "{text}");
}
