//! OCI layouts (image-spec `image-layout.md`): an `index.json`, and blobs by digest.

use std::collections::BTreeMap;

use oci_spec::image::ImageIndex;

use super::ImportError;
use super::contents::Contents;
use super::docker;
use super::import::{Found, FoundLayer, reference, required};
use crate::image::document::{self, BlobRef, Config, DocumentError, Manifest, Platform};
use crate::image::layer::Expected;
use crate::image::media::{Compression, Document};
use crate::image::{Digest, Reference};

/// How deep indexes may refer to indexes.
const INDEX_DEPTH: usize = 3;
/// containerd's annotation for a complete name, and the specification's, which often holds a mere tag.
pub(super) const FULL_NAME: &str = "io.containerd.image.name";
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// All images of the layout that run on this machine. Newer versions of Docker write their list beside it, which has
/// the complete names.
pub(super) fn find(contents: &Contents, index: &[u8], list: Option<&[u8]>) -> Result<Vec<Found>, ImportError> {
    let parsed: ImageIndex =
        serde_json::from_slice(index).map_err(|source| ImportError::List { name: "index.json", source })?;
    let list = list.map(docker::Item::parse_list).transpose()?.unwrap_or_default();
    let mut found: BTreeMap<Digest, Found> = BTreeMap::new();
    let mut elsewhere = None;
    for descriptor in parsed.manifests() {
        let text = descriptor.digest().as_ref();
        let top = text.parse().map_err(|source| DocumentError::Digest { document: "index", source })?;
        let annotations = descriptor.annotations().as_ref();
        let name =
            annotations.and_then(|all| all.get(FULL_NAME).or_else(|| all.get(REF_NAME).filter(|name| full(name))));
        let names: Vec<Reference> = name.map(|name| reference(name)).transpose()?.into_iter().collect();
        match find_one(contents, top, names) {
            // A layout may hold images for other machines beside ours.
            Err(ImportError::Document(error @ DocumentError::NoPlatform { .. })) => elsewhere = Some(error),
            Err(error) => return Err(error),
            Ok(mut image) => {
                for item in list.iter().filter(|item| item.config.ends_with(image.config_digest.hex())) {
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

fn find_one(contents: &Contents, top: Digest, names: Vec<Reference>) -> Result<Found, ImportError> {
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

pub(super) fn blob_name(digest: &Digest) -> String {
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
