//! From a container's specification to a running command, and the signal that ends it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci::cgroup::{DeviceKind, DeviceRule, Group};
use oci::container::compile::{CompileError, Compiled, Descriptor, compile, open_with};
use oci::container::rootfs::{Overlay, overlay, overlay_mapped};
use oci::protocol::{Limits, LogOptions, Reply, Request, Role, RunState, Start};
use oci_spec::runtime::Spec;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::create::is_plain_name;
use super::foreign::{self, Foreign};
use super::layout::{CONFIG, CONTAINER, ContainerStarted, make_private, write_json};
use super::sandbox::{Known, Sandbox};
use super::spec::{Filter, SHARED_MEMORY, SHARED_PROCESSES, Surroundings, runtime_spec};
use super::user_namespace::{UserNamespace, check_identity};
use super::users::{Databases, Identity};
use super::{Node, failed, groups, parts, remove};
use crate::{
    ContainerId, ContainerSpec, Image, ImageId, LinuxUser, MountSource, RuntimeError, SandboxId, Seccomp, Stop,
};

/// What a container writes to its root file system, in its directory.
pub(super) const LAYER: &str = "upper";

/// Everything that the shim needs to start a container.
struct Prepared {
    started: ContainerStarted,
    start: Start,
    descriptors: Vec<OwnedFd>,
}

/// The images of a container.
struct Used {
    own: Image,
    mounted: BTreeMap<ImageId, Image>,
}

/// Starts a container, or finds it started.
pub(super) async fn start(node: Arc<Node>, id: SandboxId, spec: ContainerSpec) -> Result<(), RuntimeError> {
    let sandbox = node.find(&id)?;
    let _turn = sandbox.turn().await;
    sandbox.live()?;
    if sandbox.container(&spec.id).is_some() {
        return Ok(());
    }
    validate(&spec)?;
    let mut images = Used { own: find_image(&node, &spec.image).await?, mounted: BTreeMap::new() };
    for mount in &spec.mounts {
        if let MountSource::Image(id) = &mount.source {
            images.mounted.insert(id.clone(), find_image(&node, id).await?);
        }
    }
    let (container, command) = (spec.id.clone(), spec.args.first().cloned().unwrap_or_default());
    let result = match prepared(&node, &sandbox, spec, images).await {
        Ok(prepared) => run(&node, &sandbox, prepared, &command).await,
        Err(error) => Err(error),
    };
    match result {
        Ok(known) => sandbox.learn(known),
        Err(error) => {
            undo(&node, &sandbox, container).await;
            return Err(error);
        }
    }
    node.changed(&id);
    Ok(())
}

fn validate(spec: &ContainerSpec) -> Result<(), RuntimeError> {
    let invalid = |message: &str| Err(RuntimeError::Invalid { message: message.to_owned() });
    if !is_plain_name(&spec.id.0) || !is_plain_name(&spec.name) {
        return invalid("the container's identity or name is no file name");
    }
    if spec.args.is_empty() {
        return invalid("no command specified");
    }
    Ok(())
}

async fn find_image(node: &Node, id: &ImageId) -> Result<Image, RuntimeError> {
    let found = node.images.find(&id.0).await;
    let found = found.map_err(|error| failed("find image", io::Error::other(error)))?;
    found.ok_or_else(|| RuntimeError::NoImage { image: id.clone() })
}

async fn prepared(
    node: &Arc<Node>,
    sandbox: &Arc<Sandbox>,
    spec: ContainerSpec,
    images: Used,
) -> Result<Prepared, RuntimeError> {
    let (node, sandbox) = (Arc::clone(node), Arc::clone(sandbox));
    task::blocking(move || prepare(&node, &sandbox, &spec, &images)).await
}

async fn run(node: &Node, sandbox: &Sandbox, prepared: Prepared, command: &str) -> Result<Known, RuntimeError> {
    let Prepared { started, start, descriptors } = prepared;
    let asked = sandbox.ask(Request::Start(Box::new(start)), descriptors);
    let reply = match tokio::time::timeout(node.start_deadline, asked).await {
        Ok(reply) => reply?,
        Err(_) => return Err(give_up(sandbox, &started.id).await),
    };
    match reply {
        Reply::Started { container: record, warnings } => {
            for warning in warnings {
                let error = io::Error::from_raw_os_error(warning.errno);
                tracing::warn!(container = %started.id, step = warning.step, error = %error, "container goes without");
            }
            Ok(Known { started, record })
        }
        Reply::Failed(failure) => Err(sandbox.error(failure, &started.id, command)),
        other => Err(sandbox.protocol_error(&other)),
    }
}

