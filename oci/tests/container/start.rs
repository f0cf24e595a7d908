//! How a start fails, and that nothing is left of it.

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;

use oci::container::{Place, Step};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use serde_json::json;

use crate::stage::{Stage, spec};

#[test]
fn a_program_is_searched_in_the_path_of_the_container() {
    let Some(stage) = Stage::new("a_program_is_searched_in_the_path_of_the_container") else { return };
    let mut config = stage.config(&[]);
    config["process"]["args"] = json!(["payload", "cat", "/proc/self/cmdline"]);
    assert_eq!(stage.run(&config).trim_end(), "payload\0cat\0/proc/self/cmdline\0");
}

#[test]
fn a_program_that_cannot_be_executed_says_why() {
    let Some(stage) = Stage::new("a_program_that_cannot_be_executed_says_why") else { return };
    fs::write(stage.layer().join("bin/plain"), "text").unwrap();
    fs::write(stage.layer().join("bin/broken"), "no format that the kernel knows").unwrap();
    fs::set_permissions(stage.layer().join("bin/broken"), fs::Permissions::from_mode(0o755)).unwrap();
    let cases = [
        ("absent", libc::ENOENT),
        ("/absent", libc::ENOENT),
        ("plain", libc::EACCES),
        ("/bin", libc::EACCES),
        ("/proc/self/exe", libc::ELOOP),
    ];
    let mut config = stage.config(&[]);
    for (name, errno) in cases {
        config["process"]["args"] = json!([name]);
        let error = stage.start(&config).err().unwrap_or_else(|| panic!("{name} was started"));
        let compiled = oci::container::compile::compile(&spec(&config), &stage.host).unwrap();
        assert_eq!((error.step(&compiled.script), error.errno), (Some(&Step::FindProgram), errno), "{name}");
    }
    config["process"]["args"] = json!(["broken"]);
    let error = stage.start(&config).err().unwrap();
    assert_eq!((error.place, error.errno), (Place::Execute, libc::ENOEXEC));
    assert_eq!(stage.group.pids().unwrap(), Vec::<i32>::new(), "no process is left");
}

#[test]
fn a_failed_step_is_named() {
    let Some(stage) = Stage::new("a_failed_step_is_named") else { return };
    let mut config = stage.config(&["who"]);
    let wrong = json!({"destination": "/x", "type": "tmpfs", "source": "tmpfs", "options": ["size=nonsense"]});
    config["mounts"].as_array_mut().unwrap().push(wrong);
    let error = stage.start(&config).err().unwrap();
    let compiled = oci::container::compile::compile(&spec(&config), &stage.host).unwrap();
    let name = error.step(&compiled.script).map(Step::name);
    assert_eq!((name, error.errno), (Some("mount"), libc::EINVAL), "{error}");
}

#[test]
fn a_working_directory_that_leads_outside_is_refused() {
    let Some(stage) = Stage::new("a_working_directory_that_leads_outside_is_refused") else { return };
    let mut config = stage.config(&["who"]);
    for path in ["/proc/self/fd/3", "/proc/self/fd/7/../..", "/proc/1/root"] {
        config["process"]["cwd"] = json!(path);
        assert!(stage.start(&config).is_err(), "{path}");
    }
}

#[test]
fn a_start_that_is_given_up_leaves_no_process() {
    let Some(stage) = Stage::new("a_start_that_is_given_up_leaves_no_process") else { return };
    stage.abandon(&stage.config(&["wait"]));
    for child in oci::container::ending_children() {
        waitid(WaitId::PidFd(child.as_fd()), WaitIdOptions::EXITED).unwrap();
    }
    assert_eq!(stage.group.pids().unwrap(), Vec::<i32>::new());
}

#[test]
fn a_container_dies_with_the_thread_that_started_it() {
    let Some(stage) = Stage::new("a_container_dies_with_the_thread_that_started_it") else { return };
    let mut config = stage.config(&["wait"]);
    config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    let running = std::thread::scope(|scope| {
        let starter = scope.spawn(|| {
            let mut running = stage.start(&config).unwrap();
            running.await_ready();
            running
        });
        starter.join().unwrap()
    });
    let id = WaitId::PidFd(running.started.pidfd.as_fd());
    let ended = waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap().unwrap();
    assert_eq!(ended.terminating_signal(), Some(libc::SIGKILL));
}

#[test]
fn a_container_may_join_the_processes_of_another() {
    let Some(stage) = Stage::new("a_container_may_join_the_processes_of_another") else { return };
    let mut first = stage.start(&stage.config(&["wait"])).unwrap();
    first.await_ready();
    let mut config = stage.config(&["cat", "/proc/1/cmdline", "--", "who"]);
    let path = format!("/proc/{}/ns/pid", first.started.pid);
    config["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "pid", "path": path}]);
    let report = stage.run(&config);
    assert!(report.starts_with(&format!("{}\0wait", crate::stage::PAYLOAD)), "{report}");
    assert!(!report.contains("pid 1 "), "{report}");
    // The starter's own children are born in its own namespace again.
    assert!(stage.run(&stage.config(&["who"])).contains("pid 1 session 1"));
}
