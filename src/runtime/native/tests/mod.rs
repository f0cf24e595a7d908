//! The native runtime on the real kernel, with a shim, namespaces and groups of each test's own.

mod disk;
mod foreign;
mod host;
mod hostile;
mod identity;
mod processes;
mod sessions;
mod sizes;
mod users;
mod volumes;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::host::{host, shell};
use crate::*;

/// Text of a log's lines, without their time stamps.
fn lines(log: &str) -> Vec<&str> {
    log.lines().map(|line| line.split_once(' ').unwrap().1).collect()
}

fn stop(seconds: u64) -> Stop {
    Stop { signal: 15, grace: Duration::from_secs(seconds) }
}

#[tokio::test]
async fn output_and_exit_of_a_container_are_kept() {
    let Some(host) = host("output_and_exit_of_a_container_are_kept").await else { return };
    let (sandbox, container) = host.run("output", "echo out; echo err >&2; printf unfinished; exit 3").await;
    let exit = host.exit(&sandbox, &container).await;
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (3, None, false));
    assert!(exit.started_at <= exit.finished_at);
    let log = host.log(&sandbox, &container).await;
    let mut lines = lines(&log);
    lines.sort_unstable();
    assert_eq!(lines, ["stderr F err", "stdout F out", "stdout P unfinished"]);
    host.runtime.remove_sandbox(&sandbox).await.unwrap();
}

#[tokio::test]
async fn a_container_has_the_sandbox_s_host_name_and_its_image_s_user() {
    let Some(host) = host("a_container_has_the_sandbox_s_host_name_and_its_image_s_user").await else { return };
    let spec = host.sandbox("identity");
    let sandbox = spec.id.clone();
    host.runtime.create_sandbox(spec).await.unwrap();
    let mut container = shell("main", "hostname; id -u; id -g; id -G; echo $HOME $$; cat /proc/self/status");
    container.user.user = "web".to_owned();
    let id = container.id.clone();
    host.runtime.start_container(&sandbox, container).await.unwrap();
    assert_eq!(host.exit(&sandbox, &id).await.code, 0);
    let log = host.log(&sandbox, &id).await;
    let lines = lines(&log);
    assert_eq!(lines[..5], ["stdout F pod-host", "stdout F 33", "stdout F 34", "stdout F 34 50", "stdout F /srv 1"]);
    // The shim ignores SIGPIPE, bit 12; its containers must not.
    let ignored = lines.iter().find_map(|line| line.strip_prefix("stdout F SigIgn:")).unwrap();
    assert_eq!(u64::from_str_radix(ignored.trim(), 16).unwrap() & (1 << 12), 0);
    host.runtime.remove_sandbox(&sandbox).await.unwrap();
}

#[tokio::test]
async fn containers_of_a_sandbox_share_memory_and_network_but_not_processes() {
    let test = "containers_of_a_sandbox_share_memory_and_network_but_not_processes";
    let Some(host) = host(test).await else { return };
    let (sandbox, first) = host.run("shared", "echo hello > /dev/shm/file; echo ready; sleep 1000").await;
    host.logged(&sandbox, &first, "ready").await;
    let second = shell("second", "cat /dev/shm/file; echo $$; ls /proc/self/ns -l");
    let id = second.id.clone();
    host.runtime.start_container(&sandbox, second).await.unwrap();
    assert_eq!(host.exit(&sandbox, &id).await.code, 0);
    assert_eq!(lines(&host.log(&sandbox, &id).await)[..2], ["stdout F hello", "stdout F 1"]);
    let pid = host.pid(&sandbox, &first).await;
    let of = |pid: &str, kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    for kind in ["net", "ipc", "uts", "mnt", "pid", "cgroup"] {
        assert_ne!(of(&pid.to_string(), kind), of("self", kind), "{kind}");
    }
    host.runtime.network_namespace(&sandbox).await.unwrap();
    host.runtime.remove_sandbox(&sandbox).await.unwrap();
}

