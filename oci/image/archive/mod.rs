//! Archives of images: what `docker save` writes, OCI archives, and OCI layout directories.
//!
//! For the command line and for nodes without a registry. Everything is verified as in a pull. Imported images are
//! pinned: there may be no place to fetch them from again. It does not keep the archive.

mod contents;
mod export;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use oci_spec::image::ImageIndex;

use super::document::{self, BlobRef, Config, DocumentError, Manifest, Platform};
use super::layer::{self, Expected, LayerError};
use super::media::{Compression, Document};
use super::store::{NewImage, Store};
use super::{Digest, LayerRecord, Record, Reference, ReferenceError, StoreError, TarError};
use contents::Contents;
pub use export::{ExportError, export};

/// How deep indexes may refer to indexes.
const INDEX_DEPTH: usize = 3;
/// containerd's annotation for a complete name, and the specification's, which often holds a mere tag.
const FULL_NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Why an archive has not been imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// What was read.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is no tar archive.
    #[error("{} is not an archive of images", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: TarError,
    },
    /// It has neither an `index.json` nor a `manifest.json`.
    #[error("{} is neither an OCI layout nor a docker-archive: it has no index.json and no manifest.json", path.display())]
    Unknown {
        /// The file or directory.
        path: PathBuf,
    },
    /// Something that is referred to is not in it.
    #[error("{name} is missing from the archive")]
    Missing {
        /// What.
        name: String,
    },
    /// A name in it leads elsewhere.
    #[error("{name:?} is no name of a file in the archive")]
    Name {
        /// The name.
        name: String,
    },
    /// A document of unreasonable length.
    #[error("{name} is too long: {size} bytes")]
    TooLong {
        /// Which one.
        name: String,
        /// Its length.
        size: u64,
    },
    /// The list of images cannot be understood.
    #[error("invalid {name}")]
    List {
        /// `manifest.json` or `index.json`.
        name: &'static str,
        /// Where it goes wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The archive holds several images and one name was given for them.
    #[error("the archive has {count} images; they cannot all be called {name}")]
    Several {
        /// How many.
        count: usize,
        /// The name.
        name: Reference,
    },
    /// It names an image in a way that cannot be.
    #[error("invalid image name {name:?} in the archive")]
    Reference {
        /// The name.
        name: String,
        /// What is wrong.
        #[source]
        source: ReferenceError,
    },
    /// What it holds makes no image.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A blob is not what it is called.
    #[error("{name} has digest {actual}")]
    Digest {
        /// What it is called.
        name: String,
        /// What it is.
        actual: Digest,
    },
    /// A layer cannot be unpacked.
    #[error("layer {name}")]
    Layer {
        /// Its name in the archive.
        name: String,
        /// Why not.
        #[source]
        source: LayerError,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One image that an archive holds.
#[derive(Debug)]
struct Found {
    names: Vec<Reference>,
    /// Digest by which the archive's index knows it; none in a docker-archive.
    top: Option<Digest>,
    manifest_content: Vec<u8>,
    config_content: Vec<u8>,
    config_digest: Digest,
    config: Config,
    layers: Vec<FoundLayer>,
}

#[derive(Debug)]
struct FoundLayer {
    name: String,
    expected: Expected,
}

/// Imports all images of an archive or layout that run on this machine. Blocks.
///
/// # Errors
/// When one of them is not complete in the store; those before it are.
pub fn import(store: &Store, source: &Path, name: Option<&Reference>) -> Result<Vec<Record>, ImportError> {
    let contents = Contents::open(store, source)?;
    let mut found = match (contents.read("index.json")?, contents.read("manifest.json")?) {
        (Some(index), docker) => in_layout(&contents, &index, docker.as_deref())?,
        (None, Some(manifest)) => in_docker_archive(&contents, &manifest)?,
        (None, None) => return Err(ImportError::Unknown { path: source.to_owned() }),
    };
    if let Some(name) = name {
        match found.as_mut_slice() {
            [only] => only.names = vec![name.clone()],
            several => return Err(ImportError::Several { count: several.len(), name: name.clone() }),
        }
    }
    found.into_iter().map(|image| add(store, &contents, image)).collect()
}

/// Adds one image to the store, its layers side by side.
fn add(store: &Store, contents: &Contents, image: Found) -> Result<Record, ImportError> {
    let (lease, present) = store.lease(&image.config.diff_ids)?;
    let missing = image.layers.iter().filter(|layer| !present.contains_key(&layer.expected.diff_id));
    // The same layer may occur twice.
    let missing: BTreeMap<&Digest, &FoundLayer> = missing.map(|layer| (&layer.expected.diff_id, layer)).collect();
    let queue = Mutex::new(missing.into_values().collect::<Vec<_>>());
    let workers = std::thread::available_parallelism().map_or(1, usize::from).clamp(1, 4);
    let stored: Vec<Result<Vec<LayerRecord>, ImportError>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(|| add_layers(store, contents, &queue))).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let mut sizes = present;
    let mut failure = None;
    for result in stored {
        match result {
            Ok(layers) => sizes.extend(layers.into_iter().map(|layer| (layer.diff_id, layer.size))),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    if let Some(error) = failure {
        drop(lease);
        store.keep(Vec::new())?;
        return Err(error);
    }
    let size = |diff_id: &Digest| sizes.get(diff_id).copied().unwrap_or_default();
    let layers = image.config.diff_ids.iter();
    let record = Record {
        id: image.config_digest,
        manifest: Digest::of(&image.manifest_content),
        tags: image.names.iter().filter_map(Reference::tagged).collect(),
        digests: image.top.iter().flat_map(|top| image.names.iter().map(|name| name.with_digest(top))).collect(),
        layers: layers.map(|diff_id| LayerRecord { diff_id: diff_id.clone(), size: size(diff_id) }).collect(),
        defaults: image.config.defaults,
        pinned: true,
    };
    let image = NewImage { record, manifest: image.manifest_content, config: image.config_content };
    Ok(store.commit(image)?)
}

/// Works the queue off until it is empty or something fails.
fn add_layers(
    store: &Store,
    contents: &Contents,
    queue: &Mutex<Vec<&FoundLayer>>,
) -> Result<Vec<LayerRecord>, ImportError> {
    let next = || queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop();
    let mut added = Vec::new();
    while let Some(layer) = next() {
        let name = || layer.name.clone();
        let (source, _) = contents.stream(&layer.name)?.ok_or_else(|| ImportError::Missing { name: name() })?;
        let stored = layer::store_layer(store, source, &layer.expected);
        added.push(stored.map_err(|source| ImportError::Layer { name: name(), source })?);
    }
    Ok(added)
}

/// One item of `manifest.json`, as `docker save` writes it (moby `image/tarexport`).
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerItem {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl DockerItem {
    fn parse_list(content: &[u8]) -> Result<Vec<Self>, ImportError> {
        serde_json::from_slice(content).map_err(|source| ImportError::List { name: "manifest.json", source })
    }

    fn names(&self) -> Result<Vec<Reference>, ImportError> {
        self.repo_tags.iter().flatten().map(|name| reference(name)).collect()
    }
}

fn in_docker_archive(contents: &Contents, list: &[u8]) -> Result<Vec<Found>, ImportError> {
    let items = DockerItem::parse_list(list)?;
    let found = items.into_iter().map(|item| {
        let config_content = required(contents, &item.config)?;
        let config = Config::parse(&config_content, item.layers.len(), &Platform::of_host())?;
        let layers = item.layers.iter().zip(&config.diff_ids).map(|(name, diff_id)| {
            let expected = Expected { blob: None, diff_id: diff_id.clone(), compression: None };
            FoundLayer { name: name.clone(), expected }
        });
        let layers: Vec<FoundLayer> = layers.collect();
        Ok(Found {
            names: item.names()?,
            top: None,
            manifest_content: manifest_of(&config_content, &config),
            config_digest: Digest::of(&config_content),
            config_content,
            config,
            layers,
        })
    });
    found.collect()
}

/// A docker-archive has no manifest; this one says the same in the words of the image specification.
fn manifest_of(config_content: &[u8], config: &Config) -> Vec<u8> {
    let layers = config.diff_ids.iter().map(|diff_id| {
        serde_json::json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": diff_id.to_string(), "size": 0,
        })
    });
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": Digest::of(config_content).to_string(), "size": config_content.len(),
        },
        "layers": layers.collect::<Vec<_>>(),
    });
    manifest.to_string().into_bytes()
}

