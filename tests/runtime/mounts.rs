//! `mounts` of config.md: order, sources, options, propagation, mount points.

use std::fs;

use serde_json::{Value, json};

use crate::stage::Stage;

fn tmpfs(destination: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options})
}

fn bind(source: &std::path::Path, options: &[&str]) -> Value {
    json!({"destination": "/mounted", "type": "bind", "source": source, "options": options})
}

/// A script that prints the options of the mount at a path, those of the mount and those of the file system.
fn options_of(path: &str) -> String {
    format!("awk '$5 == \"{path}\" {{ print $6; for (i = 7; $i != \"-\"; i++); print $(i + 3) }}' /proc/self/mountinfo")
}

#[track_caller]
fn has(seen: &str, option: &str) -> bool {
    seen.split([',', '\n']).any(|word| word == option)
}

#[test]
fn mounts_are_made_in_the_listed_order() {
    let Some(mut stage) = Stage::new() else { return };
    let (first, second) = (stage.file("first/name", "first\n"), stage.file("second/name", "second\n"));
    stage.push("/mounts", bind(first.parent().unwrap(), &["bind"]));
    stage.push("/mounts", tmpfs("/a", &[]));
    stage.push("/mounts", tmpfs("/a/b", &[]));
    stage.push("/mounts", bind(second.parent().unwrap(), &["bind"]));
    assert_eq!(stage.output("cat /mounted/name; grep -c ' /a' /proc/self/mountinfo"), "second\n2");
}

#[test]
fn mount_points_are_made_for_directories_and_for_files() {
    let Some(mut stage) = Stage::new() else { return };
    let file = stage.file("source", "text\n");
    stage.push("/mounts", tmpfs("/deep/down/here", &[]));
    stage.push(
        "/mounts",
        json!({"destination": "/also/deep/file", "type": "bind", "source": file, "options": ["bind"]}),
    );
    assert_eq!(stage.output("touch /deep/down/here/x; cat /also/deep/file"), "text");
}

#[test]
fn a_bind_mount_shows_and_changes_its_source() {
    let Some(mut stage) = Stage::new() else { return };
    let file = stage.file("source/file", "text\n");
    stage.push("/mounts", bind(file.parent().unwrap(), &["bind"]));
    assert_eq!(stage.output("cat /mounted/file; echo changed >/mounted/file"), "text");
    assert_eq!(fs::read_to_string(file).unwrap(), "changed\n");
}

#[test]
fn a_bind_mount_needs_no_type() {
    let Some(mut stage) = Stage::new() else { return };
    let file = stage.file("source/file", "text\n");
    stage.push("/mounts", json!({"destination": "/mounted", "source": file.parent().unwrap(), "options": ["rbind"]}));
    assert_eq!(stage.output("cat /mounted/file"), "text");
}

#[test]
fn a_relative_source_of_a_bind_mount_is_below_the_bundle() {
    let Some(mut stage) = Stage::new() else { return };
    stage.file("bundle/data/file", "text\n");
    stage.push("/mounts", json!({"destination": "/mounted", "type": "bind", "source": "data", "options": ["bind"]}));
    // Not below the directory that the runtime was started in.
    stage.around = ["sh", "-c", "mkdir -p elsewhere/data; cd elsewhere; exec \"$@\"", "sh"].map(str::to_owned).to_vec();
    stage.script("cat /mounted/file");
    stage.write_config();
    let bundle = stage.bundle().display().to_string();
    assert_eq!(stage.call(&["run", "--bundle", &bundle, &stage.id]).ok(), "text");
}

#[test]
fn a_read_only_bind_mount_cannot_be_written() {
    let Some(mut stage) = Stage::new() else { return };
    let file = stage.file("source/file", "text\n");
    stage.push("/mounts", bind(file.parent().unwrap(), &["bind", "ro"]));
    let seen = stage.output("cat /mounted/file; touch /mounted/file 2>&1; touch /mounted/new 2>&1; true");
    assert_eq!(seen, "text\ntouch: /mounted/file: Read-only file system\ntouch: /mounted/new: Read-only file system");
}

