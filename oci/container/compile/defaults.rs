//! What the field gives a container that asks for nothing special: mounts, hidden paths, capabilities.
//!
//! Lists as in containerd's `oci.WithDefaultSpec` and runc's example configuration; callers put them into the
//! configuration that they compile.

use std::path::PathBuf;

use oci_spec::runtime::{Mount, MountBuilder};

/// Hidden from a container that is not privileged.
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Read-only in a container that is not privileged.
pub const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Capabilities of a container that asks for none.
pub const CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// The option that makes a bind mount's source a path in the namespace of the starting process; see
/// [`super::Compiled::starter_paths`].
pub const STARTER: &str = "x-starter";

/// Mounts of a container. `/dev/shm` is among them as a tmpfs of its own; who shares it among containers replaces it.
#[must_use]
pub fn mounts() -> Vec<Mount> {
    [
        ("/proc", "proc", &["nosuid", "noexec", "nodev"] as &[&str]),
        ("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        ("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        ("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        ("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ]
    .map(|(destination, kind, options)| {
        MountBuilder::default()
            .destination(PathBuf::from(destination))
            .typ(kind)
            .source(PathBuf::from(kind))
            .options(options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
            .build()
            .expect("all that is required is set")
    })
    .to_vec()
}
