//! Limits and shares of containers: changed while they run, and kept when there is less than all of them want.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use oci::cgroup::{Controller, Group, Hierarchies};

use super::host::{Host, host, shell};
use super::stop;
use crate::*;

const MIB: i64 = 1 << 20;

/// A file of a container's group, by its names on v1 and v2; none where the host lacks the controller.
fn limit(host: &Host, path: &str, controller: Controller, files: [&str; 2]) -> Option<String> {
    let found = Hierarchies::detect().unwrap();
    let v1 = found.v1.iter().find(|v1| v1.controllers.contains(&controller)).map(|v1| v1.mount.join(host.cgroup()));
    let v2 = || found.v2.as_ref().map(|v2| v2.mount.join(host.cgroup()));
    let file: PathBuf = match v1 {
        Some(mount) => mount.join(path).join(files[0]),
        None => v2()?.join(path).join(files[1]),
    };
    fs::read_to_string(file).ok().map(|text| text.trim().to_owned())
}

fn memory(host: &Host, path: &str) -> Option<String> {
    limit(host, path, Controller::Memory, ["memory.limit_in_bytes", "memory.max"])
}

fn cpu(host: &Host, path: &str) -> Option<String> {
    limit(host, path, Controller::Cpu, ["cpu.cfs_quota_us", "cpu.max"])
}

#[tokio::test]
async fn a_running_container_is_given_other_limits_and_keeps_what_it_uses() {
    let Some(host) = host("a_running_container_is_given_other_limits_and_keeps_what_it_uses").await else { return };
    let size = |memory: i64, quota: Option<i64>| Resources {
        memory_limit: Some(memory),
        cpu_quota: quota,
        cpu_period: quota.map(|_| 100_000),
        ..Resources::default()
    };
    let both = |memory: i64, quota: Option<i64>| Resize { pod: size(memory, quota), container: size(memory, quota) };
    let mut spec = host.sandbox("sized");
    spec.resources = size(64 * MIB, Some(20_000));
    host.runtime.create_sandbox(spec.clone()).await.unwrap();
    let script = "dd if=/dev/zero of=/dev/shm/held bs=1M count=24 2>/dev/null; echo ready; exec sleep 1000";
    let container = ContainerSpec { resources: spec.resources, ..shell("main", script) };
    host.runtime.start_container(&spec.id, container.clone()).await.unwrap();
    host.logged(&spec.id, &container.id, "ready").await;
    let own = format!("podsized/{}", container.id.0);
    let Some(before) = memory(&host, &own) else { return };
    assert_eq!(before, (64 * MIB).to_string());

    host.runtime.resize_container(&spec.id, &container.id, both(128 * MIB, None)).await.unwrap();
    for path in ["podsized", own.as_str()] {
        assert_eq!(memory(&host, path), Some((128 * MIB).to_string()), "{path}");
        let quota = cpu(&host, path).unwrap();
        assert!(quota == "-1" || quota.starts_with("max"), "{path}: {quota}");
    }
    host.runtime.resize_container(&spec.id, &container.id, both(96 * MIB, Some(50_000))).await.unwrap();
    assert_eq!(memory(&host, &own), Some((96 * MIB).to_string()));
    assert!(cpu(&host, &own).unwrap().starts_with("50000"));

    // A pod cannot have less than its container at any moment, whatever else grows.
    host.runtime.resize_container(&spec.id, &container.id, both(128 * MIB, Some(10_000))).await.unwrap();
    for path in ["podsized", own.as_str()] {
        assert!(cpu(&host, path).unwrap().starts_with("10000"), "{path}");
    }
    host.runtime.resize_container(&spec.id, &container.id, both(96 * MIB, Some(50_000))).await.unwrap();

    let refused = host.runtime.resize_container(&spec.id, &container.id, both(8 * MIB, None)).await;
    assert!(refused.is_err(), "it uses more than that");
    assert_eq!(memory(&host, &own), Some((96 * MIB).to_string()));
    assert!(matches!(host.container(&spec.id, &container.id).await.state, ContainerState::Running { .. }));

    host.runtime.stop_container(&spec.id, &container.id, stop(0)).await.unwrap();
    host.exit(&spec.id, &container.id).await;
    let gone = host.runtime.resize_container(&spec.id, &container.id, both(96 * MIB, None)).await;
    assert!(matches!(gone, Err(RuntimeError::NoContainer { .. })), "{gone:?}");
    host.runtime.remove_sandbox(&spec.id).await.unwrap();
}

