//! A network without a kernel: it hands out addresses and ports of the host, and remembers who has them.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::pool::Pool;
use crate::range::Range;
use crate::{Attach, Attachment, Network, NetworkError, PortMapping};

/// Addresses only.
#[derive(Debug)]
pub struct SimulatedNetwork {
    range: Range,
    pool: Mutex<Pool>,
}

impl SimulatedNetwork {
    /// A network with all addresses free.
    pub fn new(range: Range) -> Self {
        Self { range, pool: Mutex::new(Pool::default()) }
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
        let address = pool.take(&request.sandbox, &self.range, |_| true);
        let address = address.ok_or_else(|| NetworkError::Exhausted { range: self.range.to_string() })?;
        if let Err(error) = pool.take_ports(&request.sandbox, &request.ports) {
            pool.give_back(&request.sandbox, String::new());
            return Err(error);
        }
        Ok(Attachment { addresses: vec![IpAddr::V4(address)] })
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
        self.pool().get(sandbox).map(|address| Attachment { addresses: vec![IpAddr::V4(address)] })
    }

    fn link(&self, sandbox: &str) -> Option<String> {
        self.attachment(sandbox).map(|_| format!("link-{sandbox}"))
    }
}
