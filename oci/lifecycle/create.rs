//! The operations `create` and `start`, and both in one.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use super::record::{CONFIG, FIFO, began, read_configuration};
use super::{Containers, LifecycleError, Record, Status};
use crate::cgroup::{DeviceRule, Group, Warning};
use crate::container::compile::{CompileError, Compiled, HostFacts, compile, device_rules, limits, open};
use crate::container::rootfs::{Recursive, clone_host_path};
use crate::container::{Launch, Started, Stdio, begin};

/// When a container's program begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// At once.
    Now,
    /// With [`Containers::start`].
    Told,
}

/// A container that is to be made.
#[derive(Debug, Clone, Copy)]
pub struct Create<'a> {
    /// Its name.
    pub id: &'a str,
    /// The directory with its `config.json`.
    pub bundle: &'a Path,
    /// When its program begins.
    pub when: When,
    /// Its standard streams, unless it has a terminal.
    pub stdio: Stdio<'a>,
}

/// A container that was made.
#[derive(Debug)]
pub struct Created {
    /// Its first process, a child of the caller.
    pub process: Started,
    /// What the host cannot do, and what follows from it.
    pub warnings: Vec<String>,
}

impl Containers {
    /// Makes a container.
    ///
    /// # Errors
    /// When its name is taken, its configuration cannot be had, or the kernel refuses something. Nothing is left then.
    pub fn create(&self, order: &Create<'_>) -> Result<Created, LifecycleError> {
        let bundle = fs::canonicalize(order.bundle)
            .map_err(|source| LifecycleError::file("find the bundle", order.bundle, source))?;
        let directory = self.directory(order.id)?;
        let file = bundle.join(CONFIG);
        let mut spec = read_configuration(&file)?;
        check_version(&spec)?;
        resolve_sources(&mut spec, &bundle);
        let host = HostFacts::detect()?;
        let refused = |source| LifecycleError::Compile { path: file.clone(), source };
        let mut compiled = compile(&spec, &host).map_err(refused)?;
        compiled.outlive_parent();
        let group = Group::new(&host.cgroups, &group_path(&spec, order.id))?;
        let rootfs = rootfs_of(&spec, &bundle)?;
        let mut half = HalfMade::begin(self, order.id, directory)?;
        fs::copy(&file, half.directory.join(CONFIG)).map_err(|source| LifecycleError::file("copy", &file, source))?;
        let mut record = Record {
            oci_version: spec.version().clone(),
            id: order.id.to_owned(),
            pid: 0,
            began: 0,
            bundle,
            rootfs,
            group: group.path().to_owned(),
            shares_group: group.exists(),
            own_processes: has_own_processes(&spec),
            created: wall_nanos(),
            annotations: spec.annotations().clone().unwrap_or_default(),
        };
        // Before the group is made: whoever finds a container half made must know what to remove.
        record.write(&half.directory)?;
        let mut warnings = std::mem::take(&mut compiled.warnings);
        half.group = (!record.shares_group).then(|| group.clone());
        warnings.extend(limit(&group, &spec, refused)?);
        let process = launch(order, compiled, &group, &mut record, &half.directory)?;
        half.is_whole = true;
        Ok(Created { process, warnings })
    }

    /// Gives the word to a container that waits for it.
    ///
    /// # Errors
    /// When it does not exist or is in another state.
    pub fn start(&self, id: &str) -> Result<(), LifecycleError> {
        let record = self.record(id)?;
        let wrong = |status| LifecycleError::Status { operation: "start", id: id.to_owned(), status };
        let status = self.status(&record)?;
        if status != Status::Created {
            return Err(wrong(status));
        }
        let path = self.directory(id)?.join(FIFO);
        // Without somebody who reads, which is the container's first process, this fails with ENXIO.
        let fifo = match OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&path) {
            Ok(fifo) => fifo,
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => return Err(wrong(Status::Stopped)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(wrong(Status::Running)),
            Err(source) => return Err(LifecycleError::file("open", &path, source)),
        };
        // Whoever removes it is the one that starts the container, so that of two one is told that it came late.
        match rustix::fs::unlink(&path) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Err(wrong(Status::Running)),
            Err(errno) => return Err(LifecycleError::file("remove", &path, errno)),
        }
        rustix::io::write(&fifo, &[1]).map_err(|errno| LifecycleError::file("write to", &path, errno)).map(drop)
    }
}

/// What there is of a container before it is made; removed when dropped.
struct HalfMade {
    directory: PathBuf,
    /// Its group, if there was none before.
    group: Option<Group>,
    is_whole: bool,
}

impl HalfMade {
    fn begin(containers: &Containers, id: &str, directory: PathBuf) -> Result<Self, LifecycleError> {
        let failed = |source| LifecycleError::file("create", &directory, source);
        let mut private = DirBuilder::new();
        private.mode(0o700);
        let made = match private.create(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                private.recursive(true).create(&containers.root).map_err(failed)?;
                private.recursive(false).create(&directory)
            }
            result => result,
        };
        match made {
            Ok(()) => Ok(Self { directory, group: None, is_whole: false }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(LifecycleError::Exists { id: id.to_owned() })
            }
            Err(source) => Err(failed(source)),
        }
    }
}

