//! What a container is asked to be, as an OCI runtime configuration.
//!
//! Pure. The defaults (mounts, masked and read-only paths, capabilities) are those that containerd gives to containers of
//! Kubernetes (internal/cri/server/container_create_linux.go and pkg/oci/spec.go), so that images find what they
//! expect. Invariant: nothing of the request is dropped; what cannot be expressed is an error.

use std::path::{Path, PathBuf};

use oci::seccomp::{Architecture, default_profile};
use oci_spec::runtime::{LinuxSeccomp, Spec};
use serde_json::{Value, json};

use super::users::Identity;
use super::{parts, user_namespace};
use crate::{
    ContainerSpec, Mount, MountSource, PidSharing, Privileges, ProcMount, Propagation, RuntimeError, SandboxSpec,
    Sharing,
};

/// Stands for the sandbox's `/dev/shm`, which only the shim can reach.
pub(super) const SHARED_MEMORY: &str = "/.coracle/shared-memory";

/// Stands for the sandbox's process namespace, of which only the shim has a handle.
pub(super) const SHARED_PROCESSES: &str = "/.coracle/processes";

/// What containers may do without further words.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Hidden, because they tell of or change the host.
const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READ_ONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Which system calls are filtered.
#[derive(Debug)]
pub(super) enum Filter {
    /// None.
    Nothing,
    /// Those that the common default profile forbids.
    Default,
    /// Those that a profile forbids.
    Profile(LinuxSeccomp),
}

/// What the request does not say.
#[derive(Debug)]
pub(super) struct Surroundings<'a> {
    pub(super) sandbox: &'a SandboxSpec,
    pub(super) identity: &'a Identity,
    /// The host's name, for those who share it.
    pub(super) host_name: &'a str,
    /// The container's group below the mount points.
    pub(super) cgroup: &'a Path,
    /// Names of all capabilities that this process holds.
    pub(super) all_capabilities: &'a [String],
    /// The filter.
    pub(super) filter: Filter,
    /// The host's devices, as OCI configurations; for privileged containers only.
    pub(super) devices: Vec<Value>,
    /// The process namespace to join, if it is another container's.
    pub(super) processes: Option<PathBuf>,
}

/// The configuration of a container.
pub(super) fn runtime_spec(request: &ContainerSpec, around: &Surroundings<'_>) -> Result<Spec, RuntimeError> {
    let privileges = &request.privileges;
    let capabilities = capabilities(privileges, around.all_capabilities);
    let mut config = json!({
        "ociVersion": "1.2.0",
        "process": process(request, around, &capabilities),
        "root": { "path": "rootfs", "readonly": privileges.read_only_root },
        "mounts": mounts(request, around)?,
        "linux": {
            "cgroupsPath": around.cgroup,
            "namespaces": namespaces(around),
            "devices": around.devices,
        },
    });
    if !privileges.privileged && privileges.proc_mount == ProcMount::Masked {
        config["linux"]["maskedPaths"] = json!(MASKED_PATHS);
        config["linux"]["readonlyPaths"] = json!(READ_ONLY_PATHS);
    }
    let spec: Spec = serde_json::from_value(config).map_err(|error| invalid(error.to_string()))?;
    Ok(filtered(spec, &around.filter, &capabilities))
}

fn filtered(mut spec: Spec, filter: &Filter, capabilities: &[String]) -> Spec {
    let profile = match filter {
        Filter::Nothing => return spec,
        Filter::Default => {
            let names: Vec<&str> = capabilities.iter().map(String::as_str).collect();
            default_profile(&names, Architecture::native())
        }
        Filter::Profile(profile) => profile.clone(),
    };
    let mut linux = spec.linux().clone().unwrap_or_default();
    linux.set_seccomp(Some(profile));
    spec.set_linux(Some(linux));
    spec
}

fn invalid(message: String) -> RuntimeError {
    RuntimeError::Invalid { message }
}

fn process(request: &ContainerSpec, around: &Surroundings<'_>, capabilities: &[String]) -> Value {
    let Identity { uid, gid, groups, .. } = around.identity;
    let mut process = json!({
        "terminal": request.tty,
        "user": { "uid": uid, "gid": gid, "additionalGids": groups },
        "args": request.args,
        "env": environment(request, around),
        "cwd": if request.cwd.as_os_str().is_empty() { Path::new("/") } else { &request.cwd },
        "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
        "noNewPrivileges": request.privileges.no_new_privileges,
    });
    if let Some(adjustment) = request.resources.oom_score_adj {
        process["oomScoreAdj"] = json!(adjustment);
    }
    process
}

