//! A network without a kernel: it hands out addresses and ports of the host, and remembers who has them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::pool::Pool;
use crate::range::Ranges;
use crate::{Attach, Attachment, Network, NetworkError, PortMapping};

/// Addresses only.
#[derive(Debug)]
pub struct SimulatedNetwork {
    ranges: Ranges,
    pool: Mutex<Pool>,
}

impl SimulatedNetwork {
    /// A network with all addresses free.
    pub fn new(ranges: Ranges) -> Self {
        Self { ranges, pool: Mutex::new(Pool::default()) }
    }

    /// Sandboxes that have an address, in order.
    pub fn attached(&self) -> Vec<String> {
        self.pool().sandboxes().cloned().collect()
    }

    /// Ports of the host that lead to a sandbox.
    pub fn ports(&self, sandbox: &str) -> Vec<PortMapping> {
        self.pool().published(sandbox).map(|(_, ports)| ports.to_vec()).unwrap_or_default()
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Network for SimulatedNetwork {
    async fn attach(&self, request: Attach) -> Result<Attachment, NetworkError> {
        let mut pool = self.pool();
        let addresses = pool.take(&request.sandbox, &self.ranges, |_| true);
        let addresses = addresses.ok_or_else(|| NetworkError::Exhausted { range: self.ranges.to_string() })?;
        if let Err(error) = pool.take_ports(&request.sandbox, &request.ports) {
            pool.give_back(&request.sandbox, String::new());
            return Err(error);
        }
        Ok(Attachment { addresses })
    }

    async fn detach(&self, sandbox: &str) -> Result<(), NetworkError> {
        self.pool().give_back(sandbox, String::new());
        Ok(())
    }

    async fn retain(&self, live: &[String]) -> Result<(), NetworkError> {
        let dead: Vec<String> = self.attached().into_iter().filter(|sandbox| !live.contains(sandbox)).collect();
        for sandbox in dead {
            self.detach(&sandbox).await?;
        }
        Ok(())
    }

    fn attachment(&self, sandbox: &str) -> Option<Attachment> {
        Some(self.pool().get(sandbox)).filter(|all| !all.is_empty()).map(|addresses| Attachment { addresses })
    }

    fn link(&self, sandbox: &str) -> Option<String> {
        self.attachment(sandbox).map(|_| format!("link-{sandbox}"))
    }
}
