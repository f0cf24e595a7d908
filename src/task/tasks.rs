//! Groups of owned tasks.

use std::future::Future;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// A group of named tasks that end together.
///
/// Clones share the group; [`Tasks::child`] makes a group that also ends when its parent does.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    stop: CancellationToken,
    tracker: TaskTracker,
}

impl Tasks {
    /// An empty group of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// A group that ends with this one or before it.
    pub fn child(&self) -> Self {
        Self { stop: self.stop.child_token(), tracker: self.tracker.clone() }
    }

    /// Runs `future` until it is done or the group is shut down, at its next await point.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let stop = self.stop.clone();
        let work = async move { stop.run_until_cancelled(future).await };
        self.tracker.spawn(report_panic(name, work).instrument(tracing::debug_span!("task", name)))
    }

    /// Completes when the group has been told to end; for tasks that have something to finish first.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// Whether the group has been told to end.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Tells all tasks of the group to end without waiting for them.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Tells all tasks of the group (and of its relatives by [`Tasks::child`]) to end and waits until they have.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

async fn report_panic<F: Future>(name: &'static str, work: F) -> F::Output {
    let guard = PanicReport { name };
    let output = work.await;
    std::mem::forget(guard);
    output
}

struct PanicReport {
    name: &'static str,
}

impl Drop for PanicReport {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(task = self.name, "task panicked");
        }
    }
}

/// Runs blocking file or system work off the event loop; the one place to do so.
///
/// # Panics
/// Passes on a panic of `work`.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => std::future::pending().await,
        },
    }
}
