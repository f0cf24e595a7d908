//! From an archive into the store.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use super::contents::Contents;
use super::{ImportError, docker, layout};
use crate::image::document::Config;
use crate::image::layer::{self, Expected};
use crate::image::store::{NewImage, Store};
use crate::image::{Digest, LayerRecord, Record, Reference};

/// Imports all images of an archive or layout that run on this machine. Blocks.
///
/// # Errors
/// When one of them is not complete in the store; those before it are.
pub fn import(store: &Store, source: &Path, name: Option<&Reference>) -> Result<Vec<Record>, ImportError> {
    let contents = Contents::open(store, source)?;
    let mut found = match (contents.read("index.json")?, contents.read("manifest.json")?) {
        (Some(index), docker) => layout::find(&contents, &index, docker.as_deref())?,
        (None, Some(manifest)) => docker::find(&contents, &manifest)?,
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

/// One image that an archive holds.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) names: Vec<Reference>,
    /// Digest by which the archive's index knows it; none in a docker-archive.
    pub(super) top: Option<Digest>,
    pub(super) manifest_content: Vec<u8>,
    pub(super) config_content: Vec<u8>,
    pub(super) config_digest: Digest,
    pub(super) config: Config,
    pub(super) layers: Vec<FoundLayer>,
}

#[derive(Debug)]
pub(super) struct FoundLayer {
    pub(super) name: String,
    pub(super) expected: Expected,
}

pub(super) fn reference(name: &str) -> Result<Reference, ImportError> {
    name.parse().map_err(|source| ImportError::Reference { name: name.to_owned(), source })
}

pub(super) fn required(contents: &Contents, name: &str) -> Result<Vec<u8>, ImportError> {
    contents.read(name)?.ok_or_else(|| ImportError::Missing { name: name.to_owned() })
}
