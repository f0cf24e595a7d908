//! Volumes of a pod: made before its first container starts, mounted by path.
//!
//! Called by the worker's operations. Volumes on disk are below the pod's directory; secrets, and emptyDirs in memory,
//! are below the run directory, on a file system in memory that [`keep_in_memory`] mounts there: nothing of a secret reaches
//! a disk. Kinds that are not supported are errors (`FailedMount`), never left out. Invariants: content from the API appears
//! atomically, all files of a volume at once; nothing that a volume refers to is changed or removed by its release.

mod atomic;
mod content;
mod host_path;
mod make;
mod mounts;
mod ownership;
pub(crate) mod provided;
mod release;
mod source;
pub(crate) mod usage;
mod watch;

use std::io;
use std::path::PathBuf;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Volume};
use runtime::{RuntimeError, VolumeSource};

use crate::container::ConfigError;
use crate::container::huge_pages::PageError;
use crate::pod::PodDirs;
use crate::pod::memory::BadImage;
use crate::pod::plan::WaitingReason;
use crate::shared::{PrepareError, Shared};
use make::Making;
pub(crate) use mounts::mounts;
use ownership::Group;
pub(crate) use release::release;
pub use release::release_all;
use source::{Found, Source};
pub(crate) use watch::{Follower, MadeOf, Watches};

/// A volume that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.what())]
pub(crate) struct VolumeError {
    volume: String,
    #[source]
    source: Problem,
}

impl VolumeError {
    /// The volume whose image cannot be had, and why.
    pub(crate) fn bad_image(&self) -> Option<(String, BadImage)> {
        let Problem::Image { reference, reason, message } = &self.source else { return None };
        let bad = BadImage { reference: reference.clone(), reason: *reason, message: message.clone() };
        Some((self.volume.clone(), bad))
    }

    /// In upstream's words, which differ by how far it came.
    fn what(&self) -> String {
        let volume = &self.volume;
        match &self.source {
            Problem::Claim { .. } | Problem::Block { .. } => format!(
                "Unable to attach or mount volumes: unmounted volumes=[{volume}], unattached volumes=[], failed to process \
                 volumes=[{volume}]"
            ),
            Problem::NoPath { .. } => format!("MountVolume.NewMounter initialization failed for volume {volume:?} "),
            _ => format!("MountVolume.SetUp failed for volume {volume:?} "),
        }
    }
}

/// What is wrong with a volume.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// Not supported here.
    #[error("volumes of this kind are not supported: {kind}")]
    Unsupported { kind: String },
    /// What it refers to cannot be had.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// What it refers to does not exist or makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The path on the host is not what it should be.
    #[error("hostPath type check failed: {path} is not a {wanted}")]
    HostPath { path: String, wanted: &'static str },
    /// The directory of a local volume is absent.
    #[error("path {path:?} does not exist")]
    NoPath { path: String },
    /// A claim cannot be used.
    #[error("error processing PVC {namespace}/{name}: {message}")]
    Claim { namespace: String, name: String, message: String },
    /// A claim for a device.
    #[error("volume has volumeMode Block, which is not supported: {claim}")]
    Block { claim: String },
    /// A claim that only one pod may use has one.
    #[error("volume uses the ReadWriteOncePod access mode and is already in use by another pod")]
    InUse,
    /// Nobody has said which huge pages it is made of.
    #[error(transparent)]
    HugePages(#[from] PageError),
    /// An image cannot be had.
    #[error("{message}")]
    Image { reference: String, reason: WaitingReason, message: String },
    /// It could not be mounted.
    #[error("mount failed")]
    Mount(#[from] RuntimeError),
    /// A file could not be written.
    #[error("cannot write the volume")]
    Write(#[from] io::Error),
}

/// How making the volumes went.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    /// What is wrong with some of them.
    pub(crate) problems: Vec<VolumeError>,
    /// When to do it again, because a token in them is about to end.
    pub(crate) renew_at: Option<Timestamp>,
    /// What was read for them, and may change.
    pub(crate) made_of: MadeOf,
}

/// Sees to it that what is to stay in memory does.
pub(crate) async fn keep_in_memory(shared: &Shared) -> Result<(), RuntimeError> {
    let place = shared.config.run_dir.join("pods");
    let source = VolumeSource::Memory { size: None, mode: 0o750, group: None };
    let mount = || shared.seams.runtime.mount_volume(&place, source);
    shared.in_memory.get_or_try_init(mount).await.copied()
}

/// Makes all volumes of a pod, or brings them up to date.
pub(crate) async fn prepare(shared: &Shared, pod: &Pod, dirs: &PodDirs) -> Prepared {
    let mut prepared = Prepared::default();
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    for volume in volumes {
        let found = match source::find(shared, pod, volume).await {
            Ok(found) => found,
            Err(source) => {
                prepared.problems.push(VolumeError { volume: volume.name.clone(), source });
                continue;
            }
        };
        let name = found.name.clone();
        let making = Making { shared, pod, dirs, volume, found };
        match making.make(&mut prepared.made_of).await {
            Ok(renew_at) => prepared.renew_at = [prepared.renew_at, renew_at].into_iter().flatten().min(),
            Err(source) => prepared.problems.push(VolumeError { volume: name, source }),
        }
    }
    prepared
}

/// Where it is noted which image a volume is made of.
fn image_note(dirs: &PodDirs, found: &Found) -> PathBuf {
    dirs.root.join("images").join(&found.name)
}

/// The group that volumes are given to.
fn group(pod: &Pod) -> Result<Option<Group>, ConfigError> {
    let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let policy = context.and_then(|context| context.fs_group_change_policy.as_deref());
    let group = content::group(pod)?;
    Ok(group.map(|id| Group { id, on_root_mismatch: policy == Some("OnRootMismatch") }))
}

/// Where a volume's content is on the host.
fn directory(dirs: &PodDirs, found: &Found) -> PathBuf {
    let (root, kind) = match &found.source {
        Source::HostPath(host) => return PathBuf::from(&host.path),
        Source::Local(path) => return PathBuf::from(path),
        Source::EmptyDir(source) if source.medium.as_deref().is_some_and(|medium| !medium.is_empty()) => {
            (&dirs.run, "empty-dir")
        }
        Source::EmptyDir(_) => (&dirs.root, "empty-dir"),
        Source::Nfs { .. } => (&dirs.root, "nfs"),
        Source::Image(_) => (&dirs.root, "image"),
        Source::Api(kind @ ("secret" | "projected")) => (&dirs.run, *kind),
        Source::Api(kind) => (&dirs.root, *kind),
    };
    root.join("volumes").join(format!("kubernetes.io~{kind}")).join(&found.name)
}

/// The name of a volume's source, as it is written in the pod.
fn kind_of(volume: &Volume) -> String {
    let value = serde_json::to_value(volume).unwrap_or_default();
    let keys = value.as_object().into_iter().flatten().map(|(key, _)| key.as_str());
    keys.filter(|key| *key != "name").collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
