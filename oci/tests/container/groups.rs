//! Control groups on the host's own hierarchies, below a group of the test's own.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci::cgroup::{Controller, DeviceKind, DeviceRule, Group, Hierarchies, Limits, Warning};
use rustix::fs::{Mode, OFlags};
use serde_json::json;

use crate::stage::Stage;

fn lacks(warnings: &[Warning], controller: Controller) -> bool {
    warnings.contains(&Warning::Missing { controller })
}

#[test]
fn limits_hold_inside() {
    let Some(stage) = Stage::new("limits_hold_inside") else { return };
    let limits = Limits {
        cpu_shares: Some(512),
        cpu_quota: Some(20_000),
        cpu_period: Some(100_000),
        memory: Some(64 << 20),
        pids: Some(5),
        ..Limits::default()
    };
    let warnings = stage.group.apply(&limits).unwrap();
    if lacks(&warnings, Controller::Pids) {
        eprintln!("SKIP limits_hold_inside: no pids controller");
        return;
    }
    let report = stage.run(&stage.config(&["fork", "20"]));
    assert_eq!(report, "threads 4\n", "five tasks with the first one");
    let stats = stage.group.stats().unwrap();
    assert!(stats.cpu_nanos.is_none_or(|nanos| nanos > 0), "{stats:?}");
    assert_eq!(stats.pids, Some(0));
}

#[test]
fn a_container_is_born_in_its_group_and_dies_with_it() {
    let Some(stage) = Stage::new("a_container_is_born_in_its_group_and_dies_with_it") else { return };
    let mut inside = stage.start(&stage.config(&["wait"])).unwrap();
    inside.await_ready();
    assert_eq!(stage.group.pids().unwrap(), [inside.started.pid]);
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", inside.started.pid)).unwrap();
    let name = stage.group.path().to_str().unwrap();
    for hierarchy in stage.host.cgroups.used_v1() {
        let line = groups.lines().find(|line| line.contains(&format!(":{}:", hierarchy.label))).unwrap();
        assert!(line.ends_with(name), "{line}");
    }
    stage.group.kill_all().unwrap();
    let options = rustix::process::WaitIdOptions::EXITED;
    let id = rustix::process::WaitId::PidFd(std::os::fd::AsFd::as_fd(&inside.started.pidfd));
    let ended = rustix::process::waitid(id, options).unwrap().unwrap();
    assert_eq!(ended.terminating_signal(), Some(9));
    assert_eq!(stage.group.pids().unwrap(), Vec::<i32>::new());
    stage.group.remove().unwrap();
    assert!(!stage.group.exists());
    stage.group.remove().unwrap();
}

#[test]
fn a_kill_for_want_of_memory_is_counted() {
    let Some(stage) = Stage::new("a_kill_for_want_of_memory_is_counted") else { return };
    let warnings = stage
        .group
        .apply(&Limits { memory: Some(32 << 20), memory_and_swap: Some(32 << 20), ..Limits::default() })
        .unwrap();
    if lacks(&warnings, Controller::Memory) {
        eprintln!("SKIP a_kill_for_want_of_memory_is_counted: no memory controller");
        return;
    }
    assert_eq!(stage.run(&stage.config(&["eat", "8"])), format!("ate {}\n", 8 << 20));
    assert_eq!(stage.group.oom_kills().unwrap(), 0);
    assert_eq!(stage.run(&stage.config(&["eat", "64"])), "");
    assert_eq!(stage.group.oom_kills().unwrap(), 1);
    let stats = stage.group.stats().unwrap();
    assert!(stats.memory_working_set <= stats.memory_usage && stats.memory_usage < Some(32 << 20), "{stats:?}");
}

