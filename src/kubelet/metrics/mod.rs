//! What the node and its pods use: for `kubectl top`, the scheduler's users, dashboards.
//!
//! Asked by the kubelet's API only. Figures are read when somebody asks; in between only the CPU time is looked at, every
//! [`PERIOD`], because a rate needs two looks. Rendering is pure: one [`Snapshot`] in, text out. What is not known is left
//! out, never guessed. What takes a walk through directories is found out seldom, and may be a minute old ([`disk`]).

mod cadvisor;
mod disk;
mod history;
mod network;
mod own;
mod probes;
mod resource;
mod snapshot;
mod summary;
#[cfg(test)]
mod tests;
mod text;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use runtime::Measure;

pub(crate) use disk::Disk;
pub(crate) use history::History;
pub(crate) use probes::ProbeResults;
use snapshot::Snapshot;

use crate::shared::Shared;

/// How far apart the looks at CPU time are; the period of upstream's metrics-server.
const PERIOD: Duration = Duration::from_secs(15);

/// The type of the text format of Prometheus.
pub(crate) const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is remembered between questions.
#[derive(Default)]
pub(crate) struct Metrics {
    history: Mutex<History>,
    pub(crate) disk: Disk,
    pub(crate) probes: ProbeResults,
}

/// Looks at CPU times, for ever.
pub(crate) async fn watch(shared: Arc<Shared>) {
    loop {
        match shared.seams.runtime.usage(Measure::Cpu).await {
            Ok(usage) => {
                let now = shared.now();
                shared.metrics.history.lock().unwrap_or_else(PoisonError::into_inner).add(now, &usage);
            }
            Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "usage cannot be read"),
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// `/stats/summary`.
pub(crate) async fn summary(shared: &Arc<Shared>) -> Result<String, runtime::RuntimeError> {
    Ok(summary::render(&Snapshot::take(shared).await?).to_string())
}

/// `/metrics/resource`.
pub(crate) async fn resource(shared: &Arc<Shared>) -> Result<String, runtime::RuntimeError> {
    Ok(resource::render(&Snapshot::take(shared).await?))
}

/// `/metrics/cadvisor`.
pub(crate) async fn cadvisor(shared: &Arc<Shared>) -> Result<String, runtime::RuntimeError> {
    Ok(cadvisor::render(&Snapshot::take(shared).await?))
}

/// `/metrics`.
pub(crate) async fn own(shared: &Arc<Shared>) -> String {
    Disk::look(shared).await;
    own::render(shared)
}

/// `/metrics/probes`.
pub(crate) fn probes(shared: &Shared) -> String {
    shared.metrics.probes.render(&shared.pods())
}
