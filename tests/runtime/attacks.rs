//! Bundles and containers that mean harm: what specification and advisories say must not come of them.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

use serde_json::json;

use crate::stage::Stage;

/// A directory of the host that a container tries to reach, with a file.
fn prize(stage: &Stage) -> std::path::PathBuf {
    stage.file("prize/file", "host\n").parent().unwrap().to_owned()
}

#[test]
fn a_destination_through_an_absolute_link_stays_in_the_root() {
    let Some(mut stage) = Stage::new() else { return };
    let prize = prize(&stage);
    symlink(&prize, stage.rootfs("link")).unwrap();
    stage.push("/mounts", json!({"destination": "/link/new", "type": "tmpfs", "source": "tmpfs"}));
    drop(stage.run());
    assert!(!prize.join("new").exists());
}

#[test]
fn a_destination_through_a_relative_link_stays_in_the_root() {
    let Some(mut stage) = Stage::new() else { return };
    let prize = prize(&stage);
    symlink("../../prize", stage.rootfs("link")).unwrap();
    stage.push("/mounts", json!({"destination": "/link/new", "type": "tmpfs", "source": "tmpfs"}));
    stage.push("/mounts", json!({"destination": "/../../prize/dots", "type": "tmpfs", "source": "tmpfs"}));
    drop(stage.run());
    assert_eq!(fs::read_dir(&prize).unwrap().count(), 1);
}

#[test]
fn a_destination_through_a_link_is_mounted_where_it_leads_inside() {
    let Some(mut stage) = Stage::new() else { return };
    fs::create_dir(stage.rootfs("real")).unwrap();
    symlink("/real", stage.rootfs("link")).unwrap();
    stage.push("/mounts", json!({"destination": "/link/here", "type": "tmpfs", "source": "tmpfs"}));
    assert_eq!(stage.output("awk '$3 == \"tmpfs\" && $2 ~ /here/ { print $2 }' /proc/self/mounts"), "/real/here");
}

#[test]
fn a_device_through_a_link_stays_in_the_root() {
    let Some(mut stage) = Stage::new() else { return };
    let prize = prize(&stage);
    symlink(&prize, stage.rootfs("link")).unwrap();
    stage.push("/linux/devices", json!({"path": "/link/null", "type": "c", "major": 1, "minor": 3, "fileMode": 438}));
    drop(stage.run());
    assert_eq!(fs::read_dir(&prize).unwrap().count(), 1);
}

#[test]
fn a_working_directory_that_is_a_link_to_the_host_stays_in_the_root() {
    let Some(mut stage) = Stage::new() else { return };
    let prize = prize(&stage);
    symlink(&prize, stage.rootfs("link")).unwrap();
    stage.patch(&json!({"process": {"cwd": "/link"}}));
    let ran = stage.script("ls").run();
    assert!(!ran.out.contains("file"), "{ran:?}");
}

/// CVE-2024-21626: a descriptor of the runtime's as the working directory leads to the host.
#[test]
fn a_descriptor_of_the_runtime_is_no_working_directory() {
    for number in 3..14 {
        let Some(mut stage) = Stage::new() else { return };
        let marker = stage.file("host-marker", "host\n");
        stage.patch(&json!({"process": {"cwd": format!("/proc/self/fd/{number}")}}));
        let script = format!(
            "up=.; for i in 1 2 3 4 5 6 7 8 9; do cat $up{} 2>/dev/null; up=$up/..; done; true",
            marker.display()
        );
        let ran = stage.script(&script).run();
        assert!(!ran.out.contains("host"), "descriptor {number}: {ran:?}");
    }
}

/// CVE-2024-21626, by way of exec.
#[test]
fn a_descriptor_of_the_runtime_is_no_working_directory_of_a_further_process() {
    let Some(mut stage) = Stage::new() else { return };
    let marker = stage.file("host-marker", "host\n");
    let container = stage.start_waiting();
    let script =
        format!("up=.; for i in 1 2 3 4 5 6 7 8 9; do cat $up{} 2>/dev/null; up=$up/..; done; true", marker.display());
    for number in 3..14 {
        let ran = container.exec_with(&["--cwd", &format!("/proc/self/fd/{number}")], &script);
        assert!(!ran.out.contains("host"), "descriptor {number}: {ran:?}");
    }
}

/// CVE-2019-19921 and CVE-2023-27561: a `/proc` that is a link takes the masks elsewhere.
#[test]
fn a_proc_that_is_a_link_is_refused_or_replaced() {
    let Some(mut stage) = Stage::new() else { return };
    fs::remove_dir(stage.rootfs("proc")).unwrap();
    fs::create_dir_all(stage.rootfs("evil/proc")).unwrap();
    symlink("evil/proc", stage.rootfs("proc")).unwrap();
    stage.patch(&json!({"linux": {"maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"]}}));
    let ran = stage
        .script(
            "head -c 4 /evil/proc/kcore; (echo 9000 >/evil/proc/sys/kernel/msgmax) 2>/dev/null && echo written; true",
        )
        .run();
    assert!(ran.code != Some(0) || ran.out.is_empty(), "{ran:?}");
}

