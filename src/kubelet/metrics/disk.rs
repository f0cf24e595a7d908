//! What pods have on disk: the figures for which directories must be walked.
//!
//! Walked only while somebody asks, once a minute at most (upstream's `volumeStatsAggPeriod`) and so seldom that it takes a
//! hundredth of the time. Who asks gets what the last walk has found, and waits for one that is under way a moment only;
//! before the first has ended nothing is known. What volumes are measured is upstream's choice (`pkg/volume`, the
//! `MetricsProvider` of each kind): directories of the pod's own by walking, those of claims by their file systems, hostPaths
//! and images not at all.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use runtime::{SandboxState, SandboxStatus};

use super::snapshot::{FileSystem, file_system};
use crate::pod::PodDirs;
use crate::shared::Shared;
use crate::volumes::usage::{Measured, Size, measured, tree};

/// How old figures may be.
const FRESH: Duration = Duration::from_secs(60);
/// How much longer than a walk the pause after it is.
const REST: u32 = 100;
/// How long one who asks waits.
const PATIENCE: Duration = Duration::from_millis(500);

/// What the last walk has found.
#[derive(Default)]
pub(crate) struct Disk(Mutex<Cache>);

#[derive(Default)]
struct Cache {
    found: Arc<Found>,
    due: Option<Timestamp>,
    is_walking: bool,
}

/// By the UIDs of pods.
pub(super) type Found = BTreeMap<String, PodDisk>;

/// A pod.
#[derive(Debug, Clone, Default)]
pub(super) struct PodDisk {
    /// What containers write to, by their ids.
    pub(super) layers: BTreeMap<String, Size>,
    /// What they have logged, by their names.
    pub(super) logs: BTreeMap<String, Size>,
    pub(super) volumes: Vec<VolumeDisk>,
}

impl PodDisk {
    /// What counts against the limit of the pod's `ephemeral-storage`.
    pub(super) fn ephemeral(&self) -> Size {
        let volumes = self.volumes.iter().filter(|volume| volume.is_on_disk).map(|volume| volume.used);
        let own = self.layers.values().chain(self.logs.values()).copied();
        volumes.chain(own).fold(Size::default(), |sum, one| Size {
            bytes: sum.bytes.saturating_add(one.bytes),
            files: sum.files.saturating_add(one.files),
        })
    }
}

/// A volume.
#[derive(Debug, Clone)]
pub(super) struct VolumeDisk {
    pub(super) name: String,
    pub(super) claim: Option<String>,
    pub(super) is_on_disk: bool,
    pub(super) at: Timestamp,
    pub(super) used: Size,
    pub(super) file_system: FileSystem,
}

impl Disk {
    /// What is known, after a moment for what is being found out.
    pub(super) async fn look(shared: &Arc<Shared>) -> Arc<Found> {
        if shared.metrics.disk.begin(shared.now()) {
            let own = Arc::clone(shared);
            let walk = shared.seams.tasks.spawn("disk figures", async move {
                let began = own.now();
                let found = walk(&own).await;
                own.metrics.disk.end(found, began, own.now());
            });
            // It goes on without whoever asked.
            let _ = tokio::time::timeout(PATIENCE, walk).await;
        }
        shared.metrics.disk.known()
    }

    /// What the last walk has found.
    pub(super) fn known(&self) -> Arc<Found> {
        Arc::clone(&self.cache().found)
    }

    /// Whether the caller is to walk.
    fn begin(&self, now: Timestamp) -> bool {
        let mut cache = self.cache();
        let is_due = !cache.is_walking && cache.due.is_none_or(|due| due <= now);
        cache.is_walking |= is_due;
        is_due
    }

    fn end(&self, found: Found, began: Timestamp, now: Timestamp) {
        let took = Duration::try_from(now.duration_since(began)).unwrap_or_default();
        let mut cache = self.cache();
        cache.due = now.checked_add(FRESH.max(took.saturating_mul(REST))).ok();
        (cache.found, cache.is_walking) = (Arc::new(found), false);
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn walk(shared: &Shared) -> Found {
    let mut found = Found::new();
    for sandbox in shared.seams.runtime.list().await.unwrap_or_default() {
        let uid = &sandbox.spec.pod_uid;
        let entry = shared.pods().into_iter().find(|entry| entry.pod.metadata.uid.as_deref() == Some(uid));
        if let Some(entry) = entry.filter(|_| sandbox.state == SandboxState::Ready) {
            found.insert(uid.clone(), of_pod(shared, &entry.pod, &sandbox).await);
        }
    }
    found
}

async fn of_pod(shared: &Shared, pod: &Pod, sandbox: &SandboxStatus) -> PodDisk {
    let dirs = PodDirs::of(pod, &shared.config);
    let layers = shared.seams.runtime.layers(&sandbox.spec.id).await.unwrap_or_default();
    let volumes = measured(shared, pod, &dirs).await;
    let logs: Vec<(String, PathBuf)> =
        sandbox.containers.iter().map(|one| (one.name.clone(), dirs.logs.join(&one.name))).collect();
    let at = shared.now();
    task::blocking(move || PodDisk {
        layers: layers.into_iter().map(|(id, layer)| (id.0, size(&layer))).collect(),
        logs: logs.into_iter().map(|(name, logs)| (name, size(&logs))).collect(),
        volumes: volumes.into_iter().filter_map(|volume| of_volume(volume, at)).collect(),
    })
    .await
}

/// What has gone, or cannot be read just now, holds nothing.
fn size(directory: &Path) -> Size {
    tree(directory).unwrap_or_default()
}

fn of_volume(volume: Measured, at: Timestamp) -> Option<VolumeDisk> {
    let Measured { name, claim, directory, is_own, is_on_disk } = volume;
    let file_system = file_system(&directory)?;
    let used = match is_own {
        true => size(&directory),
        false => Size { bytes: file_system.used, files: file_system.inodes.saturating_sub(file_system.inodes_free) },
    };
    Some(VolumeDisk { name, claim, is_on_disk, at, used, file_system })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_walked_by_one_at_a_time_and_seldom() {
        let (disk, start) = (Disk::default(), Timestamp::from_second(1_800_000_000).unwrap());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(disk.begin(at(0)));
        assert!(!disk.begin(at(500)), "one is under way");
        disk.end(Found::new(), at(0), at(1));
        assert!(!disk.begin(at(100)), "it took a second");
        assert!(disk.begin(at(101)));
        disk.end([("u".to_owned(), PodDisk::default())].into(), at(101), at(101));
        assert!(disk.known().contains_key("u"));
        assert!(!disk.begin(at(160)) && disk.begin(at(161)));
    }
}
