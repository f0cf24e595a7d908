//! Mounts of a container that no path of the host stands for: parts of volumes, and the files of images.
//!
//! They are made by descriptors, attached nowhere, right before the container starts; in its configuration a path stands
//! for each that exists nowhere. Invariant: what a part is, is decided by the kernel while it resolves the path, so nobody
//! who can write to the volume can have something else mounted.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use oci::container::rootfs::{
    BeneathError, Recursive, clone_beneath, clone_beneath_detached, layers, layers_mapped, require_shared,
};

use super::failed;
use super::user_namespace::UserNamespace;
use crate::{ContainerSpec, Image, ImageId, Mount, MountSource, Propagation, RuntimeError};

/// What stands for a mount in a configuration, if no path of the host does.
pub(super) fn stand_in(index: usize, mount: &Mount) -> Option<PathBuf> {
    let is_made = mount.sub_path.is_some() || matches!(mount.source, MountSource::Image(_));
    is_made.then(|| PathBuf::from(format!("/.coracle/mounts/{index}")))
}

/// Makes all of them, by what stands for them.
pub(super) fn make(
    request: &ContainerSpec,
    images: &BTreeMap<ImageId, Image>,
    users: Option<&UserNamespace>,
) -> Result<BTreeMap<PathBuf, OwnedFd>, RuntimeError> {
    let mut made = BTreeMap::new();
    for (index, mount) in request.mounts.iter().enumerate() {
        let Some(name) = stand_in(index, mount) else { continue };
        let part = mount.sub_path.as_deref();
        let mounted = match &mount.source {
            MountSource::HostPath(root) => {
                if mount.propagation == Propagation::Bidirectional {
                    require_shared(root).map_err(|error| failed("mount volume", io::Error::other(error)))?;
                }
                clone_beneath(root, part.unwrap_or(Path::new(".")), Recursive::Yes)
                    .map_err(|error| not_reached(mount, error))?
            }
            MountSource::Image(id) => {
                let image = images.get(id).ok_or_else(|| RuntimeError::NoImage { image: id.clone() })?;
                let whole = files_of(image, users)?;
                match part {
                    Some(part) => {
                        clone_beneath_detached(whole.as_fd(), part).map_err(|error| not_reached(mount, error))?
                    }
                    None => whole,
                }
            }
            MountSource::Tmpfs { .. } => {
                return Err(RuntimeError::Invalid { message: "an empty file system has no parts".to_owned() });
            }
        };
        made.insert(name, mounted);
    }
    Ok(made)
}

fn files_of(image: &Image, users: Option<&UserNamespace>) -> Result<OwnedFd, RuntimeError> {
    if image.layers.is_empty() {
        return Err(RuntimeError::Invalid { message: format!("image {} has no layers", image.id) });
    }
    let mounted = match users {
        Some(users) => layers_mapped(&image.layers, users.descriptor.as_fd()),
        None => layers(&image.layers),
    };
    mounted.map_err(|error| failed("mount image", io::Error::other(error)))
}

fn not_reached(mount: &Mount, error: BeneathError) -> RuntimeError {
    let (created, source) = match error {
        BeneathError::Create { source, .. } => (false, source),
        BeneathError::Open { source, .. } => (true, source),
    };
    RuntimeError::SubPath { destination: mount.destination.clone(), created, source }
}
