//! All figures of one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use api::quantity::Quantity;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use runtime::{ContainerState, Measure, RuntimeError, SandboxState, SandboxStatus, SandboxUsage, Stats, Usage};

use super::disk::{Disk, Found, PodDisk};
use super::history::{History, Rate, Whose};
use super::network::Interface;
use crate::pod::{PodDirs, parts};
use crate::shared::{Entry, Shared};

/// The name of the interface inside a pod.
const INSIDE: &str = "eth0";

/// All of it.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub(super) at: Timestamp,
    pub(super) node: String,
    /// When the host has started.
    pub(super) booted: Option<Timestamp>,
    pub(super) processors: u64,
    /// Bytes.
    pub(super) memory: u64,
    pub(super) host: Reading,
    /// Those of the host that are nobody's link to a pod.
    pub(super) interfaces: Vec<Interface>,
    /// What the state of the node is on, its pods' disks included.
    pub(super) file_system: Option<FileSystem>,
    /// The device that it is on.
    pub(super) device: String,
    /// The most processes that there may be, and how many tasks there are.
    pub(super) tasks: Option<(u64, u64)>,
    pub(super) machine: Machine,
    /// By namespace and name.
    pub(super) pods: Vec<PodReading>,
}

/// What is told of the hardware.
#[derive(Debug, Clone, Default)]
pub(super) struct Machine {
    pub(super) cores: u64,
    pub(super) sockets: u64,
    /// Bytes of swap space.
    pub(super) swap: u64,
    /// Names of block devices by their numbers.
    pub(super) devices: BTreeMap<(u32, u32), String>,
}

/// What somebody has used, and how fast.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) stats: Stats,
    pub(super) rate: Option<Rate>,
}

/// A file system.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileSystem {
    pub(super) available: u64,
    pub(super) capacity: u64,
    pub(super) used: u64,
    pub(super) inodes_free: u64,
    pub(super) inodes: u64,
}

/// A pod.
#[derive(Debug, Clone)]
pub(super) struct PodReading {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) sandbox: String,
    pub(super) started: Timestamp,
    pub(super) reading: Reading,
    /// None in the host's network.
    pub(super) interface: Option<Interface>,
    pub(super) containers: Vec<ContainerReading>,
    /// None before directories have been walked.
    pub(super) disk: Option<PodDisk>,
}

/// A running container.
#[derive(Debug, Clone)]
pub(super) struct ContainerReading {
    pub(super) name: String,
    pub(super) id: String,
    pub(super) image: String,
    pub(super) started: Timestamp,
    pub(super) reading: Reading,
    /// Bytes of its logs.
    pub(super) logs: u64,
    pub(super) limits: Limits,
}

/// What a container may use.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Limits {
    /// Thousandths of a processor.
    pub(super) milli_cpu: Option<u64>,
    /// Bytes.
    pub(super) memory: Option<u64>,
}

impl Snapshot {
    /// Reads all of it.
    pub(super) async fn take(shared: &Arc<Shared>) -> Result<Self, RuntimeError> {
        let runtime = &shared.seams.runtime;
        let (sandboxes, usage) = (runtime.list().await?, runtime.usage(Measure::All).await?);
        let disk = Disk::look(shared).await;
        let shared = Arc::clone(shared);
        Ok(task::blocking(move || read(&shared, sandboxes, &usage, &disk)).await)
    }
}

