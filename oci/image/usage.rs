//! Which images are mounted right now, as the kernel tells it: by the overlay mounts of all mount namespaces.
//!
//! For the command line, which must not take layers from under running containers and knows nothing of who runs them.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use super::{Record, Store};

/// What is mounted from a store.
#[derive(Debug, Default)]
pub struct Usage(BTreeSet<String>);

impl Usage {
    /// Looks at every mount namespace that has a process. Blocks.
    pub fn observe(store: &Store) -> Self {
        let prefix = format!("{}/", store.layers_directory().display());
        let mut used = BTreeSet::new();
        let mut seen = BTreeSet::new();
        for process in processes() {
            // Processes end while one looks; what they had mounted is then somebody else's or gone.
            let Ok(namespace) = fs::read_link(process.join("ns/mnt")) else { continue };
            if !seen.insert(namespace) {
                continue;
            }
            let mounts = fs::read_to_string(process.join("mountinfo")).unwrap_or_default();
            used.extend(mounts.lines().flat_map(|line| lower_directories(line, &prefix)));
        }
        Self(used)
    }

    /// Whether a mount consists of all layers of the image. An image that has just the same layers counts too.
    pub fn has(&self, image: &Record) -> bool {
        !image.layers.is_empty() && image.layers.iter().all(|layer| self.0.contains(layer.diff_id.hex()))
    }
}

fn processes() -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit))
        .map(|entry| entry.path())
}

/// The names of the store's layers in a line of mountinfo (proc_pid_mountinfo(5)).
fn lower_directories(line: &str, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = line;
    while let Some(position) = rest.find(prefix) {
        rest = &rest[position + prefix.len()..];
        let end = rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len());
        found.push(rest[..end].to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lower_directories_are_found_in_both_notations() {
        let line = "40 35 0:32 / / rw - overlay overlay rw,lowerdir+=/r/images/layers/ab,lowerdir+=/r/images/layers/cd,upperdir=/x";
        assert_eq!(lower_directories(line, "/r/images/layers/"), ["ab", "cd"]);
        let line =
            "40 35 0:32 / / rw - overlay overlay rw,lowerdir=/r/images/layers/ab:/r/images/layers/cd,upperdir=/x";
        assert_eq!(lower_directories(line, "/r/images/layers/"), ["ab", "cd"]);
        assert!(lower_directories(line, "/other/").is_empty());
    }
}
