//! The root file system and what config.md and config-linux.md say of the system as seen from within: `root`, host and
//! domain name, sysctl, masked and read-only paths, propagation of the root.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use crate::stage::Stage;

#[test]
fn the_root_is_the_directory_of_the_bundle() {
    let Some(mut stage) = Stage::new() else { return };
    fs::write(stage.rootfs("etc/from-host"), "host\n").unwrap();
    assert_eq!(stage.output("cat /etc/from-host; echo inside >/etc/from-inside"), "host");
    assert_eq!(fs::read_to_string(stage.rootfs("etc/from-inside")).unwrap(), "inside\n");
}

#[test]
fn the_root_may_be_an_absolute_path_outside_the_bundle() {
    let Some(mut stage) = Stage::new() else { return };
    fs::rename(stage.rootfs(""), stage.path("elsewhere")).unwrap();
    stage.patch(&json!({"root": {"path": stage.path("elsewhere")}}));
    assert_eq!(stage.output("ls -d /etc"), "/etc");
}

#[test]
fn nothing_of_the_host_is_above_the_root() {
    let Some(mut stage) = Stage::new() else { return };
    let marker = stage.file("host-marker", "");
    let script = format!("ls -d {0} /..{0} /../../../..{0} /proc/1/root{0} 2>/dev/null; echo end", marker.display());
    assert_eq!(stage.output(&script), "end");
}

#[test]
fn no_mount_of_the_host_is_left_in_the_table() {
    let Some(mut stage) = Stage::new() else { return };
    let seen = stage.output("cut -d' ' -f5 /proc/self/mountinfo | sort");
    let expected = ["/", "/dev", "/dev/pts", "/dev/shm", "/proc", "/sys"];
    let other =
        |point: &&str| !expected.contains(point) && !point.starts_with("/dev/") && !point.starts_with("/sys/fs");
    assert_eq!(seen.lines().filter(other).collect::<Vec<_>>(), Vec::<&str>::new(), "{seen}");
    assert_eq!(expected.iter().filter(|point| !seen.lines().any(|line| line == **point)).count(), 0, "{seen}");
}

#[test]
fn a_read_only_root_cannot_be_written() {
    let Some(mut stage) = Stage::new() else { return };
    stage.patch(&json!({"root": {"readonly": true}}));
    let seen = stage.output("touch /x 2>&1; touch /dev/shm/y && echo shm");
    assert_eq!(seen, "touch: /x: Read-only file system\nshm");
    assert!(!stage.rootfs("x").exists());
}

#[test]
fn mount_points_are_made_in_a_root_that_is_read_only_inside() {
    let Some(mut stage) = Stage::new() else { return };
    stage.patch(&json!({"root": {"readonly": true}}));
    stage.push("/mounts", json!({"destination": "/made/here", "type": "tmpfs", "source": "tmpfs"}));
    assert_eq!(stage.output("touch /made/here/file && ls /made/here"), "file");
}

#[test]
fn the_propagation_of_the_root_is_as_configured() {
    // A slave of a mount that is not shared is private; it must not send in any case.
    let cases = [("private", ""), ("slave", "master:"), ("shared", "shared:"), ("unbindable", "unbindable")];
    for (propagation, mark) in cases {
        let Some(mut stage) = Stage::new() else { return };
        let bundle = stage.bundle().display().to_string();
        let script =
            format!("mount --bind {bundle} {bundle} && mount --make-shared {bundle} && cd {bundle} && exec \"$@\"");
        stage.around =
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", &script, "sh"].map(str::to_owned).to_vec();
        stage.patch(&json!({"linux": {"rootfsPropagation": propagation}}));
        let seen = stage.output("awk '$5 == \"/\" { for (i = 7; $i != \"-\"; i++) print $i }' /proc/self/mountinfo");
        let marks: Vec<&str> = seen.lines().collect();
        let fits = match propagation {
            "private" => marks.is_empty(),
            "slave" => marks.iter().all(|line| line.starts_with(mark)),
            _ => marks.iter().any(|line| line.starts_with(mark)),
        };
        assert!(fits, "{propagation}: {marks:?}");
    }
}

#[test]
fn an_unknown_propagation_is_refused() {
    let Some(mut stage) = Stage::new() else { return };
    stage.patch(&json!({"linux": {"rootfsPropagation": "novel"}}));
    stage.run().fails();
}

#[test]
fn the_host_name_is_as_configured_and_the_hosts_stays() {
    let Some(mut stage) = Stage::new() else { return };
    let before = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    stage.patch(&json!({"hostname": "inside-name"}));
    assert_eq!(stage.output("hostname"), "inside-name");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), before);
}

