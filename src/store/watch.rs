//! Watches: a position in the shared history and a wake-up call.
//!
//! A watch has no queue of its own, so a slow one costs nothing; one that falls behind the history is told so.

use std::sync::{Arc, Weak};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::core::Core;
use crate::{Revision, Shared, StoreError, Watch, Watched};

/// A watch over a [`Core`].
#[derive(Debug)]
pub(crate) struct HistoryWatch {
    core: Weak<Shared<Core>>,
    prefix: String,
    position: Revision,
    wake: watch::Receiver<()>,
}

impl HistoryWatch {
    pub(crate) fn start(core: &Arc<Shared<Core>>, prefix: &str, after: Revision) -> Result<Self, StoreError> {
        let mut locked = core.lock();
        locked.check(after)?;
        let wake = locked.wait_for(prefix);
        Ok(Self { core: Arc::downgrade(core), prefix: prefix.to_owned(), position: after, wake })
    }

    fn poll(&mut self) -> Option<Watched> {
        let core = self.core.upgrade()?;
        let locked = core.lock();
        if locked.check(self.position).is_err() {
            return Some(Watched::Overrun);
        }
        match locked.next_change(&self.prefix, self.position) {
            Some(change) => {
                self.position = change.revision;
                Some(Watched::Changed(change))
            }
            None => {
                self.position = locked.newest();
                None
            }
        }
    }
}

#[async_trait]
impl Watch for HistoryWatch {
    async fn next(&mut self) -> Option<Watched> {
        loop {
            self.wake.mark_unchanged();
            if let Some(watched) = self.poll() {
                return Some(watched);
            }
            if self.wake.changed().await.is_err() {
                return None;
            }
        }
    }

    fn progress(&self) -> Revision {
        let Some(core) = self.core.upgrade() else { return self.position };
        let locked = core.lock();
        if locked.check(self.position).is_ok() && locked.next_change(&self.prefix, self.position).is_none() {
            return locked.newest();
        }
        self.position
    }
}
