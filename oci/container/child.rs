//! The child's half of starting a program: it interprets a script and becomes the program.
//!
//! Everything here runs between clone3(2) and execve(2), in a copy of a program that may have had other threads: no
//! allocation, no locks, no panics. All descriptors that it opens are close-on-exec, so that nothing of it survives.

use std::ffi::CStr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::process::{DumpableBehavior, set_dumpable_behavior, setsid, umask};

use super::identity;
use super::mounts;
use super::program;
use super::run::{Launch, find, set_namespaces};
use super::target::locate;
use super::{Namespaces, Place, Script, Step, channel};
use crate::cgroup;
use crate::sys::clone::{Birth, clone3, end};
use crate::sys::exec::{Argv, execve};
use crate::sys::{credentials, fd, seccomp, signal, tty};

/// What the interpreter knows between steps.
pub(super) struct Child<'a> {
    script: &'a Script,
    fds: &'a [BorrowedFd<'a>],
    target: Option<BorrowedFd<'a>>,
    channel: BorrowedFd<'a>,
    stdio: &'a [OwnedFd; 3],
    /// What paths are resolved below.
    root: Option<OwnedFd>,
    /// The process file system of the container, opened where nobody can have put anything over it.
    proc: Option<OwnedFd>,
    announced: bool,
    /// Whether this is the second child already.
    forked: bool,
    found: program::Found,
}

impl<'a> Child<'a> {
    pub(super) fn new(
        launch: &Launch<'a>,
        target: Option<BorrowedFd<'a>>,
        channel: BorrowedFd<'a>,
        stdio: &'a [OwnedFd; 3],
    ) -> Self {
        Self {
            script: launch.script,
            fds: launch.fds,
            target,
            channel,
            stdio,
            root: None,
            proc: None,
            announced: false,
            forked: false,
            found: program::Found::new(),
        }
    }

    /// Runs the script to its end.
    pub(super) fn run(mut self, args: &Argv<'_>, env: &Argv<'_>) -> ! {
        if let Err(errno) = self.prepare() {
            self.fail(Place::Prepare, errno);
        }
        self.interpret(0, args, env)
    }

    /// Runs the script from a step on.
    fn interpret(&mut self, from: usize, args: &Argv<'_>, env: &Argv<'_>) -> ! {
        let script = self.script;
        for (step, index) in script.steps.iter().zip(0_u16..).skip(from) {
            if let Step::Fork { new } = step {
                self.fork(*new, index, args, env);
            }
            match self.step(step) {
                Ok(()) => {}
                Err(errno) if may_be_refused(step, errno) => {
                    let _ = channel::say_warning(self.channel, index, errno);
                }
                Err(errno) => self.fail(Place::Step(index), errno),
            }
        }
        self.announce();
        let errno = execve(self.found.path(&script.program), args, env);
        self.fail(Place::Execute, errno)
    }

    /// Ends, and goes on in a child. That says nothing before the parent knows of it and would reap it.
    fn fork(&mut self, new: Namespaces, index: u16, args: &Argv<'_>, env: &Argv<'_>) -> ! {
        let place = Place::Step(index);
        if self.forked {
            self.fail(place, Errno::INVAL);
        }
        self.forked = true;
        let birth = Birth { namespaces: new.0, cgroup: None, sibling: true };
        let born = clone3(birth, || {
            match self.await_word().and_then(|()| self.arrived_in(new)) {
                Ok(()) => self.interpret(usize::from(index) + 1, args, env),
                Err(errno) => self.fail(place, errno),
            };
        });
        match born {
            Ok((pid, pidfd)) => {
                let _ = channel::say_born(self.channel, pid, pidfd.as_fd());
                end(0)
            }
            Err(errno) => self.fail(place, errno),
        }
    }

