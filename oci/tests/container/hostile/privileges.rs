//! Capabilities, identity and devices that a process must not come by.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rustix::thread::{CapabilitySet, capabilities, configure_capability_in_ambient_set, set_capabilities};
use serde_json::json;

use crate::identity::line;
use crate::stage::{GIVEN, NONE, Stage};

#[test]
fn capabilities_that_the_starter_passes_on_do_not_get_inside() {
    let Some(stage) = Stage::new("capabilities_that_the_starter_passes_on_do_not_get_inside") else { return };
    // Capabilities belong to a thread, and this test has one of its own.
    let mut own = capabilities(None).unwrap();
    own.inheritable = own.permitted;
    set_capabilities(None, own).unwrap();
    for capability in [CapabilitySet::CHOWN, CapabilitySet::SYS_ADMIN, CapabilitySet::NET_RAW] {
        configure_capability_in_ambient_set(capability, true).unwrap();
    }
    let mut config = stage.config(&["who", "--", "wait"]);
    let mut inside = stage.start(&stage.config(&["wait"])).unwrap();
    inside.await_ready();
    for (uid, effective) in [(0, GIVEN), (1000, NONE)] {
        config["process"]["user"] = json!({"uid": uid, "gid": uid});
        for report in [stage.run(&config), stage.exec(&config, &inside).unwrap().output()] {
            for (set, expected) in [("CapInh", NONE), ("CapAmb", NONE), ("CapBnd", GIVEN), ("CapEff", effective)] {
                assert_eq!(line(&report, set), expected, "{set} of user {uid}");
            }
        }
    }
}

#[test]
fn a_program_of_root_gives_no_more_than_the_container_has() {
    let Some(stage) = Stage::new("a_program_of_root_gives_no_more_than_the_container_has") else { return };
    let volume = stage.path("volume");
    fs::create_dir(&volume).unwrap();
    for directory in [stage.layer().join("bin"), volume.clone()] {
        fs::copy(stage.layer().join("bin/payload"), directory.join("root")).unwrap();
        fs::set_permissions(directory.join("root"), fs::Permissions::from_mode(0o4755)).unwrap();
    }
    let mut config = stage.config(&[]);
    let bind = json!({"destination": "/volume", "type": "bind", "source": volume, "options": ["bind", "nosuid"]});
    config["mounts"].as_array_mut().unwrap().push(bind);
    config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    let cases = [("/bin/root", false, GIVEN), ("/bin/root", true, NONE), ("/volume/root", false, NONE)];
    for (program, no_new_privileges, expected) in cases {
        config["process"]["args"] = json!([program, "who"]);
        config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        assert_eq!(line(&stage.run(&config), "CapEff"), expected, "{program} {no_new_privileges}");
    }
}