/// Has a mount below the source of a bind mount, in a mount namespace of the runtime's own.
fn with_submount(stage: &mut Stage, options: &[&str], prepare: &str) -> String {
    let source = stage.file("source/file", "text\n").parent().unwrap().to_owned();
    fs::create_dir(source.join("below")).unwrap();
    let path = source.display();
    let script = format!("mount -t tmpfs tmpfs {path}/below && touch {path}/below/inner && {prepare} exec \"$@\"");
    let around = ["unshare", "--mount", "--propagation", "private", "sh", "-c", &script, "sh"];
    stage.around = around.map(str::to_owned).to_vec();
    stage.push("/mounts", bind(&source, options));
    stage.output(
        "ls /mounted/below; for f in /mounted/new /mounted/below/new; do touch $f 2>/dev/null && echo $f; done; true",
    )
}

#[test]
fn bind_leaves_mounts_below_out_and_rbind_takes_them_along() {
    let Some(mut stage) = Stage::new() else { return };
    assert_eq!(with_submount(&mut stage, &["bind"], ""), "/mounted/new\n/mounted/below/new");
    let Some(mut stage) = Stage::new() else { return };
    assert_eq!(with_submount(&mut stage, &["rbind"], ""), "inner\n/mounted/new\n/mounted/below/new");
}

#[test]
fn ro_holds_for_the_mount_alone_and_rro_for_those_below_too() {
    let Some(mut stage) = Stage::new() else { return };
    assert_eq!(with_submount(&mut stage, &["rbind", "ro"], ""), "inner\n/mounted/below/new");
    let Some(mut stage) = Stage::new() else { return };
    assert_eq!(with_submount(&mut stage, &["rbind", "rro"], ""), "inner");
}

#[test]
fn options_of_a_mount_are_as_configured() {
    let Some(mut stage) = Stage::new() else { return };
    let all = ["nosuid", "nodev", "noexec", "ro", "noatime"];
    stage.push("/mounts", tmpfs("/all", &all));
    stage.push("/mounts", tmpfs("/none", &["suid", "dev", "exec", "rw", "relatime"]));
    stage.push("/mounts", tmpfs("/days", &["nodiratime", "strictatime"]));
    let seen =
        stage.output(&format!("{}; echo; {}; echo; {}", options_of("/all"), options_of("/none"), options_of("/days")));
    let parts: Vec<&str> = seen.split("\n\n").collect();
    assert!(all.iter().all(|option| has(parts[0], option)), "{seen}");
    assert!(["nosuid", "nodev", "noexec", "ro", "noatime"].iter().all(|option| !has(parts[1], option)), "{seen}");
    assert!(has(parts[1], "relatime") && has(parts[2], "nodiratime") && !has(parts[2], "relatime"), "{seen}");
}

#[test]
fn options_of_a_bind_mount_are_as_configured() {
    let Some(mut stage) = Stage::new() else { return };
    let source = stage.file("source/file", "").parent().unwrap().to_owned();
    let all = ["nosuid", "nodev", "noexec", "noatime"];
    stage.push("/mounts", bind(&source, &[&["bind"], &all[..]].concat()));
    let seen = stage.output(&options_of("/mounted"));
    assert!(all.iter().all(|option| has(&seen, option)), "{seen}");
}

#[test]
fn a_later_option_overrides_an_earlier_one() {
    let Some(mut stage) = Stage::new() else { return };
    stage.push("/mounts", tmpfs("/a", &["ro", "noexec", "rw", "exec"]));
    let seen = stage.output(&options_of("/a"));
    assert!(!has(&seen, "noexec") && has(&seen, "rw") && !has(&seen, "ro"), "{seen}");
}

#[test]
fn options_of_the_file_system_reach_it() {
    let Some(mut stage) = Stage::new() else { return };
    stage.push("/mounts", tmpfs("/a", &["size=128k", "mode=1750", "uid=12", "gid=34", "nr_inodes=99"]));
    let seen = stage.output(&format!("stat -c '%a %u %g' /a; {}", options_of("/a")));
    assert_eq!(seen.lines().next(), Some("1750 12 34"));
    assert!(has(&seen, "size=128k") && has(&seen, "nr_inodes=99"), "{seen}");
}