#[tokio::test]
async fn a_container_sees_and_signals_the_processes_of_another_one_if_asked() {
    let test = "a_container_sees_and_signals_the_processes_of_another_one_if_asked";
    let Some(host) = host(test).await else { return };
    let (sandbox, first) =
        host.run("target", "trap 'echo bye; exit 4' TERM; echo ready; while :; do sleep 0.05; done").await;
    host.logged(&sandbox, &first, "ready").await;
    let second = shell("debug", "[ $$ = 1 ] || echo not alone; kill -TERM 1; sleep 1000");
    let second = ContainerSpec { processes_of: Some(first.clone()), ..second };
    let id = second.id.clone();
    host.runtime.start_container(&sandbox, second).await.unwrap();
    assert_eq!(host.exit(&sandbox, &first).await.code, 4);
    // The kernel ends a namespace with its first process.
    assert_eq!(host.exit(&sandbox, &id).await.code, 137);
    assert_eq!(lines(&host.log(&sandbox, &id).await)[0], "stdout F not alone");
    let third = ContainerSpec { processes_of: Some(first.clone()), ..shell("late", "true") };
    let refused = host.runtime.start_container(&sandbox, third).await.unwrap_err();
    assert!(matches!(refused, RuntimeError::NoContainer { container } if container == first));
    host.runtime.remove_sandbox(&sandbox).await.unwrap();
}

/// CVE-2019-5736: not even root of the host can change the file through a process that runs it.
#[tokio::test]
async fn the_shim_s_program_cannot_be_changed_through_its_process() {
    use std::os::unix::fs::PermissionsExt as _;
    let Some(host) = host("the_shim_s_program_cannot_be_changed_through_its_process").await else { return };
    let (sandbox, container) = host.run("sealed", "echo ready; sleep 1000").await;
    host.logged(&sandbox, &container, "ready").await;
    let stat = fs::read_to_string(format!("/proc/{}/stat", host.pid(&sandbox, &container).await)).unwrap();
    let shim = stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap();
    let name = fs::read_to_string(format!("/proc/{shim}/comm")).unwrap();
    assert!(name.starts_with("coracle-shim"), "{name}");
    let program = format!("/proc/{shim}/exe");
    let mode = fs::metadata(&program).unwrap().permissions().mode();
    let refused = fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    host.runtime.remove_sandbox(&sandbox).await.unwrap();
}

#[tokio::test]
async fn a_program_that_handles_the_signal_ends_by_itself() {
    let Some(host) = host("a_program_that_handles_the_signal_ends_by_itself").await else { return };
    let (sandbox, container) =
        host.run("handles", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done").await;
    host.logged(&sandbox, &container, "ready").await;
    host.runtime.stop_container(&sandbox, &container, stop(1000)).await.unwrap();
    let exit = host.exit(&sandbox, &container).await;
    assert_eq!((exit.code, exit.signal), (7, None));
    host.runtime.stop_container(&sandbox, &container, stop(1)).await.unwrap();
    host.runtime.remove_container(&sandbox, &container).await.unwrap();
    assert!(host.runtime.status(&sandbox).await.unwrap().unwrap().containers.is_empty());
    host.runtime.remove_sandbox(&sandbox).await.unwrap();
}

#[tokio::test]
async fn a_deadline_only_moves_earlier_and_ends_in_a_kill() {
    let Some(host) = host("a_deadline_only_moves_earlier_and_ends_in_a_kill").await else { return };
    let (sandbox, container) = host.run("ignores", "trap '' TERM; echo ready; while :; do sleep 0.01; done").await;
    host.logged(&sandbox, &container, "ready").await;
    host.runtime.stop_container(&sandbox, &container, stop(1000)).await.unwrap();
    host.runtime.stop_container(&sandbox, &container, stop(0)).await.unwrap();
    host.runtime.stop_container(&sandbox, &container, stop(1000)).await.unwrap();
    let exit = host.exit(&sandbox, &container).await;
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (137, Some(9), false));
    host.runtime.remove_sandbox(&sandbox).await.unwrap();
}

#[tokio::test]
async fn a_kill_for_want_of_memory_is_told_as_such() {
    let Some(host) = host("a_kill_for_want_of_memory_is_told_as_such").await else { return };
    let spec = host.sandbox("memory");
    let sandbox = spec.id.clone();
    host.runtime.create_sandbox(spec).await.unwrap();
    let mut container = shell("main", "a=0123456789abcdef; while :; do a=$a$a; done");
    container.resources.memory_limit = Some(24 << 20);
    let id = container.id.clone();
    host.runtime.start_container(&sandbox, container).await.unwrap();
    let exit = host.exit(&sandbox, &id).await;
    assert_eq!((exit.code, exit.oom_killed), (137, true));
    host.runtime.remove_sandbox(&sandbox).await.unwrap();
}

