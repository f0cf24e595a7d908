//! Leads connections to Services where they are answered, on the real kernel.

use std::sync::{Arc, Mutex, PoisonError};

use task::blocking;

use super::link::{self, Whose};
use super::netlink::Socket;
use super::nfnetlink::Netfilter;
use super::nftables::Table;
use super::nftables::services::{Book, Change};
use super::{NativeNetworkConfig, conntrack, forget, kernel};
use crate::range::{Family, Range, Ranges};
use crate::services::Services;
use crate::{NetworkError, Protocol};

/// The Services of one node. What it was told last stays in the kernel when the agent ends.
#[derive(Debug)]
pub struct ServiceTable {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    table: Table,
    pods: Range,
    services: Range,
    /// Of all nodes.
    cluster: Range,
    netfilter: Netfilter,
    /// What is in the kernel; none if that is not known.
    book: Mutex<Option<Book>>,
}

impl ServiceTable {
    /// For the node of a network, one for each family in which Services have addresses, and pods too.
    pub fn all(config: &NativeNetworkConfig, services: &Ranges) -> Vec<Self> {
        let table = |services: Range| {
            let inner = Inner {
                table: config.service_table(services.family()),
                pods: config.pods.of(services.family())?,
                services,
                cluster: config.cluster.of(services.family())?,
                netfilter: Netfilter::default(),
                book: Mutex::default(),
            };
            Some(Self { inner: Arc::new(inner) })
        };
        services.iter().filter_map(table).collect()
    }

    /// Of which addresses these are.
    pub fn family(&self) -> Family {
        self.inner.table.family
    }

    /// Makes these all the Services there are. The first time the whole table is replaced at once, later only what differs.
    ///
    /// # Errors
    /// When the kernel refuses; the next call replaces the whole table.
    pub async fn apply(&self, wanted: Services) -> Result<(), NetworkError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.apply(wanted)).await
    }
}

impl Inner {
    fn apply(&self, mut wanted: Services) -> Result<(), NetworkError> {
        let mut known = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ranges = vec![self.services];
        // Who names addresses of pods, here or elsewhere, or those of the settings once more, has said nothing about where
        // Services are.
        wanted.further.retain(|range| {
            let is_pods = [self.pods, self.cluster].iter().any(|own| range.is_within(own) || own.is_within(range));
            !range.is_within(&self.services) && !is_pods
        });
        ranges.extend(&wanted.further);
        let mut host = Socket::route().map_err(kernel("netlink socket"))?;
        let before = known.as_ref().map(|book| book.further().clone()).unwrap_or_default();
        for gone in before.difference(&wanted.further) {
            link::remove_service_route(&mut host, gone).map_err(kernel("route of Services"))?;
        }
        // Rules about ranges are there from the beginning.
        if let Some(mut book) = known.take_if(|_| before == wanted.further) {
            let change = book.change(wanted, &self.pods);
            match self.carry_out(&change) {
                Ok(()) => {
                    *known = Some(book);
                    return Ok(());
                }
                Err(error) => tracing::warn!(%error, "the table of Services is made anew"),
            }
            wanted = book.into_wanted();
        }
        for range in &ranges {
            let whose = if *range == self.services { Whose::Own } else { Whose::Anybody };
            link::set_service_route(&mut host, range, self.pods.gateway(), whose)
                .map_err(kernel("route of Services"))?;
        }
        let mut book = Book::default();
        let change = book.change(wanted, &self.pods);
        change
            .commit_whole(&self.netfilter, &self.table, (&self.pods, &ranges))
            .map_err(kernel("table of Services"))?;
        self.forget_old(&book, &ranges);
        *known = Some(book);
        Ok(())
    }

    /// What an earlier table led elsewhere begins anew, where the kernel would not notice: connections of TCP end with their
    /// endpoints, but a sender of datagrams may go on for ever.
    fn forget_old(&self, book: &Book, ranges: &[Range]) {
        let which = (self.table.family, Protocol::Udp);
        let forgotten = conntrack::forget_if(&self.netfilter, which, |flow| book.is_misled(flow, ranges));
        if let Err(error) = forgotten {
            tracing::warn!(%error, "datagrams may still go to endpoints of before");
        }
    }

    fn carry_out(&self, change: &Change) -> std::io::Result<()> {
        if !change.is_empty() {
            change.commit(&self.netfilter, &self.table)?;
        }
        change.stale.iter().for_each(|which| forget(&self.netfilter, *which));
        Ok(())
    }
}