#[test]
fn the_size_of_a_tmpfs_holds() {
    let Some(mut stage) = Stage::new() else { return };
    stage.push("/mounts", tmpfs("/a", &["size=64k"]));
    let seen = stage.output("dd if=/dev/zero of=/a/f bs=4k count=32 2>/dev/null; stat -c %s /a/f");
    assert_eq!(seen, "65536");
}

#[test]
fn an_option_that_the_file_system_does_not_know_is_refused() {
    let Some(mut stage) = Stage::new() else { return };
    stage.push("/mounts", tmpfs("/a", &["novelty=1"]));
    stage.run().fails();
}

#[test]
fn an_unknown_file_system_is_refused() {
    let Some(mut stage) = Stage::new() else { return };
    stage.push("/mounts", json!({"destination": "/a", "type": "noveltyfs", "source": "x"}));
    stage.run().fails();
}

/// The marks of propagation on a bind mount of a shared mount.
fn propagation(option: &str) -> Option<String> {
    let mut stage = Stage::new()?;
    let source = stage.file("source/file", "").parent().unwrap().to_owned();
    let path = source.display();
    let script = format!("mount --bind {path} {path} && mount --make-shared {path} && exec \"$@\"");
    let around = ["unshare", "--mount", "--propagation", "private", "sh", "-c", &script, "sh"];
    stage.around = around.map(str::to_owned).to_vec();
    stage.push("/mounts", bind(&source, &["rbind", option]));
    Some(stage.output("awk '$5 == \"/mounted\" { for (i = 7; $i != \"-\"; i++) print $i }' /proc/self/mountinfo"))
}

#[test]
fn a_private_mount_has_no_peers() {
    for option in ["private", "rprivate"] {
        let Some(seen) = propagation(option) else { return };
        assert_eq!(seen, "", "{option}");
    }
}

#[test]
fn a_slave_mount_receives_and_does_not_send() {
    for option in ["slave", "rslave"] {
        let Some(seen) = propagation(option) else { return };
        assert!(seen.contains("master:") && !seen.contains("shared:"), "{option}: {seen}");
    }
}

#[test]
fn a_shared_mount_is_a_peer() {
    for option in ["shared", "rshared"] {
        let Some(seen) = propagation(option) else { return };
        assert!(seen.contains("shared:"), "{option}: {seen}");
    }
}

#[test]
fn an_unbindable_mount_is_marked_so() {
    let Some(seen) = propagation("unbindable") else { return };
    assert!(seen.contains("unbindable"), "{seen}");
}

#[test]
fn an_id_mapped_mount_shows_mapped_owners() {
    let Some(mut stage) = Stage::new() else { return };
    let file = stage.file("source/file", "");
    std::os::unix::fs::chown(&file, Some(0), Some(0)).unwrap();
    let map = json!([{"containerID": 0, "hostID": 5000, "size": 1000}]);
    let mut mount = bind(file.parent().unwrap(), &["bind", "idmap"]);
    mount["uidMappings"] = map.clone();
    mount["gidMappings"] = map;
    stage.push("/mounts", mount);
    assert_eq!(stage.output("stat -c '%u %g' /mounted/file"), "5000 5000");
}

#[test]
fn the_cgroup_mount_shows_the_containers_cgroup() {
    let Some(mut stage) = Stage::new() else { return };
    stage.push("/linux/namespaces", json!({"type": "cgroup"}));
    let options = ["nosuid", "noexec", "nodev", "relatime", "ro"];
    stage.push(
        "/mounts",
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options}),
    );
    let script = "cd /sys/fs/cgroup; for f in pids/cgroup.procs cgroup.procs; do [ ! -e $f ] || { cat $f; break; }; done | grep -cx 1
        mkdir /sys/fs/cgroup/pids/x /sys/fs/cgroup/x 2>/dev/null || echo refused";
    assert_eq!(stage.output(script), "1\nrefused");
}
