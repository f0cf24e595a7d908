//! config.md, "POSIX-platform Hooks", and the lifecycle of runtime.md that says when they run and what their failure
//! means.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::stage::Stage;

/// All kinds, in the order of the lifecycle.
const KINDS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

fn hook(script: &str) -> Value {
    json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]})
}

/// The file that hooks write to; below the root, so that those inside and those outside have the same.
fn log(stage: &Stage, kind: &str) -> String {
    if kind == "startContainer" { "/log".to_owned() } else { stage.rootfs("log").display().to_string() }
}

fn read(stage: &Stage) -> String {
    fs::read_to_string(stage.rootfs("log")).unwrap_or_default()
}

fn say(stage: &mut Stage, kind: &str, word: &str) {
    let file = log(stage, kind);
    stage.push(&format!("/hooks/{kind}"), hook(&format!("echo {word} >>{file}")));
}

fn with_hooks() -> Option<Stage> {
    let mut stage = Stage::new()?;
    stage.patch(&json!({"hooks": {}}));
    Some(stage)
}

#[test]
fn hooks_run_in_the_order_of_the_lifecycle() {
    let Some(mut stage) = with_hooks() else { return };
    for kind in KINDS {
        say(&mut stage, kind, kind);
    }
    stage.script("cat; echo program >>/log");
    let mut container = stage.create();
    assert_eq!(read(&stage), "prestart\ncreateRuntime\ncreateContainer\n");
    stage.call(&["start", &stage.id]).ok();
    assert_eq!(read(&stage), "prestart\ncreateRuntime\ncreateContainer\nstartContainer\npoststart\n");
    container.end_input();
    container.reap();
    stage.call(&["delete", &stage.id]).ok();
    let all = "prestart\ncreateRuntime\ncreateContainer\nstartContainer\npoststart\nprogram\npoststop\n";
    assert_eq!(read(&stage), all);
}

#[test]
fn run_runs_all_hooks() {
    let Some(mut stage) = with_hooks() else { return };
    for kind in KINDS.into_iter().filter(|kind| *kind != "poststart") {
        say(&mut stage, kind, kind);
    }
    stage.output("echo program >>/log");
    assert_eq!(read(&stage), "prestart\ncreateRuntime\ncreateContainer\nstartContainer\nprogram\npoststop\n");
}

#[test]
fn hooks_of_one_kind_run_in_the_listed_order() {
    let Some(mut stage) = with_hooks() else { return };
    for word in ["one", "two", "three"] {
        say(&mut stage, "createRuntime", word);
    }
    stage.output("true");
    assert_eq!(read(&stage), "one\ntwo\nthree\n");
}

#[test]
fn a_hook_has_its_arguments_and_its_environment_alone() {
    let Some(mut stage) = with_hooks() else { return };
    let file = log(&stage, "createRuntime");
    let script = format!("printf '[%s]' \"$0\" \"$@\" >{file}; tr '\\0' '\\n' </proc/$$/environ >>{file}");
    let args = ["name", "-c", &script, "zero", "a b", ""];
    let hook = json!({"path": "/bin/sh", "args": args, "env": ["ONE=1", "PATH=/bin:/usr/bin"]});
    stage.push("/hooks/createRuntime", hook);
    stage.output("true");
    assert_eq!(read(&stage), "[zero][a b][]ONE=1\nPATH=/bin:/usr/bin\n");
}

/// What hooks of a kind read from their standard input.
fn state_for(kind: &str) -> Option<(Stage, Value)> {
    let mut stage = with_hooks()?;
    stage.patch(&json!({"annotations": {"org.example.key": "value"}}));
    let file = log(&stage, kind);
    stage.push(&format!("/hooks/{kind}"), hook(&format!("cat >{file}")));
    stage.script("exec cat");
    let mut container = stage.create();
    stage.call(&["start", &stage.id]).ok();
    container.end_input();
    container.reap();
    stage.call(&["delete", &stage.id]).ok();
    let state = serde_json::from_str(&read(&stage)).expect("the state came in as JSON");
    Some((stage, state))
}

