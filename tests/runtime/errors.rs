//! Refusals: an operation that fails leaves everything as it was (runtime.md, "Errors").

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use crate::stage::Stage;

/// Nothing may be left of a container that was not created.
#[track_caller]
fn left_nothing(stage: &Stage) {
    stage.call(&["state", &stage.id]).fails();
    assert_eq!(stage.group_directories(), Vec::<PathBuf>::new());
}

/// A configuration with this patch must be refused by `create` at the latest when it is started.
#[track_caller]
fn refused(patch: &serde_json::Value) {
    let Some(mut stage) = Stage::new() else { return };
    stage.patch(patch);
    stage.try_create().fails();
    left_nothing(&stage);
}

#[test]
fn operations_on_an_unknown_container_fail() {
    let Some(stage) = Stage::new() else { return };
    for words in [&["state"][..], &["start"], &["kill"], &["delete"], &["exec"]] {
        let rest: &[&str] = match words[0] {
            "kill" => &[&stage.id, "KILL"],
            "exec" => &[&stage.id, "/bin/true"],
            _ => &[&stage.id],
        };
        stage.call(&[words, rest].concat()).fails();
    }
}

#[test]
fn operations_without_an_identifier_fail() {
    let Some(stage) = Stage::new() else { return };
    stage.write_config();
    for operation in ["state", "create", "start", "kill", "delete", "exec", "run"] {
        stage.call(&[operation]).fails();
    }
}

#[test]
fn a_second_start_fails_and_has_no_effect() {
    let Some(mut stage) = Stage::new() else { return };
    let container = stage.start_waiting();
    stage.call(&["start", &stage.id]).fails();
    assert_eq!(stage.status(), "running");
    assert_eq!(stage.state()["pid"], json!(container.pid()));
}

#[test]
fn a_stopped_container_cannot_be_started() {
    let Some(mut stage) = Stage::new() else { return };
    stage.script("true");
    let container = stage.create();
    stage.call(&["start", &stage.id]).ok();
    container.reap();
    stage.call(&["start", &stage.id]).fails();
    assert_eq!(stage.status(), "stopped");
}

#[test]
fn delete_of_a_running_container_fails_and_has_no_effect() {
    let Some(mut stage) = Stage::new() else { return };
    let container = stage.start_waiting();
    stage.call(&["delete", &stage.id]).fails();
    assert_eq!(stage.status(), "running");
    assert_eq!(container.exec("echo lives").ok(), "lives");
}

#[test]
fn delete_of_a_created_container_fails_and_has_no_effect() {
    let Some(stage) = Stage::new() else { return };
    let _container = stage.create();
    // "Attempting to delete a container that is not stopped MUST have no effect on the container and MUST generate an
    // error."
    stage.call(&["delete", &stage.id]).fails();
    assert_eq!(stage.status(), "created");
}

#[test]
fn kill_of_a_stopped_container_fails() {
    let Some(mut stage) = Stage::new() else { return };
    stage.script("true");
    let container = stage.create();
    stage.call(&["start", &stage.id]).ok();
    container.reap();
    stage.call(&["kill", &stage.id, "KILL"]).fails();
    assert_eq!(stage.status(), "stopped");
}

#[test]
fn kill_with_an_unknown_signal_fails_and_has_no_effect() {
    let Some(mut stage) = Stage::new() else { return };
    let _container = stage.start_waiting();
    for signal in ["SIGNONE", "-1", "4711", "9x"] {
        stage.call(&["kill", "--", &stage.id, signal]).fails();
    }
    assert_eq!(stage.status(), "running");
}

#[test]
fn a_duplicate_identifier_is_refused_and_the_first_container_lives() {
    let Some(mut stage) = Stage::new() else { return };
    let container = stage.start_waiting();
    stage.try_create().fails();
    stage.call(&["run", "--bundle", ".", &stage.id]).fails();
    assert_eq!(stage.status(), "running");
    assert_eq!(container.exec("echo lives").ok(), "lives");
}

