//! Working through keys: a queue that never holds a key twice, and a runner for it.
//!
//! For controllers: informers mark keys, [`run`] calls `sync` for each. A key is never worked on twice at the same time;
//! marked meanwhile, it is worked on again. Failures come back after an exponential back-off of that key alone. Nothing
//! here knows objects or the API.

mod queue;

use std::fmt::Display;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;

use crate::informer::Dirty;
use crate::object::Key;

pub use queue::{Backoff, Queue};

/// What is to become of a key whose sync went well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing until it is marked again.
    Done,
    /// Look again after this time.
    Again(Duration),
}

/// Calls `sync` for every key of the queue, at most `workers` at a time, for ever. A failure or panic of `sync` concerns
/// its key only.
pub async fn run<T, S, F, E>(queue: Queue<T>, workers: usize, sync: S)
where
    T: Clone + Eq + Hash + Display + Send + 'static,
    S: Fn(T) -> F,
    F: Future<Output = Result<Outcome, E>>,
    E: std::error::Error + 'static,
{
    join_all((0..workers).map(|_| work(&queue, &sync))).await;
}

async fn work<T, S, F, E>(queue: &Queue<T>, sync: &S)
where
    T: Clone + Eq + Hash + Display,
    S: Fn(T) -> F,
    F: Future<Output = Result<Outcome, E>>,
    E: std::error::Error + 'static,
{
    loop {
        let key = queue.next().await;
        let done = AssertUnwindSafe(async { sync(key.clone()).await }).catch_unwind().await;
        match done {
            Ok(Ok(Outcome::Done)) => queue.forget(&key),
            Ok(Ok(Outcome::Again(delay))) => {
                queue.forget(&key);
                queue.add_after(key.clone(), delay);
            }
            Ok(Err(error)) => {
                let again = queue.retry(key.clone());
                let error: &dyn std::error::Error = &error;
                tracing::warn!(%key, error, ?again, "sync failed");
            }
            Err(_) => {
                let again = queue.retry(key.clone());
                tracing::error!(%key, ?again, "sync panicked");
            }
        }
        queue.done(&key);
    }
}

/// Moves every dirty key of a subscription into a queue, for ever.
pub async fn feed(mut dirty: Dirty, queue: Queue<Key>) {
    loop {
        queue.add(dirty.next().await);
    }
}

#[cfg(test)]
mod tests;
