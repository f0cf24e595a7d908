//! Containers that share a process namespace.

use std::fs;
use std::time::Duration;

use super::host::{Host, host, shell};
use super::{lines, stop};
use crate::*;

async fn shared(host: &Host, uid: &str, user_namespace: Option<UserRange>) -> SandboxId {
    let spec = SandboxSpec { pid: PidSharing::Sandbox, user_namespace, ..host.sandbox(uid) };
    let id = spec.id.clone();
    host.runtime.create_sandbox(spec).await.unwrap();
    id
}

async fn start(host: &Host, sandbox: &SandboxId, container: ContainerSpec) -> ContainerId {
    let id = container.id.clone();
    host.runtime.start_container(sandbox, container).await.unwrap();
    id
}

async fn check_sharing(host: &Host, uid: &str, users: Option<UserRange>) {
    let sandbox = shared(host, uid, users).await;
    let first = start(host, &sandbox, shell("first", "echo mine is $$; sleep 1000 & wait")).await;
    host.logged(&sandbox, &first, "mine").await;
    // An orphan is inherited by process 1, which reaps it; process 1 has nobody's ids and nothing to give.
    let script = "cat /proc/[0-9]*/cmdline | tr '\\0' ' '; echo; grep -E '^(Uid|Gid|CapPrm|CapBnd|NoNewPrivs)' /proc/1/status; \
                  (sleep 0.01 &); echo $$; (cd /proc/1; ls fd root/) | grep -v ':$' | grep -c .; \
                  echo look$((40 + 2)); sleep 1000";
    let mut looks = shell("second", script);
    looks.privileges.add_capabilities = vec!["SYS_PTRACE".to_owned()];
    let second = start(host, &sandbox, looks).await;
    host.logged(&sandbox, &second, "look42").await;
    let log = host.log(&sandbox, &second).await;
    let lines = lines(&log);
    assert!(lines[0].contains("sleep 1000"), "the first container is not seen: {lines:?}");
    for word in
        ["Uid:\t65535", "Gid:\t65535", "CapPrm:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"]
    {
        assert!(lines.iter().any(|line| line.contains(word)), "{word:?} in {lines:?}");
    }
    assert!(!lines.contains(&"stdout F 1"), "process 1 is no container's: {lines:?}");
    assert!(lines.contains(&"stdout F 0"), "process 1 has descriptors, or files in its root: {lines:?}");

    // The end of a container ends all of its processes and none of another's.
    host.runtime.stop_container(&sandbox, &first, stop(0)).await.unwrap();
    host.exit(&sandbox, &first).await;
    // A dead process is shown in brackets until it has been reaped.
    let script = "while ps | grep -q '[[]sleep[]]'; do :; done; ps";
    let args = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    let list = ExecSpec { args, timeout: Some(Duration::from_secs(20)), output_limit: 10_000, again: false };
    let seen = host.runtime.exec(&sandbox, &second, list).await.unwrap();
    assert_eq!(seen.code, Some(0), "the orphans are never reaped");
    let seen = String::from_utf8_lossy(&seen.stdout).into_owned();
    assert_eq!(seen.matches("sleep 1000").count(), 1, "{seen}");
    host.runtime.remove_sandbox(&sandbox).await.unwrap();
}

#[tokio::test]
async fn containers_that_share_processes_see_each_other_and_end_alone() {
    let Some(host) = host("containers_that_share_processes_see_each_other_and_end_alone").await else { return };
    check_sharing(&host, "processes", None).await;
}

#[tokio::test]
async fn processes_are_shared_inside_a_user_namespace_too() {
    let Some(host) = host("processes_are_shared_inside_a_user_namespace_too").await else { return };
    check_sharing(&host, "processes-users", Some(UserRange { first: 21 << 16, count: 1 << 16 })).await;
}

#[tokio::test]
async fn a_sandbox_whose_first_process_ends_is_dead() {
    let Some(host) = host("a_sandbox_whose_first_process_ends_is_dead").await else { return };
    let sandbox = shared(&host, "first", None).await;
    let container = start(&host, &sandbox, shell("main", "echo ready; sleep 1000")).await;
    host.logged(&sandbox, &container, "ready").await;
    let pid = host.pid(&sandbox, &container).await;
    let namespace = fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap();
    let first = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    let first = first.filter(|name| name.parse::<u32>().is_ok()).find(|name| {
        let inner = fs::read_to_string(format!("/proc/{name}/status")).unwrap_or_default();
        fs::read_link(format!("/proc/{name}/ns/pid")).is_ok_and(|of| of == namespace)
            && inner.lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1"))
    });
    let first: i32 = first.unwrap().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(first).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    let dead = host.wait(|| async {
        let status = host.runtime.status(&sandbox).await.unwrap().unwrap();
        let ended = matches!(status.containers[0].state, ContainerState::Exited(_));
        (status.state == SandboxState::Dead && ended).then_some(())
    });
    dead.await;
    host.runtime.remove_sandbox(&sandbox).await.unwrap();
}
