//! The Node object: what the node is and that it is alive.
//!
//! `facts` reads the host once, `object` renders (pure), `keeper` registers and keeps status and lease up to date.
//! Invariant: an idle node writes its lease and, every five minutes, its status, and nothing else.

mod facts;
mod keeper;
mod object;

pub(crate) use facts::Capacity;
pub use facts::FactError;
pub(crate) use keeper::keep;
pub(crate) use object::unregistered;
