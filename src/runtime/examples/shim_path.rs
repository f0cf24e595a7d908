//! Measures what the kubelet waits for: sandboxes with network, containers in them, commands in those, and the shim's memory.
//!
//! usage: `cargo run --release -p runtime --example shim_path [--starts N] [--execs N] [--pods N] [--idle-ms N] [--root DIR]`
//!
//! Prints one figure a line: `name p50 p90 min max count unit`; lines with `#` are for readers. Every figure is taken
//! twice: `busy`, one round at once after the other, and `idle`, with a pause before each round, because a host that rests
//! answers some calls later (a move between v1 control groups waits for a grace period of RCU). The clocks of processors
//! that sleep in between are slower too, so `idle` is never quite as fast. Needs root and a static busybox. All of it is
//! below a directory and control groups of its own, in a network namespace of its own, and is removed in the end.

#![expect(clippy::print_stdout, reason = "its output is its purpose")]
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a failed measurement ends with what failed")]

use std::fs;
use std::future::Future;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use net::{Attach, NativeNetwork, NativeNetworkConfig, Network};
use oci::cgroup::{Group, Hierarchies};
use runtime::{
    ContainerId, ContainerSpec, ContainerState, Credentials, ExecSpec, Image, ImageDefaults, ImageError, ImageId,
    Images, LogLimits, NativeConfig, NativeRuntime, PidLimits, PidSharing, Privileges, PullProgress, Resources,
    Runtime, SandboxId, SandboxSpec, Sharing, User,
};
use task::{SystemClock, Tasks};
use tokio::time::Instant;

mod build {
    #![expect(clippy::disallowed_methods, reason = "it builds the program that it measures")]
    include!("../../../oci/embed/build_program.rs");

    pub(super) fn shim() -> &'static [u8] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
        // <target directory>/<profile>/examples/<this>
        let own = std::env::current_exe().unwrap();
        let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let program = build_program("coracle-shim", true, root, own.ancestors().nth(3).unwrap(), &target).unwrap();
        std::fs::read(program).unwrap().leak()
    }
}

/// What is asked for on the command line.
#[derive(Debug, Clone)]
struct Options {
    starts: usize,
    execs: usize,
    pods: usize,
    idle: Duration,
    root: PathBuf,
}

impl Options {
    fn read() -> Self {
        let mut read =
            Self { starts: 50, execs: 100, pods: 10, idle: Duration::from_millis(100), root: std::env::temp_dir() };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments.next().unwrap_or_else(|| panic!("{name} needs a value"));
            let number = || value.parse::<usize>().unwrap_or_else(|_| panic!("{name} needs a number"));
            match name.as_str() {
                "--starts" => read.starts = number(),
                "--execs" => read.execs = number(),
                "--pods" => read.pods = number(),
                "--idle-ms" => read.idle = Duration::from_millis(number().try_into().unwrap()),
                "--root" => read.root = PathBuf::from(value),
                _ => panic!("unknown option {name}"),
            }
        }
        read
    }
}

/// A node that is measured.
struct Bench {
    directory: PathBuf,
    cgroup: PathBuf,
    tasks: Tasks,
    runtime: NativeRuntime,
    network: NativeNetwork,
    options: Options,
}

/// An image store with one image of one layer.
struct OneImage(PathBuf);

#[async_trait]
impl Images for OneImage {
    async fn pull(
        &self,
        reference: &str,
        _credentials: &[Credentials],
        _progress: &PullProgress,
    ) -> Result<Image, ImageError> {
        Err(ImageError::InvalidName { reference: reference.to_owned(), message: "no registry".to_owned() })
    }

    async fn find(&self, reference: &str) -> Result<Option<Image>, ImageError> {
        let (digests, tags, defaults) = (Vec::new(), Vec::new(), ImageDefaults::default());
        let layers = vec![self.0.clone()];
        let known = reference == image().0;
        Ok(known.then(|| Image { id: image(), tags, digests, size: 0, defaults, layers, pinned: true }))
    }

    async fn list(&self) -> Result<Vec<Image>, ImageError> {
        Ok(self.find(&image().0).await?.into_iter().collect())
    }

    async fn remove(&self, _image: &ImageId) -> Result<(), ImageError> {
        Ok(())
    }
}

fn image() -> ImageId {
    ImageId("sha256:0".to_owned())
}

