//! Volumes of a pod: made before its first container starts, mounted by path.
//!
//! Called by the worker's operations. Volumes on disk are below the pod's directory; secrets, and emptyDirs in memory,
//! are below the run directory, on a file system in memory that [`keep_in_memory`] mounts there: nothing of a secret reaches
//! a disk. Kinds that are not supported are errors (`FailedMount`), never left out. Invariants: content from the API appears
//! atomically, all files of a volume at once; nothing that a volume refers to is changed or removed by its release.

mod atomic;
mod content;
mod host_path;
mod ownership;
mod release;
mod source;
pub(crate) mod usage;
mod watch;

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use api::quantity::Quantity;
use client::events::EventType;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, EmptyDirVolumeSource, ImageVolumeSource, Pod, Volume, VolumeMount};
use runtime::{ImageId, Mount, MountSource, Propagation, RuntimeError, VolumeSource};

use crate::container::{ConfigError, Context, References, expand, pod_resources, pull_credentials};
use crate::pod::{PodDirs, report};
use crate::references;
use crate::shared::{PrepareError, Shared, chain};
use ownership::Group;
pub(crate) use release::release;
pub use release::release_all;
use source::{Found, Source};
use watch::ObjectName;
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
    /// An image cannot be had.
    #[error("{message}")]
    Image { message: String },
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

/// One volume about to be made.
struct Making<'a> {
    shared: &'a Shared,
    pod: &'a Pod,
    dirs: &'a PodDirs,
    volume: &'a Volume,
    found: Found,
}

