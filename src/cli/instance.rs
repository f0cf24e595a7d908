//! One instance of Coracle on a host: where its files are and what tag its host-visible names carry.
//!
//! The default instance lives in `/var/lib/coracle` and `/run/coracle` and has no tag. Any other root makes another
//! instance, with everything below that root and a tag derived from its path, so that several share one host.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};

const ROOT: &str = "/var/lib/coracle";
const RUN: &str = "/run/coracle";
const LOGS: &str = "/var/log/pods";
const STATIC_PODS: &str = "/etc/coracle/static-pods";
const MANIFESTS: &str = "/etc/coracle/manifests";
const CONFIG: &str = "/etc/coracle/config.yaml";

/// The places and the tag of an instance.
#[derive(Debug, Clone)]
pub(super) struct Instance {
    /// Durable state.
    pub(super) root: PathBuf,
    /// State that does not survive a reboot.
    pub(super) run: PathBuf,
    /// Container logs.
    pub(super) logs: PathBuf,
    /// Where static pods are looked for unless told otherwise.
    pub(super) static_pods: PathBuf,
    /// Where manifests are looked for unless told otherwise.
    pub(super) manifests: PathBuf,
    /// Tag in host-visible names; empty for the default instance.
    pub(super) tag: String,
}

impl Instance {
    /// The instance of a root folder, or the default one.
    pub(super) fn new(root: Option<&Path>) -> anyhow::Result<Self> {
        let root = match root {
            None => PathBuf::from(ROOT),
            Some(path) => std::path::absolute(path).with_context(|| format!("root {}", path.display()))?,
        };
        if root == Path::new(ROOT) {
            let (run, logs, static_pods) = (RUN.into(), LOGS.into(), STATIC_PODS.into());
            return Ok(Self { root, run, logs, static_pods, manifests: MANIFESTS.into(), tag: String::new() });
        }
        let (run, logs, static_pods) = (root.join("run"), root.join("log/pods"), root.join("static-pods"));
        let (tag, manifests) = (tag_of(&root), root.join("manifests"));
        Ok(Self { root, run, logs, static_pods, manifests, tag })
    }

    /// The configuration file that is read without being named; only the default instance has one.
    pub(super) fn config_file(&self) -> PathBuf {
        if self.tag.is_empty() { PathBuf::from(CONFIG) } else { self.root.join("config.yaml") }
    }

    /// A host-visible name: with the tag, where there is one.
    pub(super) fn named(&self, name: &str) -> String {
        if self.tag.is_empty() { name.to_owned() } else { format!("{name}-{}", self.tag) }
    }

    /// Where the administrator's kubeconfig is.
    pub(super) fn kubeconfig_path(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// The administrator's kubeconfig.
    pub(super) fn kubeconfig(&self) -> anyhow::Result<String> {
        let path = self.kubeconfig_path();
        fs::read_to_string(&path)
            .with_context(|| format!("no kubeconfig at {}; has the server started?", path.display()))
    }

    /// Makes the folders, private to root, and takes the instance for this process.
    pub(super) fn take(&self) -> anyhow::Result<Taken> {
        if !rustix::process::geteuid().is_root() {
            bail!("must run as root: namespaces, mounts and cgroups need it");
        }
        for folder in [&self.root, &self.run] {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let path = self.root.join("lock");
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = file.with_context(|| format!("cannot open {}", path.display()))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!("Coracle is already running with root {}", self.root.display());
        }
        Ok(Taken { _lock: file })
    }
}

/// The right to run as an instance; ends with the process.
#[derive(Debug)]
pub(super) struct Taken {
    _lock: fs::File,
}

/// Six hexadecimal digits of the path's 32-bit FNV-1a hash.
fn tag_of(root: &Path) -> String {
    let bytes = root.as_os_str().as_encoded_bytes();
    let hash = bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    format!("{:06x}", hash >> 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_instance_has_no_tag_and_others_have_their_own() {
        let default = Instance::new(None).unwrap();
        assert_eq!(default.named("kubepods"), "kubepods");
        assert_eq!(Instance::new(Some(Path::new(ROOT))).unwrap().tag, "");
        let (a, b) = (Instance::new(Some(Path::new("/a"))).unwrap(), Instance::new(Some(Path::new("/b"))).unwrap());
        assert_ne!(a.tag, b.tag);
        assert!(a.run.starts_with("/a") && a.logs.starts_with("/a"));
    }
}
