//! One group in all hierarchies that matter: create, join, kill, remove.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use super::walk::{remove_at, walk};
use super::{CgroupError, Controller, Hierarchies, Warning};

/// How often a group is killed, or its removal tried, before it is given up.
const ROUNDS: u32 = 500;

/// How often the same processes are found before they count as dying.
const QUIET_ROUNDS: u32 = 5;

/// One relative path in all hierarchies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub(super) host: Hierarchies,
    pub(super) path: PathBuf,
}

/// Descriptors through which a process gets into a group by itself: see [`join`].
#[derive(Debug)]
pub struct Joins {
    /// The v2 directory, for clone3(2).
    pub v2: Option<OwnedFd>,
    /// `tasks` of each used v1 hierarchy, in the order of [`Hierarchies::used_v1`].
    pub v1: Vec<OwnedFd>,
}

impl Joins {
    /// The v1 descriptors, borrowed.
    pub fn v1(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.v1.iter().map(AsFd::as_fd)
    }
}

/// Moves the calling thread into a v1 group, by its `tasks` file. For a process of one thread that is all of it. Neither
/// allocates nor locks.
///
/// A move by `cgroup.procs`, or of anybody but oneself, takes the lock against which all forks and exits of the host are
/// readers; the first who wants it after a rest waits for a grace period of RCU (10 to 20 ms), and everybody who makes or
/// removes a group waits with him. A thread that moves itself needs no such lock (`cgroup_procs_write_start` in
/// kernel/cgroup/cgroup.c, since Linux 5.5; before, this is as slow as the others).
///
/// # Errors
/// Those of write(2).
pub fn join(tasks: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::io::write(tasks, b"0").map(drop)
}

impl Group {
    /// The group at `<mount>/<path>` of each hierarchy; nothing is created yet.
    ///
    /// # Errors
    /// When the path is absolute, empty or has other than plain names.
    pub fn new(host: &Hierarchies, path: &Path) -> Result<Self, CgroupError> {
        let plain = path.components().all(|component| matches!(component, Component::Normal(_)));
        if !plain || path.as_os_str().is_empty() {
            return Err(CgroupError::InvalidPath { path: path.to_owned() });
        }
        Ok(Self { host: host.clone(), path: path.to_owned() })
    }

    /// The relative path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A group below this one.
    ///
    /// # Errors
    /// When the name has other than plain components.
    pub fn child(&self, name: &str) -> Result<Self, CgroupError> {
        Self::new(&self.host, &self.path.join(name))
    }

    /// Creates the group and those above it. An existing one is fine. Tells which controllers the host lacks.
    ///
    /// # Errors
    /// When the kernel refuses a directory.
    pub fn create(&self) -> Result<Vec<Warning>, CgroupError> {
        for directory in self.v1_directories() {
            make(&directory)?;
        }
        if let Some(directory) = self.v2_directory() {
            make(&directory)?;
            self.enable_controllers()?;
        }
        Ok(self.missing())
    }

    /// Passes the used controllers of the v2 tree down to this group. A controller is passed to the children of a group
    /// by its `cgroup.subtree_control`, so that of this group itself stays empty and it may hold processes.
    fn enable_controllers(&self) -> Result<(), CgroupError> {
        let Some(unified) = &self.host.v2 else { return Ok(()) };
        let wanted: Vec<&str> = unified
            .controllers
            .iter()
            .filter(|controller| {
                use Controller::{Cpu, Hugetlb, Io, Memory, Pids};
                matches!(controller, Cpu | Memory | Pids | Hugetlb | Io)
            })
            .map(|controller| controller.name())
            .collect();
        let mut directory = unified.mount.clone();
        for name in &self.path {
            let file = directory.join("cgroup.subtree_control");
            let present = fs::read_to_string(&file).map_err(|source| CgroupError::file("read", &file, source))?;
            let absent: Vec<String> = wanted
                .iter()
                .filter(|name| !present.split_whitespace().any(|other| other == **name))
                .map(|name| format!("+{name}"))
                .collect();
            if !absent.is_empty() {
                fs::write(&file, absent.join(" ")).map_err(|source| CgroupError::file("write", &file, source))?;
            }
            directory.push(name);
        }
        Ok(())
    }

    fn missing(&self) -> Vec<Warning> {
        Controller::ALL
            .into_iter()
            .filter(|controller| match controller {
                // v2 has freezing in its core, and programs for devices on every group.
                Controller::Freezer | Controller::Devices => {
                    self.host.v2.is_none() && self.host.v1_of(*controller).is_none()
                }
                _ => self.directory_of(*controller).is_none(),
            })
            .map(|controller| Warning::Missing { controller })
            .collect()
    }