#[test]
fn a_group_that_is_killed_dies_without_a_quota() {
    let Some(stage) = Stage::new("a_group_that_is_killed_dies_without_a_quota") else { return };
    let warnings =
        stage.group.apply(&Limits { cpu_quota: Some(20_000), cpu_period: Some(100_000), ..Limits::default() }).unwrap();
    let quotas = || -> Vec<String> {
        let v1 = stage.host.cgroups.used_v1().map(|hierarchy| &hierarchy.mount);
        let mounts = v1.chain(stage.host.cgroups.v2.as_ref().map(|unified| &unified.mount));
        let groups = mounts.map(|mount| mount.join(stage.group.path()));
        let files = groups.flat_map(|group| ["cpu.cfs_quota_us", "cpu.max"].map(|file| group.join(file)));
        files.filter_map(|file| fs::read_to_string(file).ok()).map(|text| text.trim().to_owned()).collect()
    };
    if lacks(&warnings, Controller::Cpu) {
        eprintln!("SKIP a_group_that_is_killed_dies_without_a_quota: no cpu controller");
        return;
    }
    assert!(quotas().iter().any(|quota| quota.starts_with("20000")), "{:?}", quotas());
    stage.group.kill_all().unwrap();
    assert!(quotas().iter().all(|quota| quota == "-1" || quota.starts_with("max")), "{:?}", quotas());
}

#[test]
fn groups_below_are_removed_with_their_parent() {
    let Some(stage) = Stage::new("groups_below_are_removed_with_their_parent") else { return };
    let child = stage.group.child("small/smaller").unwrap();
    child.create().unwrap();
    assert!(child.exists());
    stage.group.remove().unwrap();
    assert!(!child.exists() && !stage.group.exists());
}

