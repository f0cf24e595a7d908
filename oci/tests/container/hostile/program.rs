//! CVE-2019-5736: the program that starts containers, in the hands of a container.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use oci::container::sealed::{Sealed, seal_own_program};
use rustix::fs::{AtFlags, CWD, linkat};
use rustix::mount::{MountFlags, OpenTreeFlags, UnmountFlags, mount_remount, open_tree, unmount};
use serde_json::json;

use crate::stage::{Stage, own_program};

/// What this test program has to be when it is executed by a test of its own.
const ROLE: &str = "CORACLE_TEST_ROLE";

const OWN: &str = "/proc/self/exe";

/// Tries everything that could be done to the file of the program that this process runs; what succeeded.
fn attack() -> Vec<&'static str> {
    use oci::sys::mount::{MountChange, mount_setattr};
    let writable = MountChange { clear: 1, ..MountChange::default() };
    let clone = |flags| open_tree(CWD, OWN, flags | OpenTreeFlags::OPEN_TREE_CLOEXEC);
    let place = || open_tree(CWD, OWN, OpenTreeFlags::OPEN_TREE_CLOEXEC);
    let copy = || {
        let copy = clone(OpenTreeFlags::OPEN_TREE_CLONE)?;
        mount_setattr(copy.as_fd(), writable)?;
        rustix::fs::chmod(format!("/proc/self/fd/{}", copy.as_raw_fd()), 0o755.into())
    };
    let attempts = [
        ("remounted", mount_remount(OWN, MountFlags::BIND, "").is_ok()),
        ("changed mount", place().and_then(|place| mount_setattr(place.as_fd(), writable)).is_ok()),
        ("changed copy", copy().is_ok()),
        ("unmounted", unmount(OWN, UnmountFlags::DETACH).is_ok()),
        ("changed mode", fs::set_permissions(OWN, fs::Permissions::from_mode(0o755)).is_ok()),
        ("changed owner", std::os::unix::fs::chown(OWN, Some(0), Some(0)).is_ok()),
        ("opened for writing", fs::OpenOptions::new().write(true).open(OWN).is_ok()),
        ("truncated", rustix::fs::open(OWN, rustix::fs::OFlags::TRUNC, 0.into()).is_ok()),
        ("linked", linkat(CWD, OWN, CWD, "/tmp/link", AtFlags::SYMLINK_FOLLOW).is_ok()),
    ];
    attempts.iter().filter(|(_, succeeded)| *succeeded).map(|(name, _)| *name).collect()
}

/// Runs the named test of this program in another role.
#[expect(clippy::disallowed_methods, reason = "the program itself is under test")]
fn in_role(program: &Path, test: &str, role: &str) -> String {
    let output = Command::new(program).args(["--exact", test, "--nocapture"]).env(ROLE, role).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Roles: the test; a starter of containers, which seals itself; what its container executes by the name
/// `/proc/self/exe`, which is the starter once more.
#[test]
fn a_container_that_executes_its_starter_cannot_change_it() {
    let test = "hostile::program::a_container_that_executes_its_starter_cannot_change_it";
    match std::env::var(ROLE).as_deref() {
        Ok("inside") => println!("succeeded: {:?}", attack()),
        Ok(role) => {
            if role == "sealed" {
                seal_own_program().unwrap();
            }
            let Some(stage) = Stage::new(test) else { return };
            println!("{}", execute_starter(&stage, test));
        }
        Err(_) => {
            let own = own_program();
            let report = in_role(&own, test, "sealed");
            assert!(report.contains("succeeded: []"), "{report}");
            // The attack works on a starter that has not sealed itself; all it does here is to set what is set already.
            let report = in_role(&own, test, "plain");
            assert!(report.contains("changed mode") && report.contains("changed owner"), "{report}");
        }
    }
}

/// A container whose program is a script that is interpreted by whoever starts it.
fn execute_starter(stage: &Stage, test: &str) -> String {
    let script = stage.layer().join("bin/script");
    fs::write(&script, "#!/proc/self/exe\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let mut inside = stage.start(&stage.config(&["wait"])).unwrap();
    inside.await_ready();
    let mut config = stage.config(&[]);
    config["process"]["args"] = json!(["/bin/script", "--exact", test, "--nocapture"]);
    config["process"]["env"] = json!([format!("{ROLE}=inside")]);
    let first = stage.run(&config);
    let further = stage.exec(&config, &inside).unwrap().output();
    assert!(first.contains("succeeded:") && further.contains("succeeded:"), "{first}{further}");
    first + &further
}

#[test]
fn a_sealed_program_runs_under_its_name_and_cannot_be_changed() {
    let test = "hostile::program::a_sealed_program_runs_under_its_name_and_cannot_be_changed";
    if std::env::var(ROLE).is_ok() {
        let name = fs::read_to_string("/proc/self/comm").unwrap();
        // Mounts are attacked from a namespace of another, as a container with all capabilities would.
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        println!("{}succeeded: {:?}", name, attack());
        return;
    }
    let Some(_stage) = Stage::new(test) else { return };
    let sealed = Sealed::new(&own_program()).unwrap();
    let report = in_role(&sealed.path(), test, "");
    assert!(report.contains("container-") && report.contains("succeeded: []"), "{report}");
}
