//! Control groups: v2, v1 and hybrid hosts behind one set of operations.
//!
//! [`Hierarchies`] says which controllers are mounted where, read from the host and never assumed. A [`Group`] is one
//! relative path in all hierarchies that matter. Called by the agent (create, limit, observe, remove) and, through
//! descriptors only, by processes on their way into a group: a process is born in its v2 group and [`join`]s v1 groups by
//! itself, because a move by anybody else takes its time.
//!
//! It deliberately never moves processes by itself, never writes outside the group and the `cgroup.subtree_control`
//! files above it, and does not talk to systemd. Invariant: every operation may be repeated.

mod device_io;
mod devices;
mod group;
mod host;
mod limits;
mod pressure;
mod program;
mod stats;
mod walk;

pub use device_io::DeviceIo;
pub use devices::{DeviceKind, DeviceRule};
pub use group::{Group, Joins, join};
pub use host::{Controller, Hierarchies, Unified, V1};
pub use limits::{Limits, size_of_pages};
pub use pressure::{Pressure, Pressures, Stalls};
pub use stats::Stats;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a group could not be worked on.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A file of the kernel's could not be used.
    #[error("cannot {operation} {}", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// No hierarchy that could hold processes is mounted.
    #[error("no cgroup hierarchy is mounted")]
    NotMounted,
    /// A path that would leave its hierarchy.
    #[error("{} is not a relative path of plain names", path.display())]
    InvalidPath {
        /// The path.
        path: PathBuf,
    },
    /// Processes were still there after they had been killed again and again.
    #[error("{} still has processes", path.display())]
    Busy {
        /// The group.
        path: PathBuf,
    },
}

impl CgroupError {
    fn file(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self::File { operation, path: path.to_owned(), source }
    }
}

/// Something that the host cannot do, and what follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// A controller is not available.
    Missing {
        /// Which one.
        controller: Controller,
    },
    /// The kernel refused a value.
    Refused {
        /// The file that it was written to.
        file: String,
        /// The value.
        value: String,
        /// Why.
        error: String,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { controller } => {
                write!(f, "no {} controller: {}", controller.name(), controller.effect_of_absence())
            }
            Self::Refused { file, value, error } => write!(f, "{file} does not take {value:?}: {error}"),
        }
    }
}
