//! Containers with a user namespace of their own, or one that they share.

use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use oci::container::StartError;
use oci::container::compile::{compile, defaults};
use oci::container::rootfs::{Overlay, overlay_mapped};
use oci::container::users::{IdMaps, make, owner};
use serde_json::{Value, json};

use crate::stage::{Running, Stage, spec};

/// What root is on the host.
const OUTSIDE: u32 = 10 << 16;
const COUNT: u32 = 1 << 16;
/// What an id that is not mapped looks like.
const NOBODY: &str = "65534:65534";

fn config(stage: &Stage, args: &[&str]) -> Value {
    let mut config = stage.config(args);
    let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.extend([json!({"type": "user"}), json!({"type": "network"})]);
    let maps = json!([{"containerID": 0, "hostID": OUTSIDE, "size": COUNT}]);
    config["linux"]["uidMappings"] = maps.clone();
    config["linux"]["gidMappings"] = maps;
    config
}

fn start(stage: &Stage, config: &Value) -> Result<Running, StartError> {
    let compiled = compile(&spec(config), &stage.host).unwrap();
    let maps = IdMaps::contiguous(OUTSIDE, COUNT);
    let lower = [stage.layer()];
    let (upper, work) = (stage.path("upper"), stage.path("work"));
    let wanted = Overlay { lower: &lower, upper: &upper, work: &work, volatile: false };
    let rootfs = overlay_mapped(&wanted, make(&maps).unwrap().as_fd(), maps.root().unwrap()).unwrap();
    stage.launch(&compiled, Some(rootfs), None)
}

fn run(stage: &Stage, config: &Value) -> String {
    let shown = |error: &StartError| error.step(&compile(&spec(config), &stage.host).unwrap().script).cloned();
    start(stage, config).unwrap_or_else(|error| panic!("{error}: {:?}", shown(&error))).output()
}

fn add_mount(config: &mut Value, source: &Path, destination: &str, options: &[&str]) {
    let mount = json!({"destination": destination, "type": "bind", "source": source, "options": options});
    config["mounts"].as_array_mut().unwrap().push(mount);
}

fn all_capabilities(config: &mut Value) {
    let all: Vec<String> = caps::all().iter().map(ToString::to_string).collect();
    config["process"]["capabilities"] = json!({"bounding": all, "effective": all, "permitted": all});
}

fn line<'t>(report: &'t str, name: &str) -> &'t str {
    report.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap_or_else(|| panic!("{report}"))
}

fn identity(namespace: BorrowedFd<'_>) -> u64 {
    rustix::fs::fstat(namespace).unwrap().st_ino
}

fn namespace(pid: i32, kind: &str) -> fs::File {
    fs::File::open(format!("/proc/{pid}/ns/{kind}")).unwrap()
}

#[test]
fn root_of_a_user_namespace_is_somebody_else_on_the_host() {
    let Some(stage) = Stage::new("root_of_a_user_namespace_is_somebody_else_on_the_host") else { return };
    let mut config = config(&stage, &["wait", "--", "who", "--", "cat", "/proc/self/uid_map", "--", "list", "/dev"]);
    config["process"]["user"] = json!({"uid": 0, "gid": 0, "additionalGids": [8, 9]});
    config["process"]["oomScoreAdj"] = json!(500);
    config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]);
    config["hostname"] = json!("guest");
    let mut running = start(&stage, &config).unwrap();
    running.await_ready();
    let pid = running.started.pid;
    assert_eq!(running.started.warnings, []);
    assert_eq!(stage.group.pids().unwrap(), [pid], "the first child is gone");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for field in ["Uid", "Gid"] {
        let expected = format!("{field}:\t{OUTSIDE}\t{OUTSIDE}\t{OUTSIDE}\t{OUTSIDE}");
        assert!(status.lines().any(|line| line == expected), "{status}");
    }
    let own = namespace(pid, "user");
    for kind in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let owner = owner(namespace(pid, kind).as_fd()).unwrap();
        assert_eq!(identity(owner.as_fd()), identity(own.as_fd()), "{kind} belongs to another user namespace");
    }
    let report = running.output();
    assert_eq!(line(&report, "uid"), "0 gid 0");
    assert_eq!(line(&report, "groups"), "8 9");
    assert_eq!(line(&report, "pid"), "1 session 1");
    assert_eq!(line(&report, "CapEff"), "0000000000200021");
    assert_eq!(line(&report, "CapBnd"), "0000000000200021");
    assert_eq!(line(&report, "death"), "9");
    assert_eq!(line(&report, "oom"), "500");
    assert_eq!(line(&report, "nofile"), "Some(100) Some(200)");
    assert_eq!(line(&report, "fds"), "0 1 2 3");
    let map: Vec<u32> = report.lines().rev().nth(1).unwrap().split_whitespace().flat_map(str::parse).collect();
    assert_eq!(map, [0, OUTSIDE, COUNT]);
    let devices = "[fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero]";
    assert_eq!(report.lines().last().unwrap(), devices);
}