#[test]
fn the_domain_name_is_as_configured() {
    let Some(mut stage) = Stage::new() else { return };
    stage.patch(&json!({"domainname": "inside.example"}));
    assert_eq!(stage.output("cat /proc/sys/kernel/domainname"), "inside.example");
}

#[test]
fn a_host_name_without_an_uts_namespace_is_refused() {
    let Some(mut stage) = Stage::new() else { return };
    // "A new UTS namespace" is a condition of the property; the host must not be renamed.
    let before = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    stage.patch(&json!({
        "hostname": before.trim(), "linux": {"namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "mount"}]},
    }));
    stage.run().fails();
}

#[test]
fn kernel_parameters_of_own_namespaces_are_set() {
    let Some(mut stage) = Stage::new() else { return };
    stage.push("/linux/namespaces", json!({"type": "network"}));
    stage.patch(&json!({"linux": {"sysctl": {
        "kernel.msgmax": "9000", "fs.mqueue.msg_max": "17", "net.ipv4.ip_forward": "1", "net.ipv4.ip_local_port_range": "2000 3000",
    }}}));
    let seen = stage.output(
        "cd /proc/sys; cat kernel/msgmax fs/mqueue/msg_max net/ipv4/ip_forward net/ipv4/ip_local_port_range | tr '\\t' ' '",
    );
    assert_eq!(seen, "9000\n17\n1\n2000 3000");
}

#[test]
fn a_kernel_parameter_of_the_whole_host_is_refused() {
    let Some(mut stage) = Stage::new() else { return };
    let before = fs::read_to_string("/proc/sys/vm/swappiness").unwrap();
    stage.patch(&json!({"linux": {"sysctl": {"vm.swappiness": before.trim()}}}));
    stage.run().fails();
}

#[test]
fn a_kernel_parameter_that_is_not_there_is_refused() {
    let Some(mut stage) = Stage::new() else { return };
    stage.patch(&json!({"linux": {"sysctl": {"kernel.msgmax_novelty": "1"}}}));
    stage.run().fails();
}

#[test]
fn masked_paths_cannot_be_read() {
    let Some(mut stage) = Stage::new() else { return };
    fs::create_dir(stage.rootfs("folder")).unwrap();
    fs::write(stage.rootfs("folder/secret"), "secret").unwrap();
    fs::write(stage.rootfs("etc/secret"), "secret").unwrap();
    stage.patch(
        &json!({"linux": {"maskedPaths": ["/folder", "/etc/secret", "/proc/kcore", "/absent", "/proc/absent"]}}),
    );
    assert_eq!(stage.output("cat /etc/secret; ls /folder; head -c 4 /proc/kcore; echo end"), "end");
}

#[test]
fn masked_directories_cannot_be_written() {
    let Some(mut stage) = Stage::new() else { return };
    fs::create_dir(stage.rootfs("folder")).unwrap();
    stage.patch(&json!({"linux": {"maskedPaths": ["/folder"]}}));
    stage.output("touch /folder/new 2>/dev/null; true");
    assert_eq!(fs::read_dir(stage.rootfs("folder")).unwrap().count(), 0);
}

#[test]
fn read_only_paths_can_be_read_alone() {
    let Some(mut stage) = Stage::new() else { return };
    fs::create_dir(stage.rootfs("folder")).unwrap();
    fs::write(stage.rootfs("folder/file"), "text\n").unwrap();
    stage.patch(&json!({"linux": {"readonlyPaths": ["/folder", "/proc/sys", "/absent", "/proc/absent"]}}));
    let script = "cat /folder/file; for f in /folder/new /folder/file /proc/sys/kernel/msgmax; do
        (echo 9000 >$f) 2>/dev/null || echo refused; done; cat /folder/file";
    assert_eq!(stage.output(script), "text\nrefused\nrefused\nrefused\ntext");
}

#[test]
fn the_default_file_systems_are_what_their_names_say() {
    let Some(mut stage) = Stage::new() else { return };
    // config-linux.md, "Default Filesystems": the runtime should make these available.
    let script = "awk '{ for (i = 7; $i != \"-\"; i++); print $5, $(i + 1) }' /proc/self/mountinfo";
    let seen = stage.output(script);
    for line in ["/proc proc", "/sys sysfs", "/dev/pts devpts", "/dev/shm tmpfs"] {
        assert!(seen.lines().any(|have| have == line), "no {line}: {seen}");
    }
}

#[test]
fn a_container_makes_no_mount_on_the_host() {
    let Some(mut stage) = Stage::new() else { return };
    let container = stage.start_waiting();
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let bundle = stage.bundle().display().to_string();
    let mounts: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|point| point.starts_with(&bundle))
        .map(PathBuf::from)
        .collect();
    assert_eq!(mounts, Vec::<PathBuf>::new());
    drop(container);
}
