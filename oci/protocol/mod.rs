//! What agent and shim say to each other.
//!
//! Used by the shim (server side, blocking) and the native runtime (client side, asynchronous); nobody else speaks it.
//! It deliberately knows nothing of pods: a shim has containers with opaque identities, scripts and descriptors.
//! Invariants: decoding is total, whatever arrives is a message, or an error and the end of the connection; nothing is
//! allocated beyond [`MAX_FRAME`]; variants and fields are only ever appended, so that an agent can speak to a shim
//! that an earlier release left behind (its version is in its `Hello`).
//!
//! A connection is a Unix stream socket. A frame is a little-endian `u32` length, a `u8` count of descriptors, and
//! that many bytes of postcard; the descriptors travel with the first byte of the frame (`SCM_RIGHTS`).
//!
//! ```text
//! agent                                      shim
//!   │ on the socket that is the shim's standard input, once:
//!   ├── SetUp {namespaces …} [root, groups] ───►│  namespaces, control socket, pivot
//!   │◄── Hello {version, pid} ──────────────────┤  by the process that it is in the end, born in its v2 group
//!   │◄── IsSetUp {version, pid, warnings} ──────┤  or SetUpFailed {step, errno}, at once or now, and it ends
//!   │ on a connection to the control socket, and on the former from now on without this pair:
//!   ├── Hello {version} ───────────────────────►│  closes every older connection, unread requests included
//!   │◄── Hello {version, pid} ──────────────────┤
//!   │ then, in any order, replies matched by id:
//!   ├── Request id Start {…} [descriptors] ────►│
//!   │◄── Reply id Started {pid, …} ─────────────┤  when the command has been executed
//!   ├── Request id Exec {…} [descriptors] ─────►│
//!   │◄── Reply id Exited {…} ───────────────────┤  when it has ended
//!   ├── Request id Stop | Remove | KillExec ───►│
//!   │◄── Reply id Done ─────────────────────────┤
//!   ├── Request id Attach {…} [socket] ────────►│
//!   │◄── Reply id Done ─────────────────────────┤  one byte and the input over the socket, closed by whoever ends first
//!   ├── Request id List ───────────────────────►│
//!   │◄── Reply id Containers {…} ───────────────┤
//!   ├── Request id Shutdown ───────────────────►│  kills what runs, answers Done, ends
//!   │◄── Changed {sequence} ────────────────────┤  at any time: look again
//!   │◄── Reply id Failed {…} ───────────────────┤  instead of any other reply
//! ```

mod frame;
mod message;
mod socket;
#[cfg(test)]
mod tests;

pub use frame::{FrameError, Frames, HEADER, MAX_BRIEF_FRAME, MAX_DESCRIPTORS, MAX_FRAME, decode, encode};
pub use message::{
    ContainerRecord, Exec, Failure, FromShim, Input, KEPT, Limits, LogOptions, Namespaces, Outcome, Reply, Request,
    Role, RunState, SetUp, Start, ToShim, VERSION, Warning,
};
pub use socket::{Received, receive, send};
