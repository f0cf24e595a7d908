//! (OCI runtime configuration, facts about the host) → script.
//!
//! Pure: what it needs to know of the host is in [`HostFacts`], what it needs from the host is in
//! [`Compiled::descriptors`], to be opened by the caller in that order (see [`open`]). It refuses what the interpreter
//! cannot do, by the name of the property, and never ignores it silently. Limits of control groups are not part of a
//! script: see [`limits`].

mod credentials;
pub mod defaults;
mod devices;
mod facts;
mod limits;
mod mounts;
mod open;
mod supported;
#[cfg(test)]
mod tests;
mod users;

use std::ffi::CString;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType, Process, Spec};

pub use facts::{FactsError, HostFacts};
pub use limits::{device_rules, limits};
pub use open::{OpenError, open, open_with};

use super::rootfs::Recursive;
use super::users::IdMaps;
use super::{Fd, Namespaces, Program, Script, Step};
use crate::protocol::MAX_DESCRIPTORS;
use users::Users;

/// Something that the caller opens and hands over with the script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Descriptor {
    /// The detached mount that becomes the root file system: [`super::rootfs::overlay`].
    Rootfs,
    /// A detached clone of a path of the host: [`super::rootfs::clone_host_path`].
    HostPath {
        /// Which one.
        path: PathBuf,
        /// Whether with the mounts below it.
        recursive: Recursive,
        /// Whether it must pass mounts back to the host: [`super::rootfs::require_shared`].
        shared: bool,
    },
    /// As `HostPath`, with files that appear with other ids: [`super::rootfs::clone_mapped`].
    MappedPath {
        /// Which one.
        path: PathBuf,
        /// Whether with the mounts below it.
        recursive: Recursive,
        /// Whether it must pass mounts back to the host: [`super::rootfs::require_shared`].
        shared: bool,
        /// How they appear.
        by: MappedBy,
        /// Whether that holds for mounts below as well.
        all: bool,
    },
    /// A new user namespace: [`super::users::make`].
    UserNamespace {
        /// Its ids.
        maps: IdMaps,
    },
    /// A namespace, opened for reading.
    Namespace {
        /// Where it is found.
        path: PathBuf,
    },
    /// [`crate::cgroup::Joins::v2`].
    GroupV2,
    /// This element of [`crate::cgroup::Joins::v1`].
    GroupV1(usize),
}

/// What says how ids appear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MappedBy {
    /// These.
    Maps(IdMaps),
    /// The user namespace at this path.
    Namespace(PathBuf),
}

/// A script and what goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// For [`super::start`] or [`super::exec`].
    pub script: Script,
    /// What the script's places mean, in order.
    pub descriptors: Vec<Descriptor>,
    /// What the places after those mean: clones, with everything below, of these paths in the mount namespace of the
    /// process that calls [`super::start`], which opens them itself by [`super::rootfs::clone_host_path`].
    pub starter_paths: Vec<PathBuf>,
    /// What the host cannot do, and what follows from it.
    pub warnings: Vec<String>,
}

impl Compiled {
    /// Lets the program outlive whoever starts it. For starters that end while it runs; see [`Step::DieWithParent`].
    pub fn outlive_parent(&mut self) {
        self.script.steps.retain(|step| !matches!(step, Step::DieWithParent { .. }));
    }

    /// Makes the child wait, when all is prepared, for a byte in a fifo: before the system call filter, which may forbid
    /// to read it, and before capabilities are given up that the filter needs. The fifo's place is the one after all
    /// others.
    pub fn await_start(&mut self) {
        let places = self.descriptors.len() + self.starter_paths.len();
        let fifo = Fd(u16::try_from(places).expect("a configuration has fewer mounts than 65535"));
        let steps = &mut self.script.steps;
        let at = steps.iter().position(|step| matches!(step, Step::Seccomp { .. })).unwrap_or(steps.len());
        steps.insert(at, Step::AwaitStart { fifo });
    }
}

/// Why a configuration cannot become a container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// A property that must be there is absent.
    #[error("{property} is missing")]
    Missing {
        /// Its path in the configuration.
        property: &'static str,
    },
    /// A property has a value that makes no sense.
    #[error("{property}: {reason}")]
    Invalid {
        /// Its path in the configuration.
        property: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A property asks for something that is not provided.
    #[error("{property} is not supported")]
    Unsupported {
        /// Its path in the configuration.
        property: String,
    },
}

impl CompileError {
    fn invalid(property: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { property: property.into(), reason: reason.into() }
    }

