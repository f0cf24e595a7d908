//! Which controllers the host has, and where.
//!
//! Read from `/proc/self/mountinfo` and the `cgroup.controllers` file of the v2 tree: a v2 tree may be mounted and
//! carry no controller at all (hybrid hosts), so its existence says nothing.

use std::fs;
use std::path::{Path, PathBuf};

use super::CgroupError;

/// A controller that limits or accounting rest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Controller {
    /// CPU time.
    Cpu,
    /// Accounting of CPU time; a part of `cpu` on v2.
    Cpuacct,
    /// Memory.
    Memory,
    /// Number of tasks.
    Pids,
    /// Access to devices; eBPF programs on v2.
    Devices,
    /// Stopping all tasks; a part of the core on v2.
    Freezer,
    /// Huge pages of memory.
    Hugetlb,
    /// Disks, of v2 only, where they are counted.
    Io,
}

impl Controller {
    /// All that limit or isolate.
    pub const ALL: [Self; 7] =
        [Self::Cpu, Self::Cpuacct, Self::Memory, Self::Pids, Self::Devices, Self::Freezer, Self::Hugetlb];

    /// The kernel's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Devices => "devices",
            Self::Freezer => "freezer",
            Self::Hugetlb => "hugetlb",
            Self::Io => "io",
        }
    }

    /// What does not work without it.
    #[must_use]
    pub const fn effect_of_absence(self) -> &'static str {
        match self {
            Self::Cpu => "CPU requests and limits are not enforced",
            Self::Cpuacct => "CPU usage is not known",
            Self::Memory => "memory limits are not enforced and usage is not known",
            Self::Pids => "the number of tasks is not limited",
            Self::Devices => "device nodes that a container makes are not restricted",
            Self::Freezer => "a group that forks while it is killed needs several rounds",
            Self::Hugetlb => "huge pages are not limited",
            Self::Io => "what is read and written is not counted",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().chain([Self::Io]).find(|controller| controller.name() == name)
    }
}

/// A mounted v1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct V1 {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// All of its controllers as the mount shows them, e.g. `cpu,cpuacct` or `name=systemd`.
    pub label: String,
    /// Those that are used here; empty for named and foreign hierarchies.
    pub controllers: Vec<Controller>,
}

impl V1 {
    /// Whether containers get a group in it. The named hierarchy counts because a service manager kills what it finds
    /// in the group of its service there; others (cpuset, blkio …) carry nothing that is asked for.
    #[must_use]
    pub fn is_used(&self) -> bool {
        !self.controllers.is_empty() || self.label == "name=systemd"
    }
}

/// The mounted v2 tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unified {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Controllers that it carries, among those that are used here.
    pub controllers: Vec<Controller>,
}

/// The host's world of control groups.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hierarchies {
    /// v1 hierarchies in the order of their mounts.
    pub v1: Vec<V1>,
    /// The v2 tree; without controllers on hybrid hosts.
    pub v2: Option<Unified>,
}

impl Hierarchies {
    /// Reads the host's world.
    ///
    /// # Errors
    /// When `/proc` cannot be read or nothing is mounted.
    pub fn detect() -> Result<Self, CgroupError> {
        let mountinfo = Path::new("/proc/self/mountinfo");
        let text = fs::read_to_string(mountinfo).map_err(|source| CgroupError::file("read", mountinfo, source))?;
        let mut found = Self::parse(&text);
        if let Some(unified) = &mut found.v2 {
            let file = unified.mount.join("cgroup.controllers");
            let names = fs::read_to_string(&file).map_err(|source| CgroupError::file("read", &file, source))?;
            unified.controllers = names.split_whitespace().filter_map(Controller::parse).collect();
            if unified.controllers.contains(&Controller::Cpu) {
                unified.controllers.push(Controller::Cpuacct);
            }
        }
        if found.v1.is_empty() && found.v2.is_none() { Err(CgroupError::NotMounted) } else { Ok(found) }
    }

    /// What mountinfo (proc_pid_mountinfo(5)) says; the controllers of the v2 tree are not in there.
    #[must_use]
    pub fn parse(mountinfo: &str) -> Self {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let Some(mount) = left.split(' ').nth(4).map(unescape) else { continue };
            let mut right = right.split(' ');
            match (right.next(), right.nth(1)) {
                (Some("cgroup2"), _) if found.v2.is_none() => {
                    found.v2 = Some(Unified { mount, controllers: Vec::new() });
                }
                (Some("cgroup"), Some(options)) => {
                    let label = label(options);
                    if !found.v1.iter().any(|known| known.label == label) {
                        let controllers = label.split(',').filter_map(Controller::parse).collect();
                        found.v1.push(V1 { mount, label, controllers });
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// v1 hierarchies in which containers get a group, in a stable order.
    pub fn used_v1(&self) -> impl Iterator<Item = &V1> {
        self.v1.iter().filter(|hierarchy| hierarchy.is_used())
    }

    /// The hierarchy that carries a controller.
    pub(super) fn v1_of(&self, controller: Controller) -> Option<&V1> {
        self.v1.iter().find(|hierarchy| hierarchy.controllers.contains(&controller))
    }

    /// Whether the v2 tree carries a controller.
    pub(super) fn v2_has(&self, controller: Controller) -> bool {
        self.v2.as_ref().is_some_and(|unified| unified.controllers.contains(&controller))
    }
}

/// The controllers among a hierarchy's super block options.
fn label(options: &str) -> String {
    let controllers: Vec<&str> = options
        .split(',')
        .filter(|option| {
            !matches!(
                *option,
                "rw" | "ro" | "xattr" | "clone_children" | "noprefix" | "favordynmods" | "cpuset_v2_mode"
            ) && !option.starts_with("release_agent=")
        })
        .collect();
    controllers.join(",")
}

/// mountinfo writes space, tab, newline and backslash as octal escapes.
fn unescape(field: &str) -> PathBuf {
    PathBuf::from(field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/blkio rw,relatime - cgroup cgroup rw,blkio
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,release_agent=/lib/agent,name=systemd
42 31 0:32 / /mnt/again\\040memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
";

    #[test]
    fn a_hybrid_host_has_each_hierarchy_once_and_a_v2_tree() {
        let found = Hierarchies::parse(HYBRID);
        let labels: Vec<&str> = found.v1.iter().map(|hierarchy| hierarchy.label.as_str()).collect();
        assert_eq!(labels, ["cpu,cpuacct", "memory", "blkio", "name=systemd"]);
        assert_eq!(found.v1[0].controllers, [Controller::Cpu, Controller::Cpuacct]);
        let used: Vec<&str> = found.used_v1().map(|hierarchy| hierarchy.label.as_str()).collect();
        assert_eq!(used, ["cpu,cpuacct", "memory", "name=systemd"]);
        assert_eq!(found.v2.map(|unified| unified.mount), Some(PathBuf::from("/sys/fs/cgroup/unified")));
    }

    #[test]
    fn escaped_mount_points_are_read() {
        assert_eq!(unescape("/a\\040b\\134c"), PathBuf::from("/a b\\c"));
    }

    #[test]
    fn this_host_has_some_hierarchy() {
        let found = Hierarchies::detect().unwrap();
        assert!(found.v2.is_some() || !found.v1.is_empty());
    }
}
