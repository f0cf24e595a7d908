//! `cgroupsPath` and `resources` of config-linux.md, "Control groups", read back from the host's files in either version.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::stage::{Container, Stage};

/// A mounted cgroup file system of the host.
pub(crate) struct Hierarchy {
    pub(crate) root: PathBuf,
    /// Controllers of version 1, `None` for version 2.
    controllers: Option<Vec<String>>,
}

/// Those that this process sees mounted: proc_pid_mountinfo(5).
pub(crate) fn hierarchies() -> Vec<Hierarchy> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let read = |line: &str| {
        let (mount, system) = line.split_once(" - ")?;
        let root = PathBuf::from(mount.split(' ').nth(4)?);
        let system: Vec<&str> = system.split(' ').collect();
        match system[..] {
            ["cgroup2", ..] => Some(Hierarchy { root, controllers: None }),
            ["cgroup", _, options] => {
                Some(Hierarchy { root, controllers: Some(options.split(',').map(str::to_owned).collect()) })
            }
            _ => None,
        }
    };
    table.lines().filter_map(read).collect()
}

/// Whether the host has version 2 alone.
fn unified() -> bool {
    hierarchies().iter().all(|hierarchy| hierarchy.controllers.is_none())
}

/// The directory of a container's cgroup that has a controller.
fn directory(stage: &Stage, controller: &str) -> PathBuf {
    let has = |hierarchy: &Hierarchy| match &hierarchy.controllers {
        Some(controllers) => controllers.iter().any(|name| name == controller),
        None => unified(),
    };
    let found = hierarchies().into_iter().find(has).expect("the host has the controller");
    found.root.join(&stage.id)
}

/// A file of a controller: its name in version 1 and in version 2.
#[track_caller]
fn read(stage: &Stage, controller: &str, first: &str, second: &str) -> String {
    let name = if unified() { second } else { first };
    fs::read_to_string(directory(stage, controller).join(name)).unwrap().trim().to_owned()
}

fn created_with(resources: &Value) -> Option<(Stage, Container)> {
    let mut stage = Stage::new()?;
    stage.patch(&json!({"linux": {"resources": resources}}));
    let container = stage.create();
    Some((stage, container))
}

/// Either text, by the version of the host.
fn by_version<'a>(first: &'a str, second: &'a str) -> &'a str {
    if unified() { second } else { first }
}

#[test]
fn the_process_is_in_the_configured_cgroup() {
    let Some((stage, container)) = created_with(&json!({})) else { return };
    for controller in ["memory", "pids", "cpu", "devices"] {
        if controller == "devices" && unified() {
            continue;
        }
        let text = fs::read_to_string(directory(&stage, controller).join("cgroup.procs")).unwrap();
        assert!(text.lines().any(|pid| pid == container.pid().to_string()), "{controller}: {text}");
    }
}

#[test]
fn children_are_in_the_configured_cgroup() {
    let Some(mut stage) = Stage::new() else { return };
    let mut container = stage.start("sleep 1000 & sleep 1000 & echo both; exec cat");
    assert_eq!(container.line(), "both");
    let text = read(&stage, "pids", "cgroup.procs", "cgroup.procs");
    assert_eq!(text.lines().count(), 3, "two sleepers and cat: {text}");
}

#[test]
fn a_nested_path_is_made_and_the_containers_part_is_removed() {
    let Some(mut stage) = Stage::new() else { return };
    stage.patch(&json!({"linux": {"cgroupsPath": format!("/{}/a/b", stage.id)}}));
    let container = stage.create();
    let own = directory(&stage, "pids").join("a/b");
    assert_eq!(fs::read_to_string(own.join("cgroup.procs")).unwrap().trim(), container.pid().to_string());
    drop(container);
    assert!(!own.exists());
}

#[test]
fn the_same_relative_path_is_the_same_place() {
    let Some(mut stage) = Stage::new() else { return };
    stage.patch(&json!({"linux": {"cgroupsPath": stage.id}}));
    let mut places = Vec::new();
    for _ in 0..2 {
        let container = stage.create();
        let lines = fs::read_to_string(container.proc("cgroup")).unwrap();
        let pids = lines.lines().find(|line| line.contains(":pids:") || line.starts_with("0::") && unified());
        places.push(pids.unwrap().to_owned());
    }
    assert!(places[0].contains(&stage.id), "{places:?}");
    assert_eq!(places[0], places[1]);
}

