//! Measures emptyDirs on disk against their limits, and has pods evicted that exceed one.
//!
//! After `localStorageEviction` of `pkg/kubelet/eviction`. There is no quota to ask on every file system, so the directories
//! are walked: every ten seconds at most, and so seldom that it takes a hundredth of the time. Those in memory are limited
//! by their file systems. Containers' writable layers and logs are not measured here.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::Pod;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, openat2, statat};
use rustix::io::Errno;
use tokio::time::Instant;

use super::source::{Source, of_pod};
use crate::admission::is_critical;
use crate::pod::PodDirs;
use crate::pod::eviction::Eviction;
use crate::shared::Shared;

/// Upstream's `monitoringInterval` of the eviction manager.
const PERIOD: Duration = Duration::from_secs(10);
/// How much longer than a walk the pause after it is.
const REST: u32 = 100;

/// A directory and what it may hold.
#[derive(Debug, PartialEq, Eq)]
struct Limited {
    directory: PathBuf,
    limit: u64,
    /// What users are told if it holds more.
    message: String,
}

/// Looks after all pods of the node, for ever.
pub(crate) async fn watch(shared: Arc<Shared>) {
    let mut pause = PERIOD;
    loop {
        tokio::time::sleep(pause).await;
        let began = Instant::now();
        for (uid, limited) in shared.running(|pod| limits(pod, &shared)) {
            let exceeded = task::blocking(move || limited.into_iter().find(Limited::is_exceeded)).await;
            if let Some(Limited { message, .. }) = exceeded {
                shared.evict(&uid, Eviction::now(message));
            }
        }
        pause = PERIOD.max(began.elapsed().saturating_mul(REST));
    }
}

/// The directories of a pod that have limits; none if there are none, or the node cannot do without the pod.
fn limits(pod: &Pod, shared: &Shared) -> Option<Vec<Limited>> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let dirs = || PodDirs::of(pod, &shared.config);
    let limited = volumes.filter_map(|volume| {
        let source = volume.empty_dir.as_ref().filter(|own| own.medium.as_deref().unwrap_or_default().is_empty())?;
        let text = source.size_limit.as_ref()?;
        let limit = u64::try_from(Quantity::parse(&text.0).ok()?.value()).ok().filter(|limit| *limit > 0)?;
        let found = of_pod(volume).ok().filter(|found| matches!(found.source, Source::EmptyDir(_)))?;
        // With the space at its end, as upstream has it.
        let message = format!("Usage of EmptyDir volume {:?} exceeds the limit {:?}. ", volume.name, text.0);
        Some(Limited { directory: super::directory(&dirs(), &found), limit, message })
    });
    let limited: Vec<Limited> = limited.collect();
    (!limited.is_empty() && !is_critical(pod)).then_some(limited)
}

impl Limited {
    fn is_exceeded(&self) -> bool {
        match measure(&self.directory, self.limit) {
            Ok(size) => size.bytes > self.limit,
            // It has gone, or cannot be read just now.
            Err(_) => false,
        }
    }
}

/// How much a tree takes on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Size {
    pub(crate) bytes: u64,
    /// Files and directories.
    pub(crate) files: u64,
}

/// How much a tree takes on disk.
pub(crate) fn tree(root: &Path) -> io::Result<Size> {
    measure(root, u64::MAX)
}

/// No more than needed to know that it is more than `enough` bytes.
fn measure(root: &Path, enough: u64) -> io::Result<Size> {
    let root = std::ffi::CString::new(root.as_os_str().as_encoded_bytes())?;
    let top = open(CWD, &root, ResolveFlags::NO_MAGICLINKS)?;
    let mut walk = Walk { size: Size::default(), enough, linked: HashSet::new() };
    walk.add(top.as_fd())?;
    Ok(walk.size)
}

fn open(parent: BorrowedFd<'_>, name: &std::ffi::CStr, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    openat2(parent, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), resolve)
}

struct Walk {
    size: Size,
    enough: u64,
    /// Files of several names that were counted.
    linked: HashSet<u64>,
}

impl Walk {
    fn add(&mut self, directory: BorrowedFd<'_>) -> io::Result<()> {
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if self.size.bytes > self.enough {
                return Ok(());
            }
            if name == c"." || name == c".." {
                continue;
            }
            let Ok(about) = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            if about.st_nlink > 1
                && FileType::from_raw_mode(about.st_mode) != FileType::Directory
                && !self.linked.insert(about.st_ino)
            {
                continue;
            }
            let bytes = u64::try_from(about.st_blocks).unwrap_or(0).saturating_mul(512);
            self.size.bytes = self.size.bytes.saturating_add(bytes);
            self.size.files = self.size.files.saturating_add(1);
            // What is mounted inside is not the volume's.
            if FileType::from_raw_mode(about.st_mode) == FileType::Directory
                && let Ok(inner) = open(directory, name, inside)
            {
                self.add(inner.as_fd())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_tree_is_measured_once_per_file_and_not_beyond_its_links() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().join("volume");
        fs::create_dir_all(root.join("deep")).expect("a directory");
        fs::write(directory.path().join("outside"), vec![1; 1 << 20]).expect("a file");
        fs::write(root.join("deep/file"), vec![1; 256 << 10]).expect("a file");
        fs::hard_link(root.join("deep/file"), root.join("again")).expect("a link");
        std::os::unix::fs::symlink("../outside", root.join("link")).expect("a link");
        std::os::unix::fs::symlink("..", root.join("deep/up")).expect("a link");
        // The file system may not have given the blocks yet.
        fs::File::open(root.join("deep/file")).and_then(|file| file.sync_all()).expect("synced");
        let Size { bytes, files } = tree(&root).expect("measured");
        assert!((256 << 10..512 << 10).contains(&bytes) && files == 4, "{bytes} bytes in {files} files");
        let limited = |limit| Limited { directory: root.clone(), limit, message: String::new() };
        assert!(limited(100 << 10).is_exceeded());
        assert!(!limited(600 << 10).is_exceeded());
        let absent = Limited { directory: root.join("absent"), limit: 1, message: String::new() };
        assert!(!absent.is_exceeded());
    }
}