fn read(shared: &Shared, sandboxes: Vec<SandboxStatus>, usage: &Usage, disk: &Found) -> Snapshot {
    let at = shared.now();
    let proc = &shared.config.proc;
    let interfaces = Interface::read(&fs::read_to_string(proc.join("net/dev")).unwrap_or_default());
    let booted = booted(&fs::read_to_string(proc.join("stat")).unwrap_or_default());
    let history = shared.metrics.history.lock().unwrap_or_else(PoisonError::into_inner);
    let view = View { shared, at, usage, history: &history, interfaces: &interfaces, disk };
    let entries = shared.pods();
    let mut pods: Vec<PodReading> = sandboxes
        .iter()
        .filter(|sandbox| sandbox.state == SandboxState::Ready)
        .filter_map(|sandbox| {
            let own = |entry: &&Entry| entry.pod.metadata.uid.as_deref() == Some(&sandbox.spec.pod_uid);
            view.pod(&entries.iter().find(own)?.pod, sandbox)
        })
        .collect();
    pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    let links: Vec<String> =
        sandboxes.iter().filter_map(|sandbox| shared.seams.network.link(&sandbox.spec.id.0)).collect();
    let host = view.reading(&Whose::Host, usage.host.clone(), booted);
    let file_system = file_system(&shared.config.root);
    let own = interfaces.iter().filter(|one| one.name != "lo" && !links.contains(&one.name)).cloned().collect();
    let whole = |amount: i64| u64::try_from(amount).unwrap_or(0);
    let machine = machine(proc);
    let number = fs::metadata(&shared.config.root).map(|about| about.dev()).unwrap_or_default();
    let number = (rustix::fs::major(number), rustix::fs::minor(number));
    Snapshot {
        at,
        node: shared.config.node_name.clone(),
        booted,
        processors: whole(shared.capacity.milli_cpu) / 1000,
        memory: whole(shared.capacity.memory_bytes),
        host,
        interfaces: own,
        file_system,
        tasks: tasks(proc),
        device: machine.devices.get(&number).cloned().unwrap_or_default(),
        machine,
        pods,
    }
}

/// As `pkg/kubelet/stats/pidlimit` has it.
fn tasks(proc: &Path) -> Option<(u64, u64)> {
    let number = |file: &str| fs::read_to_string(proc.join(file)).ok()?.trim().parse::<u64>().ok();
    let limits = ["sys/kernel/pid_max", "sys/kernel/threads-max"].into_iter().filter_map(number);
    let load = fs::read_to_string(proc.join("loadavg")).ok()?;
    let (_, all) = load.split_whitespace().nth(3)?.split_once('/')?;
    Some((limits.min()?, all.parse().ok()?))
}

fn machine(proc: &Path) -> Machine {
    let read = |file: &str| fs::read_to_string(proc.join(file)).unwrap_or_default();
    let (cores, sockets) = processors(&read("cpuinfo"));
    let memory = read("meminfo");
    let swap =
        memory.lines().find_map(|line| line.strip_prefix("SwapTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
    Machine { cores, sockets, swap: swap.unwrap_or(0) * 1024, devices: devices(&read("diskstats")) }
}

/// Cores and sockets of `/proc/cpuinfo`; where it does not tell, each processor is a core, and all are in one socket.
fn processors(text: &str) -> (u64, u64) {
    let cores: BTreeSet<(u64, u64)> = text.split("\n\n").filter_map(core).collect();
    let sockets: BTreeSet<u64> = cores.iter().map(|(socket, _)| *socket).collect();
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    (count(cores.len()), count(sockets.len()))
}

/// The socket and the core of a processor.
fn core(processor: &str) -> Option<(u64, u64)> {
    let field = |wanted: &str| {
        let of = |line: &str| line.split_once(':').filter(|(name, _)| name.trim() == wanted)?.1.trim().parse().ok();
        processor.lines().find_map(of)
    };
    let number = field("processor")?;
    Some((field("physical id").unwrap_or(0), field("core id").unwrap_or(number)))
}

/// Names of proc_diskstats(5).
fn devices(text: &str) -> BTreeMap<(u32, u32), String> {
    let device = |line: &str| {
        let mut words = line.split_whitespace();
        let numbers = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some((numbers, format!("/dev/{}", words.next()?)))
    };
    text.lines().filter_map(device).collect()
}

/// What the figures of pods are made of.
struct View<'a> {
    shared: &'a Shared,
    at: Timestamp,
    usage: &'a Usage,
    history: &'a History,
    interfaces: &'a [Interface],
    disk: &'a Found,
}

impl View<'_> {
    fn reading(&self, whose: &Whose, stats: Stats, started: Option<Timestamp>) -> Reading {
        let rate = stats.cpu_nanos.and_then(|nanos| self.history.rate(whose, nanos, self.at, started));
        Reading { stats, rate }
    }

    fn pod(&self, pod: &Pod, sandbox: &SandboxStatus) -> Option<PodReading> {
        let id = &sandbox.spec.id;
        let used = self.usage.sandboxes.get(id)?;
        let link = self.shared.seams.network.link(&id.0);
        let link = link.and_then(|link| self.interfaces.iter().find(|one| one.name == link));
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        Some(PodReading {
            namespace: text(&pod.metadata.namespace),
            name: text(&pod.metadata.name),
            uid: text(&pod.metadata.uid),
            sandbox: id.0.clone(),
            started: sandbox.created_at,
            reading: self.reading(&Whose::Sandbox(id.clone()), used.whole.clone(), Some(sandbox.created_at)),
            interface: link.map(|link| link.turned(INSIDE)),
            containers: self.containers(pod, sandbox, used),
            disk: self.disk.get(&sandbox.spec.pod_uid).cloned(),
        })
    }

    fn containers(&self, pod: &Pod, sandbox: &SandboxStatus, used: &SandboxUsage) -> Vec<ContainerReading> {
        let logs = PodDirs::of(pod, &self.shared.config).logs;
        let of = |one: &runtime::ContainerStatus| {
            let ContainerState::Running { started_at, .. } = one.state else { return None };
            let stats = used.containers.get(&one.id)?.clone();
            Some(ContainerReading {
                name: one.name.clone(),
                id: one.id.0.clone(),
                image: one.image_reference.clone(),
                started: started_at,
                reading: self.reading(&Whose::Container(one.id.clone()), stats, Some(started_at)),
                logs: size(logs.join(&one.name)),
                limits: limits(pod, &one.name),
            })
        };
        sandbox.containers.iter().filter_map(of).collect()
    }
}

