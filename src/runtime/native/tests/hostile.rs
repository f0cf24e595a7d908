//! Containers that attack the node they run on, and disks that do not answer. Each test names its attack; the answer is
//! beside the code that gives it (`oci/shim/scribe`, `oci/shim/program.rs`, `oci/shim/server.rs`, `oci/cgroup/group.rs`,
//! `groups.rs`, `start.rs`).

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::disk::Disk;
use super::host::{Host, host, host_on, shell};
use super::{Traces, kill, lines, shim_of, stop};
use crate::*;

/// More processes than there may be, each of which makes more; a shell that may not fork ends, the first one must not.
const BOMB: &str = "(while :; do (while :; do (:) & done) & done) & echo lit; exec sleep 1000";

fn command(script: &str, timeout: Option<Duration>) -> ExecSpec {
    let args = vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()];
    ExecSpec { args, timeout, output_limit: 1000, again: false }
}

fn bind(destination: &str, source: PathBuf) -> Mount {
    Mount {
        destination: destination.into(),
        source: MountSource::HostPath(source),
        sub_path: None,
        read_only: false,
        recursive_read_only: false,
        propagation: Propagation::None,
    }
}

async fn start(host: &Host, sandbox: &SandboxSpec, containers: &[&ContainerSpec]) {
    host.runtime.create_sandbox(sandbox.clone()).await.unwrap();
    for container in containers {
        host.runtime.start_container(&sandbox.id, (*container).clone()).await.unwrap();
    }
}

#[tokio::test]
async fn a_fork_bomb_stays_within_its_pod_and_leaves_nothing() {
    let Some(host) = host("a_fork_bomb_stays_within_its_pod_and_leaves_nothing").await else { return };
    let before = Traces::of(host.path(), host.cgroup());
    let mut spec = host.sandbox("bomb");
    // Without a namespace of its own no kernel mechanism ends its processes all at once.
    spec.pid = PidSharing::Host;
    let bomb = shell("main", BOMB);
    start(&host, &spec, &[&bomb]).await;
    host.logged(&spec.id, &bomb.id, "lit").await;
    let (other, container) = host.run("other", "echo ready; sleep 1000").await;
    host.logged(&other, &container, "ready").await;
    let done = host.runtime.exec(&other, &container, command("true", None)).await.unwrap();
    assert_eq!(done.code, Some(0));
    host.runtime.stop_container(&spec.id, &bomb.id, stop(0)).await.unwrap();
    assert_eq!(host.exit(&spec.id, &bomb.id).await.signal, Some(9));
    host.runtime.remove_sandbox(&spec.id).await.unwrap();
    host.runtime.remove_sandbox(&other).await.unwrap();
    assert_eq!(before, Traces::of(host.path(), host.cgroup()));
}

#[tokio::test]
async fn tasks_are_limited_for_a_pod_and_for_all_pods() {
    let Some(host) = host("tasks_are_limited_for_a_pod_and_for_all_pods").await else { return };
    let (sandbox, _) = host.run("limited", "sleep 1000").await;
    let found = oci::cgroup::Hierarchies::detect().unwrap();
    let is_pids = |v1: &&oci::cgroup::V1| v1.controllers.contains(&oci::cgroup::Controller::Pids);
    let mount = found.v1.iter().find(is_pids).map(|v1| v1.mount.clone());
    let Some(mount) = mount.or(found.v2.map(|v2| v2.mount)) else { return };
    let limit = |group: PathBuf| fs::read_to_string(mount.join(group).join("pids.max")).unwrap().trim().to_owned();
    assert_eq!(limit(host.cgroup().to_owned()), "20000");
    assert_eq!(limit(host.cgroup().join("podlimited")), "400");
    host.runtime.remove_sandbox(&sandbox).await.unwrap();
}

