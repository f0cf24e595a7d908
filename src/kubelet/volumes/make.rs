//! Making one volume of a pod.
//!
//! May be repeated at any moment, also while containers use the volume: what is there stays as it is, but content from the
//! API, which is brought up to date.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use api::quantity::Quantity;
use client::events::EventType;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, ImageVolumeSource, Pod, Volume};
use runtime::{PullProgress, VolumeSource};
use task::chain;

use super::ownership::Group;
use super::source::{Found, Source};
use super::watch::{MadeOf, ObjectName};
use super::{Problem, atomic, content, directory, group, host_path, image_note, ownership};
use crate::container::{Context, References, huge_pages, pod_resources, pull_credentials};
use crate::pod::plan::WaitingReason;
use crate::pod::{PodDirs, report};
use crate::references;
use crate::shared::Shared;

/// One volume about to be made.
pub(super) struct Making<'a> {
    pub(super) shared: &'a Shared,
    pub(super) pod: &'a Pod,
    pub(super) dirs: &'a PodDirs,
    pub(super) volume: &'a Volume,
    pub(super) found: Found,
}

impl Making<'_> {
    /// Makes the volume; tells when a token in it is to be renewed.
    pub(super) async fn make(self, made_of: &mut MadeOf) -> Result<Option<Timestamp>, Problem> {
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
            pages if pages.starts_with("HugePages") => {
                let page_size = huge_pages::of_medium(self.pod, pages)?;
                let mode = group.map_or(0o777, |_| ownership::directory_mode(0o777, false));
                let source = VolumeSource::HugePages { page_size, mode, group: group.map(|group| group.id) };
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
        let bad = |reason, message| Problem::Image { reference: reference.clone(), reason, message };
        let failed = |error: runtime::ImageError| bad(WaitingReason::ErrImagePull, chain(&error));
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
                return Err(bad(WaitingReason::ErrImageNeverPull, message));
            }
            None => {
                tell(EventType::Normal, "Pulling", &format!("Pulling image {reference:?}"));
                let secrets = references::pull_secrets(self.shared, self.pod).await?;
                let pulled =
                    images.pull(&reference, &pull_credentials(&secrets, &reference), &PullProgress::default()).await;
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

/// Appears as it shall be, or not at all: an agent that dies between two steps leaves nothing that looks done.
pub(super) fn make_empty(directory: &Path, group: Option<Group>) -> io::Result<()> {
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

/// The least of what the node has for pods, what the pod may use and what the volume says (KEP-1967).
pub(super) fn memory_size(pod: &Pod, source: &EmptyDirVolumeSource, context: &Context) -> Option<u64> {
    let limit = source.size_limit.as_ref().and_then(|limit| Quantity::parse(&limit.0).ok());
    let own = limit.map(Quantity::value).filter(|size| *size > 0);
    let sizes = [context.allocatable.get("memory").copied(), pod_resources(pod).memory_limit, own];
    sizes.into_iter().flatten().min().and_then(|size| u64::try_from(size).ok())
}