impl Making<'_> {
    /// Makes the volume; tells when a token in it is to be renewed.
    async fn make(self, made_of: &mut MadeOf) -> Result<Option<Timestamp>, Problem> {
        let directory = directory(self.dirs, &self.found);
        let group = group(self.pod)?;
        match self.found.source.clone() {
            Source::HostPath(host) => task::blocking(move || host_path::check(&host)).await?,
            Source::Local(path) => self.local(path, group).await?,
            Source::Nfs { server, path, options } => {
                let source = VolumeSource::Nfs { server, path, options };
                self.shared.seams.runtime.mount_volume(&directory, source).await?;
            }
            Source::EmptyDir(source) => self.empty_dir(&source, directory, group).await?,
            Source::Image(image) => self.image(&image).await?,
            Source::Api(_) => return self.api(directory, group, made_of).await,
        }
        Ok(None)
    }

    /// A directory that somebody else has put there.
    async fn local(&self, path: String, group: Option<Group>) -> Result<(), Problem> {
        let (done, read_only) = (self.dirs.root.join("given").join(&self.found.name), self.found.read_only);
        let make = move || {
            let about = match fs::metadata(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Problem::NoPath { path }),
                result => result?,
            };
            if !about.is_dir() {
                return Err(Problem::Unsupported { kind: format!("local volume {path} that is no directory") });
            }
            let Some(group) = group.filter(|_| !read_only && !done.exists()) else { return Ok(()) };
            ownership::give(Path::new(&path), group, read_only)?;
            fs::create_dir_all(done.parent().unwrap_or(Path::new("/")))?;
            Ok(fs::write(&done, b"")?)
        };
        task::blocking(make).await
    }

    async fn empty_dir(
        &self,
        source: &EmptyDirVolumeSource,
        directory: PathBuf,
        group: Option<Group>,
    ) -> Result<(), Problem> {
        match source.medium.as_deref().unwrap_or_default() {
            "" => Ok(task::blocking(move || make_empty(&directory, group)).await?),
            "Memory" => {
                let size = memory_size(self.pod, source, &self.shared.context());
                let mode = group.map_or(0o777, |_| ownership::directory_mode(0o777, false));
                let source = VolumeSource::Memory { size, mode, group: group.map(|group| group.id) };
                Ok(self.shared.seams.runtime.mount_volume(&directory, source).await?)
            }
            other => Err(Problem::Unsupported { kind: format!("emptyDir of medium {other}") }),
        }
    }

    async fn api(
        &self,
        directory: PathBuf,
        group: Option<Group>,
        made_of: &mut MadeOf,
    ) -> Result<Option<Timestamp>, Problem> {
        let mut context = self.shared.context();
        let names = content::names(self.volume);
        context.references = references::fetch(self.shared, self.pod, &names).await?;
        self.note(&names, &context.references, made_of);
        let files = content::files(self.pod, self.volume, &context)?;
        let group = group.map(|group| group.id);
        task::blocking(move || atomic::write(&directory, &files, group)).await?;
        Ok(context.references.tokens.values().map(|token| token.renew_at).min())
    }

    /// Notes what a volume is made of, also what is not there: it may appear.
    fn note(&self, names: &references::Names, found: &References, made_of: &mut MadeOf) {
        let namespace = self.pod.metadata.namespace.clone().unwrap_or_default();
        let object =
            |collection, name: &String| ObjectName { collection, namespace: namespace.clone(), name: name.clone() };
        for name in &names.config_maps {
            let map = found.config_maps.get(name);
            let version = map.and_then(|map| map.metadata.resource_version.clone());
            let immutable = map.and_then(|map| map.immutable) == Some(true);
            made_of.object(object("configmaps", name), version, immutable);
        }
        for name in &names.secrets {
            let secret = found.secrets.get(name);
            let version = secret.and_then(|secret| secret.metadata.resource_version.clone());
            let immutable = secret.and_then(|secret| secret.immutable) == Some(true);
            made_of.object(object("secrets", name), version, immutable);
        }
        let sources = self.volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        if self.volume.downward_api.is_some() || sources.into_iter().any(|source| source.downward_api.is_some()) {
            made_of.pod(self.pod);
        }
    }

    /// Fetches an image once for the life of the pod, and notes which one it is.
    async fn image(&self, source: &ImageVolumeSource) -> Result<(), Problem> {
        let note = image_note(self.dirs, &self.found);
        if note.exists() {
            return Ok(());
        }
        let reference = source.reference.clone().unwrap_or_default();
        let policy = source.pull_policy.as_deref().unwrap_or("IfNotPresent");
        let images = &self.shared.seams.images;
        let failed = |error: runtime::ImageError| Problem::Image { message: chain(&error) };
        let present = if policy == "Always" { None } else { images.find(&reference).await.map_err(failed)? };
        let tell = |kind, reason: &str, message: &str| report::of_pod(self.shared, self.pod, kind, reason, message);
        let image = match present {
            Some(image) => {
                let message = format!("Container image {reference:?} already present on machine");
                tell(EventType::Normal, "Pulled", &message);
                image
            }
            None if policy == "Never" => {
                let message = format!("Container image {reference:?} is not present with pull policy of Never");
                tell(EventType::Warning, "ErrImageNeverPull", &message);
                return Err(Problem::Image { message });
            }
            None => {
                tell(EventType::Normal, "Pulling", &format!("Pulling image {reference:?}"));
                let secrets = references::pull_secrets(self.shared, self.pod).await?;
                let pulled = images.pull(&reference, &pull_credentials(&secrets, &reference)).await;
                let image = pulled.map_err(failed)?;
                tell(EventType::Normal, "Pulled", &format!("Successfully pulled image {reference:?}"));
                image
            }
        };
        let write = move || {
            fs::create_dir_all(note.parent().unwrap_or(Path::new("/")))?;
            fs::write(&note, image.id.0)
        };
        Ok(task::blocking(write).await?)
    }
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