#[test]
fn capabilities_inside_do_not_reach_the_host() {
    let Some(stage) = Stage::new("capabilities_inside_do_not_reach_the_host") else { return };
    let volume = stage.path("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("file"), "of the host").unwrap();
    fs::write(volume.join("secret"), "of the host").unwrap();
    fs::set_permissions(volume.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    let mut config = config(
        &stage,
        &[
            "owner",
            "/volume/file",
            "--",
            "cat",
            "/volume/file",
            "--",
            "write",
            "/volume/file",
            "x",
            "--",
            "cat",
            "/volume/secret",
            "--",
            "create",
            "/volume/new",
            "--",
            "chown",
            "/volume/file",
            "0",
            "--",
            "device",
            "/tmp/null",
            "--",
            "write",
            "/proc/sys/kernel/printk",
            "4",
            "--",
            "write",
            "/proc/1/oom_score_adj",
            "-1000",
            "--",
            "write",
            "/dev/null",
            "x",
            "--",
            "mount",
            "/tmp",
        ],
    );
    all_capabilities(&mut config);
    config["linux"]["readonlyPaths"] = json!([]);
    add_mount(&mut config, &volume, "/volume", &["bind"]);
    let report = run(&stage, &config);
    let (eperm, eacces) = (format!("error {}", libc::EPERM), format!("error {}", libc::EACCES));
    let expected =
        [NOBODY, "of the host", &eacces, &eacces, &eacces, &eperm, &eperm, &eacces, &eacces, "written", "mounted"];
    assert_eq!(report.lines().collect::<Vec<_>>(), expected, "{report}");
    assert_eq!(fs::read_to_string(volume.join("file")).unwrap(), "of the host");
}

#[test]
fn a_mapped_volume_has_the_ids_of_the_container_inside_and_plain_ones_on_disk() {
    let test = "a_mapped_volume_has_the_ids_of_the_container_inside_and_plain_ones_on_disk";
    let Some(stage) = Stage::new(test) else { return };
    let volume = stage.path("volume");
    fs::create_dir(&volume).unwrap();
    for (name, id) in [("root", 0), ("user", 33)] {
        fs::write(volume.join(name), "").unwrap();
        chown(volume.join(name), Some(id), Some(id)).unwrap();
    }
    let mut config = config(
        &stage,
        &[
            "owner",
            "/volume/root",
            "--",
            "owner",
            "/volume/user",
            "--",
            "write",
            "/volume/root",
            "x",
            "--",
            "create",
            "/volume/made",
            "--",
            "chown",
            "/volume/made",
            "7",
            "--",
            "owner",
            "/volume/made",
            "--",
            "owner",
            "/other/root",
        ],
    );
    add_mount(&mut config, &volume, "/volume", &["rbind", "idmap"]);
    add_mount(&mut config, &volume, "/other", &["bind"]);
    // This mount shows the host's root as user 5 of the container.
    let maps = json!([{"containerID": 0, "hostID": OUTSIDE + 5, "size": 1}]);
    let other = config["mounts"].as_array_mut().unwrap().last_mut().unwrap();
    (other["uidMappings"], other["gidMappings"]) = (maps.clone(), maps);
    let report = run(&stage, &config);
    let expected = ["0:0", "33:33", "written", "created", "changed", "7:0", "5:5"];
    assert_eq!(report.lines().collect::<Vec<_>>(), expected, "{report}");
    let made = fs::metadata(volume.join("made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (7, 0));
}

#[test]
fn file_systems_inside_belong_to_root_inside() {
    let Some(stage) = Stage::new("file_systems_inside_belong_to_root_inside") else { return };
    let paths = [
        "/",
        "/bin/payload",
        "/dev",
        "/dev/shm",
        "/dev/pts",
        "/dev/pts/ptmx",
        "/dev/mqueue",
        "/proc/self/status",
        "/made",
    ];
    let mut args = vec!["create", "/made"];
    paths.iter().for_each(|path| args.extend(["--", "owner", path]));
    args.extend(["--", "owner", "/dev/null"]);
    let report = run(&stage, &config(&stage, &args));
    let owners: Vec<&str> = report.lines().collect();
    assert_eq!(owners[0], "created", "{report}");
    for (path, owner) in paths.iter().zip(&owners[1..]) {
        assert_eq!(*owner, "0:0", "{path} in {report}");
    }
    assert_eq!(owners.last(), Some(&NOBODY), "a device of the host");
    let made = fs::metadata(stage.path("upper/made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (OUTSIDE, OUTSIDE), "the writable layer holds ids of nobody");
}

#[test]
fn a_further_process_joins_the_user_namespace() {
    let Some(stage) = Stage::new("a_further_process_joins_the_user_namespace") else { return };
    let config = config(&stage, &["wait"]);
    let mut inside = start(&stage, &config).unwrap();
    inside.await_ready();
    let mut command = config.clone();
    command["process"]["args"] = json!(["payload", "wait", "--", "who", "--", "owner", "/proc/self/status"]);
    command["process"]["user"] = json!({"uid": 77, "gid": 78, "additionalGids": [5]});
    command["process"]["oomScoreAdj"] = json!(300);
    let mut running = stage.exec(&command, &inside).unwrap();
    running.await_ready();
    assert_eq!(running.started.warnings, []);
    for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let (own, its) = (namespace(running.started.pid, kind), namespace(inside.started.pid, kind));
        assert_eq!(identity(own.as_fd()), identity(its.as_fd()), "{kind}");
    }
    let host = fs::metadata(format!("/proc/{}", running.started.pid)).unwrap();
    assert_eq!((host.uid(), host.gid()), (OUTSIDE + 77, OUTSIDE + 78));
    let report = running.output();
    assert_eq!(line(&report, "uid"), "77 gid 78");
    assert_eq!(line(&report, "groups"), "5");
    assert_eq!(line(&report, "oom"), "300");
    assert_eq!(report.lines().last().unwrap(), "77:78");
}

#[test]
fn containers_may_share_a_user_namespace_and_what_belongs_to_it() {
    let test = "containers_may_share_a_user_namespace_and_what_belongs_to_it";
    let Some(stage) = Stage::new(test) else { return };
    let mut first = start(&stage, &config(&stage, &["wait"])).unwrap();
    first.await_ready();
    let mut config = stage.config(&[
        "wait",
        "--",
        "who",
        "--",
        "cat",
        "/proc/sys/net/ipv4/ip_forward",
        "--",
        "list",
        "/sys/class/net",
    ]);
    let path = |kind: &str| format!("/proc/{}/ns/{kind}", first.started.pid);
    config["linux"]["namespaces"] = json!([
        {"type": "mount"}, {"type": "pid"}, {"type": "cgroup"}, {"type": "user", "path": path("user")},
        {"type": "network", "path": path("net")}, {"type": "ipc", "path": path("ipc")},
    ]);
    config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
    let mut second = start(&stage, &config).unwrap();
    second.await_ready();
    for (kind, same) in [("user", true), ("net", true), ("ipc", true), ("pid", false), ("mnt", false)] {
        let (own, its) = (namespace(second.started.pid, kind), namespace(first.started.pid, kind));
        assert_eq!(identity(own.as_fd()) == identity(its.as_fd()), same, "{kind}");
    }
    let report = second.output();
    assert_eq!(line(&report, "uid"), "0 gid 0");
    let last: Vec<&str> = report.lines().rev().take(2).collect();
    assert_eq!(last, ["[lo]", "1"], "{report}");
    // Its processes may be joined as well; then there is no second child.
    config["linux"]["namespaces"][1]["path"] = json!(path("pid"));
    config["process"]["args"] =
        json!([crate::stage::PAYLOAD, "cat", "/proc/1/cmdline", "--", "owner", "/proc/self/status"]);
    let report = run(&stage, &config);
    let start = format!("{}\0wait", crate::stage::PAYLOAD);
    assert!(report.starts_with(&start) && report.ends_with("0:0\n"), "{report}");
}

#[test]
fn a_container_in_a_user_namespace_may_have_a_terminal_and_a_read_only_root() {
    let test = "a_container_in_a_user_namespace_may_have_a_terminal_and_a_read_only_root";
    let Some(stage) = Stage::new(test) else { return };
    let mut config = config(&stage, &["terminal", "--", "create", "/x", "--", "owner", "/dev/console"]);
    config["process"]["terminal"] = json!(true);
    config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    config["root"]["readonly"] = json!(true);
    config["linux"]["seccomp"] =
        serde_json::to_value(oci::seccomp::default_profile(&[], oci::seccomp::Architecture::native())).unwrap();
    assert!(defaults::MASKED_PATHS.contains(&"/proc/kcore"), "masks are part of this");
    let mut running = start(&stage, &config).unwrap();
    let mut master = fs::File::from(running.started.terminal.take().unwrap());
    let mut text = Vec::new();
    let _ = std::io::Read::read_to_end(&mut master, &mut text);
    let text = String::from_utf8_lossy(&text);
    let erofs = format!("error {}", libc::EROFS);
    let expected = ["terminal true", "/dev/pts/0", &erofs, "1000:5"];
    assert_eq!(text.split("\r\n").filter(|line| !line.is_empty()).collect::<Vec<_>>(), expected);
}

#[test]
fn a_start_that_fails_behind_the_user_namespace_leaves_nothing() {
    let test = "a_start_that_fails_behind_the_user_namespace_leaves_nothing";
    let Some(stage) = Stage::new(test) else { return };
    let mut config = config(&stage, &["wait"]);
    config["process"]["args"] = json!(["absent"]);
    let error = start(&stage, &config).err().unwrap();
    assert_eq!(error.errno, libc::ENOENT, "{error}");
    // The host's network cannot be shown inside: the kernel refuses sysfs, and the step is named.
    config["linux"]["namespaces"].as_array_mut().unwrap().retain(|one| one["type"] != "network");
    let error = start(&stage, &config).err().unwrap();
    let compiled = compile(&spec(&config), &stage.host).unwrap();
    let name = error.step(&compiled.script).map(oci::container::Step::name);
    assert_eq!((name, error.errno), (Some("mount"), libc::EPERM), "{error}");
    assert_eq!(stage.group.pids().unwrap(), Vec::<i32>::new());
    let children = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    assert_eq!(children.trim(), "", "every child is reaped");
}
