//! Whether a change can help a pod that found no node, by what stood in its way.
//!
//! After the queueing hints of upstream's plugins (KEP-4247). Invariant: a change that lets a pod fit somewhere is never
//! called useless; one that does not may be called useful.

use k8s_openapi::api::core::v1::Node;

use super::filter::{Refusal, static_refusal, too_small};
use super::needs::Needs;
use super::nominations::nominated_node;
use super::pending::Waiting;
use super::terms::{Namespaces, Term, covers};

/// What has changed.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a> {
    /// A node came or became different.
    Node(&'a Node),
    /// A node is gone.
    NodeGone,
    /// A pod has freed what it had of its node.
    Gone(&'a Needs),
    /// A pod came to a node.
    Came(&'a Needs),
    /// A pod that has a node needs something else, or is called something else.
    Different(&'a Needs, &'a Needs),
    /// Room is no longer kept for a pod.
    Released,
    /// The labels of a namespace.
    Namespace,
    /// A claim, volume or class came or became different.
    Volume,
}

/// Whether a change can help a pod that was refused everywhere for these reasons.
pub(super) fn helps(waiting: &Waiting, refusals: &Refusals<'_>, change: Change<'_>) -> bool {
    let needs = &*waiting.needs;
    match change {
        // Without a reason there was no node at all, or the pod is at fault; what is said of it may be another now.
        Change::Node(_) if refusals.of.is_empty() => true,
        Change::Node(node) => refusals.depends_on_places() || could_take(waiting, node),
        Change::NodeGone => refusals.depends_on_places(),
        Change::Gone(other) => refusals.room_of(needs, other) || refusals.company_of(needs, other),
        Change::Came(other) => refusals.company_of(needs, other),
        Change::Different(before, after) => {
            refusals.is_given_back(before, after)
                || refusals.company_of(needs, before)
                || refusals.company_of(needs, after)
        }
        Change::Released => refusals.any(Refusal::is_due_to_pods),
        Change::Namespace => {
            refusals.any(|refusal| matches!(refusal, Refusal::NotNear | Refusal::NotApart | Refusal::Rejected))
        }
        Change::Volume => !needs.claims.is_empty(),
    }
}

/// Whether a node could take a pod if nothing else ran there.
fn could_take(waiting: &Waiting, node: &Node) -> bool {
    let Some(spec) = &waiting.pod.spec else { return true };
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    let allocatable = super::amounts::Amounts::read(allocatable);
    static_refusal(spec, node).is_none() && too_small(&waiting.needs, &allocatable).next().is_none()
}

/// Why a pod was refused, and the labels of namespaces.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refusals<'a> {
    pub(super) of: &'a std::collections::BTreeSet<Refusal>,
    pub(super) namespaces: &'a Namespaces,
}

impl Refusals<'_> {
    fn any(&self, is_it: impl Fn(&Refusal) -> bool) -> bool {
        self.of.iter().any(is_it)
    }

    /// A change of one node may make another one fit.
    fn depends_on_places(&self) -> bool {
        self.any(|refusal| {
            matches!(refusal, Refusal::Spread | Refusal::SpreadLabel | Refusal::NotNear | Refusal::NotApart)
                || matches!(refusal, Refusal::Rejected)
        })
    }

    /// Whether what another pod has of its node is what was missing.
    fn room_of(&self, needs: &Needs, other: &Needs) -> bool {
        self.any(|refusal| match refusal {
            Refusal::TooManyPods => true,
            Refusal::Insufficient(resource) => other.requests.get(resource) > 0,
            Refusal::Ports => other.ports.iter().any(|port| needs.ports.iter().any(|own| own.conflicts(port))),
            Refusal::ClaimInUse => other.uses_any(&needs.claims),
            _ => false,
        })
    }

    /// Whether a pod needs less than before of what was missing.
    fn is_given_back(&self, before: &Needs, after: &Needs) -> bool {
        self.any(|refusal| match refusal {
            Refusal::Insufficient(resource) => after.requests.get(resource) < before.requests.get(resource),
            _ => false,
        })
    }

    /// Whether another pod is one of those that the pod is to be near or not near, or among which it is spread.
    fn company_of(&self, needs: &Needs, other: &Needs) -> bool {
        let company = &needs.company;
        let about = |terms: &[Term], pod: &Needs| terms.iter().any(|term| term.cover.covers(pod, self.namespaces));
        self.any(|refusal| match refusal {
            Refusal::NotNear => about(&company.near, other),
            Refusal::NotApart => about(&company.apart, other),
            Refusal::Rejected => about(&other.company.apart, needs),
            Refusal::Spread => {
                let mut hard = company.spread.iter().filter(|constraint| constraint.is_hard);
                needs.namespace == other.namespace && hard.any(|one| covers(&one.selector, &other.labels))
            }
            _ => false,
        })
    }
}

/// Whether a pod says the same as before to whoever decides on it.
pub(super) fn is_same_pod(before: &k8s_openapi::api::core::v1::Pod, after: &k8s_openapi::api::core::v1::Pod) -> bool {
    before.metadata.uid == after.metadata.uid
        && before.spec == after.spec
        && before.metadata.labels == after.metadata.labels
        // What we have written ourselves is no news; that somebody has taken it back is.
        && (nominated_node(before).is_none() || nominated_node(after).is_some())
}