#[test]
fn every_hook_reads_the_state() {
    let kinds = [
        ("prestart", "creating"),
        ("createRuntime", "creating"),
        ("createContainer", "creating"),
        ("startContainer", "created"),
        ("poststart", "running"),
        ("poststop", "stopped"),
    ];
    let mut wrong = Vec::new();
    for (kind, status) in kinds {
        let Some((stage, state)) = state_for(kind) else { return };
        assert_eq!(state["id"], json!(stage.id), "{kind}");
        assert_eq!(state["bundle"], json!(stage.bundle()), "{kind}");
        assert_eq!(state["annotations"]["org.example.key"], json!("value"), "{kind}");
        assert!(state["ociVersion"].as_str().unwrap().starts_with("1."), "{kind}");
        assert!(state["pid"].as_i64().unwrap_or(0) > 0 || kind == "poststop", "{kind}: {state}");
        if state["status"] != json!(status) {
            wrong.push(format!("{kind}: {}", state["status"]));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// The mount namespace that a hook of a kind runs in, and those of the host and of the container.
fn place_of(kind: &str) -> Option<(String, String, String)> {
    let mut stage = with_hooks()?;
    let file = log(&stage, kind);
    stage.push(&format!("/hooks/{kind}"), hook(&format!("readlink /proc/self/ns/mnt >{file}")));
    let container = stage.start_waiting();
    let link = |path: &Path| fs::read_link(path).unwrap().display().to_string();
    let (host, inside) = (link(Path::new("/proc/self/ns/mnt")), link(&container.proc("ns/mnt")));
    drop(container);
    Some((read(&stage).trim().to_owned(), host, inside))
}

#[test]
fn hooks_of_the_runtime_run_in_its_namespace() {
    for kind in ["prestart", "createRuntime", "poststart", "poststop"] {
        let Some((seen, host, _)) = place_of(kind) else { return };
        assert_eq!(seen, host, "{kind}");
    }
}

#[test]
fn hooks_of_the_container_run_in_its_namespace() {
    for kind in ["createContainer", "startContainer"] {
        let Some((seen, _, inside)) = place_of(kind) else { return };
        assert_eq!(seen, inside, "{kind}");
    }
}

#[test]
fn a_hook_of_create_sees_the_mounts_of_the_container() {
    let Some(mut stage) = with_hooks() else { return };
    // "createContainer … called after the mount namespace is set up, before pivot_root".
    stage.push("/mounts", json!({"destination": "/a", "type": "tmpfs", "source": "tmpfs", "options": ["size=44k"]}));
    let file = log(&stage, "createContainer");
    stage.push("/hooks/createContainer", hook(&format!("grep -c size=44k /proc/self/mounts >{file}; true")));
    stage.output("true");
    assert_eq!(read(&stage), "1\n");
}

#[test]
fn a_hook_that_fails_before_the_program_destroys_the_container() {
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let Some(mut stage) = with_hooks() else { return };
        stage.push(&format!("/hooks/{kind}"), hook("exit 3"));
        say(&mut stage, "poststop", "poststop");
        stage.script("echo program >>/log");
        stage.try_create().fails();
        assert!(!read(&stage).contains("program"), "{kind}");
        stage.call(&["state", &stage.id]).fails();
        assert_eq!(stage.group_directories(), Vec::<std::path::PathBuf>::new(), "{kind}");
        // Step 12 of the lifecycle and those after it follow.
        assert_eq!(read(&stage), "poststop\n", "{kind}");
    }
}

#[test]
fn a_hook_of_start_that_fails_keeps_the_program_from_running() {
    let Some(mut stage) = with_hooks() else { return };
    stage.push("/hooks/startContainer", hook("exit 3"));
    stage.script("echo program >>/log");
    let container = stage.create();
    stage.call(&["start", &stage.id]).fails();
    container.await_end();
    assert_eq!(read(&stage), "");
}

#[test]
fn a_hook_after_start_that_fails_stops_the_container() {
    let Some(mut stage) = with_hooks() else { return };
    // "the runtime MUST generate an error, stop the container, and continue the lifecycle at step 12" since 1.2;
    // 1.1 had it go on with a warning.
    stage.push("/hooks/poststart", hook("exit 3"));
    stage.script("exec cat");
    let container = stage.create();
    stage.call(&["start", &stage.id]).fails();
    container.await_end();
}

#[test]
fn a_hook_after_the_end_that_fails_does_not_keep_the_others_from_running() {
    let Some(mut stage) = with_hooks() else { return };
    stage.push("/hooks/poststop", hook("exit 3"));
    say(&mut stage, "poststop", "second");
    stage.script("true");
    let container = stage.create();
    stage.call(&["start", &stage.id]).ok();
    container.reap();
    stage.call(&["delete", &stage.id]).ok();
    assert_eq!(read(&stage), "second\n");
    stage.call(&["state", &stage.id]).fails();
}

#[test]
fn a_hook_that_takes_longer_than_its_timeout_has_failed() {
    let Some(mut stage) = with_hooks() else { return };
    stage.push("/hooks/createRuntime", json!({"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1}));
    stage.try_create().fails();
}

#[test]
fn a_hook_that_is_not_there_fails() {
    let Some(mut stage) = with_hooks() else { return };
    stage.push("/hooks/createRuntime", json!({"path": "/absent"}));
    stage.try_create().fails();
}

#[test]
fn a_hook_with_a_relative_path_is_refused() {
    let Some(mut stage) = with_hooks() else { return };
    stage.push("/hooks/createRuntime", json!({"path": "bin/true"}));
    stage.try_create().fails();
}

#[test]
fn a_hook_of_start_is_looked_up_inside() {
    let Some(mut stage) = with_hooks() else { return };
    fs::write(stage.rootfs("only-inside"), "#!/bin/sh\necho inside >/log\n").unwrap();
    fs::set_permissions(stage.rootfs("only-inside"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    stage.push("/hooks/startContainer", json!({"path": "/only-inside"}));
    stage.output("true");
    assert_eq!(read(&stage), "inside\n");
}
