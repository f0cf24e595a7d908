//! What every test needs: a root file system, a group, a way to run a configuration and read what it prints.

use std::fs;
use std::io::{PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use oci::cgroup::{Group, Hierarchies};
use oci::container::compile::{Compiled, HostFacts, compile, compile_exec, defaults, open};
use oci::container::rootfs::{Overlay, Recursive, clone_host_path, overlay};
use oci::container::{Fd, Launch, StartError, Started, Starting, Stdio, Step, begin, begin_exec, exec, start};
use oci_spec::runtime::{Process, Spec};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Where the payload is inside.
pub(crate) const PAYLOAD: &str = "/bin/payload";

/// What a usual configuration gives: CAP_CHOWN, CAP_KILL and CAP_SYS_ADMIN.
pub(crate) const GIVEN: &str = "0000000000200021";

/// No capabilities.
pub(crate) const NONE: &str = "0000000000000000";

/// A place to run containers in.
pub(crate) struct Stage {
    pub(crate) directory: TempDir,
    pub(crate) group: Group,
    pub(crate) host: HostFacts,
    /// The standard input of what is started, in place of a pipe.
    pub(crate) stdin: Option<OwnedFd>,
}

impl Stage {
    /// None, and a line that says so, where this cannot be tested.
    pub(crate) fn new(test: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIP {test}: not root");
            return None;
        }
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let host = HostFacts::detect().unwrap();
        let name = format!("coracle-oci-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let group = Group::new(&Hierarchies::detect().unwrap(), Path::new(&name)).unwrap();
        group.create().unwrap();
        let stage = Self { directory: tempfile::tempdir().unwrap(), group, host, stdin: None };
        stage.build_layer();
        Some(stage)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The directory that is the lowest layer.
    pub(crate) fn layer(&self) -> PathBuf {
        self.path("layer")
    }

    fn build_layer(&self) {
        for name in ["bin", "tmp", "etc", "proc"] {
            fs::create_dir_all(self.layer().join(name)).unwrap();
        }
        let copied = fs::copy(payload(), self.layer().join("bin/payload"));
        copied.expect("the example `payload` is built by `cargo test` without a choice of targets");
    }

    /// A usual configuration that runs the payload as root with some mounts.
    pub(crate) fn config(&self, args: &[&str]) -> Value {
        let mut all = vec![PAYLOAD];
        all.extend(args);
        let mut mounts = serde_json::to_value(defaults::mounts()).unwrap();
        for library in libraries() {
            let options = ["bind", "ro"];
            let bind = json!({"destination": library, "type": "bind", "source": library, "options": options});
            mounts.as_array_mut().unwrap().push(bind);
        }
        json!({
            "ociVersion": "1.2.0",
            "root": {"path": "rootfs"},
            "process": {
                "user": {"uid": 0, "gid": 0}, "cwd": "/", "args": all, "env": ["PATH=/nowhere:/bin"],
                "capabilities": {
                    "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_SYS_ADMIN"],
                    "effective": ["CAP_CHOWN", "CAP_KILL", "CAP_SYS_ADMIN"],
                    "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_SYS_ADMIN"],
                },
            },
            "mounts": mounts,
            "linux": {
                "namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "cgroup"}, {"type": "uts"}, {"type": "ipc"}],
                "maskedPaths": defaults::MASKED_PATHS,
                "readonlyPaths": defaults::READONLY_PATHS,
            },
        })
    }

    fn rootfs(&self) -> OwnedFd {
        let lower = [self.layer()];
        let (upper, work) = (self.path("upper"), self.path("work"));
        overlay(&Overlay { lower: &lower, upper: &upper, work: &work, volatile: false }).unwrap()
    }

    /// Starts a container.
    pub(crate) fn start(&self, config: &Value) -> Result<Running, StartError> {
        let compiled = compile(&spec(config), &self.host).unwrap();
        self.launch(&compiled, Some(self.rootfs()), None)
    }

    /// Begins to start a container and gives up at once.
    pub(crate) fn abandon(&self, config: &Value) {
        let compiled = compile(&spec(config), &self.host).unwrap();
        let owned = open(&compiled.descriptors, Some(self.rootfs()), &self.group.open_joins().unwrap()).unwrap();
        let fds: Vec<BorrowedFd<'_>> = owned.iter().map(AsFd::as_fd).collect();
        let null = fs::File::open("/dev/null").unwrap();
        let stdio = Stdio { stdin: null.as_fd(), stdout: null.as_fd(), stderr: null.as_fd() };
        drop(begin(&Launch { script: &compiled.script, fds: &fds, stdio }).unwrap());
    }

    /// Runs a container to its end; what it printed.
    pub(crate) fn run(&self, config: &Value) -> String {
        self.start(config).unwrap().output()
    }

    /// Starts a further process in a container.
    pub(crate) fn exec(&self, config: &Value, inside: &Running) -> Result<Running, StartError> {
        let spec = spec(config);
        let process: Process = spec.process().clone().unwrap();
        let compiled = compile_exec(&spec, &process, &self.host).unwrap();
        self.launch(&compiled, None, Some(inside.started.pidfd.as_fd()))
    }

    /// Begins to start a container, or a further process in one, that stops just before it becomes its program and
    /// stays there until it is killed.
    pub(crate) fn begin_stuck(&self, config: &Value, inside: Option<&Running>) -> (Starting, PipeReader) {
        let (spec, joins) = (spec(config), self.group.open_joins().unwrap());
        let mut compiled = match inside {
            None => compile(&spec, &self.host).unwrap(),
            Some(_) => compile_exec(&spec, spec.process().as_ref().unwrap(), &self.host).unwrap(),
        };
        // It joins its groups last, and the last of these is a pipe that is full.
        let steps = &mut compiled.script.steps;
        steps.retain(|step| !matches!(step, Step::JoinGroups));
        steps.push(Step::JoinGroups);
        let (reader, full) = full_pipe();
        compiled.script.joins.push(Fd(u16::try_from(compiled.descriptors.len()).unwrap()));
        let rootfs = inside.is_none().then(|| self.rootfs());
        let mut owned = open(&compiled.descriptors, rootfs, &joins).unwrap();
        owned.push(full.into());
        let fds: Vec<BorrowedFd<'_>> = owned.iter().map(AsFd::as_fd).collect();
        let (_, silent) = std::io::pipe().unwrap();
        let stdio = Stdio { stdin: silent.as_fd(), stdout: silent.as_fd(), stderr: silent.as_fd() };
        let launch = Launch { script: &compiled.script, fds: &fds, stdio };
        let starting = match inside {
            None => begin(&launch).unwrap(),
            Some(inside) => begin_exec(&launch, inside.started.pidfd.as_fd()).unwrap(),
        };
        await_rest(starting.pid());
        (starting, reader)
    }

    pub(crate) fn launch(
        &self,
        compiled: &Compiled,
        rootfs: Option<OwnedFd>,
        target: Option<BorrowedFd<'_>>,
    ) -> Result<Running, StartError> {
        let mut owned = open(&compiled.descriptors, rootfs, &self.group.open_joins().unwrap()).unwrap();
        owned.extend(compiled.starter_paths.iter().map(|path| clone_host_path(path, Recursive::Yes).unwrap()));
        let fds: Vec<BorrowedFd<'_>> = owned.iter().map(AsFd::as_fd).collect();
        let (stdin, stdin_end) = std::io::pipe().unwrap();
        let (stdout, stdout_end) = std::io::pipe().unwrap();
        let input = self.stdin.as_ref().map_or(stdin.as_fd(), AsFd::as_fd);
        let stdio = Stdio { stdin: input, stdout: stdout_end.as_fd(), stderr: stdout_end.as_fd() };
        let launch = Launch { script: &compiled.script, fds: &fds, stdio };
        let started = match target {
            Some(target) => exec(&launch, target)?,
            None => start(&launch)?,
        };
        Ok(Running { started, stdin: Some(stdin_end), stdout })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.group.kill_all().unwrap();
        self.group.remove().unwrap();
    }
}

