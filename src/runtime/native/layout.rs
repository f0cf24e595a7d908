//! Where things are on disk, and the two records that the agent keeps there.
//!
//! ```text
//! <root>/libexec/coracle-shim-<digest>      the per-pod program
//! <root>/sandboxes/<sandbox>/               the shim's root directory
//!     sandbox.json                          what the sandbox shall be: written before anything else of it
//!     control.sock, shim.log                the shim's
//!     containers/<container>/               written before the container is started
//!         container.json                    what the container was started as
//!         config.json                       the same as an OCI runtime configuration, for commands in it
//!         record                            what became of it (the shim's, while it lives)
//!         upper, work                       writable layer
//! ```
//!
//! Invariant: what exists on the host for a sandbox can be told from its directory, so that a removal that was
//! interrupted anywhere can be repeated; the directory itself goes last.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{ContainerId, ImageId, LinuxUser, SandboxId, SandboxSpec};

/// Bytes of the longest record that is read.
const LONGEST: u64 = 16 << 20;

/// What a sandbox shall be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SandboxRecord {
    pub(super) spec: SandboxSpec,
    pub(super) created_at: Timestamp,
}

/// What a container was started as, as far as it is needed later.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ContainerStarted {
    pub(super) id: ContainerId,
    pub(super) name: String,
    pub(super) attempt: u32,
    pub(super) image: ImageId,
    pub(super) image_reference: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) log_path: PathBuf,
    /// Known once its image has been looked at.
    #[serde(default)]
    pub(super) user: Option<LinuxUser>,
    /// Orders containers by age.
    pub(super) created_at: Timestamp,
}

/// The directories of one instance.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(super) fn libexec(&self) -> PathBuf {
        self.root.join("libexec")
    }

    pub(super) fn sandboxes(&self) -> PathBuf {
        self.root.join("sandboxes")
    }

    pub(super) fn sandbox(&self, id: &SandboxId) -> PathBuf {
        self.sandboxes().join(&id.0)
    }

    pub(super) fn containers(&self, id: &SandboxId) -> PathBuf {
        self.sandbox(id).join("containers")
    }

    pub(super) fn container(&self, id: &SandboxId, container: &ContainerId) -> PathBuf {
        self.containers(id).join(&container.0)
    }
}

/// The name of a sandbox's record.
pub(super) const SANDBOX: &str = "sandbox.json";
/// The name of a container's record.
pub(super) const CONTAINER: &str = "container.json";
/// The name of a container's configuration.
pub(super) const CONFIG: &str = "config.json";
/// The name of the shim's record of a container.
pub(super) const RECORD: &str = "record";

/// Creates a directory and those above it, closed to everyone else.
pub(super) fn make_private(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// Replaces a file as a whole.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let mut file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    fs::rename(&new, path)
}

/// Replaces a JSON file as a whole.
pub(super) fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    replace(path, &serde_json::to_vec(value)?)
}

/// Reads a JSON file; none if it does not exist or was not written to its end.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    Ok(read(path)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// Reads a file of limited length; none if it does not exist.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::File::open(path) {
        Ok(file) => {
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut io::Read::take(file, LONGEST), &mut bytes)?;
            Ok(Some(bytes))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Names of the entries of a directory; none if it does not exist.
pub(super) fn names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}