#[tokio::test]
async fn groups_above_those_of_pods_have_limits_whenever_they_come_to_be() {
    let Some(host) = host("groups_above_those_of_pods_have_limits_whenever_they_come_to_be").await else { return };
    let wanted = |shares: u64| {
        let class = Resources { cpu_shares: Some(shares), ..Resources::default() };
        let all = Resources { cpu_shares: Some(2048), memory_limit: Some(512 * MIB), ..Resources::default() };
        [(host.cgroup().to_owned(), all), (host.cgroup().join("class"), class)].into_iter().collect()
    };
    let shares = |path: &str| limit(&host, path, Controller::Cpu, ["cpu.shares", "cpu.weight"]);
    // As both worlds write it.
    let is = |found: Option<String>, shares: &str, weight: &str| found.is_none_or(|own| own == shares || own == weight);
    host.runtime.limit_groups(wanted(512)).await.unwrap();
    assert_eq!(shares(""), None, "nothing is made before there is a pod");
    let mut spec = host.sandbox("classed");
    spec.cgroup = host.cgroup().join("class/podclassed");
    for _ in 0..2 {
        host.runtime.limit_groups(wanted(512)).await.unwrap();
        host.runtime.create_sandbox(spec.clone()).await.unwrap();
        assert!(is(shares(""), "2048", "79"), "{:?}", shares(""));
        assert!(is(shares("class"), "512", "20"), "{:?}", shares("class"));
        let memory = memory(&host, "");
        assert!(memory.is_none() || memory == Some((512 * MIB).to_string()), "{memory:?}");
        host.runtime.limit_groups(wanted(1024)).await.unwrap();
        assert!(is(shares("class"), "1024", "39"), "{:?}", shares("class"));
        host.runtime.remove_sandbox(&spec.id).await.unwrap();
        assert_eq!(shares(""), None, "they go with the last pod");
    }
}

#[tokio::test]
async fn huge_pages_are_limited_where_the_kernel_counts_them() {
    let Some(host) = host("huge_pages_are_limited_where_the_kernel_counts_them").await else { return };
    let sizes = |of: i64| Resources { huge_pages: [(2 << 20, of)].into(), ..Resources::default() };
    let mut spec = host.sandbox("huge");
    spec.resources = sizes(4 * MIB);
    host.runtime.create_sandbox(spec.clone()).await.unwrap();
    let container = ContainerSpec { resources: sizes(0), ..shell("main", "exec sleep 1000") };
    host.runtime.start_container(&spec.id, container.clone()).await.unwrap();
    let of = |path: &str| limit(&host, path, Controller::Hugetlb, ["hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max"]);
    if let Some(limit) = of("podhuge") {
        assert_eq!(limit, (4 * MIB).to_string());
        assert_eq!(of(&format!("podhuge/{}", container.id.0)).as_deref(), Some("0"));
    }
    host.runtime.remove_sandbox(&spec.id).await.unwrap();
}

#[tokio::test]
async fn busy_containers_share_a_processor_as_their_requests_say() {
    let Some(host) = host("busy_containers_share_a_processor_as_their_requests_say").await else { return };
    let spec = host.sandbox("busy");
    host.runtime.create_sandbox(spec.clone()).await.unwrap();
    // On one processor, so that there is something to share wherever this runs.
    let script = "echo ready; exec taskset 1 sh -c 'while :; do :; done'";
    // 100m and 300m, as kubelets write them.
    let containers = [102, 307].map(|shares| {
        let resources = Resources { cpu_shares: Some(shares), ..Resources::default() };
        ContainerSpec { resources, ..shell(&format!("shares-{shares}"), script) }
    });
    for container in &containers {
        host.runtime.start_container(&spec.id, container.clone()).await.unwrap();
        host.logged(&spec.id, &container.id, "ready").await;
    }
    let found = Hierarchies::detect().unwrap();
    if cpu(&host, &format!("podbusy/{}", containers[0].id.0)).is_none() {
        return;
    }
    let used = || {
        containers.each_ref().map(|container| {
            let path = host.cgroup().join("podbusy").join(&container.id.0);
            Group::new(&found, &path).unwrap().stats().unwrap().cpu_nanos.unwrap()
        })
    };
    let begun = used();
    // So much work, however long it takes.
    let [less, more] = loop {
        let now = used();
        let done = [now[0] - begun[0], now[1] - begun[1]];
        if done[0] + done[1] > 1_000_000_000 {
            break done;
        }
        for container in &containers {
            // Panics if it has ended, for want of `taskset` say.
            host.pid(&spec.id, &container.id).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(more > less * 2 && more < less * 4, "{less} and {more} ns of CPU time for 1 and 3 parts");
    host.runtime.remove_sandbox(&spec.id).await.unwrap();
}