#[tokio::test]
async fn a_command_runs_inside_the_container_and_ends_at_its_timeout() {
    let Some(host) = host("a_command_runs_inside_the_container_and_ends_at_its_timeout").await else { return };
    let (sandbox, container) = host.run("exec", "echo inside > /tmp/file; echo ready; sleep 1000").await;
    host.logged(&sandbox, &container, "ready").await;
    let command = |script: &str, timeout| ExecSpec {
        args: vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()],
        timeout,
        output_limit: 10,
        again: false,
    };
    let exec = |command| host.runtime.exec(&sandbox, &container, command);
    let done = exec(command("cat /tmp/file; echo 0123456789abcdef >&2; exit 5", None)).await.unwrap();
    assert_eq!((done.code, &done.stdout[..], &done.stderr[..]), (Some(5), &b"inside\n"[..], &b"0123456789"[..]));
    let late = exec(command("echo begun; sleep 1000", Some(Duration::from_millis(300)))).await.unwrap();
    assert_eq!((late.code, &late.stdout[..]), (None, &b"begun\n"[..]));
    let missing = ExecSpec { args: vec!["/no/such/program".to_owned()], timeout: None, output_limit: 0, again: false };
    assert!(matches!(exec(missing).await, Err(RuntimeError::Execute { .. })));
    host.runtime.remove_sandbox(&sandbox).await.unwrap();
}

#[tokio::test]
async fn a_command_that_is_run_again_is_kept_and_says_what_it_says_each_time() {
    let test = "a_command_that_is_run_again_is_kept_and_says_what_it_says_each_time";
    let Some(mut host) = host(test).await else { return };
    let (sandbox, container) = host.run("again", "echo 0 > /tmp/count; echo ready; sleep 1000").await;
    host.logged(&sandbox, &container, "ready").await;
    let command = |script: &str, timeout| ExecSpec {
        args: vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()],
        timeout,
        output_limit: 100,
        again: true,
    };
    let count = command("n=$(($(cat /tmp/count) + 1)); echo $n | tee /tmp/count; echo bad >&2; exit $n", None);
    let late = command("echo begun; exec sleep 1000", Some(Duration::from_millis(300)));
    for round in 1..=6 {
        let done = host.runtime.exec(&sandbox, &container, count.clone()).await.unwrap();
        assert_eq!(
            (done.code, done.stdout, done.stderr),
            (Some(round), format!("{round}\n").into(), b"bad\n".to_vec())
        );
        let late = host.runtime.exec(&sandbox, &container, late.clone()).await.unwrap();
        assert_eq!((late.code, &late.stdout[..]), (None, &b"begun\n"[..]));
        // The next agent does not know what the shim keeps for the one before.
        if round == 3 {
            host.restart().await;
        }
    }
    // More than a shim keeps, and all at once.
    let all = (0..20).map(|number| host.runtime.exec(&sandbox, &container, command(&format!("exit {number}"), None)));
    let codes = futures_util::future::join_all(all).await.into_iter().map(|done| done.unwrap().code.unwrap());
    assert_eq!(codes.collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
    host.runtime.stop_container(&sandbox, &container, stop(0)).await.unwrap();
    host.exit(&sandbox, &container).await;
    assert!(matches!(host.runtime.exec(&sandbox, &container, count).await, Err(RuntimeError::NoContainer { .. })));
    host.runtime.remove_sandbox(&sandbox).await.unwrap();
}

#[tokio::test]
async fn a_program_that_does_not_exist_is_named_and_leaves_nothing() {
    let Some(host) = host("a_program_that_does_not_exist_is_named_and_leaves_nothing").await else { return };
    let spec = host.sandbox("missing");
    let sandbox = spec.id.clone();
    host.runtime.create_sandbox(spec).await.unwrap();
    let mut container = shell("main", "");
    container.args = vec!["/no/such/program".to_owned()];
    let error = host.runtime.start_container(&sandbox, container.clone()).await.unwrap_err();
    assert!(matches!(&error, RuntimeError::Execute { command, .. } if command == "/no/such/program"), "{error:?}");
    assert!(host.runtime.status(&sandbox).await.unwrap().unwrap().containers.is_empty());
    assert!(!host.path().join("state/sandboxes").join(&sandbox.0).join("containers").join(&container.id.0).exists());
    container.user.user = "nobody-known".to_owned();
    let error = host.runtime.start_container(&sandbox, container).await.unwrap_err();
    assert!(matches!(error, RuntimeError::UnknownUser { .. }), "{error:?}");
    host.runtime.remove_sandbox(&sandbox).await.unwrap();
}

