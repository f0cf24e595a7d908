//! Keeps an informer for every kind that there is.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use client::{Client, ClientError, Partial, Sink, follow};
use task::Tasks;

use super::{Followed, Shell};
use crate::kinds::{self, Kind};

/// How often the server is asked for its kinds, as upstream's garbage collector does; changes of definitions of custom
/// resources are an occasion too.
const PERIOD: Duration = Duration::from_secs(30);
/// After a failure.
const RETRY: Duration = Duration::from_secs(1);
/// Whose changes bring new kinds.
const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// Follows what there is, for ever.
pub(super) async fn keep(shell: Arc<Shell>, tasks: Tasks) {
    // Discovery knows no metadata form.
    let client = shell.client.clone();
    loop {
        let pause = match refresh(&shell, &client, &tasks).await {
            Ok(()) => PERIOD,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the kinds to collect are not known");
                RETRY
            }
        };
        let _ = tokio::time::timeout(pause, shell.stale.notified()).await;
    }
}

async fn refresh(shell: &Arc<Shell>, client: &Client, tasks: &Tasks) -> Result<(), ClientError> {
    let found = kinds::discover(client).await?;
    let is_complete = found.undiscovered.is_empty();
    let wanted: HashMap<String, Kind> =
        found.known.into_iter().filter(is_collected).map(|kind| (kind.name(), kind)).collect();
    let mut followed = shell.followed();
    let mut ended = Vec::new();
    followed.retain(|name, old| {
        // A group that does not answer may still be there.
        let stays = wanted.get(name).map_or(!is_complete, |kind| *kind == *old.kind);
        if !stays {
            old.tasks.stop();
        }
        if !stays && !wanted.contains_key(name) {
            ended.push(Arc::clone(&old.kind));
        }
        stays
    });
    for (name, kind) in wanted {
        followed.entry(name).or_insert_with(|| start(shell, kind, tasks));
    }
    drop(followed);
    for kind in ended {
        shell.graph().forget(&kind);
    }
    shell.unlisted.send_modify(|count| {
        count.get_or_insert(0);
    });
    Ok(())
}

fn is_collected(kind: &Kind) -> bool {
    kind.kind != "Event" && ["list", "watch", "delete"].iter().all(|verb| kind.has(verb))
}

fn start(shell: &Arc<Shell>, kind: Kind, tasks: &Tasks) -> Followed {
    let (kind, tasks) = (Arc::new(kind), tasks.child());
    let path = format!("{}/{}", kind.root(), kind.plural);
    shell.unlisted.send_modify(|count| *count = Some(count.unwrap_or(0) + 1));
    let sink = Feed { shell: Arc::clone(shell), kind: Arc::clone(&kind), is_listed: AtomicBool::new(false) };
    follow::<Partial, Feed>(&shell.client, &tasks, &path, Arc::new(sink));
    Followed { kind, tasks }
}

/// Tells the graph of the objects of a kind.
struct Feed {
    shell: Arc<Shell>,
    kind: Arc<Kind>,
    is_listed: AtomicBool,
}

impl Feed {
    fn listed(&self) {
        if !self.is_listed.swap(true, Ordering::AcqRel) {
            self.shell.unlisted.send_modify(|count| *count = count.map(|count| count.saturating_sub(1)));
        }
    }

    fn changed(&self) {
        if self.kind.name() == DEFINITIONS {
            self.shell.stale.notify_one();
        }
    }
}

impl Sink<Partial> for Feed {
    fn replace(&self, objects: Vec<Partial>) {
        let effects = self.shell.graph().replace(&self.kind, objects);
        effects.into_iter().for_each(|effects| self.shell.take(effects));
        self.listed();
    }

    fn put(&self, object: Partial) {
        let effects = self.shell.graph().put(&self.kind, object);
        self.shell.take(effects);
        self.changed();
    }

    fn remove(&self, object: Partial) {
        let effects = self.shell.graph().remove(&object.metadata.uid);
        self.shell.take(effects);
        self.changed();
    }
}

/// A kind that went away before it was listed keeps nobody waiting.
impl Drop for Feed {
    fn drop(&mut self) {
        self.listed();
    }
}
