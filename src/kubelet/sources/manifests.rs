//! Static pods: manifests in a directory.
//!
//! After `pkg/kubelet/config/{file,common}.go` upstream: the name gets the node's as a suffix, and the UID is a hash of the
//! content and the node, so that a changed manifest is another pod.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::status::ApiError;
use k8s_openapi::api::core::v1::{Pod, Toleration};
use sha2::{Digest, Sha256};

use super::{HASH, SOURCE, alone};
use crate::directory::{Directories, DirectoryWatch};

/// A pod of a manifest.
#[derive(Debug, Clone)]
pub(crate) struct StaticPod {
    /// Hash of its content.
    pub(crate) uid: String,
    /// The pod.
    pub(crate) pod: Arc<Pod>,
}

/// The directory of manifests.
pub(crate) struct Manifests {
    directory: PathBuf,
    node: String,
    directories: Directories,
    watch: Option<DirectoryWatch>,
}

/// A manifest that makes no pod.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManifestError {
    #[error("cannot read")]
    Read(#[from] io::Error),
    #[error("not valid YAML or JSON")]
    Syntax(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("not a v1 Pod")]
    NotAPod,
    #[error("another manifest has a pod of this name")]
    Namesake,
    #[error("{message}")]
    Invalid { message: String },
    #[error("static pods may not reference {resource}")]
    Reference { resource: &'static str },
    #[error("the pod has no {field}")]
    Missing { field: &'static str },
}

impl Manifests {
    pub(crate) fn new(directory: PathBuf, node: String, directories: Directories) -> Self {
        Self { directory, node, directories, watch: None }
    }

    /// All pods of the directory, at first at once and then after each change. Cancel safe.
    pub(crate) async fn next(&mut self) -> Vec<StaticPod> {
        match &mut self.watch {
            None => {
                let directory = self.directory.clone();
                if let Err(error) = task::blocking(move || fs::create_dir_all(directory)).await {
                    tracing::error!(%error, "directory of static pods cannot be made");
                }
                match self.directories.watch(&self.directory) {
                    Ok(watch) => self.watch = Some(watch),
                    Err(error) => {
                        tracing::error!(%error, "directory of static pods cannot be watched");
                        return std::future::pending().await;
                    }
                }
            }
            Some(watch) => watch.changed().await,
        }
        let (directory, node) = (self.directory.clone(), self.node.clone());
        task::blocking(move || read_all(&directory, &node)).await
    }
}

fn read_all(directory: &Path, node: &str) -> Vec<StaticPod> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::error!(%error, "directory of static pods cannot be read");
            return Vec::new();
        }
    };
    let mut paths: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| is_manifest(path)).collect();
    paths.sort();
    let mut pods: Vec<StaticPod> = Vec::new();
    for path in paths {
        let parsed = fs::read(&path).map_err(ManifestError::from).and_then(|text| parse(&text, node));
        let parsed = parsed.and_then(|own| without_namesake(own, &pods));
        match parsed {
            Ok(own) => pods.push(own),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(manifest = %path.display(), error, "static pod left out");
            }
        }
    }
    pods
}

/// As upstream, the first of several pods of a name is the one.
fn without_namesake(own: StaticPod, others: &[StaticPod]) -> Result<StaticPod, ManifestError> {
    let name = |own: &StaticPod| (own.pod.metadata.namespace.clone(), own.pod.metadata.name.clone());
    if others.iter().any(|other| name(other) == name(&own)) { Err(ManifestError::Namesake) } else { Ok(own) }
}

/// Hidden files and editors' leavings are no manifests. A name needs no ending: upstream reads whatever is there.
fn is_manifest(path: &Path) -> bool {
    let left = path.file_name().is_none_or(|name| {
        let name = name.to_string_lossy();
        name.starts_with('.') || name.ends_with('~')
    });
    let known = path.extension().is_none_or(|kind| ["yaml", "yml", "json"].iter().any(|known| kind == *known));
    known && !left && path.is_file()
}

/// Makes a pod of a manifest.
pub(super) fn parse(text: &[u8], node: &str) -> Result<StaticPod, ManifestError> {
    let parsed = api::json::parse_yaml(text).map_err(|error| ManifestError::Syntax(error.message.into()))?;
    let mut value = parsed.value;
    if value["kind"] != "Pod" || value["apiVersion"] != "v1" {
        return Err(ManifestError::NotAPod);
    }
    let row = api::resources::find("", "v1", "pods").ok_or(ManifestError::NotAPod)?;
    (row.default)(&mut value);
    let mut pod: Pod = serde_json::from_value(value).map_err(|error| ManifestError::Syntax(error.into()))?;
    let name =
        pod.metadata.name.clone().filter(|name| !name.is_empty()).ok_or(ManifestError::Missing { field: "name" })?;
    let spec = pod.spec.as_mut().ok_or(ManifestError::Missing { field: "spec" })?;
    if spec.containers.is_empty() {
        return Err(ManifestError::Missing { field: "containers" });
    }
    if let Some(resource) = alone::reference(spec) {
        return Err(ManifestError::Reference { resource });
    }
    let uid = hash(text, node);
    spec.node_name = Some(node.to_owned());
    spec.tolerations.get_or_insert_default().push(Toleration {
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        ..Toleration::default()
    });
    pod.metadata.name = Some(format!("{name}-{node}"));
    pod.metadata.namespace.get_or_insert_with(|| "default".to_owned());
    pod.metadata.uid = Some(uid.clone());
    let notes = pod.metadata.annotations.get_or_insert_default();
    notes.insert(HASH.to_owned(), uid.clone());
    notes.insert(SOURCE.to_owned(), "file".to_owned());
    let errors = serde_json::to_value(&pod).map(|value| (row.validate)(&value));
    let errors = errors.map_err(|error| ManifestError::Syntax(error.into()))?;
    if !errors.is_empty() {
        let name = pod.metadata.name.unwrap_or_default();
        return Err(ManifestError::Invalid { message: ApiError::invalid("", "Pod", &name, &errors).message });
    }
    Ok(StaticPod { uid, pod: Arc::new(pod) })
}

