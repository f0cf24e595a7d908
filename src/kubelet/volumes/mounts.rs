//! What of a pod's volumes a container mounts, and where.

use std::fs;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};
use runtime::{ImageId, Mount, MountSource, Propagation};

use super::source::{self, Found, Source};
use super::{Problem, directory, image_note};
use crate::container::{ConfigError, Context, expand};
use crate::pod::PodDirs;
use crate::shared::Shared;

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

pub(super) fn one_mount(
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
pub(super) fn sub_path(
    pod: &Pod,
    container: &Container,
    context: &Context,
    mount: &VolumeMount,
) -> Result<Option<PathBuf>, ConfigError> {
    let path = match (mount.sub_path_expr.as_deref(), mount.sub_path.as_deref()) {
        (Some(expression), _) if !expression.is_empty() => {
            let env = crate::container::environment(pod, container, context)?;
            if let Some(name) = unknown_name(expression, &env) {
                return Err(ConfigError::NoValue { name });
            }
            expand(expression, &env)
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

/// A name in an expression that has no value: in a path that is an error, unlike in a command.
fn unknown_name(expression: &str, env: &[(String, String)]) -> Option<String> {
    let mut rest = expression;
    while let Some((_, after)) = rest.split_once('$') {
        rest = after;
        if let Some(after) = rest.strip_prefix('$') {
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            if !env.iter().any(|(known, _)| known == name) {
                return Some(name.to_owned());
            }
            rest = after;
        }
    }
    None
}

/// A relative mount path counts from the root, as upstream.
fn absolute(path: &str) -> PathBuf {
    Path::new("/").join(path)
}