    fn unsupported(property: impl Into<String>) -> Self {
        Self::Unsupported { property: property.into() }
    }
}

/// Compiles a container.
///
/// Namespaces that the configuration names without a path are made; those with a path are joined; those that it does
/// not name are the starting process's. It must have mounts of its own.
///
/// # Errors
/// When the configuration is wrong or asks for what is not provided.
pub fn compile(spec: &Spec, host: &HostFacts) -> Result<Compiled, CompileError> {
    supported::check(spec)?;
    let process = spec.process().as_ref().ok_or(CompileError::Missing { property: "process" })?;
    let linux = spec.linux().as_ref().ok_or(CompileError::Missing { property: "linux" })?;
    let mut writer = Writer::new(host);
    writer.namespaces(spec)?;
    writer.users(spec, process)?;
    writer.steps.extend([Step::NewSession, Step::IsolateMounts]);
    let mount = writer.need(Descriptor::Rootfs)?;
    writer.steps.push(Step::Root { mount });
    writer.host_names(spec)?;
    writer.mounts(spec)?;
    writer.devices(spec)?;
    writer.terminal(process, true)?;
    writer.directory(process.cwd(), "process.cwd")?;
    writer.groups()?;
    writer.steps.extend([Step::JoinGroups, Step::OwnNullDevice]);
    if let Some(step) = writer.cgroup_namespace.take() {
        writer.steps.push(step);
    }
    writer.cgroup_mounts(spec)?;
    writer.sysctls(spec)?;
    if writer.users.is_none() {
        writer.oom_score(process);
    }
    writer.hidden_paths(linux)?;
    if spec.root().as_ref().is_some_and(|root| root.readonly().unwrap_or(false)) {
        writer.steps.push(Step::ReadOnlyRoot);
    }
    writer.steps.push(Step::Pivot);
    writer.identity(process, linux.seccomp().as_ref())?;
    writer.finish(process)
}

/// Compiles a further process of a running container that was made of `spec`: its namespaces, groups and filter are
/// those of the container, everything else is said by `process`.
///
/// # Errors
/// When the process is wrong or asks for what is not provided.
pub fn compile_exec(spec: &Spec, process: &Process, host: &HostFacts) -> Result<Compiled, CompileError> {
    supported::check_process(process)?;
    let mut writer = Writer::new(host);
    let mut kinds =
        Namespaces::MOUNT.with(Namespaces::CGROUP).with(Namespaces::UTS).with(Namespaces::IPC).with(Namespaces::NET);
    writer.users = users::of(spec)?;
    if writer.users.is_some() {
        kinds = kinds.with(Namespaces::USER);
        writer.users_prelude(process);
    }
    writer.steps.extend([Step::JoinTarget { kinds }, Step::NewSession]);
    writer.terminal(process, false)?;
    writer.groups()?;
    writer.steps.extend([Step::JoinGroups, Step::OwnNullDevice]);
    if writer.users.is_none() {
        writer.oom_score(process);
    }
    let seccomp = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    writer.identity(process, seccomp)?;
    writer.finish(process)
}

const STARTER_BASE: u16 = 0x8000;

/// Most descriptors of a script: what one message of the protocol takes, less room for what a request has beside them.
const DESCRIPTORS: usize = MAX_DESCRIPTORS - 10;

/// A script in the making.
struct Writer<'h> {
    host: &'h HostFacts,
    new: Namespaces,
    /// The user namespace, if it is not the starting process's.
    users: Option<Users>,
    pid_namespace: Option<Fd>,
    /// Whether there is a new UTS namespace.
    own_names: bool,
    /// What takes place once the process is in its groups.
    cgroup_namespace: Option<Step>,
    born_in: Option<Fd>,
    joins: Vec<Fd>,
    steps: Vec<Step>,
    descriptors: Vec<Descriptor>,
    starter_paths: Vec<PathBuf>,
    warnings: Vec<String>,
}