/// 32 hexadecimal digits, as upstream's UIDs of static pods have.
fn hash(text: &[u8], node: &str) -> String {
    let digest = Sha256::new().chain_update(node).chain_update([0]).chain_update(text).finalize();
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: web, image: web}]}\n";

    #[test]
    fn a_manifest_becomes_a_pod_of_this_node() {
        let own = parse(WEB.as_bytes(), "edge").expect("a valid manifest");
        let metadata = &own.pod.metadata;
        assert_eq!(metadata.name.as_deref(), Some("web-edge"));
        assert_eq!(metadata.namespace.as_deref(), Some("default"));
        assert_eq!(metadata.uid.as_ref(), Some(&own.uid));
        assert_eq!(own.uid.len(), 32);
        let spec = own.pod.spec.as_ref().expect("a spec");
        assert_eq!(spec.node_name.as_deref(), Some("edge"));
        assert_eq!(spec.containers[0].image_pull_policy.as_deref(), Some("Always"));
    }

    #[test]
    fn the_uid_follows_content_and_node() {
        let uid = |text: &str, node| parse(text.as_bytes(), node).expect("a valid manifest").uid;
        assert_eq!(uid(WEB, "edge"), uid(WEB, "edge"));
        assert_ne!(uid(WEB, "edge"), uid(WEB, "other"));
        assert_ne!(uid(WEB, "edge"), uid(&WEB.replace("image: web", "image: web:2"), "edge"));
    }

    #[test]
    fn the_first_of_two_manifests_of_a_name_is_the_pod() {
        let directory = tempfile::tempdir().expect("a directory");
        for (file, image) in [("a.yaml", "first"), ("b.yaml", "second"), ("c.yaml", "[")] {
            let text = WEB.replace("image: web", &format!("image: {image}"));
            fs::write(directory.path().join(file), text).expect("a file");
        }
        let pods = read_all(directory.path(), "edge");
        let images = pods.iter().map(|own| own.pod.spec.as_ref().and_then(|spec| spec.containers[0].image.clone()));
        assert_eq!(images.collect::<Vec<_>>(), [Some("first".to_owned())]);
    }

    #[test]
    fn a_manifest_needs_no_ending_and_an_editors_copy_is_none() {
        let directory = tempfile::tempdir().expect("a directory");
        for file in ["plain", "web.json", "web.txt", "other.yaml~", "plain~", ".hidden", ".web.yaml"] {
            fs::write(directory.path().join(file), WEB.replace("web", &format!("w{}", file.len()))).expect("a file");
        }
        let pods = read_all(directory.path(), "edge");
        let names: Vec<_> = pods.iter().filter_map(|own| own.pod.metadata.name.clone()).collect();
        assert_eq!(names, ["w5-edge", "w8-edge"]);
    }

    #[test]
    fn modes_of_files_are_octal_as_upstream_reads_them() {
        let volumes =
            "volumes: [{name: data, hostPath: {path: /}}, {name: c, downwardAPI: {defaultMode: 0640}}], containers:";
        let own = parse(WEB.replace("containers:", volumes).as_bytes(), "edge").expect("a valid manifest");
        let volumes = own.pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref()).expect("volumes");
        assert_eq!(volumes[1].downward_api.as_ref().and_then(|source| source.default_mode), Some(0o640));
    }

    #[test]
    fn what_is_no_pod_is_refused() {
        assert!(matches!(parse(b"kind: Service\napiVersion: v1\n", "edge"), Err(ManifestError::NotAPod)));
        let wrong = WEB.replace("containers:", "restartPolicy: Sometimes, containers:");
        let error = parse(wrong.as_bytes(), "edge").expect_err("no such policy").to_string();
        assert!(error.contains("spec.restartPolicy: Unsupported value: \"Sometimes\""), "{error}");
        assert!(matches!(parse(b"a: [", "edge"), Err(ManifestError::Syntax(_))));
        let owned = WEB.replace("containers:", "serviceAccountName: robot, containers:");
        let error = parse(owned.as_bytes(), "edge").expect_err("nobody knows the account").to_string();
        assert_eq!(error, "static pods may not reference serviceaccounts");
        let nameless = "apiVersion: v1\nkind: Pod\nspec: {containers: [{name: web, image: web}]}\n";
        assert!(matches!(parse(nameless.as_bytes(), "edge"), Err(ManifestError::Missing { field: "name" })));
    }
}
