//! How a start fails, and that nothing is left of it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use oci::container::{Place, Step};
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