/// A layer with a shell.
fn layer(path: &Path) {
    for directory in ["bin", "etc", "tmp"] {
        fs::create_dir_all(path.join(directory)).unwrap();
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    fs::copy(busybox.expect("a static busybox (Debian: busybox-static)"), path.join("bin/busybox")).unwrap();
    for name in ["sh", "sleep", "true"] {
        symlink("busybox", path.join("bin").join(name)).unwrap();
    }
    fs::write(path.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
    fs::write(path.join("etc/group"), "root:x:0:\n").unwrap();
}

/// Milliseconds of one step, round after round.
#[derive(Debug, Default)]
struct Figure(Vec<f64>);

impl Figure {
    async fn time<T>(&mut self, step: impl Future<Output = T>) -> T {
        let from = Instant::now();
        let result = step.await;
        self.0.push(from.elapsed().as_secs_f64() * 1e3);
        result
    }

    fn print(mut self, name: &str, unit: &str) {
        self.0.sort_by(f64::total_cmp);
        let at = |numerator: usize| self.0[(self.0.len() * numerator / 100).min(self.0.len() - 1)];
        let (least, most) = (at(0), at(100));
        println!("{name} {:.2} {:.2} {least:.2} {most:.2} {} {unit}", at(50), at(90), self.0.len());
    }
}

impl Bench {
    async fn new(options: Options) -> Self {
        let directory = options.root.join(format!("coracle-bench-{}", std::process::id()));
        layer(&directory.join("layer"));
        let tasks = Tasks::new();
        let config = NativeConfig {
            root: directory.join("state"),
            shim: build::shim(),
            images: Arc::new(OneImage(directory.join("layer"))),
            clock: Arc::new(SystemClock),
            tasks: tasks.clone(),
            logs: LogLimits::default(),
            pids: PidLimits::of_host(),
            handlers: Default::default(),
            start_deadline: Duration::from_secs(120),
        };
        let network = NativeNetworkConfig {
            instance: format!("bench{}", std::process::id()),
            pods: "10.99.0.0/16".parse().unwrap(),
            cluster: "10.99.0.0/16".parse().unwrap(),
            state: directory.join("net"),
            mtu: 1500,
            api: None,
        };
        let runtime = NativeRuntime::start(config).await.unwrap();
        let network = NativeNetwork::start(network).await.unwrap();
        let cgroup = PathBuf::from(format!("coracle-bench-{}", std::process::id()));
        Self { directory, cgroup, tasks, runtime, network, options }
    }

    fn sandbox(&self, uid: &str) -> SandboxSpec {
        SandboxSpec {
            id: SandboxId::new(uid, 0),
            pod_uid: uid.to_owned(),
            attempt: 0,
            namespace: "default".to_owned(),
            name: uid.to_owned(),
            hostname: "bench".to_owned(),
            network: Sharing::Sandbox,
            ipc: Sharing::Sandbox,
            pid: PidSharing::Container,
            cgroup: self.cgroup.join("besteffort").join(format!("pod{uid}")),
            resources: Resources { cpu_shares: Some(2), ..Resources::default() },
            log_directory: self.directory.join("logs").join(uid),
            sysctls: Default::default(),
            user_namespace: None,
            handler: None,
        }
    }

    async fn connect(&self, sandbox: &SandboxId) {
        let namespace = self.runtime.network_namespace(sandbox).await.unwrap();
        self.network.attach(Attach { sandbox: sandbox.0.clone(), namespace, ports: Vec::new() }).await.unwrap();
    }

    /// A pod as the kubelet makes it.
    async fn start_pod(&self, uid: &str, figures: &mut [Figure; 4]) -> (SandboxId, ContainerId) {
        let spec = self.sandbox(uid);
        let sandbox = spec.id.clone();
        let container = container(uid, "main");
        let id = container.id.clone();
        let [whole, create, connect, start] = figures;
        let steps = async {
            create.time(self.runtime.create_sandbox(spec)).await.unwrap();
            connect.time(self.connect(&sandbox)).await;
            start.time(self.runtime.start_container(&sandbox, container)).await.unwrap();
        };
        whole.time(steps).await;
        (sandbox, id)
    }

    async fn remove_pod(&self, sandbox: &SandboxId) {
        self.network.detach(&sandbox.0).await.unwrap();
        self.runtime.remove_sandbox(sandbox).await.unwrap();
    }

    async fn starts(&self, kind: &str, pause: Duration) {
        let mut figures: [Figure; 4] = Default::default();
        let mut removal = Figure::default();
        for round in 0..self.options.starts {
            tokio::time::sleep(pause).await;
            let (sandbox, _) = self.start_pod(&format!("{kind}-{round}"), &mut figures).await;
            removal.time(self.remove_pod(&sandbox)).await;
        }
        let names = ["pod_start", "pod_start.sandbox", "pod_start.network", "pod_start.container"];
        for (name, figure) in names.into_iter().zip(figures) {
            figure.print(&format!("{name}.{kind}"), "ms");
        }
        removal.print(&format!("pod_remove.{kind}"), "ms");
    }

    async fn exec(&self, sandbox: &SandboxId, container: &ContainerId) {
        let spec = ExecSpec { args: vec!["/bin/true".to_owned()], timeout: None, output_limit: 1 << 10, again: false };
        let result = self.runtime.exec(sandbox, container, spec).await.unwrap();
        assert_eq!(result.code, Some(0), "{result:?}");
    }

    async fn execs(&self, sandbox: &SandboxId, container: &ContainerId, kind: &str, pause: Duration) {
        let mut figure = Figure::default();
        for _ in 0..self.options.execs {
            tokio::time::sleep(pause).await;
            figure.time(self.exec(sandbox, container)).await;
        }
        figure.print(&format!("exec.{kind}"), "ms");
    }

    /// Memory of all shims with everything that belongs to them, after a command in each container.
    async fn memory(&self, pods: &[(SandboxId, ContainerId)], containers: usize) {
        // Processes that write what the containers have said leave after a moment without output.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let mut figure = Figure::default();
        for (sandbox, container) in pods {
            let status = self.runtime.status(sandbox).await.unwrap().unwrap();
            let main = status.containers.into_iter().find(|found| found.id == *container).unwrap();
            let ContainerState::Running { pid, .. } = main.state else { panic!("{main:?}") };
            figure.0.push(f64::from(shim_memory(parent(pid))));
        }
        figure.print(&format!("shim_pss.{containers}"), "KiB");
    }

    async fn run(&self) {
        let (busy, idle) = (Duration::ZERO, self.options.idle);
        println!("# name p50 p90 min max count unit");
        self.starts("warmup", busy).await;
        self.starts("busy", busy).await;
        self.starts("idle", idle).await;
        let mut pods = Vec::new();
        let mut first = Figure::default();
        for number in 0..self.options.pods {
            let pod = self.start_pod(&format!("pod-{number}"), &mut Default::default()).await;
            tokio::time::sleep(idle).await;
            first.time(self.exec(&pod.0, &pod.1)).await;
            pods.push(pod);
        }
        first.print("exec_first.idle", "ms");
        let (sandbox, container) = &pods[0];
        self.execs(sandbox, container, "busy", busy).await;
        self.execs(sandbox, container, "idle", idle).await;
        self.memory(&pods, 1).await;
        for (sandbox, _) in &pods {
            for name in ["second", "third"] {
                let further = self::container(&sandbox.0, name);
                let id = further.id.clone();
                self.runtime.start_container(sandbox, further).await.unwrap();
                self.exec(sandbox, &id).await;
            }
        }
        self.memory(&pods, 3).await;
        for (sandbox, _) in &pods {
            self.remove_pod(sandbox).await;
        }
    }

    async fn clean_up(self) {
        self.tasks.shutdown().await;
        let group = Group::new(&Hierarchies::detect().unwrap(), &self.cgroup).unwrap();
        group.kill_all().unwrap();
        group.remove().unwrap();
        fs::remove_dir_all(&self.directory).unwrap();
    }
}

fn container(uid: &str, name: &str) -> ContainerSpec {
    ContainerSpec {
        id: ContainerId(format!("{uid}-{name}")),
        name: name.to_owned(),
        attempt: 0,
        image: image(),
        image_reference: "bench:1".to_owned(),
        args: vec!["/bin/sleep".to_owned(), "1000000".to_owned()],
        env: Vec::new(),
        cwd: "/".into(),
        user: User::default(),
        privileges: Privileges::default(),
        mounts: Vec::new(),
        resources: Resources { cpu_shares: Some(2), ..Resources::default() },
        tty: false,
        stdin: false,
        processes_of: None,
        labels: Default::default(),
    }
}

fn parent(pid: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
}

/// KiB of a shim, and of every process that it has made of its own program.
fn shim_memory(shim: u32) -> u32 {
    let exe = |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).ok();
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let own = pids.filter(|pid| *pid == shim || (exe(*pid) == exe(shim) && parent(*pid) == shim));
    own.map(|pid: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u32>().unwrap()
    })
    .sum()
}

fn main() {
    // Before there are threads: forwarding, links and tables are those of this namespace.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let bench = Bench::new(Options::read()).await;
        let result = std::panic::AssertUnwindSafe(bench.run()).catch_unwind().await;
        bench.clean_up().await;
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}
