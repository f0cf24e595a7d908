//! Further processes in a running container.

use serde_json::json;

use crate::stage::Stage;

#[test]
fn a_further_process_is_in_all_namespaces_and_groups_of_the_container() {
    let Some(stage) = Stage::new("a_further_process_is_in_all_namespaces_and_groups_of_the_container") else { return };
    let mut config = stage.config(&["wait"]);
    config["linux"]["seccomp"] =
        serde_json::to_value(oci::seccomp::default_profile(&[], oci::seccomp::Architecture::native())).unwrap();
    let mut inside = stage.start(&config).unwrap();
    inside.await_ready();
    let mut command = config.clone();
    command["process"]["args"] = json!([
        "payload",
        "wait",
        "--",
        "who",
        "--",
        "cat",
        "/proc/1/cmdline",
        "--",
        "cat",
        "/proc/self/cgroup",
        "--",
        "unshare",
        "--",
        "cat",
        "/proc/self/mountinfo"
    ]);
    command["process"]["user"] = json!({"uid": 77, "gid": 78});
    command["process"]["cwd"] = json!("/tmp");
    let mut running = stage.exec(&command, &inside).unwrap();
    running.await_ready();
    assert!(stage.group.pids().unwrap().contains(&running.started.pid));
    let report = running.output();
    for expected in ["uid 77 gid 78", "cwd /tmp", "death 9", "fds 0 1 2 3", "Seccomp 2", "error 1"] {
        assert!(report.lines().any(|line| line == expected), "{expected} in {report}");
    }
    assert!(report.contains(&format!("{}\0wait", crate::stage::PAYLOAD)), "{report}");
    // Seen from its own cgroup namespace, the group is the root.
    let used = stage.host.cgroups.used_v1().count() + usize::from(stage.host.cgroups.v2.is_some());
    assert!(report.lines().filter(|line| line.ends_with(":/")).count() >= used, "{report}");
    assert!(!report.contains("coracle-oci-test"), "{report}");
}

#[test]
fn a_further_process_may_have_a_terminal() {
    let Some(stage) = Stage::new("a_further_process_may_have_a_terminal") else { return };
    let config = stage.config(&["wait"]);
    let mut inside = stage.start(&config).unwrap();
    inside.await_ready();
    let mut command = stage.config(&["terminal"]);
    command["process"]["terminal"] = json!(true);
    let mut running = stage.exec(&command, &inside).unwrap();
    let mut master = std::fs::File::from(running.started.terminal.take().unwrap());
    let mut text = Vec::new();
    let _ = std::io::Read::read_to_end(&mut master, &mut text);
    assert_eq!(String::from_utf8_lossy(&text), "terminal true\r\n/dev/pts/0\r\n");
}

#[test]
fn nothing_can_be_executed_in_a_dead_container() {
    let Some(stage) = Stage::new("nothing_can_be_executed_in_a_dead_container") else { return };
    let config = stage.config(&["wait"]);
    let mut inside = stage.start(&config).unwrap();
    inside.await_ready();
    let pidfd = &inside.started.pidfd;
    rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL).unwrap();
    let exited = rustix::process::WaitIdOptions::EXITED;
    rustix::process::waitid(rustix::process::WaitId::PidFd(std::os::fd::AsFd::as_fd(pidfd)), exited).unwrap();
    assert!(stage.exec(&config, &inside).is_err());
    // The caller is back in its own process namespace: its next child is an ordinary one.
    assert_eq!(stage.run(&stage.config(&["cat", "/proc/self/comm"])), "payload\n");
}
