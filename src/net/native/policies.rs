//! Keeps network policies, on the real kernel.

use std::sync::{Arc, Mutex, PoisonError};

use task::blocking;

use super::nfnetlink::Netfilter;
use super::nftables::Table;
use super::nftables::policies::Book;
use super::{NativeNetworkConfig, kernel, nftables};
use crate::NetworkError;
use crate::policies::Policies;
use crate::range::Family;

/// The network policies of one node. What it was told last stays in the kernel when the agent ends.
#[derive(Debug)]
pub struct PolicyTable {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    table: Table,
    netfilter: Netfilter,
    /// What is in the kernel; none if that is not known.
    book: Mutex<Option<Book>>,
}

impl PolicyTable {
    /// For the node of a network, one for each family of addresses that its pods have.
    pub fn all(config: &NativeNetworkConfig) -> Vec<Self> {
        config.pods.iter().map(|pods| Self::new(config, pods.family())).collect()
    }

    fn new(config: &NativeNetworkConfig, family: Family) -> Self {
        let (netfilter, book) = (Netfilter::default(), Mutex::default());
        Self { inner: Arc::new(Inner { table: config.policy_table(family), netfilter, book }) }
    }

    /// Of which addresses these are.
    pub fn family(&self) -> Family {
        self.inner.table.family
    }

    /// Makes these all the policies there are; without any there is no table. The first time the whole table is replaced at
    /// once, later only what differs.
    ///
    /// # Errors
    /// When the kernel refuses; the next call replaces the whole table.
    pub async fn apply(&self, wanted: Policies) -> Result<(), NetworkError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.apply(wanted)).await
    }
}

impl Inner {
    fn apply(&self, mut wanted: Policies) -> Result<(), NetworkError> {
        let mut known = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut book) = known.take().filter(|_| wanted != Policies::default()) {
            let change = book.change(wanted);
            match if change.is_empty() { Ok(()) } else { change.commit(&self.netfilter, &self.table) } {
                Ok(()) => {
                    *known = Some(book);
                    return Ok(());
                }
                Err(error) => tracing::warn!(%error, "the table of network policies is made anew"),
            }
            wanted = book.into_wanted();
        }
        if wanted == Policies::default() {
            return nftables::remove(&self.netfilter, std::slice::from_ref(&self.table))
                .map_err(kernel("removal of the table of network policies"));
        }
        let mut book = Book::default();
        let change = book.change(wanted);
        change.commit_whole(&self.netfilter, &self.table).map_err(kernel("table of network policies"))?;
        *known = Some(book);
        Ok(())
    }
}
