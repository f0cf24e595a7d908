//! Making and removing the pods of a set, and keeping its revisions.
//!
//! After `RealPodControl` and `slowStartBatch` upstream: first one pod, then twice as many each time, so that a quota or a
//! policy that forbids them is met by few requests.

use api::selector::LabelSelector;
use client::events::{EventType, Recorder, reference};
use client::{Client, ClientError, DeleteOptions, Key, Object, unless_overtaken};
use futures_util::future::join_all;
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::{ObjectReference, Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::is_ending_namespace;
use super::owned::{Owned, managed_by};
use super::revision::{self, History};
use super::unseen::Unseen;

/// The most pods that are made or removed at once, upstream's `BurstReplicas`.
pub(super) const BURST: usize = 500;

/// How the controllers of one kind act on pods.
#[derive(Debug)]
pub(super) struct Members {
    pub(super) client: Client,
    pub(super) recorder: Recorder,
    pub(super) unseen: Unseen,
    /// What is told of a pod that was made or removed, or was not.
    pub(super) words: Words,
}

/// What was tried: the verb, the pod's name and the owner's.
pub(super) struct Deed<'a> {
    pub(super) verb: &'static str,
    pub(super) pod: &'a str,
    pub(super) owner: &'a str,
}

/// From what was tried, and the refusal if it failed, to what is told.
pub(super) type Words = fn(&Deed<'_>, Option<&str>) -> String;

/// What most controllers tell.
pub(super) fn created(deed: &Deed<'_>, refusal: Option<&str>) -> String {
    let (done, doing) = if deed.verb == "create" { ("Created", "creating") } else { ("Deleted", "deleting") };
    refusal.map_or_else(|| format!("{done} pod: {}", deed.pod), |refusal| format!("Error {doing}: {refusal}"))
}

/// A pod that an owner's template describes.
pub(super) fn pod_of<O: Object>(owner: &O, template: &PodTemplateSpec) -> Pod {
    let from = template.metadata.clone().unwrap_or_default();
    let name = owner.metadata().name.clone().unwrap_or_default();
    let metadata = ObjectMeta {
        generate_name: Some(format!("{name}-")),
        namespace: owner.metadata().namespace.clone(),
        labels: from.labels,
        annotations: from.annotations,
        finalizers: from.finalizers,
        owner_references: Some(vec![managed_by(owner)]),
        ..ObjectMeta::default()
    };
    Pod { metadata, spec: template.spec.clone(), status: None }
}

impl Members {
    /// Whether an owner's pods can be seen as they are, see [`Unseen::settle`].
    pub(super) async fn settle(&self, pods: &Owned<Pod>, owner: &Key) -> Result<bool, ClientError> {
        self.unseen.settle(&self.client, pods, owner).await
    }

    /// Makes pods; how many came to be, and the first refusal.
    pub(super) async fn create<O: Object>(&self, owner: &O, pods: Vec<Pod>) -> (usize, Option<ClientError>) {
        let (mut made, mut rest, mut batch) = (0, pods, 1);
        while !rest.is_empty() {
            let later = rest.split_off(batch.min(rest.len()));
            let results = join_all(rest.iter().map(|pod| self.create_one(owner, pod))).await;
            made += results.iter().filter(|result| result.is_ok()).count();
            if let Some(error) = results.into_iter().find_map(Result::err) {
                return (made, Some(error));
            }
            (rest, batch) = (later, batch * 2);
        }
        (made, None)
    }

    async fn create_one<O: Object>(&self, owner: &O, pod: &Pod) -> Result<(), ClientError> {
        let subject = reference(owner);
        let deed = |pod| Deed { verb: "create", pod, owner: owner_name(owner) };
        match self.client.create(pod).await {
            Ok(created) => {
                self.unseen.created(&Key::of(owner.metadata()), &created);
                let text = (self.words)(&deed(name(&created)), None);
                self.recorder.event(&subject, EventType::Normal, "SuccessfulCreate", &text);
                Ok(())
            }
            // The owner goes as well.
            Err(error) if is_ending_namespace(&error) => Ok(()),
            Err(error) => {
                self.fail(&subject, "FailedCreate", &(self.words)(&deed(name(pod)), Some(&in_words(&error))));
                Err(error)
            }
        }
    }

    /// Removes pods; the first refusal.
    pub(super) async fn delete<'p, O: Object>(
        &self,
        owner: &O,
        pods: impl IntoIterator<Item = &'p Pod>,
    ) -> Option<ClientError> {
        let results = join_all(pods.into_iter().map(|pod| self.delete_one(owner, pod))).await;
        results.into_iter().find_map(Result::err)
    }

    async fn delete_one<O: Object>(&self, owner: &O, pod: &Pod) -> Result<(), ClientError> {
        let (subject, key) = (reference(owner), Key::of(owner.metadata()));
        let deed = Deed { verb: "delete", pod: name(pod), owner: owner_name(owner) };
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let options = DeleteOptions { uid, ..DeleteOptions::default() };
        match self.client.delete::<Pod>(&Key::of(&pod.metadata), &options).await {
            Ok(()) => {
                self.unseen.deleted(&key, pod);
                let text = (self.words)(&deed, None);
                self.recorder.event(&subject, EventType::Normal, "SuccessfulDelete", &text);
                Ok(())
            }
            Err(error) if error.is_overtaken() => Ok(()),
            Err(error) => {
                self.fail(&subject, "FailedDelete", &(self.words)(&deed, Some(&in_words(&error))));
                Err(error)
            }
        }
    }

    /// The revisions of an owner, whose present template may have collided with others' so often.
    pub(super) async fn history<O: Object>(
        &self,
        revisions: &Owned<ControllerRevision>,
        owner: &O,
        selector: &LabelSelector,
        (template, collisions): (&PodTemplateSpec, Option<i32>),
    ) -> Result<History, ClientError> {
        let known = revisions.claim(&self.client, owner, selector, None).await?;
        let known = known.into_iter().map(|one| (*one).clone()).collect();
        Ok(revision::history(owner, template, collisions, known))
    }

    /// Writes the present revision down, if it is not; whether its name was free or is its own.
    pub(super) async fn keep(&self, history: &History) -> Result<bool, ClientError> {
        let present = &history.present;
        if history.is_raised {
            unless_overtaken(self.client.replace(present).await)?;
        }
        if !history.is_new {
            return Ok(true);
        }
        match self.client.create(present).await {
            Err(error) if error.is_already_exists() => {
                let found = self.client.get_opt::<ControllerRevision>(&Key::of(&present.metadata)).await?;
                Ok(found.is_none_or(|found| found.data == present.data))
            }
            Err(error) if is_ending_namespace(&error) => Ok(true),
            result => result.map(|_| true),
        }
    }

    pub(super) async fn forget(&self, revision: &ControllerRevision) -> Result<(), ClientError> {
        let options = DeleteOptions::as_seen(&revision.metadata);
        unless_overtaken(self.client.delete::<ControllerRevision>(&Key::of(&revision.metadata), &options).await)
            .map(drop)
    }

    fn fail(&self, subject: &ObjectReference, reason: &str, message: &str) {
        self.recorder.event(subject, EventType::Warning, reason, message);
    }
}

fn owner_name<O: Object>(owner: &O) -> &str {
    owner.metadata().name.as_deref().unwrap_or_default()
}

fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// What the API server said, without what was asked.
pub(super) fn in_words(error: &ClientError) -> String {
    error.api().map_or_else(|| error.to_string(), |error| error.message.clone())
}