/// Ends a start that takes too long: a mount, or a file system in one, does not answer. The process that waits for it is
/// killed, and ends when the kernel lets it.
async fn give_up(sandbox: &Sandbox, container: &ContainerId) -> RuntimeError {
    let request = Request::Stop { container: container.0.clone(), signal: 0, grace_ms: 0 };
    match sandbox.ask(request, Vec::new()).await {
        Ok(_) => failed("start container", io::Error::from(io::ErrorKind::TimedOut)),
        Err(error) => error,
    }
}

/// Removes what was prepared for a container that did not start. What stays is removed with the sandbox.
async fn undo(node: &Arc<Node>, sandbox: &Arc<Sandbox>, container: ContainerId) {
    let (inner, sandbox) = (Arc::clone(node), Arc::clone(sandbox));
    let undone = task::blocking(move || remove::container_leftovers(&inner, &sandbox, &container));
    if let Err(error) = undone.await {
        tracing::warn!(error = %error, "cannot undo the start of a container");
    }
}

/// Does everything up to the shim: records, group, root file system, script, descriptors.
fn prepare(node: &Node, sandbox: &Sandbox, request: &ContainerSpec, images: &Used) -> Result<Prepared, RuntimeError> {
    // A start that an earlier agent did not finish.
    remove::container_leftovers(node, sandbox, &request.id)?;
    let directory = node.layout.container(sandbox.id(), &request.id);
    make_private(&directory).map_err(|source| failed("create container directory", source))?;
    let mut started = record(node, sandbox, request);
    write_json(&directory.join(CONTAINER), &started).map_err(|source| failed("record container", source))?;
    let group = groups::container(&node.host.cgroups, &sandbox.record.spec, &request.id)?;
    groups::create_container(node, &group, &request.resources)?;
    restrict_devices(&group, request)?;
    let users = UserNamespace::of(sandbox)?;
    let made = parts::make(request, &images.mounted, users.as_ref())?;
    let rootfs = mount(&directory, &images.own, users.as_ref())?;
    let identity = identify(sandbox, request, &rootfs)?;
    let spec = configure(node, sandbox, request, &group, &identity)?;
    started.user = Some(LinuxUser { uid: identity.uid, gid: identity.gid, groups: identity.groups });
    write_json(&directory.join(CONTAINER), &started).map_err(|source| failed("record container", source))?;
    let mut compiled = match node.other_runtime(&sandbox.record.spec)? {
        Some(program) => {
            foreign::check_container(request)?;
            let foreign = Foreign { program, directory: &directory, id: &request.id };
            let (config, attached) = foreign.configure(&spec, &group, &made)?;
            write_json(&directory.join(CONFIG), &config).map_err(|source| failed("record container", source))?;
            foreign.run(&attached)?
        }
        None => {
            write_json(&directory.join(CONFIG), &spec).map_err(|source| failed("record container", source))?;
            compile(&spec, &node.host).map_err(|error| compile_failed(&error))?
        }
    };
    if let Some(users) = &users {
        users.insert(&mut compiled.descriptors);
    }
    for warning in &compiled.warnings {
        tracing::warn!(container = %request.id, warning, "container goes without");
    }
    let log_directory = log_directory(&started.log_path)?;
    let (script_descriptors, [shared_memory, processes]) = descriptors(&compiled, rootfs, made, &group)?;
    // What has been opened by a number is its owner's as long as that has not ended.
    request.processes_of.as_ref().map(|other| processes_of(sandbox, other)).transpose()?;
    let mut all: Vec<(Role, OwnedFd)> = script_descriptors.into_iter().map(|file| (Role::Script, file)).collect();
    all.push((Role::LogDirectory, log_directory));
    all.extend(groups::watched(&node.host.cgroups, &group));
    let (roles, descriptors) = all.into_iter().unzip();
    let log = LogOptions {
        name: format!("{}.log", request.attempt),
        limits: Limits { max_size: node.logs.max_size, max_files: node.logs.max_files },
    };
    let script = compiled.script.to_bytes().map_err(|error| failed("write script", io::Error::other(error)))?;
    let start =
        Start { container: request.id.0.clone(), script, roles, shared_memory, log, stdin: request.stdin, processes };
    Ok(Prepared { started, start, descriptors })
}

