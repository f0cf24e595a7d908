//! What every test needs: a root file system, a group, a way to run a configuration and read what it prints.

use std::fs;
use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use oci::cgroup::{Group, Hierarchies};
use oci::container::compile::{Compiled, HostFacts, compile, compile_exec, defaults, open};
use oci::container::rootfs::{Overlay, Recursive, clone_host_path, overlay};
use oci::container::{Launch, StartError, Started, Stdio, begin, exec, start};
use oci_spec::runtime::{Process, Spec};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Where the payload is inside.
pub(crate) const PAYLOAD: &str = "/bin/payload";

/// A place to run containers in.
pub(crate) struct Stage {
    pub(crate) directory: TempDir,
    pub(crate) group: Group,
    pub(crate) host: HostFacts,
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
        let stage = Self { directory: tempfile::tempdir().unwrap(), group, host };
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
        let stdio = Stdio { stdin: stdin.as_fd(), stdout: stdout_end.as_fd(), stderr: stdout_end.as_fd() };
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
        let mut line = [0; 6];
        self.stdout.read_exact(&mut line).unwrap();
        assert_eq!(&line, b"ready\n");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pidfd = self.started.pidfd.as_fd();
        let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
        let _ = waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED);
    }
}

pub(crate) fn spec(config: &Value) -> Spec {
    serde_json::from_value(config.clone()).unwrap()
}

/// Cargo builds examples beside the directory of tests.
fn payload() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.parent().and_then(Path::parent).unwrap().join("examples/payload")
}

/// Files that a dynamically linked program needs: those that this one has mapped, and the loader under the name that
/// programs know it by.
fn libraries() -> Vec<PathBuf> {
    let own = std::env::current_exe().unwrap();
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
