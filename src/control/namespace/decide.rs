//! What to delete next, and what to tell users.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::NamespaceCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// A namespaced kind.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resource {
    /// `pods`, `deployments.apps`.
    pub name: String,
    /// Path of its group and version, e.g. `/apis/apps/v1`.
    pub root: String,
    /// Last segment of its path.
    pub plural: String,
    /// Whether all of a namespace can be deleted by one request.
    pub by_collection: bool,
}

impl Resource {
    /// Path of all its objects in a namespace.
    pub fn path(&self, namespace: &str) -> String {
        format!("{}/namespaces/{namespace}/{}", self.root, self.plural)
    }
}

/// An object that is still there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Remaining {
    /// Its name.
    pub name: String,
    /// Whether it has been told to go.
    pub is_deleting: bool,
    /// Who else must agree.
    pub finalizers: Vec<String>,
}

/// What is in a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Contents {
    /// Objects of each kind of which there are any.
    pub objects: BTreeMap<Resource, Vec<Remaining>>,
    /// Groups of which the server could not say what kinds they have.
    pub undiscovered: Vec<String>,
    /// Deletions and listings that failed.
    pub failures: Vec<String>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Kinds of which everything in the namespace is to be deleted now.
    pub delete: Vec<Resource>,
    /// Nothing is left, for certain.
    pub is_empty: bool,
    /// The namespace's conditions: type, true or false, reason, message.
    pub conditions: Vec<(&'static str, bool, &'static str, String)>,
}

/// Decides by what is in the namespace.
pub fn decide(contents: &Contents) -> Verdict {
    let undeleted = contents.objects.iter().filter(|(_, objects)| objects.iter().any(|object| !object.is_deleting));
    let mut delete: Vec<Resource> = undeleted.map(|(resource, _)| resource.clone()).collect();
    // Whatever protects pods (network policies, secrets they still read …) outlives them: KEP-5080.
    if contents.objects.keys().any(is_pods) {
        delete.retain(is_pods);
    }
    let is_certain = contents.undiscovered.is_empty() && contents.failures.is_empty();
    Verdict { delete, is_empty: contents.objects.is_empty() && is_certain, conditions: conditions_of(contents) }
}

fn is_pods(resource: &Resource) -> bool {
    resource.name == "pods"
}

fn conditions_of(contents: &Contents) -> Vec<(&'static str, bool, &'static str, String)> {
    let remaining: Vec<String> = contents
        .objects
        .iter()
        .map(|(resource, objects)| format!("{} has {} resource instances", resource.name, objects.len()))
        .collect();
    let mut finalizers: BTreeMap<&str, usize> = BTreeMap::new();
    for finalizer in contents.objects.values().flatten().flat_map(|object| &object.finalizers) {
        *finalizers.entry(finalizer).or_default() += 1;
    }
    let finalizers: Vec<String> =
        finalizers.iter().map(|(name, count)| format!("{name} in {count} resource instances")).collect();
    let said = |parts: &[String], good: &str, bad: &str, separator: &str| {
        if parts.is_empty() { good.to_owned() } else { format!("{bad}{}", parts.join(separator)) }
    };
    let reason = |parts: &[String], good, bad| if parts.is_empty() { good } else { bad };
    let (undiscovered, failures) = (&contents.undiscovered, &contents.failures);
    vec![
        (
            "NamespaceDeletionDiscoveryFailure",
            !undiscovered.is_empty(),
            reason(undiscovered, "ResourcesDiscovered", "DiscoveryFailed"),
            said(undiscovered, "All resources successfully discovered", "Discovery failed for some groups: ", ", "),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed".to_owned(),
        ),
        (
            "NamespaceDeletionContentFailure",
            !failures.is_empty(),
            reason(failures, "ContentDeleted", "ContentDeletionFailed"),
            said(
                failures,
                "All content successfully deleted, may be waiting on finalization",
                "Failed to delete all resource types, some are left: ",
                ", ",
            ),
        ),
        (
            "NamespaceContentRemaining",
            !remaining.is_empty(),
            reason(&remaining, "ContentRemoved", "SomeResourcesRemain"),
            said(&remaining, "All content successfully removed", "Some resources are remaining: ", ", "),
        ),
        (
            "NamespaceFinalizersRemaining",
            !finalizers.is_empty(),
            reason(&finalizers, "ContentHasNoFinalizers", "SomeFinalizersRemain"),
            said(
                &finalizers,
                "All content-preserving finalizers finished",
                "Some content in the namespace has finalizers remaining: ",
                ", ",
            ),
        ),
    ]
}

/// The conditions of the namespace with those of the verdict; the time of transition stays where nothing changed.
pub(super) fn conditions(former: &[NamespaceCondition], verdict: &Verdict, now: Timestamp) -> Vec<NamespaceCondition> {
    let mut conditions = former.to_vec();
    for (type_, holds, reason, message) in &verdict.conditions {
        let status = if *holds { "True" } else { "False" };
        let known = former.iter().find(|condition| condition.type_ == *type_);
        let since = known.filter(|known| known.status == status).and_then(|known| known.last_transition_time.clone());
        let condition = NamespaceCondition {
            type_: (*type_).to_owned(),
            status: status.to_owned(),
            reason: Some((*reason).to_owned()),
            message: Some(message.clone()),
            last_transition_time: Some(since.unwrap_or(Time(now))),
        };
        match conditions.iter_mut().find(|condition| condition.type_ == *type_) {
            Some(slot) => *slot = condition,
            None => conditions.push(condition),
        }
    }
    conditions
}