impl<'h> Writer<'h> {
    fn new(host: &'h HostFacts) -> Self {
        Self {
            host,
            new: Namespaces::default(),
            users: None,
            pid_namespace: None,
            own_names: false,
            cgroup_namespace: None,
            born_in: None,
            joins: Vec::new(),
            steps: Vec::new(),
            descriptors: Vec::new(),
            starter_paths: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// The place of a descriptor that the caller will open.
    fn need(&mut self, descriptor: Descriptor) -> Result<Fd, CompileError> {
        let index = self.next_place(self.descriptors.len())?;
        self.descriptors.push(descriptor);
        Ok(Fd(index))
    }

    /// The place of a descriptor that the starting process will open: counted from [`STARTER_BASE`] until it is known how
    /// many descriptors there are.
    fn need_from_starter(&mut self, path: PathBuf) -> Result<Fd, CompileError> {
        let index = self.next_place(self.starter_paths.len())?;
        self.starter_paths.push(path);
        Ok(Fd(STARTER_BASE + index))
    }

    fn next_place(&self, index: usize) -> Result<u16, CompileError> {
        let given = self.descriptors.len() + self.starter_paths.len();
        let place = u16::try_from(index).ok().filter(|_| given < DESCRIPTORS);
        let reason = || format!("with namespaces and devices need more than {DESCRIPTORS} descriptors");
        place.ok_or_else(|| CompileError::invalid("mounts", reason()))
    }

    /// Moves the places of the starting process's descriptors to behind all others.
    fn settle_starter_paths(&mut self) {
        let first = u16::try_from(self.descriptors.len()).expect("there are at most DESCRIPTORS");
        for step in &mut self.steps {
            if let Step::Attach { mount, .. } = step
                && mount.0 >= STARTER_BASE
            {
                mount.0 = mount.0 - STARTER_BASE + first;
            }
        }
    }

    fn namespaces(&mut self, spec: &Spec) -> Result<(), CompileError> {
        let listed = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
        let mut seen = Namespaces::default();
        for namespace in listed.into_iter().flatten() {
            let kind = kind_of(namespace.typ())?;
            if seen.contains(kind) {
                // The specification demands this error (config-linux.md, "Namespaces").
                let reason = format!("has {} twice", namespace.typ());
                return Err(CompileError::invalid("linux.namespaces", reason));
            }
            seen = seen.with(kind);
            match namespace.path() {
                // Joined last of all: see `users`.
                _ if kind == Namespaces::USER => {}
                None if kind == Namespaces::CGROUP => self.cgroup_namespace = Some(Step::NewCgroupNamespace),
                None => self.new = self.new.with(kind),
                Some(_) if kind == Namespaces::MOUNT => {
                    return Err(CompileError::unsupported("linux.namespaces: path of a mount namespace"));
                }
                Some(path) => self.joined_namespace(kind, path)?,
            }
        }
        self.own_names = self.new.contains(Namespaces::UTS);
        if self.new.contains(Namespaces::MOUNT) {
            Ok(())
        } else {
            Err(CompileError::invalid("linux.namespaces", "a container needs a mount namespace of its own"))
        }
    }

    fn joined_namespace(&mut self, kind: Namespaces, path: &Path) -> Result<(), CompileError> {
        let namespace = self.need(Descriptor::Namespace { path: path.to_owned() })?;
        match kind {
            Namespaces::PID => self.pid_namespace = Some(namespace),
            Namespaces::CGROUP => self.cgroup_namespace = Some(Step::Join { namespace, kind }),
            _ => self.steps.push(Step::Join { namespace, kind }),
        }
        Ok(())
    }

    fn host_names(&mut self, spec: &Spec) -> Result<(), CompileError> {
        let own = self.own_names;
        let names = [("hostname", spec.hostname()), ("domainname", spec.domainname())];
        for (property, name) in names {
            let Some(name) = name.as_ref().filter(|name| !name.is_empty()) else { continue };
            if !own {
                return Err(CompileError::invalid(property, "cannot be set without a UTS namespace of its own"));
            }
            let name = name.as_bytes().to_vec();
            self.steps.push(if property == "hostname" { Step::HostName { name } } else { Step::DomainName { name } });
        }
        Ok(())
    }

    /// Descriptors of the groups. The v1 ones are joined after the mounts, so that a small share of processor time does
    /// not slow those down.
    fn groups(&mut self) -> Result<(), CompileError> {
        if self.host.cgroups.v2.is_some() {
            self.born_in = Some(self.need(Descriptor::GroupV2)?);
        }
        for index in 0..self.host.cgroups.used_v1().count() {
            let fd = self.need(Descriptor::GroupV1(index))?;
            self.joins.push(fd);
        }
        Ok(())
    }

    /// Of the size of a terminal that there is not the specification says: to be ignored (config.md, "Process").
    fn terminal(&mut self, process: &Process, bind_console: bool) -> Result<(), CompileError> {
        if !process.terminal().unwrap_or(false) {
            return Ok(());
        }
        let number = |value: u64| {
            let too_large = |_| CompileError::invalid("process.consoleSize", format!("{value} is more than 65535"));
            u16::try_from(value).map_err(too_large)
        };
        let asked = process.console_size();
        let size = asked.map(|size| Ok((number(size.height())?, number(size.width())?))).transpose()?;
        self.steps.push(Step::Terminal { bind_console, uid: process.user().uid(), size });
        Ok(())
    }

    fn directory(&mut self, path: &Path, property: &str) -> Result<(), CompileError> {
        if path != Path::new("/") {
            let path = absolute(path, property)?;
            self.steps.push(Step::Directory { path, mode: 0o755 });
        }
        Ok(())
    }

    fn sysctls(&mut self, spec: &Spec) -> Result<(), CompileError> {
        let Some(sysctls) = spec.linux().as_ref().and_then(|linux| linux.sysctl().as_ref()) else { return Ok(()) };
        let listed: Vec<LinuxNamespaceType> = spec
            .linux()
            .iter()
            .flat_map(|linux| linux.namespaces().iter().flatten())
            .map(|namespace| namespace.typ())
            .collect();
        let mut sorted: Vec<_> = sysctls.iter().collect();
        sorted.sort();
        for (name, value) in sorted {
            // As sysctl(8): whichever of dot and slash comes first separates.
            let slashes = name.find(['.', '/']).is_some_and(|at| name.as_bytes()[at] == b'/');
            let path = if slashes { name.clone() } else { name.replace('.', "/") };
            supported::check_sysctl(&path, &listed)?;
            // The file belongs to root of the host, whose name it is; the call asks whose namespace it is.
            if self.users.is_some() && path == "kernel/domainname" {
                self.steps.push(Step::DomainName { name: value.clone().into_bytes() });
                continue;
            }
            let path = c_string(path, "linux.sysctl")?;
            self.steps.push(Step::Sysctl { path, value: value.clone().into_bytes() });
        }
        Ok(())
    }

    fn oom_score(&mut self, process: &Process) {
        if let Some(value) = process.oom_score_adj() {
            self.steps.push(Step::OomScore { value });
        }
    }

    fn finish(mut self, process: &Process) -> Result<Compiled, CompileError> {
        let args = process.args().as_ref().filter(|args| !args.is_empty());
        let args = args.ok_or(CompileError::Missing { property: "process.args" })?;
        let strings = |list: &[String], property| -> Result<Vec<CString>, CompileError> {
            list.iter().map(|string| c_string(string.as_str(), property)).collect()
        };
        let program = Program {
            args: strings(args, "process.args")?,
            env: strings(process.env().as_deref().unwrap_or_default(), "process.env")?,
        };
        self.settle_starter_paths();
        let script = Script {
            version: Script::VERSION,
            new: self.new,
            pid_namespace: self.pid_namespace,
            born_in: self.born_in,
            joins: self.joins,
            steps: self.steps,
            program,
        };
        let Self { descriptors, starter_paths, warnings, .. } = self;
        Ok(Compiled { script, descriptors, starter_paths, warnings })
    }
}

fn kind_of(kind: LinuxNamespaceType) -> Result<Namespaces, CompileError> {
    match kind {
        LinuxNamespaceType::Mount => Ok(Namespaces::MOUNT),
        LinuxNamespaceType::Cgroup => Ok(Namespaces::CGROUP),
        LinuxNamespaceType::Uts => Ok(Namespaces::UTS),
        LinuxNamespaceType::Ipc => Ok(Namespaces::IPC),
        LinuxNamespaceType::Pid => Ok(Namespaces::PID),
        LinuxNamespaceType::Network => Ok(Namespaces::NET),
        LinuxNamespaceType::User => Ok(Namespaces::USER),
        LinuxNamespaceType::Time => Err(CompileError::unsupported(format!("linux.namespaces: {kind}"))),
    }
}

fn c_string(string: impl Into<Vec<u8>>, property: &str) -> Result<CString, CompileError> {
    CString::new(string).map_err(|_| CompileError::invalid(property, "contains a zero byte"))
}

/// A path of the container. It need not be clean: the child resolves it below the root, whatever it says.
fn absolute(path: &Path, property: &str) -> Result<CString, CompileError> {
    use std::os::unix::ffi::OsStrExt as _;
    if path.is_absolute() {
        c_string(path.as_os_str().as_bytes(), property)
    } else {
        Err(CompileError::invalid(property, format!("{} is not an absolute path", path.display())))
    }
}
