//! Opens what a script needs. The one part of compiling that touches the host, and nothing stays on it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use super::{Descriptor, MappedBy};
use crate::cgroup::Joins;
use crate::container::rootfs::{self, RootfsError};
use crate::container::users::{self, IdMaps, UsersError};

/// Why a descriptor could not be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A path of the host.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    /// A namespace.
    #[error("cannot open namespace {}", path.display())]
    Namespace {
        /// Where it should be.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The caller has not given what the script needs.
    #[error("the script needs {descriptor:?}, which was not given")]
    NotGiven {
        /// What is missing.
        descriptor: Descriptor,
    },
    /// A user namespace.
    #[error(transparent)]
    Users(#[from] UsersError),
    /// The process has too many descriptors open.
    #[error("cannot duplicate a descriptor")]
    Duplicate(#[source] io::Error),
}

/// Opens all descriptors of a script, in its order. Must run in the host's mount namespace.
///
/// # Errors
/// When something does not exist, or was not given.
pub fn open(descriptors: &[Descriptor], rootfs: Option<OwnedFd>, joins: &Joins) -> Result<Vec<OwnedFd>, OpenError> {
    open_with(descriptors, rootfs, joins, BTreeMap::new())
}

/// As [`open`], with mounts that the caller has made, attached nowhere, by the paths that stand for them.
///
/// # Errors
/// As [`open`].
pub fn open_with(
    descriptors: &[Descriptor],
    rootfs: Option<OwnedFd>,
    joins: &Joins,
    mut given: BTreeMap<PathBuf, OwnedFd>,
) -> Result<Vec<OwnedFd>, OpenError> {
    let mut rootfs = rootfs;
    let mut made = Made::default();
    descriptors
        .iter()
        .map(|descriptor| {
            let not_given = || OpenError::NotGiven { descriptor: descriptor.clone() };
            match descriptor {
                Descriptor::Rootfs => rootfs.take().ok_or_else(not_given),
                Descriptor::HostPath { path, recursive, shared } => {
                    if let Some(mount) = given.remove(path) {
                        return Ok(mount);
                    }
                    if *shared {
                        rootfs::require_shared(path)?;
                    }
                    Ok(rootfs::clone_host_path(path, *recursive)?)
                }
                Descriptor::MappedPath { path, recursive, shared, by, all } => {
                    let mount = match given.remove(path) {
                        Some(mount) => mount,
                        None => {
                            if *shared {
                                rootfs::require_shared(path)?;
                            }
                            rootfs::clone_host_path(path, *recursive)?
                        }
                    };
                    let namespace = match by {
                        MappedBy::Maps(maps) => made.namespace(maps)?,
                        MappedBy::Namespace(path) => open_namespace(path)?,
                    };
                    rootfs::map_mount(mount.as_fd(), path, namespace.as_fd(), *all)?;
                    Ok(mount)
                }
                Descriptor::UserNamespace { maps } => made.namespace(maps),
                Descriptor::Namespace { path } => open_namespace(path),
                Descriptor::GroupV2 => duplicate(joins.v2.as_ref().ok_or_else(not_given)?),
                Descriptor::GroupV1(index) => duplicate(joins.v1.get(*index).ok_or_else(not_given)?),
            }
        })
        .collect()
}

fn open_namespace(path: &Path) -> Result<OwnedFd, OpenError> {
    let opened = std::fs::File::open(path);
    opened.map(OwnedFd::from).map_err(|source| OpenError::Namespace { path: path.to_owned(), source })
}

/// User namespaces that were made already: mounts may use the one of the container.
#[derive(Default)]
struct Made(Vec<(IdMaps, OwnedFd)>);

impl Made {
    fn namespace(&mut self, maps: &IdMaps) -> Result<OwnedFd, OpenError> {
        if let Some((_, namespace)) = self.0.iter().find(|(known, _)| known == maps) {
            return duplicate(namespace);
        }
        let namespace = users::make(maps)?;
        let copy = duplicate(&namespace)?;
        self.0.push((maps.clone(), namespace));
        Ok(copy)
    }
}

fn duplicate(descriptor: &OwnedFd) -> Result<OwnedFd, OpenError> {
    descriptor.as_fd().try_clone_to_owned().map_err(OpenError::Duplicate)
}