/// Groups that a container makes below its own, one in the other, by names and a depth that no path has room for.
fn dig(top: &Path, levels: u32) {
    let mut directory: OwnedFd = fs::File::open(top).unwrap().into();
    let name = "x".repeat(200);
    for _ in 0..levels {
        rustix::fs::mkdirat(&directory, &name, Mode::RWXU).unwrap();
        directory = rustix::fs::openat(&directory, &name, OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
}

fn directories(stage: &Stage) -> Vec<PathBuf> {
    let host = &stage.host.cgroups;
    let mounts = host.used_v1().map(|hierarchy| &hierarchy.mount).chain(host.v2.iter().map(|unified| &unified.mount));
    mounts.map(|mount| mount.join(stage.group.path())).collect()
}

#[test]
fn groups_deeper_than_any_path_are_killed_in_and_removed() {
    let Some(stage) = Stage::new("groups_deeper_than_any_path_are_killed_in_and_removed") else { return };
    for directory in directories(&stage) {
        dig(&directory, 40);
        (0..50).for_each(|number| fs::create_dir(directory.join(number.to_string())).unwrap());
    }
    stage.group.kill_all().unwrap();
    stage.group.unthrottle();
    stage.group.remove().unwrap();
    assert!(directories(&stage).iter().all(|directory| !directory.exists()));
}

/// The shell of the host, which nobody but the group can end: no namespace of processes, no parent that dies.
#[expect(clippy::disallowed_methods, reason = "a test starts what it wants to be rid of")]
fn outside(script: &str) -> std::process::Child {
    use std::process::{Command, Stdio};
    // Without its input it would not wait for anything: a bomb would go off before it is in its group.
    Command::new("/bin/sh").args(["-c", script]).stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

fn join(group: &Group, pid: u32) {
    let joins = group.open_joins().unwrap();
    for procs in joins.v1() {
        rustix::io::write(procs, pid.to_string().as_bytes()).unwrap();
    }
    if let Some(directory) = &joins.v2 {
        let procs = rustix::fs::openat(directory, "cgroup.procs", OFlags::WRONLY, Mode::empty()).unwrap();
        rustix::io::write(&procs, pid.to_string().as_bytes()).unwrap();
    }
}

/// In each world by itself: v1 has no `cgroup.kill`, so that it takes freezing and patience there.
fn worlds(stage: &Stage) -> Vec<Group> {
    let host = &stage.host.cgroups;
    let v1 = Hierarchies { v2: None, ..host.clone() };
    let v2 = Hierarchies { v1: Vec::new(), ..host.clone() };
    let usable = |host: &Hierarchies| host.v2.is_some() || host.used_v1().next().is_some();
    [v1, v2].iter().filter(|host| usable(host)).map(|host| Group::new(host, stage.group.path()).unwrap()).collect()
}

#[test]
fn a_fork_bomb_is_killed_to_the_last_process() {
    let Some(stage) = Stage::new("a_fork_bomb_is_killed_to_the_last_process") else { return };
    let limits = Limits { pids: Some(60), cpu_quota: Some(50_000), cpu_period: Some(100_000), ..Limits::default() };
    if lacks(&stage.group.apply(&limits).unwrap(), Controller::Pids) {
        eprintln!("SKIP a_fork_bomb_is_killed_to_the_last_process: no pids controller");
        return;
    }
    for group in worlds(&stage) {
        let mut bomb = outside("read go; while :; do (while :; do (:) & done) & done");
        join(&stage.group, bomb.id());
        // The end of its input is the word to go.
        drop(bomb.stdin.take());
        while stage.group.stats().unwrap().pids < Some(30) && bomb.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        group.kill_all().unwrap();
        bomb.wait().unwrap();
        await_empty(&group);
    }
    stage.group.remove().unwrap();
}

/// Those that were killed need the processor once more to be gone, which others may have. Who was not killed stays.
fn await_empty(group: &Group) {
    // A minute of looking, more or less.
    for _ in 0..1_000_000 {
        if group.pids().unwrap().is_empty() {
            return;
        }
        std::thread::yield_now();
    }
    panic!("still there: {:?}", group.pids().unwrap());
}

#[test]
fn a_process_that_a_group_below_has_frozen_is_killed() {
    let Some(stage) = Stage::new("a_process_that_a_group_below_has_frozen_is_killed") else { return };
    let below = stage.group.child("frozen").unwrap();
    below.create().unwrap();
    let mut frozen = outside("exec sleep 1000");
    join(&below, frozen.id());
    for directory in directories(&stage) {
        for (file, state) in [("freezer.state", "FROZEN"), ("cgroup.freeze", "1")] {
            let file = directory.join("frozen").join(file);
            if file.exists() {
                fs::write(file, state).unwrap();
            }
        }
    }
    stage.group.kill_all().unwrap();
    frozen.wait().unwrap();
    stage.group.remove().unwrap();
}

/// A device that is on no list and does not exist: an attempt that is permitted fails with ENXIO (6).
fn config_with_forbidden_device(stage: &Stage) -> serde_json::Value {
    let mut config = stage.config(&["cat", "/dev/forbidden", "--", "write", "/dev/null", "x"]);
    config["linux"]["devices"] = json!([{"path": "/dev/forbidden", "type": "c", "major": 60, "minor": 0}]);
    config
}

#[test]
fn devices_are_restricted_in_the_hosts_own_way() {
    let Some(stage) = Stage::new("devices_are_restricted_in_the_hosts_own_way") else { return };
    let warnings = stage.group.restrict_devices(&DeviceRule::defaults()).unwrap();
    if lacks(&warnings, Controller::Devices) {
        eprintln!("SKIP devices_are_restricted_in_the_hosts_own_way: no devices controller and no bpf(2)");
        return;
    }
    assert_eq!(stage.run(&config_with_forbidden_device(&stage)), "error 1\nwritten\n");
}

#[test]
fn device_programs_replace_each_other_on_the_v2_group() {
    let test = "device_programs_replace_each_other_on_the_v2_group";
    let Some(stage) = Stage::new(test) else { return };
    // Also a hybrid host has a v2 tree, and containers are born in it.
    let Some(v2) = stage.host.cgroups.v2.clone() else {
        eprintln!("SKIP {test}: no cgroup v2");
        return;
    };
    let group = Group::new(&Hierarchies { v1: Vec::new(), v2: Some(v2) }, stage.group.path()).unwrap();
    let rule =
        |allow, major, minor| DeviceRule { allow, kind: DeviceKind::Character, major, minor, access: "rw".to_owned() };
    if lacks(&group.restrict_devices(&DeviceRule::defaults()).unwrap(), Controller::Devices) {
        eprintln!("SKIP {test}: no bpf(2)");
        return;
    }
    let config = config_with_forbidden_device(&stage);
    assert_eq!(stage.run(&config), "error 1\nwritten\n");
    // Permits the one and forbids the other: were the former program still there, both would be refused.
    group.restrict_devices(&[rule(true, None, None), rule(false, Some(1), Some(3))]).unwrap();
    assert_eq!(stage.run(&config), "error 6\nerror 1\n");
    group.restrict_devices(&[]).unwrap();
    let output = stage.run(&stage.config(&["write", "/dev/null", "x"]));
    assert_eq!(output, "written\n");
}
