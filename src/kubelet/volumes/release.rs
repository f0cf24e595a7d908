//! Giving up what is mounted for a pod.
//!
//! Only what this kubelet mounts is unmounted: directories of volumes, known by where they are. What somebody has mounted
//! deeper or over them stays, and so does the pod's directory then.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use runtime::{Runtime, RuntimeError};

use crate::pod::PodDirs;

/// Unmounts the volumes of a pod that are mounts.
pub(crate) async fn release(runtime: &dyn Runtime, dirs: &PodDirs) -> Result<(), RuntimeError> {
    let mut failed = None;
    for kind in [dirs.run.join("volumes/kubernetes.io~empty-dir"), dirs.root.join("volumes/kubernetes.io~nfs")] {
        for volume in children(kind).await? {
            if let Err(error) = runtime.unmount_volume(&volume).await {
                failed = Some(error);
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Unmounts all that is mounted for pods below the kubelet's directories `root` and `run_dir`.
///
/// # Errors
/// When something else is mounted over it.
pub async fn release_all(runtime: &dyn Runtime, root: &Path, run_dir: &Path) -> Result<(), RuntimeError> {
    let (root, run) = (root.join("pods"), run_dir.join("pods"));
    let mut pods = children(root.clone()).await?;
    pods.extend(children(run.clone()).await?);
    for name in pods.iter().filter_map(|pod| pod.file_name()) {
        let dirs = PodDirs { root: root.join(name), run: run.join(name), logs: PathBuf::new() };
        release(runtime, &dirs).await?;
    }
    runtime.unmount_volume(&run).await
}

/// What is in a directory, if there is one.
async fn children(directory: PathBuf) -> Result<Vec<PathBuf>, RuntimeError> {
    let failed = |source| RuntimeError::Step { step: "list volumes".to_owned(), source };
    let list = move || match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.map(|entry| entry.map(|entry| entry.path())).collect(),
    };
    task::blocking(list).await.map_err(failed)
}
