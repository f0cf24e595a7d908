//! What every test needs: a bundle, a runtime, containers that are gone afterwards.

use std::fs::{self, File};
use std::io::{PipeReader, PipeWriter, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, getpid, pidfd_open, set_child_subreaper, waitid};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::groups::hierarchies;
use crate::invoke::{self, Ran};

/// Programs of busybox that scripts use; the shell has more of its own.
const PROGRAMS: &[&str] = &[
    "awk", "cat", "chmod", "chown", "chrt", "cut", "dd", "df", "env", "grep", "head", "hostname", "id", "ionice", "ls",
    "mkdir", "mknod", "mount", "od", "readlink", "rm", "rmdir", "sed", "seq", "sh", "sleep", "sort", "stat", "stty",
    "sync", "touch", "tr", "true", "tty", "umount", "uname", "wc", "xargs",
];

/// Cases that coracle itself is known to fail, each with what it lacks. `scripts/runtime-conformance` counts them as the
/// failures that they are, and complains about one that has come to pass.
const GAPS: &str = include_str!("../../testdata/runtime-gaps.txt");

/// A bundle and the runtime's state directory. Removes what its containers left when dropped.
pub(crate) struct Stage {
    directory: TempDir,
    /// The identifier of the container, also the last part of its cgroup's path.
    pub(crate) id: String,
    /// What becomes the bundle's `config.json`.
    pub(crate) config: Value,
    /// A program and arguments that start the runtime, for a case that needs something else around it.
    pub(crate) around: Vec<String>,
}

impl Stage {
    /// None, and a line that says so, where nothing can be tested.
    pub(crate) fn new() -> Option<Self> {
        static REAPER: Once = Once::new();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIP {test}: not root");
            return None;
        }
        if std::env::var_os("CORACLE_OCI_RUNTIME").is_none()
            && let Some(gap) = GAPS.lines().find_map(|line| line.strip_prefix(&test)?.strip_prefix(": "))
        {
            eprintln!("SKIP {test}: coracle oci does not have this yet: {gap}");
            return None;
        }
        // Containers outlive the runtime's commands; as those of a supervisor, they then become children of this process.
        REAPER.call_once(|| set_child_subreaper(Some(getpid())).unwrap());
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let id = format!("coracle-test-{}-{number}", std::process::id());
        let directory = tempfile::tempdir().unwrap();
        // Mapped users pass through, too.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let stage = Self { config: base(&id), directory, id, around: Vec::new() };
        stage.build_rootfs();
        Some(stage)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A path of the host below the bundle's root file system.
    pub(crate) fn rootfs(&self, name: &str) -> PathBuf {
        self.path("bundle/rootfs").join(name)
    }

    pub(crate) fn bundle(&self) -> PathBuf {
        self.path("bundle")
    }

    /// A file of the host in this test's directory, which must not be there yet.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn build_rootfs(&self) {
        for name in ["bin", "tmp", "etc", "proc", "sys", "dev"] {
            fs::create_dir_all(self.rootfs(name)).unwrap();
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        fs::copy(busybox.expect("busybox-static is installed"), self.rootfs("bin/busybox")).unwrap();
        for name in PROGRAMS {
            symlink("busybox", self.rootfs("bin").join(name)).unwrap();
        }
    }

    /// Changes the configuration as a merge patch of RFC 7396 does: null removes, lists are replaced.
    pub(crate) fn patch(&mut self, patch: &Value) -> &mut Self {
        merge(&mut self.config, patch);
        self
    }

    /// Appends to a list of the configuration, which is made if there is none.
    pub(crate) fn push(&mut self, pointer: &str, item: Value) -> &mut Self {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let list = &mut self.config.pointer_mut(parent).unwrap()[name];
        if list.is_null() {
            *list = json!([]);
        }
        list.as_array_mut().unwrap().push(item);
        self
    }

    /// Makes the container's program a script.
    pub(crate) fn script(&mut self, script: &str) -> &mut Self {
        self.patch(&json!({"process": {"args": ["/bin/sh", "-c", script]}}))
    }

    pub(crate) fn write_config(&self) {
        fs::write(self.path("bundle/config.json"), serde_json::to_vec(&self.config).unwrap()).unwrap();
    }

