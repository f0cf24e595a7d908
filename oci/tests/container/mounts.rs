//! What a process sees of file systems.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use oci::container::rootfs::require_shared;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use serde_json::{Value, json};

use crate::stage::Stage;

fn add_mount(config: &mut Value, mount: Value) {
    config["mounts"].as_array_mut().unwrap().push(mount);
}

fn bind(source: &Path, destination: &str, options: &[&str]) -> Value {
    json!({"destination": destination, "type": "bind", "source": source, "options": options})
}

#[test]
fn nothing_of_the_host_is_mounted_inside() {
    let Some(stage) = Stage::new("nothing_of_the_host_is_mounted_inside") else { return };
    let report = stage.run(&stage.config(&["cat", "/proc/self/mountinfo", "--", "list", "/dev"]));
    let points: Vec<&str> = report.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    for expected in ["/", "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup"] {
        assert!(points.contains(&expected), "{expected} in {report}");
    }
    assert_eq!(points.iter().filter(|point| **point == "/").count(), 1, "{report}");
    assert!(!report.contains("shared:"), "{report}");
    let devices = "[fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero]";
    assert_eq!(report.lines().last().unwrap(), devices);
}

#[test]
fn masked_paths_are_empty_and_read_only_ones_refuse() {
    let Some(stage) = Stage::new("masked_paths_are_empty_and_read_only_ones_refuse") else { return };
    let mut config = stage.config(&[
        "cat",
        "/proc/keys",
        "--",
        "list",
        "/sys/firmware",
        "--",
        "write",
        "/proc/sys/kernel/domainname",
        "x",
        "--",
        "create",
        "/sys/x",
        "--",
        "create",
        "/etc/x",
    ]);
    let erofs = format!("error {}", libc::EROFS);
    let report = stage.run(&config);
    assert_eq!(report.lines().collect::<Vec<_>>(), ["", "[]", &erofs, &erofs, "created"], "{report}");
    config["root"]["readonly"] = json!(true);
    assert_eq!(stage.run(&config).lines().last().unwrap(), erofs);
}

#[test]
fn binds_are_attached_where_they_are_asked_for() {
    let Some(stage) = Stage::new("binds_are_attached_where_they_are_asked_for") else { return };
    let volume = stage.path("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("file"), "of the host").unwrap();
    // As in images whose resolv.conf belongs to a service that is not there.
    symlink("../run/resolve/stub.conf", stage.layer().join("etc/resolv.conf")).unwrap();
    symlink("/../../../etc", stage.layer().join("outside")).unwrap();
    let mut config = stage.config(&[
        "write",
        "/data/deep/file",
        "of the guest",
        "--",
        "create",
        "/frozen/x",
        "--",
        "cat",
        "/run/resolve/stub.conf",
        "--",
        "cat",
        "/etc/made",
        "--",
        "cat",
        "/seen/file",
    ]);
    add_mount(&mut config, bind(&volume, "/data/deep", &["rbind", "rw"]));
    add_mount(&mut config, bind(&volume, "/frozen", &["rbind", "ro"]));
    add_mount(&mut config, bind(&volume.join("file"), "/etc/resolv.conf", &["bind", "ro"]));
    add_mount(&mut config, bind(&volume.join("file"), "/outside/made", &["bind", "ro"]));
    add_mount(&mut config, bind(&volume, "/seen", &["bind", "x-starter"]));
    let report = stage.run(&config);
    let erofs = format!("error {}", libc::EROFS);
    let expected = ["written", &erofs, "of the guest", "of the guest", "of the guest"];
    assert_eq!(report.lines().collect::<Vec<_>>(), expected, "{report}");
    let upper = stage.path("upper");
    assert!(upper.join("run/resolve/stub.conf").exists(), "made where the link points to, below the root");
}

/// Runs in a thread with a mount namespace of its own, in which `volume` is a shared mount.
fn with_shared_volume(stage: &Stage, test: impl FnOnce(&Path) + Send) {
    let volume = stage.path("volume");
    fs::create_dir(&volume).unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            mount_change("/", private).unwrap();
            mount("tmpfs", &volume, "tmpfs", MountFlags::empty(), None).unwrap();
            mount_change(&volume, MountPropagationFlags::SHARED).unwrap();
            test(&volume);
        });
        thread.join().unwrap();
    });
}

