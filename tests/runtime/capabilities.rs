//! The five sets of config.md, "Linux Process": `capabilities`. What the program has after execve(2) follows from
//! capabilities(7).

use serde_json::{Value, json};

use crate::stage::Stage;

const CHOWN: u64 = 1;
const KILL: u64 = 1 << 5;
const NET_RAW: u64 = 1 << 13;
const SYS_CHROOT: u64 = 1 << 18;

/// What the program sees of its sets under a configuration.
struct Seen {
    inheritable: u64,
    permitted: u64,
    effective: u64,
    bounding: u64,
    ambient: u64,
}

fn seen(uid: u32, capabilities: &Value) -> Option<Seen> {
    let mut stage = Stage::new()?;
    stage.patch(&json!({"process": {"user": {"uid": uid, "gid": uid}, "capabilities": null}}));
    stage.patch(&json!({"process": {"capabilities": capabilities, "args": ["/bin/grep", "Cap", "/proc/self/status"]}}));
    let ran = stage.run();
    let set = |name: &str| {
        let line = ran.ok().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        u64::from_str_radix(line.unwrap().trim(), 16).unwrap()
    };
    Some(Seen {
        inheritable: set("CapInh"),
        permitted: set("CapPrm"),
        effective: set("CapEff"),
        bounding: set("CapBnd"),
        ambient: set("CapAmb"),
    })
}

#[test]
fn root_has_what_its_bounding_set_allows() {
    let both = ["CAP_CHOWN", "CAP_KILL"];
    let sets = json!({"bounding": both, "permitted": both, "effective": both, "inheritable": [], "ambient": []});
    let Some(seen) = seen(0, &sets) else { return };
    assert_eq!((seen.bounding, seen.permitted, seen.effective), (CHOWN | KILL, CHOWN | KILL, CHOWN | KILL));
    assert_eq!((seen.inheritable, seen.ambient), (0, 0));
}

#[test]
fn another_user_has_what_its_ambient_set_gives() {
    let sets = json!({
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_SYS_CHROOT"],
        "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
        "effective": ["CAP_CHOWN", "CAP_KILL"],
        "inheritable": ["CAP_CHOWN", "CAP_KILL"],
        "ambient": ["CAP_CHOWN"],
    });
    let Some(seen) = seen(1000, &sets) else { return };
    assert_eq!(seen.bounding, CHOWN | KILL | NET_RAW | SYS_CHROOT);
    assert_eq!(seen.inheritable, CHOWN | KILL);
    assert_eq!((seen.permitted, seen.effective, seen.ambient), (CHOWN, CHOWN, CHOWN));
}

#[test]
fn another_user_without_an_ambient_set_has_none() {
    let both = ["CAP_CHOWN", "CAP_KILL"];
    let sets = json!({"bounding": both, "permitted": both, "effective": both, "inheritable": [], "ambient": []});
    let Some(seen) = seen(1000, &sets) else { return };
    assert_eq!(seen.bounding, CHOWN | KILL);
    assert_eq!((seen.permitted, seen.effective, seen.inheritable, seen.ambient), (0, 0, 0, 0));
}

#[test]
fn empty_sets_leave_root_without_any() {
    let sets = json!({"bounding": [], "permitted": [], "effective": [], "inheritable": [], "ambient": []});
    let Some(seen) = seen(0, &sets) else { return };
    let all = [seen.bounding, seen.permitted, seen.effective, seen.inheritable, seen.ambient];
    assert_eq!(all, [0; 5]);
}

#[test]
fn sets_that_are_not_given_are_empty() {
    let Some(seen) = seen(0, &json!({})) else { return };
    let all = [seen.bounding, seen.permitted, seen.effective, seen.inheritable, seen.ambient];
    assert_eq!(all, [0; 5]);
}

#[test]
fn a_capability_that_the_kernel_does_not_know_is_no_failure() {
    // "Any value which cannot be mapped to a relevant kernel interface … MUST be logged as a warning"; "Runtimes SHOULD
    // NOT fail".
    let both = ["CAP_CHOWN", "CAP_NOVELTY"];
    let sets = json!({"bounding": both, "permitted": both, "effective": both, "inheritable": [], "ambient": []});
    let Some(seen) = seen(0, &sets) else { return };
    assert_eq!((seen.bounding, seen.permitted), (CHOWN, CHOWN));
}

#[test]
fn capabilities_that_are_left_out_are_refused_by_the_kernel() {
    let Some(mut stage) = Stage::new() else { return };
    let sets = json!({"bounding": [], "permitted": [], "effective": [], "inheritable": [], "ambient": []});
    stage.patch(&json!({"process": {"capabilities": sets}}));
    let seen = stage.output("touch /tmp/f; chown 5 /tmp/f 2>/dev/null || echo refused; stat -c %u /tmp/f");
    assert_eq!(seen, "refused\n0");
}
