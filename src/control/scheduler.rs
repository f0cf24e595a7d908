//! The scheduler: puts pods that have no node on one.
//!
//! ```text
//!                  ┌──────── waits until something changes that can help ────────┐
//!                  ▼                                                             │
//!   new pod ──► active ──► decide(pod, cluster) ──► no node: condition, event ──► parked
//!                  ▲               │
//!                  │               └─► node: assume ──► POST binding ──► done
//!                  └──── back-off ◄───────────────────────── failed
//! ```
//!
//! [`decide`] is a pure function of one pod and a [`Cluster`], after upstream's plugins (`pkg/scheduler/framework/plugins`)
//! and with their wording: filters, then scores, and if nothing fits, who of lower priority goes for it. [`Pending`] is the
//! queue as data; [`shell`] feeds both from informers and carries out what they say. Only pods with
//! `schedulerName: default-scheduler` are looked at. It deliberately has no extenders, no profiles and no dynamic resources.
//! Invariant: a pod that was given room counts against its node from that moment on, so no two pods are bound into the
//! same room.

mod amounts;
mod bind;
mod census;
mod claims;
mod cluster;
mod decide;
mod facts;
mod family;
mod filter;
mod hints;
mod needs;
mod nominations;
mod pending;
mod preempt;
mod score;
mod shell;
mod terms;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use amounts::Amounts;
pub use claims::{Bindings, Claims};
pub use cluster::Cluster;
pub use decide::{Circumstances, Decision, Nomination, Verdict, decide};
pub use facts::Asked;
pub use needs::Needs;
pub use pending::Pending;
pub use shell::{Watched, spawn};