#[test]
fn a_container_without_a_path_has_a_cgroup_that_delete_removes() {
    let Some(mut stage) = Stage::new() else { return };
    stage.patch(&json!({"linux": {"cgroupsPath": null, "resources": {"pids": {"limit": 50}}}}));
    let container = stage.create();
    let lines = fs::read_to_string(container.proc("cgroup")).unwrap();
    let line = lines.lines().find(|line| line.contains(":pids:") || line.starts_with("0::") && unified()).unwrap();
    let path = line.rsplit_once(':').unwrap().1.trim_start_matches('/').to_owned();
    let root = directory(&stage, "pids").parent().unwrap().to_owned();
    let own = root.join(&path);
    assert_eq!(fs::read_to_string(own.join("pids.max")).unwrap().trim(), "50", "{path}");
    drop(container);
    assert!(!own.exists());
}

#[test]
fn memory_is_limited_as_configured() {
    let Some((stage, _container)) = created_with(&json!({"memory": {"limit": 67_108_864}})) else { return };
    assert_eq!(read(&stage, "memory", "memory.limit_in_bytes", "memory.max"), "67108864");
}

#[test]
fn memory_is_reserved_as_configured() {
    let Some((stage, _container)) = created_with(&json!({"memory": {"reservation": 33_554_432}})) else { return };
    assert_eq!(read(&stage, "memory", "memory.soft_limit_in_bytes", "memory.low"), "33554432");
}

#[test]
fn memory_with_swap_is_limited_as_configured() {
    let memory = json!({"limit": 67_108_864, "swap": 100_663_296});
    let Some((stage, _container)) = created_with(&json!({"memory": memory})) else { return };
    let seen = read(&stage, "memory", "memory.memsw.limit_in_bytes", "memory.swap.max");
    // Version 2 limits swap by itself.
    assert_eq!(seen, by_version("100663296", "33554432"));
}

#[test]
fn a_swappiness_is_set_or_refused() {
    let Some(mut stage) = Stage::new() else { return };
    stage.patch(&json!({"linux": {"resources": {"memory": {"swappiness": 35}}}}));
    if unified() {
        // Version 2 has no such file.
        stage.try_create().fails();
        return;
    }
    let _container = stage.create();
    assert_eq!(read(&stage, "memory", "memory.swappiness", ""), "35");
}

#[test]
fn unlimited_memory_is_minus_one() {
    let Some((stage, _container)) = created_with(&json!({"memory": {"limit": -1}})) else { return };
    assert_eq!(read(&stage, "memory", "memory.limit_in_bytes", "memory.max"), by_version("9223372036854771712", "max"));
}

#[test]
fn the_number_of_processes_is_limited_as_configured() {
    let Some((stage, _container)) = created_with(&json!({"pids": {"limit": 77}})) else { return };
    assert_eq!(read(&stage, "pids", "pids.max", "pids.max"), "77");
}

#[test]
fn an_unlimited_number_of_processes_is_minus_one() {
    let Some((stage, _container)) = created_with(&json!({"pids": {"limit": -1}})) else { return };
    assert_eq!(read(&stage, "pids", "pids.max", "pids.max"), "max");
}

#[test]
fn the_quota_of_the_processor_is_as_configured() {
    let cpu = json!({"quota": 40_000, "period": 80_000});
    let Some((stage, _container)) = created_with(&json!({"cpu": cpu})) else { return };
    if unified() {
        assert_eq!(read(&stage, "cpu", "", "cpu.max"), "40000 80000");
    } else {
        assert_eq!(read(&stage, "cpu", "cpu.cfs_quota_us", ""), "40000");
        assert_eq!(read(&stage, "cpu", "cpu.cfs_period_us", ""), "80000");
    }
}

