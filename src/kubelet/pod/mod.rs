//! One pod: the plan, what a worker remembers, and the worker that acts.
//!
//! `plan` decides, `worker` and `operations` act, `container` translates. Invariant: nothing outside `plan` decides
//! about the life of a container.

mod labels;
pub mod memory;
pub mod plan;
mod run;
mod status;
mod stop;
mod view;

pub use memory::Memory;
pub use plan::{Action, Desired, Observed, Plan, Wish, plan};
