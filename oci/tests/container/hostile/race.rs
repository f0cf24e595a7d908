//! A neighbour that changes a shared volume while a container with mounts in it is made.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use oci::container::StartError;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::{Value, json};

use crate::stage::Stage;

/// Containers that are started while the volume changes.
const STARTS: u32 = 40;

/// Exchanges two names again and again until it is told to stop.
fn exchange(names: [&Path; 2], stop: &AtomicBool, count: &AtomicU32) {
    let names = names.map(|name| CString::new(name.to_str().unwrap()).unwrap());
    while !stop.load(Ordering::Relaxed) {
        renameat_with(CWD, &names[0], CWD, &names[1], RenameFlags::EXCHANGE).unwrap();
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// All that is below a directory.
fn all(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        found.push(path.display().to_string());
        if path.is_dir() && !path.is_symlink() {
            found.extend(all(&path));
        }
    }
    found.sort();
    found
}

/// Starts containers while `volume/place` is by turns a directory and `link`; how the starts ended.
fn race(stage: &Stage, config: &Value, link: &str) -> Vec<Result<String, StartError>> {
    let (place, other) = (stage.path("volume/place"), stage.path("volume/other"));
    let _ = fs::remove_dir_all(stage.path("volume"));
    fs::create_dir_all(&place).unwrap();
    symlink(link, &other).unwrap();
    let (stop, count) = (AtomicBool::new(false), AtomicU32::new(0));
    let names = [place.as_path(), other.as_path()];
    std::thread::scope(|scope| {
        scope.spawn(|| exchange(names, &stop, &count));
        let results = (0..STARTS).map(|_| stage.start(config).map(crate::stage::Running::output)).collect();
        stop.store(true, Ordering::Relaxed);
        assert!(count.load(Ordering::Relaxed) > STARTS, "nothing was exchanged meanwhile");
        results
    })
}

/// CVE-2021-30465: a mount that is made where a link has been put in between. Also directories, files and devices that
/// are made on the way.
#[test]
fn nothing_lands_outside_while_a_volume_changes() {
    let Some(stage) = Stage::new("nothing_lands_outside_while_a_volume_changes") else { return };
    let outside = stage.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(stage.path("file"), "").unwrap();
    let mut config = stage.config(&["cat", "/proc/self/mountinfo"]);
    let mounts = config["mounts"].as_array_mut().unwrap();
    mounts
        .push(json!({"destination": "/volume", "type": "bind", "source": stage.path("volume"), "options": ["rbind"]}));
    for name in ["a", "b/c", "d"] {
        mounts.push(json!({"destination": format!("/volume/place/{name}"), "type": "tmpfs", "source": "tmpfs"}));
    }
    let file =
        json!({"destination": "/volume/place/file", "type": "bind", "source": stage.path("file"), "options": ["bind"]});
    mounts.push(file);
    let devices = json!([{"path": "/volume/place/device", "type": "c", "major": 1, "minor": 3}]);
    config["linux"]["devices"] = devices;
    config["process"]["cwd"] = json!("/volume/place/deep/er");
    config["linux"]["maskedPaths"] = json!(["/volume/place/a", "/volume/place/file"]);
    config["linux"]["readonlyPaths"] = json!(["/volume/place/b"]);
    let own = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let mut started = 0;
    for link in [outside.display().to_string(), format!("../../../../../../../..{}", outside.display())] {
        for result in race(&stage, &config, &link) {
            match result {
                Ok(report) => {
                    started += 1;
                    assert_eq!(report.lines().filter(|line| line.split(' ').nth(4) == Some("/")).count(), 1);
                }
                // A container of the attacker's own victim need not start. It must be a step of a path that fails.
                Err(error) => assert!(error.errno != 0, "{error}"),
            }
            assert_eq!(all(&outside), Vec::<String>::new());
        }
    }
    assert!(started > 0, "not one container could be started");
    assert_eq!(fs::read_to_string("/proc/thread-self/mountinfo").unwrap(), own);
    assert_eq!(stage.group.pids().unwrap(), Vec::<i32>::new());
}