    /// The runtime's command line up to its subcommand.
    pub(crate) fn runtime() -> Vec<String> {
        match std::env::var("CORACLE_OCI_RUNTIME") {
            Ok(line) => line.split_whitespace().map(str::to_owned).collect(),
            Err(_) => vec![env!("CARGO_BIN_EXE_coracle").to_owned(), "oci".to_owned()],
        }
    }

    fn commands(&self) -> Runtime {
        let mut words = self.around.clone();
        words.extend(Self::runtime());
        words.extend(["--root".to_owned(), self.path("state").display().to_string()]);
        Runtime { words, id: self.id.clone(), bundle: self.bundle() }
    }

    /// One command of the runtime, without input.
    pub(crate) fn call(&self, words: &[&str]) -> Ran {
        self.call_with(words, Stdio::null())
    }

    pub(crate) fn call_with(&self, words: &[&str], stdin: Stdio) -> Ran {
        self.commands().call(words, stdin)
    }

    /// Runs the container to its end.
    pub(crate) fn run(&self) -> Ran {
        self.run_with(Stdio::null())
    }

    pub(crate) fn run_with(&self, stdin: Stdio) -> Ran {
        self.write_config();
        self.call_with(&["run", "--bundle", ".", &self.id], stdin)
    }

    /// What a script prints inside; it must succeed.
    #[track_caller]
    pub(crate) fn output(&mut self, script: &str) -> String {
        self.script(script).run().ok().to_owned()
    }

    /// Creates the container with the configuration as it is and returns what the command said.
    pub(crate) fn try_create(&self) -> Ran {
        self.write_config();
        self.call(&["create", "--bundle", ".", &self.id])
    }

    /// Creates the container; its input and output are pipes of the test.
    #[track_caller]
    pub(crate) fn create(&self) -> Container {
        let (stdin, input) = std::io::pipe().unwrap();
        let (output, stdout) = std::io::pipe().unwrap();
        let errors = self.path("create-errors");
        self.write_config();
        let runtime = self.commands();
        let mut command = runtime.command(&["create", "--bundle", ".", &self.id]);
        command.stdin(stdin).stdout(stdout).stderr(File::create(&errors).unwrap());
        let child = command.spawn().unwrap();
        drop(command);
        let status = invoke::end_of(child, "create");
        assert!(status.success(), "create failed: {}", fs::read_to_string(&errors).unwrap());
        let pid = self.pid();
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        Container { runtime, pid, pidfd, input: Some(input), output, errors }
    }

    /// Kills the runtime some time after it has begun to create the container.
    pub(crate) fn create_and_kill(&self, after: Duration) {
        self.write_config();
        let runtime = self.commands();
        let mut command = runtime.command(&["create", "--bundle", ".", &self.id]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        let pause = Timespec::try_from(after).unwrap();
        // It ends early only when the creation has ended before.
        let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&pause)).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Starts a script that first prints `ready`, and waits until it has.
    #[track_caller]
    pub(crate) fn start(&mut self, script: &str) -> Container {
        self.script(&format!("echo ready; {script}"));
        let mut container = self.create();
        self.call(&["start", &self.id]).ok();
        assert_eq!(container.line(), "ready");
        container
    }

    /// Starts a container that goes on until the test ends its input.
    #[track_caller]
    pub(crate) fn start_waiting(&mut self) -> Container {
        self.start("exec cat")
    }

    /// Deletes the container, running or not, while its supervisor collects its end: to runc, a process whose end nobody
    /// collects is running for ten more seconds.
    pub(crate) fn delete_forced(&self) -> Ran {
        self.commands().delete_forced()
    }

    pub(crate) fn state(&self) -> Value {
        serde_json::from_str(self.call(&["state", &self.id]).ok()).unwrap()
    }

    #[track_caller]
    pub(crate) fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    fn pid(&self) -> Pid {
        let number = self.state()["pid"].as_i64().unwrap();
        Pid::from_raw(i32::try_from(number).unwrap()).unwrap()
    }

    /// Directories of the host's that are the container's cgroup, one per hierarchy.
    pub(crate) fn group_directories(&self) -> Vec<PathBuf> {
        let own = |root: &PathBuf| root.join(&self.id);
        hierarchies().iter().map(|hierarchy| own(&hierarchy.root)).filter(|path| path.exists()).collect()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Whether the runtime still knows it decides nothing here: what follows removes what is left.
        drop(self.delete_forced());
        for directory in self.group_directories() {
            remove_group(&directory);
        }
    }
}

