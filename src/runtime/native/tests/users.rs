//! Sandboxes with a user namespace of their own.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};

use super::host::{Host, host, shell};
use super::lines;
use crate::*;

/// What root of the tests' sandboxes is outside.
const FIRST: u32 = 20 << 16;

fn sandbox(host: &Host, uid: &str) -> SandboxSpec {
    SandboxSpec { user_namespace: Some(UserRange { first: FIRST, count: 1 << 16 }), ..host.sandbox(uid) }
}

fn namespace(pid: u32, kind: &str) -> std::path::PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap()
}

fn volume(host: &Host) -> Mount {
    let source = host.path().join("volume");
    fs::create_dir_all(&source).unwrap();
    Mount {
        destination: "/volume".into(),
        source: MountSource::HostPath(source),
        sub_path: None,
        read_only: false,
        recursive_read_only: false,
        propagation: Propagation::None,
    }
}

async fn start(host: &Host, sandbox: &SandboxId, name: &str, script: &str, mounts: Vec<Mount>) -> ContainerId {
    let container = ContainerSpec { mounts, ..shell(name, script) };
    let id = container.id.clone();
    host.runtime.start_container(sandbox, container).await.unwrap();
    id
}

/// Waits for the end of a container; what it printed.
async fn output(host: &Host, sandbox: &SandboxId, container: &ContainerId) -> Vec<String> {
    assert_eq!(host.exit(sandbox, container).await.code, 0);
    let log = host.log(sandbox, container).await;
    lines(&log).into_iter().map(|line| line.rsplit_once(" F ").unwrap().1.to_owned()).collect()
}

#[tokio::test]
async fn containers_of_a_sandbox_share_its_user_namespace_also_after_the_agent() {
    let test = "containers_of_a_sandbox_share_its_user_namespace_also_after_the_agent";
    let Some(mut host) = host(test).await else { return };
    let spec = sandbox(&host, "users");
    let id = spec.id.clone();
    host.runtime.create_sandbox(spec).await.unwrap();
    let first = start(&host, &id, "first", "echo of > /dev/shm/file; echo ready; sleep 1000", Vec::new()).await;
    host.logged(&id, &first, "ready").await;
    let pid = host.pid(&id, &first).await;
    let about = fs::metadata(format!("/proc/{pid}")).unwrap();
    assert_eq!((about.uid(), about.gid()), (FIRST, FIRST));
    let (own, outside) = (namespace(pid, "user"), namespace(std::process::id(), "user"));
    assert_ne!(own, outside);
    host.restart().await;
    let script = "id -u; cat /dev/shm/file /proc/self/uid_map; ls -ldn /dev/shm | { read _ _ user _; echo $user; }; \
                  echo ready; sleep 1000";
    let second = start(&host, &id, "second", script, Vec::new()).await;
    host.logged(&id, &second, "ready").await;
    let log = host.log(&id, &second).await;
    let map = format!("stdout F          0 {FIRST:>10}      65536");
    assert_eq!(lines(&log)[..4], ["stdout F 0", "stdout F of", &map, "stdout F 0"]);
    assert_eq!(namespace(host.pid(&id, &second).await, "user"), own);
    let command = ExecSpec {
        args: vec!["/bin/sh".to_owned(), "-c".to_owned(), "id -u; cat /proc/self/uid_map".to_owned()],
        timeout: None,
        output_limit: 1000,
        again: false,
    };
    let result = host.runtime.exec(&id, &second, command).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&result.stdout), format!("0\n         0 {FIRST:>10}      65536\n"));
    host.runtime.remove_sandbox(&id).await.unwrap();
}

#[tokio::test]
async fn volumes_of_a_sandbox_with_a_user_namespace_hold_plain_ids() {
    let test = "volumes_of_a_sandbox_with_a_user_namespace_hold_plain_ids";
    let Some(host) = host(test).await else { return };
    let spec = sandbox(&host, "volumes");
    let id = spec.id.clone();
    host.runtime.create_sandbox(spec).await.unwrap();
    let mount = volume(&host);
    let on_disk = host.path().join("volume");
    fs::write(on_disk.join("given"), "").unwrap();
    chown(on_disk.join("given"), Some(33), Some(34)).unwrap();
    let script = "echo x > /volume/made; ls -n /volume | while read _ _ user group _ _ _ _ name; do echo $name $user $group; done";
    let container = start(&host, &id, "main", script, vec![mount]).await;
    let printed = output(&host, &id, &container).await;
    assert_eq!(printed[1..], ["given 33 34", "made 0 0"]);
    let made = fs::metadata(on_disk.join("made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (0, 0));
    host.runtime.remove_sandbox(&id).await.unwrap();
}

#[tokio::test]
async fn kernel_parameters_are_set_in_namespaces_of_a_user_namespace() {
    let test = "kernel_parameters_are_set_in_namespaces_of_a_user_namespace";
    let Some(host) = host(test).await else { return };
    let mut spec = sandbox(&host, "parameters");
    for (name, value) in [("net.ipv4.ip_unprivileged_port_start", "7"), ("kernel.shm_rmid_forced", "1")] {
        spec.sysctls.insert(name.to_owned(), value.to_owned());
    }
    let id = spec.id.clone();
    host.runtime.create_sandbox(spec).await.unwrap();
    let script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced; hostname";
    let container = start(&host, &id, "main", script, Vec::new()).await;
    assert_eq!(output(&host, &id, &container).await, ["7", "1", "pod-host"]);
    host.runtime.remove_sandbox(&id).await.unwrap();
}

#[tokio::test]
async fn what_a_user_namespace_cannot_have_is_refused_by_name() {
    let test = "what_a_user_namespace_cannot_have_is_refused_by_name";
    let Some(host) = host(test).await else { return };
    let refused = host.runtime.create_sandbox(SandboxSpec { network: Sharing::Host, ..sandbox(&host, "host") }).await;
    assert!(matches!(refused, Err(RuntimeError::Invalid { .. })), "{refused:?}");
    let spec = sandbox(&host, "refused");
    let id = spec.id.clone();
    host.runtime.create_sandbox(spec).await.unwrap();
    let mut container = shell("main", "true");
    container.user.user = "65536".to_owned();
    let refused = host.runtime.start_container(&id, container).await.unwrap_err();
    let expected = "invalid container: user 65536 is not in the user namespace of the pod, which ends at 65535";
    assert_eq!(refused.to_string(), expected);
    let mut mount = volume(&host);
    mount.source = MountSource::HostPath("/proc".into());
    let container = ContainerSpec { mounts: vec![mount], ..shell("other", "true") };
    let refused = host.runtime.start_container(&id, container).await.unwrap_err();
    let mut chain = refused.to_string();
    let mut source = std::error::Error::source(&refused);
    while let Some(error) = source {
        chain = format!("{chain}: {error}");
        source = error.source();
    }
    assert!(chain.contains("failed to set MOUNT_ATTR_IDMAP on /proc (maybe the filesystem used"), "{chain}");
    host.runtime.remove_sandbox(&id).await.unwrap();
}
