//! The user namespace of a sandbox, as containers need it.
//!
//! Nobody is in it while no container runs; it lives because the sandbox's network namespace belongs to it, and is found
//! by that, also by an agent that starts later. In a container's configuration a path stands for it that exists nowhere.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use oci::container::compile::{Descriptor, MappedBy};
use oci::container::users;

use super::failed;
use super::sandbox::Sandbox;
use super::users::Identity;
use crate::{RuntimeError, UserRange};

/// Stands for the namespace in a configuration.
pub(super) const PATH: &str = "/.coracle/user-namespace";

/// A user namespace and its ids.
#[derive(Debug)]
pub(super) struct UserNamespace {
    pub(super) descriptor: OwnedFd,
    pub(super) range: UserRange,
}

impl UserNamespace {
    /// That of a sandbox which has one.
    pub(super) fn of(sandbox: &Sandbox) -> Result<Option<Self>, RuntimeError> {
        let Some(range) = sandbox.record.spec.user_namespace else { return Ok(None) };
        let unusable = |error| failed("find the user namespace of the sandbox", std::io::Error::other(error));
        let descriptor = users::owner(sandbox.network_namespace()?.as_fd()).map_err(unusable)?;
        let own = fs::metadata("/proc/self/ns/user").map_err(|source| failed("examine own user namespace", source))?;
        let found = rustix::fs::fstat(&descriptor).map_err(|errno| failed("examine user namespace", errno))?;
        // Never root of the host by mistake.
        if std::os::unix::fs::MetadataExt::ino(&own) == found.st_ino {
            return Err(RuntimeError::Invalid { message: "the sandbox has no user namespace of its own".to_owned() });
        }
        Ok(Some(Self { descriptor, range }))
    }

    /// What root is outside: user and group.
    pub(super) fn root(&self) -> (u32, u32) {
        (self.range.first, self.range.first)
    }

    /// Puts the namespace in the place of what stands for it. The path is good while this lives.
    pub(super) fn insert(&self, descriptors: &mut [Descriptor]) {
        let real = PathBuf::from(format!("/proc/self/fd/{}", self.descriptor.as_raw_fd()));
        for descriptor in descriptors {
            match descriptor {
                Descriptor::Namespace { path } | Descriptor::MappedPath { by: MappedBy::Namespace(path), .. }
                    if path == Path::new(PATH) =>
                {
                    path.clone_from(&real);
                }
                _ => {}
            }
        }
    }
}

/// Refuses ids that the namespace does not have.
pub(super) fn check_identity(identity: &Identity, range: UserRange) -> Result<(), RuntimeError> {
    let all = [("user", identity.uid), ("group", identity.gid)].into_iter();
    let mut all = all.chain(identity.groups.iter().map(|group| ("supplementary group", *group)));
    match all.find(|(_, id)| *id >= range.count) {
        Some((kind, id)) => {
            let message =
                format!("{kind} {id} is not in the user namespace of the pod, which ends at {}", range.count - 1);
            Err(RuntimeError::Invalid { message })
        }
        None => Ok(()),
    }
}