    /// Opens what is needed to start processes in the group.
    ///
    /// # Errors
    /// When the group does not exist.
    pub fn open_joins(&self) -> Result<Joins, CgroupError> {
        let v1 = self
            .v1_directories()
            .map(|directory| {
                let file = directory.join("tasks");
                let opened = OpenOptions::new().write(true).open(&file);
                opened.map(OwnedFd::from).map_err(|source| CgroupError::file("open", &file, source))
            })
            .collect::<Result<_, _>>()?;
        let v2 = self
            .v2_directory()
            .map(|directory| {
                let opened = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(&directory);
                opened.map(OwnedFd::from).map_err(|source| CgroupError::file("open", &directory, source))
            })
            .transpose()?;
        Ok(Joins { v2, v1 })
    }

    /// Ids of all processes in the group, without those of groups below. A group that does not exist has none.
    ///
    /// # Errors
    /// When the kernel's files cannot be read.
    pub fn pids(&self) -> Result<Vec<i32>, CgroupError> {
        let mut found = BTreeSet::new();
        for directory in self.directories() {
            found.extend(pids_in(&directory)?);
        }
        Ok(found.into_iter().collect())
    }

    /// How many these are, by one of the hierarchies, which is enough to tell.
    pub(super) fn count(&self) -> Option<u64> {
        let pids = pids_in(&self.directories().next()?).ok()?;
        u64::try_from(pids.len()).ok()
    }

    /// Sends SIGKILL to all processes of the group and of groups below, until there are no more that live. Does not
    /// wait for their parents to reap them.
    ///
    /// # Errors
    /// When the kernel's files cannot be used.
    pub fn kill_all(&self) -> Result<(), CgroupError> {
        self.unthrottle();
        if let Some(directory) = self.v2_directory() {
            let file = directory.join("cgroup.kill");
            match fs::write(&file, "1") {
                Ok(()) => {}
                // The file appeared in Linux 5.14; the sweep below does without.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(CgroupError::file("write", &file, source)),
            }
        }
        self.sweep()
    }

    /// Sends a signal to all processes of the group and of groups below that are there now.
    ///
    /// # Errors
    /// When the kernel's files cannot be read.
    pub fn signal_all(&self, signal: Signal) -> Result<(), CgroupError> {
        for pid in self.all_pids()?.into_iter().filter_map(Pid::from_raw) {
            // It may have ended by itself meanwhile.
            let _ = kill_process(pid, signal);
        }
        Ok(())
    }

    /// Lifts the limit on processor time of the group and of groups below. For groups that end: the processes of a fork
    /// bomb need minutes to die within a small quota. What cannot be lifted stays; the group only ends later then.
    pub fn unthrottle(&self) {
        for directory in self.directories() {
            let _ = walk(
                &directory,
                &mut |group| {
                    for (file, unlimited) in [("cpu.cfs_quota_us", "-1"), ("cpu.max", "max")] {
                        let _ = write_at(group, file, unlimited);
                    }
                    Ok::<(), Errno>(())
                },
                &mut |_, _| Ok(()),
            );
        }
    }

    /// Kills round by round until nobody is left. A fork bomb makes processes faster than they can be listed, so the group
    /// is frozen while it is listed, as far as there is a way to; and it goes through all process ids within seconds, so
    /// whoever is listed is killed, also under the id of one that was killed before.
    fn sweep(&self) -> Result<(), CgroupError> {
        let mut before = BTreeSet::new();
        let mut quiet = 0;
        for _ in 0..ROUNDS {
            self.freeze();
            let killed = self.kill_once();
            // A v1 task dies only after it has been thawed, and also a group below may have been frozen, by the
            // container itself.
            self.thaw();
            let killed = killed?;
            if killed.is_empty() {
                return Ok(());
            }
            quiet = if killed == before { quiet + 1 } else { 0 };
            // Those that are left wait for a file system, for the processor, or for a tracer or parent that does not
            // reap them.
            if quiet == QUIET_ROUNDS {
                return Ok(());
            }
            before = killed;
            pause();
        }
        Ok(())
    }

    /// Kills all processes that are there now, and tells which.
    fn kill_once(&self) -> Result<BTreeSet<i32>, CgroupError> {
        let found = self.all_pids()?;
        for pid in found.iter().filter_map(|pid| Pid::from_raw(*pid)) {
            // It may have ended by itself meanwhile.
            let _ = kill_process(pid, Signal::KILL);
        }
        Ok(found)
    }

    /// Ids of all processes of the group and of groups below.
    fn all_pids(&self) -> Result<BTreeSet<i32>, CgroupError> {
        let mut found = BTreeSet::new();
        for directory in self.directories() {
            let walked = walk(
                &directory,
                &mut |group| {
                    found.extend(pids_at(group)?);
                    Ok::<(), Errno>(())
                },
                &mut |_, _| Ok(()),
            );
            walked.map_err(|errno| CgroupError::file("list the processes of", &directory, errno.into()))?;
        }
        Ok(found)
    }