#[test]
fn mounts_of_the_host_appear_inside_only_if_asked() {
    let Some(stage) = Stage::new("mounts_of_the_host_appear_inside_only_if_asked") else { return };
    with_shared_volume(&stage, |volume| {
        let mut config = stage.config(&["wait", "--", "cat", "/proc/self/mountinfo"]);
        add_mount(&mut config, bind(volume, "/private", &["rbind"]));
        add_mount(&mut config, bind(volume, "/slave", &["rbind", "rslave"]));
        let mut inside = stage.start(&config).unwrap();
        inside.await_ready();
        fs::create_dir(volume.join("late")).unwrap();
        mount("tmpfs", volume.join("late"), "tmpfs", MountFlags::empty(), None).unwrap();
        let report = inside.output();
        assert!(report.contains(" /slave/late "), "{report}");
        assert!(!report.contains(" /private/late "), "{report}");
    });
}

#[test]
fn mounts_made_inside_appear_on_the_host_only_if_asked() {
    let Some(stage) = Stage::new("mounts_made_inside_appear_on_the_host_only_if_asked") else { return };
    with_shared_volume(&stage, |volume| {
        for (name, option) in [("of-private", "rprivate"), ("of-slave", "rslave"), ("of-shared", "rshared")] {
            fs::create_dir(volume.join(name)).unwrap();
            let inner = format!("/volume/{name}");
            let mut config = stage.config(&["mount", &inner]);
            add_mount(&mut config, bind(volume, "/volume", &["rbind", option]));
            assert_eq!(stage.run(&config), "mounted\n");
            let seen = fs::read_to_string("/proc/thread-self/mountinfo").unwrap().contains(name);
            assert_eq!(seen, option == "rshared", "{option}");
        }
    });
}

#[test]
fn a_source_that_is_not_shared_is_refused_in_the_words_of_the_kubelet() {
    let Some(stage) = Stage::new("a_source_that_is_not_shared_is_refused_in_the_words_of_the_kubelet") else { return };
    with_shared_volume(&stage, |volume| {
        require_shared(volume).unwrap();
        mount_change(volume, MountPropagationFlags::PRIVATE).unwrap();
        let message = require_shared(volume).unwrap_err().to_string();
        let path = volume.display();
        assert_eq!(message, format!("path {path} is mounted on {path} but it is not a shared mount"));
    });
}

#[test]
fn a_device_is_what_it_should_be() {
    let Some(stage) = Stage::new("a_device_is_what_it_should_be") else { return };
    let report = stage.run(&stage.config(&["write", "/dev/null", "x", "--", "write", "/dev/full", "x"]));
    assert_eq!(report, format!("written\nerror {}\n", libc::ENOSPC));
}

#[test]
fn a_terminal_is_the_containers_own() {
    let Some(stage) = Stage::new("a_terminal_is_the_containers_own") else { return };
    let mut config = stage.config(&["terminal", "--", "list", "/dev/pts", "--", "list", "/dev"]);
    config["process"]["terminal"] = json!(true);
    let mut running = stage.start(&config).unwrap();
    let mut master = fs::File::from(running.started.terminal.take().unwrap());
    let mut text = Vec::new();
    // Reading a terminal whose other end is closed fails with EIO after everything has been read.
    let _ = std::io::Read::read_to_end(&mut master, &mut text);
    let text = String::from_utf8(text).unwrap().replace('\r', "");
    assert!(text.starts_with("terminal true\n/dev/pts/0\n[0 ptmx]\n[console "), "{text}");
}
