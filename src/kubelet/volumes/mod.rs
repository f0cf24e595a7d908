//! Volumes of a pod: made before its first container starts, mounted by path.
//!
//! Called by the worker's operations. Volumes on disk are below the pod's directory; secrets, and emptyDirs in memory,
//! are below the run directory, which is a tmpfs on a usual host: nothing of a secret reaches a disk then. Kinds that are
//! not supported are errors (`FailedMount`), never left out. Invariant: content from the API appears atomically, all
//! files of a volume at once.

mod atomic;
mod content;
mod host_path;
mod sub_path;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Volume, VolumeMount};
use runtime::{Mount, MountSource, Propagation};

use crate::container::{ConfigError, Context, expand};
use crate::pod::PodDirs;
use crate::references;
use crate::shared::{PrepareError, Shared};

/// A volume that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume {volume:?} ")]
pub(crate) struct VolumeError {
    volume: String,
    #[source]
    source: Problem,
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
}

/// Makes all volumes of a pod, or brings them up to date.
pub(crate) async fn prepare(shared: &Shared, pod: &Pod, dirs: &PodDirs) -> Prepared {
    let mut prepared = Prepared::default();
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    for volume in volumes {
        match prepare_one(shared, pod, dirs, volume).await {
            Ok(renew_at) => prepared.renew_at = [prepared.renew_at, renew_at].into_iter().flatten().min(),
            Err(source) => prepared.problems.push(VolumeError { volume: volume.name.clone(), source }),
        }
    }
    prepared
}

/// Makes one volume; tells when a token in it is to be renewed.
async fn prepare_one(
    shared: &Shared,
    pod: &Pod,
    dirs: &PodDirs,
    volume: &Volume,
) -> Result<Option<Timestamp>, Problem> {
    if let Some(host) = volume.host_path.clone() {
        return task::blocking(move || host_path::check(&host)).await.map(|()| None);
    }
    let directory = directory(dirs, volume)?;
    if volume.empty_dir.is_some() {
        task::blocking(move || make_empty(&directory)).await?;
        return Ok(None);
    }
    let mut context = shared.context();
    context.references = references::fetch(shared, pod, &content::names(volume)).await?;
    let files = content::files(pod, volume, &context)?;
    task::blocking(move || atomic::write(&directory, &files)).await?;
    Ok(context.references.tokens.values().map(|token| token.renew_at).min())
}

fn make_empty(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o777))
}

/// Where a volume's content is.
fn directory(dirs: &PodDirs, volume: &Volume) -> Result<PathBuf, Problem> {
    let in_memory = volume.empty_dir.as_ref().is_some_and(|own| own.medium.as_deref() == Some("Memory"));
    let (root, kind) = match volume {
        Volume { host_path: Some(host), .. } => return Ok(PathBuf::from(&host.path)),
        Volume { empty_dir: Some(_), .. } if in_memory => (&dirs.run, "empty-dir"),
        Volume { empty_dir: Some(_), .. } => (&dirs.root, "empty-dir"),
        Volume { config_map: Some(_), .. } => (&dirs.root, "configmap"),
        Volume { downward_api: Some(_), .. } => (&dirs.root, "downward-api"),
        Volume { secret: Some(_), .. } => (&dirs.run, "secret"),
        Volume { projected: Some(_), .. } => (&dirs.run, "projected"),
        other => return Err(Problem::Unsupported { kind: kind_of(other) }),
    };
    Ok(root.join("volumes").join(format!("kubernetes.io~{kind}")).join(&volume.name))
}

/// The name of a volume's source, as it is written in the pod.
fn kind_of(volume: &Volume) -> String {
    let value = serde_json::to_value(volume).unwrap_or_default();
    let keys = value.as_object().into_iter().flatten().map(|(key, _)| key.as_str());
    keys.filter(|key| *key != "name").collect::<Vec<_>>().join(", ")
}

/// The mounts that a container asks for.
pub(crate) fn mounts(
    pod: &Pod,
    container: &Container,
    dirs: &PodDirs,
    context: &Context,
) -> Result<Vec<Mount>, ConfigError> {
    container.volume_mounts.iter().flatten().map(|mount| one_mount(pod, container, dirs, context, mount)).collect()
}

fn one_mount(
    pod: &Pod,
    container: &Container,
    dirs: &PodDirs,
    context: &Context,
    mount: &VolumeMount,
) -> Result<Mount, ConfigError> {
    let absent = || ConfigError::NoVolume { name: mount.name.clone() };
    let mut volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let volume = volumes.find(|volume| volume.name == mount.name).ok_or_else(absent)?;
    let root = directory(dirs, volume).map_err(|_| absent())?;
    let sub_path = match (mount.sub_path_expr.as_deref(), mount.sub_path.as_deref()) {
        (Some(expression), _) if !expression.is_empty() => {
            expand(expression, &crate::container::environment(pod, container, context)?)
        }
        (_, Some(path)) => path.to_owned(),
        _ => String::new(),
    };
    let source = if sub_path.is_empty() { root } else { sub_path::resolve(&root, &sub_path, &mount.name)? };
    let from_api = volume.host_path.is_none() && volume.empty_dir.is_none();
    Ok(Mount {
        destination: absolute(&mount.mount_path),
        source: MountSource::HostPath(source),
        read_only: mount.read_only.unwrap_or(false) || from_api,
        recursive_read_only: matches!(mount.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible")),
        propagation: match mount.mount_propagation.as_deref() {
            Some("HostToContainer") => Propagation::HostToContainer,
            Some("Bidirectional") => Propagation::Bidirectional,
            _ => Propagation::None,
        },
    })
}

/// A relative mount path counts from the root, as upstream.
fn absolute(path: &str) -> PathBuf {
    Path::new("/").join(path)
}

#[cfg(test)]
mod tests;
