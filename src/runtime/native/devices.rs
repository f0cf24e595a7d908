//! The host's devices, for privileged containers.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use serde_json::{Value, json};

/// Directories of `/dev` that a container has its own version of (containerd: oci/utils_unix.go).
const OWN: [&str; 6] = ["pts", "shm", "fd", "mqueue", ".lxc", ".udev"];

/// All device nodes below `/dev`, as parts of a configuration. What vanishes meanwhile or cannot be read is left out.
pub(super) fn of_host() -> Vec<Value> {
    let mut found = Vec::new();
    collect(Path::new("/dev"), 0, &mut found);
    found
}

fn collect(directory: &Path, depth: u32, found: &mut Vec<Value>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let Ok(about) = entry.metadata() else { continue };
        let kind = about.file_type();
        if kind.is_dir() && depth < 8 && !OWN.iter().any(|own| name == *own) {
            collect(&path, depth + 1, found);
        } else if (kind.is_char_device() || kind.is_block_device()) && name != "console" {
            found.push(json!({
                "path": path,
                "type": if kind.is_char_device() { "c" } else { "b" },
                "major": rustix::fs::major(about.rdev()),
                "minor": rustix::fs::minor(about.rdev()),
                "fileMode": about.mode() & 0o7777,
                "uid": about.uid(),
                "gid": about.gid(),
            }));
        }
    }
}
