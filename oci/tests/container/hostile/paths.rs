//! Links where paths are expected.

use std::fs::{self, File};
use std::os::unix::fs::symlink;

use oci::container::Step;
use oci::container::compile::compile;
use serde_json::json;

use crate::identity::line;
use crate::stage::{Stage, spec};

/// CVE-2024-21626: a working directory that is a directory of the host which somebody has left open.
#[test]
fn a_working_directory_that_an_image_links_to_a_descriptor_is_refused() {
    let test = "a_working_directory_that_an_image_links_to_a_descriptor_is_refused";
    let Some(stage) = Stage::new(test) else { return };
    let leaks: Vec<File> = (0..8).map(|_| File::open("/").unwrap()).collect();
    for leak in &leaks {
        rustix::io::fcntl_setfd(leak, rustix::io::FdFlags::empty()).unwrap();
    }
    let mut inside = stage.start(&stage.config(&["wait"])).unwrap();
    inside.await_ready();
    let mut config = stage.config(&["who"]);
    fs::create_dir_all(stage.path("upper/etc")).unwrap();
    for descriptor in 3..40 {
        let name = format!("etc/work-{descriptor}");
        symlink(format!("/proc/self/fd/{descriptor}"), stage.path("upper").join(&name)).unwrap();
        for cwd in [format!("/{name}"), format!("/{name}/tmp"), format!("/proc/self/fd/{descriptor}")] {
            config["process"]["cwd"] = json!(cwd);
            assert!(stage.exec(&config, &inside).is_err(), "{cwd}");
        }
    }
    drop(inside);
    for descriptor in 3..40 {
        let name = format!("etc/work-{descriptor}");
        for cwd in [format!("/{name}"), format!("/{name}/tmp"), "/proc/self/cwd".to_owned()] {
            config["process"]["cwd"] = json!(cwd);
            assert!(stage.start(&config).is_err(), "{cwd}");
        }
    }
    // A link that stays inside is followed.
    symlink("/../../../srv", stage.layer().join("etc/work")).unwrap();
    fs::create_dir(stage.layer().join("srv")).unwrap();
    config["process"]["cwd"] = json!("/etc/work");
    assert_eq!(line(&stage.run(&config), "cwd"), "/srv");
}

/// What a link in place of a mount point, or on the way to one, may hold.
const LINKS: [&str; 4] = ["/../../../../../../../escape/HOST", "/HOST", "../../../../../../HOST", "a/../../../../HOST"];

#[test]
fn a_mount_point_that_is_a_link_stays_inside() {
    let Some(stage) = Stage::new("a_mount_point_that_is_a_link_stays_inside") else { return };
    let outside = stage.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(stage.path("file"), "mounted").unwrap();
    let outside_text = outside.to_str().unwrap().trim_start_matches('/').to_owned();
    for link in LINKS {
        let target = link.replace("HOST", &outside_text);
        for name in ["dev", "data", "file", "well"] {
            let path = stage.layer().join(name);
            let _ = fs::remove_file(&path);
            symlink(format!("{target}/{name}"), path).unwrap();
        }
        let mut config = stage.config(&["cat", "/proc/self/mountinfo"]);
        let mounts = config["mounts"].as_array_mut().unwrap();
        for point in ["/dev/shm/../../data", "/data/deep", "/sys/fs/cgroup/../../../well"] {
            mounts.push(json!({"destination": point, "type": "tmpfs", "source": "tmpfs"}));
        }
        let (source, options) = (stage.path("file"), ["bind"]);
        mounts.push(json!({"destination": "/file", "type": "bind", "source": source, "options": options}));
        let report = stage.run(&config);
        for name in ["dev", "dev/pts", "data", "data/deep", "well", "file"] {
            assert!(report.contains(&format!("/{outside_text}/{name} ")), "{target}/{name}: {report}");
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{target}");
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        assert!(!mounts.contains("outside"), "{target}");
        fs::remove_dir_all(stage.path("upper")).unwrap();
        fs::remove_dir_all(stage.path("work")).unwrap();
    }
}

/// CVE-2019-19921 and CVE-2023-27561.
#[test]
fn file_systems_of_the_kernel_are_not_mounted_over_a_link() {
    let Some(stage) = Stage::new("file_systems_of_the_kernel_are_not_mounted_over_a_link") else { return };
    let config = stage.config(&["wait"]);
    for name in ["proc", "sys"] {
        fs::create_dir_all(stage.layer().join("volume")).unwrap();
        let point = stage.layer().join(name);
        let _ = fs::remove_dir(&point);
        symlink("volume", &point).unwrap();
        let error = stage.start(&config).err().unwrap();
        let compiled = compile(&spec(&config), &stage.host).unwrap();
        let step = error.step(&compiled.script).unwrap();
        assert!(matches!(step, Step::Mount { target, .. } if target.to_bytes() == point_of(name)), "{step:?}");
        assert_eq!(error.errno, libc::ELOOP);
        fs::remove_file(&point).unwrap();
        fs::create_dir(&point).unwrap();
    }
    stage.start(&config).unwrap().await_ready();
}

fn point_of(name: &str) -> &[u8] {
    if name == "proc" { b"/proc" } else { b"/sys" }
}

/// CVE-2025-52565: the terminal is bound over `/dev/console`, wherever that leads.
#[test]
fn a_terminal_is_bound_to_a_console_inside() {
    let Some(stage) = Stage::new("a_terminal_is_bound_to_a_console_inside") else { return };
    let victim = stage.path("victim");
    fs::write(&victim, "").unwrap();
    fs::create_dir_all(stage.layer().join("dev")).unwrap();
    symlink(format!("../../../..{}", victim.display()), stage.layer().join("dev/console")).unwrap();
    let mut config = stage.config(&["cat", "/proc/self/mountinfo"]);
    config["process"]["terminal"] = json!(true);
    let mounts = config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| mount["destination"] != "/dev");
    let mut running = stage.start(&config).unwrap();
    let mut master = File::from(running.started.terminal.take().unwrap());
    let mut text = Vec::new();
    let _ = std::io::Read::read_to_end(&mut master, &mut text);
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains(&format!(" {} ", victim.display())), "bound below the root: {text}");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "");
}

/// No device is opened that only has the name of the one that makes terminals.
#[test]
fn a_terminal_is_opened_in_a_file_system_of_terminals_only() {
    let Some(stage) = Stage::new("a_terminal_is_opened_in_a_file_system_of_terminals_only") else { return };
    fs::create_dir_all(stage.layer().join("dev/pts")).unwrap();
    let decoy = stage.layer().join("dev/pts/ptmx");
    // That nobody drives: if it were opened, the error would be ENXIO.
    let (kind, device) = (rustix::fs::FileType::CharacterDevice, rustix::fs::makedev(60, 0));
    rustix::fs::mknodat(rustix::fs::CWD, &decoy, kind, 0o600.into(), device).unwrap();
    let mut config = stage.config(&["terminal"]);
    config["process"]["terminal"] = json!(true);
    config["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    let error = stage.start(&config).err().unwrap();
    assert_eq!(error.errno, libc::EXDEV, "{error}");
}