/// A process that runs inside; killed and reaped when dropped.
pub(crate) struct Running {
    pub(crate) started: Started,
    pub(crate) stdin: Option<std::io::PipeWriter>,
    pub(crate) stdout: std::io::PipeReader,
}

impl Running {
    /// Ends its input; everything that it prints until it ends.
    pub(crate) fn output(mut self) -> String {
        self.stdin.take();
        let mut text = String::new();
        self.stdout.read_to_string(&mut text).unwrap();
        text
    }

    /// Waits until it prints `ready`.
    pub(crate) fn await_ready(&mut self) {
        self.await_line("ready");
    }

    /// Waits until it prints this and nothing else.
    pub(crate) fn await_line(&mut self, expected: &str) {
        let mut line = vec![0; expected.len() + 1];
        self.stdout.read_exact(&mut line).unwrap();
        assert_eq!(String::from_utf8_lossy(&line), format!("{expected}\n"));
    }

    /// All that it prints up to this line, without that. For tests in which another process is stuck: until that ends,
    /// it may have a copy of the other end of any pipe.
    pub(crate) fn lines_until(&mut self, last: &str) -> Vec<String> {
        let mut lines = vec![String::new()];
        loop {
            let mut byte = [0];
            self.stdout.read_exact(&mut byte).unwrap();
            let line = lines.last_mut().unwrap();
            match byte[0] {
                b'\n' if line == last => break,
                b'\n' => lines.push(String::new()),
                byte => line.push(char::from(byte)),
            }
        }
        lines.pop();
        lines
    }

