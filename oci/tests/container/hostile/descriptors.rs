//! What a process could reach through descriptors that it was not meant to have.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde_json::json;

use crate::identity::line;
use crate::stage::Stage;

/// A descriptor that survives execve(2) unless somebody takes care.
fn leaky(path: &Path) -> File {
    let file = File::open(path).unwrap();
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
    file
}

#[test]
fn nothing_that_the_caller_has_open_gets_inside() {
    let Some(stage) = Stage::new("nothing_that_the_caller_has_open_gets_inside") else { return };
    let _leaks = [leaky(stage.directory.path()), leaky(Path::new("/")), leaky(Path::new("/proc/self/exe"))];
    // The fourth is the directory that is being listed.
    assert_eq!(line(&stage.run(&stage.config(&["who"])), "fds"), "0 1 2 3");
    let mut inside = stage.start(&stage.config(&["wait"])).unwrap();
    inside.await_ready();
    let further = stage.exec(&stage.config(&["who"]), &inside).unwrap();
    assert_eq!(line(&further.output(), "fds"), "0 1 2 3");
}

/// A null device that stands for the host's, with a mode that nobody else gives it.
fn own_null(stage: &Stage) -> std::path::PathBuf {
    let path = stage.path("null");
    mknodat(CWD, &path, FileType::CharacterDevice, Mode::empty(), makedev(1, 3)).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    path
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_null_device_of_the_host_cannot_be_changed_through_a_standard_stream() {
    let test = "a_null_device_of_the_host_cannot_be_changed_through_a_standard_stream";
    let Some(mut stage) = Stage::new(test) else { return };
    let null = own_null(&stage);
    let mut inside = stage.start(&stage.config(&["wait"])).unwrap();
    inside.await_ready();
    let host = File::options().read(true).write(true).open(&null).unwrap();
    stage.stdin = Some(OwnedFd::from(host));
    let attack = ["chmod", "/proc/self/fd/0", "--", "write", "/proc/self/fd/0", "x"];
    assert_eq!(stage.run(&stage.config(&attack)), "changed\nwritten\n");
    assert_eq!(mode(&null), 0o640);
    let further = stage.exec(&stage.config(&attack), &inside).unwrap();
    assert_eq!(further.output(), "changed\nwritten\n");
    assert_eq!(mode(&null), 0o640);
}

#[test]
fn a_container_without_a_null_device_gets_no_other_in_its_place() {
    let test = "a_container_without_a_null_device_gets_no_other_in_its_place";
    let Some(mut stage) = Stage::new(test) else { return };
    let null = own_null(&stage);
    let mut inside = stage.start(&stage.config(&["unlink", "/dev/null", "--", "create", "/dev/null", "--", "wait"]));
    let inside = inside.as_mut().unwrap();
    inside.await_line("removed");
    inside.await_line("created");
    inside.await_ready();
    stage.stdin = Some(OwnedFd::from(File::open(null).unwrap()));
    let config = stage.config(&["who"]);
    let error = stage.exec(&config, inside).err().unwrap();
    assert_eq!(error.errno, libc::ENODEV, "{error}");
}

#[test]
fn a_device_that_is_bound_from_the_host_cannot_be_changed() {
    let Some(mut stage) = Stage::new("a_device_that_is_bound_from_the_host_cannot_be_changed") else { return };
    let null = own_null(&stage);
    let path = null.to_str().unwrap();
    let mut config = stage.config(&["chmod", path, "--", "write", path, "x"]);
    config["linux"]["devices"] = json!([{"path": path, "type": "c", "major": 1, "minor": 3}]);
    stage.host.can_make_devices = false;
    assert_eq!(stage.run(&config), format!("error {}\nwritten\n", libc::EROFS));
    assert_eq!(mode(&null), 0o640);
}
