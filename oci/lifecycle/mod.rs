//! Containers of OCI bundles, with their state on disk: what the runtime specification calls operations.
//!
//! ```text
//!            create                start              ends by itself, kill         delete
//! (nothing) ────────► created ────────────► running ───────────────────► stopped ────────► (nothing)
//!                        └──────────── kill, delete by force ──────────────►┘
//! ```
//!
//! Each operation is one process (`coracle oci …`) that ends; what later ones need is in the container's state directory:
//!
//! | file          | holds                                                    | from … to           |
//! |---------------|----------------------------------------------------------|---------------------|
//! | `state.json`  | a [`Record`]: who the container's first process is       | create … delete     |
//! | `config.json` | the configuration as it was                              | create … delete     |
//! | `start`       | a fifo; a byte in it is the word to start                | create … start      |
//!
//! Called by the command line; pods do not use it, their shims hold this state in memory. It deliberately does not wait
//! for containers, and runs no hooks yet: a configuration with hooks is refused. Invariants: the state directory is made
//! before and removed after everything else of a container, so that whatever a crash leaves is found by `delete`; and a
//! process is only ever signalled after it was found to be the one that was recorded.

mod create;
mod exec;
mod finish;
mod record;

use std::io;
use std::path::{Path, PathBuf};

pub use create::{Create, Created, When};
pub use exec::Exec;
pub use finish::{Force, Whom};
pub use record::{Record, Status};

use crate::cgroup::{CgroupError, Warning};
use crate::container::compile::{CompileError, FactsError, OpenError};
use crate::container::rootfs::RootfsError;
use crate::container::{Place, Script, StartError, Step};

/// The containers below one directory of state.
#[derive(Debug, Clone)]
pub struct Containers {
    root: PathBuf,
}

/// Why an operation was not done.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    /// A name that cannot be one of a file.
    #[error("{id:?} is no container id: letters, digits and _ + - . only")]
    InvalidId {
        /// The name.
        id: String,
    },
    /// The name is taken.
    #[error("container {id} exists already")]
    Exists {
        /// The name.
        id: String,
    },
    /// There is no such container.
    #[error("container {id} does not exist")]
    NotFound {
        /// The name.
        id: String,
    },
    /// The container is in a state in which this cannot be done.
    #[error("cannot {operation} container {id}: it is {status}")]
    Status {
        /// What was tried.
        operation: &'static str,
        /// The container.
        id: String,
        /// What it is.
        status: Status,
    },
    /// A file could not be used.
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
    /// A file does not hold what it should.
    #[error("cannot understand {}", path.display())]
    Malformed {
        /// Which one.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A version of the specification that is not this one's.
    #[error("ociVersion {version:?} is not supported: 1.x is")]
    Version {
        /// The version.
        version: String,
    },
    /// The configuration is wrong, or asks for what is not provided.
    #[error("cannot make a container of {}", path.display())]
    Compile {
        /// The configuration.
        path: PathBuf,
        /// Why not.
        #[source]
        source: CompileError,
    },
    /// The kernel does not take a limit.
    #[error("{warning}")]
    Limit {
        /// Which one, and why.
        warning: Warning,
    },
    /// The host could not be examined.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// Control groups.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The root file system.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    /// Something that the container needs.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The program could not be started.
    #[error("cannot {what}")]
    Start {
        /// What could not be done.
        what: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A signal could not be sent.
    #[error("cannot signal container {id}")]
    Signal {
        /// The container.
        id: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl LifecycleError {
    fn file(operation: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::File { operation, path: path.to_owned(), source: source.into() }
    }

    fn start(error: &StartError, script: &Script) -> Self {
        let program = script.program.args.first().map(|name| name.as_c_str());
        let (what, subject) = match (error.step(script), error.place) {
            (Some(Step::FindProgram), _) | (_, Place::Execute) => ("execute".to_owned(), program),
            (Some(step), _) => (step.name().to_owned(), step.subject()),
            (None, place) => (place.to_string(), None),
        };
        let what = match subject {
            Some(subject) => format!("{what} {}", subject.to_string_lossy()),
            None => what,
        };
        Self::Start { what, source: error.io() }
    }
}

impl Containers {
    /// The containers whose state is below `root`.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// A container's state directory.
    fn directory(&self, id: &str) -> Result<PathBuf, LifecycleError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
        if id.is_empty() || id == "." || id == ".." || id.len() > 255 || !id.bytes().all(plain) {
            return Err(LifecycleError::InvalidId { id: id.to_owned() });
        }
        Ok(self.root.join(id))
    }

    /// All containers, by name.
    ///
    /// # Errors
    /// When the directory of state cannot be read. A container that is just being made or removed is left out.
    pub fn list(&self) -> Result<Vec<Record>, LifecycleError> {
        let entries = match std::fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            result => result.map_err(|source| LifecycleError::file("read", &self.root, source))?,
        };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut found: Vec<Record> = names.filter_map(|id| self.record(&id).ok()).collect();
        found.sort_by(|left, right| left.id.cmp(&right.id));
        Ok(found)
    }
}
