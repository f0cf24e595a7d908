//! Device nodes, links of `/dev` and device rules: config-linux.md, "Devices", "Default Devices", "Allowed Device list";
//! runtime-linux.md, "Dev symbolic links".

use serde_json::{Value, json};

use crate::stage::Stage;

#[test]
fn the_default_devices_are_there_with_their_numbers() {
    let Some(mut stage) = Stage::new() else { return };
    let seen = stage.output("cd /dev; stat -c '%n %F %t:%T %a' null zero full random urandom tty");
    let expected = "null character special file 1:3 666\nzero character special file 1:5 666\n\
                    full character special file 1:7 666\nrandom character special file 1:8 666\n\
                    urandom character special file 1:9 666\ntty character special file 5:0 666";
    assert_eq!(seen, expected);
}

#[test]
fn the_default_devices_work_although_rules_deny_all() {
    let Some(mut stage) = Stage::new() else { return };
    stage.patch(&json!({"linux": {"resources": {"devices": [{"allow": false, "access": "rwm"}]}}}));
    let script =
        "cd /dev; echo x >null && head -c 2 zero | od -An -tx1 && head -c 3 urandom | wc -c && head -c 3 random | wc -c
        (echo x >full) 2>/dev/null || echo full";
    assert_eq!(stage.output(script), " 00 00\n3\n3\nfull");
}

#[test]
fn the_multiplexer_of_terminals_is_that_of_the_container() {
    let Some(mut stage) = Stage::new() else { return };
    let script = "stat -L -c '%t:%T' /dev/ptmx; : <>/dev/ptmx && echo opens
        [ $(stat -L -c %d:%i /dev/ptmx) = $(stat -c %d:%i /dev/pts/ptmx) ] && echo same";
    assert_eq!(stage.output(script), "5:2\nopens\nsame");
}

#[test]
fn the_links_of_dev_are_there() {
    let Some(mut stage) = Stage::new() else { return };
    let seen = stage.output("cd /dev; for f in fd stdin stdout stderr; do echo $f $(readlink $f); done");
    let expected = "fd /proc/self/fd\nstdin /proc/self/fd/0\nstdout /proc/self/fd/1\nstderr /proc/self/fd/2";
    assert_eq!(seen, expected);
}

fn device(path: &str, kind: &str, more: &Value) -> Value {
    let mut device = json!({"path": path, "type": kind});
    device.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    device
}

#[test]
fn devices_are_made_with_type_numbers_mode_and_owner() {
    let Some(mut stage) = Stage::new() else { return };
    stage.push(
        "/linux/devices",
        device("/dev/first", "c", &json!({"major": 10, "minor": 229, "fileMode": 0o640, "uid": 7, "gid": 8})),
    );
    stage.push("/linux/devices", device("/dev/second", "b", &json!({"major": 7, "minor": 300, "fileMode": 0o606})));
    stage.push("/linux/devices", device("/dev/third", "u", &json!({"major": 1, "minor": 11, "fileMode": 0o600})));
    stage.push("/linux/devices", device("/dev/pipe", "p", &json!({"fileMode": 0o622, "uid": 9, "gid": 0})));
    let seen =
        stage.output("cd /dev; stat -c '%n %F %t:%T %a %u:%g' first second third; stat -c '%n %F %a %u:%g' pipe");
    let expected = "first character special file a:e5 640 7:8\nsecond block special file 7:12c 606 0:0\n\
                    third character special file 1:b 600 0:0\npipe fifo 622 9:0";
    assert_eq!(seen, expected);
}

#[test]
fn a_device_may_lie_outside_of_dev_in_directories_that_are_made() {
    let Some(mut stage) = Stage::new() else { return };
    stage.push("/linux/devices", device("/opt/deep/null", "c", &json!({"major": 1, "minor": 3, "fileMode": 0o666})));
    assert_eq!(stage.output("echo x >/opt/deep/null && stat -c '%t:%T' /opt/deep/null"), "1:3");
}

#[test]
fn a_mode_is_not_narrowed_by_the_umask_of_the_runtime() {
    let Some(mut stage) = Stage::new() else { return };
    stage.around = ["sh", "-c", "umask 077; exec \"$@\"", "sh"].map(str::to_owned).to_vec();
    stage.push("/linux/devices", device("/dev/wide", "c", &json!({"major": 1, "minor": 3, "fileMode": 0o666})));
    assert_eq!(stage.output("stat -c %a /dev/wide /dev/null"), "666\n666");
}

#[test]
fn a_file_in_place_of_a_device_is_refused() {
    let Some(mut stage) = Stage::new() else { return };
    std::fs::write(stage.rootfs("etc/device"), "text").unwrap();
    stage.push("/linux/devices", device("/etc/device", "c", &json!({"major": 1, "minor": 3, "fileMode": 0o666})));
    stage.run().fails();
    assert_eq!(std::fs::read_to_string(stage.rootfs("etc/device")).unwrap(), "text");
}

#[test]
fn a_device_of_an_unknown_type_is_refused() {
    let Some(mut stage) = Stage::new() else { return };
    stage.push("/linux/devices", device("/dev/odd", "x", &json!({"major": 1, "minor": 3})));
    stage.run().fails();
}

/// Opens the kernel's log, which no default rule allows, under these rules.
fn open_log(rules: &Value) -> Option<String> {
    let mut stage = Stage::new()?;
    let all = ["CAP_SYSLOG", "CAP_SYS_ADMIN"];
    stage.patch(&json!({
        "process": {"capabilities": {"bounding": all, "permitted": all, "effective": all}},
        "linux": {"resources": {"devices": rules}},
    }));
    stage.push("/linux/devices", device("/dev/log", "c", &json!({"major": 1, "minor": 11, "fileMode": 0o666})));
    Some(stage.output("(: </dev/log) 2>/dev/null && echo read; (: >>/dev/log) 2>/dev/null && echo write; true"))
}

#[test]
fn a_device_that_rules_deny_cannot_be_opened() {
    let Some(seen) = open_log(&json!([{"allow": false, "access": "rwm"}])) else { return };
    assert_eq!(seen, "");
}

#[test]
fn a_device_that_rules_allow_can_be_opened() {
    let allow = json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "rwm"});
    let Some(seen) = open_log(&json!([{"allow": false, "access": "rwm"}, allow])) else { return };
    assert_eq!(seen, "read\nwrite");
}

#[test]
fn access_is_allowed_by_kind() {
    let allow = json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"});
    let Some(seen) = open_log(&json!([{"allow": false, "access": "rwm"}, allow])) else { return };
    assert_eq!(seen, "read");
}

#[test]
fn a_rule_without_numbers_means_all() {
    let allow = json!({"allow": true, "type": "c", "access": "rw"});
    let Some(seen) = open_log(&json!([{"allow": false, "access": "rwm"}, allow])) else { return };
    assert_eq!(seen, "read\nwrite");
}

#[test]
fn rules_apply_in_the_listed_order() {
    let rule =
        |allow: bool, access: &str| json!({"allow": allow, "type": "c", "major": 1, "minor": 11, "access": access});
    let all = json!({"allow": false, "access": "rwm"});
    let Some(seen) = open_log(&json!([all, rule(true, "rwm"), rule(false, "w")])) else { return };
    assert_eq!(seen, "read");
    let Some(seen) = open_log(&json!([rule(true, "rwm"), all])) else { return };
    assert_eq!(seen, "");
}
