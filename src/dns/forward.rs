//! Names that are not the cluster's: asked of the host's name servers, for all askers once, and kept.
//!
//! Servers are asked in the order of the host's configuration; one that did not answer lately comes last. An error of one
//! is asked of the next. Who asks for what is being asked for already waits for the same answer, so a circle of servers
//! that leads back here ends at its second round. Limits: the bytes of kept answers ([`Cache`]) and how many may wait.
//! Failures are not kept.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::Shared;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use task::Tasks;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, timeout};

use crate::cache::{Cache, Key};
use crate::message::Flags;
use crate::resolvers::Resolvers;
use crate::upstream;

/// Askers that may wait at a time, as kubeadm's `max_concurrent`.
const WAITING: usize = 1000;
/// How long a server has to answer.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How many times those are asked that do not answer.
const ROUNDS: usize = 3;
/// How long all of that may take: askers give up after five seconds (resolv.conf(5)).
const TOTAL: Duration = Duration::from_millis(4600);
/// For how long one that did not answer comes last.
const PENANCE: Duration = Duration::from_secs(10);

/// Passes questions on; clones share everything.
#[derive(Debug, Clone)]
pub(crate) struct Forwarder(Arc<Shop>);

#[derive(Debug)]
struct Shop {
    resolvers: Resolvers,
    tasks: Tasks,
    room: Arc<Semaphore>,
    cache: Mutex<Cache>,
    flying: Mutex<HashMap<Key, Flight>>,
    /// When servers failed last.
    failed: Mutex<HashMap<SocketAddr, Instant>>,
}

/// An answer that is awaited; an error stands for a task that is gone.
type Flight = Shared<oneshot::Receiver<Option<Arc<Message>>>>;

impl Forwarder {
    pub(crate) fn new(resolvers: Resolvers, tasks: Tasks) -> Self {
        Self(Arc::new(Shop {
            resolvers,
            tasks,
            room: Arc::new(Semaphore::new(WAITING)),
            cache: Mutex::default(),
            flying: Mutex::default(),
            failed: Mutex::default(),
        }))
    }

    /// A place among those who wait; none if too many do.
    pub(crate) fn enter(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.room).try_acquire_owned().ok()
    }

    /// The answer, if it is kept.
    pub(crate) fn kept(&self, name: &Name, kind: RecordType, flags: Flags) -> Option<Message> {
        lock(&self.0.cache).get(&key(name, kind, flags), Instant::now())
    }

    /// The answer, kept or from a server; none if no server gave any.
    pub(crate) async fn ask(&self, name: &Name, kind: RecordType, flags: Flags) -> Option<Message> {
        let key = key(name, kind, flags);
        if let Some(message) = lock(&self.0.cache).get(&key, Instant::now()) {
            return Some(message);
        }
        let flight = self.join(key);
        Some((*flight.await.ok().flatten()?).clone())
    }

    fn join(&self, key: Key) -> Flight {
        let mut flying = lock(&self.0.flying);
        if let Some(flight) = flying.get(&key) {
            return flight.clone();
        }
        let (land, landed) = oneshot::channel();
        let flight = landed.shared();
        // Who asks and goes away leaves his flight behind: they are limited, not only those who wait for them.
        if flying.len() >= WAITING {
            return flight;
        }
        flying.insert(key.clone(), flight.clone());
        drop(flying);
        let shop = Arc::clone(&self.0);
        // Not the asker's task: that he goes away is nothing to the others who wait.
        self.0.tasks.spawn("dns-forward", async move {
            let end = End { shop: Arc::clone(&shop), key };
            let answer = shop.ask_servers(&end.key).await;
            if let Some(message) = &answer {
                lock(&shop.cache).put(end.key.clone(), message, Instant::now());
            }
            drop(end);
            // Everybody may have gone.
            let _ = land.send(answer.map(Arc::new));
        });
        flight
    }
}

/// Removes a flight when it ends, however it does.
struct End {
    shop: Arc<Shop>,
    key: Key,
}

impl Drop for End {
    fn drop(&mut self) {
        lock(&self.shop.flying).remove(&self.key);
    }
}

impl Shop {
    async fn ask_servers(&self, key: &Key) -> Option<Message> {
        let (servers, are_others) = self.resolvers.servers().await;
        if are_others {
            // Other servers may know other names, in another network for instance.
            lock(&self.cache).clear();
        }
        let end = Instant::now() + TOTAL;
        let mut left = self.in_order(&servers);
        let mut refusal = None;
        for _ in 0..ROUNDS {
            for server in std::mem::take(&mut left) {
                let time = end.saturating_duration_since(Instant::now()).min(PATIENCE);
                match timeout(time, upstream::ask(server, key)).await.map_err(io::Error::from).flatten() {
                    Ok(mut message) => {
                        lock(&self.failed).remove(&server);
                        // Of a single hop (RFC 6891 §6.1.1).
                        message.edns = None;
                        if is_final(message.metadata.response_code) {
                            return Some(message);
                        }
                        // Who refuses his service at once is not worth another round.
                        refusal = Some(message);
                    }
                    Err(error) => {
                        tracing::debug!(%server, name = %key.name, %error, "a name server did not answer");
                        lock(&self.failed).insert(server, Instant::now());
                        left.push(server);
                    }
                }
            }
        }
        refusal
    }

    /// In the order of the configuration, those last that have failed lately.
    fn in_order(&self, servers: &[SocketAddr]) -> Vec<SocketAddr> {
        let mut failed = lock(&self.failed);
        failed.retain(|_, at| at.elapsed() < PENANCE);
        let (bad, mut good): (Vec<SocketAddr>, Vec<SocketAddr>) =
            servers.iter().partition(|server| failed.contains_key(server));
        good.extend(bad);
        good
    }
}

/// Whether another server would say the same.
pub(crate) fn is_final(code: ResponseCode) -> bool {
    matches!(code, ResponseCode::NoError | ResponseCode::NXDomain | ResponseCode::YXDomain)
}

fn key(name: &Name, kind: RecordType, flags: Flags) -> Key {
    Key { name: name.to_lowercase(), kind, flags }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
