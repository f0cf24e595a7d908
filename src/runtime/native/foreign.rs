//! Containers that another OCI runtime runs, by its command line (config.md and runtime.md of the specification).
//!
//! ```text
//! shim ── <runtime> run ── init      in the shim's namespaces, but among a copy of the host's mounts that nobody else has
//!      └─ <runtime> exec             the same, for a command
//! ```
//!
//! To the shim, `run` is the container: its standard streams, its end and its exit status are the container's, and it passes
//! signals on. Its state is kept in the container's directory and goes with that, as the container goes with its group; so
//! there is nothing to delete. What exists only as a descriptor (root file system, shared memory, parts of volumes) is
//! attached below the container's directory in that copy. Invariant: nothing of it is ever mounted on the host.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use oci::cgroup::Group;
use oci::container::compile::{Compiled, Descriptor};
use oci::container::rootfs::Recursive;
use oci::container::{Attributes, Fd, Namespaces, Passing, Program, Script, Step};
use oci_spec::runtime::{Process, Spec};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::failed;
use super::layout::replace;
use super::spec::SHARED_MEMORY;
use crate::{ContainerId, ContainerSpec, PidSharing, RuntimeError, SandboxSpec};

const SIGKILL: i32 = 9;

/// The mount namespace of this process, which is the host's.
const HOST_MOUNTS: &str = "/proc/self/ns/mnt";

/// Where runtimes look for what they call themselves.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A container of another runtime.
#[derive(Debug, Clone, Copy)]
pub(super) struct Foreign<'a> {
    /// The runtime.
    pub(super) program: &'a Path,
    /// The container's directory.
    pub(super) directory: &'a Path,
    pub(super) id: &'a ContainerId,
}

/// Refuses what is done for our own containers by the shim alone.
pub(super) fn check(spec: &SandboxSpec) -> Result<(), RuntimeError> {
    match spec {
        SandboxSpec { user_namespace: Some(_), .. } => refuse("a user namespace"),
        SandboxSpec { pid: PidSharing::Sandbox, .. } => refuse("a shared process namespace"),
        _ => Ok(()),
    }
}

/// As [`check`], for a container. The process that the shim knows of another container is the runtime, which is in the
/// host's process namespace.
pub(super) fn check_container(request: &ContainerSpec) -> Result<(), RuntimeError> {
    match request.processes_of {
        Some(_) => refuse("the processes of another container"),
        None => Ok(()),
    }
}

fn refuse(what: &str) -> Result<(), RuntimeError> {
    Err(RuntimeError::Invalid { message: format!("another runtime cannot be combined with {what}") })
}