/// CVE-2025-31133: a `/dev/null` of the image that is a link becomes what masks paths.
#[test]
fn a_null_device_that_is_a_link_does_not_unmask() {
    let Some(mut stage) = Stage::new() else { return };
    let others = |mount: &serde_json::Value| !mount["destination"].as_str().unwrap().starts_with("/dev");
    let mounts: Vec<_> =
        stage.config["mounts"].as_array().unwrap().iter().filter(|mount| others(mount)).cloned().collect();
    stage.patch(&json!({"mounts": mounts, "linux": {"maskedPaths": ["/etc/masked"]}}));
    fs::write(stage.rootfs("etc/masked"), "masked\n").unwrap();
    fs::write(stage.rootfs("etc/other"), "other\n").unwrap();
    symlink("/etc/other", stage.rootfs("dev/null")).unwrap();
    let ran = stage.script("cat /etc/masked; echo tampered >/etc/masked; cat /etc/other").run();
    assert!(!ran.out.contains("masked") && !ran.out.contains("tampered"), "{ran:?}");
    assert_eq!(fs::read_to_string(stage.rootfs("etc/other")).unwrap(), "other\n");
}

/// CVE-2019-5736: the container writes to the runtime's program by way of `/proc/PID/exe` of a process that is about to
/// become the container's. That a program cannot be written while it runs protects nothing, as a descriptor can be kept
/// until it does not; a read-only mount, a copy or a refusal to look does.
fn overwrite(capabilities: &[&str]) -> Option<(String, bool)> {
    let (mut holder, mut victim) = (Stage::new()?, Stage::new()?);
    let sets = json!({"bounding": capabilities, "permitted": capabilities, "effective": capabilities});
    holder.patch(&json!({"process": {"capabilities": sets}}));
    let container = holder.start_waiting();
    // A container that waits for its start in the same pid namespace is seen while it is still the runtime's program.
    victim.patch(&json!({"linux": {"namespaces": [
        {"type": "pid", "path": container.proc("ns/pid")}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"},
    ]}}));
    let waiting = victim.create();
    let script = "for p in /proc/[0-9]*; do (exec 9<$p/exe; stat -L -c %d:%i $p/exe); done 2>/dev/null; true";
    let seen = container.exec(script).ok().to_owned();
    let meta = fs::metadata(which(&Stage::runtime()[0])).unwrap();
    let own = format!("{}:{}", meta.dev(), meta.ino());
    let program = fs::File::open(waiting.proc("exe")).unwrap();
    let read_only = rustix::fs::fstatvfs(&program).unwrap().f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY);
    Some((seen.clone(), seen.lines().any(|line| line == own) && !read_only))
}

#[test]
fn the_program_of_the_runtime_cannot_be_written_from_inside() {
    let Some((seen, bad)) = overwrite(&["CAP_DAC_OVERRIDE", "CAP_SETUID"]) else { return };
    assert!(!bad, "{seen}");
}

#[test]
fn the_program_of_the_runtime_cannot_be_written_by_who_may_trace() {
    let Some((seen, bad)) = overwrite(&["CAP_DAC_OVERRIDE", "CAP_SYS_PTRACE"]) else { return };
    assert!(!bad, "{seen}");
}

fn which(program: &str) -> std::path::PathBuf {
    let path = std::env::var("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file());
    fs::canonicalize(found.unwrap_or_else(|| program.into())).unwrap()
}

/// CVE-2019-5736, the other way: the program to be run is the runtime itself.
#[test]
fn a_further_process_that_is_the_runtime_itself_leaves_the_program_alone() {
    let Some(mut stage) = Stage::new() else { return };
    let _container = stage.start_waiting();
    let runtime = which(&Stage::runtime()[0]);
    let before = fs::metadata(&runtime).map(|meta| (meta.ino(), meta.len(), meta.mtime())).unwrap();
    drop(stage.call(&["exec", &stage.id, "/proc/self/exe", "--version"]));
    assert_eq!(fs::metadata(&runtime).map(|meta| (meta.ino(), meta.len(), meta.mtime())).unwrap(), before);
    assert_eq!(stage.status(), "running");
}

/// CVE-2016-9962: the container looks into a process that is being put into it.
#[test]
fn a_waiting_process_shows_no_way_to_the_host() {
    let Some(mut stage) = Stage::new() else { return };
    let marker = stage.file("host-marker", "host\n");
    let container = stage.start_waiting();
    let script = format!(
        "for i in 1 2 3 4 5; do for d in /proc/[0-9]*/fd/* /proc/[0-9]*/cwd /proc/[0-9]*/root; do cat $d{0} $d/..{0}; done; done 2>/dev/null; true",
        marker.display()
    );
    for _ in 0..3 {
        assert!(!container.exec(&script).out.contains("host"));
    }
}

#[test]
fn a_set_user_id_program_gains_nothing_under_no_new_privileges() {
    let Some(mut stage) = Stage::new() else { return };
    fs::copy(stage.rootfs("bin/busybox"), stage.rootfs("bin/id-of-root")).unwrap();
    fs::remove_file(stage.rootfs("bin/id")).unwrap();
    fs::hard_link(stage.rootfs("bin/id-of-root"), stage.rootfs("bin/id")).unwrap();
    fs::set_permissions(stage.rootfs("bin/id"), std::os::unix::fs::PermissionsExt::from_mode(0o4755)).unwrap();
    stage.patch(&json!({"process": {"noNewPrivileges": true, "user": {"uid": 1000, "gid": 1000}}}));
    assert_eq!(stage.output("/bin/id -u"), "1000");
}