fn record(node: &Node, sandbox: &Sandbox, request: &ContainerSpec) -> ContainerStarted {
    let directory = sandbox.record.spec.log_directory.join(&request.name);
    ContainerStarted {
        id: request.id.clone(),
        name: request.name.clone(),
        attempt: request.attempt,
        image: request.image.clone(),
        image_reference: request.image_reference.clone(),
        labels: request.labels.clone(),
        log_path: directory.join(format!("{}.log", request.attempt)),
        user: None,
        created_at: node.clock.now(),
    }
}

/// Privileged containers may use all devices, others the ones that every container has.
fn restrict_devices(group: &Group, request: &ContainerSpec) -> Result<(), RuntimeError> {
    let rules = if request.privileges.privileged {
        vec![DeviceRule { allow: true, kind: DeviceKind::All, major: None, minor: None, access: "rwm".to_owned() }]
    } else {
        DeviceRule::defaults()
    };
    for warning in group.restrict_devices(&rules).map_err(groups::cgroup_failed)? {
        tracing::debug!(container = %request.id, %warning, "devices are not restricted");
    }
    Ok(())
}

/// The root file system, attached nowhere.
fn mount(directory: &Path, image: &Image, users: Option<&UserNamespace>) -> Result<OwnedFd, RuntimeError> {
    if image.layers.is_empty() {
        return Err(RuntimeError::Invalid { message: format!("image {} has no layers", image.id) });
    }
    let (upper, work) = (directory.join(LAYER), directory.join("work"));
    let wanted = Overlay { lower: &image.layers, upper: &upper, work: &work, volatile: true };
    let mounted = match users {
        Some(users) => overlay_mapped(&wanted, users.descriptor.as_fd(), users.root()),
        None => overlay(&wanted),
    };
    mounted.map_err(|error| failed("mount root file system", io::Error::other(error)))
}

/// Who the container is, by the files of its image.
fn identify(sandbox: &Sandbox, request: &ContainerSpec, rootfs: &OwnedFd) -> Result<Identity, RuntimeError> {
    let databases = Databases::read(rootfs.as_fd());
    let databases = databases.map_err(|source| failed("read the image's users", source))?;
    let identity = databases.resolve(&request.user)?;
    if let Some(range) = sandbox.record.spec.user_namespace {
        check_identity(&identity, range)?;
    }
    Ok(identity)
}

fn configure(
    node: &Node,
    sandbox: &Sandbox,
    request: &ContainerSpec,
    group: &Group,
    identity: &Identity,
) -> Result<Spec, RuntimeError> {
    let uname = rustix::system::uname();
    let around = Surroundings {
        sandbox: &sandbox.record.spec,
        identity,
        host_name: &uname.nodename().to_string_lossy(),
        cgroup: group.path(),
        all_capabilities: &all_capabilities(node.host.capabilities),
        filter: filter(request)?,
        devices: if request.privileges.privileged { super::devices::of_host() } else { Vec::new() },
        processes: request.processes_of.as_ref().map(|other| processes_of(sandbox, other)).transpose()?,
    };
    runtime_spec(request, &around)
}

/// The process namespace of a container that runs.
fn processes_of(sandbox: &Sandbox, other: &ContainerId) -> Result<PathBuf, RuntimeError> {
    let known = sandbox.container(other).ok_or_else(|| RuntimeError::NoContainer { container: other.clone() })?;
    match known.record.state {
        RunState::Running { pid } => Ok(PathBuf::from(format!("/proc/{pid}/ns/pid"))),
        RunState::Exited { .. } => Err(RuntimeError::NoContainer { container: other.clone() }),
    }
}