#[test]
fn shares_of_the_processor_are_as_configured() {
    let Some((stage, _container)) = created_with(&json!({"cpu": {"shares": 512}})) else { return };
    let seen: u64 = read(&stage, "cpu", "cpu.shares", "cpu.weight").parse().unwrap();
    // How shares become a weight is not fixed: half of the default stays below the default.
    assert!(if unified() { (1..100).contains(&seen) } else { seen == 512 }, "{seen}");
}

#[test]
fn processors_and_memory_nodes_are_as_configured() {
    let Some((stage, container)) = created_with(&json!({"cpu": {"cpus": "0", "mems": "0"}})) else { return };
    assert_eq!(read(&stage, "cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    assert_eq!(read(&stage, "cpuset", "cpuset.mems", "cpuset.mems"), "0");
    let status = fs::read_to_string(container.proc("status")).unwrap();
    assert!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");
}

#[test]
fn an_idle_cgroup_is_marked_so() {
    let Some((stage, _container)) = created_with(&json!({"cpu": {"idle": 1}})) else { return };
    assert_eq!(read(&stage, "cpu", "cpu.idle", "cpu.idle"), "1");
}

#[test]
fn a_burst_of_the_processor_is_as_configured() {
    let cpu = json!({"quota": 40_000, "period": 80_000, "burst": 10_000});
    let Some((stage, _container)) = created_with(&json!({"cpu": cpu})) else { return };
    assert_eq!(read(&stage, "cpu", "cpu.cfs_burst_us", "cpu.max.burst"), "10000");
}

#[test]
fn the_oom_killer_can_be_disabled() {
    let memory = json!({"limit": 67_108_864, "disableOOMKiller": true});
    let Some(mut stage) = Stage::new() else { return };
    stage.patch(&json!({"linux": {"resources": {"memory": memory}}}));
    if unified() {
        // Version 2 cannot; that is for the runtime to refuse or to pass over.
        return;
    }
    let _container = stage.create();
    assert!(read(&stage, "memory", "memory.oom_control", "").contains("oom_kill_disable 1"));
}

#[test]
fn a_limit_that_the_kernel_refuses_is_refused() {
    for resources in [
        json!({"cpu": {"quota": 1, "period": 100}}),
        json!({"cpu": {"cpus": "999999"}}),
        json!({"cpu": {"mems": "none"}}),
    ] {
        let Some(mut stage) = Stage::new() else { return };
        stage.patch(&json!({"linux": {"resources": resources}}));
        stage.try_create().fails();
        assert_eq!(stage.group_directories(), Vec::<PathBuf>::new(), "{resources}");
    }
}

#[test]
fn a_program_that_forks_beyond_its_limit_is_refused() {
    let Some(mut stage) = Stage::new() else { return };
    stage.patch(&json!({"linux": {"resources": {"pids": {"limit": 4}}}}));
    let ran = stage.script("for i in 1 2 3 4 5 6; do sleep 1000 & done; echo all").run();
    assert!(!ran.out.contains("all") && ran.err.contains("fork"), "{ran:?}");
}

#[test]
fn a_program_that_eats_more_than_its_memory_is_killed() {
    let Some(mut stage) = Stage::new() else { return };
    stage.patch(&json!({"linux": {"resources": {"memory": {"limit": 16_777_216, "swap": 16_777_216}}}}));
    // A tmpfs is charged to who writes; the shell survives its child.
    let script = "dd if=/dev/zero of=/dev/shm/f bs=1M count=40 2>/dev/null; echo $?";
    assert_eq!(stage.output(script), "137");
}

#[test]
fn values_of_version_2_are_written_as_they_are() {
    let Some(mut stage) = Stage::new() else { return };
    stage.patch(&json!({"linux": {"resources": {"unified": {"pids.max": "33"}}}}));
    if unified() {
        let _container = stage.create();
        assert_eq!(read(&stage, "pids", "", "pids.max"), "33");
    } else {
        // "the runtime MUST generate an error" if the file cannot be written or version 2 is not there.
        stage.try_create().fails();
    }
}

#[test]
fn a_value_of_version_2_that_is_a_path_is_refused() {
    let Some(mut stage) = Stage::new() else { return };
    stage.patch(&json!({"linux": {"resources": {"unified": {"../pids.max": "33"}}}}));
    stage.try_create().fails();
}