fn limits(pod: &Pod, container: &str) -> Limits {
    let resources = parts::container(pod, container).and_then(|container| container.resources.clone());
    let limits = resources.and_then(|resources| resources.limits).unwrap_or_default();
    let of = |name: &str| Quantity::parse(&limits.get(name)?.0).ok();
    Limits {
        milli_cpu: of("cpu").and_then(|limit| u64::try_from(limit.milli_value()).ok()),
        memory: of("memory").and_then(|limit| u64::try_from(limit.value()).ok()),
    }
}

/// `btime` of proc_stat(5).
pub(super) fn booted(text: &str) -> Option<Timestamp> {
    let seconds = text.lines().find_map(|line| line.strip_prefix("btime "))?;
    Timestamp::from_second(seconds.trim().parse().ok()?).ok()
}

/// Bytes of the files of a directory.
fn size(directory: PathBuf) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).filter(fs::Metadata::is_file).map(|about| about.len()).sum()
}

pub(super) fn file_system(path: &Path) -> Option<FileSystem> {
    let about = rustix::fs::statvfs(path).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(about.f_frsize);
    Some(FileSystem {
        available: bytes(about.f_bavail),
        capacity: bytes(about.f_blocks),
        used: bytes(about.f_blocks.saturating_sub(about.f_bfree)),
        inodes_free: about.f_ffree,
        inodes: about.f_files,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_and_sockets_are_counted_once() {
        let one = |processor, socket, core| {
            format!("processor\t: {processor}\nvendor_id\t: x\nphysical id\t: {socket}\ncore id\t\t: {core}\n\n")
        };
        let threads = [one(0, 0, 0), one(1, 0, 1), one(2, 1, 0), one(3, 0, 0)].concat();
        assert_eq!(processors(&threads), (3, 2));
        assert_eq!(processors("processor\t: 0\nBogoMIPS\t: 50.00\n\nprocessor\t: 1\n"), (2, 1), "as on ARM");
        assert_eq!(processors(""), (0, 0));
    }

    #[test]
    fn devices_have_the_names_of_the_kernel() {
        let found = devices(" 254       0 vda 1 2 3\n   7       1 loop1 0 0 0\nx\n");
        assert_eq!(found, [((254, 0), "/dev/vda".to_owned()), ((7, 1), "/dev/loop1".to_owned())].into());
    }
}
