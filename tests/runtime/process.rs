//! What config.md and config-linux.md, "Process", give the program.

use std::fs;

use serde_json::json;

use crate::stage::Stage;

#[test]
fn arguments_arrive_as_they_are() {
    let Some(mut stage) = Stage::new() else { return };
    let args = json!(["/bin/sh", "-c", "printf '[%s]' \"$0\" \"$@\"", "zero", "two words", "", "-x", "ünï", "$HOME\n"]);
    stage.patch(&json!({"process": {"args": args}}));
    assert_eq!(stage.run().ok(), "[zero][two words][][-x][ünï][$HOME\n]");
}

#[test]
fn a_program_is_looked_up_in_the_path_of_its_own_environment() {
    let Some(mut stage) = Stage::new() else { return };
    fs::create_dir(stage.rootfs("odd")).unwrap();
    fs::write(stage.rootfs("odd/greet"), "#!/bin/sh\necho hello\n").unwrap();
    fs::set_permissions(stage.rootfs("odd/greet"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    stage.patch(&json!({"process": {"args": ["greet"], "env": ["PATH=/absent:/odd"]}}));
    assert_eq!(stage.run().ok(), "hello");
}

#[test]
fn the_environment_is_what_is_given() {
    let Some(mut stage) = Stage::new() else { return };
    stage.patch(&json!({"process": {"env": ["PATH=/bin", "EMPTY=", "EQUALS=a=b", "SPACE=a b", "HOME=/tmp"]}}));
    stage.patch(&json!({"process": {"args": ["/bin/env"]}}));
    let ran = stage.run();
    let mut seen: Vec<&str> = ran.ok().lines().collect();
    seen.sort_unstable();
    assert_eq!(seen, ["EMPTY=", "EQUALS=a=b", "HOME=/tmp", "PATH=/bin", "SPACE=a b"]);
}

#[test]
fn the_working_directory_is_as_configured() {
    let Some(mut stage) = Stage::new() else { return };
    fs::create_dir_all(stage.rootfs("a/b")).unwrap();
    stage.patch(&json!({"process": {"cwd": "/a/b"}}));
    assert_eq!(stage.output("readlink /proc/self/cwd"), "/a/b");
}

#[test]
fn a_working_directory_may_lie_on_a_mount() {
    let Some(mut stage) = Stage::new() else { return };
    stage.push("/mounts", json!({"destination": "/work", "type": "tmpfs", "source": "tmpfs"}));
    stage.patch(&json!({"process": {"cwd": "/work"}}));
    assert_eq!(stage.output("touch here; ls /work"), "here");
}

#[test]
fn the_user_and_groups_are_as_configured() {
    let Some(mut stage) = Stage::new() else { return };
    stage.patch(&json!({"process": {"user": {"uid": 1001, "gid": 1002, "additionalGids": [7, 1003]}}}));
    let script = "grep -E '^(Uid|Gid|Groups)' /proc/self/status | tr -s '\\t ' ' ' | sed 's/ $//'";
    let seen = stage.output(script);
    assert_eq!(seen, "Uid: 1001 1001 1001 1001\nGid: 1002 1002 1002 1002\nGroups: 7 1003");
}

#[test]
fn no_groups_of_the_runtime_are_left() {
    let Some(mut stage) = Stage::new() else { return };
    stage.around = setpriv(&["--groups", "4,20"]);
    stage.patch(&json!({"process": {"user": {"uid": 1001, "gid": 1002}}}));
    assert_eq!(stage.output("grep ^Groups: /proc/self/status | tr -d '\\t '"), "Groups:");
}

/// Runs the runtime under util-linux's setpriv, which is essential to Debian.
fn setpriv(flags: &[&str]) -> Vec<String> {
    [&["setpriv"], flags].concat().into_iter().map(str::to_owned).collect()
}

fn shell_around(script: &str) -> Vec<String> {
    ["sh", "-c", script, "sh"].map(str::to_owned).to_vec()
}

#[test]
fn the_umask_is_as_configured() {
    let Some(mut stage) = Stage::new() else { return };
    stage.patch(&json!({"process": {"user": {"umask": 0o027}}}));
    assert_eq!(stage.output("umask"), "0027");
}

#[test]
fn an_umask_that_is_not_configured_is_that_of_the_runtime() {
    let Some(mut stage) = Stage::new() else { return };
    stage.around = shell_around("umask 037; exec \"$@\"");
    assert_eq!(stage.output("umask"), "0037");
}

#[test]
fn no_new_privileges_holds_as_configured() {
    for (value, shown) in [(json!(true), "NoNewPrivs:1"), (json!(false), "NoNewPrivs:0"), (json!(null), "NoNewPrivs:0")]
    {
        let Some(mut stage) = Stage::new() else { return };
        stage.patch(&json!({"process": {"noNewPrivileges": value}}));
        assert_eq!(stage.output("grep NoNewPrivs /proc/self/status | tr -d '\\t '"), shown);
    }
}

#[test]
fn limits_are_set_as_configured() {
    let Some(mut stage) = Stage::new() else { return };
    stage.patch(&json!({"process": {"rlimits": [
        {"type": "RLIMIT_NOFILE", "soft": 512, "hard": 768},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        {"type": "RLIMIT_FSIZE", "soft": 1_048_576, "hard": 2_097_152},
        {"type": "RLIMIT_RTPRIO", "soft": 0, "hard": 0},
    ]}}));
    let seen = stage.output("grep -E 'open files|core file|Max file size|realtime priority' /proc/self/limits");
    let words = |line: &str| line.split_whitespace().rev().skip(1).take(2).collect::<Vec<_>>().join(" ");
    let mut limits: Vec<String> = Vec::new();
    for line in seen.lines() {
        let unitless = line.contains("priority");
        let text = if unitless { format!("{line} -") } else { line.to_owned() };
        limits.push(words(&text));
    }
    // Hard before soft, in the kernel's order.
    assert_eq!(limits, ["2097152 1048576", "0 0", "768 512", "0 0"]);
}

#[test]
fn a_limit_that_is_not_configured_is_that_of_the_runtime() {
    let Some(mut stage) = Stage::new() else { return };
    stage.around = shell_around("ulimit -S -n 300; ulimit -H -n 400; exec \"$@\"");
    assert_eq!(stage.output("ulimit -S -n; ulimit -H -n"), "300\n400");
}

#[test]
fn a_limit_that_is_configured_twice_is_refused() {
    let Some(mut stage) = Stage::new() else { return };
    let limit = json!({"type": "RLIMIT_NOFILE", "soft": 512, "hard": 512});
    stage.patch(&json!({"process": {"rlimits": [limit, limit]}}));
    stage.try_create().fails();
}

#[test]
fn an_unknown_limit_is_refused() {
    let Some(mut stage) = Stage::new() else { return };
    stage.patch(&json!({"process": {"rlimits": [{"type": "RLIMIT_NOVELTY", "soft": 1, "hard": 1}]}}));
    stage.try_create().fails();
}

#[test]
fn a_soft_limit_above_the_hard_one_is_refused() {
    let Some(mut stage) = Stage::new() else { return };
    stage.patch(&json!({"process": {"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 512, "hard": 100}]}}));
    stage.run().fails();
}

#[test]
fn the_oom_score_is_adjusted_as_configured() {
    let Some(mut stage) = Stage::new() else { return };
    stage.patch(&json!({"process": {"oomScoreAdj": 723}}));
    assert_eq!(stage.output("cat /proc/self/oom_score_adj"), "723");
}

#[test]
fn the_oom_score_is_left_alone_if_not_configured() {
    let Some(mut stage) = Stage::new() else { return };
    stage.around = shell_around("echo 311 >/proc/self/oom_score_adj; exec \"$@\"");
    assert_eq!(stage.output("cat /proc/self/oom_score_adj"), "311");
}

#[test]
fn an_impossible_oom_score_is_refused() {
    let Some(mut stage) = Stage::new() else { return };
    stage.patch(&json!({"process": {"oomScoreAdj": 1001}}));
    stage.run().fails();
}

#[test]
fn the_io_priority_is_as_configured() {
    let Some(mut stage) = Stage::new() else { return };
    stage.patch(&json!({"process": {"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 6}}}));
    assert_eq!(stage.output("ionice -p $$"), "best-effort: prio 6");
}

#[test]
fn the_scheduler_is_as_configured() {
    let Some(mut stage) = Stage::new() else { return };
    stage.patch(&json!({"process": {"scheduler": {"policy": "SCHED_BATCH", "nice": 5}}}));
    // proc_pid_stat(5): nice is the 19th field and the policy the 41st.
    assert_eq!(stage.output("cut -d' ' -f19,41 /proc/self/stat"), "5 3");
}

#[test]
fn the_personality_is_as_configured() {
    let Some(mut stage) = Stage::new() else { return };
    stage.patch(&json!({"linux": {"personality": {"domain": "LINUX32"}}}));
    // PER_LINUX32 of personality(2).
    assert_eq!(stage.output("cat /proc/self/personality"), "00000008");
}

#[test]
fn no_signal_is_ignored_or_blocked_from_the_start() {
    let Some(mut stage) = Stage::new() else { return };
    stage.patch(&json!({"process": {"args": ["/bin/grep", "-E", "SigBlk|SigIgn", "/proc/self/status"]}}));
    let ran = stage.run();
    for line in ran.ok().lines() {
        let set = u64::from_str_radix(line.rsplit('\t').next().unwrap(), 16).unwrap();
        // The C library keeps the first two real-time signals, numbers 32 and 33, for itself.
        assert_eq!(set & !(3 << 31), 0, "{line}");
    }
}

#[test]
fn the_program_is_the_first_of_its_pid_namespace_and_leads_a_session() {
    let Some(mut stage) = Stage::new() else { return };
    // proc_pid_stat(5): pid, parent, group and session.
    assert_eq!(
        stage.output("read pid name state parent group session rest </proc/1/stat; echo $pid $parent $session $$"),
        "1 0 1 1"
    );
}
