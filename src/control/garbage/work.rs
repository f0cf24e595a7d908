//! Looks at one object and does what is decided.

use std::sync::Arc;
use std::time::Duration;

use client::reconcile::Outcome;
use client::{ClientError, DeleteOptions, Owner, Partial, PartialMetadata, Patch};
use serde_json::Value;

use super::decide::{self, Standing, Verdict, decide};
use super::graph::{FOREGROUND, Identity, Known, Look, ORPHAN, Uid};
use super::{Shell, Task};

/// How soon an object is looked at again that somebody else has just changed.
const SOON: Duration = Duration::from_millis(20);
/// How soon an object is looked at again whose owner is of a kind that nobody knows, or has not been seen.
const LATER: Duration = Duration::from_secs(30);

pub(super) async fn work(shell: Arc<Shell>, task: Task) -> Result<Outcome, ClientError> {
    let done = match &task {
        Task::Look(uid) => look(&shell, uid).await,
        Task::Orphan(uid) => orphan(&shell, uid).await,
    };
    match done {
        // Whoever was faster has made another state, of which the graph will hear.
        Err(error) if error.is_conflict() => Ok(Outcome::Again(SOON)),
        Err(error) if error.is_not_found() => Ok(Outcome::Done),
        other => other,
    }
}

async fn look(shell: &Shell, uid: &Uid) -> Result<Outcome, ClientError> {
    let look = shell.graph().look(uid);
    match look {
        Look::Nothing => Ok(Outcome::Done),
        Look::Foreground(_, blocking) if blocking.is_empty() && !shell.has_listed_all() => Ok(Outcome::Again(SOON)),
        Look::Foreground(who, blocking) if blocking.is_empty() => finish(shell, &who, FOREGROUND).await,
        Look::Foreground(_, blocking) => {
            let idle = blocking.into_iter().filter(|(_, waits)| !waits);
            idle.for_each(|(uid, _)| shell.queue.add(Task::Look(uid)));
            Ok(Outcome::Done)
        }
        Look::Owners(who, has_dependents) => judge(shell, &who, has_dependents).await,
    }
}

/// Asks for an object and its owners, and does what is decided.
async fn judge(shell: &Shell, who: &Identity, has_dependents: bool) -> Result<Outcome, ClientError> {
    let Some(object) = live(shell, who).await? else { return Ok(Outcome::Done) };
    if !object.deletion_timestamp.is_empty() {
        return Ok(Outcome::Done);
    }
    let mut standings = Vec::new();
    for owner in &object.owner_references {
        match standing(shell, who, owner).await? {
            Some(standing) => standings.push(standing),
            None => return Ok(Outcome::Again(LATER)),
        }
    }
    match decide(&object, &standings, has_dependents) {
        Verdict::Keep => {}
        Verdict::Cut(owners) => {
            tracing::debug!(object = who.path(), "taking references to owners away that are gone");
            change(shell, who, decide::cut(&object, &owners)).await?;
        }
        Verdict::Delete(propagation) => {
            tracing::debug!(object = who.path(), propagation, "deleting what has no owner any more");
            let (uid, revision) = (who.uid.clone(), object.resource_version.clone());
            let options = DeleteOptions { uid, revision, propagation, ..DeleteOptions::default() };
            shell.client.delete_path(&who.path(), &options).await?;
        }
    }
    let is_certain = !shell.graph().has_unseen_owner(&who.uid);
    Ok(if is_certain { Outcome::Done } else { Outcome::Again(LATER) })
}

/// What the server says of an owner; none if its kind is not known, which is no proof of anything.
async fn standing(shell: &Shell, dependent: &Identity, owner: &Owner) -> Result<Option<Standing>, ClientError> {
    let kind = shell.kind_of(owner);
    if kind.as_ref().is_some_and(|kind| kind.namespaced) && !dependent.kind.namespaced {
        // In no namespace there is nothing to ask for: upstream leaves such an object alone.
        return Ok(Some(Standing::Solid));
    }
    match shell.graph().known(&owner.uid) {
        Known::Released => return Ok(Some(Standing::Released)),
        Known::Gone => return Ok(Some(Standing::Absent)),
        Known::Unknown => {}
    }
    let Some(kind) = kind else {
        tracing::debug!(dependent = dependent.path(), kind = owner.kind, "the kind of an owner is not known");
        shell.stale.notify_one();
        return Ok(None);
    };
    match shell.client.read::<Partial>(&kind.object(&dependent.namespace, &owner.name)).await {
        Ok(found) if found.metadata.uid != owner.uid => Ok(Some(Standing::Absent)),
        Ok(Partial { metadata }) => {
            let waits = !metadata.deletion_timestamp.is_empty() && metadata.finalizers.iter().any(|f| f == FOREGROUND);
            Ok(Some(if waits { Standing::Waiting } else { Standing::Solid }))
        }
        Err(error) if error.is_not_found() => Ok(Some(Standing::Absent)),
        Err(error) => Err(error),
    }
}

/// Cuts the dependents of an object off, then lets it go.
async fn orphan(shell: &Shell, uid: &Uid) -> Result<Outcome, ClientError> {
    if !shell.has_listed_all() {
        return Ok(Outcome::Again(SOON));
    }
    let found = shell.graph().orphans(uid);
    let Some((owner, dependents)) = found else { return Ok(Outcome::Done) };
    for dependent in &dependents {
        match cut_off(shell, dependent, uid).await {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
    }
    shell.graph().release(uid);
    finish(shell, &owner, ORPHAN).await
}

async fn cut_off(shell: &Shell, dependent: &Identity, owner: &Uid) -> Result<(), ClientError> {
    let Some(object) = live(shell, dependent).await? else { return Ok(()) };
    if object.owner_references.iter().all(|named| named.uid != *owner) {
        return Ok(());
    }
    change(shell, dependent, decide::cut(&object, std::slice::from_ref(owner))).await
}

/// Takes a finalizer away.
async fn finish(shell: &Shell, who: &Identity, finalizer: &str) -> Result<Outcome, ClientError> {
    let object = live(shell, who).await?;
    if let Some(patch) = object.and_then(|object| decide::without_finalizer(&object, finalizer)) {
        change(shell, who, patch).await?;
    }
    Ok(Outcome::Done)
}

/// The object as it is now, if it is still the same one.
async fn live(shell: &Shell, who: &Identity) -> Result<Option<PartialMetadata>, ClientError> {
    match shell.client.read::<Partial>(&who.path()).await {
        Ok(found) => Ok(Some(found.metadata).filter(|metadata| metadata.uid == who.uid)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

async fn change(shell: &Shell, who: &Identity, patch: Value) -> Result<(), ClientError> {
    shell.client.patch_path(&who.path(), &Patch::Merge(patch)).await.map(drop)
}