impl Foreign<'_> {
    /// The configuration for the runtime: as for our own, with places in the directory for what are descriptors there.
    pub(super) fn configure(
        &self,
        spec: &Spec,
        group: &Group,
        made: &BTreeMap<PathBuf, OwnedFd>,
    ) -> Result<(Value, Vec<(PathBuf, PathBuf)>), RuntimeError> {
        let failed = |error: serde_json::Error| RuntimeError::Invalid { message: error.to_string() };
        let mut config = serde_json::to_value(spec).map_err(failed)?;
        if config["process"]["terminal"] == true {
            return Err(RuntimeError::Invalid { message: "another runtime cannot have a terminal here".to_owned() });
        }
        // Older releases take no other; nothing of a later version is in it.
        config["ociVersion"] = json!("1.0.2");
        config["root"]["path"] = json!(self.rootfs());
        config["linux"]["cgroupsPath"] = json!(Path::new("/").join(group.path()));
        let mut attached = Vec::new();
        for mount in config["mounts"].as_array_mut().into_iter().flatten() {
            let source = PathBuf::from(mount["source"].as_str().unwrap_or_default());
            if source == Path::new(SHARED_MEMORY) || made.contains_key(&source) {
                let place = self.directory.join("mounts").join(attached.len().to_string());
                mount["source"] = json!(place);
                attached.push((source, place));
            }
        }
        Ok((config, attached))
    }

    /// What the shim does for `run`.
    pub(super) fn run(&self, attached: &[(PathBuf, PathBuf)]) -> Result<Compiled, RuntimeError> {
        let mut descriptors = vec![Descriptor::Namespace { path: HOST_MOUNTS.into() }, Descriptor::Rootfs];
        let mut steps = vec![
            Step::Join { namespace: Fd(0), kind: Namespaces::MOUNT },
            Step::NewNamespaces { kinds: Namespaces::MOUNT },
            Step::IsolateMounts,
            Step::NewSession,
            hide_unified(),
            attach(1, &self.rootfs())?,
        ];
        for ((source, place), number) in attached.iter().zip(2_u16..) {
            let path = source.clone();
            descriptors.push(Descriptor::HostPath { path, recursive: Recursive::Yes, shared: false });
            steps.push(attach(number, place)?);
        }
        let bundle = c_string(self.directory.as_os_str().as_bytes())?;
        self.script(steps, descriptors, [c"run".into(), c"--bundle".into(), bundle, self.name()?])
    }

    /// What the shim does for a command in the container. What it is stands in a file whose name follows from that, so that
    /// a command that is run again and again has one.
    pub(super) fn exec(&self, process: &Process) -> Result<Compiled, RuntimeError> {
        let failed = |source: io::Error| failed("record command", source);
        let bytes = serde_json::to_vec(process).map_err(|error| failed(error.into()))?;
        let digest: String = Sha256::digest(&bytes).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let file = self.directory.join(format!("command-{digest}.json"));
        replace(&file, &bytes).map_err(failed)?;
        let file = c_string(file.as_os_str().as_bytes())?;
        let descriptors = vec![Descriptor::Namespace { path: HOST_MOUNTS.into() }];
        let steps = vec![
            Step::Join { namespace: Fd(0), kind: Namespaces::MOUNT },
            Step::NewNamespaces { kinds: Namespaces::MOUNT },
            Step::IsolateMounts,
            Step::NewSession,
            hide_unified(),
        ];
        self.script(steps, descriptors, [c"exec".into(), c"--process".into(), file, self.name()?])
    }

    fn name(&self) -> Result<CString, RuntimeError> {
        c_string(self.id.0.as_bytes())
    }

    fn rootfs(&self) -> PathBuf {
        self.directory.join("rootfs")
    }

    fn script(
        &self,
        mut steps: Vec<Step>,
        descriptors: Vec<Descriptor>,
        arguments: impl IntoIterator<Item = CString>,
    ) -> Result<Compiled, RuntimeError> {
        let path = |path: &Path| c_string(path.as_os_str().as_bytes());
        let (state, log) = (path(&self.directory.join("state"))?, path(&self.directory.join("runtime.log"))?);
        let own = [path(self.program)?, c"--root".into(), state, c"--log".into(), log];
        let args = own.into_iter().chain(arguments).collect();
        steps.push(Step::DieWithParent { signal: SIGKILL });
        let script = Script {
            version: Script::VERSION,
            new: Namespaces::default(),
            pid_namespace: None,
            born_in: None,
            joins: Vec::new(),
            steps,
            program: Program { args, env: vec![c_string(PATH.as_bytes())?] },
        };
        Ok(Compiled { script, descriptors, starter_paths: Vec::new(), warnings: Vec::new() })
    }
}

/// On a hybrid host the containers' groups are those of version 1; crun refuses hosts where version 2 has controllers too.
fn hide_unified() -> Step {
    Step::Mask { path: c"/sys/fs/cgroup/unified/cgroup.controllers".into() }
}

fn attach(number: u16, place: &Path) -> Result<Step, RuntimeError> {
    let target = c_string(place.as_os_str().as_bytes())?;
    Ok(Step::Attach { mount: Fd(number), target, attributes: Attributes::default(), passing: Passing::Private })
}

fn c_string(bytes: &[u8]) -> Result<CString, RuntimeError> {
    let zero = |_| RuntimeError::Invalid { message: "an argument contains a zero byte".to_owned() };
    CString::new(bytes).map_err(zero)
}
