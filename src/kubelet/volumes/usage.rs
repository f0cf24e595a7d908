//! Measures what pods have on disk against their limits, and has those evicted that exceed one: emptyDirs, and what their
//! containers write and log.
//!
//! After `localStorageEviction` of `pkg/kubelet/eviction`. There is no quota to ask on every file system, so the directories
//! are walked: every ten seconds at most, and so seldom that it takes a hundredth of the time. Those in memory are limited
//! by their file systems.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::quantity::Quantity;
use api::resources::pod::requests::pod_limits;
use k8s_openapi::api::core::v1::{Container, Pod};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, openat2, statat};
use rustix::io::Errno;
use serde_json::json;
use tokio::time::Instant;

use super::source::{Source, claim_name, find, of_pod};
use crate::admission::is_critical;
use crate::pod::PodDirs;
use crate::pod::eviction::Eviction;
use crate::shared::Shared;

const STORAGE: &str = "ephemeral-storage";
/// Upstream's `monitoringInterval` of the eviction manager.
const PERIOD: Duration = Duration::from_secs(10);
/// How much longer than a walk the pause after it is.
const REST: u32 = 100;

/// Directories and what they may hold together.
#[derive(Debug, PartialEq, Eq)]
struct Limited {
    directories: Vec<PathBuf>,
    limit: u64,
    /// What users are told if they hold more.
    message: String,
}

/// What containers write to, by the UIDs of their pods: names and directories.
type Layers = BTreeMap<String, Vec<(String, PathBuf)>>;

/// Looks after all pods of the node, for ever.
pub(crate) async fn watch(shared: Arc<Shared>) {
    let mut pause = PERIOD;
    loop {
        tokio::time::sleep(pause).await;
        let began = Instant::now();
        let layers = layers(&shared).await;
        for (uid, limited) in shared.running(|pod| limits(pod, &shared, &layers)) {
            let exceeded = task::blocking(move || limited.into_iter().find(Limited::is_exceeded)).await;
            if let Some(Limited { message, .. }) = exceeded {
                shared.evict(&uid, Eviction::now(message));
            }
        }
        pause = PERIOD.max(began.elapsed().saturating_mul(REST));
    }
}

/// The layers of pods whose containers are limited.
async fn layers(shared: &Shared) -> Layers {
    let limited = shared.running(|pod| whole_limit(pod).map(|_| ()));
    let runtime = &shared.seams.runtime;
    let mut found = Layers::new();
    if limited.is_empty() {
        return found;
    }
    // What cannot be had now is looked for again.
    for sandbox in runtime.list().await.unwrap_or_default() {
        let uid = &sandbox.spec.pod_uid;
        if limited.iter().any(|(own, ())| own == uid) {
            let layers = runtime.layers(&sandbox.spec.id).await.unwrap_or_default();
            let name = |id| sandbox.containers.iter().find(|one| one.id == id).map(|one| one.name.clone());
            let named = layers.into_iter().filter_map(|(id, layer)| Some((name(id)?, layer)));
            found.entry(uid.clone()).or_default().extend(named);
        }
    }
    found
}

/// The directories of a pod that have limits; none if there are none, or the node cannot do without the pod.
fn limits(pod: &Pod, shared: &Shared, layers: &Layers) -> Option<Vec<Limited>> {
    if is_critical(pod) {
        return None;
    }
    let dirs = PodDirs::of(pod, &shared.config);
    let mut limited = of_volumes(pod, &dirs);
    let layers = layers.get(pod.metadata.uid.as_deref().unwrap_or_default()).map(Vec::as_slice).unwrap_or_default();
    limited.extend(of_pod_and_containers(pod, &dirs, layers));
    (!limited.is_empty()).then_some(limited)
}

// All messages have a space at their end, as upstream has it.
fn of_volumes(pod: &Pod, dirs: &PodDirs) -> Vec<Limited> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let limited = volumes.filter_map(|volume| {
        let source = volume.empty_dir.as_ref().filter(|own| own.medium.as_deref().unwrap_or_default().is_empty())?;
        let text = source.size_limit.as_ref()?;
        let limit = positive(Quantity::parse(&text.0).ok()?)?;
        let found = of_pod(volume).ok().filter(|found| matches!(found.source, Source::EmptyDir(_)))?;
        let message = format!("Usage of EmptyDir volume {:?} exceeds the limit {:?}. ", volume.name, text.0);
        Some(Limited { directories: vec![super::directory(dirs, &found)], limit, message })
    });
    limited.collect()
}

