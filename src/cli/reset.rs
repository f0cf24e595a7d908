//! `coracle reset`: the host as it was before Coracle.
//!
//! Goes on after failures and names them all. It removes nothing below a mount: what is mounted under the instance's
//! folders belongs to somebody else.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use clap::Args;
use net::NativeNetworkConfig;
use runtime::Runtime;
use task::{Tasks, chain};

use super::{Root, node, oci};

/// Flags of `coracle reset`.
#[derive(Debug, Args)]
#[command(after_help = "Example: coracle reset --yes")]
pub(super) struct ResetArguments {
    #[command(flatten)]
    root: Root,
    /// Do it: all pods end and all state of this instance is removed
    #[arg(long)]
    yes: bool,
    /// Addresses of this node's pods, if they are not on record [default: 10.42.0.0/24]
    #[arg(long, value_name = "CIDR[,CIDR]", default_value = "10.42.0.0/24")]
    pod_cidr: String,
}

impl ResetArguments {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let instance = self.root.instance()?;
        if !self.yes {
            bail!("this ends all pods and removes {}; say --yes to do it", instance.root.display());
        }
        let taken = instance.take().context("stop the server first")?;
        let mut failures: Vec<String> = Vec::new();
        let tasks = Tasks::new();
        let runtime = node::runtime_of(&instance, &tasks).await?;
        for sandbox in runtime.list().await? {
            if let Err(error) = runtime.remove_sandbox(&sandbox.spec.id).await {
                failures.push(chain(&error));
            }
        }
        if let Err(error) = kubelet::release_all(&runtime, &instance.root, &instance.run).await {
            failures.push(chain(&error));
        }
        tasks.shutdown().await;
        let network = NativeNetworkConfig {
            instance: instance.tag.clone(),
            pods: self.pod_cidr.parse()?,
            cluster: self.pod_cidr.parse()?,
            state: instance.root.join("network"),
            mtu: node::MTU,
            api: None,
        };
        failures.extend(net::native::reset(network).await.iter().map(|error| chain(error)));
        failures.extend(kubelet::remove_log_links(&instance.logs).err().map(|error| chain(&error)));
        drop(taken);
        // The runtime's program goes as well: whoever needs it puts it there again.
        for folder in [&*instance.logs, &*instance.run, &*instance.root, Path::new(oci::LIBEXEC)] {
            failures.extend(remove(folder).err().map(|error| format!("{error:#}")));
        }
        if failures.is_empty() { Ok(()) } else { bail!("not everything was removed: {}", failures.join("; ")) }
    }
}

/// Removes a folder unless something is mounted in it.
fn remove(folder: &Path) -> anyhow::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read the mount table")?;
    let inside =
        mounts.lines().filter_map(|line| line.split(' ').nth(4)).find(|point| Path::new(point).starts_with(folder));
    if let Some(point) = inside {
        bail!("{point} is mounted below {}; unmount it first", folder.display());
    }
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.with_context(|| format!("cannot remove {}", folder.display())),
    }
}