impl Drop for HalfMade {
    fn drop(&mut self) {
        if self.is_whole {
            return;
        }
        // The error that led here is the one to be told; what cannot be removed is found by `delete`.
        if let Some(group) = &self.group {
            let _ = group.remove();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Starts the child, lets its id be recorded while it does its mounts, and waits until it is ready.
fn launch(
    order: &Create<'_>,
    mut compiled: Compiled,
    group: &Group,
    record: &mut Record,
    directory: &Path,
) -> Result<Started, LifecycleError> {
    let rootfs = clone_host_path(&record.rootfs, Recursive::Yes)?;
    let mut owned = open(&compiled.descriptors, Some(rootfs), &group.open_joins()?)?;
    for path in &compiled.starter_paths {
        owned.push(clone_host_path(path, Recursive::Yes)?);
    }
    if order.when == When::Told {
        owned.push(make_fifo(&directory.join(FIFO))?);
        compiled.await_start();
    }
    let fds: Vec<BorrowedFd<'_>> = owned.iter().map(|descriptor| descriptor.as_fd()).collect();
    let failed = |error| LifecycleError::start(&error, &compiled.script);
    let starting = begin(&Launch { script: &compiled.script, fds: &fds, stdio: order.stdio }).map_err(failed)?;
    record.pid = starting.pid();
    record.began = began_of_child(record.pid)?;
    record.write(directory)?;
    starting.finish().map_err(failed)
}

/// Opened for both, so that neither end waits for the other and the reader never meets an end.
fn make_fifo(path: &Path) -> Result<OwnedFd, LifecycleError> {
    let made = mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0);
    made.map_err(|errno| LifecycleError::file("create", path, errno))?;
    let opened = OpenOptions::new().read(true).write(true).open(path);
    opened.map(OwnedFd::from).map_err(|source| LifecycleError::file("open", path, source))
}

/// The child has not been reaped, so it has an entry even if it has ended.
fn began_of_child(pid: i32) -> Result<u64, LifecycleError> {
    let path = Path::new("/proc").join(pid.to_string());
    let found = began(pid).map_err(|source| LifecycleError::file("examine", &path, source))?;
    found.ok_or_else(|| LifecycleError::file("examine", &path, Errno::SRCH))
}

fn check_version(spec: &Spec) -> Result<(), LifecycleError> {
    let mut numbers = spec.version().split('.');
    match (numbers.next(), numbers.next()) {
        (Some("1"), Some(minor)) if minor.parse::<u32>().is_ok() => Ok(()),
        _ => Err(LifecycleError::Version { version: spec.version().clone() }),
    }
}

/// A relative path is taken below the root of the hierarchies like an absolute one; without a path it is ours to say
/// (config-linux.md, "Cgroups Path").
fn group_path(spec: &Spec, id: &str) -> PathBuf {
    let asked = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_ref());
    let path = asked.map(|path| path.strip_prefix("/").unwrap_or(path)).filter(|path| !path.as_os_str().is_empty());
    path.map_or_else(|| PathBuf::from(format!("coracle-oci-{id}")), Path::to_owned)
}

/// A relative source of a bind mount is below the bundle (config.md, "Mounts").
fn resolve_sources(spec: &mut Spec, bundle: &Path) {
    let Some(mut mounts) = spec.mounts().clone() else { return };
    for mount in &mut mounts {
        let is_bind = mount.typ().as_deref() == Some("bind")
            || mount.options().iter().flatten().any(|option| matches!(option.as_str(), "bind" | "rbind"));
        if let Some(source) = mount.source().clone().filter(|source| is_bind && source.is_relative()) {
            mount.set_source(Some(bundle.join(source)));
        }
    }
    spec.set_mounts(Some(mounts));
}

/// The path below the bundle; the kernel follows links in it once, when it is opened.
fn rootfs_of(spec: &Spec, bundle: &Path) -> Result<PathBuf, LifecycleError> {
    let root = spec.root().as_ref().ok_or_else(|| LifecycleError::Compile {
        path: bundle.join(CONFIG),
        source: CompileError::Missing { property: "root" },
    })?;
    Ok(bundle.join(root.path()))
}

/// Whether the container has a process namespace that it shares with nobody.
fn has_own_processes(spec: &Spec) -> bool {
    let listed = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    listed.is_some_and(|list| {
        list.iter().any(|namespace| namespace.typ() == LinuxNamespaceType::Pid && namespace.path().is_none())
    })
}

/// Creates the group with the limits and device rules of the configuration.
fn limit(
    group: &Group,
    spec: &Spec,
    refused: impl Fn(CompileError) -> LifecycleError,
) -> Result<Vec<String>, LifecycleError> {
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let wanted = resources.map(limits).transpose().map_err(&refused)?;
    let mut rules = resources.map(device_rules).transpose().map_err(&refused)?.unwrap_or_default();
    group.create()?;
    let mut warnings = Vec::new();
    if let Some(wanted) = wanted {
        warnings.extend(group.apply(&wanted)?);
        // A host may lack a controller; a value that the kernel does not take is the configuration's fault (runtime.md,
        // "Lifecycle": an error of create).
        if let Some(warning) = warnings.iter().find(|warning| matches!(warning, Warning::Refused { .. })) {
            return Err(LifecycleError::Limit { warning: warning.clone() });
        }
    }
    if !rules.is_empty() {
        // What every container may use cannot be taken from it (as runc does); the first of these forbids everything.
        rules.extend(DeviceRule::defaults().into_iter().filter(|rule| rule.allow));
        warnings.extend(group.restrict_devices(&rules)?);
    }
    Ok(warnings.iter().map(ToString::to_string).collect())
}

fn wall_nanos() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    let seconds = Duration::from_secs(u64::try_from(now.tv_sec).unwrap_or_default());
    let whole = seconds + Duration::from_nanos(u64::try_from(now.tv_nsec).unwrap_or_default());
    u64::try_from(whole.as_nanos()).unwrap_or(u64::MAX)
}