/// Kills what runs in a cgroup of this test and removes it with those below.
fn remove_group(directory: &Path) {
    let below = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    for path in below.filter(|path| path.is_dir()) {
        remove_group(&path);
    }
    let processes = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    for pid in processes.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)) {
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
        invoke::readable(&pidfd);
        let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    }
    let _ = fs::remove_dir(directory);
}

/// The command line of the runtime under test, for one container.
struct Runtime {
    words: Vec<String>,
    id: String,
    bundle: PathBuf,
}

impl Runtime {
    fn command(&self, words: &[&str]) -> Command {
        let mut all = self.words.clone();
        all.extend(words.iter().map(|word| (*word).to_owned()));
        let mut command = invoke::command(&all);
        command.current_dir(&self.bundle);
        command
    }

    fn call(&self, words: &[&str], stdin: Stdio) -> Ran {
        invoke::run(self.command(words), stdin, self.bundle.parent().unwrap())
    }

    fn delete_forced(&self) -> Ran {
        let state = self.call(&["state", &self.id], Stdio::null());
        let state: Value = serde_json::from_str(&state.out).unwrap_or_default();
        let pid = state["pid"].as_i64().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        std::thread::scope(|scope| {
            let collector = pid.and_then(|pid| Some((pid, pidfd_open(pid, PidfdFlags::empty()).ok()?)));
            scope.spawn(|| {
                let Some((pid, pidfd)) = collector else { return };
                invoke::readable(&pidfd);
                // No child is left by a runtime that does not create it as one of its own.
                let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
            });
            self.call(&["delete", "--force", &self.id], Stdio::null())
        })
    }
}

/// A created container.
pub(crate) struct Container {
    runtime: Runtime,
    pub(crate) pid: Pid,
    pidfd: OwnedFd,
    input: Option<PipeWriter>,
    output: PipeReader,
    errors: PathBuf,
}

impl Container {
    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// A file of `/proc` about the first process.
    pub(crate) fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid()))
    }

    /// The next line that it prints.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        let mut line = Vec::new();
        loop {
            assert!(invoke::readable(&self.output), "nothing is printed: {}", self.complaints());
            let mut byte = [0];
            let count = self.output.read(&mut byte).unwrap();
            assert_eq!(count, 1, "it ended after {:?}: {}", String::from_utf8_lossy(&line), self.complaints());
            if byte[0] == b'\n' {
                return String::from_utf8(line).unwrap();
            }
            line.push(byte[0]);
        }
    }

    fn complaints(&self) -> String {
        fs::read_to_string(&self.errors).unwrap()
    }

    /// Lets a program that reads its input to the end do so.
    pub(crate) fn end_input(&mut self) {
        self.input.take();
    }

    /// Waits until the first process has ended. Its end is not collected.
    #[track_caller]
    pub(crate) fn await_end(&self) {
        assert!(invoke::readable(&self.pidfd), "the container goes on");
    }

    /// Waits for the first process as its supervisor, whose child it is: its exit code or the signal that ended it.
    #[track_caller]
    pub(crate) fn reap(&self) -> (Option<i32>, Option<i32>) {
        self.await_end();
        let status = waitid(WaitId::Pid(self.pid), WaitIdOptions::EXITED).expect("it is a child of its supervisor");
        let status = status.unwrap();
        (status.exit_status(), status.terminating_signal())
    }

    /// Runs a script in the container.
    pub(crate) fn exec(&self, script: &str) -> Ran {
        self.exec_with(&[], script)
    }

    pub(crate) fn exec_with(&self, flags: &[&str], script: &str) -> Ran {
        let mut words = vec!["exec"];
        words.extend(flags);
        words.extend([self.runtime.id.as_str(), "/bin/sh", "-c", script]);
        self.runtime.call(&words, Stdio::null())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        drop(self.runtime.delete_forced());
    }
}

/// A usual configuration.
fn base(id: &str) -> Value {
    let capabilities = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_MKNOD"];
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "process": {
            "user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["/bin/true"], "env": ["PATH=/bin"],
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
                "inheritable": [], "ambient": [],
            },
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        ],
        "linux": {
            "cgroupsPath": format!("/{id}"),
            "namespaces": [{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
        },
    })
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let target = target.as_object_mut().unwrap();
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            merge(target.entry(name).or_insert(Value::Null), value);
        }
    }
}
