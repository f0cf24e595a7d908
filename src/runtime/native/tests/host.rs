//! A node of a test's own: state, logs, image and control groups under names that nobody else has.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use oci::cgroup::{Group, Hierarchies};
use task::{SystemClock, Tasks};
use tempfile::TempDir;

use crate::*;

mod build {
    #![expect(clippy::disallowed_methods, reason = "a test builds the program that it tests")]
    include!("../../../../oci/embed/build_program.rs");

    pub(super) fn shim() -> &'static [u8] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
        // <target directory>/<profile>/deps/<test>
        let test = std::env::current_exe().unwrap();
        let target_directory = test.ancestors().nth(3).unwrap();
        let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let program = build_program("coracle-shim", !cfg!(debug_assertions), root, target_directory, &target).unwrap();
        std::fs::read(program).unwrap().leak()
    }
}

static NEXT: AtomicU32 = AtomicU32::new(0);
static SHIM: OnceLock<&'static [u8]> = OnceLock::new();

/// How long anything may take before the test has failed.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Host {
    directory: TempDir,
    cgroup: PathBuf,
    tasks: Tasks,
    pub(super) runtime: NativeRuntime,
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
        Ok((reference == image().0).then(|| Image {
            id: image(),
            tags: Vec::new(),
            digests: Vec::new(),
            size: 0,
            defaults: ImageDefaults::default(),
            layers: vec![self.0.clone()],
            pinned: true,
        }))
    }

    async fn list(&self) -> Result<Vec<Image>, ImageError> {
        Ok(self.find(&image().0).await?.into_iter().collect())
    }

    async fn remove(&self, _image: &ImageId) -> Result<(), ImageError> {
        Ok(())
    }
}

pub(super) fn image() -> ImageId {
    ImageId("sha256:0".to_owned())
}