/// Names of the capabilities in a set of bits.
fn all_capabilities(bits: u64) -> Vec<String> {
    let held = |capability: &caps::Capability| bits & capability.bitmask() != 0;
    caps::all().into_iter().filter(held).map(|capability| capability.to_string()).collect()
}

/// The filter that the request means.
fn filter(request: &ContainerSpec) -> Result<Filter, RuntimeError> {
    if request.privileges.privileged {
        return Ok(Filter::Nothing);
    }
    match &request.privileges.seccomp {
        Seccomp::Unconfined => Ok(Filter::Nothing),
        Seccomp::RuntimeDefault => Ok(Filter::Default),
        Seccomp::Localhost(path) => {
            let failed = |source| RuntimeError::SeccompProfile { profile: path.clone(), source };
            let bytes = std::fs::read(path).map_err(failed)?;
            serde_json::from_slice(&bytes).map(Filter::Profile).map_err(|error| failed(error.into()))
        }
    }
}

fn compile_failed(error: &CompileError) -> RuntimeError {
    RuntimeError::Invalid { message: error.to_string() }
}

/// Creates the log, and opens its directory; readable by others, as upstream.
fn log_directory(log: &Path) -> Result<OwnedFd, RuntimeError> {
    let directory = log.parent().unwrap_or(Path::new("/"));
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o755).create(directory).map_err(|source| failed("create log directory", source))?;
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory, flags, Mode::empty());
    let directory = directory.map_err(|errno| failed("open log directory", errno))?;
    create_log(&directory, log).map_err(|errno| failed("create log", errno))?;
    Ok(directory)
}

/// An empty log is there even if nothing is ever written to it. The shim must not wait for a disk, and opens it late.
fn create_log(directory: &OwnedFd, log: &Path) -> Result<(), Errno> {
    let name = log.file_name().ok_or(Errno::INVAL)?;
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o640)).map(drop)
}

/// What only the shim can open: its shared memory and process namespace.
const OF_SHIM: [&str; 2] = [SHARED_MEMORY, SHARED_PROCESSES];

/// Opens what the script needs, and says where the shim puts in what only it can open.
fn descriptors(
    compiled: &Compiled,
    rootfs: OwnedFd,
    made: BTreeMap<PathBuf, OwnedFd>,
    group: &Group,
) -> Result<(Vec<OwnedFd>, [Option<u16>; 2]), RuntimeError> {
    let is_of_shim = |descriptor: &Descriptor, name: &str| match descriptor {
        Descriptor::HostPath { path, .. } | Descriptor::Namespace { path } => path == Path::new(name),
        _ => false,
    };
    let places = OF_SHIM.map(|name| compiled.descriptors.iter().position(|descriptor| is_of_shim(descriptor, name)));
    let ours = compiled.descriptors.iter().filter(|one| !OF_SHIM.iter().any(|name| is_of_shim(one, name)));
    let ours: Vec<Descriptor> = ours.cloned().collect();
    let joins = group.open_joins().map_err(groups::cgroup_failed)?;
    let opened = open_with(&ours, Some(rootfs), &joins, made);
    let opened = opened.map_err(|error| failed("open what the container needs", io::Error::other(error)))?;
    let place = |place: usize| u16::try_from(place).expect("a script's places are 16 bits wide");
    Ok((opened, places.map(|found| found.map(place))))
}

/// Sends the stop signal and arms the shim's timer.
pub(super) async fn stop(node: &Node, id: &SandboxId, container: &ContainerId, stop: Stop) -> Result<(), RuntimeError> {
    let sandbox = node.find(id)?;
    let known = sandbox.container(container);
    let known = known.ok_or_else(|| RuntimeError::NoContainer { container: container.clone() })?;
    if super::recover::has_ended(&known.record) {
        return Ok(());
    }
    let grace_ms = u64::try_from(stop.grace.as_millis()).unwrap_or(u64::MAX);
    // With no grace at all there is nothing for a handler to do.
    let signal = if grace_ms == 0 { 0 } else { stop.signal };
    let request = Request::Stop { container: container.0.clone(), signal, grace_ms };
    match sandbox.ask(request, Vec::new()).await? {
        Reply::Done => Ok(()),
        Reply::Failed(failure) => Err(sandbox.error(failure, container, "")),
        other => Err(sandbox.protocol_error(&other)),
    }
}