fn in_layout(contents: &Contents, index: &[u8], docker: Option<&[u8]>) -> Result<Vec<Found>, ImportError> {
    let parsed: ImageIndex =
        serde_json::from_slice(index).map_err(|source| ImportError::List { name: "index.json", source })?;
    let docker = docker.map(DockerItem::parse_list).transpose()?.unwrap_or_default();
    let mut found: BTreeMap<Digest, Found> = BTreeMap::new();
    let mut elsewhere = None;
    for descriptor in parsed.manifests() {
        let text = descriptor.digest().as_ref();
        let top = text.parse().map_err(|source| DocumentError::Digest { document: "index", source })?;
        let annotations = descriptor.annotations().as_ref();
        let name =
            annotations.and_then(|all| all.get(FULL_NAME).or_else(|| all.get(REF_NAME).filter(|name| full(name))));
        let names: Vec<Reference> = name.map(|name| reference(name)).transpose()?.into_iter().collect();
        match in_layout_at(contents, top, names) {
            // A layout may hold images for other machines beside ours.
            Err(ImportError::Document(error @ DocumentError::NoPlatform { .. })) => elsewhere = Some(error),
            Err(error) => return Err(error),
            Ok(mut image) => {
                for item in docker.iter().filter(|item| item.config.ends_with(image.config_digest.hex())) {
                    image.names.extend(item.names()?);
                }
                match found.get_mut(&image.config_digest) {
                    Some(known) => known.names.extend(image.names),
                    None => drop(found.insert(image.config_digest.clone(), image)),
                }
            }
        }
    }
    match elsewhere {
        Some(error) if found.is_empty() => Err(error.into()),
        _ => Ok(found.into_values().collect()),
    }
}