/// Each container has its layer and its logs; the pod as a whole has all of these and its volumes.
fn of_pod_and_containers(pod: &Pod, dirs: &PodDirs, layers: &[(String, PathBuf)]) -> Vec<Limited> {
    let Some(whole) = whole_limit(pod) else { return Vec::new() };
    let all = [dirs.root.clone(), dirs.logs.clone()].into_iter().chain(layers.iter().map(|(_, layer)| layer.clone()));
    let message = format!("Pod ephemeral local storage usage exceeds the total limit of containers {whole}. ");
    let whole = positive(whole).map(|limit| Limited { directories: all.collect(), limit, message });
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers).filter_map(|container| {
        let name = &container.name;
        let limits = container.resources.as_ref().and_then(|own| own.limits.as_ref());
        let text = &limits?.get(STORAGE)?.0;
        let limit = positive(Quantity::parse(text).ok()?)?;
        let own = layers.iter().filter(|(other, _)| other == name).map(|(_, layer)| layer.clone());
        let directories = [dirs.logs.join(name)].into_iter().chain(own).collect();
        let message = format!("Container {name} exceeded its local ephemeral storage limit {text:?}. ");
        Some(Limited { directories, limit, message })
    });
    whole.into_iter().chain(containers).collect()
}

/// What all containers of a pod together may have on disk, if any of them is limited.
fn whole_limit(pod: &Pod) -> Option<Quantity> {
    let limited = |one: &Container| {
        one.resources.as_ref().is_some_and(|own| own.limits.iter().flatten().any(|(name, _)| name == STORAGE))
    };
    let spec = pod.spec.as_ref()?;
    if !spec.containers.iter().chain(spec.init_containers.iter().flatten()).any(limited) {
        return None;
    }
    let spec = serde_json::to_value(spec).ok()?;
    pod_limits(&json!({ "spec": spec })).get(STORAGE).copied()
}

fn positive(limit: Quantity) -> Option<u64> {
    u64::try_from(limit.value()).ok().filter(|limit| *limit > 0)
}

impl Limited {
    /// What has gone, or cannot be read just now, holds nothing.
    fn is_exceeded(&self) -> bool {
        let mut used = 0_u64;
        self.directories.iter().any(|directory| {
            let size = measure(directory, self.limit).unwrap_or_default();
            used = used.saturating_add(size.bytes);
            used > self.limit
        })
    }
}

/// A volume of which it can be said how much it holds.
pub(crate) struct Measured {
    /// As the pod has it.
    pub(crate) name: String,
    /// The claim that it is by.
    pub(crate) claim: Option<String>,
    pub(crate) directory: PathBuf,
    /// Whether what is in it is to be counted, and not what is on its file system.
    pub(crate) is_own: bool,
    /// Whether it takes of the pod's disk.
    pub(crate) is_on_disk: bool,
}

/// Those of a pod that can be found now.
pub(crate) async fn measured(shared: &Shared, pod: &Pod, dirs: &PodDirs) -> Vec<Measured> {
    let mut all = Vec::new();
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        let Ok(found) = find(shared, pod, volume).await else { continue };
        let (is_own, is_on_disk) = match &found.source {
            Source::HostPath(_) | Source::Image(_) => continue,
            Source::Local(_) | Source::Nfs { .. } => (false, false),
            Source::EmptyDir(own) => (true, own.medium.as_deref().unwrap_or_default().is_empty()),
            Source::Api(kind) => (true, !matches!(*kind, "secret" | "projected")),
        };
        let claim = claim_name(pod, volume).map(|(claim, _)| claim);
        let directory = super::directory(dirs, &found);
        all.push(Measured { name: volume.name.clone(), claim, directory, is_own, is_on_disk });
    }
    all
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
        let limited = |directories: &[&str], limit| {
            let directories = directories.iter().map(|name| root.join(name)).collect();
            Limited { directories, limit, message: String::new() }
        };
        assert!(limited(&[""], 100 << 10).is_exceeded());
        assert!(!limited(&[""], 600 << 10).is_exceeded());
        assert!(limited(&["", ""], 500 << 10).is_exceeded(), "what several hold is added up");
        assert!(!limited(&["absent"], 1).is_exceeded());
    }
}