    /// Descriptors of the former mounts are of no use any more.
    fn arrived_in(&mut self, kinds: Namespaces) -> Result<(), Errno> {
        if kinds.contains(Namespaces::MOUNT) {
            self.root = Some(mounts::current_root()?);
            self.proc = None;
        }
        Ok(())
    }

    fn fail(&self, place: Place, errno: Errno) -> ! {
        let _ = channel::say_failed(self.channel, place, errno);
        end(127)
    }

    /// Tells the parent that what follows is execve(2). Said before a filter is installed that might forbid it.
    fn announce(&mut self) {
        if !self.announced {
            self.announced = true;
            let _ = channel::say_executing(self.channel);
        }
    }

    /// What every child does, whatever its script says.
    fn prepare(&mut self) -> Result<(), Errno> {
        signal::reset_all();
        // Processes of the container that this one joins must not look into it (CVE-2016-9962); execve(2) undoes it. Once
        // it has no more capabilities than they have, nothing else would stop them.
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        umask(Mode::empty());
        self.set_stdio(self.stdio[0].as_fd(), self.stdio[1].as_fd(), self.stdio[2].as_fd())?;
        fd::close_on_exec_from(3)?;
        if self.target.is_none() {
            self.root = Some(mounts::current_root()?);
        }
        Ok(())
    }

    fn set_stdio(&self, input: BorrowedFd<'_>, output: BorrowedFd<'_>, error: BorrowedFd<'_>) -> Result<(), Errno> {
        rustix::stdio::dup2_stdin(input)?;
        rustix::stdio::dup2_stdout(output)?;
        rustix::stdio::dup2_stderr(error)
    }