#[tokio::test]
async fn a_disk_that_hangs_holds_back_only_the_container_that_writes_to_it() {
    let test = "a_disk_that_hangs_holds_back_only_the_container_that_writes_to_it";
    let Some(host) = host(test).await else { return };
    let Some(disk) = Disk::that_can_hang(test, host.path()) else { return };
    let spec = host.sandbox("hangs");
    fs::create_dir_all(&spec.log_directory).unwrap();
    std::os::unix::fs::symlink(disk.path(), spec.log_directory.join("slow")).unwrap();
    let slow = shell("slow", "echo begun; while :; do echo flood; done");
    let quick = shell("quick", "echo ready; while [ ! -e /go ]; do sleep 0.01; done; echo last; exit 3");
    start(&host, &spec, &[&slow, &quick]).await;
    host.logged(&spec.id, &slow.id, "flood").await;
    host.logged(&spec.id, &quick.id, "ready").await;
    disk.hang();
    let done = host.runtime.exec(&spec.id, &slow.id, command("echo inside", None)).await.unwrap();
    assert_eq!(done.stdout, b"inside\n");
    host.runtime.exec(&spec.id, &quick.id, command("echo > /go", None)).await.unwrap();
    assert_eq!(host.exit(&spec.id, &quick.id).await.code, 3);
    assert_eq!(lines(&host.log(&spec.id, &quick.id).await).last(), Some(&"stdout F last"));
    host.runtime.stop_container(&spec.id, &slow.id, stop(0)).await.unwrap();
    assert_eq!(host.exit(&spec.id, &slow.id).await.signal, Some(9), "told while the disk still hangs");
    disk.go_on();
    host.runtime.remove_sandbox(&spec.id).await.unwrap();
}

