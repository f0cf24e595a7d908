//! From a Deployment and its sets to the sets as they should be. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentCondition, DeploymentSpec, DeploymentStatus, ReplicaSet, ReplicaSetSpec,
};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::super::hash;
use super::super::owned::managed_by;
use super::super::rounding::{Round, part};
use super::{annotations, is_deleting, is_in_use, scale, status};

/// The label that tells the sets and pods of one template from those of others.
pub(super) const HASH: &str = "pod-template-hash";

/// What is known.
pub(super) struct Picture<'a> {
    pub(super) deployment: &'a Deployment,
    pub(super) sets: Vec<ReplicaSet>,
    /// Uids of the sets of which pods have not ended.
    pub(super) running: BTreeSet<String>,
    pub(super) now: Timestamp,
}

/// What is to be done, in this order, and then to be told.
#[derive(Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) steps: Vec<Step>,
    pub(super) status: DeploymentStatus,
    /// When the deadline of its progress is to be looked at.
    pub(super) again: Option<Duration>,
}

/// One thing to be done.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    Create(ReplicaSet),
    /// Replaces a set, which had this size.
    Update {
        set: ReplicaSet,
        from: i32,
    },
    Delete(ReplicaSet),
    /// Notes the revision at the Deployment.
    Revision(String),
}

/// A set on its way to what it should be.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) set: ReplicaSet,
    pub(super) from: i32,
    is_changed: bool,
    pub(super) is_new: bool,
}

/// The decision in the making.
pub(super) struct Work<'a> {
    pub(super) deployment: &'a Deployment,
    pub(super) spec: &'a DeploymentSpec,
    /// The set of the present template, if there is one.
    pub(super) new: Option<Held>,
    /// The others, oldest first.
    pub(super) old: Vec<Held>,
    running: BTreeSet<String>,
    pub(super) conditions: Vec<DeploymentCondition>,
    steps: Vec<Step>,
    pub(super) now: Timestamp,
}

pub(super) fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

pub(super) fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

/// Whether a set is of the Deployment's present template.
pub(super) fn is_of(set: &ReplicaSet, deployment: &Deployment) -> bool {
    let own = set.spec.as_ref().and_then(|spec| spec.template.clone()).map(without_hash);
    let wanted = deployment.spec.as_ref().map(|spec| without_hash(spec.template.clone()));
    own == wanted
}

fn without_hash(mut template: PodTemplateSpec) -> PodTemplateSpec {
    let metadata = template.metadata.get_or_insert_default();
    if let Some(labels) = &mut metadata.labels {
        labels.remove(HASH);
    }
    metadata.labels = metadata.labels.take().filter(|labels| !labels.is_empty());
    metadata.annotations = metadata.annotations.take().filter(|annotations| !annotations.is_empty());
    template
}

/// Decides what happens next.
pub(super) fn decide(picture: Picture<'_>) -> Plan {
    let Picture { deployment, sets, running, now } = picture;
    let Some(spec) = &deployment.spec else {
        return Plan { steps: Vec::new(), status: deployment.status.clone().unwrap_or_default(), again: None };
    };
    let conditions = deployment.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let mut work = Work { deployment, spec, new: None, old: Vec::new(), running, conditions, steps: Vec::new(), now };
    work.sort(sets);
    let is_paused = spec.paused.unwrap_or(false);
    if is_deleting(&deployment.metadata) {
        return work.finish(false);
    }
    status::note_pause(&mut work.conditions, spec, now);
    work.follow_revision();
    if is_paused || work.is_resized() {
        scale::scale(&mut work);
        if is_paused {
            work.clean_up();
        }
        return work.finish(false);
    }
    match spec.strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) {
        Some("Recreate") => work.recreate(),
        _ => work.roll(),
    }
    work.finish(true)
}