#[tokio::test]
async fn containers_outlive_the_agent_and_their_end_is_seen_by_the_next() {
    let test = "containers_outlive_the_agent_and_their_end_is_seen_by_the_next";
    let Some(mut host) = host(test).await else { return };
    let (sandbox, container) =
        host.run("outlives", "trap 'exit 4' TERM; echo ready; while :; do sleep 0.01; done").await;
    host.logged(&sandbox, &container, "ready").await;
    let before = host.container(&sandbox, &container).await;
    host.restart().await;
    assert_eq!(host.container(&sandbox, &container).await, before);
    host.runtime.stop_container(&sandbox, &container, stop(1000)).await.unwrap();
    assert_eq!(host.exit(&sandbox, &container).await.code, 4);
    let ended = host.container(&sandbox, &container).await;
    host.restart().await;
    assert_eq!(host.container(&sandbox, &container).await, ended);
    host.runtime.remove_sandbox(&sandbox).await.unwrap();
    host.restart().await;
    assert!(host.runtime.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn with_its_shim_a_sandbox_and_its_containers_die() {
    let Some(mut host) = host("with_its_shim_a_sandbox_and_its_containers_die").await else { return };
    let (sandbox, container) = host.run("orphan", "sleep 1000 & echo ready; wait").await;
    host.logged(&sandbox, &container, "ready").await;
    let pid = host.pid(&sandbox, &container).await;
    kill(shim_of(pid));
    let exit = host.exit(&sandbox, &container).await;
    assert_eq!((exit.code, exit.signal), (137, Some(9)));
    assert_eq!(host.runtime.status(&sandbox).await.unwrap().unwrap().state, SandboxState::Dead);
    let refused = host.runtime.start_container(&sandbox, shell("other", "true")).await.unwrap_err();
    assert!(matches!(refused, RuntimeError::NoSandbox { .. }));
    host.restart().await;
    assert_eq!(host.runtime.status(&sandbox).await.unwrap().unwrap().state, SandboxState::Dead);
    assert_eq!(host.exit(&sandbox, &container).await, exit);
    host.runtime.remove_sandbox(&sandbox).await.unwrap();
    assert!(host.runtime.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_shim_that_dies_while_there_is_no_agent_is_found_dead() {
    let Some(mut host) = host("a_shim_that_dies_while_there_is_no_agent_is_found_dead").await else { return };
    let (sandbox, container) = host.run("unseen", "echo ready; sleep 1000").await;
    host.logged(&sandbox, &container, "ready").await;
    let shim = shim_of(host.pid(&sandbox, &container).await);
    host.restart_with(|| kill(shim)).await;
    assert_eq!(host.runtime.status(&sandbox).await.unwrap().unwrap().state, SandboxState::Dead);
    assert_eq!(host.exit(&sandbox, &container).await.code, 137);
    host.runtime.remove_sandbox(&sandbox).await.unwrap();
}

#[tokio::test]
async fn a_removed_sandbox_leaves_nothing_but_its_logs() {
    let Some(host) = host("a_removed_sandbox_leaves_nothing_but_its_logs").await else { return };
    let before = Traces::of(host.path(), host.cgroup());
    let (sandbox, container) = host.run("traces", "mkdir -p /a/b; sleep 1000 & echo ready; wait").await;
    host.logged(&sandbox, &container, "ready").await;
    let during = Traces::of(host.path(), host.cgroup());
    assert_eq!(before.mounts, during.mounts, "nothing is mounted on the host");
    assert_ne!(before, during);
    host.runtime.remove_sandbox(&sandbox).await.unwrap();
    host.runtime.remove_sandbox(&sandbox).await.unwrap();
    assert_eq!(before, Traces::of(host.path(), host.cgroup()));
    assert!(host.path().join("logs/traces/main/0.log").exists());
}

#[tokio::test]
async fn an_interrupted_creation_is_removed_by_the_next_agent() {
    let Some(mut host) = host("an_interrupted_creation_is_removed_by_the_next_agent").await else { return };
    let begun = host.path().join("state/sandboxes/begun-0");
    fs::create_dir_all(begun.join("containers")).unwrap();
    fs::write(begun.join("sandbox.json"), b"{\"spec\":").unwrap();
    host.restart().await;
    assert!(!begun.exists());
    assert!(host.runtime.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn host_paths_and_memory_are_mounted_as_asked() {
    let Some(host) = host("host_paths_and_memory_are_mounted_as_asked").await else { return };
    let (data, file) = (host.path().join("data"), host.path().join("hosts"));
    fs::create_dir(&data).unwrap();
    fs::write(&file, "127.0.0.1 localhost\n").unwrap();
    let mount = |destination: &str, source, read_only| Mount {
        destination: destination.into(),
        source,
        sub_path: None,
        read_only,
        recursive_read_only: false,
        propagation: Propagation::None,
    };
    let spec = host.sandbox("mounts");
    let sandbox = spec.id.clone();
    host.runtime.create_sandbox(spec).await.unwrap();
    let mut container = shell(
        "main",
        "cat /etc/hosts; echo new > /data/file && echo written; echo no > /fixed/file || echo refused; \
         echo x > /fast/file && cat /fast/file",
    );
    container.mounts = vec![
        mount("/etc/hosts", MountSource::HostPath(file), false),
        mount("/data", MountSource::HostPath(data.clone()), false),
        mount("/fixed", MountSource::HostPath(data.clone()), true),
        mount("/fast", MountSource::Tmpfs { size: Some(1 << 20), mode: 0o1777 }, false),
    ];
    let id = container.id.clone();
    host.runtime.start_container(&sandbox, container).await.unwrap();
    assert_eq!(host.exit(&sandbox, &id).await.code, 0);
    let log = host.log(&sandbox, &id).await;
    let out: Vec<_> = lines(&log).into_iter().filter(|line| line.starts_with("stdout")).collect();
    assert_eq!(out, ["stdout F 127.0.0.1 localhost", "stdout F written", "stdout F refused", "stdout F x"]);
    assert_eq!(fs::read(data.join("file")).unwrap(), b"new\n");
    host.runtime.remove_sandbox(&sandbox).await.unwrap();
    assert!(data.join("file").exists(), "removal does not reach into host paths");
}

#[tokio::test]
async fn a_container_with_a_terminal_writes_to_its_log_through_it() {
    let Some(host) = host("a_container_with_a_terminal_writes_to_its_log_through_it").await else { return };
    let spec = host.sandbox("terminal");
    let sandbox = spec.id.clone();
    host.runtime.create_sandbox(spec).await.unwrap();
    let mut container = shell("main", "[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo terminal");
    container.tty = true;
    let id = container.id.clone();
    host.runtime.start_container(&sandbox, container).await.unwrap();
    assert_eq!(host.exit(&sandbox, &id).await.code, 0);
    assert_eq!(lines(&host.log(&sandbox, &id).await), ["stdout F terminal"]);
    host.runtime.remove_sandbox(&sandbox).await.unwrap();
}

#[tokio::test]
async fn a_privileged_container_on_the_host_s_network_has_the_host_s_namespaces_and_devices() {
    let test = "a_privileged_container_on_the_host_s_network_has_the_host_s_namespaces_and_devices";
    let Some(host) = host(test).await else { return };
    let mut spec = host.sandbox("privileged");
    (spec.network, spec.ipc, spec.pid) = (Sharing::Host, Sharing::Host, PidSharing::Host);
    let sandbox = spec.id.clone();
    host.runtime.create_sandbox(spec).await.unwrap();
    let mut container = shell("main", "echo ready; sleep 1000 & sleep 1000");
    container.privileges.privileged = true;
    let id = container.id.clone();
    host.runtime.start_container(&sandbox, container).await.unwrap();
    host.logged(&sandbox, &id, "ready").await;
    let pid = host.pid(&sandbox, &id).await;
    let of = |pid: &str, kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    for kind in ["net", "ipc", "uts", "pid"] {
        assert_eq!(of(&pid.to_string(), kind), of("self", kind), "{kind}");
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let field = |text: &str, name: &str| text.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert_eq!(field(&status, "CapEff"), field(&own, "CapEff"));
    assert!(field(&status, "Seccomp:").ends_with('0'));
    host.runtime.stop_container(&sandbox, &id, stop(0)).await.unwrap();
    assert_eq!(host.exit(&sandbox, &id).await.code, 137);
    host.runtime.remove_sandbox(&sandbox).await.unwrap();
}

#[tokio::test]
async fn a_shim_has_little_memory_of_its_own() {
    let Some(host) = host("a_shim_has_little_memory_of_its_own").await else { return };
    let (sandbox, container) = host
        .run("small", "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; echo ready; sleep 1000")
        .await;
    host.logged(&sandbox, &container, "ready").await;
    let shim = shim_of(host.pid(&sandbox, &container).await);
    let rollup = fs::read_to_string(format!("/proc/{shim}/smaps_rollup")).unwrap();
    let field = |name: &str| -> u64 {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    // Pages of the program itself are shared by all shims of a node; what is left is what one more shim costs.
    let own = field("Anonymous:");
    assert!(own <= 160, "{own} KiB\n{rollup}");
    host.runtime.remove_sandbox(&sandbox).await.unwrap();
}

#[tokio::test]
async fn shim_and_commands_are_in_their_own_groups_of_every_hierarchy() {
    let Some(host) = host("shim_and_commands_are_in_their_own_groups_of_every_hierarchy").await else { return };
    let (sandbox, container) = host.run("members", "cat /proc/1/cgroup; sleep 1000").await;
    let shim = shim_of(host.pid(&sandbox, &container).await);
    let pod = host.cgroup().join("podmembers");
    let groups = fs::read_to_string(format!("/proc/{shim}/cgroup")).unwrap();
    let hierarchies = oci::cgroup::Hierarchies::detect().unwrap();
    let mut used: Vec<&str> = hierarchies.used_v1().map(|v1| v1.label.as_str()).collect();
    used.extend(hierarchies.v2.as_ref().map(|_| ""));
    let group_in = |groups: &str, label: &str| {
        let line = groups.lines().find(|line| line.split(':').nth(1) == Some(label)).unwrap();
        line.split(':').nth(2).unwrap().to_owned()
    };
    let wanted = format!("/{}", pod.join("shim-0").display());
    for label in &used {
        assert!(group_in(&groups, label).ends_with(&wanted), "{label:?}: {groups}");
    }
    // A command's view of its own groups, from inside the container's cgroup namespace, is their roots.
    let args = vec!["/bin/cat".to_owned(), "/proc/self/cgroup".to_owned()];
    let exec = ExecSpec { args, timeout: None, output_limit: 1 << 16, again: false };
    let seen = host.runtime.exec(&sandbox, &container, exec).await.unwrap();
    let groups = String::from_utf8(seen.stdout).unwrap();
    for label in &used {
        assert_eq!(group_in(&groups, label), "/", "{label:?}: {groups}");
    }
    host.runtime.remove_sandbox(&sandbox).await.unwrap();
}

fn shim_of(pid: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// What a sandbox could leave.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    mounts: String,
    cgroups: BTreeSet<PathBuf>,
    files: BTreeSet<PathBuf>,
    processes: BTreeSet<PathBuf>,
}

impl Traces {
    fn of(directory: &Path, cgroup: &Path) -> Self {
        let hierarchies = oci::cgroup::Hierarchies::detect().unwrap();
        let mounts = hierarchies.v1.iter().map(|v1| &v1.mount).chain(hierarchies.v2.iter().map(|v2| &v2.mount));
        let mut cgroups = BTreeSet::new();
        mounts.for_each(|mount| collect(&mount.join(cgroup), &mut cgroups));
        let mut files = BTreeSet::new();
        collect(&directory.join("state"), &mut files);
        let is_ours = |path: &PathBuf| fs::read_link(path.join("exe")).is_ok_and(|exe| exe.starts_with(directory));
        let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path()).filter(is_ours).collect();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounts =
            mounts.lines().filter(|line| !line.contains(disk::PLACE)).map(|line| format!("{line}\n")).collect();
        Self { mounts, cgroups, files, processes }
    }
}

fn collect(path: &Path, found: &mut BTreeSet<PathBuf>) {
    if !path.exists() {
        return;
    }
    found.insert(path.to_owned());
    if path.is_dir() && !path.is_symlink() {
        fs::read_dir(path).unwrap().for_each(|entry| collect(&entry.unwrap().path(), found));
    }
}
