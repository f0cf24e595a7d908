//! What runs has used, from the control groups.
//!
//! What ends meanwhile has gone when it is looked for, and is left out.

use oci::cgroup::{Group, Stats};

use super::groups::{cgroup_failed, container, pod};
use super::{Node, sandbox::Sandbox};
use crate::{ContainerState, Measure, RuntimeError, SandboxState, SandboxUsage, Usage};

/// Reads all groups; on a blocking thread.
pub(super) fn read(node: &Node, measure: Measure) -> Result<Usage, RuntimeError> {
    let host = node.host.cgroups.stats().map_err(cgroup_failed)?;
    let sandboxes: Vec<_> = node.sandboxes().values().cloned().collect();
    let found = sandboxes.iter().filter_map(|one| Some((one.id().clone(), of_sandbox(node, one, measure)?)));
    Ok(Usage { host, sandboxes: found.collect() })
}

fn of_sandbox(node: &Node, sandbox: &Sandbox, measure: Measure) -> Option<SandboxUsage> {
    let status = sandbox.status().filter(|status| status.state == SandboxState::Ready)?;
    let whole = of_group(&pod(&node.host.cgroups, &status.spec).ok()?, measure)?;
    let running = status.containers.iter().filter(|one| matches!(one.state, ContainerState::Running { .. }));
    let containers = running.filter_map(|one| {
        let group = container(&node.host.cgroups, &status.spec, &one.id).ok()?;
        Some((one.id.clone(), of_group(&group, measure)?))
    });
    Some(SandboxUsage { whole, containers: containers.collect() })
}

fn of_group(group: &Group, measure: Measure) -> Option<Stats> {
    let stats = match measure {
        Measure::All => group.stats(),
        Measure::Cpu => group.cpu_nanos().map(|cpu_nanos| Stats { cpu_nanos, ..Stats::default() }),
    };
    stats.inspect_err(|error| tracing::debug!(group = %group.path().display(), %error, "cannot be measured")).ok()
}
