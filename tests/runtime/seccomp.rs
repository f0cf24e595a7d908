//! config-linux.md, "Seccomp": actions, error numbers, conditions on arguments.

use serde_json::{Value, json};

use crate::stage::Stage;

/// What a shell may call, whichever C library it is built with.
const SHELL: &str = "access arch_prctl brk capget capset chdir clock_gettime clone clone3 close close_range dup dup2 dup3 \
                     epoll_create1 epoll_ctl epoll_pwait epoll_wait execve execveat exit exit_group faccessat faccessat2 fchdir \
                     fchown fcntl fstat fstatfs futex getcwd getdents64 getegid geteuid getgid getpgrp getpid getppid getrandom \
                     getrlimit getsid gettid getuid ioctl kill lseek lstat madvise mmap mprotect mremap munmap nanosleep \
                     newfstatat open openat openat2 pipe pipe2 poll ppoll prctl pread64 prlimit64 read readlink readlinkat \
                     recvmsg rseq rt_sigaction rt_sigprocmask rt_sigreturn sched_getaffinity sched_yield seccomp sendmsg sendto \
                     set_robust_list set_tid_address setgid setgroups setpgid setresgid setresuid setsid setuid sigaltstack \
                     socket connect stat statfs statx tgkill umask uname unlink unlinkat wait4 waitid write writev";

/// Allows everything but what these rules say.
fn filtered(rules: &Value) -> Option<Stage> {
    let mut stage = Stage::new()?;
    stage.patch(&json!({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}}}));
    Some(stage)
}

fn mkdir(action: &str) -> Value {
    json!([{"names": ["mkdir", "mkdirat"], "action": action}])
}

#[test]
fn a_denied_call_fails_with_eperm_by_default() {
    let Some(mut stage) = filtered(&mkdir("SCMP_ACT_ERRNO")) else { return };
    assert_eq!(
        stage.output("mkdir /tmp/d 2>&1; touch /tmp/f && echo others"),
        "mkdir: can't create directory '/tmp/d': Operation not permitted\nothers"
    );
}

#[test]
fn a_denied_call_fails_with_the_configured_number() {
    let rules = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]);
    let Some(mut stage) = filtered(&rules) else { return };
    assert_eq!(
        stage.output("mkdir /tmp/d 2>&1; true"),
        "mkdir: can't create directory '/tmp/d': No space left on device"
    );
}

#[test]
fn an_error_number_of_zero_pretends_success() {
    let rules = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 0}]);
    let Some(mut stage) = filtered(&rules) else { return };
    assert_eq!(stage.output("mkdir /tmp/d && echo pretended; ls -d /tmp/d 2>/dev/null; true"), "pretended");
}

#[test]
fn the_default_action_denies_what_no_rule_names_with_its_own_number() {
    let Some(mut stage) = Stage::new() else { return };
    let allowed: Vec<&str> = SHELL.split_whitespace().collect();
    stage.patch(&json!({"linux": {"seccomp": {
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 95,
        "syscalls": [{"names": allowed, "action": "SCMP_ACT_ALLOW"}],
    }}}));
    let seen = stage.output("mkdir /tmp/d 2>&1; echo others");
    assert_eq!(seen, "mkdir: can't create directory '/tmp/d': Operation not supported\nothers");
}

#[test]
fn a_process_that_makes_a_deadly_call_is_killed() {
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_TRAP"] {
        let Some(mut stage) = filtered(&mkdir(action)) else { return };
        // SIGSYS is number 31.
        assert_eq!(stage.output("(mkdir /tmp/d) 2>/dev/null; echo $?; [ ! -e /tmp/d ]"), "159", "{action}");
    }
}

#[test]
fn a_logged_call_is_made() {
    let Some(mut stage) = filtered(&mkdir("SCMP_ACT_LOG")) else { return };
    assert_eq!(stage.output("mkdir /tmp/d && ls -d /tmp/d"), "/tmp/d");
}

#[test]
fn a_call_to_a_tracer_that_is_not_there_fails_with_enosys() {
    let Some(mut stage) = filtered(&mkdir("SCMP_ACT_TRACE")) else { return };
    assert_eq!(
        stage.output("mkdir /tmp/d 2>&1; true"),
        "mkdir: can't create directory '/tmp/d': Function not implemented"
    );
}

/// Denies kill(2) under conditions; which of the signals 0, 10, 12 and 18 are refused.
fn refused_signals(conditions: &Value) -> Option<String> {
    let mut stage = filtered(&json!([{"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": conditions}]))?;
    Some(stage.output("trap '' 10 12; for s in 0 10 12 18; do kill -$s $$ 2>/dev/null || echo $s; done | xargs"))
}

