//! (OCI runtime configuration, facts about the host) → script.
//!
//! Pure: what it needs to know of the host is in [`HostFacts`], what it needs from the host is in
//! [`Compiled::descriptors`], to be opened by the caller in that order (see [`open`]). It refuses what the interpreter
//! cannot do, by the name of the property, and never ignores it silently.

mod facts;

use std::path::PathBuf;

use oci_spec::runtime::{Process, Spec};

pub use facts::HostFacts;

use super::Script;

/// Something that the caller opens and hands over with the script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Descriptor {
    /// The detached mount that becomes the root file system: [`super::rootfs::overlay`].
    Rootfs,
    /// A detached clone of a path of the host: [`super::rootfs::clone_host_path`].
    HostPath {
        /// Which one.
        path: PathBuf,
        /// Whether with the mounts below it.
        recursive: super::rootfs::Recursive,
        /// Whether it must pass mounts back to the host: [`super::rootfs::require_shared`].
        shared: bool,
    },
    /// A namespace, opened for reading.
    Namespace {
        /// Where it is found.
        path: PathBuf,
    },
    /// [`crate::cgroup::Joins::v2`].
    GroupV2,
    /// This element of [`crate::cgroup::Joins::v1`].
    GroupV1(usize),
}

/// A script and what goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// For [`super::start`] or [`super::exec`].
    pub script: Script,
    /// What the script's places mean, in order.
    pub descriptors: Vec<Descriptor>,
    /// What the host cannot do, and what follows from it.
    pub warnings: Vec<String>,
}

/// Why a configuration cannot become a container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// A property that must be there is absent.
    #[error("{property} is missing")]
    Missing {
        /// Its path in the configuration.
        property: &'static str,
    },
    /// A property has a value that makes no sense.
    #[error("{property}: {reason}")]
    Invalid {
        /// Its path in the configuration.
        property: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A property asks for something that is not provided.
    #[error("{property} is not supported")]
    Unsupported {
        /// Its path in the configuration.
        property: String,
    },
}

/// Compiles a container.
///
/// # Errors
/// When the configuration is wrong or asks for what is not provided.
pub fn compile(spec: &Spec, _host: &HostFacts) -> Result<Compiled, CompileError> {
    let _ = spec;
    Err(CompileError::Unsupported { property: "process".to_owned() })
}

/// Compiles a further process of a container that was made of `spec`.
///
/// # Errors
/// When the process is wrong or asks for what is not provided.
pub fn compile_exec(spec: &Spec, process: &Process, _host: &HostFacts) -> Result<Compiled, CompileError> {
    let _ = (spec, process);
    Err(CompileError::Unsupported { property: "process".to_owned() })
}
