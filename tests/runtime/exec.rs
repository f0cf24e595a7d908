//! Further processes in a container. The specification leaves `exec` out; what it does is as runc's command line has it,
//! which containerd and CRI-O rely on.

use std::fs;

use rustix::process::Pid;
use serde_json::{Value, json};

use crate::invoke::collect;
use crate::stage::{Container, Stage};

#[test]
fn a_further_process_returns_its_output_and_its_exit_code() {
    let Some(mut stage) = Stage::new() else { return };
    let container = stage.start_waiting();
    let ran = container.exec("echo out; echo err >&2; exit 17");
    assert_eq!((ran.code, ran.out.as_str()), (Some(17), "out\n"));
    assert!(ran.err.contains("err\n"), "{ran:?}");
}

#[test]
fn a_further_process_that_a_signal_ends_returns_128_and_its_number() {
    let Some(mut stage) = Stage::new() else { return };
    let container = stage.start_waiting();
    assert_eq!(container.exec("kill -KILL $$").code, Some(137));
}

#[test]
fn a_further_process_that_cannot_be_started_fails() {
    let Some(mut stage) = Stage::new() else { return };
    let _container = stage.start_waiting();
    stage.call(&["exec", &stage.id, "/absent"]).fails();
    stage.call(&["exec", &stage.id, "/etc"]).fails();
    assert_eq!(stage.status(), "running");
}

#[test]
fn a_further_process_reads_its_input() {
    let Some(mut stage) = Stage::new() else { return };
    let _container = stage.start_waiting();
    let input = fs::File::open(stage.file("input", "fed\n")).unwrap();
    assert_eq!(stage.call_with(&["exec", &stage.id, "/bin/cat"], input.into()).ok(), "fed");
}

#[test]
fn a_further_process_is_in_all_namespaces_of_the_container() {
    let Some(mut stage) = Stage::new() else { return };
    let kinds = ["pid", "mount", "ipc", "uts", "network", "cgroup"];
    let kinds: Vec<Value> = kinds.iter().map(|kind| json!({"type": kind})).collect();
    stage.patch(&json!({"linux": {"namespaces": kinds}}));
    let container = stage.start_waiting();
    let ran = container.exec("cd /proc/self/ns; for n in pid mnt ipc uts net cgroup; do readlink $n; done");
    for (name, own) in ["pid", "mnt", "ipc", "uts", "net", "cgroup"].iter().zip(ran.ok().lines()) {
        assert_eq!(own, fs::read_link(container.proc(&format!("ns/{name}"))).unwrap().display().to_string());
    }
}

#[test]
fn a_further_process_is_in_the_user_namespace_of_the_container() {
    let Some(mut stage) = Stage::new() else { return };
    stage.push("/linux/namespaces", json!({"type": "user"}));
    stage.push("/linux/namespaces", json!({"type": "network"}));
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    stage.patch(&json!({"linux": {"uidMappings": map, "gidMappings": map}}));
    std::os::unix::fs::chown(stage.rootfs(""), Some(100_000), Some(100_000)).unwrap();
    let container = stage.start_waiting();
    let ran = container.exec("id -u; tr -s ' ' </proc/self/uid_map | sed 's/^ //'");
    assert_eq!(ran.ok(), "0\n0 100000 65536");
}

#[test]
fn a_further_process_is_in_the_cgroup_of_the_container() {
    let Some(mut stage) = Stage::new() else { return };
    let container = stage.start_waiting();
    let ran = container.exec("cat /proc/self/cgroup");
    let lines = fs::read_to_string(container.proc("cgroup")).unwrap();
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(ran.ok()), sorted(&lines));
}

#[test]
fn a_further_process_sees_the_root_of_the_container() {
    let Some(mut stage) = Stage::new() else { return };
    fs::write(stage.rootfs("etc/here"), "here\n").unwrap();
    let container = stage.start_waiting();
    assert_eq!(
        container.exec("cat /etc/here; readlink /proc/self/cwd; cd /proc/1/root && ls etc").ok(),
        "here\n/\nhere"
    );
}

#[test]
fn a_further_process_has_the_capabilities_of_the_configuration() {
    let Some(mut stage) = Stage::new() else { return };
    let container = stage.start_waiting();
    let script = "grep -E 'Cap(Prm|Eff|Bnd|Amb)' /proc/self/status";
    let own = fs::read_to_string(container.proc("status")).unwrap();
    for line in container.exec(script).ok().lines() {
        assert!(own.lines().any(|have| have == line), "{line} of\n{own}");
    }
}

#[test]
fn a_further_process_has_the_environment_of_the_configuration_and_more() {
    let Some(mut stage) = Stage::new() else { return };
    stage.patch(&json!({"process": {"env": ["PATH=/bin", "ONE=1", "TWO=2"]}}));
    let container = stage.start_waiting();
    let ran = container.exec_with(&["-e", "THREE=3", "-e", "TWO=other"], "echo $ONE $TWO $THREE");
    assert_eq!(ran.ok(), "1 other 3");
}