#[test]
fn conditions_on_arguments_have_all_operators() {
    let condition = |op: &str, value: u64| json!([{"index": 1, "value": value, "op": op}]);
    for (op, value, refused) in [
        ("SCMP_CMP_EQ", 12, "12"),
        ("SCMP_CMP_NE", 12, "0 10 18"),
        ("SCMP_CMP_LT", 12, "0 10"),
        ("SCMP_CMP_LE", 12, "0 10 12"),
        ("SCMP_CMP_GE", 12, "12 18"),
        ("SCMP_CMP_GT", 12, "18"),
    ] {
        let Some(seen) = refused_signals(&condition(op, value)) else { return };
        assert_eq!(seen, refused, "{op}");
    }
}

#[test]
fn a_masked_condition_compares_under_the_mask() {
    // 10 and 18 have bit 1 set and bit 2 not: value is the mask and valueTwo what must be left.
    let conditions = json!([{"index": 1, "value": 6, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"}]);
    let Some(seen) = refused_signals(&conditions) else { return };
    assert_eq!(seen, "10 18");
}

#[test]
fn conditions_on_several_arguments_must_all_hold() {
    let both = |pid: u64| json!([{"index": 0, "value": pid, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 12, "op": "SCMP_CMP_EQ"}]);
    let Some(seen) = refused_signals(&both(1)) else { return };
    assert_eq!(seen, "12");
    let Some(seen) = refused_signals(&both(4711)) else { return };
    assert_eq!(seen, "");
}

#[test]
fn several_rules_for_one_call_hold_each() {
    let rule = |signal: u64| json!({"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 1, "value": signal, "op": "SCMP_CMP_EQ"}]});
    let Some(mut stage) = filtered(&json!([rule(10), rule(18)])) else { return };
    let seen = stage.output("trap '' 10 12; for s in 0 10 12 18; do kill -$s $$ 2>/dev/null || echo $s; done | xargs");
    assert_eq!(seen, "10 18");
}

#[test]
fn a_filter_is_reported_by_the_kernel() {
    let Some(mut stage) = filtered(&mkdir("SCMP_ACT_ERRNO")) else { return };
    assert_eq!(stage.output("grep ^Seccomp: /proc/self/status | tr -d '\\t '"), "Seccomp:2");
}

#[test]
fn a_filter_needs_no_privilege_of_the_program() {
    let rules = mkdir("SCMP_ACT_ERRNO");
    for no_new_privileges in [false, true] {
        let Some(mut stage) = filtered(&rules) else { return };
        let none = json!({"bounding": [], "permitted": [], "effective": []});
        stage.patch(&json!({"process": {
            "noNewPrivileges": no_new_privileges, "capabilities": none, "user": {"uid": 1000, "gid": 1000},
        }}));
        let seen = stage
            .output("mkdir /dev/shm/d 2>/dev/null || echo refused; grep NoNewPrivs /proc/self/status | tr -d '\\t '");
        assert_eq!(seen, format!("refused\nNoNewPrivs:{}", u8::from(no_new_privileges)));
    }
}

#[test]
fn architectures_are_accepted() {
    let Some(mut stage) = filtered(&mkdir("SCMP_ACT_ERRNO")) else { return };
    stage.patch(&json!({"linux": {"seccomp": {
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
    }}}));
    assert_eq!(stage.output("mkdir /tmp/d 2>/dev/null || echo refused"), "refused");
}

#[test]
fn flags_are_accepted() {
    let Some(mut stage) = filtered(&mkdir("SCMP_ACT_ERRNO")) else { return };
    let flags = ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"];
    stage.patch(&json!({"linux": {"seccomp": {"flags": flags}}}));
    assert_eq!(stage.output("mkdir /tmp/d 2>/dev/null || echo refused"), "refused");
}

#[test]
fn an_unknown_call_in_a_profile_is_passed_over() {
    let rules = json!([{"names": ["novelty", "mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]);
    let Some(mut stage) = filtered(&rules) else { return };
    assert_eq!(stage.output("mkdir /tmp/d 2>/dev/null || echo refused"), "refused");
}

#[test]
fn unknown_actions_operators_architectures_and_flags_are_refused() {
    let rule = json!([{"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 1, "value": 1, "op": "SCMP_CMP_NOVEL"}]}]);
    for patch in [
        json!({"defaultAction": "SCMP_ACT_NOVELTY"}),
        json!({"syscalls": mkdir("SCMP_ACT_NOVELTY")}),
        json!({"syscalls": rule}),
        json!({"architectures": ["SCMP_ARCH_NOVELTY"]}),
        json!({"flags": ["SECCOMP_FILTER_FLAG_NOVELTY"]}),
    ] {
        let Some(mut stage) = filtered(&mkdir("SCMP_ACT_ERRNO")) else { return };
        stage.patch(&json!({"linux": {"seccomp": patch}}));
        let ran = stage.run();
        assert_ne!(ran.code, Some(0), "{patch}");
    }
}
