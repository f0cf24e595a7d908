//! Processes that others of the container attack while they are on their way into it, and inits that end or are ended.

use std::fs;

use oci::container::compile::compile_exec;
use oci::container::{Place, Step};
use rustix::process::{DumpableBehavior, Signal, dumpable_behavior, pidfd_send_signal};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use serde_json::json;

use crate::identity::line;
use crate::stage::{GIVEN, Stage, spec};

#[test]
fn nobody_inside_can_look_into_a_process_that_is_not_its_program_yet() {
    let test = "nobody_inside_can_look_into_a_process_that_is_not_its_program_yet";
    let Some(stage) = Stage::new(test) else { return };
    // CAP_SYS_ADMIN would include CAP_PERFMON, with which maps and environment of everybody can be read (Linux 6.15).
    let capabilities = json!({"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]});
    let mut config = stage.config(&["wait"]);
    let mut looking = stage.config(&["read-line", "--", "look"]);
    for config in [&mut config, &mut looking] {
        config["process"]["capabilities"] = capabilities.clone();
    }
    let mut inside = stage.start(&looking).unwrap();
    let (stuck, _pipe) = stage.begin_stuck(&config, Some(&inside));
    inside.go_on();
    let report = inside.lines_until("looked");
    let refused = format!(" error {}", libc::EACCES);
    assert!(report.len() == 8 && report.iter().all(|line| line.ends_with(&refused)), "{report:?}");
    drop(stuck);
    // The same look at a process that is its program sees it.
    let mut inside = stage.start(&looking).unwrap();
    let mut further = stage.exec(&config, &inside).unwrap();
    further.await_ready();
    inside.go_on();
    // Not until it ends: that takes until the other process has been reaped.
    assert_eq!(inside.lines_until("looked").first().unwrap(), &format!("exe {}", crate::stage::PAYLOAD));
}

#[test]
fn whoever_starts_processes_among_others_is_closed_to_them_before_there_is_a_child() {
    let test = "whoever_starts_processes_among_others_is_closed_to_them_before_there_is_a_child";
    let Some(stage) = Stage::new(test) else { return };
    let config = stage.config(&["wait"]);
    let mut inside = stage.start(&config).unwrap();
    inside.await_ready();
    stage.exec(&config, &inside).unwrap().await_ready();
    assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
}

#[test]
fn an_init_that_kills_what_joins_it_makes_a_clear_error() {
    let Some(stage) = Stage::new("an_init_that_kills_what_joins_it_makes_a_clear_error") else { return };
    let config = stage.config(&["wait"]);
    let mut inside = stage.start(&stage.config(&["read-line", "--", "kill-others", "--", "wait"])).unwrap();
    let (stuck, _pipe) = stage.begin_stuck(&config, Some(&inside));
    inside.go_on();
    inside.await_line("killed");
    let error = stuck.finish().err().unwrap();
    assert_eq!((error.place, error.errno), (Place::Died, libc::ECHILD));
    inside.await_ready();
    assert_eq!(stage.group.pids().unwrap(), [inside.started.pid]);
}

#[test]
fn an_init_that_dies_takes_what_joins_it_along() {
    let Some(stage) = Stage::new("an_init_that_dies_takes_what_joins_it_along") else { return };
    let config = stage.config(&["wait"]);
    let inside = stage.start(&config).unwrap();
    let (stuck, _pipe) = stage.begin_stuck(&config, Some(&inside));
    pidfd_send_signal(&inside.started.pidfd, Signal::KILL).unwrap();
    let error = stuck.finish().err().unwrap();
    assert_eq!((error.place, error.errno), (Place::Died, libc::ECHILD));
    drop(inside);
    assert_eq!(stage.group.pids().unwrap(), Vec::<i32>::new());
}

#[test]
fn a_process_that_is_killed_while_it_becomes_a_container_leaves_nothing() {
    let test = "a_process_that_is_killed_while_it_becomes_a_container_leaves_nothing";
    let Some(stage) = Stage::new(test) else { return };
    let config = stage.config(&["wait"]);
    let mounts = || fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let before = mounts();
    let (stuck, _pipe) = stage.begin_stuck(&config, None);
    let pid = rustix::process::Pid::from_raw(stuck.pid()).unwrap();
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    let error = stuck.finish().err().unwrap();
    assert_eq!((error.place, error.errno), (Place::Died, libc::ECHILD));
    // It has been reaped as well.
    let id = WaitId::PidFd(std::os::fd::AsFd::as_fd(&pidfd));
    assert_eq!(waitid(id, WaitIdOptions::EXITED).err(), Some(rustix::io::Errno::CHILD));
    assert_eq!(stage.group.pids().unwrap(), Vec::<i32>::new());
    assert_eq!(mounts(), before);
    stage.group.remove().unwrap();
    // The overlay's directories are not held by a mount that is left somewhere: they serve again.
    stage.group.create().unwrap();
    assert_eq!(stage.run(&stage.config(&["create", "/x"])), "created\n");
}

#[test]
fn an_init_cannot_choose_the_group_or_privileges_of_what_joins_it() {
    let Some(stage) = Stage::new("an_init_cannot_choose_the_group_or_privileges_of_what_joins_it") else { return };
    let mut config = stage.config(&["nested", "wait"]);
    config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    let mut inside = stage.start(&config).unwrap();
    inside.await_line("nested");
    inside.await_ready();
    let mut further = stage.exec(&stage.config(&["wait", "--", "who"]), &inside).unwrap();
    further.await_ready();
    assert!(stage.group.pids().unwrap().contains(&further.started.pid));
    // Init is in a mount namespace that it has made; what it can be reached through is no more than it had.
    let report = further.output();
    assert_eq!(line(&report, "CapBnd"), GIVEN);
    assert_eq!(line(&report, "death"), "9");
}

/// An init that has put something else over `/proc` cannot have what is meant for the kernel written elsewhere.
#[test]
fn a_replaced_proc_is_not_written_to() {
    let Some(stage) = Stage::new("a_replaced_proc_is_not_written_to") else { return };
    // Another file system, and a part of the right one.
    for (attack, done) in [(["mount", "/proc"].as_slice(), "mounted"), (&["bind", "/proc/1", "/proc"], "bound")] {
        let mut inside = stage.start(&stage.config(&[attack, &["--", "wait"]].concat())).unwrap();
        inside.await_line(done);
        inside.await_ready();
        let mut command = stage.config(&["who"]);
        command["process"]["oomScoreAdj"] = json!(500);
        let error = stage.exec(&command, &inside).err().unwrap();
        let spec = spec(&command);
        let compiled = compile_exec(&spec, spec.process().as_ref().unwrap(), &stage.host).unwrap();
        let step = error.step(&compiled.script);
        assert_eq!((step, error.errno), (Some(&Step::OomScore { value: 500 }), libc::EXDEV), "{done}");
    }
}