    /// Gives it an empty line to read.
    pub(crate) fn go_on(&mut self) {
        self.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pidfd = self.started.pidfd.as_fd();
        let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
        let _ = waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED);
    }
}

/// A pipe that nothing more can be written to.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while writer.write(&[0; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    (reader, writer)
}

/// Waits until a child sleeps and has lost capabilities before. Polls, because there is nothing that could be waited for.
fn await_rest(pid: i32) {
    let own = rustix::thread::capabilities(None).unwrap().permitted.bits();
    for _ in 0..100_000 {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
        if field("State:").starts_with('S') && field("CapPrm:") != format!("{own:016x}") {
            return;
        }
        std::thread::yield_now();
    }
    panic!("process {pid} does not come to rest");
}

pub(crate) fn spec(config: &Value) -> Spec {
    serde_json::from_value(config.clone()).unwrap()
}

/// The file of this test, by the name that it was executed by: where a sealed program is, the kernel cannot tell.
pub(crate) fn own_program() -> PathBuf {
    std::env::args_os().next().unwrap().into()
}

/// Cargo builds examples beside the directory of tests.
fn payload() -> PathBuf {
    own_program().parent().and_then(Path::parent).unwrap().join("examples/payload")
}

/// Files that a dynamically linked program needs: those that this one has mapped, and the loader under the name that
/// programs know it by.
fn libraries() -> Vec<PathBuf> {
    let own = own_program();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mut found: Vec<PathBuf> = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5))
        .filter(|path| path.starts_with('/') && path.contains(".so"))
        .map(PathBuf::from)
        .filter(|path| *path != own)
        .collect();
    found.push(loader(&fs::read(&own).unwrap()));
    found.sort();
    found.dedup();
    found
}

/// The path in the PT_INTERP segment: the first string of an ELF file that names a loader.
fn loader(program: &[u8]) -> PathBuf {
    let text = &program[..4096];
    let strings = text.split(|byte| *byte == 0).filter_map(|bytes| std::str::from_utf8(bytes).ok());
    let name = strings.map(str::trim).find(|string| string.starts_with('/') && string.contains("/ld-"));
    PathBuf::from(name.unwrap())
}
