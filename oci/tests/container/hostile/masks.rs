//! Ways around masked and read-only paths.

use std::os::unix::fs::symlink;

use oci::container::Step;
use serde_json::json;

use crate::stage::{Stage, spec};

const HIDDEN: &str = "/proc/keys";

/// The link to a process's root directory in its directory of procfs.
const ROOT: &str = "root";

#[test]
fn masks_hold_in_namespaces_that_a_container_makes_for_itself() {
    let Some(stage) = Stage::new("masks_hold_in_namespaces_that_a_container_makes_for_itself") else { return };
    let attack = ["nested", "new", "proc", "/tmp", "then", "unmount", HIDDEN, "then", "unmount", "/proc/sys"];
    let more = ["then", "writable", "/proc/sys", "then", "unmount", "/sys/firmware", "then", "cat", HIDDEN];
    let mut config = stage.config(&[&attack[..], &more].concat());
    // As a container that may not mount anything itself, and that no filter keeps from making namespaces.
    config["process"]["capabilities"] = json!({});
    config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    let report = stage.run(&config);
    let (eperm, einval) = (format!("error {}", libc::EPERM), format!("error {}", libc::EINVAL));
    // A second view of processes is refused because the first one is not wholly visible; mounts that came with the
    // namespace are locked to each other (mount_namespaces(7)).
    assert_eq!(report.lines().collect::<Vec<_>>(), ["nested", &eperm, &einval, &einval, &eperm, &einval, ""]);
    // Nothing but the masks stood in the way.
    config["linux"]["maskedPaths"] = json!([]);
    config["linux"]["readonlyPaths"] = json!([]);
    let report = stage.run(&config);
    assert_eq!(report.lines().nth(1), Some("mounted"), "{report}");
}

#[test]
fn masks_hold_on_every_way_to_what_they_hide() {
    let Some(stage) = Stage::new("masks_hold_on_every_way_to_what_they_hide") else { return };
    let ways = ["self", "1", "thread-self"].map(|who| format!("/proc/{who}/{ROOT}/proc/keys"));
    let parameter = format!("/proc/self/{ROOT}/proc/sys/kernel/domainname");
    let reads = ways.iter().flat_map(|way| ["cat", way, "--"]);
    let write = ["write", &parameter, "x"];
    let report = stage.run(&stage.config(&reads.chain(write).collect::<Vec<_>>()));
    assert_eq!(report, format!("\n\n\nerror {}\n", libc::EROFS));
}

#[test]
fn a_mask_hides_what_its_path_leads_to() {
    let Some(stage) = Stage::new("a_mask_hides_what_its_path_leads_to") else { return };
    std::fs::write(stage.layer().join("etc/secret"), "secret").unwrap();
    symlink("/../etc/secret", stage.layer().join("etc/link")).unwrap();
    symlink("nowhere", stage.layer().join("etc/dangling")).unwrap();
    let mut config = stage.config(&["cat", "/etc/link", "--", "cat", "/etc/secret", "--", "list", "/etc"]);
    config["linux"]["maskedPaths"] = json!(["/etc/link", "/etc/dangling"]);
    assert_eq!(stage.run(&config), "\n\n[dangling link secret]\n");
}

/// CVE-2025-31133: what a masked path is covered with must be the null device, whatever the image has there.
#[test]
fn a_path_is_not_masked_with_what_an_image_calls_the_null_device() {
    let Some(stage) = Stage::new("a_path_is_not_masked_with_what_an_image_calls_the_null_device") else { return };
    std::fs::create_dir(stage.layer().join("dev")).unwrap();
    symlink("/proc/sys/kernel/core_pattern", stage.layer().join("dev/null")).unwrap();
    let mut config = stage.config(&["wait"]);
    config["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    let error = stage.start(&config).err().unwrap();
    let compiled = oci::container::compile::compile(&spec(&config), &stage.host).unwrap();
    let step = error.step(&compiled.script).unwrap();
    // What masks also looks whether it is the device, but this does not come so far.
    assert!(matches!(step, Step::Device { .. }) && error.errno == libc::EEXIST, "{step:?}: {error}");
}
