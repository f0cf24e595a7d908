//! Links to container logs, by which collectors such as fluent-bit learn whose log it is:
//! `<pod>_<namespace>_<container>-<container id>.log`, in `/var/log/containers` on a node with its usual places.
//!
//! After `legacy.go` and `kuberuntime_gc.go` of `pkg/kubelet/kuberuntime` upstream. Nothing here reads a log. Invariant: only
//! links that lead below the folder of our own pods' logs are changed or removed; whatever else is there is somebody else's.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// The longest name of a file on ext4.
const LONGEST: usize = 255;
const SUFFIX: &str = ".log";

/// Where links to the logs below `logs` are: beside it.
pub(crate) fn folder(logs: &Path) -> PathBuf {
    logs.with_file_name("containers")
}

/// What the link to a container's log is called.
pub(crate) fn name([pod, namespace, container, id]: [&str; 4]) -> String {
    let mut name = format!("{pod}_{namespace}_{container}-{id}");
    // All of it is ASCII.
    name.truncate(LONGEST - SUFFIX.len());
    name + SUFFIX
}

/// Makes a link unless there is one.
pub(crate) fn make(folder: &Path, name: &str, log: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    match symlink(log, folder.join(name)) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Removes the links below `logs` for which `is_over` says so; the folder as well if nothing is left in it.
fn remove_if(logs: &Path, is_over: impl Fn(&Path) -> io::Result<bool>) -> io::Result<()> {
    let folder = folder(logs);
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let link = entry?.path();
        // Others come and go, and some are no links.
        let Ok(log) = fs::read_link(&link) else { continue };
        if log.starts_with(logs) && is_over(&log)? {
            match fs::remove_file(&link) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Removes the links to logs that have gone.
pub(crate) fn sweep(logs: &Path) -> io::Result<()> {
    remove_if(logs, |log| Ok(!log.try_exists()?))
}

/// Removes the links to all logs of an instance, which are below `logs`.
///
/// # Errors
/// When one cannot be removed.
pub fn remove_log_links(logs: &Path) -> io::Result<()> {
    remove_if(logs, |_| Ok(true))?;
    // Others may have links there, or want the folder empty.
    match fs::remove_dir(folder(logs)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            Ok(())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_called_as_collectors_expect_it() {
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(name(["web", "shop", "c", &id]), format!("web_shop_c-{id}.log"));
        let long = name([&"p".repeat(200), &"n".repeat(63), "c", &id]);
        assert!(long.len() == LONGEST && long.ends_with("nn.log"), "{long}");
    }

    #[test]
    fn links_go_with_their_logs_and_those_of_others_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        let (logs, links) = (folder.path().join("pods"), folder.path().join("containers"));
        let log = logs.join("shop_web_u1/c/0.log");
        fs::create_dir_all(log.parent().expect("a parent")).expect("made");
        fs::write(&log, "").expect("written");
        for name in ["one.log", "one.log", "two.log"] {
            make(&links, name, &log).expect("linked");
        }
        make(&links, "gone.log", &logs.join("shop_gone_u2/c/0.log")).expect("linked");
        make(&links, "others.log", Path::new("/nowhere/else.log")).expect("linked");
        fs::write(links.join("file.log"), "").expect("written");
        let names = || {
            let all = fs::read_dir(&links).expect("listed").map(|entry| entry.expect("one").file_name());
            let mut names: Vec<String> = all.map(|name| name.to_string_lossy().into_owned()).collect();
            names.sort();
            names
        };
        sweep(&logs).expect("swept");
        assert_eq!(names(), ["file.log", "one.log", "others.log", "two.log"]);
        remove_log_links(&logs).expect("removed");
        assert_eq!(names(), ["file.log", "others.log"]);
        remove_log_links(&folder.path().join("none/pods")).expect("nothing to remove");
    }
}
