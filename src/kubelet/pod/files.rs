//! Where the files of a pod are, and those that every container of it gets.
//!
//! Layout as upstream's kubelet has it, so that tools find their way:
//!
//! ```text
//! <root>/pods/<uid>/pod.json                                  the checkpoint
//!                  /etc-hosts, resolv.conf
//!                  /userns                                    ids of a pod with a user namespace of its own
//!                  /containers/<name>/<id>                    last words
//!                  /volumes/kubernetes.io~<kind>/<volume>/    volumes on disk, and those of servers
//!                  /images/<volume>                           which image a volume is made of
//!                  /given/<volume>                            says that a volume was given to the pod's group
//! <run>/pods/                                                 a file system in memory
//! <run>/pods/<uid>/volumes/kubernetes.io~<kind>/<volume>/     secrets, in memory; emptyDirs in memory are mounts
//! <logs>/<namespace>_<name>_<uid>/<container>/<attempt>.log
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};
use runtime::{ContainerId, Mount, MountSource, Propagation};

use crate::config::KubeletConfig;

/// The directories of one pod.
#[derive(Debug, Clone)]
pub(crate) struct PodDirs {
    pub(crate) root: PathBuf,
    pub(crate) run: PathBuf,
    pub(crate) logs: PathBuf,
}

impl PodDirs {
    pub(crate) fn of(pod: &Pod, config: &KubeletConfig) -> Self {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let metadata = &pod.metadata;
        let uid = text(&metadata.uid);
        let logs = format!("{}_{}_{uid}", text(&metadata.namespace), text(&metadata.name));
        Self {
            root: config.root.join("pods").join(&uid),
            run: config.run_dir.join("pods").join(&uid),
            logs: config.log_root.join(logs),
        }
    }

    /// The name of the file with a pod's ids.
    pub(crate) const USERS: &str = "userns";

    pub(crate) fn users(&self) -> PathBuf {
        self.root.join(Self::USERS)
    }

    pub(crate) fn checkpoint(&self) -> PathBuf {
        self.root.join("pod.json")
    }

    /// Writes the checkpoint if the pod has its directory; tells whether it has.
    pub(crate) fn keep(&self, pod: &Pod) -> io::Result<bool> {
        if !self.root.is_dir() {
            return Ok(false);
        }
        write_whole(&self.checkpoint(), &serde_json::to_vec(pod)?).map(|()| true)
    }

    /// The pod as the checkpoint says it was; none if there is no readable one.
    pub(crate) fn recall(&self) -> Option<Pod> {
        serde_json::from_slice(&fs::read(self.checkpoint()).ok()?).ok()
    }

    pub(crate) fn hosts(&self) -> PathBuf {
        self.root.join("etc-hosts")
    }

    pub(crate) fn resolv_conf(&self) -> PathBuf {
        self.root.join("resolv.conf")
    }

    /// Where a life of a container writes what it says.
    pub(crate) fn log(&self, container: &str, attempt: u32) -> PathBuf {
        self.logs.join(container).join(format!("{attempt}.log"))
    }

    /// Where a container's last words are written.
    pub(crate) fn last_words(&self, container: &str, id: &ContainerId) -> PathBuf {
        self.root.join("containers").join(container).join(id.0.get(..8).unwrap_or(&id.0))
    }

    /// The mounts that every container gets: hosts, resolver, last words. A mount of the pod's own at the same place
    /// takes precedence.
    pub(crate) fn standard_mounts(&self, container: &Container, id: &ContainerId) -> Vec<Mount> {
        let words = container.termination_message_path.as_deref().filter(|path| !path.is_empty());
        let sources = [
            (PathBuf::from("/etc/hosts"), self.hosts()),
            (PathBuf::from("/etc/resolv.conf"), self.resolv_conf()),
            (PathBuf::from(words.unwrap_or("/dev/termination-log")), self.last_words(&container.name, id)),
        ];
        let own: Vec<&str> = container.volume_mounts.iter().flatten().map(|mount| mount.mount_path.as_str()).collect();
        let free =
            sources.into_iter().filter(|(destination, _)| !own.iter().any(|path| Path::new(path) == destination));
        free.map(|(destination, source)| bind(destination, source)).collect()
    }
}

/// A writable bind mount.
fn bind(destination: PathBuf, source: PathBuf) -> Mount {
    Mount {
        destination,
        source: MountSource::HostPath(source),
        sub_path: None,
        read_only: false,
        recursive_read_only: false,
        propagation: Propagation::None,
    }
}

/// Writes a file beside its place and moves it there, so that nobody sees half of it.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    if fs::read(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    let temporary = path.with_extension("new");
    fs::write(&temporary, content)?;
    fs::rename(&temporary, path)
}