    /// Stops all tasks as far as there is a way to. What a group above does holds for those below.
    fn freeze(&self) {
        if let Some(directory) = self.v2_directory() {
            let _ = fs::write(directory.join("cgroup.freeze"), "1");
        }
        if let Some(directory) = self.freezer() {
            let _ = fs::write(directory.join("freezer.state"), "FROZEN");
        }
    }

    /// Lets all tasks go on, those included that were stopped by a group below.
    fn thaw(&self) {
        let frozen = [self.freezer(), self.v2_directory()];
        for directory in frozen.into_iter().flatten() {
            let _ = walk(
                &directory,
                &mut |group| {
                    for (file, thawed) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
                        let _ = write_at(group, file, thawed);
                    }
                    Ok::<(), Errno>(())
                },
                &mut |_, _| Ok(()),
            );
        }
    }

    fn freezer(&self) -> Option<PathBuf> {
        self.host.v1_of(Controller::Freezer).map(|hierarchy| hierarchy.mount.join(&self.path))
    }

    /// Removes the group and groups below, which must have no processes but may still have ones that are just ending.
    /// A group that does not exist is fine.
    ///
    /// # Errors
    /// [`CgroupError::Busy`] when processes stay.
    pub fn remove(&self) -> Result<(), CgroupError> {
        for directory in self.directories() {
            let busy = |errno| match errno {
                Errno::BUSY => CgroupError::Busy { path: directory.clone() },
                errno => CgroupError::file("remove", &directory, errno.into()),
            };
            let below = walk(&directory, &mut |_| Ok(()), &mut |above, name| patiently(|| remove_at(above, name)));
            below.and_then(|()| patiently(|| rustix::fs::rmdir(&directory))).map_err(busy)?;
        }
        Ok(())
    }

    /// Whether the group exists in any hierarchy.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.directories().any(|directory| directory.exists())
    }

    /// Whether the group exists in all hierarchies that matter.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.directories().all(|directory| directory.exists())
    }

    fn directories(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.v1_directories().chain(self.v2_directory())
    }

    fn v1_directories(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.host.used_v1().map(|hierarchy| hierarchy.mount.join(&self.path))
    }

    pub(super) fn v2_directory(&self) -> Option<PathBuf> {
        self.host.v2.as_ref().map(|unified| unified.mount.join(&self.path))
    }

    /// The directory with a controller's files, and whether it is v2's.
    pub(super) fn directory_of(&self, controller: Controller) -> Option<(PathBuf, bool)> {
        if let Some(hierarchy) = self.host.v1_of(controller) {
            return Some((hierarchy.mount.join(&self.path), false));
        }
        if self.host.v2_has(controller) { self.v2_directory().map(|directory| (directory, true)) } else { None }
    }
}

fn make(directory: &Path) -> Result<(), CgroupError> {
    fs::create_dir_all(directory).map_err(|source| CgroupError::file("create", directory, source))
}

fn pids_in(directory: &Path) -> Result<Vec<i32>, CgroupError> {
    let file = directory.join("cgroup.procs");
    let text = match File::open(&file).and_then(io::read_to_string) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(Vec::new()),
        // A v2 group with threaded children answers this.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(Vec::new()),
        Err(source) => return Err(CgroupError::file("read", &file, source)),
    };
    Ok(parse_pids(&text))
}

/// Processes of a namespace that cannot be seen from here are listed as 0.
fn parse_pids(text: &str) -> Vec<i32> {
    text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect()
}

fn pids_at(group: BorrowedFd<'_>) -> Result<Vec<i32>, Errno> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(group, "cgroup.procs", flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT | Errno::NODEV) => return Ok(Vec::new()),
        Err(errno) => return Err(errno),
    };
    match io::read_to_string(file) {
        Ok(text) => Ok(parse_pids(&text)),
        // It was removed, or is a v2 group with threaded children.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EOPNOTSUPP)) => Ok(Vec::new()),
        Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
    }
}

/// Writes to a file of a group that has one.
fn write_at(group: BorrowedFd<'_>, file: &str, value: &str) -> Result<(), Errno> {
    let file = rustix::fs::openat(group, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, value.as_bytes()).map(drop)
}

/// Tries to remove a directory; the kernel says EBUSY while a dying process has not left yet.
fn patiently(mut remove: impl FnMut() -> Result<(), Errno>) -> Result<(), Errno> {
    for _ in 0..ROUNDS {
        match remove() {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::BUSY) => pause(),
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::BUSY)
}

/// Leaves the processor for two milliseconds: there is no event for the last process having left on v1.
fn pause() {
    let wait = rustix::time::Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
    let _ = rustix::thread::nanosleep(&wait);
}
