//! The user namespace of a container, and ids of mounts (OCI runtime specification, config-linux.md "User namespace
//! mappings", config.md "Mounts").
//!
//! A new one is made by whoever opens the descriptors, so that the child only ever joins one; see
//! [`crate::container::users`] for the order of things. Ids that are not mapped are refused here, by name, where the
//! kernel would say EINVAL.

use std::path::PathBuf;

use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType, Mount, Process, Spec};

use super::{CompileError, Descriptor, MappedBy, Namespaces, Step, Writer};
use crate::container::users::{IdMaps, IdRange, outside};

/// The kernel's limit of lines of a map, see user_namespaces(7).
const RANGES_MAX: usize = 340;

/// The user namespace of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Users {
    /// A new one.
    New(IdMaps),
    /// The one at this path.
    At(PathBuf),
}

/// The user namespace that a configuration asks for.
pub(super) fn of(spec: &Spec) -> Result<Option<Users>, CompileError> {
    let Some(linux) = spec.linux() else { return Ok(None) };
    let mut listed = linux.namespaces().iter().flatten().filter(|one| one.typ() == LinuxNamespaceType::User);
    let lists = [("linux.uidMappings", linux.uid_mappings()), ("linux.gidMappings", linux.gid_mappings())];
    let given = lists.iter().find(|(_, list)| list.as_ref().is_some_and(|list| !list.is_empty()));
    match (listed.next(), given) {
        (None, None) => Ok(None),
        (None, Some((property, _))) => Err(CompileError::invalid(*property, "needs a user namespace of its own")),
        (Some(namespace), given) => match (namespace.path(), given) {
            (Some(path), None) => Ok(Some(Users::At(path.clone()))),
            (Some(_), Some((property, _))) => {
                Err(CompileError::unsupported(format!("{property} beside the path of a user namespace")))
            }
            (None, _) => {
                let maps = maps(linux.uid_mappings().as_deref(), linux.gid_mappings().as_deref(), "linux.")?;
                if maps.root().is_none() {
                    return Err(CompileError::invalid("linux.uidMappings", "user 0 and group 0 have to be mapped"));
                }
                Ok(Some(Users::New(maps)))
            }
        },
    }
}

fn maps(
    uids: Option<&[LinuxIdMapping]>,
    gids: Option<&[LinuxIdMapping]>,
    prefix: &str,
) -> Result<IdMaps, CompileError> {
    let uids = ranges(uids.unwrap_or_default(), &format!("{prefix}uidMappings"))?;
    let gids = ranges(gids.unwrap_or_default(), &format!("{prefix}gidMappings"))?;
    Ok(IdMaps { uids, gids })
}

/// What the kernel takes: not empty, nothing twice on either side, no id beyond the last one.
fn ranges(list: &[LinuxIdMapping], property: &str) -> Result<Vec<IdRange>, CompileError> {
    let invalid = |reason: &str| Err(CompileError::invalid(property, reason));
    if list.is_empty() || list.len() > RANGES_MAX {
        return invalid("must have 1 to 340 elements");
    }
    let mut ranges: Vec<IdRange> = Vec::with_capacity(list.len());
    for one in list {
        let range = IdRange { inside: one.container_id(), outside: one.host_id(), count: one.size() };
        // The last number is no id (setresuid(2)).
        let fits = |first: u32| first.checked_add(range.count).is_some();
        if range.count == 0 || !fits(range.inside) || !fits(range.outside) {
            return invalid("has an element of no or too many ids");
        }
        let overlap = |a: u32, b: u32, length: u32| a < b.saturating_add(length) && b < a.saturating_add(range.count);
        if ranges.iter().any(|known| {
            overlap(range.inside, known.inside, known.count) || overlap(range.outside, known.outside, known.count)
        }) {
            return invalid("maps an id twice");
        }
        ranges.push(range);
    }
    Ok(ranges)
}

impl Writer<'_> {
    /// Everything that comes before the child may make mounts, if it has a user namespace of its own. Namespaces that are
    /// joined by path are joined already: inside it would not be allowed to.
    pub(super) fn users(&mut self, spec: &Spec, process: &Process) -> Result<(), CompileError> {
        self.users = of(spec)?;
        let namespace = match self.users.clone() {
            None => return Ok(()),
            Some(Users::At(path)) => self.need(Descriptor::Namespace { path })?,
            Some(Users::New(maps)) => {
                check_identity(process, &maps)?;
                self.need(Descriptor::UserNamespace { maps })?
            }
        };
        self.users_prelude(process);
        self.steps.extend([Step::VisibleMounts, Step::Join { namespace, kind: Namespaces::USER }]);
        let new = std::mem::take(&mut self.new);
        self.steps.push(if new.contains(Namespaces::PID) {
            Step::Fork { new }
        } else {
            Step::NewNamespaces { kinds: new }
        });
        Ok(())
    }

    /// What only root of the host may.
    pub(super) fn users_prelude(&mut self, process: &Process) {
        if process.oom_score_adj().is_some() {
            self.steps.push(Step::OwnProc);
            self.oom_score(process);
        }
        self.raise_limits(process);
    }

    /// How the files of a bind mount appear, if not as they are.
    pub(super) fn mapped_by(
        &self,
        mount: &Mount,
        asked: bool,
        property: &str,
    ) -> Result<Option<MappedBy>, CompileError> {
        let (uids, gids) = (mount.uid_mappings().as_deref(), mount.gid_mappings().as_deref());
        if uids.is_some() || gids.is_some() {
            return maps(uids, gids, &format!("{property}: ")).map(|maps| Some(MappedBy::Maps(maps)));
        }
        match &self.users {
            _ if !asked => Ok(None),
            Some(Users::New(maps)) => Ok(Some(MappedBy::Maps(maps.clone()))),
            Some(Users::At(path)) => Ok(Some(MappedBy::Namespace(path.clone()))),
            None => {
                Err(CompileError::invalid(property, "has neither id mappings nor a user namespace to take them from"))
            }
        }
    }
}

fn check_identity(process: &Process, maps: &IdMaps) -> Result<(), CompileError> {
    let user = process.user();
    let groups = user.additional_gids().iter().flatten().map(|gid| ("process.user.additionalGids", &maps.gids, *gid));
    let all = [("process.user.uid", &maps.uids, user.uid()), ("process.user.gid", &maps.gids, user.gid())];
    for (property, ranges, id) in all.into_iter().chain(groups) {
        if outside(ranges, id).is_none() {
            return Err(CompileError::invalid(property, format!("{id} is not mapped in the user namespace")));
        }
    }
    Ok(())
}