#[test]
fn an_identifier_that_leaves_the_state_directory_is_refused() {
    let Some(stage) = Stage::new() else { return };
    stage.write_config();
    for id in ["", ".", "..", "../escaped", "a/b", "/absolute"] {
        stage.call(&["create", "--bundle", ".", id]).fails();
    }
    assert!(!stage.path("escaped").exists());
}

#[test]
fn a_bundle_without_a_configuration_is_refused() {
    let Some(stage) = Stage::new() else { return };
    stage.call(&["create", "--bundle", ".", &stage.id]).fails();
    left_nothing(&stage);
    let absent = stage.path("absent").display().to_string();
    stage.call(&["create", "--bundle", &absent, &stage.id]).fails();
    left_nothing(&stage);
}

#[test]
fn a_configuration_that_is_not_json_is_refused() {
    let Some(stage) = Stage::new() else { return };
    for text in ["", "{", "[]", "{\"ociVersion\": 1}"] {
        fs::write(stage.path("bundle/config.json"), text).unwrap();
        stage.call(&["create", "--bundle", ".", &stage.id]).fails();
        left_nothing(&stage);
    }
}

#[test]
fn a_configuration_without_a_version_is_refused() {
    refused(&json!({"ociVersion": null}));
}

#[test]
fn a_version_that_is_no_semantic_version_is_refused() {
    refused(&json!({"ociVersion": "latest"}));
}

#[test]
fn a_configuration_without_a_root_is_refused() {
    refused(&json!({"root": null}));
}

#[test]
fn a_root_that_is_not_there_is_refused() {
    refused(&json!({"root": {"path": "absent"}}));
}

#[test]
fn a_relative_working_directory_is_refused() {
    refused(&json!({"process": {"cwd": "tmp"}}));
}

#[test]
fn an_absent_list_of_arguments_is_refused() {
    refused(&json!({"process": {"args": null}}));
}

#[test]
fn an_empty_list_of_arguments_is_refused() {
    refused(&json!({"process": {"args": []}}));
}

#[test]
fn a_configuration_without_a_process_cannot_be_started() {
    let Some(mut stage) = Stage::new() else { return };
    stage.patch(&json!({"process": null}));
    // "REQUIRED when start is called"; create may refuse already.
    if stage.try_create().code == Some(0) {
        stage.call(&["start", &stage.id]).fails();
    }
}

#[test]
fn a_program_that_is_not_there_fails_to_run_and_leaves_nothing() {
    let Some(mut stage) = Stage::new() else { return };
    stage.patch(&json!({"process": {"args": ["/absent"]}}));
    let ran = stage.run();
    ran.fails();
    assert!(ran.err.contains("/absent"), "the error names the program: {ran:?}");
    left_nothing(&stage);
}

#[test]
fn a_program_that_may_not_be_executed_fails_to_run() {
    let Some(mut stage) = Stage::new() else { return };
    fs::write(stage.rootfs("text"), "no program").unwrap();
    stage.patch(&json!({"process": {"args": ["/text"]}}));
    stage.run().fails();
    left_nothing(&stage);
}

#[test]
fn a_mount_that_fails_leaves_nothing() {
    let Some(mut stage) = Stage::new() else { return };
    let source = stage.path("absent").display().to_string();
    stage.push("/mounts", json!({"destination": "/m", "type": "bind", "source": source, "options": ["bind"]}));
    stage.try_create().fails();
    left_nothing(&stage);
}

#[test]
fn the_reason_of_a_failure_stands_in_the_log() {
    let Some(mut stage) = Stage::new() else { return };
    stage.patch(&json!({"root": {"path": "nowhere-to-be-found"}}));
    stage.write_config();
    let log = stage.path("log");
    stage.call(&["--log", &log.display().to_string(), "create", "--bundle", ".", &stage.id]).fails();
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.contains("nowhere-to-be-found"), "{text:?}");
}
