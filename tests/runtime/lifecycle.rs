//! Operations and states: runtime.md, "State", "Lifecycle" and "Operations". What a program's end means to the exit code
//! of `run` is as runc has it, which supervisors rely on.

use std::fs;

use serde_json::json;

use crate::stage::Stage;

#[test]
fn run_succeeds_with_the_program() {
    let Some(mut stage) = Stage::new() else { return };
    assert_eq!(stage.output("echo done"), "done");
}

#[test]
fn run_returns_the_exit_code_of_the_program() {
    let Some(mut stage) = Stage::new() else { return };
    assert_eq!(stage.script("exit 42").run().code, Some(42));
}

#[test]
fn run_of_a_program_that_a_signal_ends_returns_128_and_its_number() {
    let Some(mut stage) = Stage::new() else { return };
    // The first process of a pid namespace is immune to its own signals, so this one stays in the host's.
    stage.patch(&json!({"linux": {"namespaces": [{"type": "mount"}, {"type": "ipc"}, {"type": "uts"}]}}));
    assert_eq!(stage.script("kill -KILL $$").run().code, Some(128 + 9));
}

#[test]
fn run_removes_the_container_afterwards() {
    let Some(mut stage) = Stage::new() else { return };
    stage.output("true");
    stage.call(&["state", &stage.id]).fails();
    assert_eq!(stage.group_directories(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn run_detached_returns_while_the_program_goes_on() {
    let Some(mut stage) = Stage::new() else { return };
    stage.script("sleep 1000");
    stage.write_config();
    stage.call(&["run", "--detach", "--bundle", ".", &stage.id]).ok();
    assert_eq!(stage.status(), "running");
    stage.delete_forced().ok();
}

#[test]
fn create_does_not_run_the_program() {
    let Some(mut stage) = Stage::new() else { return };
    stage.script("echo run >/marker");
    let container = stage.create();
    assert_eq!(stage.status(), "created");
    assert_ne!(fs::read_to_string(container.proc("cmdline")).unwrap(), "/bin/sh\0-c\0echo run >/marker\0");
    assert!(!stage.rootfs("marker").exists());
    stage.call(&["start", &stage.id]).ok();
    container.await_end();
    assert_eq!(fs::read_to_string(stage.rootfs("marker")).unwrap(), "run\n");
}

#[test]
fn a_container_goes_from_created_over_running_to_stopped() {
    let Some(mut stage) = Stage::new() else { return };
    stage.script("echo ready; cat");
    let mut container = stage.create();
    assert_eq!(stage.status(), "created");
    stage.call(&["start", &stage.id]).ok();
    assert_eq!(container.line(), "ready");
    assert_eq!(stage.status(), "running");
    container.end_input();
    container.await_end();
    assert_eq!(stage.status(), "stopped");
    stage.call(&["delete", &stage.id]).ok();
    stage.call(&["state", &stage.id]).fails();
}

#[test]
fn a_supervisor_that_adopts_orphans_learns_how_the_program_ended() {
    let Some(mut stage) = Stage::new() else { return };
    stage.script("exit 7");
    let container = stage.create();
    stage.call(&["start", &stage.id]).ok();
    assert_eq!(container.reap(), (Some(7), None));
    assert_eq!(stage.status(), "stopped");
}

#[test]
fn the_state_has_all_properties() {
    let Some(mut stage) = Stage::new() else { return };
    stage.patch(&json!({"annotations": {"org.example.key": "value", "empty": ""}}));
    let container = stage.create();
    let state = stage.state();
    let version: Vec<&str> = state["ociVersion"].as_str().unwrap().splitn(3, '.').collect();
    assert_eq!((version[0], version.len()), ("1", 3), "{state}");
    assert_eq!(state["id"], json!(stage.id));
    assert_eq!(state["status"], json!("created"));
    assert_eq!(state["pid"], json!(container.pid()));
    assert_eq!(state["bundle"], json!(stage.bundle()));
    assert_eq!(state["annotations"]["org.example.key"], json!("value"));
    assert_eq!(state["annotations"]["empty"], json!(""));
}

#[test]
fn the_state_of_a_stopped_container_names_no_live_process() {
    let Some(mut stage) = Stage::new() else { return };
    stage.script("true");
    let container = stage.create();
    stage.call(&["start", &stage.id]).ok();
    container.reap();
    let state = stage.state();
    assert_eq!(state["status"], json!("stopped"));
    // "REQUIRED when status is created or running": another program's number must not stand there.
    assert!([json!(0), json!(container.pid()), json!(null)].contains(&state["pid"]), "{state}");
}

#[test]
fn a_bundle_is_found_by_a_relative_path_or_in_the_current_directory() {
    let Some(stage) = Stage::new() else { return };
    for flags in [&["create", "--bundle", "../bundle"][..], &["create", "-b", "."], &["create"]] {
        stage.write_config();
        stage.call(&[flags, &[&stage.id]].concat()).ok();
        assert_eq!(stage.state()["bundle"], json!(stage.bundle()), "{flags:?}");
        stage.delete_forced().ok();
    }
}

#[test]
fn the_pid_file_has_the_number_of_the_first_process() {
    let Some(stage) = Stage::new() else { return };
    let file = stage.path("pid");
    let words = ["create", "--bundle", ".", "--pid-file", &file.display().to_string(), &stage.id];
    stage.write_config();
    stage.call(&words).ok();
    assert_eq!(json!(fs::read_to_string(&file).unwrap().trim().parse::<i32>().unwrap()), stage.state()["pid"]);
}

#[test]
fn a_change_of_the_configuration_after_create_has_no_effect() {
    let Some(mut stage) = Stage::new() else { return };
    stage.script("echo old");
    let mut container = stage.create();
    let mut changed = stage.config.clone();
    changed["process"]["args"] = json!(["/bin/sh", "-c", "echo new"]);
    fs::write(stage.path("bundle/config.json"), changed.to_string()).unwrap();
    stage.call(&["start", &stage.id]).ok();
    assert_eq!(container.line(), "old");
}

#[test]
fn an_identifier_can_be_used_again_after_delete() {
    let Some(mut stage) = Stage::new() else { return };
    for _ in 0..2 {
        let container = stage.start_waiting();
        drop(container);
        stage.call(&["state", &stage.id]).fails();
    }
}

#[test]
fn delete_removes_the_cgroup_and_the_state() {
    let Some(mut stage) = Stage::new() else { return };
    stage.script("true");
    let container = stage.create();
    assert!(!stage.group_directories().is_empty());
    stage.call(&["start", &stage.id]).ok();
    container.reap();
    stage.call(&["delete", &stage.id]).ok();
    assert_eq!(stage.group_directories(), Vec::<std::path::PathBuf>::new());
    let left = fs::read_dir(stage.path("state")).into_iter().flatten().flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    assert!(left.iter().all(|name| !name.contains(&stage.id)), "{left:?}");
}

#[test]
fn delete_leaves_the_bundle_as_it_was() {
    let Some(mut stage) = Stage::new() else { return };
    stage.output("echo text >/kept");
    assert_eq!(fs::read_to_string(stage.rootfs("kept")).unwrap(), "text\n");
    assert!(stage.rootfs("bin/busybox").exists() && stage.path("bundle/config.json").exists());
}

#[test]
fn a_forced_delete_ends_a_running_container() {
    let Some(mut stage) = Stage::new() else { return };
    let container = stage.start("sleep 1000");
    stage.delete_forced().ok();
    container.await_end();
    stage.call(&["state", &stage.id]).fails();
    assert_eq!(stage.group_directories(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_forced_delete_ends_every_process_of_the_container() {
    let Some(mut stage) = Stage::new() else { return };
    let mut container = stage.start("sleep 1000 & echo child; sleep 1000");
    assert_eq!(container.line(), "child");
    stage.delete_forced().ok();
    assert_eq!(stage.group_directories(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn kill_sends_the_signal_by_number_and_by_name() {
    let Some(mut stage) = Stage::new() else { return };
    let script =
        "trap 'echo one' USR1; trap 'echo two' USR2; trap 'echo hup' HUP; echo set; while :; do sleep 0.01; done";
    stage.script(script);
    let mut container = stage.create();
    stage.call(&["start", &stage.id]).ok();
    assert_eq!(container.line(), "set");
    for (signal, answer) in [("10", "one"), ("SIGUSR2", "two"), ("USR1", "one"), ("HUP", "hup"), ("1", "hup")] {
        stage.call(&["kill", &stage.id, signal]).ok();
        assert_eq!(container.line(), answer, "after {signal}");
    }
}

#[test]
fn kill_sends_sigterm_if_no_signal_is_named() {
    let Some(mut stage) = Stage::new() else { return };
    stage.script("trap 'exit 3' TERM; echo set; while :; do sleep 0.01; done");
    let mut container = stage.create();
    stage.call(&["start", &stage.id]).ok();
    assert_eq!(container.line(), "set");
    stage.call(&["kill", &stage.id]).ok();
    assert_eq!(container.reap(), (Some(3), None));
}

#[test]
fn kill_ends_a_running_container() {
    let Some(mut stage) = Stage::new() else { return };
    stage.script("echo ready; sleep 1000");
    let mut container = stage.create();
    stage.call(&["start", &stage.id]).ok();
    assert_eq!(container.line(), "ready");
    stage.call(&["kill", &stage.id, "KILL"]).ok();
    assert_eq!(container.reap(), (None, Some(9)));
    assert_eq!(stage.status(), "stopped");
}

#[test]
fn kill_reaches_a_created_container() {
    let Some(stage) = Stage::new() else { return };
    let container = stage.create();
    stage.call(&["kill", &stage.id, "KILL"]).ok();
    container.await_end();
    assert_eq!(stage.status(), "stopped");
}

#[test]
fn list_names_the_containers_of_its_root() {
    let Some(stage) = Stage::new() else { return };
    assert!(!stage.call(&["list"]).ok().contains(&stage.id));
    let container = stage.create();
    let listed = stage.call(&["list", "--quiet"]).ok().to_owned();
    assert_eq!(listed, stage.id);
    let listed = stage.call(&["list", "--format", "json"]).ok().to_owned();
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[0]["id"], json!(stage.id));
    assert_eq!(listed[0]["pid"], json!(container.pid()));
    assert_eq!(listed[0]["status"], json!("created"));
}

#[test]
fn a_configuration_of_version_1_2_is_accepted() {
    let Some(mut stage) = Stage::new() else { return };
    // "if a configuration is compliant with version 1.1 … it is compatible with all runtimes that support any 1.1 or
    // later release", and properties of later ones are unknown properties.
    stage.patch(&json!({"ociVersion": "1.2.0"}));
    assert_eq!(stage.output("echo done"), "done");
}

#[test]
fn unknown_properties_are_ignored() {
    let Some(mut stage) = Stage::new() else { return };
    stage.patch(&json!({"org.example.future": {"a": [1]}, "process": {"novelty": true}, "linux": {"novelty": "x"}}));
    assert_eq!(stage.output("echo done"), "done");
}

#[test]
fn whatever_is_left_of_a_creation_that_was_killed_is_removed_by_force() {
    let Some(mut stage) = Stage::new() else { return };
    stage.script("sleep 1000");
    let mut seen = std::collections::BTreeSet::new();
    // A creation takes some milliseconds; the kills are spread over that time and a little more.
    for step in 0..60 {
        stage.create_and_kill(std::time::Duration::from_micros(250 * step));
        let state = stage.call(&["state", &stage.id]);
        let state: serde_json::Value = serde_json::from_str(&state.out).unwrap_or_default();
        seen.insert(state["status"].as_str().unwrap_or("nothing to be seen").to_owned());
        stage.delete_forced().ok();
        stage.call(&["state", &stage.id]).fails();
        assert_eq!(stage.group_directories(), Vec::<std::path::PathBuf>::new(), "after {step} steps");
        assert!(!stage.path("state").join(&stage.id).exists(), "after {step} steps");
    }
    eprintln!("killed when there was: {seen:?}");
}