fn in_layout_at(contents: &Contents, top: Digest, names: Vec<Reference>) -> Result<Found, ImportError> {
    let platform = Platform::of_host();
    let mut content = blob(contents, &top)?;
    for _ in 0..INDEX_DEPTH {
        if document::kind(&content, None)? == Document::Index {
            let BlobRef { digest, .. } = document::select(&content, &platform)?;
            content = blob(contents, &digest)?;
            continue;
        }
        let manifest = Manifest::parse(&content)?;
        let config_content = blob(contents, &manifest.config.digest)?;
        let config = Config::parse(&config_content, manifest.layers.len(), &platform)?;
        let layers = manifest.layers.iter().zip(&config.diff_ids);
        let layers = layers.map(|((blob, compression), diff_id)| found_layer(blob, *compression, diff_id)).collect();
        let config_digest = manifest.config.digest;
        let manifest_content = content;
        return Ok(Found { names, top: Some(top), manifest_content, config_content, config_digest, config, layers });
    }
    Err(ImportError::Missing { name: format!("a manifest for {top}") })
}

fn found_layer(blob: &BlobRef, compression: Compression, diff_id: &Digest) -> FoundLayer {
    let (blob_digest, diff_id) = (Some(blob.digest.clone()), diff_id.clone());
    let expected = Expected { blob: blob_digest, diff_id, compression: Some(compression) };
    FoundLayer { name: blob_name(&blob.digest), expected }
}

/// Whether an annotation is a name of its own and not a tag to be put behind one.
fn full(name: &str) -> bool {
    name.contains(['/', ':', '@'])
}

fn reference(name: &str) -> Result<Reference, ImportError> {
    name.parse().map_err(|source| ImportError::Reference { name: name.to_owned(), source })
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

fn blob(contents: &Contents, digest: &Digest) -> Result<Vec<u8>, ImportError> {
    let name = blob_name(digest);
    let content = required(contents, &name)?;
    match digest.matches(&content) {
        true => Ok(content),
        false => Err(ImportError::Digest { name, actual: Digest::of(&content) }),
    }
}

fn required(contents: &Contents, name: &str) -> Result<Vec<u8>, ImportError> {
    contents.read(name)?.ok_or_else(|| ImportError::Missing { name: name.to_owned() })
}

#[cfg(test)]
mod tests;