    fn root(&self) -> Result<BorrowedFd<'_>, Errno> {
        self.root.as_ref().map(|root| root.as_fd()).ok_or(Errno::NOTDIR)
    }

    /// The process file system: the one that was mounted by this script, else the one at `/proc`, if it is one.
    fn proc(&mut self) -> Result<BorrowedFd<'_>, Errno> {
        if self.proc.is_none() {
            self.proc = Some(mounts::find_proc(self.root()?)?);
        }
        self.proc.as_ref().map(|proc| proc.as_fd()).ok_or(Errno::NOTDIR)
    }

    fn step(&mut self, step: &Step) -> Result<(), Errno> {
        match step {
            Step::Join { namespace, kind } => self.join(find(self.fds, *namespace)?, *kind),
            Step::JoinTarget { kinds } => self.join(self.target.ok_or(Errno::BADF)?, *kinds),
            Step::NewSession => setsid().map(drop),
            Step::IsolateMounts
            | Step::Root { .. }
            | Step::Mount { .. }
            | Step::Attach { .. }
            | Step::Directory { .. }
            | Step::Device { .. }
            | Step::Symlink { .. }
            | Step::Mask { .. }
            | Step::ReadOnly { .. }
            | Step::Seal { .. }
            | Step::ReadOnlyRoot
            | Step::Pivot => self.mount_step(step),
            Step::Terminal { bind_console, uid, size } => self.terminal(*bind_console, *uid, *size),
            Step::JoinGroups => self.join_groups(),
            Step::OwnNullDevice => self.own_null_device(),
            Step::NewCgroupNamespace => mounts::new_namespaces(Namespaces::CGROUP),
            Step::Sysctl { path, value } => mounts::write_below(self.proc()?, &[c"sys/", path], value),
            Step::OomScore { value } => identity::set_oom_score(self.proc()?, *value),
            Step::Limit { resource, soft, hard } => identity::set_limit(*resource, *soft, *hard),
            Step::HostName { name } => rustix::system::sethostname(name),
            Step::DomainName { name } => rustix::system::setdomainname(name),
            Step::WorkingDirectory { path } => mounts::change_directory(self.root()?, path),
            Step::Umask { mask } => {
                umask(Mode::from_raw_mode(*mask));
                Ok(())
            }
            Step::BoundingSet { keep } => identity::limit_bounding_set(*keep),
            Step::User { uid, gid, groups } => identity::change_user(*uid, *gid, groups),
            Step::Capabilities(sets) => identity::set_capabilities(sets),
            Step::DieWithParent { signal } => self.die_with_parent(*signal),
            Step::NoNewPrivileges => rustix::thread::set_no_new_privs(true),
            Step::FindProgram => self.find_program(),
            Step::Seccomp { program, flags } => {
                self.announce();
                seccomp::install_filter(program, *flags)
            }
            Step::AwaitStart { fifo } => self.await_start(find(self.fds, *fifo)?),
            Step::OwnProc => {
                self.proc = Some(mounts::make(c"proc", c"proc", &[], 0)?);
                Ok(())
            }
            Step::RaiseLimit { resource, hard } => identity::raise_limit(*resource, *hard),
            Step::VisibleMounts => {
                mounts::make_visible()?;
                self.arrived_in(Namespaces::MOUNT)
            }
            Step::NewNamespaces { kinds } => {
                mounts::new_namespaces(*kinds)?;
                self.arrived_in(*kinds)
            }
            Step::KeepProcesses => self.keep_processes(),
            // The one step that does not return here.
            Step::Fork { .. } => Err(Errno::INVAL),
        }
    }

    fn mount_step(&mut self, step: &Step) -> Result<(), Errno> {
        match step {
            Step::IsolateMounts => mounts::isolate(),
            Step::Root { mount } => {
                self.root = Some(mounts::attach_root(find(self.fds, *mount)?)?);
                Ok(())
            }
            Step::Mount { file_system, source, options, attributes, target } => {
                let mount = mounts::make(file_system, source, options, *attributes)?;
                if matches!(file_system.to_bytes(), b"proc" | b"sysfs") {
                    mounts::attach_plainly(self.root()?, mount.as_fd(), target)?;
                } else {
                    mounts::attach(self.root()?, mount.as_fd(), target)?;
                }
                if file_system.as_c_str() == c"proc" {
                    self.proc = Some(mount);
                }
                Ok(())
            }
            Step::Attach { mount, target, attributes, passing } => {
                let mount = find(self.fds, *mount)?;
                mounts::change(mount, *attributes, *passing)?;
                mounts::attach(self.root()?, mount, target)
            }
            Step::Directory { path, mode } => mounts::directory(self.root()?, path, *mode),
            Step::Device { path, mode, major, minor, uid, gid } => {
                mounts::device(self.root()?, path, *mode, (*major, *minor), (*uid, *gid))
            }
            Step::Symlink { target, path } => mounts::symlink(self.root()?, target, path),
            Step::Mask { path } => mounts::mask(self.root()?, path),
            Step::ReadOnly { path } => mounts::make_read_only(self.root()?, path),
            Step::Seal { path } => mounts::seal(locate(self.root()?, path)?.as_fd()),
            Step::ReadOnlyRoot => mounts::seal(self.root()?),
            Step::Pivot => mounts::pivot(self.root()?),
            _ => Err(Errno::INVAL),
        }
    }

    fn join(&mut self, namespace: BorrowedFd<'_>, kinds: Namespaces) -> Result<(), Errno> {
        let changes_users = kinds.contains(Namespaces::USER);
        if changes_users {
            identity::drop_groups()?;
        }
        set_namespaces(namespace, kinds)?;
        if changes_users {
            identity::become_root()?;
        }
        self.arrived_in(kinds)
    }

    fn join_groups(&self) -> Result<(), Errno> {
        self.script.joins.iter().try_for_each(|group| cgroup::join(find(self.fds, *group)?))
    }

    /// The parent takes the end of the channel for the success of execve(2), which there is none of here.
    fn keep_processes(&mut self) -> ! {
        signal::ignore_children();
        self.announce();
        if fd::close_all().is_err() {
            end(127);
        }
        signal::wait_for_end()
    }

    /// Waits for the parent's word; a parent that has died says nothing any more.
    fn await_word(&self) -> Result<(), Errno> {
        let mut word = [0_u8; 1];
        match rustix::net::recv(self.channel, &mut word, RecvFlags::empty())? {
            (0, _) => end(127),
            _ => Ok(()),
        }
    }

    /// The parent has gone its way once it knows; what follows is not told to anybody.
    fn await_start(&self, fifo: BorrowedFd<'_>) -> Result<(), Errno> {
        channel::say_waiting(self.channel)?;
        let mut word = [0_u8; 1];
        loop {
            match rustix::io::read(fifo, &mut word) {
                Ok(0) => end(127),
                Err(Errno::INTR) => {}
                result => return result.map(drop),
            }
        }
    }

    /// Comes after the groups are joined, so that their rules for devices hold for what is opened here.
    fn own_null_device(&self) -> Result<(), Errno> {
        let root = self.root()?;
        if mounts::is_null(rustix::stdio::stdin())? {
            rustix::stdio::dup2_stdin(mounts::open_null(root)?)?;
        }
        if mounts::is_null(rustix::stdio::stdout())? {
            rustix::stdio::dup2_stdout(mounts::open_null(root)?)?;
        }
        if mounts::is_null(rustix::stdio::stderr())? {
            rustix::stdio::dup2_stderr(mounts::open_null(root)?)?;
        }
        Ok(())
    }

    /// getppid(2) would not tell in a new process namespace, where the parent has no id; the channel does.
    fn die_with_parent(&self, signal: i32) -> Result<(), Errno> {
        credentials::die_with_parent(signal)?;
        let mut ends = [PollFd::new(&self.channel, PollFlags::empty())];
        poll(&mut ends, Some(&rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        if ends[0].revents().contains(PollFlags::HUP) {
            end(127);
        }
        Ok(())
    }

    fn find_program(&mut self) -> Result<(), Errno> {
        let root = self.root.as_ref().map(|root| root.as_fd()).ok_or(Errno::NOTDIR)?;
        self.found.search(root, &self.script.program)
    }

    fn terminal(&self, bind_console: bool, uid: u32, size: Option<(u16, u16)>) -> Result<(), Errno> {
        let root = self.root()?;
        let master = mounts::open_terminal(root)?;
        tty::unlock(master.as_fd())?;
        let terminal = tty::open_peer(master.as_fd())?;
        rustix::fs::fchown(&terminal, Some(rustix::fs::Uid::from_raw(uid)), None)?;
        if let Some((rows, columns)) = size {
            tty::set_size(terminal.as_fd(), rows, columns)?;
        }
        if bind_console {
            mounts::bind_over(root, terminal.as_fd(), c"/dev/console")?;
        }
        channel::say_terminal(self.channel, master.as_fd())?;
        tty::make_controlling(terminal.as_fd())?;
        self.set_stdio(terminal.as_fd(), terminal.as_fd(), terminal.as_fd())
    }
}

/// Whether a step is worth a warning only when the kernel refuses it.
fn may_be_refused(step: &Step, errno: Errno) -> bool {
    matches!(step, Step::OomScore { .. } | Step::Limit { .. }) && matches!(errno, Errno::ACCESS | Errno::PERM)
}

/// A path that is put together without allocating.
pub(super) fn joined<'b>(buffer: &'b mut [u8], parts: &[&CStr]) -> Result<&'b CStr, Errno> {
    let mut end = 0;
    for part in parts {
        let bytes = part.to_bytes();
        let room = buffer.get_mut(end..end + bytes.len()).ok_or(Errno::NAMETOOLONG)?;
        room.copy_from_slice(bytes);
        end += bytes.len();
    }
    *buffer.get_mut(end).ok_or(Errno::NAMETOOLONG)? = 0;
    CStr::from_bytes_with_nul(&buffer[..=end]).map_err(|_| Errno::INVAL)
}

/// Flags with which every descriptor of the child is opened for reading.
pub(super) const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC);
