//! Can this host run pods? Every failed check names its remedy.
//!
//! The server runs the same checks before it starts and stops at the first that fails for good. With `--server` it is also
//! checked whether the host could join that server's cluster.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;
use rustix::thread::{CapabilitySet, capabilities};

use super::Root;
use super::token::JoinToken;

/// Oldest kernel that is tested.
const KERNEL: (u32, u32) = (6, 1);

/// How bad a failed check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weight {
    /// Nothing works without it.
    Needed,
    /// Something works less well; the finding says what.
    Wanted,
}

/// What a check found.
struct Finding {
    name: &'static str,
    weight: Weight,
    /// What is wrong and what helps, or none.
    problem: Option<String>,
}

impl Finding {
    fn needed(name: &'static str, problem: Option<String>) -> Self {
        Self { name, weight: Weight::Needed, problem }
    }

    fn wanted(name: &'static str, problem: Option<String>) -> Self {
        Self { name, weight: Weight::Wanted, problem }
    }
}

/// Flags of `coracle doctor`.
#[derive(Debug, Args)]
pub(super) struct DoctorArguments {
    #[command(flatten)]
    root: Root,
    /// Check as well whether this host could join the cluster of a server
    #[arg(long, value_name = "https://HOST:PORT", requires = "token_file")]
    server: Option<String>,
    /// The token for that
    #[arg(long, value_name = "FILE", requires = "server")]
    token_file: Option<PathBuf>,
}

/// Prints all findings; an error if a needed one failed.
#[expect(clippy::print_stdout, reason = "the findings are the product of this command")]
pub(super) async fn run(arguments: &DoctorArguments) -> anyhow::Result<()> {
    let mut failed = 0;
    let mut findings = check_host();
    match (&arguments.server, &arguments.token_file) {
        (Some(server), Some(file)) => {
            findings.push(Finding::needed("server is known by the token", server_problem(server, file).await));
        }
        _ => findings.push(Finding::wanted("port 6443 is free", port_problem(6443))),
    }
    findings.push(Finding::wanted("state folder can be made", folder_problem(&arguments.root.instance()?.root)));
    for finding in findings {
        match (&finding.problem, finding.weight) {
            (None, _) => println!("ok    {}", finding.name),
            (Some(problem), Weight::Wanted) => println!("warn  {}: {problem}", finding.name),
            (Some(problem), Weight::Needed) => {
                failed += 1;
                println!("FAIL  {}: {problem}", finding.name);
            }
        }
    }
    if failed > 0 { bail!("{failed} of the checks that pods need failed") } else { Ok(()) }
}

/// Fails with one sentence if the host lacks what every pod needs.
pub(super) fn require_host() -> anyhow::Result<()> {
    for finding in check_host() {
        match (finding.problem, finding.weight) {
            (Some(problem), Weight::Needed) => bail!("{}: {problem}", finding.name),
            (Some(problem), Weight::Wanted) => tracing::warn!(check = finding.name, problem, "host"),
            (None, _) => {}
        }
    }
    Ok(())
}

fn check_host() -> Vec<Finding> {
    vec![
        Finding::needed("runs as root", root_problem()),
        Finding::needed("kernel is new enough", kernel_problem()),
        Finding::needed("overlay file system", file_system_problem("overlay")),
        Finding::needed("cgroup controllers", cgroup_problem()),
        Finding::needed("nftables", nftables_problem()),
        Finding::needed("namespaces", namespace_problem()),
        Finding::wanted("CAP_SYS_RESOURCE", resource_problem()),
    ]
}

fn root_problem() -> Option<String> {
    let root = rustix::process::geteuid().is_root();
    (!root).then(|| "namespaces, mounts and cgroups need it; run with sudo".to_owned())
}

fn kernel_problem() -> Option<String> {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next()?, numbers.next().unwrap_or(0));
    let text = || format!("{release} is older than {}.{}; install a newer kernel", KERNEL.0, KERNEL.1);
    (version < KERNEL).then(text)
}

fn file_system_problem(name: &str) -> Option<String> {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let has = known.lines().any(|line| line.split_whitespace().last() == Some(name));
    (!has).then(|| format!("the kernel has no {name}; modprobe {name}"))
}

fn cgroup_problem() -> Option<String> {
    let unified = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let legacy: Vec<&str> = mounts
        .lines()
        .filter_map(|line| line.split_once(" - cgroup ").and_then(|(_, tail)| tail.split(' ').nth(1)))
        .flat_map(|options| options.split(','))
        .collect();
    let present =
        |controller: &&&str| unified.split_whitespace().any(|own| own == **controller) || legacy.contains(*controller);
    let missing: Vec<&str> = ["cpu", "memory", "pids"].iter().filter(|c| !present(c)).copied().collect();
    let text = || format!("{} missing below /sys/fs/cgroup; mount cgroup2 there", missing.join(", "));
    (!missing.is_empty()).then(text)
}

fn nftables_problem() -> Option<String> {
    let netfilter = rustix::net::socket_with(
        rustix::net::AddressFamily::NETLINK,
        rustix::net::SocketType::RAW,
        rustix::net::SocketFlags::CLOEXEC,
        Some(rustix::net::netlink::NETFILTER),
    );
    let text = |error| format!("the kernel does not speak it ({error}); modprobe nf_tables");
    netfilter.err().map(text)
}

fn namespace_problem() -> Option<String> {
    let missing: Vec<&str> = ["mnt", "pid", "net", "ipc", "uts", "cgroup"]
        .into_iter()
        .filter(|kind| !Path::new("/proc/self/ns").join(kind).exists())
        .collect();
    (!missing.is_empty()).then(|| format!("{} missing; use a kernel built with them", missing.join(", ")))
}

fn resource_problem() -> Option<String> {
    let own = capabilities(None).map(|sets| sets.effective).unwrap_or_else(|_| CapabilitySet::empty());
    let text = "absent: OOM scores cannot be lowered and hard limits not raised; give the service this capability";
    (!own.contains(CapabilitySet::SYS_RESOURCE)).then(|| text.to_owned())
}

async fn server_problem(server: &str, file: &Path) -> Option<String> {
    let meet = async {
        let token = JoinToken::read(file)?;
        Ok::<_, anyhow::Error>(client::authority(server, token.authority).await?)
    };
    let text = |error| format!("{error:#}; check address, clock and firewall, or make another token on the server");
    meet.await.err().map(text)
}

fn port_problem(port: u16) -> Option<String> {
    let text = |error| format!("{error}; stop what uses it or choose another with --listen");
    TcpListener::bind(("0.0.0.0", port)).err().map(text)
}

fn folder_problem(folder: &Path) -> Option<String> {
    let existing = folder.ancestors().find(|ancestor| ancestor.exists())?;
    let read_only = rustix::fs::statvfs(existing).ok()?.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY);
    read_only.then(|| format!("{} is read-only; choose another with --root", existing.display()))
}