#[tokio::test]
async fn ends_and_commands_are_told_while_the_disk_below_the_state_hangs() {
    let test = "ends_and_commands_are_told_while_the_disk_below_the_state_hangs";
    let mut disk = None;
    let prepare = |directory: &Path| {
        disk = Disk::that_can_hang(test, directory);
        if let Some(disk) = &disk {
            std::os::unix::fs::symlink(disk.path(), directory.join("state")).unwrap();
        }
    };
    let Some(host) = host_on(test, prepare).await else { return };
    let Some(disk) = disk else { return };
    let (sandbox, container) =
        host.run("state", "echo ready; while [ ! -e /dev/shm/go ]; do sleep 0.01; done; echo last; exit 3").await;
    host.logged(&sandbox, &container, "ready").await;
    disk.hang();
    host.runtime.exec(&sandbox, &container, command("echo > /dev/shm/go", None)).await.unwrap();
    assert_eq!(host.exit(&sandbox, &container).await.code, 3);
    disk.go_on();
    host.logged(&sandbox, &container, "last").await;
    host.runtime.remove_sandbox(&sandbox).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_holds_output_back_and_loses_none() {
    let Some(host) = host("a_full_disk_holds_output_back_and_loses_none").await else { return };
    let disk = Disk::of_size(64 << 10);
    let spec = host.sandbox("full");
    fs::create_dir_all(&spec.log_directory).unwrap();
    std::os::unix::fs::symlink(disk.path(), spec.log_directory.join("main")).unwrap();
    let writer = shell("main", "i=0; while [ $i -lt 6000 ]; do echo line $i; i=$((i+1)); done; sleep 1000");
    let other = shell("other", "echo ready; sleep 1000");
    start(&host, &spec, &[&writer, &other]).await;
    host.logged(&spec.id, &other.id, "ready").await;
    let path = host.container(&spec.id, &writer.id).await.log_path;
    while fs::metadata(&path).unwrap().len() < (60 << 10) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(host.runtime.exec(&spec.id, &writer.id, command("true", None)).await.unwrap().code == Some(0));
    disk.grow(8 << 20);
    host.logged(&spec.id, &writer.id, "line 5999\n").await;
    let log = host.log(&spec.id, &writer.id).await;
    let expected: Vec<_> = (0..6000).map(|number| format!("stdout F line {number}")).collect();
    assert_eq!(lines(&log), expected);
    host.runtime.remove_sandbox(&spec.id).await.unwrap();
}

#[tokio::test]
async fn a_start_that_hangs_in_a_mount_is_given_up_and_others_go_on() {
    let test = "a_start_that_hangs_in_a_mount_is_given_up_and_others_go_on";
    let Some(host) = host(test).await else { return };
    let Some(disk) = Disk::that_can_hang(test, host.path()) else { return };
    let spec = host.sandbox("stuck");
    let other = shell("other", "echo ready; sleep 1000");
    start(&host, &spec, &[&other]).await;
    let mut stuck = shell("stuck", "true");
    // The mount point of the second has to be made on the first.
    stuck.mounts = vec![bind("/data", disk.path()), bind("/data/below", host.path().to_owned())];
    disk.hang();
    let late = host.runtime.start_container(&spec.id, stuck).await.unwrap_err();
    assert!(matches!(&late, RuntimeError::Step { step, .. } if step == "start container"), "{late:?}");
    let done = host.runtime.exec(&spec.id, &other.id, command("true", None)).await.unwrap();
    assert_eq!(done.code, Some(0));
    disk.go_on();
    host.runtime.remove_sandbox(&spec.id).await.unwrap();
}

#[tokio::test]
async fn a_command_that_hangs_beyond_a_kill_is_told_as_late() {
    let test = "a_command_that_hangs_beyond_a_kill_is_told_as_late";
    let Some(host) = host(test).await else { return };
    let Some(disk) = Disk::that_can_hang(test, host.path()) else { return };
    let spec = host.sandbox("late");
    let mut main = shell("main", "echo ready; sleep 1000");
    main.mounts = vec![bind("/data", disk.path())];
    start(&host, &spec, &[&main]).await;
    disk.hang();
    let script = command("echo x > /data/file", Some(Duration::from_millis(200)));
    assert_eq!(host.runtime.exec(&spec.id, &main.id, script).await.unwrap().code, None);
    disk.go_on();
    host.runtime.remove_sandbox(&spec.id).await.unwrap();
}

#[tokio::test]
async fn a_container_that_is_stopped_or_ignores_signals_is_killed() {
    let Some(host) = host("a_container_that_is_stopped_or_ignores_signals_is_killed").await else { return };
    let (sandbox, container) = host.run("frozen", "trap '' TERM; (setsid sleep 1000 &); echo ready; sleep 1000").await;
    host.logged(&sandbox, &container, "ready").await;
    let pid = i32::try_from(host.pid(&sandbox, &container).await).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    host.runtime
        .stop_container(&sandbox, &container, Stop { signal: 15, grace: Duration::from_millis(50) })
        .await
        .unwrap();
    assert_eq!(host.exit(&sandbox, &container).await.signal, Some(9));
    host.runtime.remove_sandbox(&sandbox).await.unwrap();
}

#[tokio::test]
async fn an_exit_is_told_though_a_process_outside_the_group_holds_the_output() {
    let test = "an_exit_is_told_though_a_process_outside_the_group_holds_the_output";
    let Some(host) = host(test).await else { return };
    let mut spec = host.sandbox("holder");
    spec.pid = PidSharing::Host;
    let main = shell("main", "echo ready; while [ ! -e /go ]; do sleep 0.01; done; exit 6");
    start(&host, &spec, &[&main]).await;
    host.logged(&spec.id, &main.id, "ready").await;
    // As a privileged container does that moves a process of its own into another group: this process is in another one.
    let held =
        fs::File::options().write(true).open(format!("/proc/{}/fd/1", host.pid(&spec.id, &main.id).await)).unwrap();
    host.runtime.exec(&spec.id, &main.id, command("echo > /go", None)).await.unwrap();
    assert_eq!(host.exit(&spec.id, &main.id).await.code, 6);
    drop(held);
    host.runtime.remove_sandbox(&spec.id).await.unwrap();
}

#[tokio::test]
async fn a_container_that_does_not_die_with_its_parent_is_swept_when_the_shim_dies() {
    let test = "a_container_that_does_not_die_with_its_parent_is_swept_when_the_shim_dies";
    let Some(mut host) = host(test).await else { return };
    // Executing a set-user-ID program clears the parent's death signal: prctl(2), PR_SET_PDEATHSIG.
    // The shell's programs go by their names.
    let program = host.path().join("layer/suid/sleep");
    fs::create_dir(program.parent().unwrap()).unwrap();
    fs::copy(host.path().join("layer/bin/busybox"), &program).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o4755);
    fs::set_permissions(&program, mode).unwrap();
    let spec = host.sandbox("suid");
    let mut main = shell("main", "");
    main.user.user = "web".to_owned();
    main.args = ["/suid/sleep", "1000"].map(str::to_owned).to_vec();
    start(&host, &spec, &[&main]).await;
    let pid = host.pid(&spec.id, &main.id).await;
    let shim = shim_of(pid);
    let survives = || {
        kill(shim);
        while shim_of(pid) == shim {
            std::thread::yield_now();
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        assert!(!stat.contains(") Z "), "its parent's death is no signal to it: {stat}");
    };
    host.restart_with(survives).await;
    assert_eq!(host.runtime.status(&spec.id).await.unwrap().unwrap().state, SandboxState::Dead);
    assert_eq!(host.exit(&spec.id, &main.id).await.signal, Some(9));
    let gone = || fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "));
    while !gone() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    host.runtime.remove_sandbox(&spec.id).await.unwrap();
}

#[tokio::test]
async fn strangers_at_the_control_socket_keep_nobody_out_and_cost_little() {
    let test = "strangers_at_the_control_socket_keep_nobody_out_and_cost_little";
    let Some(mut host) = host(test).await else { return };
    let (sandbox, container) = host.run("strangers", "echo ready; sleep 1000").await;
    host.logged(&sandbox, &container, "ready").await;
    let directory = fs::File::open(host.path().join("state/sandboxes").join(&sandbox.0)).unwrap();
    let number = std::os::fd::AsRawFd::as_raw_fd(&directory);
    let socket = PathBuf::from(format!("/proc/self/fd/{number}/control.sock"));
    let mut strangers = Vec::new();
    for number in 0..100_u32 {
        let mut stranger = UnixStream::connect(&socket).unwrap();
        // Nothing, half a header, a frame that is announced and never comes, and one that may not be so long.
        let text: &[u8] = match number % 4 {
            0 => &[],
            1 => &[1, 0],
            2 => &[200, 0, 0, 0, 0, 1, 0],
            _ => &[0, 0, 63, 0, 0],
        };
        // Whoever announces too much has been sent away already; the others stay, and say nothing more.
        let _ = stranger.write_all(text);
        strangers.push(stranger);
    }
    assert_eq!(host.runtime.exec(&sandbox, &container, command("true", None)).await.unwrap().code, Some(0));
    host.restart().await;
    assert_eq!(host.runtime.exec(&sandbox, &container, command("true", None)).await.unwrap().code, Some(0));
    drop(strangers);
    host.runtime.remove_sandbox(&sandbox).await.unwrap();
}

#[tokio::test]
async fn a_container_that_survives_a_want_of_memory_and_is_killed_later_is_not_told_as_such() {
    let test = "a_container_that_survives_a_want_of_memory_and_is_killed_later_is_not_told_as_such";
    let Some(host) = host(test).await else { return };
    let spec = host.sandbox("survivor");
    let eat = "sh -c 'a=0123456789abcdef; while :; do a=$a$a; done'; echo survived; sleep 1000";
    let mut main = shell("main", eat);
    main.resources.memory_limit = Some(24 << 20);
    start(&host, &spec, &[&main]).await;
    let is_v1 = oci::cgroup::Hierarchies::detect().unwrap().v1.iter().any(|v1| v1.label == "memory");
    if is_v1 {
        host.logged(&spec.id, &main.id, "survived").await;
        host.runtime.stop_container(&spec.id, &main.id, stop(0)).await.unwrap();
    }
    // On v2 all of it ends together, by `memory.oom.group`.
    let exit = host.exit(&spec.id, &main.id).await;
    assert_eq!((exit.code, exit.oom_killed), (137, !is_v1));
    host.runtime.remove_sandbox(&spec.id).await.unwrap();
}

/// Traces a process until it is dropped.
struct Tracer(std::process::Child);

impl Tracer {
    #[expect(clippy::disallowed_methods, reason = "a test starts what the attack needs")]
    fn attach(pid: u32) -> Option<Self> {
        use std::io::BufRead as _;
        // PTRACE_SEIZE, which does not stop what it traces. Nothing of a tracer's duties is ever done.
        let number = if cfg!(target_arch = "x86_64") { "101" } else { "117" };
        let script =
            "syscall($ARGV[0]+0, 0x4206, $ARGV[1]+0, 0, 0) == 0 or die; $| = 1; print qq(ready\\n); sleep 1000";
        let mut perl = std::process::Command::new("perl");
        perl.args(["-e", script, number, &pid.to_string()]).stdout(std::process::Stdio::piped());
        let mut tracer = perl.spawn().ok()?;
        let mut line = String::new();
        std::io::BufReader::new(tracer.stdout.take()?).read_line(&mut line).ok()?;
        assert_eq!(line, "ready\n");
        Some(Self(tracer))
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test]
async fn an_end_that_a_tracer_withholds_is_told() {
    let test = "an_end_that_a_tracer_withholds_is_told";
    let Some(host) = host(test).await else { return };
    let (sandbox, container) = host.run("traced", "echo ready; sleep 1000").await;
    host.logged(&sandbox, &container, "ready").await;
    let init = host.pid(&sandbox, &container).await;
    let Some(tracer) = Tracer::attach(init) else {
        eprintln!("SKIP {test}: no perl");
        host.runtime.remove_sandbox(&sandbox).await.unwrap();
        return;
    };
    host.runtime.stop_container(&sandbox, &container, stop(0)).await.unwrap();
    assert_eq!(host.exit(&sandbox, &container).await.signal, Some(9));
    drop(tracer);
    host.runtime.remove_sandbox(&sandbox).await.unwrap();
}
