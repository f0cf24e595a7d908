//! Who containers are and what they may do, as they see it themselves.

use super::host::{Host, host, shell};
use super::lines;
use crate::*;

/// Runs a container in a sandbox of its own; what it printed, and how it was shown.
async fn outcome(host: &Host, sandbox: SandboxSpec, container: ContainerSpec) -> (Vec<String>, ContainerStatus) {
    let (sandbox_id, id) = (sandbox.id.clone(), container.id.clone());
    host.runtime.create_sandbox(sandbox).await.unwrap();
    host.runtime.start_container(&sandbox_id, container).await.unwrap();
    host.exit(&sandbox_id, &id).await;
    let log = host.log(&sandbox_id, &id).await;
    let printed = lines(&log).into_iter().map(|line| line.rsplit_once(" F ").unwrap().1.to_owned()).collect();
    let status = host.container(&sandbox_id, &id).await;
    host.runtime.remove_sandbox(&sandbox_id).await.unwrap();
    (printed, status)
}

const GROUPS: &str = "grep ^Groups: /proc/self/status | tr -s '\\t ' ' '";

#[tokio::test]
async fn the_image_s_groups_count_unless_they_shall_not_and_the_status_says_which() {
    let test = "the_image_s_groups_count_unless_they_shall_not_and_the_status_says_which";
    let Some(host) = host(test).await else { return };
    let cases = [
        ("merged", GroupFiles::Merged, None, "Groups: 34 50 70 ", (34, vec![34, 50, 70])),
        ("strict", GroupFiles::Ignored, None, "Groups: 34 70 ", (34, vec![34, 70])),
        ("primary", GroupFiles::Ignored, Some(9), "Groups: 9 70 ", (9, vec![9, 70])),
    ];
    for (uid, group_files, gid, expected, (primary, groups)) in cases {
        let mut container = shell("main", GROUPS);
        container.user = User { user: "web".to_owned(), gid, additional_gids: vec![70], group_files };
        let (printed, status) = outcome(&host, host.sandbox(uid), container).await;
        assert_eq!(printed, [expected], "{uid}");
        assert_eq!(status.user, Some(LinuxUser { uid: 33, gid: primary, groups }), "{uid}");
    }
}

#[tokio::test]
async fn who_a_container_is_is_known_to_the_next_agent() {
    let Some(mut host) = host("who_a_container_is_is_known_to_the_next_agent").await else { return };
    let (sandbox, container) = host.run("known", "echo ready; sleep 1000").await;
    host.logged(&sandbox, &container, "ready").await;
    let before = host.container(&sandbox, &container).await.user;
    assert_eq!(before, Some(LinuxUser { uid: 0, gid: 0, groups: vec![0] }));
    host.restart().await;
    assert_eq!(host.container(&sandbox, &container).await.user, before);
    host.runtime.remove_sandbox(&sandbox).await.unwrap();
}

#[tokio::test]
async fn a_container_in_the_host_s_network_has_the_host_s_name() {
    let Some(host) = host("a_container_in_the_host_s_network_has_the_host_s_name").await else { return };
    let spec = SandboxSpec { network: Sharing::Host, ..host.sandbox("host-name") };
    let (printed, _) = outcome(&host, spec, shell("main", "echo $HOSTNAME; hostname")).await;
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    assert_eq!(printed, [name.clone(), name]);
}

#[tokio::test]
async fn the_process_file_system_is_masked_unless_it_shall_be_whole() {
    let Some(host) = host("the_process_file_system_is_masked_unless_it_shall_be_whole").await else { return };
    let script = "grep -c ' /proc/' /proc/self/mounts";
    let users = Some(UserRange { first: 22 << 16, count: 1 << 16 });
    let count = |(printed, _): (Vec<String>, ContainerStatus)| printed.last().unwrap().parse::<u32>().unwrap();
    let masked = SandboxSpec { user_namespace: users, ..host.sandbox("masked") };
    assert!(count(outcome(&host, masked, shell("main", script)).await) > 3);
    let mut whole = shell("main", script);
    whole.privileges.proc_mount = ProcMount::Whole;
    let sandbox = SandboxSpec { user_namespace: users, ..host.sandbox("whole") };
    assert_eq!(count(outcome(&host, sandbox, whole).await), 0);
}

#[tokio::test]
async fn a_filter_that_cannot_be_read_is_named() {
    let Some(host) = host("a_filter_that_cannot_be_read_is_named").await else { return };
    let spec = host.sandbox("filter");
    let sandbox = spec.id.clone();
    host.runtime.create_sandbox(spec).await.unwrap();
    let path = host.path().join("absent.json");
    let mut container = shell("main", "true");
    container.privileges.seccomp = Seccomp::Localhost(path.clone());
    let error = host.runtime.start_container(&sandbox, container).await.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot load seccomp profile {path:?}"));
    host.runtime.remove_sandbox(&sandbox).await.unwrap();
}

#[tokio::test]
async fn capabilities_filters_and_privileges_are_those_that_were_asked_for() {
    let Some(host) = host("capabilities_filters_and_privileges_are_those_that_were_asked_for").await else { return };
    let script = "grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t '; touch /file 2>&1; \
                  mkdir -m 700 /tmp/own 2>/dev/null; unshare -U true 2>/dev/null && echo unshared";
    let seen = async |uid: &str, privileges: Privileges| {
        let container = ContainerSpec { privileges, ..shell("main", script) };
        outcome(&host, host.sandbox(uid), container).await.0
    };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let usual = seen("usual", Privileges::default()).await;
    assert_eq!(usual[..3], ["CapEff:00000000a80425fb", "NoNewPrivs:0", "Seccomp:2"]);
    let dropped = Privileges {
        drop_capabilities: names(&["ALL"]),
        add_capabilities: names(&["NET_BIND_SERVICE"]),
        no_new_privileges: true,
        read_only_root: true,
        ..Privileges::default()
    };
    let dropped = seen("dropped", dropped).await;
    assert_eq!(dropped[..3], ["CapEff:0000000000000400", "NoNewPrivs:1", "Seccomp:2"]);
    assert!(dropped[3].ends_with("Read-only file system"), "{dropped:?}");
    let unconfined = seen("unconfined", Privileges { seccomp: Seccomp::Unconfined, ..Privileges::default() }).await;
    assert_eq!((unconfined[2].as_str(), unconfined.last().unwrap().as_str()), ("Seccomp:0", "unshared"));
}