/// The request's variables, after those that images may rely on.
fn environment(request: &ContainerSpec, around: &Surroundings<'_>) -> Vec<String> {
    let mut defaults =
        vec![("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("HOME", &around.identity.home)];
    if request.tty {
        defaults.push(("TERM", "xterm"));
    }
    defaults.push(match around.sandbox.network {
        Sharing::Sandbox => ("HOSTNAME", &around.sandbox.hostname),
        Sharing::Host => ("HOSTNAME", around.host_name),
    });
    let is_given = |name: &str| request.env.iter().any(|(given, _)| given == name);
    let defaults = defaults.into_iter().filter(|(name, _)| !is_given(name));
    let given = request.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    defaults.chain(given).map(|(name, value)| format!("{name}={value}")).collect()
}

fn capabilities(privileges: &Privileges, all: &[String]) -> Vec<String> {
    if privileges.privileged {
        return all.to_vec();
    }
    let named = |names: &[String]| names.iter().map(|name| capability(name)).collect::<Vec<_>>();
    let (added, dropped) = (named(&privileges.add_capabilities), named(&privileges.drop_capabilities));
    let has_all = |names: &[String]| names.iter().any(|name| name == "CAP_ALL");
    let mut kept: Vec<String> = if has_all(&added) {
        all.to_vec()
    } else if has_all(&dropped) {
        Vec::new()
    } else {
        DEFAULT_CAPABILITIES.map(str::to_owned).to_vec()
    };
    kept.retain(|name| !dropped.contains(name));
    for name in added.into_iter().filter(|name| name != "CAP_ALL") {
        if !kept.contains(&name) {
            kept.push(name);
        }
    }
    kept
}

fn capability(name: &str) -> String {
    let name = name.to_ascii_uppercase();
    if name.starts_with("CAP_") { name } else { format!("CAP_{name}") }
}

/// Those that are the container's own; the others are the shim's.
fn namespaces(around: &Surroundings<'_>) -> Value {
    let sandbox = around.sandbox;
    let mut own = vec![json!({ "type": "mount" }), json!({ "type": "cgroup" })];
    match (sandbox.pid, &around.processes) {
        (PidSharing::Host, _) => {}
        (PidSharing::Sandbox, _) => own.push(json!({ "type": "pid", "path": SHARED_PROCESSES })),
        (PidSharing::Container, Some(path)) => own.push(json!({ "type": "pid", "path": path })),
        (PidSharing::Container, None) => own.push(json!({ "type": "pid" })),
    }
    if sandbox.user_namespace.is_some() {
        own.push(json!({ "type": "user", "path": user_namespace::PATH }));
    }
    Value::from(own)
}

fn mounts(request: &ContainerSpec, around: &Surroundings<'_>) -> Result<Vec<Value>, RuntimeError> {
    let access = if request.privileges.privileged { "rw" } else { "ro" };
    let shared_memory = match around.sandbox.ipc {
        Sharing::Sandbox => SHARED_MEMORY,
        Sharing::Host => "/dev/shm",
    };
    let standard = [
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", access]),
        mount("/dev/shm", "bind", shared_memory, &["bind", "nosuid", "noexec", "nodev"]),
    ];
    let is_replaced =
        |standard: &Value| request.mounts.iter().any(|mount| standard["destination"] == json!(mount.destination));
    let mut mounts: Vec<Value> = standard.into_iter().filter(|mount| !is_replaced(mount)).collect();
    // What lies deeper is mounted later, whatever the order of the request.
    let mut asked: Vec<(usize, &Mount)> = request.mounts.iter().enumerate().collect();
    asked.sort_by_key(|(_, mount)| mount.destination.components().count());
    for (index, mount) in asked {
        mounts.push(asked_mount(index, mount, around.sandbox.user_namespace.is_some())?);
    }
    Ok(mounts)
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": kind, "source": source, "options": options })
}

/// Files of the host appear with the ids of the sandbox's user namespace, if it has one; mounts below as they are, like
/// containerd has it, so that one that cannot be mapped does no harm.
fn asked_mount(index: usize, mount: &Mount, has_users: bool) -> Result<Value, RuntimeError> {
    if !mount.destination.is_absolute() {
        return Err(invalid(format!("mount destination {} is not absolute", mount.destination.display())));
    }
    let mut options: Vec<String> = Vec::new();
    let is_image = matches!(mount.source, MountSource::Image(_));
    options.push(if mount.read_only || is_image { "ro" } else { "rw" }.to_owned());
    if mount.recursive_read_only {
        options.push("rro".to_owned());
    }
    let (kind, source) = match &mount.source {
        MountSource::HostPath(_) | MountSource::Image(_) => {
            let propagation = match mount.propagation {
                Propagation::None => "rprivate",
                Propagation::HostToContainer => "rslave",
                Propagation::Bidirectional => "rshared",
            };
            options.extend(["rbind".to_owned(), propagation.to_owned()]);
            // An overlay cannot be mapped; that of an image is made of layers that are.
            options.extend((has_users && !is_image).then(|| "idmap".to_owned()));
            options.extend(is_image.then(|| "noexec".to_owned()));
            let path = match &mount.source {
                MountSource::HostPath(path) => path.clone(),
                _ => PathBuf::new(),
            };
            ("bind", parts::stand_in(index, mount).unwrap_or(path))
        }
        MountSource::Tmpfs { size, mode } => {
            options.extend(["nosuid".to_owned(), "nodev".to_owned(), format!("mode={mode:o}")]);
            options.extend(size.map(|size| format!("size={size}")));
            ("tmpfs", PathBuf::from("tmpfs"))
        }
    };
    Ok(json!({ "destination": mount.destination, "type": kind, "source": source, "options": options }))
}

#[cfg(test)]
mod tests;
