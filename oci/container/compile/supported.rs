//! What is refused, by name: a property that would be ignored silently is worse than one that fails.

use oci_spec::runtime::{LinuxNamespaceType, Process, Spec};

use super::CompileError;

pub(super) fn check(spec: &Spec) -> Result<(), CompileError> {
    let linux = spec.linux().as_ref().ok_or(CompileError::Missing { property: "linux" })?;
    let hooks = spec.hooks().as_ref().is_some_and(|hooks| {
        // Deprecated ones count as well, so compare as data.
        serde_json::to_value(hooks).is_ok_and(|value| value.as_object().is_some_and(|object| !object.is_empty()))
    });
    let propagation = linux.rootfs_propagation().as_deref().unwrap_or_default();
    refuse(&[
        ("hooks", hooks),
        ("linux.netDevices", linux.net_devices().as_ref().is_some_and(|map| !map.is_empty())),
        ("linux.rootfsPropagation", !matches!(propagation, "" | "private" | "rprivate" | "slave" | "rslave")),
        ("linux.mountLabel", linux.mount_label().as_ref().is_some_and(|label| !label.is_empty())),
        ("linux.intelRdt", linux.intel_rdt().is_some()),
        ("linux.memoryPolicy", linux.memory_policy().is_some()),
        ("linux.personality", linux.personality().is_some()),
        ("linux.timeOffsets", linux.time_offsets().as_ref().is_some_and(|map| !map.is_empty())),
    ])?;
    spec.process().as_ref().map_or(Ok(()), check_process)
}

pub(super) fn check_process(process: &Process) -> Result<(), CompileError> {
    refuse(&[
        ("process.apparmorProfile", process.apparmor_profile().as_ref().is_some_and(|name| !name.is_empty())),
        ("process.selinuxLabel", process.selinux_label().as_ref().is_some_and(|label| !label.is_empty())),
        ("process.ioPriority", process.io_priority().is_some()),
        ("process.scheduler", process.scheduler().is_some()),
        ("process.execCPUAffinity", process.exec_cpu_affinity().is_some()),
    ])
}

fn refuse(properties: &[(&str, bool)]) -> Result<(), CompileError> {
    match properties.iter().find(|(_, present)| *present) {
        Some((property, _)) => Err(CompileError::unsupported(*property)),
        None => Ok(()),
    }
}

/// Kernel parameters that belong to a namespace, which the container must not share with the host.
pub(super) fn check_sysctl(path: &str, listed: &[LinuxNamespaceType]) -> Result<(), CompileError> {
    let property = || format!("linux.sysctl: {}", path.replace('/', "."));
    if path.split('/').any(|part| part.is_empty() || part == "..") {
        return Err(CompileError::invalid(property(), "is not the name of a kernel parameter"));
    }
    // The list of sysctl(5) that runc has in libcontainer/configs/validate.
    let ipc = path.starts_with("fs/mqueue/")
        || matches!(
            path,
            "kernel/msgmax"
                | "kernel/msgmnb"
                | "kernel/msgmni"
                | "kernel/sem"
                | "kernel/shmall"
                | "kernel/shmmax"
                | "kernel/shmmni"
                | "kernel/shm_rmid_forced"
        );
    let needed = match path {
        "kernel/domainname" => LinuxNamespaceType::Uts,
        _ if ipc => LinuxNamespaceType::Ipc,
        _ if path.starts_with("net/") => LinuxNamespaceType::Network,
        _ => return Err(CompileError::invalid(property(), "does not belong to a namespace")),
    };
    if listed.contains(&needed) {
        Ok(())
    } else {
        Err(CompileError::invalid(property(), format!("needs a {needed} namespace of its own")))
    }
}