/// A layer with a shell.
fn layer(path: &Path, busybox: &Path) {
    for directory in ["bin", "etc", "tmp"] {
        fs::create_dir_all(path.join(directory)).unwrap();
    }
    fs::copy(busybox, path.join("bin/busybox")).unwrap();
    for name in ["sh", "sleep", "cat", "echo", "id", "ls", "hostname", "mount", "kill", "true"] {
        symlink("busybox", path.join("bin").join(name)).unwrap();
    }
    fs::write(path.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:Web:/srv:/bin/sh\n").unwrap();
    fs::write(path.join("etc/group"), "root:x:0:\nlogs:x:50:web\n").unwrap();
}

/// A node, or none with the host fact that stands in the way.
pub(super) async fn host(test: &str) -> Option<Host> {
    host_on(test, |_| {}).await
}

/// A node whose directory something is done to before the first agent starts.
pub(super) async fn host_on(test: &str, prepare: impl FnOnce(&Path)) -> Option<Host> {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from).into_iter().find(|path| path.exists());
    let fact = if !rustix::process::geteuid().is_root() {
        Some("not root")
    } else if busybox.is_none() {
        Some("no static busybox")
    } else {
        None
    };
    if let Some(fact) = fact {
        eprintln!("SKIP {test}: {fact}");
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    layer(&directory.path().join("layer"), &busybox?);
    prepare(directory.path());
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let cgroup = PathBuf::from(format!("coracle-test-{}-{number}", std::process::id()));
    let (runtime, tasks) = agent(directory.path()).await;
    Some(Host { directory, cgroup, tasks, runtime })
}

async fn agent(directory: &Path) -> (NativeRuntime, Tasks) {
    let tasks = Tasks::new();
    let config = NativeConfig {
        root: directory.join("state"),
        shim: SHIM.get_or_init(build::shim),
        images: Arc::new(OneImage(directory.join("layer"))),
        clock: Arc::new(SystemClock),
        tasks: tasks.clone(),
        logs: LogLimits::default(),
        pids: PidLimits { all_pods: Some(20_000), per_pod: Some(400) },
        start_deadline: Duration::from_secs(2),
        handlers: super::foreign::handlers(),
    };
    (NativeRuntime::start(config).await.unwrap(), tasks)
}

impl Host {
    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// The agent dies and another one starts.
    pub(super) async fn restart(&mut self) {
        self.restart_with(|| {}).await;
    }

    /// The agent dies, something happens, and another one starts.
    pub(super) async fn restart_with(&mut self, meanwhile: impl FnOnce()) {
        self.tasks.shutdown().await;
        meanwhile();
        (self.runtime, self.tasks) = agent(self.directory.path()).await;
    }

    pub(super) fn sandbox(&self, uid: &str) -> SandboxSpec {
        SandboxSpec {
            id: SandboxId::new(uid, 0),
            pod_uid: uid.to_owned(),
            attempt: 0,
            namespace: "default".to_owned(),
            name: "pod".to_owned(),
            hostname: "pod-host".to_owned(),
            network: Sharing::Sandbox,
            ipc: Sharing::Sandbox,
            pid: PidSharing::Container,
            cgroup: self.cgroup.join(format!("pod{uid}")),
            resources: Resources::default(),
            log_directory: self.path().join("logs").join(uid),
            sysctls: Default::default(),
            user_namespace: None,
            handler: None,
        }
    }

    /// A sandbox with one container that runs a shell script.
    pub(super) async fn run(&self, uid: &str, script: &str) -> (SandboxId, ContainerId) {
        let spec = self.sandbox(uid);
        let sandbox = spec.id.clone();
        self.runtime.create_sandbox(spec).await.unwrap();
        let container = shell("main", script);
        let id = container.id.clone();
        self.runtime.start_container(&sandbox, container).await.unwrap();
        (sandbox, id)
    }

    pub(super) async fn container(&self, sandbox: &SandboxId, container: &ContainerId) -> ContainerStatus {
        let status = self.runtime.status(sandbox).await.unwrap().unwrap();
        status.containers.into_iter().find(|found| found.id == *container).unwrap()
    }

    pub(super) async fn pid(&self, sandbox: &SandboxId, container: &ContainerId) -> u32 {
        match self.container(sandbox, container).await.state {
            ContainerState::Running { pid, .. } => pid,
            ContainerState::Exited(exit) => panic!("{exit:?}"),
        }
    }

    pub(super) async fn exit(&self, sandbox: &SandboxId, container: &ContainerId) -> Exit {
        self.wait(|| async {
            match self.container(sandbox, container).await.state {
                ContainerState::Exited(exit) => Some(exit),
                ContainerState::Running { .. } => None,
            }
        })
        .await
    }

    pub(super) async fn log(&self, sandbox: &SandboxId, container: &ContainerId) -> String {
        fs::read_to_string(self.container(sandbox, container).await.log_path).unwrap()
    }

    /// Waits until the log says something.
    pub(super) async fn logged(&self, sandbox: &SandboxId, container: &ContainerId, text: &str) {
        let path = self.container(sandbox, container).await.log_path;
        let look = async {
            while !fs::read_to_string(&path).unwrap().contains(text) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, look).await.unwrap();
    }

    /// Looks again after every change until there is something to be seen.
    pub(super) async fn wait<T, F: Future<Output = Option<T>>>(&self, look: impl Fn() -> F) -> T {
        let mut changes = self.runtime.changes();
        let seen = async {
            loop {
                if let Some(seen) = look().await {
                    return seen;
                }
                changes.recv().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, seen).await.unwrap()
    }
}

impl Drop for Host {
    /// Leaves nothing on the machine, also when the test has failed.
    fn drop(&mut self) {
        let host = Hierarchies::detect().unwrap();
        let group = Group::new(&host, &self.cgroup).unwrap();
        group.kill_all().unwrap();
        group.remove().unwrap();
    }
}

pub(super) fn shell(name: &str, script: &str) -> ContainerSpec {
    ContainerSpec {
        id: ContainerId(format!("{:0>64}", NEXT.fetch_add(1, Ordering::Relaxed))),
        name: name.to_owned(),
        attempt: 0,
        image: image(),
        image_reference: "shell:latest".to_owned(),
        args: vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()],
        env: Vec::new(),
        cwd: "/".into(),
        user: User::default(),
        privileges: Privileges::default(),
        mounts: Vec::new(),
        resources: Resources::default(),
        tty: false,
        stdin: false,
        processes_of: None,
        labels: Default::default(),
    }
}
