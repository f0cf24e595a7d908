//! config-linux.md, "Namespaces", "User namespace mappings" and "Offset for Time Namespace".

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::stage::Stage;

/// Types of the specification, what `/proc/PID/ns` calls them.
const KINDS: &[(&str, &str)] =
    &[("pid", "pid"), ("network", "net"), ("mount", "mnt"), ("ipc", "ipc"), ("uts", "uts"), ("cgroup", "cgroup")];

fn link(path: impl AsRef<Path>) -> String {
    fs::read_link(path).unwrap().display().to_string()
}

fn namespaces(of: &[&str]) -> Value {
    of.iter().map(|kind| json!({"type": kind})).collect()
}

fn inside(stage: &mut Stage) -> Vec<String> {
    stage
        .output("cd /proc/self/ns; for n in pid net mnt ipc uts cgroup; do readlink $n; done")
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_listed_namespace_is_new() {
    let Some(mut stage) = Stage::new() else { return };
    let kinds: Vec<&str> = KINDS.iter().map(|(kind, _)| *kind).collect();
    stage.patch(&json!({"linux": {"namespaces": namespaces(&kinds)}}));
    let seen = inside(&mut stage);
    assert_eq!(seen.len(), KINDS.len());
    for ((kind, name), own) in KINDS.iter().zip(seen) {
        assert_ne!(own, link(format!("/proc/self/ns/{name}")), "{kind}");
    }
}

#[test]
fn a_namespace_that_is_not_listed_is_inherited() {
    let Some(mut stage) = Stage::new() else { return };
    stage.patch(&json!({"linux": {"namespaces": namespaces(&["mount"])}}));
    for ((kind, name), own) in KINDS.iter().zip(inside(&mut stage)) {
        assert_eq!(own == link(format!("/proc/self/ns/{name}")), *kind != "mount", "{kind}");
    }
}

/// Runs a second container in a namespace of a first one; whether both are in the same.
fn joins(kind: &str, name: &str) -> Option<bool> {
    let (mut holder, mut stage) = (Stage::new()?, Stage::new()?);
    let kinds: Vec<&str> = KINDS.iter().map(|(kind, _)| *kind).collect();
    holder.patch(&json!({"linux": {"namespaces": namespaces(&kinds)}}));
    let container = holder.start_waiting();
    let path = container.proc(&format!("ns/{name}"));
    let mut all: Vec<Value> = ["pid", "mount", "ipc", "uts"]
        .iter()
        .filter(|other| **other != kind)
        .map(|kind| json!({"type": kind}))
        .collect();
    all.push(json!({"type": kind, "path": path}));
    stage.patch(&json!({"linux": {"namespaces": all}}));
    let other = stage.start_waiting();
    Some(link(other.proc(&format!("ns/{name}"))) == link(path))
}

#[test]
fn a_network_namespace_is_joined_by_path() {
    assert_ne!(joins("network", "net"), Some(false));
}

#[test]
fn an_ipc_namespace_is_joined_by_path() {
    assert_ne!(joins("ipc", "ipc"), Some(false));
}

#[test]
fn an_uts_namespace_is_joined_by_path() {
    assert_ne!(joins("uts", "uts"), Some(false));
}

#[test]
fn a_pid_namespace_is_joined_by_path() {
    assert_ne!(joins("pid", "pid"), Some(false));
}

#[test]
fn a_cgroup_namespace_is_joined_by_path() {
    assert_ne!(joins("cgroup", "cgroup"), Some(false));
}

#[test]
fn a_path_of_another_type_is_refused() {
    let Some(mut stage) = Stage::new() else { return };
    stage.push("/linux/namespaces", json!({"type": "network", "path": "/proc/self/ns/uts"}));
    stage.run().fails();
}

#[test]
fn a_path_that_is_no_namespace_is_refused() {
    for path in ["/proc/self/status", "/absent"] {
        let Some(mut stage) = Stage::new() else { return };
        stage.push("/linux/namespaces", json!({"type": "network", "path": path}));
        stage.run().fails();
    }
}

#[test]
fn a_type_that_is_listed_twice_is_refused() {
    let Some(mut stage) = Stage::new() else { return };
    stage.push("/linux/namespaces", json!({"type": "uts"}));
    stage.try_create().fails();
}

#[test]
fn an_unknown_type_is_refused() {
    let Some(mut stage) = Stage::new() else { return };
    stage.push("/linux/namespaces", json!({"type": "novelty"}));
    stage.try_create().fails();
}

fn map(host: u32) -> Value {
    json!([{"containerID": 0, "hostID": host, "size": 65536}])
}

fn in_user_namespace(stage: &mut Stage) {
    stage.push("/linux/namespaces", json!({"type": "user"}));
    // Only who owns the network namespace may mount sysfs.
    stage.push("/linux/namespaces", json!({"type": "network"}));
    stage.patch(&json!({"linux": {"uidMappings": map(100_000), "gidMappings": map(200_000)}}));
    std::os::unix::fs::chown(stage.rootfs(""), Some(100_000), Some(200_000)).unwrap();
    std::os::unix::fs::chown(stage.rootfs("tmp"), Some(100_000), Some(200_000)).unwrap();
}

#[test]
fn a_user_namespace_has_the_configured_mappings() {
    let Some(mut stage) = Stage::new() else { return };
    in_user_namespace(&mut stage);
    let seen = stage.output("cat /proc/self/uid_map /proc/self/gid_map | tr -s ' ' | sed 's/^ //'; id -u; id -g");
    assert_eq!(seen, "0 100000 65536\n0 200000 65536\n0\n0");
}

#[test]
fn files_of_a_user_namespace_belong_to_mapped_users_on_the_host() {
    let Some(mut stage) = Stage::new() else { return };
    in_user_namespace(&mut stage);
    stage.output("echo x >/tmp/file; chown 5:6 /tmp/file");
    let meta = fs::metadata(stage.rootfs("tmp/file")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (100_005, 200_006));
}

#[test]
fn a_user_of_a_user_namespace_is_one_of_the_container() {
    let Some(mut stage) = Stage::new() else { return };
    in_user_namespace(&mut stage);
    stage.patch(&json!({"process": {"user": {"uid": 12, "gid": 34, "additionalGids": [56]}}}));
    let container = stage.start_waiting();
    let status = fs::read_to_string(container.proc("status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!(
        (field("Uid:"), field("Gid:"), field("Groups:")),
        ("100012".to_owned(), "200034".to_owned(), "200056".to_owned())
    );
}

#[test]
fn default_devices_work_in_a_user_namespace() {
    let Some(mut stage) = Stage::new() else { return };
    in_user_namespace(&mut stage);
    assert_eq!(
        stage.output("echo x >/dev/null && head -c 3 /dev/urandom | wc -c && stat -c %t:%T /dev/full"),
        "3\n1:7"
    );
}

#[test]
fn a_time_namespace_has_the_configured_offsets() {
    let Some(mut stage) = Stage::new() else { return };
    stage.push("/linux/namespaces", json!({"type": "time"}));
    stage.patch(&json!({"linux": {"timeOffsets": {"boottime": {"secs": 1_000_000, "nanosecs": 0}, "monotonic": {"secs": 86400}}}}));
    let seen = stage.output("tr -s ' \\t' ' ' </proc/self/timens_offsets; cut -d. -f1 /proc/uptime");
    let lines: Vec<&str> = seen.lines().map(str::trim).collect();
    assert_eq!(&lines[..2], ["monotonic 86400 0", "boottime 1000000 0"]);
    assert!(lines[2].parse::<u64>().unwrap() > 1_000_000, "{seen}");
}