/// Appears as it shall be, or not at all: an agent that dies between two steps leaves nothing that looks done.
fn make_empty(directory: &Path, group: Option<Group>) -> io::Result<()> {
    if directory.exists() {
        return Ok(());
    }
    let (Some(parent), Some(name)) = (directory.parent(), directory.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    // No volume has a name with dots.
    let new = parent.join(format!("..{}", name.to_string_lossy()));
    fs::create_dir_all(&new)?;
    if let Some(group) = group {
        chown(&new, None, Some(group.id))?;
    }
    let mode = group.map_or(0o777, |_| ownership::directory_mode(0o777, false));
    fs::set_permissions(&new, fs::Permissions::from_mode(mode))?;
    fs::rename(&new, directory)
}

/// The least of what the node has, what the pod may use and what the volume says (KEP-1967).
fn memory_size(pod: &Pod, source: &EmptyDirVolumeSource, context: &Context) -> Option<u64> {
    let limit = source.size_limit.as_ref().and_then(|limit| Quantity::parse(&limit.0).ok());
    let own = limit.map(Quantity::value).filter(|size| *size > 0);
    let sizes = [Some(context.node_memory).filter(|size| *size > 0), pod_resources(pod).memory_limit, own];
    sizes.into_iter().flatten().min().and_then(|size| u64::try_from(size).ok())
}

/// Where a volume's content is on the host.
fn directory(dirs: &PodDirs, found: &Found) -> PathBuf {
    let (root, kind) = match &found.source {
        Source::HostPath(host) => return PathBuf::from(&host.path),
        Source::Local(path) => return PathBuf::from(path),
        Source::EmptyDir(source) if source.medium.as_deref() == Some("Memory") => (&dirs.run, "empty-dir"),
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

/// The mounts that a container asks for.
pub(crate) async fn mounts(
    shared: &Shared,
    pod: &Pod,
    container: &Container,
    dirs: &PodDirs,
    context: &Context,
) -> Result<Vec<Mount>, Problem> {
    let mut mounts = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let mut named = volumes.into_iter().filter(|volume| volume.name == mount.name);
        let absent = || ConfigError::NoVolume { name: mount.name.clone() };
        let found = source::find(shared, pod, named.next().ok_or_else(absent)?).await?;
        let part = sub_path(pod, container, context, mount)?;
        mounts.push(one_mount(container, dirs, mount, &found, part)?);
    }
    Ok(mounts)
}

fn one_mount(
    container: &Container,
    dirs: &PodDirs,
    mount: &VolumeMount,
    found: &Found,
    sub_path: Option<PathBuf>,
) -> Result<Mount, Problem> {
    let source = match &found.source {
        Source::Image(_) => MountSource::Image(ImageId(fs::read_to_string(image_note(dirs, found))?)),
        _ => MountSource::HostPath(directory(dirs, found)),
    };
    let privileged = container.security_context.as_ref().and_then(|context| context.privileged) == Some(true);
    let propagation = match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => Propagation::HostToContainer,
        Some("Bidirectional") if privileged => Propagation::Bidirectional,
        Some("Bidirectional") => return Err(ConfigError::NotPrivileged { name: mount.name.clone() }.into()),
        _ => Propagation::None,
    };
    Ok(Mount {
        destination: absolute(&mount.mount_path),
        source,
        sub_path,
        read_only: mount.read_only.unwrap_or(false) || found.read_only,
        recursive_read_only: matches!(mount.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible")),
        propagation,
    })
}

/// The part of the volume that is wanted, in upstream's words if it makes no sense. That it does not lead out of the volume
/// is for the runtime to see to, when it is used.
fn sub_path(
    pod: &Pod,
    container: &Container,
    context: &Context,
    mount: &VolumeMount,
) -> Result<Option<PathBuf>, ConfigError> {
    let path = match (mount.sub_path_expr.as_deref(), mount.sub_path.as_deref()) {
        (Some(expression), _) if !expression.is_empty() => {
            expand(expression, &crate::container::environment(pod, container, context)?)
        }
        (_, Some(path)) => path.to_owned(),
        _ => String::new(),
    };
    if path.is_empty() {
        return Ok(None);
    }
    if path.starts_with('/') {
        return Err(ConfigError::SubPathAbsolute { path });
    }
    if path.split('/').any(|part| part == "..") {
        return Err(ConfigError::SubPathBacksteps { path });
    }
    Ok(Some(PathBuf::from(path)))
}

/// A relative mount path counts from the root, as upstream.
fn absolute(path: &str) -> PathBuf {
    Path::new("/").join(path)
}

#[cfg(test)]
mod tests;
