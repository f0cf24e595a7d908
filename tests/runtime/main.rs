//! What the OCI runtime specification 1.2 fixes, asked of a runtime through the command line that runc made usual.
//!
//! The same tests run against any runtime: `CORACLE_OCI_RUNTIME="runc"` names the program and its leading arguments, and
//! without it the coracle of this build answers. `scripts/runtime-conformance` puts the counts of several side by side;
//! a case that another runtime fails is not excused here.
//!
//! ```text
//! test ─► Stage: bundle = base configuration + the case's patch ─► RUNTIME --root DIR create|run|… ─► container
//!           ▲                                                                                          │
//!           └─────── exit codes, state as JSON, what the program printed, files of /proc and of cgroups ◄┘
//! ```
//!
//! Programs inside are shell scripts of a static busybox. Every container, state directory and cgroup has a name of this
//! process's own and is gone afterwards, also after a failure; nothing else of the host is changed: mounts that a case
//! needs on the host's side are made in a mount namespace of their own.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod attacks;
mod capabilities;
mod descriptors;
mod devices;
mod errors;
mod exec;
mod groups;
mod hooks;
mod invoke;
mod lifecycle;
mod mounts;
mod namespaces;
mod process;
mod rootfs;
mod seccomp;
mod stage;
mod terminal;
