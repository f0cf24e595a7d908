//! One pod: the plan, what a worker remembers, and the worker that acts.
//!
//! `plan` decides, `worker` and `operation` act, `status` and `report` tell. Invariant: nothing outside `plan` decides
//! about the life of a container.

mod assignment;
pub mod eviction;
mod files;
mod labels;
pub mod memory;
mod observe;
mod operation;
pub(crate) mod parts;
pub mod plan;
mod pulling;
pub(crate) mod report;
pub mod resize;
mod restart_all;
mod run;
mod status;
mod step;
mod stop;
mod users;
mod view;
mod worker;

pub(crate) use assignment::{Assignment, Target};
pub(crate) use files::PodDirs;
pub use memory::Memory;
pub use plan::{Action, Desired, Observed, Plan, Wish, plan};
pub(crate) use view::whole_seconds;
pub(crate) use worker::{Handle, work};

#[cfg(test)]
mod tests;
