//! Containers of other OCI runtimes: Debian's crun and runc, where they are installed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci::cgroup::Hierarchies;

use super::host::{Host, host, shell};
use super::{lines, stop};
use crate::*;

/// Those of the tests' nodes.
pub(super) fn handlers() -> BTreeMap<String, PathBuf> {
    let known = [("crun", "/usr/bin/crun"), ("runc", "/usr/sbin/runc")];
    known.map(|(name, path)| (name.to_owned(), PathBuf::from(path))).into()
}

async fn sandbox(host: &Host, handler: &str) -> SandboxId {
    let spec = SandboxSpec { handler: Some(handler.to_owned()), ..host.sandbox(handler) };
    let id = spec.id.clone();
    host.runtime.create_sandbox(spec).await.unwrap();
    id
}

/// Starts a container whose script says `ready` in some way that is not in its command line.
async fn start(host: &Host, sandbox: &SandboxId, container: ContainerSpec) -> ContainerId {
    let id = container.id.clone();
    host.runtime.start_container(sandbox, container).await.unwrap();
    id
}

async fn check(host: &mut Host, handler: &str) {
    let id = sandbox(host, handler).await;
    let script = "hostname; id -u; echo $$; cat /dev/shm/file; grep -c . /proc/self/mounts >/dev/null && echo mounted; \
                  trap 'exit 7' TERM; echo look$((40 + 2)); while :; do sleep 0.01; done";
    let writer = start(host, &id, shell("writer", "echo shared > /dev/shm/file")).await;
    assert_eq!(host.exit(&id, &writer).await.code, 0, "{}", host.log(&id, &writer).await);
    let mut main = shell("main", script);
    main.user.user = "web".to_owned();
    let main = start(host, &id, main).await;
    host.logged(&id, &main, "look42").await;
    let log = host.log(&id, &main).await;
    let expected = ["stdout F pod-host", "stdout F 33", "stdout F 1", "stdout F shared", "stdout F mounted"];
    assert_eq!(lines(&log)[..5], expected);

    // What the shim knows of it is the runtime, in the host's process namespace: nobody may join that.
    let looks = ContainerSpec { processes_of: Some(main.clone()), ..shell("looks", "ps") };
    let refused = host.runtime.start_container(&id, looks).await.unwrap_err();
    assert!(refused.to_string().ends_with("cannot be combined with the processes of another container"), "{refused}");

    // Nothing of it is mounted on the host.
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(&host.path().join("state").display().to_string()), "{mounts}");

    host.restart().await;
    let command = ExecSpec {
        args: ["/bin/sh", "-c", "id -u; hostname; exit 5"].map(str::to_owned).to_vec(),
        timeout: Some(Duration::from_secs(20)),
        output_limit: 1000,
        again: false,
    };
    let result = host.runtime.exec(&id, &main, command).await.unwrap();
    assert_eq!((result.code, String::from_utf8_lossy(&result.stdout).as_ref()), (Some(5), "33\npod-host\n"));

    host.runtime.stop_container(&id, &main, stop(1000)).await.unwrap();
    assert_eq!(host.exit(&id, &main).await.code, 7);
    host.runtime.remove_container(&id, &main).await.unwrap();
    let stubborn =
        start(host, &id, shell("stubborn", "trap '' TERM; echo look$((40 + 2)); while :; do sleep 1; done")).await;
    host.logged(&id, &stubborn, "look42").await;
    host.runtime.stop_container(&id, &stubborn, stop(0)).await.unwrap();
    assert_eq!(host.exit(&id, &stubborn).await.code, 137);
    host.runtime.remove_sandbox(&id).await.unwrap();
    for hierarchy in Hierarchies::detect().unwrap().v1 {
        let left = hierarchy.mount.join(host.cgroup());
        assert!(!left.exists(), "{handler} has left {}", left.display());
    }
}

#[tokio::test]
async fn containers_are_run_by_the_runtime_that_the_handler_names() {
    let Some(mut host) = host("containers_are_run_by_the_runtime_that_the_handler_names").await else { return };
    for (handler, program) in handlers() {
        if Path::new(&program).exists() {
            check(&mut host, &handler).await;
        } else {
            eprintln!("SKIP containers_are_run_by_the_runtime_that_the_handler_names: no {handler}");
        }
    }
}

#[tokio::test]
async fn a_handler_that_nobody_has_configured_is_named() {
    let Some(host) = host("a_handler_that_nobody_has_configured_is_named").await else { return };
    let spec = SandboxSpec { handler: Some("kata".to_owned()), ..host.sandbox("unknown") };
    let error = host.runtime.create_sandbox(spec).await.unwrap_err();
    assert_eq!(error.to_string(), "no runtime for \"kata\" is configured");
    let users = Some(UserRange { first: 23 << 16, count: 1 << 16 });
    let spec = SandboxSpec { handler: Some("crun".to_owned()), user_namespace: users, ..host.sandbox("users") };
    let error = host.runtime.create_sandbox(spec).await.unwrap_err();
    assert!(error.to_string().ends_with("another runtime cannot be combined with a user namespace"), "{error}");
}