impl Work<'_> {
    fn sort(&mut self, mut sets: Vec<ReplicaSet>) {
        sets.sort_by_key(|set| {
            (set.metadata.creation_timestamp.as_ref().map(|time| time.0), set.metadata.name.clone())
        });
        let found = sets.iter().position(|set| is_of(set, self.deployment));
        let hold = |set: ReplicaSet| Held { from: size(&set), set, is_changed: false, is_new: false };
        self.new = found.map(|place| hold(sets.remove(place)));
        self.old = sets.into_iter().map(hold).collect();
    }

    pub(super) fn wanted(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }

    pub(super) fn is_rolling(&self) -> bool {
        let kind = self.spec.strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
        kind.is_none_or(|kind| kind == "RollingUpdate")
    }

    /// How many more and how many fewer pods than wanted there may be (`ResolveFenceposts`).
    fn margins(&self) -> (i32, i32) {
        if !self.is_rolling() {
            return (0, 0);
        }
        let rolling = self.spec.strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let surge = part(rolling.and_then(|rolling| rolling.max_surge.as_ref()), self.wanted(), Round::Up);
        let unavailable =
            part(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), self.wanted(), Round::Down);
        // Without any room nothing could move.
        (surge, if surge == 0 && unavailable == 0 { 1 } else { unavailable })
    }

    pub(super) fn max_surge(&self) -> i32 {
        self.margins().0
    }

    pub(super) fn max_unavailable(&self) -> i32 {
        if self.wanted() == 0 { 0 } else { self.margins().1.min(self.wanted()) }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Held> {
        self.old.iter().chain(&self.new)
    }

    fn total(&self) -> i32 {
        self.all().map(|held| size(&held.set)).sum()
    }

    fn next_revision(&self) -> i64 {
        self.old.iter().map(|held| annotations::revision(&held.set)).max().unwrap_or(0) + 1
    }

    /// The set of the present template, and with it the Deployment, is at the newest revision.
    fn follow_revision(&mut self) {
        let revision = self.next_revision();
        let Some(held) = &mut self.new else { return };
        held.is_changed |=
            annotations::take_over(&mut held.set, self.deployment.metadata.annotations.as_ref(), revision);
        let min_ready = self.spec.min_ready_seconds;
        if let Some(own) = &mut held.set.spec
            && own.min_ready_seconds.unwrap_or(0) != min_ready.unwrap_or(0)
        {
            own.min_ready_seconds = min_ready;
            held.is_changed = true;
        }
        let revision = annotations::revision(&held.set).to_string();
        let name = held.set.metadata.name.clone().unwrap_or_default();
        if status::has_deadline(self.spec) && !self.conditions.iter().any(|one| one.type_ == status::PROGRESSING) {
            let text = format!("Found new replica set {name:?}");
            status::progress(&mut self.conditions, "True", "FoundNewReplicaSet", text, self.now);
        }
        self.note_revision(revision);
    }

    fn note_revision(&mut self, revision: String) {
        let own = self.deployment.metadata.annotations.as_ref().and_then(|all| all.get(annotations::REVISION));
        if own != Some(&revision) {
            self.steps.push(Step::Revision(revision));
        }
    }

    /// Whether another number of pods is wanted than when the sets got their sizes.
    fn is_resized(&self) -> bool {
        let in_use = self.all().filter(|held| size(&held.set) > 0);
        in_use.filter_map(|held| annotations::desired(&held.set)).any(|desired| desired != self.wanted())
    }

    /// Makes the set of the present template, if there is none.
    fn make_new(&mut self) {
        if self.new.is_some() {
            return;
        }
        let mut template = without_hash(self.spec.template.clone());
        let collisions = self.deployment.status.as_ref().and_then(|status| status.collision_count);
        let hash = hash::of(&template, collisions);
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.insert(HASH.to_owned(), hash.clone());
        let labels = labels.clone();
        let mut selector: LabelSelector = self.spec.selector.clone();
        selector.match_labels.get_or_insert_default().insert(HASH.to_owned(), hash.clone());
        let metadata = &self.deployment.metadata;
        let name = format!("{}-{hash}", metadata.name.as_deref().unwrap_or_default());
        let mut set = ReplicaSet {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: metadata.namespace.clone(),
                labels: Some(labels),
                owner_references: Some(vec![managed_by(self.deployment)]),
                ..ObjectMeta::default()
            },
            spec: Some(ReplicaSetSpec {
                replicas: Some(0),
                min_ready_seconds: self.spec.min_ready_seconds,
                selector,
                template: Some(template),
            }),
            status: None,
        };
        let revision = self.next_revision();
        annotations::take_over(&mut set, metadata.annotations.as_ref(), revision);
        annotations::set_sizes(&mut set, self.wanted(), self.wanted() + self.max_surge());
        self.new = Some(Held { set, from: 0, is_changed: true, is_new: true });
        let size = self.size_of_new();
        self.resize_new(size);
        if status::has_deadline(self.spec) {
            let text = format!("Created new replica set {name:?}");
            status::progress(&mut self.conditions, "True", "NewReplicaSetCreated", text, self.now);
        }
        self.note_revision(revision.to_string());
    }

    /// How many pods the new set may have now (`NewRSNewReplicas`).
    fn size_of_new(&self) -> i32 {
        let own = self.new.as_ref().map_or(0, |held| size(&held.set));
        if !self.is_rolling() {
            return self.wanted();
        }
        let room = self.wanted() + self.max_surge() - self.total();
        if room <= 0 { own } else { own + room.min(self.wanted() - own) }
    }

    /// Gives a set a size; whether it had another one.
    pub(super) fn resize(held: &mut Held, to: i32, (wanted, maximum): (i32, i32)) -> bool {
        let is_noted = annotations::set_sizes(&mut held.set, wanted, maximum);
        let is_resized = size(&held.set) != to;
        if let Some(spec) = &mut held.set.spec {
            spec.replicas = Some(to);
        }
        held.is_changed |= is_noted || is_resized;
        is_resized
    }

    pub(super) fn sizes(&self) -> (i32, i32) {
        (self.wanted(), self.wanted() + self.max_surge())
    }

    pub(super) fn resize_new(&mut self, to: i32) -> bool {
        let sizes = self.sizes();
        self.new.as_mut().is_some_and(|held| Self::resize(held, to, sizes))
    }

    /// Step by step from the old sets to the new one; up before down.
    fn roll(&mut self) {
        self.make_new();
        let own = self.new.as_ref().map_or(0, |held| size(&held.set));
        let to = if own > self.wanted() { self.wanted() } else { self.size_of_new() };
        let is_made = self.new.as_ref().is_some_and(|held| held.is_new);
        if (own != self.wanted() && self.resize_new(to)) || is_made {
            return;
        }
        if self.shrink_old() {
            return;
        }
        if status::is_complete(self, &status::numbers(self)) {
            self.clean_up();
        }
    }

    /// Takes pods from the old sets, first those that do not work (`reconcileOldReplicaSets`).
    fn shrink_old(&mut self) -> bool {
        if self.old.iter().all(|held| size(&held.set) == 0) {
            return false;
        }
        let least = self.wanted() - self.max_unavailable();
        let new_unavailable = self.new.as_ref().map_or(0, |held| size(&held.set) - available(&held.set));
        let mut left = self.total() - least - new_unavailable;
        if left <= 0 {
            return false;
        }
        let sizes = self.sizes();
        let mut is_shrunk = false;
        for held in &mut self.old {
            let (own, works) = (size(&held.set), available(&held.set));
            let count = left.min(own - works);
            if own == 0 || count <= 0 {
                continue;
            }
            left -= count;
            is_shrunk |= Self::resize(held, own - count, sizes);
        }
        let mut left = self.all().map(|held| available(&held.set)).sum::<i32>() - least;
        for held in &mut self.old {
            let own = size(&held.set);
            let count = left.min(own);
            if own == 0 || count <= 0 {
                continue;
            }
            left -= count;
            is_shrunk |= Self::resize(held, own - count, sizes);
        }
        is_shrunk
    }

    /// The new pods come when the last of the former ones is gone.
    fn recreate(&mut self) {
        let sizes = self.sizes();
        let mut is_shrunk = false;
        for held in self.old.iter_mut().filter(|held| size(&held.set) > 0) {
            is_shrunk |= Self::resize(held, 0, sizes);
        }
        let new = self.new.as_ref().and_then(|held| held.set.metadata.uid.as_ref());
        if is_shrunk || self.running.iter().any(|uid| Some(uid) != new) {
            return;
        }
        self.make_new();
        let wanted = self.wanted();
        self.resize_new(wanted);
        if status::is_complete(self, &status::numbers(self)) {
            self.clean_up();
        }
    }

    /// Removes the oldest of the sets that are kept for going back to.
    fn clean_up(&mut self) {
        let Some(limit) = self.spec.revision_history_limit else { return };
        let kept: Vec<&Held> = self.old.iter().filter(|held| is_in_use(&held.set)).collect();
        let surplus = kept.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
        let mut oldest = kept;
        oldest.sort_by_key(|held| annotations::revision(&held.set));
        let is_empty = |set: &ReplicaSet| {
            let status = set.status.as_ref();
            let pods = status.map_or(0, |status| status.replicas);
            let observed = status.and_then(|status| status.observed_generation).unwrap_or(0);
            pods == 0 && size(set) == 0 && set.metadata.generation.unwrap_or(0) <= observed
        };
        let surplus = oldest.into_iter().take(surplus).filter(|held| is_empty(&held.set));
        let steps: Vec<Step> = surplus.map(|held| Step::Delete(held.set.clone())).collect();
        self.steps.extend(steps);
    }

    /// What is to be done and told; conditions of its progress unless it is merely scaled.
    fn finish(mut self, rolls: bool) -> Plan {
        let mut status = status::numbers(&self);
        status::conclude(&mut self, &mut status, rolls);
        let again = status::deadline(&self, &status);
        let changed = self.new.into_iter().chain(self.old).filter(|held| held.is_changed);
        let mut steps: Vec<Step> = changed
            .map(|Held { set, from, is_new, .. }| if is_new { Step::Create(set) } else { Step::Update { set, from } })
            .collect();
        // What is written at the Deployment itself comes last: its state is another one then.
        let (last, removed): (Vec<Step>, Vec<Step>) =
            self.steps.into_iter().partition(|step| matches!(step, Step::Revision(_)));
        steps.extend(removed);
        steps.extend(last);
        Plan { steps, status, again }
    }
}