#[test]
fn a_further_process_has_the_working_directory_of_the_flag() {
    let Some(mut stage) = Stage::new() else { return };
    let container = stage.start_waiting();
    assert_eq!(container.exec_with(&["--cwd", "/bin"], "readlink /proc/self/cwd").ok(), "/bin");
}

#[test]
fn a_further_process_has_the_user_of_the_flag() {
    let Some(mut stage) = Stage::new() else { return };
    let container = stage.start_waiting();
    assert_eq!(container.exec_with(&["--user", "11:12"], "id -u; id -g").ok(), "11\n12");
    assert_eq!(container.exec_with(&["-u", "13"], "id -u").ok(), "13");
}

/// Runs what a file describes, as containerd does.
fn from_file(stage: &Stage, process: &Value) -> crate::invoke::Ran {
    let file = stage.file("process.json", &process.to_string()).display().to_string();
    stage.call(&["exec", "--process", &file, &stage.id])
}

fn process(script: &str) -> Value {
    json!({"cwd": "/", "args": ["/bin/sh", "-c", script], "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}})
}

#[test]
fn a_file_describes_a_further_process() {
    let Some(mut stage) = Stage::new() else { return };
    let _container = stage.start_waiting();
    let script = "id -u; id -g; grep Groups /proc/self/status | xargs; umask; readlink /proc/self/cwd; echo $ONE
        grep -E 'CapBnd|NoNewPrivs' /proc/self/status | tr -d '\\t '; ulimit -n; cat /proc/self/oom_score_adj";
    let mut process = process(script);
    process["user"] = json!({"uid": 21, "gid": 22, "additionalGids": [23, 24], "umask": 0o077});
    process["env"] = json!(["PATH=/bin", "ONE=1"]);
    process["cwd"] = json!("/etc");
    process["capabilities"] = json!({"bounding": ["CAP_CHOWN"]});
    process["noNewPrivileges"] = json!(true);
    process["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 200, "hard": 300}]);
    process["oomScoreAdj"] = json!(444);
    let expected = "21\n22\nGroups: 23 24\n0077\n/etc\n1\nCapBnd:0000000000000001\nNoNewPrivs:1\n200\n444";
    assert_eq!(from_file(&stage, &process).ok(), expected);
}

#[test]
fn a_file_without_capabilities_does_not_give_all() {
    let Some(mut stage) = Stage::new() else { return };
    let _container = stage.start_waiting();
    let ran = from_file(&stage, &process("grep CapBnd /proc/self/status | tr -d '\\t '"));
    let bounding = ran.ok().trim_start_matches("CapBnd:").to_owned();
    let bounding = u64::from_str_radix(&bounding, 16).unwrap();
    // CAP_SYS_ADMIN is number 21; the container has it not.
    assert_eq!(bounding & (1 << 21), 0);
}

#[test]
fn a_further_process_is_filtered_as_the_container() {
    let Some(mut stage) = Stage::new() else { return };
    let rules = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]);
    stage.patch(&json!({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}}}));
    let container = stage.start_waiting();
    let ran =
        container.exec("mkdir /tmp/d 2>/dev/null || echo refused; grep ^Seccomp: /proc/self/status | tr -d '\\t '");
    assert_eq!(ran.ok(), "refused\nSeccomp:2");
}

#[test]
fn a_detached_process_goes_on_and_its_number_is_in_the_file() {
    let Some(mut stage) = Stage::new() else { return };
    let container = stage.start_waiting();
    let file = stage.path("pid");
    stage.call(&["exec", "--detach", "--pid-file", &file.display().to_string(), &stage.id, "/bin/sleep", "1000"]).ok();
    let pid: i32 = fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    collect(Pid::from_raw(pid).unwrap());
    let link = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap();
    assert_eq!(link(pid), link(container.pid()));
    assert_ne!(pid, container.pid());
    stage.delete_forced().ok();
    assert_eq!(stage.group_directories(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_stopped_container_takes_no_further_process() {
    let Some(mut stage) = Stage::new() else { return };
    stage.script("true");
    let container = stage.create();
    stage.call(&["start", &stage.id]).ok();
    container.reap();
    container.exec("true").fails();
}

#[test]
fn a_further_process_ends_with_the_first() {
    let Some(mut stage) = Stage::new() else { return };
    let mut container: Container = stage.start_waiting();
    let file = stage.path("pid");
    stage.call(&["exec", "--detach", "--pid-file", &file.display().to_string(), &stage.id, "/bin/sleep", "1000"]).ok();
    collect(Pid::from_raw(fs::read_to_string(&file).unwrap().trim().parse().unwrap()).unwrap());
    container.end_input();
    // The kernel ends everything in a pid namespace with its first process.
    assert_eq!(container.reap(), (Some(0), None));
    stage.call(&["delete", &stage.id]).ok();
    assert_eq!(stage.group_directories(), Vec::<std::path::PathBuf>::new());
}
